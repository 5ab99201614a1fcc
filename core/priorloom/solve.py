"""run(): one step repeated until a stated criterion is met (classical), or a list of steps (unrolled)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from .errors import DivergenceError, InputError
from .problem import Problem
from .steps.base import State, Step, all_finite

GROWTH = 1e4
"""An absolute residual that exceeds the largest of the first ten by this factor is divergence."""


@dataclass(frozen=True)
class Record:
    """One point of the convergence curve: relative residual, objective (None where there is none), seconds of solving so far."""

    iteration: int
    residual: float
    objective: float | None
    seconds: float


@dataclass(frozen=True)
class Solution:
    """Where an iteration ended.

    Parameters
    ----------
    state, iterations
        The last state, and how many steps made it.
    converged
        True only when the criterion was met; None where there is none (a direct method, an unrolled network).
    criterion
        The criterion in words.
    residual
        The last relative fixed-point residual, the largest over the batch; None without an iteration.
    gap
        The last relative primal-dual gap where it exists.
    seconds
        Time spent in the steps.
    history
        The convergence curve.
    """

    state: State
    iterations: int
    converged: bool | None
    criterion: str
    residual: float | None = None
    gap: float | None = None
    seconds: float = 0.0
    history: tuple[Record, ...] = field(default=())

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
    on_record: Callable[[Record], None] | None = None,
    record_every: int = 10,
) -> Solution:
    """Solve `problem` with one repeated step, or apply a list of steps once each.

    A single step is repeated under no_grad until the fixed-point residual relative to the image,
    ``residual / |x+|``, is at most `tol` for every batch element, or `n` iterations are done. A ModuleList is the unrolled
    form: every layer is applied once, gradients flow, and there is no criterion; the first layer makes the initial state.

    Raises
    ------
    DivergenceError
        When a state is not finite or the residual grows beyond `GROWTH` times its start.
    """
    if isinstance(steps, nn.ModuleList):
        return _unroll(steps, problem, x0)
    if n < 1:
        raise InputError("solver.max_iterations", expected="at least 1", got=n)
    if not tol > 0:
        raise InputError("solver.tolerance", expected="a positive number", got=tol)
    with torch.no_grad():
        return _repeat(steps, problem, n, tol, x0, on_record, record_every)


def _unroll(steps: nn.ModuleList, problem: Problem, x0: Tensor | None) -> Solution:
    began = time.perf_counter()
    layers = [layer for layer in steps if isinstance(layer, Step)]
    state = layers[0].init(problem, x0) if layers else State(problem.zeros() if x0 is None else x0)
    for layer in layers:
        state = layer(problem, state)
    return Solution(state, len(layers), None, "a fixed number of layers", seconds=time.perf_counter() - began)


def _repeat(
    step: Step[Any],
    problem: Problem,
    n: int,
    tol: float,
    x0: Tensor | None,
    on_record: Callable[[Record], None] | None,
    record_every: int,
) -> Solution:
    name = type(step).__name__
    began = time.perf_counter()
    aside = 0.0  # time spent on the convergence curve, not on solving
    state = step.init(problem, x0)
    history: list[Record] = []
    first = 0.0
    for k in range(1, n + 1):
        before, state = state, step(problem, state)
        absolute = step.residual(problem, before, state)
        size = problem.space.norm(state.x).clamp_min(torch.finfo(problem.space.real_dtype).tiny)
        residual, largest = float((absolute / size).max()), float(absolute.max())
        if not math.isfinite(largest) or not all_finite(state):
            raise DivergenceError(
                f"{name} diverged at iteration {k}", expected="finite values", got=largest, cure=_CURE
            )
        if k <= 10:
            first = max(first, largest)
        elif largest > GROWTH * max(first, tol * float(size.max())):
            raise DivergenceError(
                f"{name} diverged at iteration {k}", expected=f"a residual below {GROWTH:g} times {first:.3g}",
                got=f"{largest:.3g}", cure=_CURE,
            )  # fmt: skip
        done = residual <= tol
        if done or k == n or k % record_every == 0 or k == 1:
            pause = time.perf_counter()
            objective = float(problem.objective(state.x).sum()) if problem.has_value else None
            history.append(Record(k, residual, objective, pause - began - aside))
            if on_record is not None:
                on_record(history[-1])
            aside += time.perf_counter() - pause
        if done:
            break
    seconds = time.perf_counter() - began - aside
    gap = step.gap(problem, state)
    relative_gap = None
    if gap is not None and bool(torch.isfinite(gap).all()):
        relative_gap = float((gap / problem.objective(state.x).abs().clamp_min(1e-30)).max())
    criterion = f"fixed-point residual / |x| <= {tol:g} within {n} iterations"
    return Solution(state, k, done, criterion, residual, relative_gap, seconds, tuple(history))


_CURE = "reduce the step size, or leave it to be chosen from the operator norm"
