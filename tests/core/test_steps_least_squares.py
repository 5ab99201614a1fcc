"""CG against dense solvers, LSQR against SciPy's, and the discrepancy principle."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse.linalg
import torch
from torch import Tensor

from priorloom import Problem, Term, run
from priorloom.errors import InputError
from priorloom.functional import LeastSquares
from priorloom.operator import Gradient
from priorloom.steps import CG, LSQR
from priorloom_priors.functionals import L1, SquaredNorm

Gaussian = Callable[..., Tensor]


def plain(A: Any, y: Tensor) -> Problem:
    return Problem(Term(LeastSquares(A.range, y), A))


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("start", [None, 3])
def test_cg_equals_the_dense_solution(dtype: torch.dtype, start: int | None, matrix: Any, gaussian: Gaussian) -> None:
    """Ridge with a Tikhonov prior and a smoothness term, in a batch."""
    M, y = gaussian(12, 20, dtype=dtype), gaussian(3, 12, seed=1, dtype=dtype)
    A = matrix(M)
    D = Gradient(A.domain)
    problem = Problem(
        Term(LeastSquares(A.range, y), A), SquaredNorm(A.domain, 0.3), [Term(SquaredNorm(D.range, 0.7), D)]
    )
    x0 = None if start is None else gaussian(3, 20, seed=start, dtype=dtype)
    solution = run(CG(), problem, x0=x0, tol=1e-12)
    difference = np.diff(np.eye(20), axis=0)
    normal = M.numpy().conj().T @ M.numpy() + 0.3 * np.eye(20) + 0.7 * difference.T @ difference
    expected = np.linalg.solve(normal, M.numpy().conj().T @ y.numpy().T).T
    assert solution.converged
    assert solution.iterations <= 30
    np.testing.assert_allclose(solution.x.numpy(), expected, rtol=1e-9, atol=1e-10)


def test_cg_with_an_affine_gradient(matrix: Any, gaussian: Gaussian) -> None:
    """``0.5 |x - x_0|^2`` as an operator term: its gradient at 0 does not vanish."""
    A, eye = matrix(gaussian(6, 8)), matrix(torch.eye(8, dtype=torch.float64))
    y, x_0 = gaussian(6, seed=1), gaussian(8, seed=2)
    problem = Problem(Term(LeastSquares(A.range, y), A), terms=[Term(LeastSquares(eye.range, x_0), eye)])
    expected = torch.linalg.solve(A.M.T @ A.M + torch.eye(8), A.M.T @ y + x_0)
    torch.testing.assert_close(run(CG(), problem, tol=1e-12).x, expected)


@pytest.mark.parametrize("damping", [0.0, 0.8])
def test_lsqr_iterates_equal_scipys(damping: float, matrix: Any, gaussian: Gaussian) -> None:
    A, y = matrix(gaussian(15, 10)), gaussian(2, 15, seed=1)
    for n in (1, 2, 5, 10):
        state = run(LSQR(damping=damping), plain(A, y), n=n, tol=1e-300).state
        for i in range(2):
            oracle = scipy.sparse.linalg.lsqr(A.M.numpy(), y[i].numpy(), damp=damping, iter_lim=n, atol=0, btol=0)
            np.testing.assert_allclose(state.x[i].numpy(), oracle[0], rtol=1e-9, atol=1e-11)
            assert float(state.misfit[i]) == pytest.approx(np.linalg.norm(A.M.numpy() @ oracle[0] - y[i].numpy()))
            assert float(state.slope[i]) == pytest.approx(oracle[7], rel=1e-5, abs=1e-9)


def test_lsqr_reports_the_true_residuals(matrix: Any, gaussian: Gaussian) -> None:
    A, y, x0 = matrix(gaussian(15, 10)), gaussian(15, seed=1), gaussian(10, seed=2)
    state = run(LSQR(damping=0.8), plain(A, y), x0=x0, n=4, tol=1e-300).state
    r = y - A.M @ state.x
    torch.testing.assert_close(state.misfit, r.norm())
    torch.testing.assert_close(state.slope, (A.M.T @ r - 0.64 * (state.x - x0)).norm())


@pytest.mark.parametrize("step", [CG(), LSQR()])
def test_minimum_norm_solution_of_a_singular_system(step: Any, matrix: Any, gaussian: Gaussian) -> None:
    A, y = matrix(gaussian(9, 4) @ gaussian(4, 12, seed=1)), gaussian(9, seed=2)
    solution = run(step, plain(A, y), tol=1e-11)
    assert solution.converged
    torch.testing.assert_close(solution.x, torch.linalg.pinv(A.M) @ y, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("step", [CG(), LSQR(), LSQR(damping=0.5), CG(discrepancy=1e-9), LSQR(discrepancy=1e-9)])
def test_solved_elements_stay(step: Any, matrix: Any, gaussian: Gaussian) -> None:
    """A zero measurement, one that a single iteration solves exactly, and one that takes its time."""
    A = matrix(torch.diag(torch.tensor([4.0, 2.0, 1.0, 0.5], dtype=torch.float64)))
    y = torch.tensor([[0, 0, 0, 0], [3, 0, 0, 0], [1, 2, 3, 4]], dtype=torch.float64)
    solution = run(step, plain(A, y), n=60, tol=1e-300)
    damping = getattr(step, "damping", 0.0) ** 2
    d = torch.diag(A.M)
    assert not solution.x[0].any()
    torch.testing.assert_close(solution.x, d * y / (d**2 + damping), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("make", [CG, LSQR])
def test_discrepancy_stops_every_element_at_its_first_chance(make: Any, matrix: Any, gaussian: Gaussian) -> None:
    A = matrix(gaussian(30, 20) @ torch.diag(torch.logspace(0, -2, 20, dtype=torch.float64)))
    y = A(gaussian(2, 20, seed=1)) * torch.tensor([[1.0], [0.1]]) + 0.05 * gaussian(2, 30, seed=2)
    goal = 0.6
    solution = run(make(discrepancy=goal), plain(A, y), n=100, tol=1e-12)
    assert solution.converged
    assert solution.criterion == f"|Ax - y| <= {goal:g} (discrepancy principle) within 100 iterations"
    iterations = []
    for i in range(2):
        k = next(k for k in range(1, 100) if (A(run(make(), plain(A, y[i]), n=k, tol=1e-300).x) - y[i]).norm() <= goal)
        iterations.append(k)
        torch.testing.assert_close(solution.x[i], run(make(), plain(A, y[i]), n=k, tol=1e-300).x)
    assert solution.iterations == max(iterations)
    assert len(set(iterations)) == 2, "the test is about elements that stop at different times"


@pytest.mark.parametrize("make", [CG, LSQR])
def test_discrepancy_that_is_never_met(make: Any, matrix: Any, gaussian: Gaussian) -> None:
    A, y = matrix(gaussian(30, 10)), gaussian(30, seed=1)
    few = run(make(discrepancy=1e-3), plain(A, y), n=2, tol=1e-9)
    assert few.converged is False
    assert "discrepancy" in few.criterion
    assert "1e-09" in few.criterion
    enough = run(make(discrepancy=1e-3), plain(A, y), n=50, tol=1e-9)
    assert enough.converged
    assert "optimality residual" in enough.criterion
    assert "discrepancy" not in enough.criterion


@pytest.mark.parametrize("step", [CG(), CG(discrepancy=1e-9), LSQR()])
def test_one_forward_and_one_adjoint_per_iteration(step: Any, matrix: Any, gaussian: Gaussian) -> None:
    A = matrix(gaussian(30, 10))
    problem = plain(A, gaussian(30, seed=1))
    state = step.init(problem)
    A.forwards = A.adjoints = 0
    for _ in range(5):
        before, state = state, step(problem, state)
        step.residual(problem, before, state)
        step.finished(problem, state)
    assert (A.forwards, A.adjoints) == (5, 5)


def test_single_precision_of_an_ill_conditioned_system(matrix: Any, gaussian: Gaussian) -> None:
    q, _ = torch.linalg.qr(gaussian(40, 40))
    A = matrix((q * torch.logspace(0, -3, 40, dtype=torch.float64)).float())
    x = gaussian(40, seed=1).float()
    solution = run(LSQR(), plain(A, A(x)), n=500, tol=1e-7)
    assert float((A(solution.x) - A(x)).norm() / A(x).norm()) < 1e-4


@pytest.mark.parametrize("step", [CG(), LSQR(), LSQR(damping=0.01)])
@pytest.mark.parametrize("tol", [1e-4, 1e-5, 1e-7])
def test_convergence_in_single_precision_is_that_of_the_true_residual(
    step: Any, tol: float, matrix: Any, gaussian: Gaussian
) -> None:
    """The recursive residual falls below 1e-7 while the true one stays at 1e-6."""
    u, _ = torch.linalg.qr(gaussian(100, 100))
    v, _ = torch.linalg.qr(gaussian(100, 100, seed=1))
    M = ((u * torch.logspace(0, -2.5, 100, dtype=torch.float64)) @ v.T).float()
    y = M @ gaussian(100, seed=2).float()
    solution = run(step, plain(matrix(M), y), n=1000, tol=tol)
    M, x, y = M.double(), solution.x.double(), y.double()
    slope = M.T @ (M @ x - y) + getattr(step, "damping", 0.0) ** 2 * x
    true = float(slope.norm() / (M.T @ y).norm())
    assert solution.residual == pytest.approx(true, rel=0.2, abs=2e-7)
    assert solution.converged == (solution.residual <= tol)
    if tol > 1e-6:
        assert solution.converged


@pytest.mark.parametrize("make", [CG, LSQR])
def test_discrepancy_in_single_precision_is_that_of_the_true_misfit(make: Any, matrix: Any, gaussian: Gaussian) -> None:
    u, _ = torch.linalg.qr(gaussian(60, 60))
    M = (u * torch.logspace(0, -2.5, 60, dtype=torch.float64)).float()
    y = 1e3 * M @ gaussian(60, seed=1).float()
    solution = run(make(discrepancy=2e-4), plain(matrix(M), y), n=1000, tol=1e-12)
    assert solution.converged == bool((M @ solution.x - y).norm() <= 2e-4)


def test_refuses_what_it_cannot_solve(matrix: Any, gaussian: Gaussian) -> None:
    A = matrix(gaussian(6, 8))
    data = Term(LeastSquares(A.range, gaussian(6, seed=1)), A)
    with pytest.raises(InputError, match="objective of CG: expected quadratic functionals, got L1"):
        run(CG(), Problem(data, L1(A.domain, 1.0)))
    with pytest.raises(InputError, match="expected quadratic functionals, got L1"):
        run(CG(), Problem(data, terms=[Term(L1(A.range, 1.0), A)]))
    with pytest.raises(InputError, match="prior of LSQR"):
        run(LSQR(), Problem(data, SquaredNorm(A.domain, 1.0)))
    for step in (CG(), LSQR()):
        with pytest.raises(InputError, match="expected LeastSquares"):
            run(step, Problem(Term(L1(A.range, 1.0), A)))


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan])
def test_refuses_bad_parameters(value: float) -> None:
    for make in (CG, LSQR):
        with pytest.raises(InputError, match="discrepancy"):
            make(discrepancy=value)
    if value != 0:
        with pytest.raises(InputError, match="damping"):
            LSQR(damping=value)
