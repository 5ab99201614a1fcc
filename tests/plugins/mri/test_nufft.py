"""Non-Cartesian operators against the sum that defines them, sigpy, and the Cartesian operators."""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import sigpy
import torch
from torch import Tensor

from priorloom import LinearOperator, Problem, Registry, Term, run
from priorloom.errors import InputError, PluginError
from priorloom.functional import LeastSquares
from priorloom.modality import Case
from priorloom.reconstruction import reconstruct
from priorloom.steps import CG
from priorloom.testing import check_operator
from priorloom_mri import nonuniform
from priorloom_mri.coils import birdcage_maps
from priorloom_mri.nonuniform import NonuniformFFT
from priorloom_mri.nufft import NonCartesian, nufft, radial2d, spiral2d
from priorloom_mri.operators import fourier2d, sense2d
from priorloom_mri.phantoms import phantom
from priorloom_mri.trajectories import kooshball, radial, spiral, stack_of_stars

SHAPES = [(10, 7), (9, 12), (6, 5, 4)]
TOLERANCES = {torch.complex64: 3e-6, torch.complex128: 1e-11}


def fourier_matrix(k: Tensor, shape: tuple[int, ...]) -> Tensor:
    """``1 / sqrt(N) exp(-2 pi i k . r)``, [samples, pixels], from the definition."""
    r = torch.stack(torch.meshgrid(*(torch.arange(n) - n // 2 for n in shape), indexing="ij"), -1).reshape(
        -1, len(shape)
    )
    return torch.exp(-2j * math.pi * (k.reshape(-1, len(shape)) @ r.double().T)) / math.sqrt(math.prod(shape))


def points(axes: int, generator: torch.Generator, *samples: int) -> Tensor:
    return torch.rand(*samples, axes, dtype=torch.float64, generator=generator) - 0.5


def coil_maps(shape: tuple[int, ...], generator: torch.Generator, coils: int = 3) -> Tensor:
    return torch.randn(coils, *shape, dtype=torch.complex64, generator=generator)


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


class Pair(LinearOperator):
    """A non-Cartesian operator whose normal operator is the pair of nonuniform FFTs."""

    def __init__(self, A: LinearOperator) -> None:
        super().__init__(A.domain, A.range)
        self.A = A

    def _forward(self, x: Tensor) -> Tensor:
        return self.A._forward(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.A._adjoint(y)


@pytest.mark.parametrize("dtype", list(TOLERANCES))
@pytest.mark.parametrize("shape", SHAPES)
def test_operator_is_its_definition(shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator) -> None:
    k, maps = points(len(shape), generator, 5, 8), coil_maps(shape, generator)
    A = nufft(image_shape=shape, trajectory=k, maps=maps)
    A = A.double() if dtype == torch.complex128 else A
    x, y = A.domain.random(generator, (2,)), A.range.random(generator, (2,))
    F, S = fourier_matrix(k, shape), maps.to(torch.complex128).flatten(1)
    Z = x.to(torch.complex128).flatten(1)[:, None] * S
    assert distance(A(x), (Z @ F.T).reshape(2, 3, 5, 8)) < TOLERANCES[dtype]
    back = (S.conj() * (y.to(torch.complex128).flatten(2) @ F.conj())).sum(1)
    assert distance(A.adjoint(y), back.reshape(2, *shape)) < TOLERANCES[dtype]
    normal = (S.conj() * (Z @ F.T @ F.conj())).sum(1)
    assert distance(A.normal(x), normal.reshape(2, *shape)) < TOLERANCES[dtype]


@pytest.mark.parametrize("shape", SHAPES)
def test_without_maps_there_is_no_coil_axis(shape: tuple[int, ...], generator: torch.Generator) -> None:
    k = points(len(shape), generator, 40)
    A = nufft(image_shape=shape, trajectory=k)
    x = A.domain.random(generator, (2,))
    assert A.range.shape == (40,)
    expected = (x.to(torch.complex128).flatten(1) @ fourier_matrix(k, shape).T).to(torch.complex64)
    assert distance(A(x), expected) < 3e-6
    assert distance(A.normal(x), A.adjoint(A(x))) < 3e-6


def test_agrees_with_sigpy(generator: torch.Generator) -> None:
    shape, k = (32, 24), points(2, generator, 300)
    x = torch.randn(*shape, dtype=torch.complex64, generator=generator)
    theirs = sigpy.nufft(x.numpy(), k.numpy() * np.array(shape), oversamp=2, width=6)
    assert distance(nufft(image_shape=shape, trajectory=k)(x), torch.from_numpy(theirs)) < 1e-3


@pytest.mark.parametrize("shape", [(16, 12), (15, 12), (9, 7)])
def test_cartesian_points_give_the_cartesian_operators(shape: tuple[int, int], generator: torch.Generator) -> None:
    axes = [(torch.arange(n, dtype=torch.float64) - n // 2) / n for n in shape]
    k, maps = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1), coil_maps(shape, generator)
    A, B = nufft(image_shape=shape, trajectory=k, maps=maps), sense2d(maps=maps)
    x, y = A.domain.random(generator), A.range.random(generator)
    assert A.range == B.range
    for name in ("forward", "normal"):
        assert distance(getattr(A, name)(x), getattr(B, name)(x)) < 5e-6
    for name in ("adjoint", "pseudo_inverse"):
        assert distance(getattr(A, name)(y), getattr(B, name)(y)) < 2e-5
    single = nufft(image_shape=shape, trajectory=k)
    assert distance(single(x), fourier2d(image_shape=shape)(x)) < 5e-6
    torch.testing.assert_close(single.density, torch.ones(shape), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "A",
    [
        radial2d(image_shape=(13, 10), spokes=7, ordering="golden"),
        nufft(image_shape=(6, 5, 4), trajectory=stack_of_stars(3, 4, 8)),
        nufft(image_shape=(6, 5, 4), trajectory=kooshball(9, 8), density="ramp"),
        spiral2d(image_shape=(10, 9), interleaves=3),
    ],
    ids=["radial", "stack-of-stars", "kooshball", "spiral"],
)
def test_conforms(A: NonCartesian) -> None:
    check_operator(A)
    check_operator(A.toeplitz)


def test_normal_operator_of_many_coils_and_images_in_chunks(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    A = nufft(image_shape=(12, 9), trajectory=points(2, generator, 50), maps=coil_maps((12, 9), generator, 5))
    x = A.domain.random(generator, (3,))
    whole = A(x), A.adjoint(A(x)), A.normal(x)
    for images in (1, 2, 7):
        monkeypatch.setattr("priorloom_mri.toeplitz.CHUNK_BYTES", {"cpu": images * 12 * 9 * 8})
        for a, b in zip((A(x), A.adjoint(A(x)), A.normal(x)), whole, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_pair_is_adjoint_to_rounding_where_the_tolerance_is_coarse(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(nonuniform.TOLERANCE, torch.complex128, 1e-3)
    A = nufft(image_shape=(20, 16), trajectory=points(2, generator, 200)).double()
    x, y = A.domain.random(generator), A.range.random(generator)
    gap = torch.vdot(A(x).flatten(), y.flatten()) - torch.vdot(x.flatten(), A.adjoint(y).flatten())
    assert float(gap.abs() / (A(x).norm() * y.norm())) < 1e-12


@pytest.mark.parametrize("dtype", list(TOLERANCES))
@pytest.mark.parametrize("shape", SHAPES)
def test_path_for_cuda_is_the_same_transform(
    shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator
) -> None:
    # pytorch-finufft takes tensors of both devices; on CUDA it calls cufinufft with the same arguments.
    k = points(len(shape), generator, 40)
    transform = NonuniformFFT(shape, k, dtype)
    x = torch.randn(3, *shape, dtype=dtype, generator=generator)
    y = torch.randn(3, 40, dtype=dtype, generator=generator)
    assert distance(transform._forward_torch(x), transform.forward(x)) < TOLERANCES[dtype]
    assert distance(transform._adjoint_torch(y), transform.adjoint(y)) < TOLERANCES[dtype]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_computes_the_same_on_cuda(generator: torch.Generator) -> None:
    pytest.importorskip("cufinufft", reason="no cufinufft")
    A = radial2d(maps=birdcage_maps(4, (32, 32)), spokes=20)
    B = copy.deepcopy(A).cuda()
    x, y = A.domain.random(generator, (2,)), A.range.random(generator, (2,))
    for name, given in (("forward", x), ("normal", x), ("adjoint", y), ("pseudo_inverse", y)):
        assert distance(getattr(B, name)(given.cuda()).cpu(), getattr(A, name)(given)) < 1e-5


def test_threads_share_an_operator(generator: torch.Generator) -> None:
    A = radial2d(maps=birdcage_maps(4, (32, 32)), spokes=20)
    inputs = A.domain.random(generator, (8,))
    expected = [A(x) for x in inputs]
    found: dict[int, Tensor] = {}
    fresh = copy.deepcopy(A)  # so that the threads also make the plan

    def work(i: int) -> None:
        for _ in range(5):
            found[i] = fresh(inputs[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for i, y in enumerate(expected):
        torch.testing.assert_close(found[i], y, rtol=1e-5, atol=1e-6)


def test_same_bytes_every_time_on_any_number_of_threads(generator: torch.Generator) -> None:
    A = radial2d(maps=birdcage_maps(3, (32, 32)), spokes=20)
    y = A.range.random(generator)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        first = A.adjoint(y)
        torch.set_num_threads(2)
        assert all(torch.equal(A.adjoint(y), first) for _ in range(20))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(copy.deepcopy(A).normal(first), A.normal(first))


def test_trajectory_keeps_its_precision(generator: torch.Generator) -> None:
    k = points(2, generator, 30)
    A = nufft(image_shape=(8, 8), trajectory=k)
    for moved in (A.float(), A.double(), copy.deepcopy(A).to(torch.float32)):
        assert torch.equal(moved.trajectory, k)


def test_conjugate_gradients_agree_with_the_pair(generator: torch.Generator) -> None:
    shape = (48, 48)
    A = radial2d(maps=birdcage_maps(8, shape), spokes=24)
    truth = phantom(shape, generator)
    y = A(truth) + 0.01 * A.range.random(generator)
    prior = Registry.discover().prior("tikhonov", A.domain, lam=0.02)
    # Converged: on its way CG in single precision is a matter of rounding, because a few singular values, those of the
    # centre of k-space, are far above the others.
    found = [run(CG(), Problem(Term(LeastSquares(A.range, y), B), prior), n=400, tol=1e-6) for B in (A, Pair(A))]
    assert all(f.converged for f in found)
    assert distance(found[0].x, found[1].x) < 1e-3
    assert distance(found[0].x, truth) < 0.6 * distance(A.pseudo_inverse(y), truth)


def test_conjugate_gradients_agree_on_their_way_in_double_precision(generator: torch.Generator) -> None:
    A = radial2d(maps=birdcage_maps(4, (32, 32)), spokes=20).double()
    y = A(phantom((32, 32), generator).to(torch.complex128))
    prior = Registry.discover().prior("tikhonov", A.domain, lam=0.01)
    found = [run(CG(), Problem(Term(LeastSquares(A.range, y), B), prior), n=8, tol=1e-12).x for B in (A, Pair(A))]
    assert distance(found[0], found[1]) < 1e-6


@pytest.mark.parametrize("method", ["zero-filled", "cg-sense", "l1-wavelet", "tv-pdhg"])
def test_methods_run(method: str, generator: torch.Generator) -> None:
    A = radial2d(maps=birdcage_maps(4, (48, 48)), spokes=24, ordering="golden")
    truth = phantom((48, 48), generator)
    case = Case("radial", "mri", A, A(truth) + 0.01 * A.range.random(generator), truth, noise_std=0.01)
    result = reconstruct(case, method)
    direct = distance(A.pseudo_inverse(case.measurement), truth)
    assert distance(result.image, truth) < (1.001 if method == "zero-filled" else 0.75) * direct
    assert result.converged is not False


@pytest.mark.parametrize(
    "settings",
    [{"name": "mri.radial2d", "spokes": 40}, {"name": "mri.spiral2d", "interleaves": 6}],
    ids=["radial", "spiral"],
)
def test_modality_simulates_and_describes(settings: dict[str, Any]) -> None:
    registry = Registry.discover()
    mri = registry.modality("mri")
    (case,) = mri.cases(registry, settings, seed=0, coils=4, noise=0.1, image_shape=(48, 48))
    assert isinstance(case.operator, NonCartesian)
    facts = mri.describe(case.operator)
    assert (facts["coils"], facts["sampling"]) == (4, "non-Cartesian")
    assert facts["samples per pixel"] == pytest.approx(case.operator.range.size / 4 / 48**2, abs=1e-3)
    assert case.metadata["sampling"] == "non-Cartesian"
    assert "mask" not in case.metadata
    assert mri.noise_std(case) == pytest.approx(0.1, rel=0.15)
    direct = reconstruct(case, "zero-filled", registry=registry)
    assert direct.scale == pytest.approx(float(case.truth.abs().quantile(0.99)), rel=0.3)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trajectory": torch.full((4, 2), 3.1)}, r"\[-0.5, 0.5\] cycles per pixel, got up to 3.1; divide radians"),
        (
            {"trajectory": torch.zeros(4, 3)},
            r"trajectory of mri.nufft: expected real numbers .* got \[4, 3\]",
        ),
        ({"trajectory": torch.zeros(4, 2, dtype=torch.complex64)}, r"got complex \[4, 2\]"),
        ({"trajectory": torch.zeros(0, 2)}, r"got \[0, 2\]"),
        ({"trajectory": torch.full((4, 2), math.nan)}, "finite values"),
        ({"maps": torch.ones(3, 8, 9, dtype=torch.complex64)}, r"maps of mri.nufft: expected shape \[coils, 8, 8\]"),
        ({"maps": torch.zeros(3, 8, 8)}, "not all zero"),
        ({"image_shape": (8,)}, "two or three positive sizes"),
        ({"image_shape": (8, 0)}, "two or three positive sizes"),
        ({"density": torch.ones(5)}, r"shape \[4\], got shape \[5\]"),
        ({"density": -torch.ones(4)}, "negative or not finite"),
        ({"density": torch.ones(4) + 0j}, r"expected real, finite, .*got complex, shape \[4\]"),
        ({"image_shape": (200_000, 200_000)}, "memory of mri.nufft with 40000000000 pixels.* GiB|TiB; use fewer"),
    ],
)
def test_bad_input_is_refused_in_one_line(changes: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"image_shape": (8, 8), "trajectory": torch.zeros(4, 2), **changes}
    with pytest.raises(InputError, match=message) as caught:
        nufft(**given)
    assert "\n" not in str(caught.value)


def test_factories_refuse_what_makes_no_trajectory() -> None:
    with pytest.raises(InputError, match=r"mri.radial2d needs parameter 'image_shape'"):
        radial2d(spokes=3)
    with pytest.raises(InputError, match="spokes and readout"):
        radial2d(image_shape=(8, 8), spokes=0)
    with pytest.raises(InputError, match="interleaves"):
        spiral2d(image_shape=(8, 8), interleaves=0)
    with pytest.raises(InputError, match="turns"):
        spiral2d(image_shape=(8, 8), interleaves=2, turns=-1.0)
    with pytest.raises(InputError, match=r"turns of mri.spiral2d: expected a positive number, got nan"):
        spiral2d(image_shape=(8, 8), interleaves=2, turns=float("nan"))
    with pytest.raises(InputError, match=r"readout of a trajectory: .* got \(3, 0\)"):
        radial2d(image_shape=(8, 8), spokes=3, readout=0)
    with pytest.raises(InputError, match=r"readout of a trajectory: .* got \(3, 0\)"):
        spiral2d(image_shape=(8, 8), interleaves=3, readout=0)
    for shape in ((-8, -8), (0, 0)):
        with pytest.raises(InputError, match=r"image_shape of mri.spiral2d: expected positive sizes"):
            spiral2d(image_shape=shape, interleaves=3)


@pytest.mark.parametrize(
    "make",
    [
        lambda: radial(4096, 4096), lambda: spiral(2, 2**20, 9.0), lambda: kooshball(4096, 4096),
        lambda: stack_of_stars(16, 1024, 1024),
    ],
)  # fmt: skip
def test_trajectories_beyond_the_memory_are_refused(
    monkeypatch: pytest.MonkeyPatch, make: Callable[[], torch.Tensor]
) -> None:
    monkeypatch.setenv("PRIORLOOM_MEMORY_GIB", "0.25")
    with pytest.raises(InputError, match=r"memory of a trajectory of .* samples: .*; take fewer, or raise PRIORLOOM"):
        make()


def test_the_estimate_of_memory_covers_the_density() -> None:
    """Measured peaks, two threads: 781 MiB with Pipe-Menon, 392 MiB with the ramp."""
    k = kooshball(1000, 192)
    maps = torch.ones(4, 96, 96, 96, dtype=torch.complex64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.get_num_threads", lambda: 2)
        patch.setenv("PRIORLOOM_MEMORY_GIB", "0.75")
        with pytest.raises(InputError, match=r"memory of mri.nufft"):
            nufft(image_shape=(96, 96, 96), trajectory=k, maps=maps)
        assert nufft(image_shape=(96, 96, 96), trajectory=k, maps=maps, density="ramp").coils == 4


def test_missing_library_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named '{name}'", name=name)

    monkeypatch.setattr(nonuniform, "import_module", missing)
    with pytest.raises(PluginError, match=r"needs the package finufft; install it with pip install priorloom\[mri\]"):
        radial2d(image_shape=(8, 8), spokes=3)(torch.zeros(8, 8, dtype=torch.complex64))
