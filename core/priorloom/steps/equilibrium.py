"""Steps at their fixed point: `Equilibrium`, one layer with an implicit backward, and `Anderson`, which accelerates.

With T the map of the inner step, ``x -> T(x; y, w)`` (y the measurement, w the parameters), and ``x* = T(x*)``:

Theorem (Banach; implicit functions). Where T contracts by ``c < 1`` in x, x* exists, is unique and does not depend on
the start; ``|x - x*| <= |T(x) - x| / (1 - c)`` for every x; it is Lipschitz in y with ``l / (1 - c)`` where T is with
l; and where T is continuously differentiable, so is x*, with ``dx* = (I - J)^-1 dT``, J the derivative of T in x at x*.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import singledispatch
from typing import Any

import torch
from torch import Tensor

from ..anderson import FixedPoint, Mixture, advance, anderson, begin
from ..errors import InputError
from ..problem import Problem
from ..space import Space
from .base import State, Step
from .learned import Layer
from .proximal import ISTA
from .red import DataProximal, GradientDescent


@dataclass(frozen=True)
class Settled(State):
    """The state after an `Equilibrium`.

    Parameters
    ----------
    found
        How its fixed point was found; None before.
    """

    found: FixedPoint | None = None


@singledispatch
def prepared(step: Step[Any], problem: Problem) -> tuple[Step[Any], Problem]:
    """The step to repeat, and its problem with what does not change while it is repeated computed once; plugins
    register their steps with ``prepared.register``."""
    return step, problem


@prepared.register
def _(step: Layer, problem: Problem) -> tuple[Step[Any], Problem]:  # type: ignore[type-arg]
    return prepared(step.step, problem.with_prior(step.prior(problem)))


class Equilibrium(Step[Settled]):
    """A step at its fixed point as one layer: a deep equilibrium (Bai, Kolter and Koltun, 2019; for inverse problems
    Gilton, Ongie and Willett, 2021)::

        x+ = T(z),  z the fixed point of T by `anderson`, without gradients

    Its backward solves ``u = J^T u + dloss/dx+`` by `anderson` too, with J the derivative of T at z, and hands u to T:
    the exact derivative of the fixed point, up to the tolerances, for the memory of one application of T however many
    iterations it takes. No gradient flows to the starting image, on which a unique fixed point does not depend. It
    is differentiated once: what asks for second derivatives, as `jacobian_norm` does, raises InputError.

    Where T does not contract nothing is guaranteed: z may not exist, may depend on the start, or the linear system may
    be singular (``I - J`` is for least squares without a prior on an operator with a null space). What was reached is
    in the state, `Settled`.

    Mixed precision is switched off inside: bfloat16 has no points that are fixed to the tolerances.

    Parameters
    ----------
    step
        The step whose state is one image, such as ISTA, DataProximal, or a `Layer` of one.
    memory, tolerance, max_iterations
        Of `anderson` for the fixed point.
    backward_tolerance, backward_iterations
        The same for the linear system of the backward; as for the fixed point when absent.

    Raises
    ------
    InputError
        Where the state of `step` is more than an image (FISTA, ADMM, PDHG), at ``init`` and in the layer.
    """

    def __init__(
        self,
        step: Step[Any],
        *,
        memory: int = 5,
        tolerance: float = 1e-4,
        max_iterations: int = 100,
        backward_tolerance: float | None = None,
        backward_iterations: int | None = None,
    ) -> None:
        super().__init__()
        self.step = step
        self.memory = memory
        self.tolerance = tolerance
        self.max_iterations = max_iterations
        self.backward_tolerance = tolerance if backward_tolerance is None else backward_tolerance
        self.backward_iterations = max_iterations if backward_iterations is None else backward_iterations

    def init(self, problem: Problem, x0: Tensor | None = None) -> Settled:
        """Start at `x0`."""
        step, own = prepared(self.step, problem)
        return Settled(_one_image(self, step, own, x0))

    def forward(self, problem: Problem, state: State) -> Settled:
        """The fixed point that the iteration from `state` finds."""
        with torch.autocast(state.x.device.type, enabled=False):
            step, own = prepared(self.step, problem)
            x = _one_image(self, step, own, state.x)

            def f(image: Tensor) -> Tensor:
                after: Tensor = step(own, State(image)).x
                return after

            found = anderson(
                f, x, problem.space, memory=self.memory, tolerance=self.tolerance, max_iterations=self.max_iterations
            )
            if not torch.is_grad_enabled():
                return Settled(f(found.x), found)
            at = found.x.detach().requires_grad_()
            image = f(at)
            solve = _Solve(self, problem.space, image, at)
            attached: Tensor = _Implicit.apply(image, solve)  # type: ignore[no-untyped-call]
            return Settled(attached, found)

    def residual(self, problem: Problem, before: State, after: State) -> Tensor:
        """The residual of the inner step, from the fixed point on."""
        step, own = prepared(self.step, problem)
        x = State(after.x)
        residual: Tensor = step.residual(own, x, step(own, x))
        return residual

    def gap(self, problem: Problem, state: State) -> Tensor | None:
        """That of the inner step."""
        step, own = prepared(self.step, problem)
        return step.gap(own, State(state.x))

    def is_legal(self, problem: Problem) -> bool:
        """Where `anderson` converges: the inner step is legal, and an averaged map on convex problems."""
        return _averaged(self.step, problem)


class _Solve:
    """``g -> u`` with ``u = J^T u + g``, J the derivative of `image` with respect to `at`."""

    def __init__(self, layer: Equilibrium, space: Space, image: Tensor, at: Tensor) -> None:
        self.memory = layer.memory
        self.tolerance, self.max_iterations = layer.backward_tolerance, layer.backward_iterations
        self.space, self.image, self.at = space, image, at

    def __call__(self, gradient: Tensor) -> Tensor:
        def f(u: Tensor) -> Tensor:
            (pulled,) = torch.autograd.grad(self.image, self.at, u, retain_graph=True)
            return pulled + gradient

        with torch.autocast(gradient.device.type, enabled=False):
            return anderson(
                f, gradient, self.space, memory=self.memory, tolerance=self.tolerance,
                max_iterations=self.max_iterations,
            ).x  # fmt: skip


class _Implicit(torch.autograd.Function):
    """The identity, whose backward is that of the fixed point."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, solve: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.solve = solve
        return image.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        if torch.is_grad_enabled():
            # T is differentiated at a point that is held fixed: second derivatives would lack how that moves.
            raise InputError(
                "derivative of an Equilibrium", expected="a first one", got="create_graph=True, for a second one",
                cure="unroll the step, or take finite differences of the gradient",
            )  # fmt: skip
        return ctx.solve(gradient), None


@dataclass(frozen=True)
class Accelerated(State):
    """The state of `Anderson`: x is the inner step's result at the last point that was taken.

    Parameters
    ----------
    mixture
        The points and their differences; None before the first iteration.
    """

    mixture: Mixture | None = None


class Anderson(Step[Accelerated]):
    """Any step whose state is one image, accelerated over the iterations of `run` (Walker and Ni, 2011), with the
    safeguard and the theorem of `anderson`; x is the inner step's result where the residual was smallest so far, for a
    nonexpansive step.

    One inner step per iteration; an iteration that refuses a point leaves x as it is. For plug-and-play it reaches the
    fixed point of the inner step, in fewer iterations where that contracts slowly.

    Parameters
    ----------
    step
        The inner step, such as ISTA or DataProximal.
    memory
        How many differences are kept; each holds two images.
    """

    def __init__(self, step: Step[Any], memory: int = 5) -> None:
        super().__init__()
        if memory < 1:
            raise InputError("memory of Anderson acceleration", expected="at least 1", got=memory)
        self.step = step
        self.memory = memory

    def init(self, problem: Problem, x0: Tensor | None = None) -> Accelerated:
        """Start at `x0`."""
        return Accelerated(_one_image(self, self.step, problem, x0))

    def forward(self, problem: Problem, state: State) -> Accelerated:
        """One inner step at the trial point."""
        kept = state.mixture if isinstance(state, Accelerated) else None
        mixture = begin(problem.space, state.x, self.memory) if kept is None else kept
        image = self.step(problem, State(mixture.trial)).x
        mixture = advance(problem.space, mixture, image)
        return Accelerated(mixture.image, mixture)

    def residual(self, problem: Problem, before: State, after: Accelerated) -> Tensor:
        """The residual of the inner step at the last point that was taken."""
        assert after.mixture is not None, "a residual is asked for after an iteration"
        residual: Tensor = self.step.residual(problem, State(after.mixture.x), State(after.x))
        return residual

    def gap(self, problem: Problem, state: State) -> Tensor | None:
        """That of the inner step."""
        return self.step.gap(problem, State(state.x))

    def is_legal(self, problem: Problem) -> bool:
        """The inner step is legal, and an averaged map on convex problems."""
        return _averaged(self.step, problem)


def _one_image(step: Step[Any], inner: Step[Any], problem: Problem, x0: Tensor | None) -> Tensor:
    state: State = inner.init(problem, x0)
    if type(state) is not State:
        raise InputError(
            f"step inside {type(step).__name__}", expected="one whose state is an image, such as ISTA or DataProximal",
            got=f"{type(inner).__name__}, whose state is {type(state).__name__}",
        )  # fmt: skip
    return state.x


def _averaged(step: Step[Any], problem: Problem) -> bool:
    # On convex problems these are gradient and proximal steps in turn, each averaged (Bauschke and Combettes, 2017).
    return isinstance(step, ISTA | GradientDescent | DataProximal) and step.is_legal(problem)
