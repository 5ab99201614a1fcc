"""The primal-dual gap: a bound on how far the objective is from its minimum that no step size can flatter."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..problem import Problem

LEAST = 0.1
"""How far a dual point may be shrunk. It is 1 in the limit; a dual point near 0 gives the gap J, whatever x is."""


def duality_gap(problem: Problem, x: Tensor, duals: Sequence[Tensor] | None = None) -> Tensor | None:
    """``J(x) - D(theta p, theta q) >= J(x) - J*`` per batch element, for the largest feasible ``LEAST <= theta <= 1``.

    The dual objective of ``f(Ax) + sum_i f_i(K_i x) + g(x)`` is ``D(p, q) = -f*(p) - sum_i f_i*(q_i) - g*(-A^H p -
    sum_i K_i^H q_i)`` (Rockafellar, Convex Analysis, 1970, section 31). An iterate is rarely feasible to the last bit
    where a conjugate is an indicator (g a norm), so the dual point is shrunk until it is, as for the LASSO (Bonnefoy et
    al., 2015); the largest feasible theta is found by bisection. Costs one forward and one adjoint.

    Parameters
    ----------
    problem
        Every functional must have a conjugate, else there is no gap.
    x
        The image.
    duals
        ``(p, q_1, ...)``; ``p = grad f(Ax)`` when absent, for problems without operator terms.

    Returns
    -------
    The gap, infinite where theta would have to be below `LEAST`: then the point is not about to become feasible
    (as where g leaves a direction free, and only an exact zero along it is feasible), and the bound would say nothing.
    None where a value or a conjugate does not exist.
    """
    terms = (problem.data, *problem.terms)
    functionals = (problem.prior, *(t.f for t in terms))
    if not (problem.has_value and all(f.has_conjugate for f in functionals)):
        return None
    if duals is None:
        if problem.terms or problem.data.lipschitz() is None:
            return None
        duals = (problem.data.f.gradient(problem.data.K(x)),)
    force = torch.stack([t.K.adjoint(q) for t, q in zip(terms, duals, strict=True)]).sum(0)

    def negative_dual(theta: Tensor) -> Tensor:
        values = [t.f.conjugate(t.f.space.expand(theta) * q) for t, q in zip(terms, duals, strict=True)]
        return torch.stack([*values, problem.prior.conjugate(-problem.space.expand(theta) * force)]).sum(0)

    theta = torch.ones(problem.space.batch_shape(x), dtype=problem.space.real_dtype, device=x.device)
    best = torch.zeros_like(theta)
    for k in range(1, 2 - math.frexp(torch.finfo(theta.dtype).eps)[1]):  # down to the last bit
        feasible = torch.isfinite(negative_dual(theta))
        best = torch.where(feasible, theta, best)
        if bool((best == 1).all()):
            break
        theta = torch.where(feasible, theta + 0.5**k, theta - 0.5**k).clamp(max=1)
    gap = problem.objective(x) + negative_dual(best)
    return torch.where(best >= LEAST, gap, torch.inf)
