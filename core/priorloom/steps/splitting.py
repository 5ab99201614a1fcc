"""Splitting methods for ``min_x f(Ax) + sum_i f_i(K_i x) + g(x)``: ADMM, HQS and Douglas-Rachford."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from ..functional import Functional, LeastSquares, Zero
from ..operator import Identity, LinearOperator
from ..problem import Problem
from .base import (
    State,
    Step,
    check_positive,
    per_image,
    refuse_terms,
    relative,
    root_sum_square,
    safe_divide,
    start,
    total,
)
from .duality import duality_gap
from .x_update import AutomaticUpdate, NormalSystem, XUpdate

IMBALANCE, CHANGES = 2.0, 40
"""ADMM's penalty changes when one relative residual is IMBALANCE times the other, at most CHANGES times."""


@dataclass(frozen=True)
class Split(State):
    """The state of ADMM and HQS.

    Parameters
    ----------
    z, u
        The split variables ``z_i = K_i x`` and the scaled duals, each ``[..., *K_i.range.shape]`` (u is zero in HQS).
    pull_z, pull_u
        ``sum_i w_i K_i^H z_i`` and the same of u.
    back
        ``A^H y`` of a least-squares data term (zero without one).
    rho
        The penalty of the next iteration, ``[...]``.
    changes
        How often it was changed, ``[...]``.
    primal, dual
        The relative residuals of the last iteration, ``[...]``.
    weights
        ``w_i = 1 / |K_i|^2`` of every split operator.
    """

    z: tuple[Tensor, ...]
    u: tuple[Tensor, ...]
    pull_z: Tensor
    pull_u: Tensor
    back: Tensor
    rho: Tensor
    changes: Tensor
    primal: Tensor
    dual: Tensor
    weights: tuple[float, ...]


class ADMM(Step[Split]):
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

    def __init__(self, rho: float | Tensor | None = None, x_update: XUpdate | None = None) -> None:
        super().__init__()
        check_positive("rho of ADMM", rho)
        self.rho = rho
        self.x_update: XUpdate = AutomaticUpdate() if x_update is None else x_update

    def init(self, problem: Problem, x0: Tensor | None = None) -> Split:
        """Start at `x0` with ``z = K x`` and zero duals."""
        return _start(self, problem, x0, 0.1 * (problem.data.lipschitz() or 1.0))

    def forward(self, problem: Problem, state: Split) -> Split:
        """The x-update, the proximal maps, the duals, and the balancing of rho."""
        splits = _splits(problem)
        rho = state.rho if self.rho is None else per_image(problem, state.x, self.rho)
        x = self.x_update(_system(problem, state, rho))
        images, z, u = [], [], []
        for (f, k), old, weight in zip(splits, state.u, state.weights, strict=True):
            images.append(_image(k, x))
            shifted = images[-1] + old
            z.append(f.prox(shifted, 1 / (rho * weight)))
            u.append(shifted - z[-1])
        pull_z = total(_pulls(splits, z, state.weights))
        forces = _pulls(splits, u, state.weights)
        pull_u = total(forces)
        with torch.no_grad():
            primal = _link(problem, splits, images, z, state.weights, x)
            dual = _stationarity(problem, x, rho, pull_z - state.pull_z, forces)
        changes = state.changes
        if self.rho is None and problem.has_value:
            factor = _factor(primal, dual, changes)
            if bool((factor != 1).any()):
                changes = changes + (factor != 1)
                u = [v / f.space.expand(factor) for (f, _), v in zip(splits, u, strict=True)]
                pull_u = pull_u / problem.space.expand(factor)
                rho = rho * factor
        return Split(x, tuple(z), tuple(u), pull_z, pull_u, state.back, rho, changes, primal, dual, state.weights)

    def residual(self, problem: Problem, before: Split, after: Split) -> Tensor:
        """The larger of the relative primal and dual residuals."""
        return torch.maximum(after.primal, after.dual)

    def gap(self, problem: Problem, state: Split) -> Tensor | None:
        """The gap at x and the duals ``rho_i u_i``."""
        duals = [
            f.space.expand(state.rho * w) * u
            for (f, _), u, w in zip(_splits(problem), state.u, state.weights, strict=True)
        ]
        data = problem.data
        p = data.f.gradient(data.K(state.x)) if isinstance(data.f, LeastSquares) else duals[-1]
        return duality_gap(problem, state.x, (p, *duals[: len(problem.terms)]))


class HQS(Step[Split]):
    """Half-quadratic splitting with an increasing penalty (Geman and Yang, 1995; Zhang et al., 2021).

    ``x+ = argmin_x 0.5 |Ax - y|^2 + sum_i rho_i / 2 |K_i x - z_i|^2`` (the slot `x_update`) and ``z_i+ = prox_{f_i /
    rho_i}(K_i x+)``, with ``rho_i = rho_k / |K_i|^2``. For a fixed rho this alternating minimisation converges to a
    minimiser not of the problem's objective but of the *penalised* one, ``min_{x,z} f(Ax) + sum_i f_i(z_i) + rho_i / 2
    |K_i x - z_i|^2`` (the prior is one of the f_i, with K = I): every f_i is replaced by its Moreau envelope. The
    schedule ``rho_k = rho growth^min(k, steps)`` ends at the penalty that is solved; the larger it is, the closer the two
    objectives and the slower the iteration. The residual counts the schedule: no convergence before its end.

    Parameters
    ----------
    rho
        The first penalty, on operators scaled to norm 1; a number or an nn.Parameter. A hundredth of the Lipschitz constant
        of the data gradient when absent.
    growth, steps
        The factor per iteration, at least 1, and how many iterations it is applied.
    x_update
        Solves the x-update; ExactUpdate where the operator offers it, else CGUpdate, when absent.
    """

    def __init__(
        self,
        rho: float | Tensor | None = None,
        growth: float = 1.5,
        steps: int = 20,
        x_update: XUpdate | None = None,
    ) -> None:
        super().__init__()
        check_positive("rho of HQS", rho)
        if not growth >= 1:
            raise InputError("growth of HQS", expected="at least 1", got=growth)
        if steps < 0:
            raise InputError("steps of HQS", expected="at least 0", got=steps)
        self.rho = rho
        self.growth = growth
        self.steps = steps
        self.x_update: XUpdate = AutomaticUpdate() if x_update is None else x_update

    def init(self, problem: Problem, x0: Tensor | None = None) -> Split:
        """Start at `x0` with ``z = K x``."""
        return _start(self, problem, x0, 0.01 * (problem.data.lipschitz() or 1.0))

    def forward(self, problem: Problem, state: Split) -> Split:
        """The x-update, the proximal maps, and the next penalty."""
        splits = _splits(problem)
        first = state.rho if self.rho is None else per_image(problem, state.x, self.rho)
        rho = first * self.growth ** state.changes.clamp(max=self.steps)
        x = self.x_update(_system(problem, state, rho))
        z = tuple(
            f.prox(_image(k, x), 1 / (rho * weight)) for (f, k), weight in zip(splits, state.weights, strict=True)
        )
        pull_z = total(_pulls(splits, z, state.weights))
        with torch.no_grad():
            dual = _stationarity(problem, x, rho, pull_z - state.pull_z, ())
            pending = (state.changes < self.steps) * (self.growth - 1)
        return Split(
            x, z, state.u, pull_z, state.pull_u, state.back, state.rho, state.changes + 1,
            pending.to(dual.dtype), dual, state.weights,
        )  # fmt: skip

    def residual(self, problem: Problem, before: Split, after: Split) -> Tensor:
        """The stationarity of the penalised objective, relative; while the penalty grows, not below the growth."""
        return torch.maximum(after.primal, after.dual)


@dataclass(frozen=True)
class Reflected(State):
    """Douglas-Rachford's state: x, the governing sequence v, ``w = prox_{t f(A.)}(v)`` and ``A^H y``, each ``[..., *shape]``."""

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
        data = problem.data
        if not isinstance(data.f, LeastSquares) and not isinstance(data.K, Identity):
            raise InputError(
                "data term of DRS", expected="least squares, or the identity as operator", got=type(data.f).__name__,
                cure="use ADMM or PDHG",
            )  # fmt: skip
        x = start(problem, x0)
        back = data.K.adjoint(data.f.y) if isinstance(data.f, LeastSquares) else torch.zeros_like(x)
        return Reflected(x, x, x, back)

    def forward(self, problem: Problem, state: Reflected) -> Reflected:
        """The two proximal maps and the reflection."""
        data, t = problem.data, self._t(problem)
        if isinstance(data.f, LeastSquares):
            weight = 1 / per_image(problem, state.v, t)
            b = state.back + problem.space.expand(weight) * state.v
            identity = Identity(problem.space)
            w = self.x_update(NormalSystem((data.K, identity), (torch.ones_like(weight), weight), b, state.w))
        else:
            w = data.f.prox(state.v, t)
        x = problem.prior.prox(2 * w - state.v, t)
        return Reflected(x, state.v + x - w, w, state.back)

    def residual(self, problem: Problem, before: Reflected, after: Reflected) -> Tensor:
        """``|x+ - w| / |x+|`` for the link, and over ``t L`` for the stationarity."""
        t = float(torch.as_tensor(self._t(problem)).min())
        stretch = max(1.0, 1 / (t * (problem.data.lipschitz() or 1 / t)))
        return stretch * relative(problem.space, after.x - after.w, after.x, after.w)

    def gap(self, problem: Problem, state: Reflected) -> Tensor | None:
        """The gap at x and the dual point ``grad f(Ax)``."""
        return duality_gap(problem, state.x)

    def _t(self, problem: Problem) -> float | Tensor:
        return 10 / (problem.data.lipschitz() or 10.0) if self.step is None else self.step


def _splits(problem: Problem) -> list[tuple[Functional, LinearOperator]]:
    """What ADMM and HQS split off, ``z_i = K_i x``, as pairs ``(f_i, K_i)``."""
    splits = [(t.f, t.K) for t in problem.terms]
    if not isinstance(problem.prior, Zero):
        splits.append((problem.prior, Identity(problem.space)))
    if not isinstance(problem.data.f, LeastSquares):
        splits.append((problem.data.f, problem.data.K))
    return splits


def _start(step: Step[Split], problem: Problem, x0: Tensor | None, rho: float) -> Split:
    splits = _splits(problem)
    if not splits:
        raise InputError(
            type(step).__name__, expected="a prior or an operator term besides the data term", got="none",
            cure="use CG or LSQR for plain least squares",
        )  # fmt: skip
    x = start(problem, x0)
    weights = tuple((k.norm() or 1.0) ** -2 for _, k in splits)
    z = tuple(_image(k, x) for _, k in splits)
    u = tuple(torch.zeros_like(v) for v in z)
    f = problem.data.f
    zero = torch.zeros_like(x)
    back = problem.data.K.adjoint(f.y) if isinstance(f, LeastSquares) else zero
    one = per_image(problem, x, 1.0)
    pull_z = total(_pulls(splits, z, weights))
    return Split(x, z, u, pull_z, zero, back, one * rho, torch.zeros_like(one), one, one, weights)


def _image(k: LinearOperator, x: Tensor) -> Tensor:
    if isinstance(k, Identity):
        return x
    image: Tensor = k(x)
    return image


def _pulls(
    splits: list[tuple[Functional, LinearOperator]], parts: Sequence[Tensor], weights: Sequence[float]
) -> list[Tensor]:
    """``w_i K_i^H z_i`` of every split."""
    return [
        z if isinstance(k, Identity) else w * k.adjoint(z) for (_, k), z, w in zip(splits, parts, weights, strict=True)
    ]


def _system(problem: Problem, state: Split, rho: Tensor) -> NormalSystem:
    operators = [k for _, k in _splits(problem)]
    weights = [rho * w for w in state.weights]
    if isinstance(problem.data.f, LeastSquares):
        operators.insert(0, problem.data.K)
        weights.insert(0, torch.ones_like(rho))
    b = state.back + problem.space.expand(rho) * (state.pull_z - state.pull_u)
    return NormalSystem(tuple(operators), tuple(weights), b, state.x)


def _link(
    problem: Problem,
    splits: list[tuple[Functional, LinearOperator]],
    images: Sequence[Tensor],
    z: Sequence[Tensor],
    weights: Sequence[float],
    x: Tensor,
) -> Tensor:
    """The defect of ``K_i x = z_i`` on operators of norm 1, relative to the larger of ``|x|`` and ``|z|``."""
    defects, sizes = [], []
    for (f, _), image, part, weight in zip(splits, images, z, weights, strict=True):
        defects.append(weight**0.5 * f.space.norm(image - part))
        sizes.append(weight**0.5 * f.space.norm(part))
    return safe_divide(root_sum_square(defects), torch.stack([problem.space.norm(x), *sizes]).amax(0))


def _stationarity(problem: Problem, x: Tensor, rho: Tensor, defect: Tensor, forces: Sequence[Tensor]) -> Tensor:
    """``rho |defect|`` relative to the larger of ``L |x|`` and ``rho |force_i|``."""
    norm = problem.space.norm
    smooth = (problem.data.lipschitz() or 0.0) * norm(x)
    return safe_divide(rho * norm(defect), torch.stack([smooth, *(rho * norm(force) for force in forces)]).amax(0))


def _factor(primal: Tensor, dual: Tensor, changes: Tensor) -> Tensor:
    """What rho is multiplied by."""
    off = (primal > IMBALANCE * dual) | (dual > IMBALANCE * primal)
    factor = torch.sqrt(primal / dual).clamp(0.1, 10)
    return torch.where(off & (changes < CHANGES) & torch.isfinite(factor), factor, 1.0)
