"""The spectrum of an operator against dense linear algebra of NumPy on its matrix, made column by column."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from priorloom import LinearOperator, Registry
from priorloom.dense import DenseOperator
from priorloom.diagnose.coordinates import Coordinates
from priorloom.diagnose.decay import classify, distribution
from priorloom.diagnose.noise_gain import direction, noise_map
from priorloom.diagnose.picard import null_share, picard
from priorloom.diagnose.spectrum import Spectrum, spectrum
from priorloom.errors import InputError
from priorloom.space import Space


def matrix_of(A: LinearOperator) -> np.ndarray[Any, Any]:
    """``A e_j`` for every unit image."""
    A = A.double()
    units = torch.eye(A.domain.size, dtype=A.domain.dtype)
    return np.stack([A(e.reshape(A.domain.shape)).reshape(-1).numpy() for e in units], axis=1)


def radon(registry: Registry, size: int = 24, views: int = 48, arc: float = 180.0) -> LinearOperator:
    return registry.operator("ct.parallel2d", image_shape=(size, size), pixel_size=1.0, views=views, arc_deg=arc)


def masked(registry: Registry, size: int = 16) -> LinearOperator:
    mask = torch.zeros(size, dtype=torch.bool)
    mask[::2] = True
    return registry.operator("mri.fourier2d", image_shape=(size, size), mask=mask)


def ends(found: Spectrum) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    return np.array([v.value for v in found.leading]), np.array([v.value for v in found.trailing])


@pytest.mark.parametrize("dense_limit", [2048, 0])
def test_both_ends_of_a_small_radon_match_the_dense_svd(registry: Registry, dense_limit: int) -> None:
    A = radon(registry)
    truth = np.linalg.svd(matrix_of(radon(registry)), compute_uv=False)
    found = spectrum(A, 20, dense_limit=dense_limit, basis=576)
    assert found.method == ("dense" if dense_limit else "block Krylov")
    top, bottom = ends(found)
    assert top == pytest.approx(truth[:20], rel=1e-6)
    assert bottom == pytest.approx(truth[-20:], rel=1e-6)
    assert found.condition == pytest.approx(truth[0] / truth[-1], rel=1e-6)
    assert found.condition_is_exact
    assert found.rank == 576
    assert A.domain.dtype == torch.float32  # the operator itself is as it was


@pytest.mark.parametrize("dense_limit", [2048, 0])
def test_masked_orthonormal_fourier_has_exactly_zero_and_one(registry: Registry, dense_limit: int) -> None:
    found = spectrum(masked(registry), 20, dense_limit=dense_limit)
    top, bottom = ends(found)
    assert np.abs(top - 1).max() < 1e-13
    assert np.all(bottom == 0)
    assert all(v.standing == "exact" for v in found.trailing)
    assert found.condition == pytest.approx(1, abs=1e-13)
    assert found.decay.kind == "well-posed"
    assert (found.rank, found.null_space) == (128, 128)


def test_a_masked_fourier_that_is_too_large_for_its_matrix(registry: Registry) -> None:
    found = spectrum(masked(registry, 64), 20)
    assert found.method == "block Krylov"
    assert ends(found)[0] == pytest.approx(1, abs=1e-13)
    assert np.all(ends(found)[1] == 0)
    assert all(v.standing == "exact" for v in found.trailing)
    assert abs(found.rank - 2048) < 4 * found.rank_error


def test_a_part_of_the_spectrum_has_bars_that_hold(registry: Registry) -> None:
    A = radon(registry, 24, 48, 60.0)
    truth = np.linalg.svd(matrix_of(radon(registry, 24, 48, 60.0)), compute_uv=False)
    found = spectrum(A, 20, dense_limit=0, basis=120)
    top, bottom = ends(found)
    errors = np.array([v.error for v in found.leading])
    assert errors.max() > 1e-3  # else it would prove nothing
    assert np.all(top <= truth[:20] * (1 + 1e-12))
    assert np.all(np.abs(top - truth[:20]) <= errors)
    assert np.all(bottom >= truth[-20:])
    assert {v.standing for v in found.trailing} == {"at most"}
    assert not found.condition_is_exact
    assert found.condition <= truth[0] / truth[-1]


@pytest.mark.parametrize(("rows", "columns"), [(30, 50), (50, 30)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("dense_limit", [2048, 0])
def test_any_shape_and_dtype(rows: int, columns: int, dtype: torch.dtype, dense_limit: int) -> None:
    M = torch.randn(rows, columns, dtype=dtype, generator=torch.Generator().manual_seed(7))
    M[:, 1] = M[:, 0]  # a null space beyond that of the shape
    A = DenseOperator(M)
    found = spectrum(A, 25, dense_limit=dense_limit)
    truth = np.concatenate([np.linalg.svd(M.numpy(), compute_uv=False), np.zeros(columns)])[:columns]
    top, bottom = ends(found)
    assert top == pytest.approx(truth[:25], rel=1e-6, abs=1e-12)
    assert bottom == pytest.approx(truth[-25:], rel=1e-6, abs=1e-12)
    u, v = found.left.numpy(), found.right.numpy()
    assert M.numpy() @ v.T == pytest.approx(u.T * found.values.numpy(), abs=1e-4)
    x = A.domain.random(torch.Generator().manual_seed(1))
    inverse, seen = np.linalg.pinv(M.numpy()), A(x).numpy()
    expected = (np.linalg.norm(x.numpy() - inverse @ seen) / np.linalg.norm(x.numpy())) ** 2
    assert null_share(A, found, x, iterations=500).share == pytest.approx(expected, rel=1e-5, abs=1e-9)


class RealImages(LinearOperator):
    """Real images, complex data: ``x -> c x``."""

    def __init__(self, c: torch.Tensor) -> None:
        super().__init__(Space(tuple(c.shape), c.dtype.to_real()), Space(tuple(c.shape), c.dtype))
        self.register_buffer("c", c)
        self.c: torch.Tensor

    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c * x

    def _adjoint(self, y: torch.Tensor) -> torch.Tensor:
        return (self.c.conj() * y).real


@pytest.mark.parametrize("dense_limit", [2048, 0])
def test_real_images_of_complex_data(dense_limit: int) -> None:
    c = torch.randn(40, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    found = spectrum(RealImages(c), 10, dense_limit=dense_limit)
    truth = np.sort(c.abs().numpy())[::-1]
    assert ends(found)[0] == pytest.approx(truth[:10], rel=1e-10)
    assert ends(found)[1] == pytest.approx(truth[-10:], rel=1e-10)
    assert (found.unknowns, found.data) == (40, 80)


@pytest.mark.parametrize("dense_limit", [2048, 0])
@pytest.mark.parametrize(
    ("arc", "kind"), [(180.0, "mildly ill-posed"), (90.0, "severely ill-posed"), (60.0, "severely ill-posed")]
)
def test_limited_angle_is_severe_and_full_angle_mild(
    registry: Registry, arc: float, kind: str, dense_limit: int
) -> None:
    found = spectrum(radon(registry, 24, 48, arc), dense_limit=dense_limit, basis=60)
    assert found.decay.kind == kind


def test_few_views_have_a_null_space_and_decay_mildly(registry: Registry) -> None:
    for dense_limit in (2048, 0):
        found = spectrum(radon(registry, 24, 12), dense_limit=dense_limit, basis=60)
        assert found.decay.kind == "mildly ill-posed"
        assert all((v.value, v.standing) == (0.0, "exact") for v in found.trailing)
        assert found.rank == pytest.approx(359, rel=0.2)  # of 576, with 420 data


@pytest.mark.parametrize(
    ("law", "kind"),
    [
        (lambda i: i**-0.5, "mildly ill-posed"),
        (lambda i: i**-2.0, "moderately ill-posed"),
        (lambda i: np.exp(-i / 20), "severely ill-posed"),
        (lambda i: np.exp(-((i / 60) ** 2)), "severely ill-posed"),  # the heat equation
        (lambda i: 1 - i / 400, "well-posed"),
    ],
)
def test_classes_of_known_laws(law: Any, kind: str) -> None:
    i = np.arange(1, 301.0)
    found = classify(torch.from_numpy(i), torch.from_numpy(law(i)), 300)
    assert found.kind == kind


def test_distribution_counts_as_the_dense_svd_does(registry: Registry) -> None:
    A = radon(registry, 24, 48, 60.0)
    truth = np.linalg.svd(matrix_of(radon(registry, 24, 48, 60.0)), compute_uv=False)
    found = distribution(Coordinates(A))
    for level in (0.3, 0.1, 0.03):
        expected = np.count_nonzero(truth > level * truth[0])
        estimated = float(found.index[found.values > level * truth[0]].max())
        assert estimated == pytest.approx(expected, rel=0.1)


def test_picard_coefficients_are_those_of_the_left_singular_vectors() -> None:
    M = torch.randn(20, 12, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    A = DenseOperator(M)
    y = A.range.random(torch.Generator().manual_seed(1))
    found = picard(A, spectrum(A, 5), y, noise_std=0.1)
    u, _, _ = np.linalg.svd(M.numpy(), full_matrices=False)
    assert found.coefficients.numpy() == pytest.approx(np.abs(u.conj().T @ y.numpy()), rel=1e-9)
    assert found.above_noise == int((np.abs(u.conj().T @ y.numpy()) > 0.3).sum())
    assert found.complete


class WithInverse(DenseOperator):
    """A dense operator whose direct method is the pseudo-inverse."""

    def _pseudo_inverse(self, y: torch.Tensor) -> torch.Tensor:
        return y @ torch.linalg.pinv(self.matrix).T


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_noise_map_against_the_covariance(dtype: torch.dtype) -> None:
    A = WithInverse(torch.randn(30, 20, dtype=dtype, generator=torch.Generator().manual_seed(0)))
    y = A.range.random(torch.Generator().manual_seed(1))
    found = noise_map(A, y, 0.5, samples=400, seed=3)
    expected = 0.5 * np.linalg.norm(np.linalg.pinv(A.matrix.numpy()), axis=1)
    standard = (found.std.numpy() / expected - 1) / found.relative_error
    assert np.abs(standard).max() < 4
    assert 0.6 < np.sqrt(np.mean(standard**2)) < 1.5  # the bars are neither too long nor too short
    assert torch.equal(found.std, noise_map(A, y, 0.5, samples=400, seed=3).std)


def test_direction_is_the_singular_value_along_a_singular_vector(registry: Registry) -> None:
    A = masked(registry)
    seen = A.adjoint(A.range.random(torch.Generator().manual_seed(0)))
    found = direction(A, seen, 1.0, noise_std=0.1)
    assert found.gain == pytest.approx(1, rel=1e-5)
    assert found.distance == pytest.approx(float(torch.linalg.vector_norm(seen)) / 0.1 * np.sqrt(2), rel=1e-5)
    x = A.domain.random(torch.Generator().manual_seed(1))
    hidden = direction(A, x - A.adjoint(A(x)), 1.0)
    assert hidden.amplification == float("inf")
    assert hidden.distance is None


def test_bad_input(registry: Registry) -> None:
    A = masked(registry)
    with pytest.raises(InputError, match="number of singular values"):
        spectrum(A, 0)
    with pytest.raises(InputError, match="not zero"):
        spectrum(DenseOperator(torch.zeros(3, 4)))
    with pytest.raises(InputError, match="not zero"):
        spectrum(DenseOperator(torch.zeros(3, 4)), dense_limit=0)
    found = spectrum(A)
    with pytest.raises(InputError, match="image for the null space"):
        null_share(A, found, A.domain.zeros())
    with pytest.raises(InputError, match="perturbation"):
        direction(A, A.domain.zeros(), 1.0)
    y = A.range.zeros()
    with pytest.raises(InputError, match="samples"):
        noise_map(A, y, 1.0, samples=1)
    with pytest.raises(InputError, match="noise level"):
        noise_map(A, y, 0.0)
    with pytest.raises(InputError, match="no direct method"):
        noise_map(DenseOperator(torch.eye(3)), torch.ones(3), 1.0)
