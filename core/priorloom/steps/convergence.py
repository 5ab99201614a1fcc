"""converges(): does a convergence theorem apply to this step, with these parameters, on this problem?"""

from __future__ import annotations

from typing import Any

from torch import nn

from ..problem import Problem
from .base import Step


def converges(step: Step[Any] | nn.ModuleList, problem: Problem) -> bool:
    """Whether a theorem guarantees that `step`, repeated, approaches the minimum of ``J``, where that is attained.

    True when every functional is convex with an exact prox and the step's own conditions hold (``Step.is_legal``): the
    data term is smooth where the step takes its gradient, given step sizes are within the limits of the theorem, and
    inner systems are solved exactly. False for plug-and-play, for a
    backprojector in the place of the adjoint, for half-quadratic splitting (which minimises another
    objective), and for a list of layers (which is not repeated). Norms are upper bounds in the sense of
    ``LinearOperator.norm_bounds``.
    """
    functionals = (problem.data.f, problem.prior, *(t.f for t in problem.terms))
    covered = all(f.is_convex and f.has_exact_prox for f in functionals)
    matched = all(t.backprojector is None for t in (problem.data, *problem.terms))
    return isinstance(step, Step) and covered and matched and step.is_legal(problem)
