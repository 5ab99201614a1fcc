"""Proximal gradient methods for ``min_x f(Ax) + g(x)`` with a smooth data term: ISTA and FISTA."""

from __future__ import annotations

from torch import Tensor

from ..problem import Problem
from .base import State, Step, refuse_terms, smooth_lipschitz, start


class ISTA(Step[State]):
    """Proximal gradient: ``x+ = prox_{t g}(x - t A^H grad f(Ax))`` (Daubechies, Defrise and De Mol, 2004).

    Converges for ``0 < t < 2 / L`` with ``L = L_f |A|^2``.

    Parameters
    ----------
    step_size
        t, a number or an nn.Parameter; ``1 / L`` when absent.
    """

    def __init__(self, step_size: float | Tensor | None = None) -> None:
        super().__init__()
        self.step_size = step_size

    def init(self, problem: Problem, x0: Tensor | None = None) -> State:
        """Start at `x0`."""
        refuse_terms(self, problem)
        return State(start(problem, x0))

    def forward(self, problem: Problem, state: State) -> State:
        """One proximal gradient step."""
        t = 1 / smooth_lipschitz(self, problem) if self.step_size is None else self.step_size
        return State(problem.prior.prox(state.x - t * problem.data.gradient(state.x), t))
