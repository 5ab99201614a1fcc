"""Methods that take the gradient of the prior: gradient descent, and proximal steps on the data."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..functional import LeastSquares
from ..operator import Identity
from ..problem import Problem
from .base import (
    State,
    Step,
    check_positive,
    per_image,
    refuse_backprojector,
    refuse_terms,
    relative,
    smooth_lipschitz,
    start,
    within,
)
from .x_update import AutomaticUpdate, NormalSystem, XUpdate, is_exact


class GradientDescent(Step[State]):
    """``x+ = x - t (A^H grad f(Ax) + grad g(x))``: RED by gradient descent (Romano, Elad and Milanfar, 2017, eq. 30).

    With L the sum of the Lipschitz constants of both gradients it converges for ``0 < t < 2 / L``: for convex f and g
    to a minimiser, and where g is not convex to a stationary point of ``f(Ax) + g(x)``.

    Parameters
    ----------
    step_size
        t; ``1 / L`` when absent, where a denoiser of which nothing is known is taken as nonexpansive.
    """

    def __init__(self, step_size: float | Tensor | None = None) -> None:
        super().__init__()
        check_positive("step size of gradient descent", step_size)
        self.step_size = step_size

    def init(self, problem: Problem, x0: Tensor | None = None) -> State:
        """Start at `x0`."""
        refuse_terms(self, problem)
        smooth_lipschitz(self, problem)
        return State(start(problem, x0))

    def forward(self, problem: Problem, state: State) -> State:
        """One step downhill."""
        t = per_image(problem, state.x, self.size(problem))
        slope = problem.data.gradient(state.x) + problem.prior.gradient(state.x)
        return State(state.x - problem.space.expand(t) * slope)

    def size(self, problem: Problem) -> float | Tensor:
        """t."""
        if self.step_size is not None:
            return self.step_size
        return 1 / ((smooth_lipschitz(self, problem) + prior_lipschitz(problem)) or 1.0)

    def is_legal(self, problem: Problem) -> bool:
        """Both gradients Lipschitz with known constants, and ``t < 2 / L``."""
        data, prior = problem.data.lipschitz(), problem.prior.gradient_lipschitz()
        if data is None or prior is None or problem.terms:
            return False
        return within(self.step_size, 2 / (data + prior) if data + prior else float("inf"), strictly=True)

    def residual(self, problem: Problem, before: State, after: State) -> Tensor:
        """``|x+ - x| / |x+|``, divided by ``t L`` for a step shorter than ``1 / L``."""
        stretch = _stretch(self.size(problem), smooth_lipschitz(self, problem) + prior_lipschitz(problem))
        return stretch * relative(problem.space, after.x - before.x, after.x)


class DataProximal(Step[State]):
    """``x+ = argmin_u 0.5 |Au - y|^2 + |u - (x - t grad g(x))|^2 / (2 t)``: proximal gradient with the data in the prox
    and the gradient of the prior (RED-PG, Reehorst and Schniter, 2019; Hurault et al., 2022, eq. 12).

    With L the Lipschitz constant of grad g and f convex it converges for ``0 < t < 2 / L``, to a minimiser for convex
    g; else ``f(Ax) + g(x)`` falls by at least ``(1 / t - L / 2) |x+ - x|^2`` a step, and it approaches the stationary
    points. Unlike the gradient of the data, their prox does not care how badly A is conditioned.

    Parameters
    ----------
    step_size
        t; ``1 / L`` when absent, where a denoiser of which nothing is known is taken as nonexpansive.
    x_update
        Solves ``(A^H A + 1/t) u = A^H y + (x - t grad g(x)) / t``; ExactUpdate where the operator offers it, else
        CGUpdate, when absent.
    """

    def __init__(self, step_size: float | Tensor | None = None, x_update: XUpdate | None = None) -> None:
        super().__init__()
        check_positive("step size of a proximal step", step_size)
        self.step_size = step_size
        self.x_update: XUpdate = AutomaticUpdate() if x_update is None else x_update

    def init(self, problem: Problem, x0: Tensor | None = None) -> State:
        """Start at `x0`."""
        refuse_terms(self, problem)
        refuse_backprojector(self, problem)
        _least_squares(self, problem)
        return State(start(problem, x0))

    def forward(self, problem: Problem, state: State) -> State:
        """The gradient step on the prior and the proximal step on the data."""
        t = per_image(problem, state.x, self.size(problem))
        v = state.x - problem.space.expand(t) * problem.prior.gradient(state.x)
        return State(self.x_update(self._system(problem, state.x, v, t)))

    def _system(self, problem: Problem, x: Tensor, v: Tensor, t: Tensor) -> NormalSystem:
        b = problem.data.K.adjoint(_least_squares(self, problem).y) + problem.space.expand(1 / t) * v
        return NormalSystem((problem.data.K, Identity(problem.space)), (torch.ones_like(t), 1 / t), b, x)

    def size(self, problem: Problem) -> float | Tensor:
        """t."""
        return 1 / (prior_lipschitz(problem) or 1.0) if self.step_size is None else self.step_size

    def is_legal(self, problem: Problem) -> bool:
        """A known Lipschitz constant of grad g, ``t < 2 / L``, and an x-update in closed form."""
        prior = problem.prior.gradient_lipschitz()
        if prior is None or problem.terms:
            return False
        x = problem.zeros()
        exact = is_exact(self.x_update, self._system(problem, x, x, per_image(problem, x, self.size(problem))))
        return exact and within(self.step_size, 2 / prior if prior else float("inf"), strictly=True)

    def residual(self, problem: Problem, before: State, after: State) -> Tensor:
        """``|x+ - x| / |x+|``, divided by ``t L`` for a step shorter than ``1 / L``."""
        stretch = _stretch(self.size(problem), prior_lipschitz(problem))
        return stretch * relative(problem.space, after.x - before.x, after.x)


def prior_lipschitz(problem: Problem) -> float:
    """The Lipschitz constant of the prior's gradient; where none is known that of a nonexpansive denoiser, 2 tau."""
    known = problem.prior.gradient_lipschitz()
    if known is not None:
        return known
    tau = getattr(problem.prior, "tau", None)
    if tau is None:
        raise InputError(f"prior {type(problem.prior).__name__}", expected="a differentiable one, such as RED",
                         got="one without a gradient", cure="use a proximal method")  # fmt: skip
    return 2 * float(torch.as_tensor(tau).detach().max())


def _least_squares(step: Step[Any], problem: Problem) -> LeastSquares:
    f = problem.data.f
    if not isinstance(f, LeastSquares):
        raise InputError(f"data term of {type(step).__name__}", expected="least squares", got=type(f).__name__)
    return f


def _stretch(step_size: float | Tensor, lipschitz: float) -> Tensor:
    return (1 / (torch.as_tensor(step_size).detach() * (lipschitz or 1.0))).clamp_min(1.0)
