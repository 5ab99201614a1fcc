"""check_operator(): is it linear, is the adjoint the adjoint, does it keep the contract of a LinearOperator?"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor

from ..errors import InputError
from ..lanczos import norm_interval
from ..operator import LinearOperator
from .measures import (
    Check,
    ConformanceError,
    at_least,
    far,
    pickled,
    require,
    require_fit,
    require_refusal,
    rounding,
    unchanged,
    wide,
)  # fmt: skip

SMALL = 1024
"""Entries of the dense matrix up to which every entry of the Jacobian is checked; beyond, random directions."""


def check_operator(operator: LinearOperator, *, seed: int = 0) -> list[Check]:
    """Check a LinearOperator.

    Shapes, dtypes, finite values; linearity; batches; the dot test ``|<Ax, y> - <x, A^H y>| / (|Ax| |y|)``, which
    rejects a filtered, scaled or unmatched adjoint with the gap; ``normal``; autograd (the backward is the adjoint, to
    second order; gradcheck and gradgradcheck where the backend has double precision); the norm interval;
    ``solve_normal`` and ``pseudo_inverse`` where offered; a copy by pickle, ``.to()`` (to the device "meta": no tensor
    may stay behind) and ``.double()``; the refusal of wrong shapes and dtypes.

    Parameters
    ----------
    operator
        The operator.
    seed
        Of the random vectors.
    """
    with torch.no_grad():
        checks = list(_operator_checks(operator, torch.Generator().manual_seed(seed)))
    return [*checks, *_autograd_checks(operator, torch.Generator().manual_seed(seed))]


def _operator_checks(A: LinearOperator, generator: torch.Generator) -> Iterator[Check]:
    eps = rounding(A.domain)
    x, y = A.domain.random(generator, (3,), A.device), A.range.random(generator, (3,), A.device)
    ax, aty = unchanged("operator", A, x), unchanged("adjoint", A.adjoint, y)
    for name, space, got in (("output", A.range, ax), ("output of the adjoint", A.domain, aty)):
        require_fit(name, space, got, (3,))
    require_fit("image of zero", A.range, A(torch.zeros_like(x)), (3,))
    yield Check("shapes, dtypes, finite values", 0.0)

    a, b = 0.7, -1.3 + (0.4j if A.domain.is_complex and A.range.is_complex else 0)
    for name, space, apply, u in (("linear", A.range, A, x), ("adjoint linear", A.domain, A.adjoint, y)):
        mixed = apply(a * u[:1] + b * u[1:2])
        yield require(name, far(space, mixed, a * apply(u[:1]) + b * apply(u[1:2])), 100 * eps)
    for name, space, apply, u, one in (("", A.range, A, x, ax), ("adjoint ", A.domain, A.adjoint, y, aty)):
        stacked = torch.stack([apply(v) for v in u])
        yield require(f"{name}batch equals stack", far(space, one, stacked), 100 * eps)
        yield require(f"{name}nested batch", far(space, apply(u[None])[0], one), 100 * eps)

    # White noise alone would hide a wrong scale behind the smallness of <Ax, y>: aligned pairs show it in full.
    ones = torch.ones_like(x)
    pairs = ((x, y), (x, ax), (aty, y), (ones, A(ones)), (aty, A(aty)))
    gap = float(torch.stack([_dot_gap(A, u, v) for u, v in pairs]).max())
    yield require("dot test: |<Ax, y> - <x, A^H y>| / (|Ax| |y|)", gap, 100 * eps, "the adjoint is not that of A")
    yield require("normal is adjoint after forward", far(A.domain, A.normal(x), A.adjoint(ax)), 100 * eps)

    lower, upper = A.norm_bounds()
    attained = float((A.range.norm(A(aty)) / at_least(A.domain.norm(aty))).max())
    low, high = norm_interval(type(A).__name__, A.normal, A.domain, A.device, 1e-3)
    attained = max(attained, low)
    if not (lower <= upper and attained <= upper * (1 + 100 * eps) and lower <= high * (1 + 100 * eps)):
        raise ConformanceError(
            "norm interval", expected=f"[{attained:.5g}, {high:.5g}]", got=f"[{lower:.5g}, {upper:.5g}]"
        )
    yield Check("norm interval: upper end, absolute", upper)

    solved = A.solve_normal(x, 0.5 * upper**2)
    if solved is not None:
        residual = A.normal(solved) + 0.5 * upper**2 * solved
        yield require("solve_normal", far(A.domain, residual, x), 1000 * eps)
    try:
        direct = A.pseudo_inverse(ax)
    except InputError:
        pass  # no direct method
    else:
        require_fit("pseudo_inverse", A.domain, direct, (3,))
        yield Check("pseudo_inverse: shape, dtype, finite", 0.0)

    yield require("pickle round trip", far(A.range, pickled(A)(x), ax), 10 * eps)
    _require_moved(copy.deepcopy(A).to("meta"))
    yield Check(".to() moves every tensor", 0.0)
    if A.computes_double:
        B = copy.deepcopy(A).double()
        for name, apply, u, one, there, back in (
            (".double()", B, x, ax, B.domain, B.range),
            ("adjoint after .double()", B.adjoint, y, aty, B.range, B.domain),
        ):
            got = apply(u.to(there.dtype))
            require_fit(name, back, got, (3,))
            yield require(f"{name} computes the same", far(back, got, one.to(back.dtype)), 100 * eps)
    for apply, space in ((A, A.domain), (A.adjoint, A.range)):
        require_refusal(apply, space)
    yield Check("wrong shape and dtype refused", 0.0)


def _require_moved(A: LinearOperator) -> None:
    """No tensor was left behind: neither an attribute nor an entry of one, in any part."""
    for part in A.modules():
        for name, value in vars(part).items():
            entries = value.values() if isinstance(value, dict) else value
            for entry in entries if isinstance(value, dict | list | tuple) else (value,):
                if isinstance(entry, Tensor) and not entry.is_meta:
                    raise ConformanceError(
                        ".to() moves every tensor", expected="every tensor on the new device",
                        got=f"{type(part).__name__}.{name} left on {entry.device}", cure="use register_buffer",
                    )  # fmt: skip


def _dot_gap(A: LinearOperator, x: Tensor, y: Tensor) -> Tensor:
    ax, aty = A(x), A.adjoint(y)
    left, right = A.range.inner(wide(ax), wide(y)), A.domain.inner(wide(x), wide(aty))
    if not (A.domain.is_complex and A.range.is_complex):  # real spaces have a real inner product
        left, right = left.real, right.real
    return (left - right).abs() / at_least((A.range.norm(ax) * A.range.norm(y)).double())


def _autograd_checks(A: LinearOperator, generator: torch.Generator) -> Iterator[Check]:
    eps = rounding(A.domain)
    x = A.domain.random(generator, device=A.device).requires_grad_()
    y = A.range.random(generator, device=A.device).requires_grad_()
    for name, apply, u, v, back, space in (
        ("autograd of A is A^H", A, x, y, A.adjoint, A.domain),
        ("autograd of A^H is A", A.adjoint, y, x, A, A.range),
    ):
        (first,) = torch.autograd.grad(apply(u), u, v, create_graph=True)
        yield require(name, far(space, first.detach(), back(v.detach())), 100 * eps)
        (second,) = torch.autograd.grad(first, v, u.detach())
        other = A.range if space is A.domain else A.domain
        yield require(f"{name}, second order", far(other, second, apply(u.detach())), 100 * eps)
    if A.computes_double:
        B = copy.deepcopy(A).double()
        z = B.domain.random(generator, device=B.device).requires_grad_()
        fast = B.domain.size * B.range.size > SMALL
        for name, test in (("gradcheck", torch.autograd.gradcheck), ("gradgradcheck", torch.autograd.gradgradcheck)):
            try:
                test(B, (z,), fast_mode=fast)
            except RuntimeError as error:
                raise ConformanceError(name, expected="analytic and numerical Jacobian agree", got=error) from None
            yield Check(f"{name} in double precision", 0.0)
