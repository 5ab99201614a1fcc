"""Splitting methods for ``min_x f(Ax) + sum_i f_i(K_i x) + g(x)``: ADMM and half-quadratic splitting."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..constraints import Relative
from ..errors import InputError
from ..functional import Functional, LeastSquares, Zero
from ..operator import Identity, LinearOperator
from ..problem import Problem
from .base import (
    State,
    Step,
    apart,
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
from .x_update import AutomaticUpdate, NormalSystem, XUpdate, is_exact

IMBALANCE, CHANGES = 2.0, 40
"""ADMM's penalty changes when one relative residual is IMBALANCE times the other, at most CHANGES times."""


class Splits:
    """What is split off a problem: ``z_i = K_i x`` for the operator terms, for the prior with ``K = I``, and for a data
    term that is not least squares; with the weights ``w_i = 1 / |K_i|^2`` that scale every operator to norm 1."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.terms: list[tuple[Functional, LinearOperator]] = [(t.f, t.K) for t in problem.terms]
        self.has_prior = not isinstance(problem.prior, Zero)
        if self.has_prior:
            self.terms.append((problem.prior, Identity(problem.space)))
        self.keeps_data = isinstance(problem.data.f, LeastSquares)
        if not self.keeps_data:
            self.terms.append((problem.data.f, problem.data.K))
        self.weights = [inverse_square(k.norm()) for _, k in self.terms]

    def images(self, x: Tensor) -> list[Tensor]:
        """``K_i x``."""
        return [x if isinstance(k, Identity) else k(x) for _, k in self.terms]

    def pulls(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """``w_i K_i^H z_i``."""
        triples = zip(self.terms, parts, self.weights, strict=True)
        return [z if isinstance(k, Identity) else w * k.adjoint(z) for (_, k), z, w in triples]

    def prox(self, parts: Sequence[Tensor], rho: Tensor) -> tuple[Tensor, ...]:
        """``prox_{f_i / (rho w_i)}(z_i)``."""
        return tuple(f.prox(z, 1 / (rho * w)) for (f, _), z, w in zip(self.terms, parts, self.weights, strict=True))

    def scale(self, parts: Sequence[Tensor], factor: Tensor) -> tuple[Tensor, ...]:
        """Every part times one number per batch element."""
        return tuple(f.space.expand(factor) * z for (f, _), z in zip(self.terms, parts, strict=True))

    def image_of(self, x: Tensor, z: Sequence[Tensor]) -> Tensor:
        """The prior's split variable where there is a prior (it obeys the constraints), else the x-update's result."""
        return z[len(self.problem.terms)] if self.has_prior else x

    def system(self, back: Tensor, pull: Tensor, rho: Tensor, x: Tensor) -> NormalSystem:
        """``(A^H A + rho sum_i w_i K_i^H K_i) x = A^H y + rho pull``; without A where the data term is split too."""
        operators = [k for _, k in self.terms]
        weights = [rho * w for w in self.weights]
        if self.keeps_data:
            operators.append(self.problem.data.K)
            weights.append(torch.ones_like(rho))
        return NormalSystem(tuple(operators), tuple(weights), back + self.problem.space.expand(rho) * pull, x)

    def link(self, x: Tensor, unit: Tensor, images: Sequence[Tensor], z: Sequence[Tensor]) -> Tensor:
        """The defect of ``K_i x = z_i`` on operators of norm 1, relative to the largest of ``|x|``, ``|z_i|``."""
        defects, sizes = [], [unit, self.problem.space.norm(x)]
        for (f, _), image, part, weight in zip(self.terms, images, z, self.weights, strict=True):
            defects.append(weight**0.5 * f.space.norm(image - part))
            sizes.append(weight**0.5 * f.space.norm(part))
        return safe_divide(root_sum_square(defects), torch.stack(sizes).amax(0))

    def stationarity(
        self, x: Tensor, unit: Tensor, rho: Tensor, defect: Tensor, forces: Sequence[Tensor] = ()
    ) -> Tensor:
        """``rho |defect|`` relative to the largest of ``L |x|`` and the ``rho |force_i|``."""
        norm = self.problem.space.norm
        smooth = (self.problem.data.lipschitz() or 0.0) * torch.maximum(unit, norm(x))
        sizes = [smooth, *(rho * norm(force) for force in forces)]
        return safe_divide(rho * norm(defect), torch.stack(sizes).amax(0))

    def begin(self, step: Step[Any], x: Tensor) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
        """``z = K x``, its pull, and ``A^H y`` of a kept data term; raises InputError where nothing is split off."""
        refuse_backprojector(step, self.problem)
        if not self.terms:
            raise InputError(
                type(step).__name__, expected="a prior or an operator term besides the data term", got="none",
                cure="use CG or LSQR for plain least squares",
            )  # fmt: skip
        f = self.problem.data.f
        back = self.problem.data.K.adjoint(f.y) if isinstance(f, LeastSquares) else torch.zeros_like(x)
        z = tuple(self.images(x))
        return z, total(self.pulls(z)), back


@dataclass(frozen=True)
class Multipliers(State):
    """ADMM's state; x is the prior's split variable where there is a prior.

    Parameters
    ----------
    solution
        The result of the x-update.
    z, u
        The split variables and the scaled duals, each ``[..., *K_i.range.shape]``.
    pull_z, pull_u
        ``sum_i w_i K_i^H z_i`` and the same of u.
    back, unit
        ``A^H y`` of a least-squares data term (zero without one), and its `unit_size`.
    rho
        The penalty with which u is scaled, ``[...]``.
    changes
        How often it was changed, ``[...]``.
    primal, dual
        The relative residuals of the last iteration, ``[...]``.
    """

    solution: Tensor
    z: tuple[Tensor, ...]
    u: tuple[Tensor, ...]
    pull_z: Tensor
    pull_u: Tensor
    back: Tensor
    unit: Tensor
    rho: Tensor
    changes: Tensor
    primal: Tensor
    dual: Tensor


class ADMM(Step[Multipliers]):
    """Alternating direction method of multipliers in scaled form (Boyd et al., 2011, section 3.1.1).

    Splits ``z_i = K_i x`` for every operator term and ``z = x`` for the prior; a least-squares data term stays in the
    x-update, any other is split as ``z = A x`` too. With ``rho_i = rho / |K_i|^2``, for the objective ``f(Ax) + sum_i
    f_i(K_i x) + g(x)``:

    ``x+ = argmin_x 0.5 |Ax - y|^2 + sum_i rho_i / 2 |K_i x - z_i + u_i|^2`` (the slot `x_update`),
    ``z_i+ = prox_{f_i / rho_i}(K_i x+ + u_i)``, ``u_i+ = u_i + K_i x+ - z_i+``.

    Converges for convex functionals and every fixed rho. Unless it is given, rho starts at a tenth of the Lipschitz
    constant of the data gradient and follows the balance of the relative residuals (Boyd et al., section 3.4.1;
    Wohlberg, 2017), a finite number of times, which keeps the convergence. With a plug-and-play prior, whose fixed
    point depends on rho, it is never changed.

    Parameters
    ----------
    rho
        The penalty on operators scaled to norm 1 (for the prior the scale is 1, and its prox gets the step 1 / rho); a
        number or an nn.Parameter, fixed. Automatic when absent.
    x_update
        Solves the x-update; ExactUpdate where the operator offers it, else CGUpdate, when absent.
    """

    def __init__(self, rho: float | Tensor | Relative | None = None, x_update: XUpdate | None = None) -> None:
        super().__init__()
        check_positive("rho of ADMM", rho)
        self.rho = rho
        self.x_update: XUpdate = AutomaticUpdate() if x_update is None else x_update

    def init(self, problem: Problem, x0: Tensor | None = None) -> Multipliers:
        """Start at `x0` with ``z = K x`` and zero duals."""
        x = start(problem, x0)
        z, pull_z, back = Splits(problem).begin(self, x)
        u = tuple(torch.zeros_like(part) for part in z)
        one = per_image(problem, x, 1.0)
        rho = one * 0.1 * (problem.data.lipschitz() or 10.0)
        return Multipliers(
            x,
            x,
            z,
            u,
            pull_z,
            torch.zeros_like(x),
            back,
            unit_size(problem, back),
            rho,
            torch.zeros_like(one),
            one,
            one,
        )

    def forward(self, problem: Problem, state: Multipliers) -> Multipliers:
        """The penalty, the x-update, the proximal maps and the duals."""
        splits = Splits(problem)
        rho, changes = self._penalty(problem, state)
        u, pull_u = state.u, state.pull_u
        factor = state.rho / rho
        # The dual is rho u; where rho is learned, its derivative passes through here even between equal layers.
        if factor.requires_grad or bool((factor != 1).any()):
            u, pull_u = splits.scale(u, factor), problem.space.expand(factor) * pull_u
        x = self.x_update(splits.system(state.back, state.pull_z - pull_u, rho, state.solution))
        images = splits.images(x)
        shifted = [image + dual for image, dual in zip(images, u, strict=True)]
        z = splits.prox(shifted, rho)
        u = tuple(s - part for s, part in zip(shifted, z, strict=True))
        pull_z, forces = total(splits.pulls(z)), splits.pulls(u)
        with torch.no_grad():
            primal = splits.link(x, state.unit, images, z)
            dual = splits.stationarity(x, state.unit, rho, pull_z - state.pull_z, forces)
        return Multipliers(
            splits.image_of(x, z), x, z, u, pull_z, total(forces), state.back, state.unit, rho, changes, primal, dual
        )

    def residual(self, problem: Problem, before: Multipliers, after: Multipliers) -> Tensor:
        """The largest of the relative primal residual ``K x - z``, the dual residual ``rho K^H (z+ - z)``, and the
        movement of the x-update's result (which an x-update that is not accurate yet still moves)."""
        moved = apart(problem, after.solution, before.solution, after.unit)
        return torch.maximum(torch.maximum(after.primal, after.dual), moved)

    def is_legal(self, problem: Problem) -> bool:
        """Any positive rho, and an x-update in closed form: conjugate gradients are accurate, but not exact."""
        if not within(at_hand(problem, self.rho), math.inf):
            return False
        x = problem.zeros()
        splits = Splits(problem)
        return bool(splits.terms) and is_exact(self.x_update, splits.system(x, x, per_image(problem, x, 1.0), x))

    def gap(self, problem: Problem, state: Multipliers) -> Tensor | None:
        """The gap at x and the duals ``rho_i u_i``."""
        splits = Splits(problem)
        duals = [w * q for w, q in zip(splits.weights, splits.scale(state.u, state.rho), strict=True)]
        data = problem.data
        p = data.f.gradient(data.K(state.x)) if splits.keeps_data else duals[-1]
        return duality_gap(problem, state.x, (p, *duals[: len(problem.terms)]))

    def _penalty(self, problem: Problem, state: Multipliers) -> tuple[Tensor, Tensor]:
        """This iteration's rho, and how often it has changed."""
        if self.rho is not None:
            return per_image(problem, state.x, self.rho), state.changes
        if not problem.has_value:
            return state.rho, state.changes
        primal, dual = state.primal, state.dual
        off = (primal > IMBALANCE * dual) | (dual > IMBALANCE * primal)
        off = off & (state.changes < CHANGES) & (dual > 0)
        factor = torch.where(off, torch.sqrt(primal / torch.where(dual > 0, dual, 1)).clamp(0.1, 10), 1.0)
        return state.rho * factor, state.changes + off


@dataclass(frozen=True)
class Penalised(State):
    """The state of HQS; x is the prior's split variable where there is a prior.

    Parameters
    ----------
    solution
        The result of the x-update.
    pull
        ``sum_i w_i K_i^H z_i``.
    back, unit
        ``A^H y`` of a least-squares data term (zero without one), and its `unit_size`.
    rho
        The penalty of the last iteration, ``[...]``.
    k
        The number of iterations.
    """

    solution: Tensor
    pull: Tensor
    back: Tensor
    unit: Tensor
    rho: Tensor
    k: int


class HQS(Step[Penalised]):
    """Half-quadratic splitting with an increasing penalty (Geman and Yang, 1995; Zhang et al., 2021).

    ``x+ = argmin_x 0.5 |Ax - y|^2 + sum_i rho_i / 2 |K_i x - z_i|^2`` (the slot `x_update`) and ``z_i+ = prox_{f_i /
    rho_i}(K_i x+)``, with ``rho_i = rho_k / |K_i|^2``. For a fixed rho this alternating minimisation converges to a
    minimiser not of the problem's objective but of the *penalised* one, ``min_{x,z} f(Ax) + sum_i f_i(z_i) + rho_i / 2
    |K_i x - z_i|^2`` (the prior is one of the f_i, with K = I): every f_i is replaced by its Moreau envelope. The
    schedule ``rho_k = rho growth^min(k, steps)`` ends at the penalty that is solved; the larger it is, the closer the
    two objectives and the slower the iteration. The residual counts the schedule: no convergence before its end.

    Parameters
    ----------
    rho
        The first penalty, on operators scaled to norm 1; a number or an nn.Parameter. A hundredth of the Lipschitz
        constant of the data gradient when absent.
    growth, steps
        The factor per iteration, at least 1, and how many iterations it is applied.
    x_update
        Solves the x-update; ExactUpdate where the operator offers it, else CGUpdate, when absent.
    """

    def __init__(
        self,
        rho: float | Tensor | Relative | None = None,
        growth: float = 1.5,
        steps: int = 16,
        x_update: XUpdate | None = None,
    ) -> None:
        super().__init__()
        check_positive("rho of HQS", rho)
        if not 1 <= growth < float("inf"):
            raise InputError("growth of HQS", expected="a number that is at least 1", got=growth)
        if steps < 0:
            raise InputError("steps of HQS", expected="at least 0", got=steps)
        self.rho = rho
        self.growth = growth
        self.steps = steps
        self.x_update: XUpdate = AutomaticUpdate() if x_update is None else x_update

    def init(self, problem: Problem, x0: Tensor | None = None) -> Penalised:
        """Start at `x0` with ``z = K x``."""
        x = start(problem, x0)
        _, pull, back = Splits(problem).begin(self, x)
        return Penalised(x, x, pull, back, unit_size(problem, back), per_image(problem, x, 1.0), 0)

    def forward(self, problem: Problem, state: Penalised) -> Penalised:
        """The penalty, the x-update and the proximal maps."""
        splits = Splits(problem)
        first = 0.01 * (problem.data.lipschitz() or 100.0) if self.rho is None else self.rho
        rho = per_image(problem, state.x, first) * self.growth ** min(state.k, self.steps)
        x = self.x_update(splits.system(state.back, state.pull, rho, state.solution))
        z = splits.prox(splits.images(x), rho)
        return Penalised(splits.image_of(x, z), x, total(splits.pulls(z)), state.back, state.unit, rho, state.k + 1)

    def residual(self, problem: Problem, before: Penalised, after: Penalised) -> Tensor:
        """The larger of the relative stationarity of the penalised objective and the movement of the x-update's
        result; while the penalty grows, not below its growth."""
        value = torch.maximum(
            Splits(problem).stationarity(after.solution, after.unit, after.rho, after.pull - before.pull),
            apart(problem, after.solution, before.solution, after.unit),
        )
        return value.clamp_min(self.growth - 1) if before.k < self.steps else value
