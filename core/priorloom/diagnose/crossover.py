"""Crossover: how many iterations, and seconds, a classical method needs for the accuracy of an unrolled network."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

import torch
from torch import Tensor

from ..errors import InputError
from ..modality import Batch
from ..problem import Problem
from ..space import Space
from ..steps.base import Step
from ..unrolled import Unrolled
from .error_split import crossover
from .states import problem_of, states, steps_of

Outcome = Literal["reached", "never", "not yet"]
BLOCK = 8
"""Iterations of a classical method between two looks at the clock."""


@dataclass(frozen=True)
class Rival:
    """A classical method on one problem.

    Parameters
    ----------
    name
        Of the method.
    step, problem
        The step and what it solves.
    start
        Makes the starting image, None for zero; its time counts.
    max_iterations, tolerance
        It goes on until its residual is at most that, or so often.
    """

    name: str
    step: Step[Any]
    problem: Problem
    start: Callable[[], Tensor | None]
    max_iterations: int = 1000
    tolerance: float = 1e-5


@dataclass(frozen=True)
class Curve:
    """Error against iterations (layers) and seconds.

    Parameters
    ----------
    name
        Of the method.
    errors
        ``|x_k - x*| / |x*|`` for k = 0, 1, ..., n.
    seconds
        Until x_k is there, that of the start included.
    limit
        The error of the converged solution; None for a network, or where nothing has converged.
    """

    name: str
    errors: tuple[float, ...]
    seconds: tuple[float, ...]
    limit: float | None = None


@dataclass(frozen=True)
class Need:
    """What a classical method needs to reach an error.

    Parameters
    ----------
    method, outcome
        Which one, and whether it was ``reached``, will ``never`` be (it was not, and the error of the converged
        solution is larger) or was ``not yet`` within the iterations that were done.
    iterations, seconds
        Until it was reached; what was spent in vain where it was ``not yet``; None for ``never``.
    """

    method: str
    outcome: Outcome
    iterations: int | None = None
    seconds: float | None = None


def relative_error(space: Space, x: Tensor, reference: Tensor) -> float:
    """``|x - x*| / |x*|`` over the whole batch."""
    size = float(space.norm(reference).norm())
    if not size > 0:
        raise InputError("reference of an error", expected="an image that is not zero", got="zeros")
    return float(space.norm(x - reference).norm()) / size


def layer_errors(model: Unrolled, batch: Batch, reference: Tensor) -> tuple[float, ...]:
    """The relative error after 0, 1, ..., K layers."""
    space = batch.operator.domain
    with torch.no_grad():
        return tuple(relative_error(space, state.x, reference) for state in states(model, batch))


def rival_errors(rival: Rival, reference: Tensor) -> tuple[tuple[float, ...], bool]:
    """The relative error after 0, 1, ... iterations, and whether it has converged."""
    problem, step, space = rival.problem, rival.step, rival.problem.space
    with torch.no_grad():
        state = step.init(problem, rival.start())
        errors = [relative_error(space, state.x, reference)]
        for _ in range(rival.max_iterations):
            before, state = state, step(problem, state)
            errors.append(relative_error(space, state.x, reference))
            if bool((step.residual(problem, before, state) <= rival.tolerance).all()):
                return tuple(errors), True
    return tuple(errors), False


def seconds_of(model: Unrolled, batch: Batch, rivals: Sequence[Rival], *, repeats: int = 5) -> dict[str, list[float]]:
    """Seconds that pass until each layer of the network is done (under "network"), and for every rival the seconds of
    its start and of one iteration.

    The methods take turns, `repeats` times after one that does not count, in one process, and medians are taken: what
    slows the machine for a while slows all of them.
    """
    tasks: dict[str, Callable[[], list[float]]] = {"network": lambda: _time_layers(model, batch)}
    for rival in rivals:
        tasks[rival.name] = lambda rival=rival: _time_iterations(rival)  # type: ignore[misc]
    with torch.no_grad():
        rounds = [{name: task() for name, task in tasks.items()} for _ in range(repeats + 1)]
    return {name: [median(marks) for marks in zip(*(r[name] for r in rounds[1:]), strict=True)] for name in tasks}


def iteration_seconds(start: float, iteration: float, iterations: int) -> tuple[float, ...]:
    """Seconds until 0, 1, ... iterations are done."""
    return tuple(start + k * iteration for k in range(iterations + 1))


def need(curve: Curve, error: float) -> Need:
    """What a classical method needs to reach `error`."""
    found = crossover(error, torch.tensor(curve.errors, dtype=torch.float64))
    if found is not None:
        return Need(curve.name, "reached", found, curve.seconds[found])
    if curve.limit is not None and curve.limit > error:
        return Need(curve.name, "never")
    return Need(curve.name, "not yet", len(curve.errors) - 1, curve.seconds[-1])


def faster_from(network: Curve, needs: Sequence[Need]) -> int | None:
    """The first layer from which on a network is there before a classical method that is to be as accurate; None where
    it is not even so at the last layer.

    Parameters
    ----------
    network
        K layers.
    needs
        What the method needs for the accuracy after layers 1, ..., K.
    """
    first = None
    for layer in range(len(needs), 0, -1):
        seconds = needs[layer - 1].seconds
        if seconds is not None and seconds <= network.seconds[layer]:
            break
        first = layer
    return first


def _time_layers(model: Unrolled, batch: Batch) -> list[float]:
    device = batch.measurement.device
    began = _now(device)
    marks = []
    steps = steps_of(model.layers)
    problem = problem_of(model, batch)
    state = steps[0].init(problem, model.starting_image(batch.operator, batch.measurement))
    marks.append(_now(device) - began)
    for step in steps:
        state = step(problem, state)
        marks.append(_now(device) - began)
    return marks


def _time_iterations(rival: Rival) -> list[float]:
    device = rival.problem.device
    began = _now(device)
    state = rival.step.init(rival.problem, rival.start())
    started = _now(device)
    for _ in range(BLOCK):
        before, state = state, rival.step(rival.problem, state)
        rival.step.residual(rival.problem, before, state)  # without it nobody knows when to stop
    return [started - began, (_now(device) - started) / BLOCK]


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
