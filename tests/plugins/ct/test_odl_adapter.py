"""ODL operators as LinearOperators: the values are ODL's, the adjoint is the Euclidean one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import odl
import odl.applications.tomo as tomo
import pytest
import torch

from priorloom.dense import DenseOperator
from priorloom.errors import InputError
from priorloom.operator import Gradient
from priorloom.space import Space
from priorloom.testing import check_operator
from priorloom_ct.odl_adapter import from_odl, to_odl
from priorloom_ct.operators import fanbeam2d, parallel2d


def ray_transform(fan: bool) -> Any:
    """A RayTransform on an oblong space with cells that are not of size one."""
    A = (
        fanbeam2d(image_shape=(20, 20), views=12, source_to_axis=60.0, axis_to_detector=20.0)
        if fan
        else parallel2d(image_shape=(20, 20), views=12, detector_pitch=0.7)
    )
    space = odl.uniform_discr([-10, -10], [10, 10], (20, 20), dtype="float32")
    return tomo.RayTransform(space, A.geometry.to_odl(), impl="astra_cpu")


MATRIX = np.arange(6.0).reshape(2, 3) + 1
OPERATORS: dict[str, Callable[[], Any]] = {
    "matrix": lambda: odl.MatrixOperator(MATRIX),
    "complex matrix": lambda: odl.MatrixOperator(MATRIX * (1 + 2j)),
    "gradient": lambda: odl.Gradient(odl.uniform_discr([-1, -2], [1, 2], (6, 5))),
    "gradient, float32": lambda: odl.Gradient(odl.uniform_discr([-1, -2], [1, 2], (6, 5), dtype="float32")),
    "divergence": lambda: odl.Divergence(range=odl.uniform_discr([0, 0], [3, 1], (6, 5))),
    "parallel rays": lambda: ray_transform(False),
    "fan rays": lambda: ray_transform(True),
    "resizing": lambda: odl.ResizingOperator(
        odl.uniform_discr([0, 0], [1, 1], (4, 4)), odl.uniform_discr([-0.5, 0], [1.5, 1], (8, 4))
    ),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_values_are_odls(name: str, generator: torch.Generator) -> None:
    operator = OPERATORS[name]()
    A = from_odl(operator)
    x = A.domain.random(generator, (2,))
    y = A(x)
    assert y.shape == (2, *A.range.shape)
    for one, image in zip(x, y, strict=True):
        expected = operator(operator.domain.element(one.numpy())).asarray()
        np.testing.assert_allclose(image.numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("name", OPERATORS)
def test_the_adjoint_is_euclidean(name: str, generator: torch.Generator) -> None:
    A = from_odl(OPERATORS[name]())
    x, y = A.domain.random(generator, (3,)), A.range.random(generator, (3,))
    gap = (A.range.inner(A(x), y) - A.domain.inner(x, A.adjoint(y))).abs()
    precision = 1e-13 if A.has_double else 1e-5
    assert bool((gap < precision * A.range.norm(A(x)) * A.range.norm(y)).all())


def test_the_adjoint_of_a_matrix_is_its_conjugate_transpose() -> None:
    A = from_odl(OPERATORS["complex matrix"]())
    columns = A.adjoint(torch.eye(2, dtype=torch.complex128))
    np.testing.assert_allclose(columns.numpy().T, (MATRIX * (1 + 2j)).conj().T)


@pytest.mark.parametrize("name", ["matrix", "gradient"])
def test_derivatives(name: str, generator: torch.Generator) -> None:
    A = from_odl(OPERATORS[name]())
    x = A.domain.random(generator).requires_grad_()
    assert torch.autograd.gradcheck(A, (x,))


def test_an_empty_batch_goes_through() -> None:
    A = from_odl(OPERATORS["gradient"]())
    assert A(A.domain.zeros((0, 2))).shape == (0, 2, *A.range.shape)
    assert A.adjoint(A.range.zeros((0,))).shape == (0, *A.domain.shape)


def test_precision_follows_odl() -> None:
    assert from_odl(OPERATORS["gradient"]()).domain.dtype == torch.float64
    single = from_odl(OPERATORS["gradient, float32"]())
    assert single.domain.dtype == torch.float32
    with pytest.raises(InputError, match="precision of OdlOperator"):
        single.double()


def test_what_is_no_linear_operator_with_an_adjoint_is_refused() -> None:
    with pytest.raises(InputError, match=r"operator for from_odl: expected a linear odl\.Operator"):
        from_odl(odl.rn(3))
    with pytest.raises(InputError, match=r"operator for from_odl: expected a linear odl\.Operator"):
        from_odl(odl.PowerOperator(odl.rn(3), 2))
    mixed = odl.ProductSpace(odl.rn(2), odl.rn(3))
    with pytest.raises(InputError, match="space of the odl operator: expected one space or a power of one"):
        from_odl(odl.IdentityOperator(mixed))


def test_an_adjoint_that_ignores_the_weights_is_refused() -> None:
    weighted = odl.MatrixOperator(MATRIX, odl.rn(3, weighting=[1.0, 2.0, 3.0]), odl.rn(2, weighting=4.0))
    with pytest.raises(InputError, match="adjoint of the odl operator MatrixOperator: expected that of its inner"):
        from_odl(weighted)
    right = odl.IdentityOperator(odl.rn(3, weighting=[1.0, 2.0, 3.0]))
    torch.testing.assert_close(from_odl(right).adjoint(torch.ones(3).double()), torch.ones(3).double())


@pytest.mark.parametrize("name", [name for name in OPERATORS if name != "fan rays"])  # its geometry does not pickle
def test_the_kit_runs_on_odls_operators(name: str) -> None:
    assert check_operator(from_odl(OPERATORS[name]()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64, torch.complex128])
def test_ours_in_odl_and_back_is_the_same(dtype: torch.dtype, generator: torch.Generator) -> None:
    A = Gradient(Space((5, 4), dtype))
    B = to_odl(A)
    assert B.is_linear
    assert np.dtype(B.domain.dtype) == np.dtype(str(dtype).removeprefix("torch."))
    again = from_odl(B)
    assert (again.domain, again.range) == (A.domain, A.range)
    x, y = A.domain.random(generator, (2,)), A.range.random(generator, (2,))
    torch.testing.assert_close(again(x), A(x))
    torch.testing.assert_close(again.adjoint(y), A.adjoint(y))
    torch.testing.assert_close(again.adjoint(y.conj()), A.adjoint(y.conj()))


def test_the_adjoint_in_odl_is_that_of_its_inner_products() -> None:
    A = DenseOperator(torch.from_numpy(MATRIX))
    domain, range_ = odl.uniform_discr(0, 1, 3), odl.rn(2, weighting=[1.0, 5.0])
    B = to_odl(A, domain, range_)
    x, y = domain.element([1.0, -2.0, 0.5]), range_.element([0.3, 2.0])
    np.testing.assert_allclose(B(x).asarray(), MATRIX @ x.asarray())
    assert B(x).inner(y) == pytest.approx(x.inner(B.adjoint(y)), rel=1e-12)
    assert B(x).inner(y) != pytest.approx(x.inner(domain.element(MATRIX.T @ y.asarray())), rel=1e-2)
    torch.testing.assert_close(from_odl(B).adjoint(torch.eye(2).double()), torch.from_numpy(MATRIX))


def test_odl_solves_with_ours() -> None:
    A = parallel2d(image_shape=(12, 12), views=24)
    space = odl.uniform_discr([-6, -6], [6, 6], (12, 12), dtype="float32")
    B = to_odl(A, domain=space)
    truth = torch.zeros(12, 12)
    truth[3:8, 4:10] = 1.0
    sinogram = B.range.element(A(truth).numpy())
    x = space.zero()
    odl.solvers.conjugate_gradient_normal(B, x, sinogram, niter=60)
    assert np.linalg.norm(B(x).asarray() - sinogram.asarray()) < 1e-3 * np.linalg.norm(sinogram.asarray())
    np.testing.assert_allclose(x.asarray(), truth.numpy(), atol=0.1)
    step = 0.9 / A.norm()
    u, data = space.zero(), odl.functionals.L2NormSquared(B.range).translated(sinogram)
    odl.solvers.pdhg(u, odl.functionals.IndicatorNonnegativity(space), data, B, niter=400, tau=step, sigma=step)
    np.testing.assert_allclose(u.asarray(), truth.numpy(), atol=0.1)


def test_what_does_not_fit_is_refused_by_to_odl() -> None:
    A = Gradient(Space((5, 4)))
    with pytest.raises(InputError, match="operator for to_odl: expected a LinearOperator, got Identity"):
        to_odl(odl.IdentityOperator(odl.rn(2)))
    with pytest.raises(
        InputError, match=r"domain for to_odl: expected a space of shape \[5, 4\] and torch.float32, got"
    ):
        to_odl(A, domain=odl.rn((5, 4)))
