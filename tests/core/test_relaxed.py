"""Damping: the blended state against its definition, fixed points, residuals, what it cures and what it does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import pytest
import torch
from torch import Tensor

from priorloom import LinearOperator, PnP, Problem, State, Step, Term, run
from priorloom.errors import InputError
from priorloom.functional import LeastSquares
from priorloom.plug_and_play import ImplicitPrior
from priorloom.steps import ADMM, CG, DRS, FISTA, HQS, ISTA, LSQR, PDHG, DataProximal, GradientDescent, Relaxed
from priorloom.steps.equilibrium import Anderson

Gaussian = Callable[..., Tensor]
MatrixOperator = Callable[[Tensor], LinearOperator]

STEPS: list[Step[Any]] = [ISTA(), FISTA(), ADMM(rho=0.7), DRS(step=2.0), PDHG(ratio=1.3), HQS(rho=0.5, steps=0)]


def shrink(x: Tensor, sigma: Tensor) -> Tensor:
    """Soft-thresholding at sigma."""
    return x.sgn() * (x.abs() - sigma).clamp_min(0)


def problem_of(matrix: MatrixOperator, gaussian: Gaussian, batch: tuple[int, ...] = ()) -> Problem:
    A = matrix(gaussian(9, 6))
    return Problem(Term(LeastSquares(A.range, gaussian(*batch, 9, seed=1)), A), PnP(A.domain, shrink, 0.1))


@pytest.mark.parametrize("step", STEPS, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("batch", [(), (3,)])
def test_blends_what_holds_elements_and_leaves_the_numbers(
    step: Step[Any], batch: tuple[int, ...], matrix: MatrixOperator, gaussian: Gaussian
) -> None:
    problem = problem_of(matrix, gaussian, batch)
    state = step.init(problem, gaussian(*batch, 6, seed=2))
    state = step(problem, step(problem, state))
    whole, damped = step(problem, state), Relaxed(step, 0.3)(problem, state)
    assert not torch.equal(whole.x, state.x)

    def check(before: Any, full: Any, part: Any) -> None:
        if isinstance(full, tuple):
            for b, f, p in zip(before, full, part, strict=True):
                check(b, f, p)
        elif isinstance(full, Tensor) and full.ndim > len(batch):
            torch.testing.assert_close(part, 0.7 * before + 0.3 * full)
        elif isinstance(full, Tensor):
            torch.testing.assert_close(part, full)
        else:
            assert part == full

    for f in fields(whole):
        check(getattr(state, f.name), getattr(whole, f.name), getattr(damped, f.name))


@pytest.mark.parametrize("step", STEPS, ids=lambda s: type(s).__name__)
def test_the_residual_is_that_of_the_step_itself(step: Step[Any], matrix: MatrixOperator, gaussian: Gaussian) -> None:
    problem = problem_of(matrix, gaussian)
    state = step(problem, step.init(problem, gaussian(6, seed=2)))
    relaxed = Relaxed(step, 0.01)
    expected = step.residual(problem, state, step(problem, state))
    assert float(expected) > 1e-3
    found = relaxed.residual(problem, state, relaxed(problem, state))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("step", STEPS, ids=lambda s: type(s).__name__)
def test_the_fixed_point_is_that_of_the_step(step: Step[Any], matrix: MatrixOperator, gaussian: Gaussian) -> None:
    problem = problem_of(matrix, gaussian)
    expected = run(step, problem, n=5000, tol=1e-9)
    found = run(Relaxed(step), problem, n=5000, tol=1e-9)
    assert expected.converged
    assert found.converged
    torch.testing.assert_close(found.x, expected.x, rtol=0, atol=1e-6)


def test_a_reflection_cycles_and_converges_damped(matrix: MatrixOperator, gaussian: Gaussian) -> None:
    """``x -> -x`` is nonexpansive and cycles; damped by a half it is at its fixed point after one step. An expansion is
    not cured."""
    A = matrix(1e-6 * gaussian(6, 6))
    data = Term(LeastSquares(A.range, torch.zeros(6, dtype=torch.float64)), A)
    x0 = gaussian(6, seed=3)
    step = ISTA(step_size=1e-6)
    cycling = Problem(data, PnP(A.domain, lambda x, sigma: -x, 1.0))
    assert not run(step, cycling, n=50, x0=x0).converged
    solution = run(Relaxed(step), cycling, n=50, tol=1e-6, x0=x0)
    assert float(solution.x.norm()) < 1e-9 * float(x0.norm())
    growing = Problem(data, PnP(A.domain, lambda x, sigma: 1.3 * x, 1.0))
    state = Relaxed(step).init(growing, x0)
    for _ in range(10):
        state = Relaxed(step)(growing, state)
    assert float(state.x.norm()) == pytest.approx(1.15**10 * float(x0.norm()), rel=1e-6)


def test_the_schedule_of_penalties_is_not_damped(matrix: MatrixOperator, gaussian: Gaussian) -> None:
    A = matrix(gaussian(9, 6))
    data = Term(LeastSquares(A.range, gaussian(9, seed=1)), A)
    levels: list[float] = []

    def recording(x: Tensor, sigma: Tensor) -> Tensor:
        levels.append(float(sigma))
        return shrink(x, sigma)

    problem = Problem(data, ImplicitPrior(A.domain, recording, 0.04))
    step = HQS(rho=0.04 / 0.8**2, growth=2.0, steps=4)
    relaxed = Relaxed(step, 0.5, after=4)
    plain, damped = step.init(problem), relaxed.init(problem)
    for _ in range(4):
        plain, damped = step(problem, plain), relaxed(problem, damped)
        assert torch.equal(plain.x, damped.x)
    whole, damped = step(problem, damped), relaxed(problem, damped)
    torch.testing.assert_close(damped.x, 0.5 * (plain.x + whole.x))
    assert levels[::2][:5] == pytest.approx([0.8 / 2 ** (k / 2) for k in range(5)])
    assert run(relaxed, problem, n=2000, tol=1e-8).converged


def test_says_where_a_theorem_applies(matrix: MatrixOperator, gaussian: Gaussian) -> None:
    problem = Problem(problem_of(matrix, gaussian).data)
    for step in (ISTA(), GradientDescent(), DRS(), PDHG(ratio=1.0)):
        assert Relaxed(step).is_legal(problem) == step.is_legal(problem)
    assert not Relaxed(FISTA()).is_legal(problem)
    assert not Relaxed(PDHG()).is_legal(problem)
    assert not Relaxed(ISTA(step_size=1e6)).is_legal(problem)


@pytest.mark.parametrize("relaxation", [0.0, -0.5, 1.5, float("nan")])
def test_refuses_a_share_outside_its_range(relaxation: float) -> None:
    with pytest.raises(InputError, match=r"^relaxation: expected a number above 0 and at most 1, got "):
        Relaxed(DataProximal(), relaxation)


def test_refuses_what_it_cannot_damp(matrix: MatrixOperator, gaussian: Gaussian) -> None:
    for step in (CG(), LSQR()):
        with pytest.raises(InputError, match="expected a fixed-point iteration, got"):
            Relaxed(step)
    with pytest.raises(InputError, match="expected the step inside an acceleration, got Anderson"):
        Relaxed(Anderson(ISTA()))
    with pytest.raises(InputError, match="expected at least 0"):
        Relaxed(ISTA(), 0.5, after=-1)
    with pytest.raises(InputError, match="expected a step that counts its iterations"):
        Relaxed(ISTA(), 0.5, after=3).init(problem_of(matrix, gaussian))


@dataclass(frozen=True)
class Counting(State):
    """A state of a plugin's own."""

    k: int
    label: str


class Halving(Step[Counting]):
    """``x+ = 0``."""

    def init(self, problem: Problem, x0: Tensor | None = None) -> Counting:
        return Counting(problem.zeros() if x0 is None else x0, 0, "here")

    def forward(self, problem: Problem, state: Counting) -> Counting:
        return Counting(torch.zeros_like(state.x), state.k + 1, state.label)


def test_damps_the_step_of_a_plugin(matrix: MatrixOperator, gaussian: Gaussian) -> None:
    problem = problem_of(matrix, gaussian)
    x0 = gaussian(6, seed=4)
    relaxed = Relaxed(Halving(), 0.25, after=1)
    state = relaxed.init(problem, x0)
    state = Counting(state.x, 1, "here")
    state = relaxed(problem, relaxed(problem, state))
    assert (state.k, state.label) == (3, "here")
    torch.testing.assert_close(state.x, 0.75**2 * x0)
