"""State and Step: one iteration of a method, the same code whether repeated (classical) or listed (unrolled)."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..problem import Problem


@dataclass(frozen=True)
class State:
    """What one iteration hands to the next; steps add their own fields.

    Parameters
    ----------
    x
        The image, ``[..., *space.shape]``.
    """

    x: Tensor


S = TypeVar("S", bound=State)


class Step(nn.Module, Generic[S]):
    """One iteration of a method: pure, with parameters that are floats or nn.Parameters.

    Subclasses write ``init`` (which refuses a problem that the method cannot solve) and ``forward``, and may sharpen
    ``residual`` and ``gap``.
    """

    def init(self, problem: Problem, x0: Tensor | None = None) -> S:
        """The state before the first iteration; `x0` is the starting image (zero when absent)."""
        raise NotImplementedError(f"{type(self).__name__} has no init")

    def forward(self, problem: Problem, state: S) -> S:
        """The next state."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def residual(self, problem: Problem, before: S, after: S) -> Tensor:
        """The fixed-point residual of one iteration, per batch element, absolute: ``|x+ - x|`` unless a step knows better."""
        return problem.space.norm(after.x - before.x)

    def gap(self, problem: Problem, state: S) -> Tensor | None:
        """The primal-dual gap per batch element where the method has a dual point and the gap exists, else None."""
        return None


def refuse_terms(step: Step[S], problem: Problem) -> None:
    """Raise InputError when `problem` has operator terms that `step` cannot treat."""
    if problem.terms:
        raise InputError(
            f"{type(step).__name__}", expected="a problem without operator terms", got=f"{len(problem.terms)} of them",
            cure="use PDHG or ADMM, or a prior with a proximal map",
        )  # fmt: skip


def smooth_lipschitz(step: Step[S], problem: Problem) -> float:
    """Lipschitz constant of the data gradient; raises InputError when the data term is not smooth."""
    constant = problem.data.lipschitz()
    if constant is None:
        raise InputError(
            f"data term of {type(step).__name__}", expected="a smooth functional", got=type(problem.data.f).__name__
        )
    return constant


def start(problem: Problem, x0: Tensor | None) -> Tensor:
    """The starting image: `x0` checked against the problem, or zero."""
    if x0 is None:
        return problem.zeros()
    problem.space.check(x0, "starting image")
    return x0


def all_finite(state: State) -> bool:
    """Whether every tensor of the state is finite."""
    for f in fields(state):
        value = getattr(state, f.name)
        tensors = value if isinstance(value, tuple) else (value,)
        if any(isinstance(t, Tensor) and not bool(torch.isfinite(t).all()) for t in tensors):
            return False
    return True
