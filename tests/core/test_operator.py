"""LinearOperator: adjoints, derivatives, algebra, precision, and the interval of the norm."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from priorloom import LinearOperator, Registry, Space
from priorloom.errors import InputError
from priorloom.operator import Gradient, Identity, Stack

Gaussian = Callable[..., Tensor]


def dense(A: LinearOperator) -> Tensor:
    """The matrix of an operator, ``[range.size, domain.size]``."""
    basis = torch.eye(A.domain.size, dtype=A.domain.dtype).reshape(-1, *A.domain.shape)
    return A(basis).reshape(A.domain.size, -1).T


@pytest.fixture(params=[torch.float64, torch.complex128], ids=["real", "complex"])
def pair(request: pytest.FixtureRequest, matrix: Any, gaussian: Gaussian) -> tuple[Any, Any]:
    return matrix(gaussian(5, 4, dtype=request.param)), matrix(gaussian(5, 4, seed=1, dtype=request.param))


def algebra(pair: tuple[Any, Any]) -> list[tuple[LinearOperator, Tensor]]:
    """Operators made of operators, with their matrices."""
    A, B = pair
    factor = 2 - 3j if A.domain.is_complex else -3.0
    return [
        (A.H, A.M.mH), (A @ B.H, A.M @ B.M.mH), (A + B, A.M + B.M), (A - B, A.M - B.M), (-A, -A.M),
        (factor * A, factor * A.M), (Stack([A, B]), torch.cat([A.M, B.M])), (Identity(A.domain), torch.eye(4).to(A.M)),
        ((2.0 * (A.H @ B)).H, 2 * B.M.mH @ A.M),
    ]  # fmt: skip


def test_algebra_is_that_of_matrices(pair: tuple[Any, Any], generator: torch.Generator) -> None:
    for operator, M in algebra(pair):
        torch.testing.assert_close(dense(operator), M)
        torch.testing.assert_close(dense(operator.H), M.mH)
        x = operator.domain.random(generator, (2, 3))
        torch.testing.assert_close(operator.normal(x), x @ (M.mH @ M).T)
        low, high = operator.norm_bounds()
        exact = float(torch.linalg.matrix_norm(M, 2))
        assert low * (1 - 1e-9) <= exact <= high * (1 + 1e-9)
        assert high - low <= 1e-3 * high
        assert operator.norm() == high


# torch's own forward mode compiles its decompositions with torch.jit on first use
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_derivatives_of_every_order(pair: tuple[Any, Any], generator: torch.Generator) -> None:
    """The backward is the adjoint, the double backward the operator; forward mode and vmap work too."""
    for operator, M in algebra(pair):
        x = operator.domain.random(generator, (2,)).requires_grad_()
        assert torch.autograd.gradcheck(operator, x)
        assert torch.autograd.gradcheck(operator.adjoint, operator.range.random(generator).requires_grad_())
        assert torch.autograd.gradgradcheck(lambda v, A=operator: A(v) ** 2, x)
        assert torch.autograd.gradcheck(operator.normal, x)
        assert torch.autograd.gradgradcheck(lambda v, A=operator: A.normal(v) ** 2, x)
        tangent = operator.domain.random(generator)
        _, moved = torch.func.jvp(operator, (tangent,), (tangent,))
        torch.testing.assert_close(moved, M @ tangent)
        torch.testing.assert_close(torch.func.vmap(operator)(x.detach()), operator(x.detach()))


def test_adjoint_of_the_adjoint_is_the_operator(pair: tuple[Any, Any]) -> None:
    assert pair[0].H.H is pair[0]


def test_says_what_does_not_fit(matrix: Any, gaussian: Gaussian) -> None:
    A = matrix(gaussian(5, 4))
    B = matrix(gaussian(3, 4))
    for call, message in (
        (lambda: A(torch.zeros(5, dtype=torch.float64)), r"input of Matrix: expected shape \[\.\.\., 4\], got \[5\]"),
        (lambda: A.adjoint(torch.zeros(4, dtype=torch.float64)), "input of the adjoint of Matrix"),
        (lambda: A(torch.zeros(4)), r"expected torch\.float64, got torch\.float32"),
        (lambda: A @ B, "range of the inner operator of a composition"),
        (lambda: A + B, "range of the second operator of a sum"),
        (lambda: A + B.H, "domain of the second operator of a sum"),
        (lambda: 1j * A, "expected a real number"),
        (lambda: Stack([]), "at least one"),
        (lambda: Stack([A, A.H]), "domain of an operator in a stack"),
        (lambda: A.pseudo_inverse(torch.zeros(5, dtype=torch.float64)), "Matrix has no direct method"),
    ):
        with pytest.raises(InputError, match=message):
            call()


def test_stack_splits_what_it_stacks(gaussian: Gaussian) -> None:
    space = Space((3, 4), torch.float64)
    parts = [Gradient(space), Identity(space)]
    x = gaussian(2, 3, 4)
    pieces = Stack(parts).split(Stack(parts)(x))
    for piece, part in zip(pieces, parts, strict=True):
        assert torch.equal(piece, part(x))


def test_moves_and_copies(pair: tuple[Any, Any]) -> None:
    A = pair[0]
    for other in (copy.deepcopy(A.H @ A), pickle.loads(pickle.dumps(A.H @ A))):
        torch.testing.assert_close(dense(other), A.M.mH @ A.M)
    single = copy.deepcopy(A).float()
    assert single.domain.dtype == (torch.complex64 if A.domain.is_complex else torch.float32)
    torch.testing.assert_close(dense(single), A.M.to(single.domain.dtype))
    assert dense(copy.deepcopy(single).double()).dtype == A.M.dtype


def test_refuses_a_precision_that_its_backend_lacks(matrix: Any, gaussian: Gaussian) -> None:
    class Single(type(matrix(gaussian(2, 2)))):  # type: ignore[misc]
        has_double = False

    A = Single(gaussian(5, 4).float())
    with pytest.raises(InputError, match="precision of Single"):
        A.double()
    assert A.domain.dtype == torch.float32
    whole = matrix(gaussian(5, 5).float())
    for made in (A.H, whole @ A, A @ Identity(A.domain), Stack([matrix(gaussian(5, 4).float()), A])):
        assert not made.computes_double
        with pytest.raises(InputError, match="precision of Single"):
            made.double()
        parts = [m for m in made.modules() if isinstance(m, LinearOperator)]
        assert {m.domain.dtype for m in parts} | {b.dtype for b in made.buffers()} == {torch.float32}
    assert (whole @ whole).computes_double


@pytest.mark.parametrize("shape", [(7,), (4, 6), (3, 4, 5), (1, 6), (1, 1)])
def test_gradient_is_forward_differences(shape: tuple[int, ...], gaussian: Gaussian) -> None:
    D = Gradient(Space(shape, torch.float64))
    x = gaussian(2, *shape)
    for axis in range(len(shape)):
        last = np.take(x.numpy(), [-1], axis=axis + 1)
        expected = np.diff(x.numpy(), axis=axis + 1, append=last)
        np.testing.assert_array_equal(D(x)[:, axis].numpy(), expected)
    M = dense(D)
    torch.testing.assert_close(dense(D.H), M.T)
    assert D.norm() == pytest.approx(float(torch.linalg.matrix_norm(M, 2)), abs=1e-12)


def test_identity_solves_its_normal_equations(gaussian: Gaussian) -> None:
    b = gaussian(3)
    torch.testing.assert_close(Identity(Space((3,), torch.float64)).solve_normal(b, 0.5), b / 1.5)


@pytest.mark.parametrize("decay", [0.0, 0.01, 1.0])
def test_norm_interval_holds_and_is_as_narrow_as_asked(decay: float, matrix: Any, gaussian: Gaussian) -> None:
    q, _ = torch.linalg.qr(gaussian(60, 60))
    A = matrix(q * torch.exp(-decay * torch.arange(60, dtype=torch.float64)))
    for tolerance in (1e-1, 1e-4):
        low, high = A.norm_bounds(tolerance)
        assert low * (1 - 1e-12) <= 1 <= high * (1 + 1e-12)
        assert high - low <= tolerance * high


@pytest.mark.parametrize("hot", [1.001, 1.05, 1.15, 2.0])
def test_norm_of_a_spectrum_that_hides_its_top(hot: float, matrix: Any, gaussian: Gaussian) -> None:
    """The Ritz pair of the plateau has a small residual long before the largest eigenvalue shows."""
    d = torch.ones(400, dtype=torch.float64)
    d[7] = hot
    q, _ = torch.linalg.qr(gaussian(400, 400))
    K = matrix(q * d)
    for A in (K, matrix((q * d).float()), Stack([Identity(K.domain), 1 / hot * K])):
        exact = float(torch.linalg.matrix_norm(dense(A).double(), 2))
        for tolerance in (1e-1, 1e-2, 1e-3):
            low, high = copy.deepcopy(A).norm_bounds(tolerance)
            assert low * (1 - 1e-6) <= exact <= high * (1 + 1e-6)
            assert high - low <= tolerance * high


def test_upper_end_of_the_norm_holds_for_many_spectra(matrix: Any, gaussian: Gaussian) -> None:
    for seed in range(20):
        q, _ = torch.linalg.qr(gaussian(150, 150, seed=seed))
        top = torch.zeros(150, dtype=torch.float64)
        top[: 1 + seed % 3] = 0.02 * (1 + seed)
        d = torch.rand(150, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) ** (seed % 5) + top
        low, high = matrix(q * d).norm_bounds(0.1)
        assert low * (1 - 1e-9) <= float(d.max()) <= high * (1 + 1e-9)


def test_norm_follows_what_the_operator_stores(matrix: Any) -> None:
    A = matrix(torch.eye(3, dtype=torch.float64))
    B = 1.0 * (A @ A)
    assert B.norm() == pytest.approx(1)
    A.load_state_dict({"M": 3 * torch.eye(3, dtype=torch.float64)})
    assert (A.norm(), B.norm()) == pytest.approx((3, 9))
    A.M = 2 * torch.eye(3, dtype=torch.float64)
    assert B.norm() == pytest.approx(4)
    A.M.mul_(2)
    assert (A.norm(), B.norm()) == pytest.approx((4, 16))
    calls = A.forwards
    assert A.float().norm() == pytest.approx(4, rel=1e-3)
    assert A.forwards > calls


def test_norm_is_computed_once_and_again_only_for_more_accuracy(matrix: Any, gaussian: Gaussian) -> None:
    # A crowded top of the spectrum, on which the process may run out of steps.
    A = matrix(torch.diag(1 - torch.linspace(0, 1e-2, 400, dtype=torch.float64) ** 2))
    A.norm_bounds(1e-9)
    calls = A.forwards
    A.norm_bounds(1e-9)
    A.norm()
    assert A.forwards == calls
    B = matrix(gaussian(50, 50))
    B.norm_bounds(1e-1)
    calls = B.forwards
    B.norm()
    assert B.forwards > calls


def test_norm_is_kept_when_the_operator_builds_its_parts_late() -> None:
    A = Registry.discover().operator("ct.parallel2d", image_shape=(16, 16), views=8)
    calls: list[Tensor] = []
    forward = A._forward
    A._forward = lambda x: (calls.append(x), forward(x))[1]  # type: ignore[method-assign]
    norm = A.norm()
    first = len(calls)
    assert first > 0
    assert A.norm() == norm
    A.pseudo_inverse(torch.ones(A.range.shape))
    assert A.norm() == norm
    assert len(calls) == first


def test_norm_follows_a_part_that_is_replaced(matrix: Any) -> None:
    A = matrix(torch.eye(3, dtype=torch.float64))
    B = A @ Identity(A.domain)
    assert B.norm() == pytest.approx(1)
    B.inner = matrix(2 * torch.eye(3, dtype=torch.float64))
    assert B.norm() == pytest.approx(2)
    A.M.mul_(5)
    assert copy.deepcopy(B).norm() == pytest.approx(10)


def test_norm_of_a_zero_and_of_a_broken_operator(matrix: Any) -> None:
    assert matrix(torch.zeros(4, 3)).norm() == 0
    with pytest.raises(InputError, match="norm of Matrix: expected a finite operator"):
        matrix(torch.full((4, 3), math.nan)).norm()


def test_what_a_plugin_must_write() -> None:
    A = LinearOperator(Space((2,)), Space((2,)))
    for call in (A, A.adjoint):
        with pytest.raises(NotImplementedError, match="LinearOperator has no _"):
            call(torch.zeros(2))
    assert A.solve_normal(torch.zeros(2), 1.0) is None
