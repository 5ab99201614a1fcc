"""check_functional(), check_prior(): is the prox the argmin, and do value, conjugate and gradient belong together?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from ..functional import Functional
from ..problem import Term
from .measures import (
    Check,
    ConformanceError,
    at_least,
    device_of,
    far,
    number_gap,
    pickled,
    require,
    require_fit,
    require_refusal,
    rounding,
    unchanged,
)  # fmt: skip
from .operators import check_operator


def check_functional(f: Functional, *, seed: int = 0, tolerance: float | None = None) -> list[Check]:
    """Check a Functional, as far as it goes.

    The value is real, one per batch element. The prox is the argmin of ``f(u) + |u - x|^2 / 2t`` among perturbed points
    and its own values at other steps, and where f is convex ``p = (x - u) / t`` is a subgradient and the prox firmly
    nonexpansive. Where the conjugate exists, ``f(u) + f*(p) = Re <p, u>`` (Fenchel-Young, which makes Moreau's identity
    a check of its own). The gradient is that of autograd, and Lipschitz. One step per batch element; pickle; the
    refusal of wrong shapes.

    Parameters
    ----------
    f
        The functional.
    seed
        Of the random points.
    tolerance
        Relative accuracy of the prox; the square root of the rounding unit when absent. An iterated prox may need more.
    """
    accuracy = math.sqrt(rounding(f.space)) if tolerance is None else tolerance
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        checks = list(_functional_checks(f, generator, accuracy))
    return [*checks, *_gradient_checks(f, generator)]


def check_prior(prior: Functional | Term, *, seed: int = 0) -> list[Check]:
    """Check what a prior factory returned: the functional, and the operator of a Term."""
    if isinstance(prior, Term):
        return [*check_operator(prior.K, seed=seed), *check_functional(prior.f, seed=seed)]
    if isinstance(prior, Functional):
        return check_functional(prior, seed=seed)
    raise ConformanceError("prior", expected="a Functional or a Term", got=type(prior).__name__)


def _functional_checks(f: Functional, generator: torch.Generator, accuracy: float) -> Iterator[Check]:
    x, z = (f.space.random(generator, (3,), device_of(f)) for _ in range(2))
    has_prox = type(f)._prox is not Functional._prox
    if f.has_value:
        point = f.prox(x, 1.0) if has_prox else x
        value = unchanged("value", f, point)
        if value.shape != (3,) or value.dtype != f.space.real_dtype or not bool(value.isfinite().all()):
            raise ConformanceError(
                "value", expected=f"3 finite numbers of {f.space.real_dtype}", got=f"{value.dtype} {value.tolist()}"
            )  # fmt: skip
        yield require("value: batch equals stack", number_gap(value, torch.stack([f(p) for p in point])), accuracy)
    if has_prox:
        yield from _prox_checks(f, x, z, generator, accuracy)
    if f.has_value:
        y = f.prox(x, 1.0) if has_prox else x
        yield require("pickle round trip", number_gap(pickled(f)(y), f(y)), 10 * rounding(f.space))
    for apply in [f] * f.has_value + [lambda v: f.prox(v, 1.0)] * has_prox:
        require_refusal(apply, f.space)
    yield Check("wrong shape and dtype refused", 0.0)


def _prox_checks(f: Functional, x: Tensor, z: Tensor, generator: torch.Generator, accuracy: float) -> Iterator[Check]:
    steps = torch.tensor([0.25, 1.0, 4.0], dtype=f.space.real_dtype, device=x.device)
    for name, prox in (("prox", f.prox), ("conjugate prox", f.prox_conjugate)):
        many = unchanged(name, partial(prox, step=steps), x)
        require_fit(f"{name}", f.space, many, (3,))
        single = torch.stack([prox(v, float(t)) for v, t in zip(x, steps, strict=True)])
        yield require(f"{name}: a step per image equals single images", far(f.space, many, single), accuracy)
    for t in (0.25, 1.0, 4.0):
        u, w = f.prox(x, t), f.prox(z, t)
        if f.has_value:
            # The objective is flat at its minimum: an error in u enters it squared.
            allowed = max(100 * rounding(f.space), accuracy**2)
            worst = float(torch.stack([_excess(f, v, u, x, t) for v in _rivals(f, u, x, t, generator)]).max())
            yield require(f"prox at step {t:g} is the argmin", worst, allowed)
        if f.is_convex:
            slack = (f.space.squared(u - w) - f.space.inner(x - z, u - w).real) / f.space.squared(x - z)
            yield require(f"prox at step {t:g} is firmly nonexpansive", float(slack.clamp_min(0).max()), accuracy)
        p = (x - u) / t
        if f.has_value and f.is_convex:
            bound = f(u) + f.space.inner(p, w - u).real
            size = f(u).abs() + f(w).abs() + f.space.norm(p) * f.space.norm(w - u)
            worst = float(((bound - f(w)) / at_least(size)).clamp_min(0).max())
            yield require(f"prox at step {t:g}: (x - u) / t is a subgradient", worst, accuracy)
        if f.has_conjugate:
            yield _fenchel_young(f, u, p, t, accuracy)


def _rivals(f: Functional, u: Tensor, x: Tensor, t: float, generator: torch.Generator) -> Iterator[Tensor]:
    """Points that must not beat the prox u of x."""
    yield from (f.prox(x, t * factor) for factor in (0.5, 0.9, 1.1, 2.0))
    yield from (u + share * (x - u) for share in (-0.1, 0.01, 0.1, 1.0))
    yield from (u * (1 + share) for share in (-1.0, -0.1, -0.01, 0.01, 0.1))
    size = x.abs().mean()
    for spread in (1e-3, 1e-2, 0.1, 1.0):
        for _ in range(3):
            yield u + spread * size * f.space.random(generator, (3,), x.device)


def _excess(f: Functional, rival: Tensor, u: Tensor, x: Tensor, t: float) -> Tensor:
    """By how much `rival` beats u in ``f(u) + |u - x|^2 / 2t``, relative to the size of that objective at u and 0."""
    ours = f(u) + f.space.squared(u - x) / (2 * t)
    theirs = f(rival) + f.space.squared(rival - x) / (2 * t)
    excess: Tensor = (ours - theirs) / at_least(f(u).abs() + f.space.squared(x) / (2 * t))
    return excess


def _fenchel_young(f: Functional, u: Tensor, p: Tensor, t: float, accuracy: float) -> Check:
    """``f(u) + f*(p) = Re <p, u>``; p is drawn in by the accuracy where rounding put it outside the domain of f*."""
    conjugate = f.conjugate(p)
    if not bool(conjugate.isfinite().all()):
        p = (1 - accuracy) * p
        conjugate = f.conjugate(p)
    gap = f(u) + conjugate - f.space.inner(p, u).real
    size = f(u).abs() + conjugate.abs() + f.space.norm(p) * f.space.norm(u)
    return require(f"conjugate at step {t:g}: Fenchel-Young", float((gap.abs() / at_least(size)).max()), 3 * accuracy)


def _gradient_checks(f: Functional, generator: torch.Generator) -> Iterator[Check]:
    if type(f)._gradient is Functional._gradient:
        return
    x, z = (f.space.random(generator, (3,), device_of(f)) for _ in range(2))
    slope = f.gradient(x).detach()
    require_fit("gradient", f.space, slope, (3,))
    if f.has_value:
        leaf = x.clone().requires_grad_()
        value = f(leaf).sum()
        automatic = torch.autograd.grad(value, leaf)[0] if value.requires_grad else torch.zeros_like(leaf)
        yield require("gradient is that of autograd", far(f.space, slope, automatic), 1000 * rounding(f.space))
    constant = f.gradient_lipschitz()
    if constant is not None:
        change = f.space.norm(slope - f.gradient(z).detach()) / f.space.norm(x - z)
        excess = float((change - constant).clamp_min(0).max()) / (constant or 1.0)
        yield require("Lipschitz constant of the gradient", excess, 1000 * rounding(f.space))
    if f.is_quadratic:
        bent = f.gradient(x + z) + f.gradient(torch.zeros_like(x))
        yield require(
            "quadratic: the gradient is affine", far(f.space, bent, slope + f.gradient(z)), 1000 * rounding(f.space)
        )
