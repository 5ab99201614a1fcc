"""Linear systems inside a step, differentiated implicitly: conjugate gradients that stop early have derivatives of
their own, which grow from iteration to iteration of a long run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..steps.x_update import CGUpdate, NormalSystem

TOLERANCE, ITERATIONS = 1e-3, 50


class _Solved(torch.autograd.Function):
    """Zero for a residual r, with the derivative of ``H^-1 r``."""

    @staticmethod
    def forward(ctx: Any, residual: Tensor, system: NormalSystem) -> Tensor:
        ctx.system = system
        return torch.zeros_like(residual)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return _solve(ctx.system, grads[0], torch.zeros_like(grads[0])), None


def _solve(system: NormalSystem, b: Tensor, start: Tensor) -> Tensor:
    weights = tuple(w.detach() for w in system.weights)
    with torch.no_grad():
        own = NormalSystem(system.operators, weights, b.detach(), start.detach())
        solution: Tensor = CGUpdate(TOLERANCE, ITERATIONS)(own)
    return solution


def _implicit(system: NormalSystem) -> Tensor:
    x = _solve(system, system.b, system.x)
    residual = system.b - system.apply(x)
    solved: Tensor = _Solved.apply(residual, system)  # type: ignore[no-untyped-call]
    return x + solved


@contextmanager
def implicit_solves(step: nn.Module) -> Iterator[None]:
    """Every `CGUpdate` in `step` solves to `TOLERANCE`, with the derivative of the solution."""
    updates = [m for m in step.modules() if type(m) is CGUpdate]
    try:
        for update in updates:
            update.forward = _implicit  # type: ignore[method-assign]
        yield
    finally:
        for update in updates:
            del update.forward
