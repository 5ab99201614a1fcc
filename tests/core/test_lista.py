"""LISTA's layers against ISTA, against the formulas of the papers, and against what they must refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from priorloom import Problem, Term, run
from priorloom.dense import DenseOperator
from priorloom.errors import InputError
from priorloom.functional import LeastSquares
from priorloom.operator import Gradient
from priorloom.space import Space
from priorloom.steps import ISTA, State
from priorloom.steps.lista import (
    LISTA,
    CoupledLISTA,
    CoupledMatrix,
    FilterAndInhibition,
    ista_threshold,
    select_support,
    soft_threshold,
)
from priorloom.testing import check_operator
from priorloom_priors.functionals import L1

Gaussian = Callable[..., Tensor]
LAM = 0.3


@pytest.fixture
def A(gaussian: Gaussian) -> DenseOperator:
    return DenseOperator(gaussian(6, 10))


@pytest.fixture
def y(gaussian: Gaussian) -> Tensor:
    return gaussian(4, 6, seed=1)


def least_squares(A: DenseOperator, y: Tensor, prior: L1 | None = None) -> Problem:
    return Problem(Term(LeastSquares(A.range, y), A), prior)


def untied(A: DenseOperator) -> LISTA:
    return LISTA(FilterAndInhibition(A), ista_threshold(A, LAM)).double()


def coupled(A: DenseOperator, trusted: float = 0.0) -> CoupledLISTA:
    return CoupledLISTA(CoupledMatrix(A), ista_threshold(A, LAM), trusted).double()


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_a_dense_operator_passes_the_kit_and_is_its_matrix(gaussian: Gaussian, dtype: torch.dtype) -> None:
    M = gaussian(5, 7, dtype=dtype)
    operator = DenseOperator(M)
    check_operator(operator)
    x = gaussian(2, 7, seed=1, dtype=dtype)
    np.testing.assert_allclose(operator(x).numpy(), np.einsum("ij,bj->bi", M.numpy(), x.numpy()), rtol=1e-12)
    assert operator.norm() == pytest.approx(np.linalg.norm(M.numpy(), 2), rel=1e-12)


@pytest.mark.parametrize("wrong", [torch.zeros(3), torch.zeros(2, 2, dtype=torch.int64), torch.full((2, 2), torch.nan)])
def test_a_dense_operator_refuses_what_is_no_matrix(wrong: Tensor) -> None:
    with pytest.raises(InputError, match="matrix of a dense operator"):
        DenseOperator(wrong)


@pytest.mark.parametrize("layer", [untied, coupled])
def test_a_new_layer_is_the_step_of_ista(
    layer: Callable[[DenseOperator], Any], A: DenseOperator, y: Tensor, gaussian: Gaussian
) -> None:
    problem = least_squares(A, y)
    classical = least_squares(A, y, L1(A.domain, LAM))
    for x in (torch.zeros(4, 10, dtype=torch.float64), gaussian(4, 10, seed=2)):
        ours = layer(A)(problem, State(x)).x
        ista = ISTA()(classical, State(x)).x
        # The sigmoid of a step size keeps single precision.
        torch.testing.assert_close(ours, ista, rtol=0, atol=1e-7)
        assert bool((ours == 0).any())
        assert bool((ours != 0).any())


@pytest.mark.parametrize("layer", [untied, coupled])
def test_new_layers_repeated_are_iterations_of_ista(
    layer: Callable[[DenseOperator], Any], A: DenseOperator, y: Tensor
) -> None:
    layers = nn.ModuleList([layer(A) for _ in range(30)])
    ista = run(ISTA(), least_squares(A, y, L1(A.domain, LAM)), n=30, tol=1e-30).x
    torch.testing.assert_close(run(layers, least_squares(A, y)).x, ista, rtol=0, atol=1e-6)


def test_a_selecting_layer_is_the_step_of_ista_but_on_the_largest_entries(A: DenseOperator, y: Tensor) -> None:
    problem = least_squares(A, y)
    x = torch.zeros(4, 10, dtype=torch.float64)
    plain, selecting = coupled(A)(problem, State(x)).x, coupled(A, trusted=0.2)(problem, State(x)).x
    moved = ISTA()(problem, State(x)).x
    kept = selecting != plain
    assert kept.sum(-1).tolist() == [2] * 4
    torch.testing.assert_close(selecting[kept], moved[kept], rtol=0, atol=1e-7)
    for row, chosen in zip(moved.abs(), kept, strict=True):
        assert float(row[chosen].min()) >= float(row[~chosen].max())


def test_trusted_entries_below_the_threshold_stay_zero() -> None:
    x = torch.tensor([[3.0, -2.0, 0.5, -0.1]])
    kept = select_support(x, torch.tensor(1.0), 3)
    assert kept.tolist() == [[3.0, -2.0, 0.0, 0.0]]
    assert select_support(x, torch.tensor(1.0), 1).tolist() == [[3.0, -1.0, 0.0, 0.0]]
    assert select_support(x, torch.tensor(1.0), 0).tolist() == [[2.0, -1.0, 0.0, 0.0]]


def test_soft_thresholding_has_the_derivatives_of_its_formula() -> None:
    x = torch.tensor([2.0, -3.0, 0.2], dtype=torch.float64, requires_grad=True)
    theta = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    soft_threshold(x, theta).sum().backward()
    assert x.grad is not None
    assert theta.grad is not None
    assert x.grad.tolist() == [1.0, 1.0, 0.0]
    assert theta.grad.item() == 0.0  # -1 of the positive entry, +1 of the negative one
    assert torch.autograd.gradcheck(soft_threshold, (x, theta))


def test_layers_follow_the_formulas_of_the_papers(A: DenseOperator, y: Tensor, gaussian: Gaussian) -> None:
    x = gaussian(4, 10, seed=3)
    first, second = untied(A), coupled(A)
    with torch.no_grad():
        first.weights.W.copy_(gaussian(10, 6, seed=4))
        first.weights.D.copy_(gaussian(10, 10, seed=5))
        second.weights.W.copy_(gaussian(6, 10, seed=6))
        second.step_size.free.fill_(0.7)
        first.threshold.free.fill_(0.4)
    M, n = A.matrix.numpy(), np.sign

    def soft(v: np.ndarray, theta: float) -> np.ndarray:
        return n(v) * np.maximum(np.abs(v) - theta, 0)

    W, D, V = (w.detach().numpy() for w in (first.weights.W, first.weights.D, second.weights.W))
    S = np.eye(10) - W @ M + D
    problem = least_squares(A, y)
    theta, t = float(first.threshold().detach()), float(second.step_size(A.norm() ** 2).detach())
    for k in range(4):
        expected = soft(W @ y[k].numpy() + S @ x[k].numpy(), theta)
        np.testing.assert_allclose(first(problem, State(x)).x[k].detach().numpy(), expected, atol=1e-10)
        pulled = x[k].numpy() - t * V.T @ (M @ x[k].numpy() - y[k].numpy())
        expected = soft(pulled, float(second.threshold().detach()))
        np.testing.assert_allclose(second(problem, State(x)).x[k].detach().numpy(), expected, atol=1e-10)


def test_sgd_with_a_huge_rate_leaves_steps_and_thresholds_legal(A: DenseOperator, y: Tensor) -> None:
    layers = nn.ModuleList([coupled(A, 0.1) for _ in range(3)])
    scalars = [p for p in layers.parameters() if p.ndim == 0]
    optimiser = torch.optim.SGD(scalars, lr=5.0)
    for k in range(200):
        truth = torch.randn(4, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(k))
        optimiser.zero_grad()
        x = run(layers, least_squares(A, A(truth))).x
        (x - truth).square().sum().backward()
        optimiser.step()
        for layer in layers:
            assert isinstance(layer, CoupledLISTA)
            assert 0 < float(layer.step_size(A.norm() ** 2).detach()) < 2 / A.norm() ** 2
            assert 0 <= float(layer.threshold().detach()) < float("inf")
        assert bool(torch.isfinite(x).all())


def test_layers_refuse_other_sizes_data_terms_and_shares(A: DenseOperator, gaussian: Gaussian) -> None:
    other = DenseOperator(gaussian(5, 10))
    for layer in (untied(A), coupled(A)):
        with pytest.raises(InputError, match=r"expected the matrix size it was made for, \[6, 10\], got \[5, 10\]"):
            layer.init(least_squares(other, gaussian(2, 5)))
        data = Term(L1(A.range, 1.0), A)
        with pytest.raises(InputError, match="least squares"):
            layer.init(Problem(data))
        total = Term(L1(Gradient(A.domain).range, 1.0), Gradient(A.domain))
        with pytest.raises(InputError, match="without operator terms"):
            layer.init(Problem(Term(LeastSquares(A.range, gaussian(6)), A), terms=[total]))
    with pytest.raises(InputError, match="share of trusted entries"):
        CoupledLISTA(CoupledMatrix(A), 0.1, trusted=1.5)
    with pytest.raises(InputError, match="not zero"):
        ista_threshold(DenseOperator(torch.zeros(2, 3)), 0.1)


def test_the_domain_of_a_dense_operator_is_a_vector(A: DenseOperator) -> None:
    assert A.domain == Space((10,), torch.float64)
    assert A.range == Space((6,), torch.float64)
