"""Amplifications against dense linear algebra, derivatives of runs against differences, and the rules of the ascent."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from priorloom.diagnose import method_map
from priorloom.diagnose.method_map import MethodMap, Point
from priorloom.diagnose.perturbation import local_lipschitz, norm, random_changes, worst_perturbation
from priorloom.diagnose.stability import Budget, noise_norm, stability
from priorloom.errors import InputError
from priorloom.modality import Case
from priorloom.operator import Identity
from priorloom.reconstruction import Method, reconstruct
from priorloom.registry import Registry
from priorloom.space import Space


class Matrix:
    """``y -> M y`` with its transposed derivative."""

    def __init__(self, M: Tensor) -> None:
        self.M = M

    def __call__(self, y: Tensor) -> Tensor:
        image: Tensor = self.M @ y
        return image

    def at(self, y: Tensor) -> Point:
        return Point(self.M @ y, lambda u: self.M.mH @ u)


def matrix(dtype: torch.dtype, values: tuple[float, ...], columns: int = 40) -> Tensor:
    """A matrix with these singular values."""
    generator = torch.Generator().manual_seed(0)
    k = len(values)
    U, _ = torch.linalg.qr(torch.randn(30, k, dtype=dtype, generator=generator))
    V, _ = torch.linalg.qr(torch.randn(columns, k, dtype=dtype, generator=generator))
    M: Tensor = (U * torch.tensor(values, dtype=dtype)) @ V.mH
    return M


def dense(apply: Any, inputs: int, shape: tuple[int, ...]) -> Tensor:
    """The matrix of a linear map on real tensors, in double precision."""
    with torch.no_grad():
        found: Tensor = apply(torch.eye(inputs).reshape(inputs, *shape)).reshape(inputs, -1).double().T
    return found


@pytest.fixture(scope="module")
def ct(registry: Registry) -> Case:
    """Ellipses of 16 x 16 pixels in 12 views."""
    modality = registry.modality("ct")
    (case,) = modality.cases(registry, {"views": 12}, seed=0, images=("ellipses",), image_shape=(16, 16))
    return case


@pytest.fixture(scope="module")
def tiny_ct(registry: Registry) -> Case:
    """Ellipses of 12 x 12 pixels in 8 views, in double precision."""
    modality = registry.modality("ct")
    (case,) = modality.cases(registry, {"views": 8}, seed=0, images=("ellipses",), image_shape=(12, 12))
    return replace(
        case, operator=case.operator.double(), measurement=case.measurement.double(),
        truth=None if case.truth is None else case.truth.double(),
    )  # fmt: skip


@pytest.fixture(scope="module")
def mri(registry: Registry) -> Case:
    """The phantom of 16 x 16 pixels, two coils, half of k-space."""
    (case,) = registry.modality("mri").cases(
        registry, {}, seed=0, image_shape=(16, 16), coils=2, acceleration=2.0, noise=0.02
    )
    return case


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_of_a_matrix_the_constant_is_the_singular_value_and_the_worst_change_its_vector(dtype: torch.dtype) -> None:
    M = matrix(dtype, (3.0, 2.0, 1.5, 1.0, 0.5))
    right = torch.linalg.svd(M).Vh[0].conj()
    y = torch.randn(40, dtype=dtype, generator=torch.Generator().manual_seed(5))
    local = local_lipschitz(Matrix(M), y, 0.1, iterations=8)
    assert local.value == pytest.approx(3.0, rel=1e-3)
    assert local.error < 0.03
    assert local.agreement == pytest.approx(1.0, rel=1e-6)
    worst = worst_perturbation(Matrix(M), y, 0.5, iterations=20, restarts=2, seed=1)
    assert worst.amplification == pytest.approx(3.0, rel=1e-3)
    assert worst.change == pytest.approx(1.5, rel=1e-3)
    assert float((right.conj() @ worst.d).abs()) / norm(worst.d) == pytest.approx(1.0, abs=1e-2)
    assert worst.seeds == (1, 2)
    draws = random_changes(Matrix(M), y, 0.5, draws=200)
    assert draws.amplification < 2.0
    mean_square = sum(c**2 for c in draws.changes) / 200 / 0.25
    assert mean_square == pytest.approx(norm(M) ** 2 / 40, rel=0.15)  # |M|_F^2 / n


def test_the_error_bar_holds_a_singular_value() -> None:
    values = (3.0, 2.9, 2.8, 2.0, 1.0)
    for iterations in (1, 2, 3):
        local = local_lipschitz(Matrix(matrix(torch.float64, values)), torch.zeros(40).double(), 1.0,
                                iterations=iterations, seed=3)  # fmt: skip
        nearest = min(abs(v - local.value) for v in (*values, 0.0))
        assert nearest <= local.error * (1 + local.error / local.value) + 1e-12
        assert local.value <= 3.0 + 1e-9


def test_entries_that_were_not_measured_stay_as_they_are() -> None:
    M = matrix(torch.float64, (3.0, 2.0, 1.0))
    free = torch.arange(40) % 2 == 0
    largest = float(torch.linalg.svdvals(M[:, free])[0])
    y = torch.zeros(40, dtype=torch.float64)
    worst = worst_perturbation(Matrix(M), y, 2.0, iterations=40, free=free)
    assert worst.amplification == pytest.approx(largest, rel=1e-2)
    assert not bool(worst.d[~free].any())
    assert local_lipschitz(Matrix(M), y, 1.0, free=free).value == pytest.approx(largest, rel=1e-3)


class Bumpy:
    """A map on which gradient steps overshoot: ``y -> sin(5 y)`` behind a matrix."""

    def __init__(self) -> None:
        self.M = matrix(torch.float64, (3.0, 2.0, 1.0))
        self.seen: list[Tensor] = []

    def __call__(self, y: Tensor) -> Tensor:
        return torch.sin(5 * (self.M @ y))

    def at(self, y: Tensor) -> Point:
        self.seen.append(y)
        return Point(self(y), lambda u: self.M.T @ (5 * torch.cos(5 * (self.M @ y)) * u))


def test_the_ascent_never_falls_and_never_leaves_the_ball() -> None:
    F = Bumpy()
    y = torch.randn(40, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    worst = worst_perturbation(F, y, 0.7, iterations=15, restarts=3, first=[torch.ones(40, dtype=torch.float64)])
    assert len(worst.history) == 4
    assert worst.seeds == (None, 0, 1, 2)
    for history in worst.history:
        assert list(history) == sorted(history)
        assert history[-1] > history[0]
    assert all(norm(seen - y) <= 0.7 * (1 + 1e-9) for seen in F.seen)
    assert worst.change == pytest.approx(max(h[-1] for h in worst.history))
    assert worst.change == pytest.approx(norm(F(y + worst.d) - F(y)))
    assert torch.equal(worst.image, F(y + worst.d))


@pytest.mark.parametrize("method", ["fbp", "tikhonov"])
def test_linear_methods_against_their_dense_matrix(ct: Case, registry: Registry, method: str) -> None:
    A = ct.operator
    lam = 50.0
    if method == "fbp":
        M = dense(A.pseudo_inverse, A.range.size, A.range.shape)
    else:
        K = dense(A, A.domain.size, A.domain.shape)
        M = torch.linalg.solve(K.T @ K + lam * torch.eye(A.domain.size, dtype=torch.float64), K.T)
    _, sigma, Vh = torch.linalg.svd(M)
    F = MethodMap(ct, Method(method, {"prior.lam": lam, "solver.tolerance": 1e-6} if method == "tikhonov" else {}),
                  registry=registry)  # fmt: skip
    radius = noise_norm(ct, ct.noise_std or 0.0)
    local = local_lipschitz(F, ct.measurement, radius, iterations=16)
    assert local.value == pytest.approx(float(sigma[0]), rel=1e-2)
    worst = worst_perturbation(F, ct.measurement, radius, iterations=4, restarts=0, first=[local.direction])
    assert worst.amplification == pytest.approx(float(sigma[0]), rel=1e-2)
    # Singular values that are alike have no vectors of their own: those within 5 % span the worst direction.
    span = Vh[: int((sigma > 0.95 * sigma[0]).sum())]
    share = float((span @ worst.d.flatten().double()).norm()) / norm(worst.d)
    assert share > 0.99


def test_tv_denoising_is_nonexpansive(ct: Case, registry: Registry) -> None:
    """With A = I the minimiser is a prox, whose Lipschitz constant is 1."""
    assert ct.truth is not None
    space = Space((16, 16))
    noise = 0.1 * float(ct.truth.max())
    y = ct.truth + noise * space.random(torch.Generator().manual_seed(0))
    case = Case("denoising", "ct", Identity(space), y, ct.truth, noise)
    F = MethodMap(case, Method("tv-pdhg", {"prior.lam": 0.05}), registry=registry)
    found = stability(F, case, noise, budget=Budget(local=4, iterations=3, restarts=0, draws=2))
    for amplification in (found.local.value, found.worst.amplification, found.draws.amplification):
        assert amplification <= 1 + 1e-3
    assert found.worst.amplification > found.draws.amplification
    assert found.worst.amplification > 0.7


METHODS: tuple[tuple[str, dict[str, Any], float], ...] = (
    ("fbp", {}, 1e-2),
    ("tikhonov", {}, 1e-2),
    ("cgls", {}, 1e-2),
    ("tv-pdhg", {"prior.lam": 3.0, "solver.tolerance": 1e-6}, 1e-2),
    ("pnp-drs", {"denoiser.name": "ridge"}, 0.3),
    ("learned-primal-dual", {}, 0.3),
)
"""With the step of the difference, in norms of the noise: networks compute in single precision."""


@pytest.mark.parametrize(("name", "settings", "step"), METHODS, ids=[name for name, _, _ in METHODS])
def test_the_derivative_of_a_run_against_differences(
    tiny_ct: Case, registry: Registry, monkeypatch: pytest.MonkeyPatch, name: str, settings: dict[str, Any], step: float
) -> None:
    monkeypatch.setattr(method_map, "TAIL", 0.0)
    monkeypatch.setattr(method_map, "LAYERS", 10000)
    F = MethodMap(tiny_ct, Method(name, settings), registry=registry)
    y, A = tiny_ct.measurement, tiny_ct.operator
    generator = torch.Generator().manual_seed(4)
    v = A(torch.randn(12, 12, generator=generator).to(y.dtype))
    h = step * noise_norm(tiny_ct, tiny_ct.noise_std or 0.0) / norm(v)
    difference = (F(y + h * v) - F(y - h * v)) / (2 * h)
    u = difference + 0.1 * difference.std() * torch.randn(12, 12, generator=generator)
    pulled = F.at(y).pull(u)
    assert float((pulled * v).sum()) == pytest.approx(float((u * difference).sum()), rel=0.03)
    assert F.derivative
    assert (F.runs, F.pulls) == (3, 1)


def test_a_run_that_is_too_long_is_differentiated_from_its_end(
    tiny_ct: Case, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half-quadratic splitting and ADMM read the measurement once, at their start: what they hand on is not lost where
    the start is not reached."""
    y, u = tiny_ct.measurement, torch.ones(12, 12, dtype=torch.float64)
    method = Method("pnp-hqs", {"denoiser.name": "ridge", "steps": 40, "solver.max_iterations": 60})
    whole = MethodMap(tiny_ct, method, registry=registry)
    expected = whole.at(y).pull(u)
    assert "all" in whole.derivative
    monkeypatch.setattr(method_map, "LAYERS", 16)
    cut = MethodMap(tiny_ct, method, registry=registry)
    found = cut.at(y).pull(u)
    assert "the last" in cut.derivative
    assert norm(found - expected) < 0.5 * norm(expected)


@pytest.mark.parametrize("name", ["tv-pdhg", "zero-filled-unet", "zero-filled"])
def test_the_map_is_the_reconstruction(mri: Case, registry: Registry, name: str) -> None:
    F = MethodMap(mri, Method(name), registry=registry)
    expected = reconstruct(mri, name, registry=registry).image
    assert torch.equal(F(mri.measurement), expected)
    assert torch.equal(F.at(mri.measurement).image, expected)


def test_kspace_that_was_not_sampled_stays_zero(mri: Case, registry: Registry) -> None:
    F = MethodMap(mri, Method("zero-filled"), registry=registry)
    found = stability(F, mri, 0.02, level=2.0, budget=Budget(local=6, iterations=4, restarts=1, draws=2))
    sampled = mri.measurement != 0
    assert 0.3 < float(sampled.double().mean()) < 0.8
    assert not bool(found.worst.d[~sampled].any())
    assert found.noise == pytest.approx(0.02 * math.sqrt(int(sampled.sum())))
    assert norm(found.worst.d) == pytest.approx(2 * found.noise, rel=1e-5)
    A = mri.operator
    rows = A.range.size
    basis = torch.eye(rows, dtype=torch.complex64).reshape(rows, *A.range.shape)
    with torch.no_grad():
        M = A.pseudo_inverse(basis).reshape(rows, -1).T[:, sampled.flatten()]
    # The scale is taken from the measurement, but divides and multiplies.
    assert found.worst.amplification == pytest.approx(float(torch.linalg.svdvals(M)[0]), rel=1e-2)
    assert found.errors is not None
    assert found.errors.worst > found.errors.plain
    assert found.relative(2.0) == pytest.approx(2 * norm(mri.measurement) / norm(found.image))
    assert found.over_random == pytest.approx(found.worst.amplification / found.draws.amplification)


def test_a_method_without_a_derivative_is_one_clear_line(ct: Case, registry: Registry) -> None:
    F = MethodMap(ct, Method("pnp-pgd", {"denoiser.name": "tv-chambolle", "solver.max_iterations": 3}),
                  registry=registry)  # fmt: skip
    with pytest.raises(InputError, match=r"derivative of method 'pnp-pgd'.*no gradient.*drunet") as raised:
        local_lipschitz(F, ct.measurement, 1.0, iterations=1)
    assert "\n" not in str(raised.value)


def test_what_cannot_be_searched_is_refused(ct: Case, registry: Registry) -> None:
    F, y = Matrix(torch.eye(3)), torch.zeros(3)
    with pytest.raises(InputError, match="radius of a perturbation: expected a positive number, got 0"):
        worst_perturbation(F, y, 0.0)
    with pytest.raises(InputError, match="size of a change"):
        local_lipschitz(F, y, math.inf)
    with pytest.raises(InputError, match="at least 1, got 0"):
        random_changes(F, y, 1.0, draws=0)
    with pytest.raises(InputError, match="starts of the ascent"):
        worst_perturbation(F, y, 1.0, restarts=0)
    with pytest.raises(InputError, match="noise of case 'ellipses': expected a positive level"):
        noise_norm(ct, 0.0)
    with pytest.raises(InputError, match="level of a perturbation"):
        stability(MethodMap(ct, Method("fbp"), registry=registry), ct, 1.0, level=-1.0)
