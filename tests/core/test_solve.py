"""run(): repeated equals unrolled, gradients, divergence, records, and what `converged` means."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from priorloom import Functional, LinearOperator, PnP, Problem, Space, State, Step, Term, run
from priorloom.errors import DivergenceError, InputError
from priorloom.functional import LeastSquares
from priorloom.operator import Gradient
from priorloom.steps import ADMM, CG, DRS, FISTA, HQS, ISTA, LSQR, PDHG, CGUpdate
from priorloom_priors.functionals import L1, SquaredNorm

Gaussian = Callable[..., Tensor]


@pytest.fixture
def lasso(matrix: Any, gaussian: Gaussian) -> Problem:
    A = matrix(gaussian(8, 12))
    return Problem(Term(LeastSquares(A.range, gaussian(2, 8, seed=1)), A), L1(A.domain, 0.3))


@pytest.fixture
def total_variation(matrix: Any, gaussian: Gaussian) -> Problem:
    A = matrix(gaussian(8, 12))
    D = Gradient(A.domain)
    return Problem(Term(LeastSquares(A.range, gaussian(2, 8, seed=1)), A), terms=[Term(L1(D.range, 0.3), D)])


@pytest.mark.parametrize("make", [ISTA, FISTA, PDHG, ADMM, DRS, HQS, CG, LSQR])
def test_repeated_and_unrolled_are_equal_to_the_bit(make: Any, lasso: Problem) -> None:
    problem = Problem(lasso.data) if make in (CG, LSQR) else lasso
    repeated = run(make(), problem, n=9, tol=1e-300)
    unrolled = run(nn.ModuleList(make() for _ in range(9)), problem)
    assert repeated.iterations == unrolled.iterations == 9
    assert unrolled.converged is None
    for f in fields(repeated.state):
        one, other = (getattr(s.state, f.name) for s in (repeated, unrolled))
        pairs = zip(one, other, strict=True) if isinstance(one, tuple) else [(one, other)]
        for a, b in pairs:
            assert torch.equal(a, b) if isinstance(a, Tensor) else a == b, f.name


@pytest.mark.parametrize("make", [PDHG, ADMM, HQS])
def test_repeated_and_unrolled_with_operator_terms(make: Any, total_variation: Problem) -> None:
    repeated = run(make(), total_variation, n=9, tol=1e-300).x
    assert torch.equal(repeated, run(nn.ModuleList(make() for _ in range(9)), total_variation).x)


@pytest.mark.parametrize(
    ("make", "name", "value"),
    [
        (ISTA, "step_size", 0.02), (FISTA, "step_size", 0.02), (PDHG, "ratio", 0.1),
        (ADMM, "rho", 2.0), (DRS, "step", 0.4), (HQS, "rho", 0.5),
    ],
)  # fmt: skip
def test_gradients_reach_the_parameters_of_every_layer(make: Any, name: str, value: float, lasso: Problem) -> None:
    """Step sizes and thresholds of their own in every layer, against finite differences."""

    class Threshold(Functional):
        def __init__(self, weights: nn.ParameterList) -> None:
            super().__init__(lasso.space)
            self.weights, self.k = weights, 0

        def _prox(self, x: Tensor, step: Tensor) -> Tensor:
            self.k += 1
            return x / (1 + step * self.weights[self.k - 1])

        has_value = False

    def output(sizes: Tensor, weights: Tensor) -> Tensor:
        layers = nn.ModuleList(make(**{name: s}) for s in sizes)
        return run(layers, Problem(lasso.data, Threshold(weights))).x

    exact = {"x_update": CGUpdate(1e-13, 100)} if make in (ADMM, DRS, HQS) else {}
    if exact:
        original = make
        make = lambda **k: original(**k, **exact)  # noqa: E731
    sizes = torch.tensor([1.0, 0.7, 1.3], dtype=torch.float64) * value
    weights = torch.tensor([0.3, 0.5, 0.2], dtype=torch.float64)
    assert torch.autograd.gradcheck(output, (sizes.requires_grad_(), weights.requires_grad_()), atol=1e-5, rtol=1e-4)
    layers = nn.ModuleList(make(**{name: nn.Parameter(torch.tensor(value))}) for _ in range(3))
    run(layers, lasso).x.square().sum().backward()
    gradients = [p.grad for p in layers.parameters()]
    assert len(gradients) == 3
    assert all(g is not None and float(g) != 0 for g in gradients)


def test_repeating_builds_no_graph(lasso: Problem) -> None:
    step = ISTA(nn.Parameter(torch.tensor(0.01, dtype=torch.float64)))
    assert not run(step, lasso, n=3).x.requires_grad


def test_norms_are_computed_once(matrix: Any, gaussian: Gaussian) -> None:
    A = matrix(gaussian(8, 12))
    D = Gradient(A.domain)
    problem = Problem(Term(LeastSquares(A.range, gaussian(8, seed=1)), A), terms=[Term(L1(D.range, 0.3), D)])
    run(PDHG(), problem, n=1, tol=1e-300)
    first = A.forwards
    run(PDHG(), problem, n=20, tol=1e-300)
    # The stacked norm is taken once a run, not once an iteration; the curve and the start cost the rest.
    assert A.forwards - first < 20 + 12 + 20 + 3


class NaN(Functional):
    """A prox that fails at its third call."""

    has_value = False

    def __init__(self, space: Any) -> None:
        super().__init__(space)
        self.calls = 0

    def _prox(self, x: Tensor, step: Tensor) -> Tensor:
        self.calls += 1
        return x * math.nan if self.calls == 3 else x / 2


class Liar(LinearOperator):
    """Claims a tenth of its norm, which makes PDHG's automatic steps too long."""

    def __init__(self, M: Tensor) -> None:
        super().__init__(Space((M.shape[1],), M.dtype), Space((M.shape[0],), M.dtype))
        self.M = M

    def _forward(self, x: Tensor) -> Tensor:
        return x @ self.M.T

    def _adjoint(self, y: Tensor) -> Tensor:
        return y @ self.M

    def _norm(self) -> float | None:
        return 0.1 * float(torch.linalg.matrix_norm(self.M, 2))


def test_divergence_names_the_step_and_the_iteration(lasso: Problem, gaussian: Gaussian) -> None:
    with pytest.raises(DivergenceError, match=r"^ISTA diverged at iteration \d+: .*reduce the step size"):
        run(ISTA(step_size=3 / lasso.data.lipschitz()), Problem(lasso.data, SquaredNorm(lasso.space, 1e-3)))
    with pytest.raises(DivergenceError, match=r"^FISTA diverged at iteration \d+: "):
        run(FISTA(step_size=3 / lasso.data.lipschitz()), lasso)
    A = Liar(gaussian(8, 12))
    with pytest.raises(DivergenceError, match=r"^PDHG diverged at iteration \d+: "):
        run(PDHG(ratio=0.1), Problem(Term(LeastSquares(A.range, gaussian(8, seed=1)), A), SquaredNorm(A.domain, 1e-3)))


@pytest.mark.parametrize("make", [ISTA, FISTA, PDHG, ADMM, DRS, HQS])
def test_a_prox_that_makes_nan_is_named(make: Any, lasso: Problem) -> None:
    with pytest.raises(DivergenceError, match=f"^{make.__name__} diverged at iteration 3: expected finite values"):
        run(make(), Problem(lasso.data, NaN(lasso.space)))


@pytest.mark.parametrize("make", [ISTA, FISTA, PDHG, ADMM, DRS])
def test_a_start_at_the_solution_is_no_divergence(make: Any, lasso: Problem) -> None:
    solved = run(FISTA(), lasso, n=20000, tol=1e-11).x
    solution = run(make(), lasso, n=20000, tol=1e-7, x0=solved)
    assert solution.converged
    torch.testing.assert_close(solution.x, solved, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [ISTA, FISTA, PDHG, ADMM, DRS, HQS])
def test_a_denoiser_fits_every_prox_slot(make: Any, lasso: Problem) -> None:
    """No objective, no gap, but a fixed point and a criterion."""
    problem = Problem(lasso.data, PnP(lasso.space, lambda x, sigma: x / (1 + sigma), 0.5))
    solution = run(make(), problem, n=5000, tol=1e-6)
    assert solution.converged
    assert solution.gap is None
    assert solution.history[-1].objective is None
    assert bool(solution.x.any())


def test_converged_is_true_only_when_the_criterion_was_met(lasso: Problem) -> None:
    met = run(ISTA(), lasso, n=20000, tol=1e-6)
    assert met.converged
    assert met.residual <= 1e-6
    assert met.criterion == "optimality residual <= 1e-06 within 20000 iterations"
    missed = run(ISTA(), lasso, n=met.iterations - 1, tol=1e-6)
    assert missed.converged is False
    assert missed.residual > 1e-6
    assert missed.iterations == met.iterations - 1


def test_every_element_of_a_batch_must_converge(matrix: Any, gaussian: Gaussian) -> None:
    A = matrix(gaussian(8, 12))
    y = gaussian(2, 8, seed=1)
    y[0] = 0  # solved from the start
    problem = Problem(Term(LeastSquares(A.range, y), A), L1(A.domain, 0.3))
    alone = Problem(Term(LeastSquares(A.range, y[1]), A), L1(A.domain, 0.3))
    assert run(FISTA(), problem, tol=1e-6).iterations == run(FISTA(), alone, tol=1e-6).iterations


class Countdown(Step[State]):
    """A step with a stopping rule of its own."""

    rule = "x <= 2"

    def init(self, problem: Problem, x0: Tensor | None = None) -> State:
        return State(problem.zeros() + 10)

    def forward(self, problem: Problem, state: State) -> State:
        return State(state.x - 1)

    def finished(self, problem: Problem, state: State) -> Tensor | None:
        return (state.x <= 2).all(-1)


def test_a_rule_of_the_steps_own(lasso: Problem) -> None:
    solution = run(Countdown(), lasso, n=50)
    assert (solution.iterations, solution.converged) == (8, True)
    assert solution.criterion == "x <= 2 within 50 iterations"
    assert run(Countdown(), lasso, n=5).criterion == "x <= 2, or optimality residual <= 0.0001 within 5 iterations"


def test_records(lasso: Problem) -> None:
    seen: list[Any] = []
    solution = run(ISTA(), lasso, n=1000, tol=1e-300, watch=lambda record, x: seen.append(record))
    assert tuple(seen) == solution.history
    iterations = [r.iteration for r in seen]
    assert iterations[:5] == [1, 2, 3, 4, 5]
    assert iterations[-1] == 1000
    assert len(iterations) < 60
    objectives = [r.objective for r in seen]
    assert objectives[-1] == pytest.approx(float(lasso.objective(solution.x).sum()))
    assert all(a >= b - 1e-12 for a, b in pairwise(objectives))
    assert all(a.seconds <= b.seconds for a, b in pairwise(seen))
    assert seen[-1].seconds <= solution.seconds


def test_records_cost_little(matrix: Any, gaussian: Gaussian) -> None:
    A = matrix(gaussian(8, 12))
    problem = Problem(Term(LeastSquares(A.range, gaussian(8, seed=1)), A), L1(A.domain, 0.3))
    A.norm()
    A.forwards = 0
    run(ISTA(), problem, n=1000, tol=1e-300)
    assert A.forwards < 1000 * 1.05


def test_an_interrupt_passes_through(lasso: Problem) -> None:
    def interrupt(record: Any, x: Any) -> None:
        if record.iteration == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(ISTA(), lasso, watch=interrupt)


def test_an_empty_list_is_the_start(lasso: Problem, gaussian: Gaussian) -> None:
    x0 = gaussian(2, 12, seed=4)
    solution = run(nn.ModuleList(), lasso, x0=x0)
    assert torch.equal(solution.x, x0)
    assert (solution.iterations, solution.converged, solution.residual) == (0, None, None)


def test_bad_arguments(lasso: Problem) -> None:
    with pytest.raises(InputError, match=r"solver\.max_iterations"):
        run(ISTA(), lasso, n=0)
    for tol in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(InputError, match=r"solver\.tolerance"):
            run(ISTA(), lasso, tol=tol)
    with pytest.raises(InputError, match="layer of an unrolled method: expected a Step, got Linear"):
        run(nn.ModuleList([ISTA(), nn.Linear(2, 2)]), lasso)
