"""Proximal gradient methods for ``min_x f(Ax) + g(x)`` with a smooth data term: ISTA and FISTA."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..constraints import Relative
from ..problem import Problem
from .base import (
    State,
    Step,
    at_hand,
    check_positive,
    per_image,
    refuse_terms,
    relative,
    smooth_lipschitz,
    start,
    within,
)
from .duality import duality_gap


class ISTA(Step[State]):
    """Proximal gradient: ``x+ = prox_{t g}(x - t A^H grad f(Ax))`` (Daubechies, Defrise and De Mol, 2004).

    Converges for ``0 < t < 2 / L`` with ``L = L_f |A|^2``; ``J(x_k) - J* <= L |x_0 - x*|^2 / (2 k)`` for ``t = 1 / L``
    (Beck and Teboulle, 2009, theorem 3.1). One forward and one adjoint per iteration.

    Parameters
    ----------
    step_size
        t, a number, an nn.Parameter or a `StepSize`; ``1 / L`` when absent.
    """

    def __init__(self, step_size: float | Tensor | Relative | None = None) -> None:
        super().__init__()
        check_positive("step size of ISTA", step_size)
        self.step_size = step_size

    def init(self, problem: Problem, x0: Tensor | None = None) -> State:
        """Start at `x0`."""
        refuse_terms(self, problem)
        return State(start(problem, x0))

    def forward(self, problem: Problem, state: State) -> State:
        """One proximal gradient step."""
        return State(_proximal_gradient(self, problem, state.x, self.step_size))

    def is_legal(self, problem: Problem) -> bool:
        """A smooth data term, no operator terms, and ``t < 2 / L``."""
        constant = problem.data.lipschitz()
        if constant is None or problem.terms:
            return False
        return within(at_hand(problem, self.step_size), 2 / constant if constant else math.inf, strictly=True)

    def residual(self, problem: Problem, before: State, after: State) -> Tensor:
        """``|x+ - x| / |x+|``, divided by ``t L`` for a step shorter than ``1 / L``."""
        return _stretch(self, problem, self.step_size) * relative(problem.space, after.x - before.x, after.x)

    def gap(self, problem: Problem, state: State) -> Tensor | None:
        """The gap at x and the dual point ``grad f(Ax)``."""
        return duality_gap(problem, state.x)


@dataclass(frozen=True)
class Extrapolated(State):
    """FISTA's state: x, the extrapolated point z ``[..., *shape]`` and the momentum parameter t ``[...]``."""

    z: Tensor
    t: Tensor


class FISTA(Step[Extrapolated]):
    """Accelerated proximal gradient (Beck and Teboulle, 2009) with adaptive restart (O'Donoghue and Candes, 2015).

    ``x+ = prox_{s g}(z - s A^H grad f(Az))``, ``t+ = (1 + sqrt(1 + 4 t^2)) / 2``, ``z+ = x+ + (t - 1) / t+ (x+ - x)``,
    for the objective ``f(Ax) + g(x)`` with g convex and ``0 < s <= 1 / L``, ``L = L_f |A|^2``:
    ``J(x_k) - J* <= 2 L |x_0 - x*|^2 / (k + 1)^2``. The restart drops the momentum of a batch element when it points
    uphill, ``Re <z - x+, x+ - x> > 0``, which recovers linear convergence where ISTA has it. One forward and one
    adjoint per iteration.

    Parameters
    ----------
    step_size
        s, a number, an nn.Parameter or a `StepSize`; ``1 / L`` when absent.
    restart
        Whether to restart.
    """

    def __init__(self, step_size: float | Tensor | Relative | None = None, restart: bool = True) -> None:
        super().__init__()
        check_positive("step size of FISTA", step_size)
        self.step_size = step_size
        self.restart = restart

    def init(self, problem: Problem, x0: Tensor | None = None) -> Extrapolated:
        """Start at `x0` without momentum."""
        refuse_terms(self, problem)
        x = start(problem, x0)
        return Extrapolated(x, x, per_image(problem, x, 1.0))

    def forward(self, problem: Problem, state: Extrapolated) -> Extrapolated:
        """One proximal gradient step at z, then the extrapolation."""
        space = problem.space
        x = _proximal_gradient(self, problem, state.z, self.step_size)
        move = x - state.x
        t = state.t
        if self.restart:
            t = torch.where(space.inner(state.z - x, move).real > 0, 1.0, t)
        t_next = (1 + torch.sqrt(1 + 4 * t * t)) / 2
        return Extrapolated(x, x + space.expand((t - 1) / t_next) * move, t_next)

    def is_legal(self, problem: Problem) -> bool:
        """A smooth data term, no operator terms, and ``s <= 1 / L``.

        With restarts: ``J(x_k) + |x_k - x_(k-1)|^2 / (2 s)`` never grows, whatever the momentum below 1 (Chambolle and
        Dossal, 2015), and falls by the squared step at a restart; so either there are finitely many and the rate of
        FISTA holds after the last, or the proximal gradient steps after them vanish, at a minimiser.
        """
        constant = problem.data.lipschitz()
        if constant is None or problem.terms:
            return False
        return within(at_hand(problem, self.step_size), 1 / constant if constant else math.inf)

    def residual(self, problem: Problem, before: Extrapolated, after: Extrapolated) -> Tensor:
        """``|x+ - z| / |x+|`` at the extrapolated point, divided by ``s L`` for a step shorter than ``1 / L``."""
        return _stretch(self, problem, self.step_size) * relative(problem.space, after.x - before.z, after.x)

    def gap(self, problem: Problem, state: Extrapolated) -> Tensor | None:
        """The gap at x and the dual point ``grad f(Ax)``."""
        return duality_gap(problem, state.x)


def _proximal_gradient(
    step: ISTA | FISTA, problem: Problem, x: Tensor, step_size: float | Tensor | Relative | None
) -> Tensor:
    t = per_image(problem, x, 1 / _positive_lipschitz(step, problem) if step_size is None else step_size)
    return problem.prior.prox(x - problem.space.expand(t) * problem.data.gradient(x), t)


def _positive_lipschitz(step: ISTA | FISTA, problem: Problem) -> float:
    # A data term that is constant (a zero operator) allows any step.
    return smooth_lipschitz(step, problem) or 1.0


def _stretch(step: ISTA | FISTA, problem: Problem, step_size: float | Tensor | Relative | None) -> float | Tensor:
    """``max(1, 1 / (t L))``: then the residual bounds that of 1 / L (Beck, First-Order Methods, theorem 10.9)."""
    if step_size is None:
        return 1.0
    stretch: Tensor = 1 / (torch.as_tensor(at_hand(problem, step_size)).detach() * _positive_lipschitz(step, problem))
    return stretch.clamp_min(1.0)
