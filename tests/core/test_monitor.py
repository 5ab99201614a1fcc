"""Monitor: trouble is seen on maps that have it by construction, and not on slow iterations that converge."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from priorloom import PnP, Problem, Space, State, Step, Term, run
from priorloom.errors import DivergenceError, InputError
from priorloom.functional import LeastSquares
from priorloom.monitor import Monitor
from priorloom.operator import Identity
from priorloom.solve import Solution
from priorloom.steps import ADMM, FISTA, HQS, ISTA
from priorloom_priors.functionals import L1, SquaredNorm

SPACE = Space((6,), torch.float64)
EYE = torch.eye(6, dtype=torch.float64)
ONE = torch.ones(6, dtype=torch.float64)
Gaussian = Callable[..., Tensor]


class Affine(Step[State]):
    """``x+ = M x + b``, from ones."""

    def __init__(self, M: Tensor, b: float | Tensor = 0.0) -> None:
        super().__init__()
        self.M, self.b = M, b

    def init(self, problem: Problem, x0: Tensor | None = None) -> State:
        return State(problem.zeros() + 1 if x0 is None else x0)

    def forward(self, problem: Problem, state: State) -> State:
        return State(state.x @ self.M.T + self.b)


def problem() -> Problem:
    return Problem(Term(LeastSquares(SPACE, ONE), Identity(SPACE)), PnP(SPACE, lambda x, sigma: x, 1.0))


def rotation(angle: float, radius: float = 1.0, rest: float = 0.9) -> Tensor:
    """A rotation in the first two coordinates, a contraction in the others."""
    c, s = radius * math.cos(angle), radius * math.sin(angle)
    M = rest * EYE
    M[:2, :2] = torch.tensor([[c, -s], [s, c]])
    return M


def watched(step: Step[Any], n: int = 2000, tol: float = 1e-12, of: Problem | None = None) -> tuple[Solution, Monitor]:
    monitor = Monitor()
    return run(step, of or problem(), n=n, tol=tol, monitor=monitor), monitor


# ---- trouble


def test_an_expansion_diverges_and_the_iterate_with_the_smallest_residual_is_kept() -> None:
    """One coordinate expands by 1.3 and starts small, the others contract: the residual falls, then grows."""
    M = 0.5 * EYE
    M[0, 0] = 1.3
    x0 = ONE.clone()
    x0[0] = 1e-4
    iterates = [x0]
    for _ in range(200):
        iterates.append(M @ iterates[-1] + 1 - M @ ONE)  # fixed point: ones
    offsets = [x - ONE for x in iterates]
    sizes = [float((M @ o - o).norm()) for o in offsets[:-1]]
    best = 1 + min(range(len(sizes)), key=sizes.__getitem__)
    solution = run(Affine(M, 1 - M @ ONE), problem(), n=200, tol=1e-12, x0=iterates[0], monitor=(monitor := Monitor()))
    assert solution.outcome == "diverged"
    assert solution.converged is False
    assert solution.iterations < 80
    assert 1 <= monitor.best_iteration == best
    torch.testing.assert_close(solution.x, iterates[best])
    assert solution.residual == pytest.approx(
        float((iterates[best] - iterates[best - 1]).norm() / iterates[best].norm())
    )
    for text in (f"diverged at iteration {solution.iterations}", f"the image of iteration {best}", "damp"):
        assert text in solution.story
    assert solution.history[-1].iteration == solution.iterations


def test_an_image_that_runs_away_does_not_hide_its_own_change() -> None:
    """|x+ - x| / |x+| of x+ = 1.3 x is constant, and from zero with an offset it even falls."""
    assert watched(Affine(1.3 * EYE))[0].outcome == "diverged"
    assert watched(Affine(1.3 * EYE, 1.0))[0].outcome == "diverged"


def test_what_is_not_finite_ends_at_once_with_the_state_before() -> None:
    solution, monitor = watched(Affine(1e200 * EYE))
    assert (solution.outcome, monitor.best_iteration, solution.residual) == ("diverged", 0, None)
    torch.testing.assert_close(solution.x, ONE)
    assert "the image of the start" in solution.story


@pytest.mark.parametrize("angle", [math.pi, 2.0, 0.3, 0.05])
def test_a_rotation_cycles(angle: float) -> None:
    solution, _ = watched(Affine(rotation(angle)))
    assert solution.outcome == "cycling"
    assert solution.iterations <= max(200, 2 * 2 * math.pi / angle + 300)
    assert "no longer falls" in solution.story


def test_a_growth_of_a_thousandth_is_seen_before_it_is_large() -> None:
    solution, _ = watched(Affine(1.001 * EYE), n=500)
    assert solution.outcome == "growing"
    assert float(solution.x.max()) < 1.02
    assert "slowly but steadily" in solution.story
    M = 0.9 * EYE
    M[0, 0] = 1.001
    assert watched(Affine(M, 0.01), n=5000)[0].outcome == "growing"


def test_without_a_monitor_divergence_is_an_error_and_a_rotation_takes_its_budget() -> None:
    with pytest.raises(DivergenceError):
        run(Affine(1e200 * EYE), problem())
    solution = run(Affine(rotation(2.0)), problem(), n=400)
    assert (solution.outcome, solution.converged, solution.iterations) == ("budget", False, 400)


# ---- no false alarms


@pytest.mark.parametrize("angle", [0.0, 0.02, 0.3, 3.0])
@pytest.mark.parametrize("radius", [0.9, 0.99, 0.999, 0.9999])
def test_slow_lines_and_spirals_are_let_pass(angle: float, radius: float) -> None:
    solution, _ = watched(Affine(rotation(angle, radius, rest=radius), 0.1), n=1500)
    assert solution.outcome in ("converged", "budget")


@pytest.mark.parametrize("condition", [1e2, 1e4])
@pytest.mark.parametrize(
    "step",
    [ISTA(), FISTA(), FISTA(restart=False), ADMM(0.01), ADMM(100.0), HQS()],
    ids=["ista", "fista", "ripples", "admm-fast", "admm-slow", "hqs"],
)
def test_slow_convex_methods_are_let_pass(step: Step[Any], condition: float, matrix: Any, gaussian: Gaussian) -> None:
    M = gaussian(8, 8)
    U, _, V = torch.linalg.svd(M)
    A = matrix(U @ torch.diag(torch.logspace(0, -math.log10(condition), 8, dtype=M.dtype)) @ V)
    y = A(gaussian(8, seed=1)) + 0.01 * gaussian(8, seed=2)
    for prior in (L1(A.domain, 1e-3), SquaredNorm(A.domain, 1e-8)):
        solution, _ = watched(step, 400, 1e-10, Problem(Term(LeastSquares(A.range, y), A), prior))
        assert solution.outcome in ("converged", "budget"), solution.story


@pytest.mark.parametrize("condition", [1e3, 1e4, 1e5, 1e6])
def test_one_slow_ripple_of_momentum_is_let_pass(condition: float, matrix: Any, gaussian: Gaussian) -> None:
    """FISTA without restart, one small singular value: long upswings that return, without other modes to hide them."""
    s = torch.ones(6, dtype=torch.float64)
    s[0] = condition**-0.5
    A = matrix(torch.diag(s))
    of = Problem(Term(LeastSquares(A.range, s * gaussian(6)), A), SquaredNorm(A.domain, 1e-12))
    solution, _ = watched(FISTA(restart=False), 3000, 1e-14, of)
    assert solution.outcome in ("converged", "budget"), solution.story


def test_rounding_is_no_cycle() -> None:
    """In single precision the residual ends at a level; the iteration has arrived there."""
    space = Space((500,))
    D = Problem(Term(LeastSquares(space, torch.ones(500)), Identity(space)), PnP(space, lambda x, s: 0.9 * x, 1.0))
    solution, _ = watched(ISTA(step_size=0.5), 400, 1e-30, D)
    assert solution.outcome in ("converged", "budget")


# ---- what it is asked


def test_judging_begins_after_a_schedule() -> None:
    """Residuals that grow while a schedule runs are no trouble, and its states are not candidates."""

    class Scheduled(Affine):
        def __init__(self) -> None:
            super().__init__(0.99 * EYE)
            self.k = 0

        def forward(self, problem: Problem, state: State) -> State:
            self.k += 1
            return State(state.x * (1.5 if self.k <= 40 else 0.5) + 1e-9)

    monitor = Monitor(begin=40)
    solution = run(Scheduled(), problem(), n=60, tol=1e-300, monitor=monitor)
    assert solution.outcome == "budget"
    assert monitor.best_iteration > 40


def test_an_unrolled_method_has_no_monitor() -> None:
    with pytest.raises(InputError, match="monitor: expected one step to repeat"):
        run(torch.nn.ModuleList(), problem(), monitor=Monitor())


def test_the_outcome_of_a_good_run() -> None:
    solution, _ = watched(Affine(0.5 * EYE, 1.0), tol=1e-6)
    assert (solution.outcome, solution.converged) == ("converged", True)
    assert solution.story.startswith(f"converged within {solution.iterations} iterations")
