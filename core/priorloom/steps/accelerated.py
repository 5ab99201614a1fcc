"""Accelerated descent on objectives that need not be convex."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from ..problem import Problem
from .base import State, Step, check_positive, per_image, refuse_terms, relative, smooth_lipschitz, start, within
from .red import prior_lipschitz

DECREASE = 1e-2
"""An extrapolated step must lower the objective by this fraction of what a plain one is sure to."""


@dataclass(frozen=True)
class Descending(State):
    """The state of accelerated descent.

    Parameters
    ----------
    z
        The point at which the next gradient is taken, ``[..., *shape]``.
    t
        The momentum parameter, ``[...]``.
    objective
        ``J(x)``, ``[...]``.
    taken_from
        The point at which the last gradient was taken, ``[..., *shape]``.
    """

    z: Tensor
    t: Tensor
    objective: Tensor
    taken_from: Tensor


class AcceleratedDescent(Step[Descending]):
    """Monotone accelerated gradient descent on ``J(x) = f(Ax) + g(x)``, both smooth, g not necessarily convex (after Li
    and Lin, Accelerated proximal gradient methods for nonconvex programming, 2015, algorithm 2 with eta = 0).

    ``x+ = z - s grad J(z)`` where that lowers J by enough, ``J(x+) <= J(x) - delta |x+ - z|^2``, else ``x+ = x - s grad
    J(x)``; then ``z+ = x+ + (t - 1) / t+ (x+ - x)``, and no momentum after a plain step. With ``0 < s <= 1 / L``, L the
    sum of the Lipschitz constants of both gradients, and J bounded from below, J never rises: by at least ``delta s^2
    |grad J|^2`` it falls, with the gradient where it was taken, s |grad J| away from x+. So ``grad J(x)`` vanishes and
    every cluster point is stationary. Where J is convex near the solution it is as fast as FISTA there. An iteration
    takes one gradient and one value of J, and after a refusal one of each more.

    Parameters
    ----------
    step_size
        s; ``1 / L`` when absent.
    """

    def __init__(self, step_size: float | Tensor | None = None) -> None:
        super().__init__()
        check_positive("step size of accelerated descent", step_size)
        self.step_size = step_size

    def init(self, problem: Problem, x0: Tensor | None = None) -> Descending:
        """Start at `x0` without momentum."""
        refuse_terms(self, problem)
        smooth_lipschitz(self, problem)
        if not problem.has_value:
            raise InputError("objective of accelerated descent", expected="a prior that has a value, such as RED with a"
                             " gradient-step denoiser", got=type(problem.prior).__name__)  # fmt: skip
        x = start(problem, x0)
        return Descending(x, x, per_image(problem, x, 1.0), problem.objective(x), x)

    def forward(self, problem: Problem, state: Descending) -> Descending:
        """The extrapolated step, or the plain one."""
        space = problem.space
        x = self._descend(problem, state.z)
        objective = problem.objective(x)
        least = DECREASE / (2 * per_image(problem, x, self.size(problem))) * space.squared(x - state.z)
        refused = ~(objective <= state.objective - least)
        point = state.z
        t = state.t
        if bool(refused.any()):
            plain = self._descend(problem, state.x)
            chosen = space.expand(refused)
            x, point = torch.where(chosen, plain, x), torch.where(chosen, state.x, point)
            objective = torch.where(refused, problem.objective(x), objective)
            t = torch.where(refused, 1.0, t)
        t_next = (1 + torch.sqrt(1 + 4 * t * t)) / 2
        momentum = space.expand(torch.where(refused, 0.0, (t - 1) / t_next))
        return Descending(x, x + momentum * (x - state.x), t_next, objective, point)

    def size(self, problem: Problem) -> float | Tensor:
        """s."""
        if self.step_size is not None:
            return self.step_size
        return 1 / ((smooth_lipschitz(self, problem) + prior_lipschitz(problem)) or 1.0)

    def is_legal(self, problem: Problem) -> bool:
        """Both gradients Lipschitz with known constants, a value, and ``s <= 1 / L``."""
        data, prior = problem.data.lipschitz(), problem.prior.gradient_lipschitz()
        if data is None or prior is None or problem.terms or not problem.has_value:
            return False
        return within(self.step_size, 1 / (data + prior) if data + prior else float("inf"))

    def residual(self, problem: Problem, before: Descending, after: Descending) -> Tensor:
        """``|x+ - z| / |x+|`` with z where the gradient was taken, divided by ``s L`` for a step below ``1 / L``."""
        size = torch.as_tensor(self.size(problem)).detach()
        total = smooth_lipschitz(self, problem) + prior_lipschitz(problem)
        stretch = (1 / (size * (total or 1.0))).clamp_min(1.0)
        return stretch * relative(problem.space, after.x - after.taken_from, after.x)

    def _descend(self, problem: Problem, x: Tensor) -> Tensor:
        s = problem.space.expand(per_image(problem, x, self.size(problem)))
        return x - s * (problem.data.gradient(x) + problem.prior.gradient(x))
