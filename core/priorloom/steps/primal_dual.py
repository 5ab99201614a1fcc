"""The primal-dual hybrid gradient method for ``min_x f(Ax) + sum_i f_i(K_i x) + g(x)``: PDHG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..constraints import Relative
from ..lanczos import norm_interval
from ..problem import Problem, Term
from .base import (
    State,
    Step,
    at_hand,
    check_positive,
    inverse_square,
    per_image,
    refuse_backprojector,
    root_sum_square,
    safe_divide,
    start,
    total,
    unit_size,
    within,
)
from .duality import duality_gap

SHRINK, SLACK = 0.95, 2.0
"""Goldstein et al.'s eta and Delta: how a change of the ratio weakens the next, and what imbalance is left alone."""
BALANCE = 10.0
"""Their s, made free of units: what ``|primal defect| |x|`` shall be, over ``|dual defect| |q|``. On CT at three noise
levels, LASSO and basis pursuit the fastest of many fixed ratios has 3 to 45."""


@dataclass(frozen=True)
class PrimalDual(State):
    """PDHG's state.

    Parameters
    ----------
    duals
        ``(p, q_1, ...)``, one for every block ``[A, K_1, ...]``, each ``[..., *K.range.shape]``.
    images
        ``(Ax, K_1 x, ...)``.
    force
        ``A^H p + sum_i K_i^H q_i``.
    tau, sigma
        The step sizes on the scaled blocks, ``[...]``.
    change
        The largest change of the ratio that the balancing may still make (Goldstein's alpha), ``[...]``.
    primal, dual
        The relative residuals of the last iteration, ``[...]``.
    unit
        The `unit_size` of the data term.
    weights
        ``1 / |K_i|^2`` of every block.
    norm
        A bound on the norm of the stacked scaled operator.
    """

    duals: tuple[Tensor, ...]
    images: tuple[Tensor, ...]
    force: Tensor
    tau: Tensor
    sigma: Tensor
    change: Tensor
    primal: Tensor
    dual: Tensor
    unit: Tensor
    weights: tuple[float, ...]
    norm: float


class PDHG(Step[PrimalDual]):
    """Primal-dual hybrid gradient (Chambolle and Pock, 2011, algorithm 1 with theta = 1).

    ``x+ = prox_{tau g}(x - tau K^H q)``, ``q+ = prox_{sigma F*}(q + sigma K (2 x+ - x))`` for the objective ``f(Ax) +
    sum_i f_i(K_i x) + g(x)``, with K the stack ``[A, K_1, ...]`` and F the sum of the f; all functionals convex.
    Every block is scaled to norm 1 (the block form of Pock and Chambolle's preconditioning, 2011), so that the dual
    step on block i is ``sigma / |K_i|^2``, and ``tau sigma |K|^2 <= 1`` for the *stacked scaled* operator: x and q
    converge for every ratio.

    Unless `ratio` is given, the ratio is chosen by adaptive residual balancing (Goldstein et al., 2015, algorithm 2):
    the step whose residual is larger grows, residuals measured in units of ``|q|`` and ``|x|`` (the primal weight of
    Applegate et al., 2021). The changes are summable, which keeps the convergence. With a plug-and-play prior, whose
    fixed point depends on tau, the ratio is never changed. One forward and one adjoint of every block per iteration:
    K x is kept, and ``K(2 x+ - x)`` and both residuals follow by linearity.

    Parameters
    ----------
    ratio
        ``sqrt(tau / sigma)`` on the scaled blocks, so that ``tau = ratio / |K|`` and ``sigma = 1 / (ratio |K|)``; a
        number or an nn.Parameter, fixed. Balanced automatically when absent.
    """

    def __init__(self, ratio: float | Tensor | Relative | None = None) -> None:
        super().__init__()
        check_positive("ratio of PDHG", ratio)
        self.ratio = ratio

    def init(self, problem: Problem, x0: Tensor | None = None) -> PrimalDual:
        """Start at `x0` with zero duals, and a ratio that makes tau a gradient step of the data term."""
        refuse_backprojector(self, problem)
        x = start(problem, x0)
        blocks = _blocks(problem)
        weights = tuple(inverse_square(t.K.norm()) for t in blocks)
        norm = _stacked_norm(blocks, weights, x.device)
        lipschitz = problem.data.lipschitz()
        ratio = per_image(problem, x, norm / lipschitz if lipschitz else 1.0)
        unit = unit_size(problem, problem.data.gradient(torch.zeros_like(x))) if lipschitz else torch.zeros_like(ratio)
        images = tuple(t.K(x) for t in blocks)
        zero, one = torch.zeros_like(ratio), torch.ones_like(ratio)
        return PrimalDual(
            x, tuple(torch.zeros_like(image) for image in images), images, torch.zeros_like(x), ratio / norm,
            1 / (ratio * norm), zero + 0.5, one, one, unit, weights, norm,
        )  # fmt: skip

    def forward(self, problem: Problem, state: PrimalDual) -> PrimalDual:
        """One primal step, one dual step at the extrapolated point, and the balancing."""
        space, blocks = problem.space, _blocks(problem)
        if self.ratio is None:
            tau, sigma = state.tau, state.sigma
        else:
            ratio = per_image(problem, state.x, self.ratio)
            tau, sigma = ratio / state.norm, 1 / (ratio * state.norm)
        x = problem.prior.prox(state.x - space.expand(tau) * state.force, tau)
        images = tuple(t.K(x) for t in blocks)
        duals = []
        for t, q, old, new, weight in zip(blocks, state.duals, state.images, images, state.weights, strict=True):
            step = sigma * weight
            duals.append(t.f.prox_conjugate(q + t.f.space.expand(step) * (2 * new - old), step))
        forces = [t.K.adjoint(q) for t, q in zip(blocks, duals, strict=True)]
        force = total(forces)
        with torch.no_grad():
            primal_defect, primal = _stationarity(problem, state, x, forces, force, tau)
            dual_defect, dual = _link(problem, state, x, duals, images, sigma)
        change = state.change
        if self.ratio is None and problem.has_value:
            x_size, q_size = space.norm(x), _scaled_norm(blocks, duals, [1 / w for w in state.weights])
            tau, sigma, change = _balance(tau, sigma, change, primal_defect * x_size, dual_defect * q_size)
        return PrimalDual(
            x, tuple(duals), images, force, tau, sigma, change, primal, dual, state.unit, state.weights, state.norm
        )

    def residual(self, problem: Problem, before: PrimalDual, after: PrimalDual) -> Tensor:
        """The larger of the relative primal and dual residuals."""
        return torch.maximum(after.primal, after.dual)

    def is_legal(self, problem: Problem) -> bool:
        """Any positive ratio: the product of the step sizes follows from the norm."""
        return within(at_hand(problem, self.ratio), math.inf)

    def gap(self, problem: Problem, state: PrimalDual) -> Tensor | None:
        """The gap at x and the duals."""
        return duality_gap(problem, state.x, state.duals)


def _blocks(problem: Problem) -> tuple[Term, ...]:
    return (problem.data, *problem.terms)


def _stacked_norm(blocks: Sequence[Term], weights: Sequence[float], device: torch.device) -> float:
    """A bound on the norm of the stacked scaled operator: never above the root of the number of blocks, and where the
    blocks see different parts of an image (A its low, the gradient its high frequencies) often close to 1."""
    certain = math.sqrt(sum(t.K.norm() > 0 for t in blocks) or 1)
    if len(blocks) == 1:
        return certain

    def normal(x: Tensor) -> Tensor:
        return total([w * t.K.normal(x) for w, t in zip(weights, blocks, strict=True)])

    # Narrower than this saves fewer iterations than it costs.
    return min(certain, norm_interval("PDHG's blocks", normal, blocks[0].K.domain, device, 0.1)[1] or 1.0)


def _stationarity(
    problem: Problem, before: PrimalDual, x: Tensor, forces: Sequence[Tensor], force: Tensor, tau: Tensor
) -> tuple[Tensor, Tensor]:
    """The defect of ``0 in K^H q + dg(x)``, ``(x - x+) / tau - K^H (q - q+)`` (Goldstein et al., 2015, eq. 10),
    absolute and relative to the largest of ``L |x|`` and the ``|K_i^H q_i|``."""
    norm = problem.space.norm
    defect = (before.x - x) / problem.space.expand(tau) - before.force + force
    smooth = (problem.data.lipschitz() or 0.0) * torch.maximum(norm(x), before.unit)
    size = norm(defect)
    return size, safe_divide(size, torch.stack([smooth, *(norm(f) for f in forces)]).amax(0))


def _link(
    problem: Problem, before: PrimalDual, x: Tensor, duals: Sequence[Tensor], images: Sequence[Tensor], sigma: Tensor
) -> tuple[Tensor, Tensor]:
    """The defect of ``K x in dF*(q)``, which is ``(q - q+) / sigma - K (x - x+)``, on the scaled blocks, absolute and
    relative to ``|K| |x|``."""
    norm = problem.space.norm
    parts = [
        (q_old - q) / t.f.space.expand(sigma * weight) - old + new
        for t, q, q_old, new, old, weight in zip(
            _blocks(problem), duals, before.duals, images, before.images, before.weights, strict=True
        )
    ]
    size = _scaled_norm(_blocks(problem), parts, before.weights)
    return size, safe_divide(size, before.norm * torch.maximum(norm(x), before.unit))


def _scaled_norm(blocks: Sequence[Term], parts: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """``sqrt(sum_i w_i |z_i|^2)``."""
    return root_sum_square([w**0.5 * t.f.space.norm(z) for t, z, w in zip(blocks, parts, weights, strict=True)])


def _balance(tau: Tensor, sigma: Tensor, change: Tensor, primal: Tensor, dual: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The step sizes of the next iteration and how much the next change may be; not differentiated."""
    primal, dual, change = primal.detach(), BALANCE * dual.detach(), change.detach()
    up, down = primal > SLACK * dual, dual > SLACK * primal
    factor = torch.where(up, 1 / (1 - change), torch.where(down, 1 - change, 1.0))
    return tau * factor, sigma / factor, torch.where(up | down, SHRINK * change, change)
