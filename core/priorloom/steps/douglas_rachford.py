"""Douglas-Rachford splitting for ``min_x f(Ax) + g(x)``: DRS."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from ..functional import LeastSquares
from ..operator import Identity
from ..problem import Problem
from .base import (
    State,
    Step,
    apart,
    check_positive,
    per_image,
    refuse_backprojector,
    refuse_terms,
    start,
    unit_size,
    within,
)
from .duality import duality_gap
from .x_update import AutomaticUpdate, NormalSystem, XUpdate, is_exact


@dataclass(frozen=True)
class Reflected(State):
    """Douglas-Rachford's state: x, the governing sequence v, ``w = prox_{t f(A.)}(v)`` and ``A^H y``."""

    v: Tensor
    w: Tensor
    back: Tensor


class DRS(Step[Reflected]):
    """Douglas-Rachford splitting (Lions and Mercier, 1979; Eckstein and Bertsekas, 1992) of ``f(Ax) + g(x)``.

    ``w = prox_{t f(A.)}(v)``, ``x+ = prox_{t g}(2 w - v)``, ``v+ = v + x+ - w``. The first prox is the x-update
    ``argmin_w 0.5 |Aw - y|^2 + |w - v|^2 / (2 t)``, so the data term must be least squares, or any with a prox where A
    is the identity. Converges for convex f and g and every t > 0.

    Parameters
    ----------
    step
        t, a number or an nn.Parameter; ten over the Lipschitz constant of the data gradient when absent.
    x_update
        Solves the first prox; ExactUpdate where the operator offers it, else CGUpdate, when absent.
    """

    def __init__(self, step: float | Tensor | None = None, x_update: XUpdate | None = None) -> None:
        super().__init__()
        check_positive("step of DRS", step)
        self.step = step
        self.x_update: XUpdate = AutomaticUpdate() if x_update is None else x_update

    def init(self, problem: Problem, x0: Tensor | None = None) -> Reflected:
        """Start at `x0`."""
        refuse_terms(self, problem)
        refuse_backprojector(self, problem)
        data = problem.data
        x = start(problem, x0)
        if isinstance(data.f, LeastSquares):
            return Reflected(x, x, x, data.K.adjoint(data.f.y))
        if isinstance(data.K, Identity):
            return Reflected(x, x, x, torch.zeros_like(x))
        raise InputError(
            "data term of DRS", expected="least squares, or the identity as operator", got=type(data.f).__name__,
            cure="use ADMM or PDHG",
        )  # fmt: skip

    def forward(self, problem: Problem, state: Reflected) -> Reflected:
        """The two proximal maps and the reflection."""
        data, t = problem.data, per_image(problem, state.v, self._t(problem))
        if isinstance(data.f, LeastSquares):
            operators = (data.K, Identity(problem.space))
            b = state.back + state.v / problem.space.expand(t)
            w = self.x_update(NormalSystem(operators, (torch.ones_like(t), 1 / t), b, state.w))
        else:
            w = data.f.prox(state.v, t)
        x = problem.prior.prox(2 * w - state.v, t)
        return Reflected(x, state.v + x - w, w, state.back)

    def residual(self, problem: Problem, before: Reflected, after: Reflected) -> Tensor:
        """The larger of ``|x+ - w| / |w|`` (over ``t L``, for stationarity, if that is more) and the movement of w,
        which a first prox that is not accurate yet still moves."""
        lipschitz = problem.data.lipschitz()
        stretch = (1 / (torch.as_tensor(self._t(problem)).detach() * lipschitz)).clamp_min(1.0) if lipschitz else 1.0
        unit = unit_size(problem, after.back)
        return torch.maximum(stretch * apart(problem, after.w, after.x, unit), apart(problem, after.w, before.w, unit))

    def is_legal(self, problem: Problem) -> bool:
        """Any positive t, no operator terms, and a first prox in closed form."""
        if problem.terms or not within(self.step, math.inf):
            return False
        data = problem.data
        if not isinstance(data.f, LeastSquares):
            return isinstance(data.K, Identity)
        x = problem.zeros()
        one = per_image(problem, x, 1.0)
        return is_exact(self.x_update, NormalSystem((data.K, Identity(problem.space)), (one, one), x, x))

    def gap(self, problem: Problem, state: Reflected) -> Tensor | None:
        """The gap at x and the dual point ``grad f(Ax)``."""
        return duality_gap(problem, state.x)

    def _t(self, problem: Problem) -> float | Tensor:
        return 10 / (problem.data.lipschitz() or 10.0) if self.step is None else self.step
