"""Relaxed: any fixed-point iteration, damped."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from torch import Tensor

from ..errors import InputError
from ..problem import Problem
from .base import S, Step
from .douglas_rachford import DRS
from .equilibrium import Anderson
from .least_squares import CG, LSQR
from .primal_dual import PDHG
from .proximal import ISTA
from .red import DataProximal, GradientDescent


class Relaxed(Step[S]):
    """``s+ = (1 - a) s + a T(s)`` on the state s of a step T: the same fixed points, and shorter moves.

    Every tensor of the state that holds an element (the image, split variables, duals, momentum points) is blended.
    What holds one number per batch element (penalties, residuals) and counters are those of ``T(s)``. Quantities that
    follow linearly from others (``K x``, ``K^H q``) stay consistent.

    Theorem (Krasnoselskii, 1955; Mann, 1953; Bauschke and Combettes, 2017, section 5.2). Where T is nonexpansive in
    some norm of the state and has a fixed point, the iteration converges to one for every a in (0, 1), which T alone
    need not do. Where T is not nonexpansive nothing is proven: damping then holds back oscillation (eigenvalues of T
    near and below -1), and does not hold back growth along an eigenvalue above 1.

    FISTA's momentum makes T a different map in every iteration; it is damped all the same, and no theorem speaks of it.

    Parameters
    ----------
    step
        T, a step that is a map of its state; conjugate gradients are not.
    relaxation
        a in (0, 1]; 1 is T itself.
    after
        How many iterations of a step that counts them in ``state.k`` (half-quadratic splitting with its schedule of
        penalties) are not damped.
    """

    def __init__(self, step: Step[S], relaxation: float = 0.5, after: int = 0) -> None:
        super().__init__()
        if not 0 < relaxation <= 1:
            raise InputError("relaxation", expected="a number above 0 and at most 1", got=relaxation)
        if after < 0:
            raise InputError("iterations before the damping", expected="at least 0", got=after)
        if isinstance(step, Anderson):
            raise InputError("step that is damped", expected="the step inside an acceleration", got="Anderson",
                             cure="accelerate the damped step: Anderson(Relaxed(step))")  # fmt: skip
        if isinstance(step, CG | LSQR):
            raise InputError("step that is damped", expected="a fixed-point iteration", got=type(step).__name__,
                             cure="run it as it is: it converges for every problem that it accepts")  # fmt: skip
        self.step = step
        self.relaxation = relaxation
        self.after = after
        self.rule = step.rule

    def init(self, problem: Problem, x0: Tensor | None = None) -> S:
        """That of T; raises InputError where a delay is asked of a state that does not count."""
        state = self.step.init(problem, x0)
        if self.after and not hasattr(state, "k"):
            raise InputError(f"delayed damping of {type(self.step).__name__}", expected="a step that counts its"
                             " iterations in k", got=", ".join(f.name for f in fields(state)))  # fmt: skip
        return state

    def forward(self, problem: Problem, state: S) -> S:
        """Part of the way to ``T(s)``."""
        return self._between(problem, state, self.step(problem, state), self._share(state))

    def residual(self, problem: Problem, before: S, after: S) -> Tensor:
        """That of T at the state before, which a small a does not make smaller."""
        return self.step.residual(problem, before, self._between(problem, before, after, 1 / self._share(before)))

    def gap(self, problem: Problem, state: S) -> Tensor | None:
        """That of T."""
        return self.step.gap(problem, state)

    def refresh(self, problem: Problem, state: S) -> S:
        """That of T."""
        return self.step.refresh(problem, state)

    def finished(self, problem: Problem, state: S) -> Tensor | None:
        """That of T."""
        return self.step.finished(problem, state)

    def is_legal(self, problem: Problem) -> bool:
        """Where T's own conditions hold and T is then known to be nonexpansive: proximal gradient and gradient
        descent, Douglas-Rachford, and the primal-dual method with a fixed ratio (He and Yuan, 2012)."""
        step = self.step
        fixed = isinstance(step, ISTA | GradientDescent | DataProximal | DRS)
        fixed = fixed or (isinstance(step, PDHG) and step.ratio is not None)
        return fixed and step.is_legal(problem)

    def _share(self, before: S) -> float:
        return 1.0 if getattr(before, "k", self.after) < self.after else self.relaxation

    def _between(self, problem: Problem, a: S, b: S, share: float) -> S:
        """``a + share (b - a)`` on what holds elements, and what `b` holds of the rest."""
        if share == 1:
            return b
        numbers = len(problem.space.batch_shape(b.x))
        mixed = {f.name: _mix(getattr(a, f.name), getattr(b, f.name), share, numbers) for f in fields(b)}
        return replace(b, **mixed)


def _mix(a: Any, b: Any, share: float, numbers: int) -> Any:
    if isinstance(b, tuple):
        return tuple(_mix(p, q, share, numbers) for p, q in zip(a, b, strict=True))
    if isinstance(b, Tensor) and b.ndim > numbers:
        return a + share * (b - a)
    return b
