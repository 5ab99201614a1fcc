"""Krylov methods for quadratic objectives: CG and LSQR, with Morozov's discrepancy principle as a stopping rule."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..functional import LeastSquares, Zero
from ..problem import Problem
from ..space import Space
from .base import (
    State,
    Step,
    check_positive,
    per_image,
    refuse_backprojector,
    refuse_terms,
    relative,
    safe_divide,
    safe_sqrt,
    start,
    total,
)
from .duality import duality_gap
from .x_update import Search


@dataclass(frozen=True)
class Conjugate(State):
    """CG's state.

    Parameters
    ----------
    r, p
        The residual of the normal equations and the search direction, ``[..., *shape]``.
    rr
        ``|r|^2``, ``[...]``.
    b, offset
        ``-grad J(0)``, and the part of grad J(0) that does not come from the data term, ``[..., *shape]``.
    misfit
        ``Ax - y`` where the discrepancy is watched, else None.
    """

    r: Tensor
    p: Tensor
    rr: Tensor
    b: Tensor
    offset: Tensor
    misfit: Tensor | None


class CG(Step[Conjugate]):
    """Conjugate gradients (Hestenes and Stiefel, 1952) on ``grad J(x) = 0`` for a quadratic objective J.

    ``J(x) = 0.5 |Ax - y|^2 + sum_i f_i(K_i x) + g(x)`` with quadratic f_i and g; H is its Hessian and r its negative
    gradient: ``a = |r|^2 / <p, H p>``, ``x+ = x + a p``, ``r+ = r - a H p``, ``p+ = r+ + |r+|^2 / |r|^2 p``. In exact
    arithmetic it ends after as many iterations as H has distinct eigenvalues; the error in the H-norm falls at least
    by ``(sqrt(c) - 1) / (sqrt(c) + 1)`` per iteration, c the condition number. Without a regularising term the early
    iterates regularise: that is CGLS. One ``A.normal`` per iteration (one forward and one adjoint with a discrepancy).

    Parameters
    ----------
    discrepancy
        Stop as soon as ``|Ax - y|`` is at most this (Morozov, 1966), for example the expected norm of the noise.
    """

    def __init__(self, discrepancy: float | None = None) -> None:
        super().__init__()
        check_positive("discrepancy of CG", discrepancy)
        self.discrepancy = discrepancy
        self.rule = _rule(discrepancy)

    def init(self, problem: Problem, x0: Tensor | None = None) -> Conjugate:
        """Start at `x0` along the negative gradient; raises InputError for an objective that is not quadratic."""
        _least_squares(self, problem)
        for f in (problem.prior, *(t.f for t in problem.terms)):
            if not f.is_quadratic:
                raise InputError(
                    "objective of CG", expected="quadratic functionals", got=type(f).__name__,
                    cure="use FISTA, PDHG or ADMM",
                )  # fmt: skip
        x = start(problem, x0)
        zero = torch.zeros_like(x)
        offset = _regularising_gradient(problem, zero)
        defect = problem.data.f.gradient(problem.data.K(zero))
        b = -problem.data.K.adjoint(defect) - offset
        misfit = None if self.discrepancy is None else defect
        state = Conjugate(x, b, b, problem.space.squared(b), b, offset, misfit)
        return state if x0 is None else self.refresh(problem, state)

    def refresh(self, problem: Problem, state: Conjugate) -> Conjugate:
        """The residual and the misfit of x itself, and a new start along the gradient: in single precision the
        recursions go on falling where the true ones stay."""
        defect = problem.data.f.gradient(problem.data.K(state.x))
        r = -problem.data.K.adjoint(defect) - _regularising_gradient(problem, state.x)
        misfit = None if self.discrepancy is None else defect
        return replace(state, r=r, p=r, rr=problem.space.squared(r), misfit=misfit)

    def forward(self, problem: Problem, state: Conjugate) -> Conjugate:
        """One iteration; batch elements that are solved, or meet the discrepancy, stay as they are."""
        data, space = problem.data, problem.space
        curvature = _regularising_gradient(problem, state.p) - state.offset
        active = state.rr > 0
        if state.misfit is None:
            hp = data.K.normal(state.p) + curvature
            misfit = None
        else:
            active = active & ~self._met(problem, state.misfit)
            image = data.K(state.p)
            hp = data.K.adjoint(image) + curvature
            alpha = Search(state.x, state.r, state.p, state.rr).step(space, hp, active)
            misfit = state.misfit + data.K.range.expand(alpha) * image
        search = Search(state.x, state.r, state.p, state.rr).advance(space, hp, active)
        return Conjugate(search.x, search.r, search.p, search.rr, state.b, state.offset, misfit)

    def residual(self, problem: Problem, before: Conjugate, after: Conjugate) -> Tensor:
        """``|grad J(x)| / |grad J(0)|``, the residual of the normal equations relative to their right-hand side."""
        return relative(problem.space, after.r, after.b)

    def gap(self, problem: Problem, state: Conjugate) -> Tensor | None:
        """The gap at x and the dual point ``Ax - y``."""
        return duality_gap(problem, state.x)

    def is_legal(self, problem: Problem) -> bool:
        """A quadratic objective."""
        functionals = (problem.prior, *(t.f for t in problem.terms))
        return isinstance(problem.data.f, LeastSquares) and all(f.is_quadratic for f in functionals)

    def finished(self, problem: Problem, state: Conjugate) -> Tensor | None:
        """Where ``|Ax - y|`` is at most the discrepancy."""
        return None if state.misfit is None else self._met(problem, state.misfit)

    def _met(self, problem: Problem, misfit: Tensor) -> Tensor:
        assert self.discrepancy is not None
        return problem.data.K.range.norm(misfit) <= self.discrepancy


@dataclass(frozen=True)
class Bidiagonal(State):
    """LSQR's state in Paige and Saunders' notation: v, w ``[..., *shape]``, u ``[..., *range.shape]``, else ``[...]``.

    Parameters
    ----------
    u, v, alpha
        The last Lanczos vectors and coefficient.
    w, rho_bar, phi_bar
        The search direction and the running QR factorisation.
    tail
        The squared residual that the damping rows have taken.
    x0
        Where it started.
    slope, slope0
        ``|A^H (y - Ax) - damping^2 (x - x0)|`` now and at the start.
    misfit
        ``|Ax - y|``.
    """

    u: Tensor
    v: Tensor
    alpha: Tensor
    w: Tensor
    rho_bar: Tensor
    phi_bar: Tensor
    tail: Tensor
    x0: Tensor
    slope: Tensor
    slope0: Tensor
    misfit: Tensor


class LSQR(Step[Bidiagonal]):
    """LSQR (Paige and Saunders, 1982) for ``min_x 0.5 |Ax - y|^2 + 0.5 damping^2 |x - x0|^2``.

    Golub-Kahan bidiagonalisation of A with a QR factorisation on the fly: in exact arithmetic the iterates of CG on the
    normal equations, but more accurate for an ill-conditioned A. The problem must have a least-squares data term and
    nothing else: the damping stands in the step, and the problem's own objective does not contain it. One forward and
    one adjoint per iteration.

    Parameters
    ----------
    damping
        Square root of the Tikhonov weight.
    discrepancy
        Stop as soon as ``|Ax - y|`` is at most this (Morozov, 1966).
    """

    def __init__(self, damping: float = 0.0, discrepancy: float | None = None) -> None:
        super().__init__()
        if not 0 <= damping < float("inf"):
            raise InputError("damping of LSQR", expected="a number that is at least 0", got=damping)
        check_positive("discrepancy of LSQR", discrepancy)
        self.damping = damping
        self.discrepancy = discrepancy
        self.rule = _rule(discrepancy)

    def init(self, problem: Problem, x0: Tensor | None = None) -> Bidiagonal:
        """Start at `x0`; raises InputError for a problem with a prior or operator terms."""
        refuse_terms(self, problem)
        f = _least_squares(self, problem)
        if not isinstance(problem.prior, Zero):
            raise InputError(
                "prior of LSQR", expected="none (its damping is Tikhonov's)", got=type(problem.prior).__name__,
                cure="use CG for quadratic priors",
            )  # fmt: skip
        x = start(problem, x0)
        u, beta = _unit(f.space, f.y - problem.data.K(x))
        v, alpha = _unit(problem.space, problem.data.K.adjoint(u))
        slope = alpha * beta
        return Bidiagonal(x, u, v, alpha, v, alpha, beta, torch.zeros_like(beta), x, slope, slope, beta)

    def refresh(self, problem: Problem, state: Bidiagonal) -> Bidiagonal:
        """The slope and the misfit of x itself; without damping also a new bidiagonalisation from there."""
        if not self.damping:
            return replace(self.init(problem, state.x), x0=state.x0, slope0=state.slope0)
        defect = problem.data.f.gradient(problem.data.K(state.x))
        slope = problem.data.K.adjoint(defect) + self.damping**2 * (state.x - state.x0)
        return replace(state, slope=problem.space.norm(slope), misfit=problem.data.f.space.norm(defect))

    def forward(self, problem: Problem, state: Bidiagonal) -> Bidiagonal:
        """One bidiagonalisation step and two rotations; batch elements that meet the discrepancy stay as they are."""
        A = problem.data.K
        domain, range_ = A.domain, A.range
        u, beta = _unit(range_, A(state.v) - range_.expand(state.alpha) * state.u)
        v, alpha = _unit(domain, A.adjoint(u) - domain.expand(beta) * state.v)
        # The first rotation takes the damping out, the second the subdiagonal.
        damped = safe_sqrt(state.rho_bar**2 + self.damping**2)
        c1, s1 = safe_divide(state.rho_bar, damped), safe_divide(per_image(problem, state.x, self.damping), damped)
        psi, phi_bar = s1 * state.phi_bar, c1 * state.phi_bar
        rho = safe_sqrt(damped**2 + beta**2)
        c, s = safe_divide(damped, rho), safe_divide(beta, rho)
        theta, rho_bar = s * alpha, -c * alpha
        phi, phi_bar = c * phi_bar, s * phi_bar
        x = state.x + domain.expand(safe_divide(phi, rho)) * state.w
        w = v - domain.expand(safe_divide(theta, rho)) * state.w
        tail = state.tail + psi**2
        slope = (phi_bar * alpha * c).abs()
        drift = self.damping * domain.norm(x - state.x0)
        misfit = safe_sqrt(phi_bar**2 + tail - drift**2)
        after = Bidiagonal(x, u, v, alpha, w, rho_bar, phi_bar, tail, state.x0, slope, state.slope0, misfit)
        return after if self.discrepancy is None else _freeze(problem, self._met(state), state, after)

    def residual(self, problem: Problem, before: Bidiagonal, after: Bidiagonal) -> Tensor:
        """The residual of the (damped) normal equations relative to its start, from the recurrence."""
        return safe_divide(after.slope, after.slope0)

    def is_legal(self, problem: Problem) -> bool:
        """Least squares and nothing else."""
        return isinstance(problem.data.f, LeastSquares) and isinstance(problem.prior, Zero) and not problem.terms

    def finished(self, problem: Problem, state: Bidiagonal) -> Tensor | None:
        """Where ``|Ax - y|`` is at most the discrepancy."""
        return None if self.discrepancy is None else self._met(state)

    def _met(self, state: Bidiagonal) -> Tensor:
        assert self.discrepancy is not None
        return state.misfit <= self.discrepancy


def _rule(discrepancy: float | None) -> str:
    return "" if discrepancy is None else f"|Ax - y| <= {discrepancy:g} (discrepancy principle)"


def _least_squares(step: Step[Any], problem: Problem) -> LeastSquares:
    refuse_backprojector(step, problem)
    f = problem.data.f
    if not isinstance(f, LeastSquares):
        raise InputError(
            f"data term of {type(step).__name__}", expected="LeastSquares", got=type(f).__name__,
            cure="use PDHG or ADMM",
        )  # fmt: skip
    return f


def _regularising_gradient(problem: Problem, x: Tensor) -> Tensor:
    """The gradient of everything but the data term."""
    parts = [t.gradient(x) for t in problem.terms]
    if not isinstance(problem.prior, Zero):
        parts.append(problem.prior.gradient(x))
    return total(parts) if parts else torch.zeros_like(x)


def _unit(space: Space, x: Tensor) -> tuple[Tensor, Tensor]:
    """``x / |x|`` (0 for 0) and ``|x|``."""
    norm = space.norm(x)
    return x * space.expand(safe_divide(torch.ones_like(norm), norm)), norm


def _freeze(problem: Problem, done: Tensor, before: Bidiagonal, after: Bidiagonal) -> Bidiagonal:
    """`before` for the batch elements that are `done`, `after` for the others."""
    if not bool(done.any()):
        return after

    def pick(name: str) -> Tensor:
        old, new = getattr(before, name), getattr(after, name)
        return torch.where(done.reshape(done.shape + (1,) * (old.ndim - done.ndim)), old, new)

    return Bidiagonal(**{f.name: pick(f.name) for f in fields(Bidiagonal)})
