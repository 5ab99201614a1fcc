"""run(): one step repeated until a stated criterion is met (classical), or a list of steps (unrolled)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .errors import DivergenceError, InputError
from .monitor import Monitor, Trouble
from .problem import Problem
from .space import Space
from .steps.base import State, Step

GROWTH = 1e4
"""A change ``|x+ - x|`` that exceeds the largest of the first ten by this factor is divergence."""
DENSITY = 1.15
"""The convergence curve has a point at every iteration, then at this ratio: about 25 in a hundred, 40 in a thousand."""


Outcome = Literal["converged", "budget", "diverged", "cycling", "growing", ""]


@dataclass(frozen=True)
class Record:
    """One point of the convergence curve: optimality residual, objective (None where there is none), seconds so far,
    and the relative error ``|x - truth| / |truth|`` (None without a truth)."""

    iteration: int
    residual: float
    objective: float | None
    seconds: float
    error: float | None = None


Watch = Callable[[Record, Tensor], None]
"""Told of every point of the convergence curve, with the image at that point."""


@dataclass(frozen=True)
class Solution:
    """Where an iteration ended.

    Parameters
    ----------
    state, iterations
        The last state (after trouble the best one), and how many steps were done.
    converged
        True only when the criterion was met; None where there is none (a direct method, an unrolled network).
    criterion
        The criterion in words: the one that was met, or else the one that was not.
    residual
        The optimality residual (``Step.residual``) of that state, the largest over the batch; None without an
        iteration, and where the state is the start.
    gap
        The last relative primal-dual gap where it exists and says something (see `duality_gap`).
    seconds
        Time spent in the steps.
    history
        The convergence curve.
    outcome
        "converged", "budget" (`n` iterations were not enough), or the trouble that a monitor saw: "diverged", "cycling"
        or "growing"; empty without an iteration.
    story
        The outcome in a sentence.
    """

    state: State
    iterations: int
    converged: bool | None
    criterion: str
    residual: float | None = None
    gap: float | None = None
    seconds: float = 0.0
    history: tuple[Record, ...] = field(default=())
    outcome: Outcome = ""
    story: str = ""

    @property
    def x(self) -> Tensor:
        """The image."""
        return self.state.x


def run(
    steps: Step[Any] | nn.ModuleList,
    problem: Problem,
    *,
    n: int = 1000,
    tol: float = 1e-4,
    x0: Tensor | None = None,
    watch: Watch | None = None,
    monitor: Monitor | None = None,
    truth: Tensor | None = None,
) -> Solution:
    """Solve `problem` with one repeated step, or apply a list of steps once each.

    A single step is repeated under no_grad until every batch element has an optimality residual (``Step.residual``,
    dimensionless and independent of the step sizes) of at most `tol` or meets the step's own stopping rule
    (``Step.finished``), or `n` iterations are done. A ModuleList is the unrolled form: every layer is applied once,
    gradients flow, and there is no criterion; the first layer makes the initial state.

    Parameters
    ----------
    steps, problem
        What to repeat or to apply, on which objective.
    n, tol
        The most iterations, and the tolerance.
    x0
        The starting image; zero when absent.
    watch
        Called with every point of the convergence curve and its image; the points are logarithmically spaced. What it
        raises ends the iteration.
    monitor
        A fresh one, for a repeated step that no theorem covers: trouble that it sees ends the iteration with the best
        state, and is no error.
    truth
        What the curve's error is measured against; the iteration does not see it.

    Raises
    ------
    DivergenceError
        Without a monitor, when a change or residual is not finite, or the change grows beyond `GROWTH` times its start.
    """
    if isinstance(steps, nn.ModuleList):
        if monitor is not None:
            raise InputError("monitor", expected="one step to repeat", got="a list of layers")
        return _unroll(steps, problem, x0)
    if n < 1:
        raise InputError("solver.max_iterations", expected="at least 1", got=n)
    if not 0 < tol < math.inf:
        raise InputError("solver.tolerance", expected="a positive number", got=tol)
    with torch.no_grad():
        return _repeat(steps, problem, n, tol, x0, watch, monitor, truth)


def _unroll(steps: nn.ModuleList, problem: Problem, x0: Tensor | None) -> Solution:
    began = time.perf_counter()
    layers = [layer for layer in steps if isinstance(layer, Step)]
    if len(layers) != len(steps):
        odd = next(type(layer).__name__ for layer in steps if not isinstance(layer, Step))
        raise InputError("layer of an unrolled method", expected="a Step", got=odd)
    state = layers[0].init(problem, x0) if layers else State(problem.zeros() if x0 is None else x0)
    for layer in layers:
        state = layer(problem, state)
    criterion = "a fixed number of layers" if layers else "none: a direct method"
    return Solution(state, len(layers), None, criterion, seconds=time.perf_counter() - began)


def _repeat(
    step: Step[Any],
    problem: Problem,
    n: int,
    tol: float,
    x0: Tensor | None,
    watch: Watch | None,
    monitor: Monitor | None,
    truth: Tensor | None,
) -> Solution:
    began = time.perf_counter()
    aside = 0.0  # time spent on the convergence curve, not on solving
    state = step.init(problem, x0)
    history: list[Record] = []
    guard = _Guard(type(step).__name__, tol)
    next_record = 1
    for k in range(1, n + 1):
        before, state = state, step(problem, state)
        residual, met, done = _judge(step, problem, before, state, tol)
        if done:
            recursive, state = state, step.refresh(problem, state)
            if state is not recursive:
                residual, met, done = _judge(step, problem, before, state, tol)
        trouble: Trouble | None = None
        if monitor is None:
            worst = guard.check(k, problem, before.x, state.x, residual)
        else:
            worst = float(residual.max())
            trouble = None if done else monitor.observe(k, problem, before, state, residual)
        if done or trouble or k == n or k >= next_record:
            next_record = max(k + 1, math.ceil(k * DENSITY))
            pause = time.perf_counter()
            objective = float(problem.objective(state.x).sum()) if problem.has_value else None
            error = None if truth is None else relative_error(problem.space, state.x, truth)
            history.append(Record(k, worst, objective, pause - began - aside, error))
            if watch is not None:
                watch(history[-1], state.x)
            aside += time.perf_counter() - pause
        if done or trouble:
            break
    seconds = time.perf_counter() - began - aside
    criterion = f"optimality residual <= {tol:g} within {n} iterations"
    if met is not None and done and worst > tol:
        criterion = f"{step.rule} within {n} iterations"
    elif met is not None and not done:
        criterion = f"{step.rule}, or {criterion}"
    outcome: Outcome = "converged" if done else "budget"
    story = f"{'converged' if done else 'did not converge'} within {k} iterations: residual {worst:.1e}"
    last: float | None = worst
    if trouble is not None:
        assert monitor is not None
        assert monitor.best is not None
        state, outcome, story = monitor.best, trouble.kind, trouble.story
        last = monitor.best_residual if trouble.best else None
    gap = _relative_gap(step, problem, state)
    return Solution(state, k, done, criterion, last, gap, seconds, tuple(history), outcome, story)


def relative_error(space: Space, x: Tensor, truth: Tensor) -> float:
    """``|x - truth| / |truth|``, the largest over the batch."""
    size = space.norm(truth).clamp_min(torch.finfo(truth.dtype).tiny)
    return float((space.norm(x - truth) / size).max())


def _judge(
    step: Step[Any], problem: Problem, before: State, after: State, tol: float
) -> tuple[Tensor, Tensor | None, bool]:
    """The residual, which elements meet the step's own rule, and whether every element meets that or `tol`."""
    residual = step.residual(problem, before, after)
    met = step.finished(problem, after)
    return residual, met, bool((residual <= tol if met is None else met | (residual <= tol)).all())


class _Guard:
    """Raises DivergenceError at the first iteration that is not finite, or that grows."""

    def __init__(self, name: str, tol: float) -> None:
        self.name, self.tol, self.first = name, tol, 0.0

    def check(self, k: int, problem: Problem, before: Tensor, after: Tensor, residual: Tensor) -> float:
        """The largest residual over the batch."""
        change = float(problem.space.norm(after - before).max())
        worst = float(residual.max())
        what = f"{self.name} diverged at iteration {k}"
        if not (math.isfinite(change) and math.isfinite(worst)):
            raise DivergenceError(what, expected="finite values", got=f"{change} {worst}", cure=_CURE)
        if k <= 10:
            # A start at the solution must not make rounding errors look like growth.
            self.first = max(self.first, change, self.tol * float(problem.space.norm(after).max()))
        elif change > GROWTH * self.first:
            raise DivergenceError(
                what, expected=f"a change below {GROWTH:g} times {self.first:.3g}", got=f"{change:.3g}", cure=_CURE
            )
        return worst


def _relative_gap(step: Step[Any], problem: Problem, state: State) -> float | None:
    """The primal-dual gap relative to the objective, the largest over the batch; None where there is none."""
    gap = step.gap(problem, state)
    if gap is None or not bool(torch.isfinite(gap).all()):
        return None
    return float((gap / problem.objective(state.x).abs().clamp_min(torch.finfo(gap.dtype).tiny)).max())


_CURE = "reduce the step size, or leave it to be chosen from the operator norm"
