"""judge(): which convergence theorem applies to a step on a problem, with its condition in numbers, or why none does.

The denoiser enters by what is proven of it (`Regularity`), never by what was measured. Every theorem that is used here
is stated in docs/certificates.md.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import singledispatch
from typing import Any

import torch
from torch import Tensor

from .functional import LeastSquares
from .judgement import (
    FIXED_POINT,
    GROUPS,
    MANN,
    SAFEGUARD,
    STATIONARY,
    Facts,
    Judgement,
    classical,
    ends,
    facts,
    obstacle_of,
)
from .operator import Identity
from .plug_and_play import RED, ImplicitPrior, PnP
from .problem import Problem
from .regularity import Regularity, regularity_of
from .steps.accelerated import AcceleratedDescent
from .steps.base import Step, per_image
from .steps.douglas_rachford import DRS
from .steps.equilibrium import Anderson
from .steps.primal_dual import PDHG
from .steps.proximal import FISTA, ISTA
from .steps.red import DataProximal, GradientDescent
from .steps.relaxed import Relaxed
from .steps.splitting import ADMM, HQS, Splits
from .steps.x_update import AutomaticUpdate, CGUpdate, NormalSystem, XUpdate, is_exact

CYCLES = "the iteration is nonexpansive but not known to be averaged: it may cycle"


def judge(step: Step[Any], problem: Problem) -> Judgement:
    """What is proven of `step`, repeated on `problem`: convex problems by `converges`, plug-and-play and RED by the
    regularity of the denoiser.

    Norms of operators are upper bounds in the sense of ``LinearOperator.norm_bounds``, arithmetic is taken as exact.
    """
    if not isinstance(problem.prior, PnP | ImplicitPrior | RED):
        return classical(step, problem)
    obstacle = obstacle_of(step, problem)
    return Judgement(False, reason=obstacle) if obstacle else judge_step(step, problem)


@singledispatch
def judge_step(step: Step[Any], problem: Problem) -> Judgement:
    """The judgement on a step with a denoiser for the prior; plugins add steps with ``judge_step.register``."""
    return Judgement(False, reason=f"no theorem is known for {type(step).__name__} with a denoiser")


@judge_step.register
def _(step: ISTA, problem: Problem) -> Judgement:
    if problem.terms or not _has_prox(problem):
        return _misfit(step, problem)
    L, t = problem.data.lipschitz(), ends(problem, step.step_size)
    if L is None:
        return Judgement(False, reason=f"{type(problem.data.f).__name__} is not smooth")
    short, long = t or ((1 / L,) * 2 if L else (1.0, 1.0))
    known = facts(_regularity(problem, long, short))
    inside = f"t = {long:.4g} < 2 / L = {_over(2, L):.4g}"
    if known.is_prox and long * L < 2:
        return Judgement(
            True, "proximal gradient method", f"D is the proximal map of a convex function, {inside}",
            "Combettes and Wajs (2005), Multiscale Model. Simul. 4", "the iterates converge to a minimiser, where there"
            " is one", dampable=True, averaged=True,
        )  # fmt: skip
    factor = known.lipschitz * max(1.0, long * L - 1)
    if factor < 1:
        return Judgement(
            True, "Banach's fixed-point theorem", f"|D| max(1, t L - 1) = {factor:.4g} < 1", "Banach (1922)",
            "the iterates converge linearly to the only fixed point", dampable=True, averaged=True,
        )  # fmt: skip
    if known.averaged < 1 and long * L < 2:
        return Judgement(
            True, "Krasnoselskii-Mann, composition of averaged operators", f"{known.text}, {inside}", MANN, FIXED_POINT,
            dampable=True, averaged=True,
        )  # fmt: skip
    if known.prox is not None and long * L < 2 - known.prox:
        return Judgement(
            True, "proximal gradient descent on a weakly convex function",
            f"D = I - grad g with |grad g| {known.slope:.4g} <= 1, so D = prox_phi with phi {known.prox:.4g}-weakly "
            f"convex, t L = {long * L:.4g} < {2 - known.prox:.4g}",
            "Hurault, Leclaire and Papadakis (2022), ICML; Hurault, Chambolle, Leclaire and Papadakis (2023), SSVM",
            STATIONARY.format("t f(Ax) + phi(x)"),
        )  # fmt: skip
    if known.averaged <= 1 and long * L <= 2:
        return Judgement(False, condition=f"{known.text}, t = {long:.4g} <= 2 / L", dampable=True, remedy="damp",
                         reason=CYCLES)  # fmt: skip
    if known.averaged <= 1 or known.prox is not None:
        limit = 2 - (known.prox or 0.0) if known.averaged > 1 else 2.0
        return Judgement(False, condition=f"t L < {limit:.4g}", reason=f"t L = {long * L:.4g}, too long a step",
                         remedy="shorten")  # fmt: skip
    return _unproven(problem)


@judge_step.register
def _(step: FISTA, problem: Problem) -> Judgement:
    if problem.terms or not _has_prox(problem):
        return _misfit(step, problem)
    L, t = problem.data.lipschitz(), ends(problem, step.step_size)
    if L is None:
        return Judgement(False, reason=f"{type(problem.data.f).__name__} is not smooth")
    short, long = t or ((1 / L,) * 2 if L else (1.0, 1.0))
    if not facts(_regularity(problem, long, short)).is_prox:
        return Judgement(False, reason="momentum needs a convex objective, and the denoiser is not known to be the"
                         " proximal map of a convex function")  # fmt: skip
    condition = f"D is the proximal map of a convex function, t = {long:.4g} <= 1 / L = {_over(1, L):.4g}"
    if not step.is_legal(problem):
        return Judgement(False, condition=condition, reason="the step is too long", remedy="shorten")
    return Judgement(
        True, "accelerated proximal gradient method", condition, "Beck and Teboulle (2009), SIAM J. Imaging Sci. 2",
        "the objective converges to its minimum, where it is attained",
    )  # fmt: skip


@judge_step.register
def _(step: ADMM, problem: Problem) -> Judgement:
    if not _has_prox(problem):
        return _misfit(step, problem)
    x = problem.zeros()
    rho = ends(problem, step.rho) or (0.1 * (problem.data.lipschitz() or 10.0),) * 2
    inner = _solver(step.x_update, Splits(problem).system(x, x, per_image(problem, x, 1.0), x))
    condition = f"D is firmly nonexpansive, rho = {rho[0]:.4g} > 0 fixed, an exact x-update"
    known = facts(_regularity(problem, 1 / rho[0], 1 / rho[1]))
    return _resolvent(known, inner, condition, "ADMM of monotone operators", GROUPS, problem)


@judge_step.register
def _(step: DRS, problem: Problem) -> Judgement:
    if problem.terms or not _has_prox(problem):
        return _misfit(step, problem)
    if not isinstance(problem.data.f, LeastSquares) and not isinstance(problem.data.K, Identity):
        return _misfit(step, problem)
    L = problem.data.lipschitz()
    short, long = ends(problem, step.step) or (10 / (L or 10.0),) * 2
    x = problem.zeros()
    one = per_image(problem, x, 1.0)
    inner = "exact"
    if isinstance(problem.data.f, LeastSquares):
        inner = _solver(step.x_update, NormalSystem((problem.data.K, Identity(problem.space)), (one, one), x, x))
    known = facts(_regularity(problem, long, short))
    if known.averaged > 0.5 and known.prox is not None and L is not None and inner == "exact":
        condition = f"D = prox_phi of a weakly convex phi, t L = {long * L:.4g} < 1"
        if long * L < 1:
            return Judgement(
                True, "Douglas-Rachford envelope", condition,
                "Themelis and Patrinos (2020), SIAM J. Optim. 30; Hurault, Leclaire and Papadakis (2022), ICML",
                STATIONARY.format("t f(Ax) + phi(x)"), dampable=True,
            )  # fmt: skip
        return Judgement(False, condition=condition, reason="too long a step", remedy="shorten")
    condition = f"D is firmly nonexpansive, t = {long:.4g} > 0, an exact proximal map of the data term"
    found = _resolvent(known, inner, condition, "Douglas-Rachford splitting of monotone operators", GROUPS, problem)
    return replace(found, dampable=found.certified)


@judge_step.register
def _(step: PDHG, problem: Problem) -> Judgement:
    if not _has_prox(problem):
        return _misfit(step, problem)
    steps = (1.0, 1.0)
    if isinstance(problem.prior, ImplicitPrior):
        state = step.init(problem)
        ratio = ends(problem, step.ratio)
        steps = (float(state.tau.min()), float(state.tau.max()))
        if ratio is not None:
            steps = (ratio[0] / state.norm, ratio[1] / state.norm)
    known = facts(_regularity(problem, *steps))
    found = _resolvent(
        known, "exact", "D is firmly nonexpansive, tau sigma |K|^2 <= 1 by construction",
        "primal-dual splitting of monotone operators",
        "Vu (2013), Adv. Comput. Math. 38; Condat (2013), J. Optim. Theory Appl. 158; for tau sigma |K|^2 = 1 O'Connor "
        "and Vandenberghe (2020), Math. Program. 179", problem,
    )  # fmt: skip
    return replace(found, dampable=found.certified)


@judge_step.register
def _(step: HQS, problem: Problem) -> Judgement:
    if not _has_prox(problem):
        return _misfit(step, problem)
    x = problem.zeros()
    inner = _solver(step.x_update, Splits(problem).system(x, x, per_image(problem, x, 1.0), x))
    first = ends(problem, step.rho) or (0.01 * (problem.data.lipschitz() or 100.0),) * 2
    rho = [r * step.growth**step.steps for r in first]
    known = facts(_regularity(problem, 1 / rho[0], 1 / rho[1]))
    after = f"rho = {rho[0]:.4g} fixed" + (f" after {step.steps} iterations" if step.growth > 1 and step.steps else "")
    if inner == "exact" and known.averaged <= 1:
        condition = f"{known.text}, the proximal map of the data term is exact and 0.5-averaged, {after}"
        if known.averaged == 1:
            return Judgement(False, condition=condition, dampable=True, remedy="damp", reason=CYCLES)
        return Judgement(True, "Krasnoselskii-Mann, composition of averaged operators", condition, MANN, FIXED_POINT,
                         dampable=True)  # fmt: skip
    if known.slope is not None and not problem.terms and isinstance(problem.data.f, LeastSquares):
        return _descent(known.slope, inner, f"|grad g| = {known.slope:.4g} {{}}, {after}",
                        "f(Ax) + rho g(x), x before the denoiser", False)  # fmt: skip
    return _inexact(known, problem) if inner != "exact" else _unproven(problem)


@judge_step.register
def _(step: GradientDescent, problem: Problem) -> Judgement:
    prior = problem.prior
    if problem.terms or not isinstance(prior, RED):
        return _misfit(step, problem)
    L = problem.data.lipschitz()
    if L is None:
        return Judgement(False, reason=f"{type(problem.data.f).__name__} is not smooth")
    t, tau, known = _largest(step.size(problem)), _largest(prior.tau), facts(prior.regularity())
    limits = []
    if known.averaged <= 1:
        limits.append(limit := _over(2, L + 2 * known.averaged * tau))
        if t < limit:
            return Judgement(
                True, "Krasnoselskii-Mann, gradient step on a cocoercive operator",
                f"{known.text}, t = {t:.4g} < 2 / (L + 2 theta tau) = {limit:.4g}",
                f"{MANN}; Reehorst and Schniter (2019), IEEE Trans. Comput. Imaging 5", FIXED_POINT, dampable=True,
                averaged=True,
            )  # fmt: skip
    if known.slope is not None:
        limits.append(limit := _over(2, L + known.slope * tau))
        if t < limit:
            return Judgement(
                True, "gradient descent, descent lemma",
                f"D = I - grad g, t = {t:.4g} < 2 / (L + tau |grad g|) = {limit:.4g}",
                "Nesterov (2004), Introductory Lectures on Convex Optimization, section 1.2.3; Hurault, Leclaire and "
                "Papadakis (2022), ICLR", STATIONARY.format("f(Ax) + tau g(x)"), dampable=True,
            )  # fmt: skip
    if limits:
        return Judgement(False, condition=f"t < {max(limits):.4g}", reason=f"t = {t:.4g}, too long a step",
                         remedy="shorten")  # fmt: skip
    return _unproven(problem)


@judge_step.register
def _(step: AcceleratedDescent, problem: Problem) -> Judgement:
    prior, L = problem.prior, problem.data.lipschitz()
    if problem.terms or not isinstance(prior, RED) or L is None or not problem.has_value:
        return _misfit(step, problem)
    known = facts(prior.regularity())
    if known.slope is None:
        return _unproven(problem)
    t, limit = _largest(step.size(problem)), _over(1, L + known.slope * _largest(prior.tau))
    condition = f"D = I - grad g, s = {t:.4g} <= 1 / (L + tau |grad g|) = {limit:.4g}"
    if t > limit * (1 + 1e-6):
        return Judgement(False, condition=condition, reason="the step is too long", remedy="shorten")
    return Judgement(True, "monotone accelerated gradient descent", condition, "Li and Lin (2015), NIPS; docs/"
                     "certificates.md", "f(Ax) + tau g(x) never rises, its gradient vanishes and every cluster point"
                     " is stationary")  # fmt: skip


@judge_step.register
def _(step: DataProximal, problem: Problem) -> Judgement:
    prior = problem.prior
    if problem.terms or not isinstance(prior, RED) or not isinstance(problem.data.f, LeastSquares):
        return _misfit(step, problem)
    x = problem.zeros()
    one = per_image(problem, x, 1.0)
    inner = _solver(step.x_update, NormalSystem((problem.data.K, Identity(problem.space)), (one, one), x, x))
    strength, known = _largest(step.size(problem)) * _largest(prior.tau), facts(prior.regularity())
    if inner == "exact" and known.averaged <= 1 and strength * known.averaged < 1:
        return Judgement(
            True, "forward-backward splitting of monotone operators",
            f"{known.text}, t tau theta = {strength * known.averaged:.4g} < 1, an exact proximal map of the data term",
            f"{MANN}; Reehorst and Schniter (2019), IEEE Trans. Comput. Imaging 5", FIXED_POINT, dampable=True,
            averaged=True,
        )  # fmt: skip
    if known.slope is not None:
        text = f"t tau |grad g| = {strength * known.slope:.4g} {{}}"
        return _descent(strength * known.slope, inner, text, "f(Ax) + tau g(x)", True)
    if inner != "exact":
        return _inexact(known, problem)
    if known.averaged <= 1:
        return Judgement(False, condition="t tau theta < 1", reason=f"t tau theta = {strength * known.averaged:.4g}",
                         remedy="shorten")  # fmt: skip
    return _unproven(problem)


@judge_step.register
def _(step: Relaxed, problem: Problem) -> Judgement:  # type: ignore[type-arg]
    found = judge_step(step.step, problem)
    if step.relaxation == 1:
        return found
    if not found.dampable:
        told = found.reason or f"{found.theorem} holds for the iteration without damping only"
        return replace(found, certified=False, theorem="", reference="", guarantee="", reason=told, remedy="none")
    damping = f"{found.condition}, 0 < a = {step.relaxation:.4g} < 1"
    if found.certified and found.guarantee != FIXED_POINT:
        return replace(found, condition=damping)
    return Judgement(True, "Krasnoselskii-Mann, damped", damping, MANN, FIXED_POINT, dampable=True,
                     averaged=True)  # fmt: skip


@judge_step.register
def _(step: Anderson, problem: Problem) -> Judgement:
    inner = judge_step(step.step, problem)
    if inner.averaged:
        return Judgement(True, SAFEGUARD[0], inner.condition, SAFEGUARD[1], FIXED_POINT)
    told = f"the safeguard of Anderson acceleration is proven for averaged maps, {inner.theorem} is of another kind"
    return Judgement(False, condition=inner.condition, reason=inner.reason or told, remedy=inner.remedy)


def _resolvent(known: Facts, inner: str, condition: str, theorem: str, reference: str, problem: Problem) -> Judgement:
    """Splittings in which D must be the resolvent of a monotone operator: firmly nonexpansive (Minty, 1962)."""
    if inner != "exact":
        return _inexact(known, problem)
    if known.averaged <= 0.5:
        return Judgement(True, theorem, condition, reference, FIXED_POINT)
    if known.averaged <= 1:
        return Judgement(False, condition=condition, reason=f"{known.text}; its reflection 2 D - I may expand",
                         remedy="average")  # fmt: skip
    if math.isfinite(known.lipschitz):
        return Judgement(False, condition=condition, reason=f"{known.text}, not known to be firmly nonexpansive")
    return _unproven(problem)


def _descent(strength: float, inner: str, condition: str, objective: str, dampable: bool) -> Judgement:
    """Descent on f + tau g with the data in the prox: step times Lipschitz constant below 2, or, where conjugate
    gradients stop early, at most 1 (docs/certificates.md)."""
    if inner == "exact":
        text, holds = condition.format("< 2"), strength < 2
        theorem, reference = "proximal gradient descent", "Hurault, Leclaire and Papadakis (2022), ICLR"
    elif inner == "conjugate gradients":
        text, holds = condition.format("<= 1") + ", conjugate gradients from the last image", strength <= 1 + 1e-6
        theorem = "majorisation and descent by conjugate gradients"
        reference = "Attouch, Bolte and Svaiter (2013), Math. Program. 137; docs/certificates.md"
    else:
        return Judgement(False, reason="nothing is proven of the x-update", remedy="solve exactly")
    if holds:
        return Judgement(True, theorem, text, reference, STATIONARY.format(objective), dampable=dampable)
    return Judgement(False, condition=text, reason=f"{text.partition(', ')[0]} does not hold", remedy="shorten")


def _inexact(known: Facts, problem: Problem) -> Judgement:
    if known.averaged > 1:
        return _unproven(problem)
    return Judgement(
        False, reason="the x-update is not exact: conjugate gradients to a relative accuracy leave errors that are not "
        "known to be summable, as the theorem on inexact iterations asks", remedy="solve exactly",
    )  # fmt: skip


def _unproven(problem: Problem) -> Judgement:
    known = _regularity(problem, 1.0, 1.0)
    what = f"denoiser of class '{known.kind}'" + (f": {known.reason}" if known.reason else "")
    return Judgement(False, reason=f"no theorem covers a {what}")


def _misfit(step: Step[Any], problem: Problem) -> Judgement:
    extra = " and operator terms" if problem.terms else ""
    prior, f = type(problem.prior).__name__, type(problem.data.f).__name__
    return Judgement(False, reason=f"{type(step).__name__} does not solve problems with {prior}, {f}{extra}")


def _regularity(problem: Problem, *prox_steps: float) -> Regularity:
    """What is proven of the denoiser at the noise level (or levels) that the step asks of it."""
    prior = problem.prior
    if isinstance(prior, ImplicitPrior):
        levels = [torch.as_tensor(s * prior.lam).sqrt().flatten() for s in set(prox_steps)]
        return regularity_of(prior.denoiser, torch.cat(levels))
    assert isinstance(prior, PnP | RED)
    return prior.regularity()


def _has_prox(problem: Problem) -> bool:
    return isinstance(problem.prior, PnP | ImplicitPrior)


def _solver(x_update: XUpdate, system: NormalSystem) -> str:
    if is_exact(x_update, system):
        return "exact"
    return "conjugate gradients" if isinstance(x_update, CGUpdate | AutomaticUpdate) else "other"


def _largest(value: float | Tensor) -> float:
    return float(torch.as_tensor(value).detach().max())


def _over(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else math.inf
