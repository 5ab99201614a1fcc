"""ADMM, HQS and Douglas-Rachford: their x-update slot, their penalties, and what they solve."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from priorloom import Functional, LinearOperator, PnP, Problem, Term, run
from priorloom.errors import InputError
from priorloom.functional import LeastSquares
from priorloom.operator import Gradient, Identity
from priorloom.steps import ADMM, DRS, FISTA, HQS, PDHG, CGUpdate, ExactUpdate, NormalSystem
from priorloom_priors.functionals import L1, Box, GroupL1

Gaussian = Callable[..., Tensor]


class Diagonal(LinearOperator):
    """``x -> d x``, with a closed form for the x-update."""

    def __init__(self, space: Any, d: Tensor) -> None:
        super().__init__(space, space)
        self.register_buffer("d", d)
        self.d: Tensor
        self.solved = 0

    def _forward(self, x: Tensor) -> Tensor:
        return self.d * x

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.d * y

    def solve_normal(self, b: Tensor, rho: float | Tensor) -> Tensor | None:
        self.solved += 1
        return b / (self.d**2 + rho)


class Dense(nn.Module):
    """The x-update by a dense solver, as a user's own module in the slot."""

    def forward(self, system: NormalSystem) -> Tensor:
        basis = torch.eye(system.space.size, dtype=system.space.dtype)
        columns = torch.stack([system.apply(e) for e in basis], dim=-1)
        return torch.linalg.solve(columns, system.b)


@pytest.fixture
def lasso(matrix: Any, gaussian: Gaussian) -> Problem:
    A = matrix(gaussian(12, 20))
    return Problem(Term(LeastSquares(A.range, gaussian(12, seed=1)), A), L1(A.domain, 1.0))


@pytest.fixture
def total_variation(matrix: Any, gaussian: Gaussian) -> Problem:
    A = matrix(gaussian(12, 20))
    D = Gradient(A.domain)
    terms = [Term(GroupL1(D.range, 0.5), D)]
    return Problem(Term(LeastSquares(A.range, gaussian(12, seed=1)), A), Box(A.domain), terms)


def minimum(problem: Problem) -> float:
    """By PDHG, which has its own oracles."""
    solution = run(PDHG(), problem, n=50000, tol=1e-9)
    assert solution.converged
    return float(problem.objective(solution.x))


@pytest.mark.parametrize(
    "step", [ADMM(), ADMM(rho=3.0), ADMM(x_update=CGUpdate(0.5, 3)), ADMM(x_update=Dense()), DRS(), DRS(step=0.3)]
)
def test_lasso(step: Any, lasso: Problem) -> None:
    solution = run(step, lasso, n=20000, tol=1e-8)
    expected = run(FISTA(), lasso, n=20000, tol=1e-10).x
    assert solution.converged
    torch.testing.assert_close(solution.x, expected, rtol=1e-5, atol=1e-6)
    assert solution.gap < 1e-4


@pytest.mark.parametrize("step", [ADMM(), ADMM(rho=3.0), ADMM(x_update=Dense())])
def test_constrained_total_variation(step: Any, total_variation: Problem) -> None:
    solution = run(step, total_variation, n=20000, tol=1e-7)
    assert solution.converged
    assert bool((solution.x >= 0).all())
    assert float(total_variation.objective(solution.x)) == pytest.approx(minimum(total_variation), rel=1e-6)


def test_data_that_are_not_least_squares_are_split_too(matrix: Any, gaussian: Gaussian) -> None:
    """``lam |Ax|_1 + 0.5 |x - y|^2``, with the quadratic part as an operator term."""
    A = matrix(gaussian(15, 8))
    identity = Identity(A.domain)
    data, near = Term(L1(A.range, 0.03), A), Term(LeastSquares(A.domain, gaussian(8, seed=1)), identity)
    solution = run(ADMM(), Problem(data, terms=[near]), n=20000, tol=1e-9)
    swapped = run(PDHG(), Problem(near, terms=[data]), n=50000, tol=1e-10)
    assert solution.converged
    assert bool(swapped.x.any())
    torch.testing.assert_close(solution.x, swapped.x, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("step", [ADMM(), DRS(), HQS(), PDHG()])
def test_zero_is_a_solution(step: Any, lasso: Problem, gaussian: Gaussian) -> None:
    solution = run(step, Problem(lasso.data, L1(lasso.space, 1e3)), x0=gaussian(20, seed=2))
    assert solution.converged
    assert float(solution.x.norm()) < 1e-3


def test_batch_equals_one_by_one(matrix: Any, gaussian: Gaussian) -> None:
    """The penalty is balanced for every batch element, and CG stops for every element."""
    A = matrix(gaussian(12, 20))
    y = gaussian(3, 12, seed=1) * torch.tensor([[1.0], [1e-2], [1e2]], dtype=torch.float64)
    for step in (ADMM(), DRS(), HQS()):
        together = run(step, Problem(Term(LeastSquares(A.range, y), A), L1(A.domain, 1.0)), n=25, tol=1e-14).x
        for i in range(3):
            single = Problem(Term(LeastSquares(A.range, y[i]), A), L1(A.domain, 1.0))
            torch.testing.assert_close(together[i], run(step, single, n=25, tol=1e-14).x, rtol=1e-7, atol=1e-10)


def test_exact_where_the_operator_offers_it(lasso: Problem, gaussian: Gaussian) -> None:
    A = Diagonal(lasso.space, torch.linspace(0, 3, 20, dtype=torch.float64))
    y = gaussian(2, 20, seed=2)
    problem = Problem(Term(LeastSquares(A.range, y), A), L1(A.domain, 0.5))
    automatic, exact, iterated = (
        run(ADMM(rho=2.0, x_update=u), problem, n=40, tol=1e-14).x for u in (None, ExactUpdate(), CGUpdate(1e-12, 50))
    )
    assert A.solved == 80
    assert torch.equal(automatic, exact)
    torch.testing.assert_close(exact, iterated)
    with pytest.raises(InputError, match="exact x-update: expected one operator with solve_normal"):
        run(ADMM(x_update=ExactUpdate()), lasso)


def test_exact_update_scales_a_split_data_term(lasso: Problem, gaussian: Gaussian) -> None:
    """A data term that is not least squares comes with a weight on ``A^H A``."""
    A = Diagonal(lasso.space, torch.linspace(0, 3, 20, dtype=torch.float64))
    problem = Problem(Term(Box(A.range, 0.5, 1.0), A), L1(A.domain, 0.5))
    exact, dense = (run(ADMM(rho=2.0, x_update=u), problem, n=30, tol=1e-14).x for u in (ExactUpdate(), Dense()))
    torch.testing.assert_close(exact, dense)


def test_cg_update_reaches_its_tolerance(matrix: Any, gaussian: Gaussian) -> None:
    A = matrix(gaussian(30, 20))
    weights = (torch.ones(2, dtype=torch.float64), torch.full((2,), 0.1, dtype=torch.float64))
    b, x = gaussian(2, 20, seed=1), gaussian(2, 20, seed=2)
    b[1] = 1e-9 * b[1] + (A.M.T @ A.M + 0.1 * torch.eye(20)) @ x[1]  # almost solved already
    system = NormalSystem((A, Identity(A.domain)), weights, b, x)
    before = (b - system.apply(x)).norm(dim=1)
    after = (b - system.apply(CGUpdate(1e-3, 200)(system))).norm(dim=1)
    assert bool((after <= 1.001e-3 * before).all())
    assert float(after[0]) > 1e-8 * float(before[0])


def test_penalty_changes_stop(total_variation: Problem) -> None:
    step = ADMM(x_update=Dense())
    state = step.init(total_variation)
    changed = []
    for k in range(400):
        before, state = state, step(total_variation, state)
        if not torch.equal(before.rho, state.rho):
            changed.append(k)
    assert 0 < len(changed) <= 40
    assert int(state.changes) == len(changed)


def test_changing_the_penalty_keeps_the_dual(lasso: Problem) -> None:
    """The same fixed point, whichever penalty comes next: the scaled dual follows the penalty."""
    solved = run(ADMM(rho=2.0, x_update=Dense()), lasso, n=5000, tol=1e-12).state
    after = ADMM(rho=50.0, x_update=Dense())(lasso, solved)
    torch.testing.assert_close(after.x, solved.x, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(50.0 * after.u[0], 2.0 * solved.u[0], rtol=1e-8, atol=1e-9)


class Spy(Functional):
    """Remembers the steps that its prox is given."""

    has_value = False

    def __init__(self, space: Any) -> None:
        super().__init__(space)
        self.steps: list[float] = []

    def _prox(self, x: Tensor, step: Tensor) -> Tensor:
        self.steps.append(float(step))
        return x / 2


def test_plug_and_play_gets_one_over_a_fixed_rho(lasso: Problem) -> None:
    spy = Spy(lasso.space)
    problem = Problem(lasso.data, spy)
    assert run(ADMM(rho=4.0), problem, n=50).history[-1].objective is None
    assert set(spy.steps) == {0.25}
    spy.steps.clear()
    run(ADMM(), problem, n=50)
    assert len(set(spy.steps)) == 1


@pytest.mark.parametrize("step", [ADMM(rho=1.0, x_update=Dense()), DRS(x_update=Dense())])
def test_plug_and_play_fixed_point(step: Any, lasso: Problem) -> None:
    """``x = D(x - t grad f(x))``, the fixed point of every plug-and-play method (t is 1 / rho)."""
    problem = Problem(lasso.data, PnP(lasso.space, lambda x, sigma: x / (1 + sigma), 0.5))
    solution = run(step, problem, n=20000, tol=1e-11)
    t = 1.0 if isinstance(step, ADMM) else 10 / lasso.data.lipschitz()
    assert solution.converged
    torch.testing.assert_close(solution.x, (solution.x - t * lasso.data.gradient(solution.x)) / 1.5)


def test_half_quadratic_splitting_solves_the_penalised_objective(total_variation: Problem) -> None:
    """Stationary: ``A^T (Ax - y) + sum_i rho_i K_i^T (K_i x - prox_{f_i / rho_i}(K_i x)) = 0``."""
    problem, rho = total_variation, 2.0
    solution = run(HQS(rho=rho, growth=1.0, x_update=Dense()), problem, n=20000, tol=1e-10)
    assert solution.converged
    x = solution.state.solution
    slope = problem.data.gradient(x)
    for f, K in ((problem.terms[0].f, problem.terms[0].K), (problem.prior, Identity(problem.space))):
        penalty = rho / K.norm() ** 2
        image = K(x)
        slope = slope + penalty * K.adjoint(image - f.prox(image, 1 / penalty))
    assert float(slope.norm()) < 1e-7 * problem.data.lipschitz() * float(x.norm())


def test_half_quadratic_splitting_follows_its_schedule(lasso: Problem) -> None:
    step = HQS(rho=0.5, growth=2.0, steps=3)
    state, seen = step.init(lasso), []
    for _ in range(6):
        before, state = state, step(lasso, state)
        seen.append(float(state.rho))
        assert before.k >= 3 or float(step.residual(lasso, before, state)) >= 1.0
    assert seen == [0.5, 1, 2, 4, 4, 4]
    objective = float(lasso.objective(run(HQS(growth=2.0, steps=20), lasso, n=200).x))
    assert objective == pytest.approx(float(lasso.objective(run(FISTA(), lasso, tol=1e-8).x)), rel=0.1)


def test_operator_calls_per_iteration(matrix: Any, gaussian: Gaussian) -> None:
    """An x-update with n CG iterations costs n + 1 normal operators, and the iteration nothing else."""
    A = matrix(gaussian(12, 20))
    problem = Problem(Term(LeastSquares(A.range, gaussian(12, seed=1)), A), L1(A.domain, 1.0))
    for step in (ADMM(rho=1.0, x_update=CGUpdate(1e-12, 3)), DRS(x_update=CGUpdate(1e-12, 3))):
        state = step.init(problem)
        A.norm()
        A.forwards = A.adjoints = 0
        for _ in range(5):
            before, state = state, step(problem, state)
            step.residual(problem, before, state)
        assert (A.forwards, A.adjoints) == (20, 20)


def test_complex_problems(matrix: Any, gaussian: Gaussian) -> None:
    A = matrix(gaussian(12, 20, dtype=torch.complex128))
    data = Term(LeastSquares(A.range, gaussian(12, seed=1, dtype=torch.complex128)), A)
    problem = Problem(data, L1(A.domain, 0.5))
    expected = run(FISTA(), problem, n=20000, tol=1e-10).x
    for step in (ADMM(), DRS()):
        torch.testing.assert_close(run(step, problem, n=20000, tol=1e-8).x, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan])
def test_refuses_bad_parameters(value: float) -> None:
    for make in (lambda: ADMM(rho=value), lambda: HQS(rho=value), lambda: DRS(step=value), lambda: HQS(growth=value)):
        with pytest.raises(InputError):
            make()
    with pytest.raises(InputError):
        CGUpdate(tolerance=value)


def test_refuses_what_it_cannot_solve(lasso: Problem, total_variation: Problem) -> None:
    for step in (ADMM(), HQS()):
        with pytest.raises(InputError, match="use CG or LSQR"):
            run(step, Problem(lasso.data))
    with pytest.raises(InputError, match="without operator terms"):
        run(DRS(), total_variation)
    A = lasso.data.K
    with pytest.raises(InputError, match="use ADMM or PDHG"):
        run(DRS(), Problem(Term(Box(A.range), A), lasso.prior))
