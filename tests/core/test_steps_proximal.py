"""ISTA and FISTA against coordinate descent, their theorems, and their costs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from priorloom import Problem, Term, run
from priorloom.errors import InputError
from priorloom.functional import LeastSquares
from priorloom.operator import Gradient
from priorloom.steps import FISTA, ISTA
from priorloom_priors.functionals import L1, Box

Gaussian = Callable[..., Tensor]


def coordinate_descent(A: np.ndarray, y: np.ndarray, lam: float, sweeps: int = 5000) -> np.ndarray:
    """LASSO by exact minimisation over one coordinate at a time (Friedman et al., 2007): the oracle."""
    x = np.zeros(A.shape[1])
    for _ in range(sweeps):
        for j in range(len(x)):
            r = y - A @ x + A[:, j] * x[j]
            c = A[:, j] @ r
            x[j] = np.sign(c) * max(abs(c) - lam, 0) / (A[:, j] @ A[:, j])
    return x


@pytest.fixture
def lasso(matrix: Any, gaussian: Gaussian) -> Problem:
    A = matrix(gaussian(5, 8))
    return Problem(Term(LeastSquares(A.range, gaussian(5, seed=1)), A), L1(A.domain, 0.3))


@pytest.mark.parametrize("step", [ISTA(), ISTA(step_size=0.05), FISTA(), FISTA(restart=False)])
def test_lasso_equals_coordinate_descent(step: Any, lasso: Problem) -> None:
    solution = run(step, lasso, n=50000, tol=1e-11)
    A, y = lasso.data.K.M.numpy(), lasso.data.f.y.numpy()
    assert solution.converged
    np.testing.assert_allclose(solution.x.numpy(), coordinate_descent(A, y, 0.3), atol=1e-8)


@pytest.mark.parametrize(
    ("step", "bound"), [(ISTA(), lambda k: 1 / (2 * k)), (FISTA(restart=False), lambda k: 2 / (k + 1) ** 2)]
)
def test_rate_of_the_theorem(step: Any, bound: Callable[[int], float], lasso: Problem) -> None:
    A, y = lasso.data.K.M.numpy(), lasso.data.f.y.numpy()
    best = torch.from_numpy(coordinate_descent(A, y, 0.3))
    lipschitz = np.linalg.norm(A, 2) ** 2
    state = step.init(lasso)
    for k in range(1, 60):
        state = step(lasso, state)
        excess = float(lasso.objective(state.x) - lasso.objective(best))
        assert excess <= bound(k) * lipschitz * float(best.square().sum()) * 1.01


def test_restart_recovers_linear_convergence(matrix: Any, gaussian: Gaussian) -> None:
    q, _ = torch.linalg.qr(gaussian(40, 40))
    A = matrix(q * torch.logspace(0, -1.5, 40, dtype=torch.float64))
    problem = Problem(Term(LeastSquares(A.range, gaussian(40, seed=1)), A), L1(A.domain, 1e-4))
    restarted, plain = (run(FISTA(restart=r), problem, n=20000, tol=1e-10) for r in (True, False))
    assert restarted.converged
    assert restarted.iterations < 0.5 * plain.iterations


def test_short_steps_do_not_look_converged(lasso: Problem) -> None:
    step = ISTA(step_size=1e-5 / lasso.data.lipschitz())
    before = step.init(lasso, lasso.data.K.adjoint(lasso.data.f.y))
    after = step(lasso, before)
    assert float((after.x - before.x).norm() / after.x.norm()) < 1e-4
    assert not run(step, lasso, n=20, x0=before.x, tol=1e-3).converged


def test_residual_bounds_that_of_the_natural_step(lasso: Problem, gaussian: Gaussian) -> None:
    x = gaussian(8, seed=3)
    natural = ISTA()
    reference = float(natural.residual(lasso, natural.init(lasso, x), natural(lasso, natural.init(lasso, x))))
    for factor in (0.01, 0.3, 1.0, 1.9):
        step = ISTA(step_size=factor / lasso.data.lipschitz())
        state = step.init(lasso, x)
        after = step(lasso, state)
        scale = float(after.x.norm() / natural(lasso, state).x.norm())
        assert float(step.residual(lasso, state, after)) * scale >= reference * (1 - 1e-9)


def test_fista_measures_the_residual_at_the_extrapolated_point(lasso: Problem) -> None:
    step = FISTA()
    before = step(lasso, step(lasso, step.init(lasso)))
    after = step(lasso, before)
    expected = (after.x - before.z).norm() / after.x.norm()
    assert not torch.equal(before.z, before.x)
    torch.testing.assert_close(step.residual(lasso, before, after), expected)


@pytest.mark.parametrize("step", [ISTA(), FISTA()])
def test_one_forward_and_one_adjoint_per_iteration(step: Any, lasso: Problem) -> None:
    A = lasso.data.K
    A.norm()
    state = step.init(lasso)
    A.forwards = A.adjoints = 0
    for _ in range(7):
        before, state = state, step(lasso, state)
        step.residual(lasso, before, state)
    assert (A.forwards, A.adjoints) == (7, 7)


@pytest.mark.parametrize("step", [ISTA(), FISTA()])
def test_batch_equals_one_by_one(step: Any, matrix: Any, gaussian: Gaussian) -> None:
    A = matrix(gaussian(12, 8))
    y = gaussian(2, 3, 12, seed=1)
    problem = Problem(Term(LeastSquares(A.range, y), A), L1(A.domain, 0.3))
    together = run(step, problem, n=30, tol=1e-14).x
    assert together.shape == (2, 3, 8)
    single = Problem(Term(LeastSquares(A.range, y[1, 2]), A), L1(A.domain, 0.3))
    torch.testing.assert_close(together[1, 2], run(step, single, n=30, tol=1e-14).x)


@pytest.mark.parametrize("step", [ISTA(), FISTA()])
def test_gap_bounds_the_distance_to_the_minimum(step: Any, lasso: Problem) -> None:
    minimum = float(lasso.objective(run(FISTA(), lasso, n=50000, tol=1e-12).x))
    for n in (1, 5, 50):
        solution = run(step, lasso, n=n, tol=1e-14)
        excess = float(lasso.objective(solution.x)) - minimum
        assert solution.gap is not None
        assert excess - 1e-9 <= solution.gap * float(lasso.objective(solution.x))
    assert run(step, lasso, n=50000, tol=1e-12).gap < 1e-8


def test_zero_is_a_solution(matrix: Any, gaussian: Gaussian) -> None:
    A = matrix(gaussian(5, 8))
    problem = Problem(Term(LeastSquares(A.range, gaussian(5, seed=1)), A), L1(A.domain, 1e3))
    solution = run(FISTA(), problem, x0=gaussian(8, seed=2))
    assert solution.converged
    assert not solution.x.any()


@pytest.mark.parametrize("size", [0.0, -1.0, math.nan, math.inf])
def test_refuses_a_bad_step_size(size: float) -> None:
    with pytest.raises(InputError, match="step size of FISTA"):
        FISTA(step_size=size)


@pytest.mark.parametrize("step", [ISTA(), FISTA()])
def test_refuses_what_it_cannot_solve(step: Any, lasso: Problem) -> None:
    K = Gradient(lasso.space)
    with pytest.raises(InputError, match="without operator terms"):
        run(step, Problem(lasso.data, terms=[Term(L1(K.range, 1.0), K)]))
    A = lasso.data.K
    with pytest.raises(InputError, match="smooth"):
        run(step, Problem(Term(Box(A.range), A), lasso.prior))
    with pytest.raises(InputError, match="starting image"):
        run(step, lasso, x0=torch.zeros(7, dtype=torch.float64))


def test_no_gap_where_no_scaling_makes_the_dual_point_feasible(lasso: Problem) -> None:
    """An unpenalised entry asks the dual for an exact zero; shrinking to nothing would report J itself as the gap."""
    lam = torch.full((8,), 0.3, dtype=torch.float64)
    lam[3] = 0
    free = Problem(lasso.data, L1(lasso.space, lam))
    for n in (50, 5000):
        assert run(FISTA(), free, n=n, tol=1e-6).gap is None
    assert run(FISTA(), lasso, n=5000, tol=1e-6).gap < 1e-3
