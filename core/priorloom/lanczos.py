"""The norm of a linear operator from its normal operator, as an interval that holds with a stated probability."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .errors import InputError
from .precision import full_precision
from .space import Space

FAILURE = 1e-6
"""Probability that the largest singular value exceeds the upper end."""
STEPS = 120
"""The most steps; a spectrum that is crowded at its top leaves an interval about 0.5 % wide after them."""


def norm_interval(
    name: str, normal: Callable[[Tensor], Tensor], space: Space, device: torch.device, tolerance: float
) -> tuple[float, float]:
    """``[lower, upper]`` around the largest singular value of A from ``H = A^H A``, by the Lanczos process.

    The start q is uniform on the unit sphere of the N real dimensions of the domain (seed 0). `lower` squared is the
    largest Ritz value, never above the truth. A Ritz pair with a small residual may belong to a lower eigenvalue, so
    the upper end comes from the Lanczos polynomial instead (van Dorsselaer, Hochstenbach and van der Vorst, 2000):
    ``p_k(t) = prod_j (t - theta_j)`` over the k Ritz values has ``|p_k(H) q| = prod_j beta_j``, and ``|p_k(H) q| >=
    c p_k(lambda)`` for the largest eigenvalue lambda and the component c of q along its eigenvector. As
    ``P(c < delta sqrt(pi / (2 N))) <= delta``, lambda is at most the root of ``p_k(t) = prod_j beta_j / c`` right of
    theta_1, except with probability `FAILURE` (in exact arithmetic, over the draw of q). It is so for every k: the
    process stops where the interval is narrow enough.

    Parameters
    ----------
    name
        Of the operator, for the message.
    normal, space, device
        H, its Space, and where it computes.
    tolerance
        The relative width to reach.
    """
    with torch.no_grad(), full_precision(device):
        q = space.random(torch.Generator().manual_seed(0), device=device)
        q = q / space.norm(q)
        dimensions = q.numel() * (2 if space.is_complex else 1)
        # log(1 / c), and from step to step log(prod beta / c)
        excess = -math.log(FAILURE * math.sqrt(math.pi / (2 * dimensions)))
        most = min(STEPS, dimensions)
        basis = _flat(q).new_empty(min(16, most), dimensions)  # one vector per row, twice the rows when they are full
        diagonal: list[float] = []
        off: list[float] = []
        while True:
            k = len(diagonal)
            if k == len(basis):
                basis = torch.cat([basis, basis.new_empty(min(k, most - k), dimensions)])
            basis[k] = _flat(q)
            w = _flat(normal(q))
            diagonal.append(float(basis[k] @ w))
            known = basis[: k + 1]
            for _ in range(2):  # twice is enough: full reorthogonalisation (Parlett)
                w = w - known.T @ (known @ w)
            beta = float(torch.linalg.vector_norm(w))
            if not math.isfinite(beta + diagonal[-1]):
                raise InputError(f"norm of {name}", expected="a finite operator", got=beta)
            ritz = _eigenvalues(diagonal, off)
            top = max(float(ritz[-1]), 0.0)
            if beta <= torch.finfo(w.dtype).tiny or len(diagonal) == dimensions:
                return math.sqrt(top), math.sqrt(top)
            excess += math.log(beta)
            enough = top / (1 - min(tolerance, 0.5)) ** 2
            if len(diagonal) == STEPS or (enough > top and _log_polynomial(ritz, enough) >= excess):
                return math.sqrt(top), math.sqrt(_root(ritz, top, excess))
            off.append(beta)
            w = w / beta
            q = (torch.view_as_complex(w.reshape(-1, 2)) if space.is_complex else w).reshape(space.shape)


def _flat(x: Tensor) -> Tensor:
    """The real coordinates of x: the real inner product serves operators between real and complex spaces too."""
    return (torch.view_as_real(x.resolve_conj()) if x.is_complex() else x).reshape(-1)


def _eigenvalues(diagonal: list[float], off: list[float]) -> Tensor:
    triangle = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    if off:
        # eigvalsh reads the lower triangle only
        triangle += torch.diag(torch.tensor(off, dtype=torch.float64), -1)
    values: Tensor = torch.linalg.eigvalsh(triangle)
    return values


def _log_polynomial(ritz: Tensor, t: float) -> float:
    return float((t - ritz).log().sum())


def _root(ritz: Tensor, top: float, excess: float) -> float:
    """The upper end of a bracket, a rounding unit wide, of the root right of `top` of ``sum_j log(t - theta_j) =
    excess``; there the left side is at least ``k log(t - theta_1)``."""
    low, high = top, top + math.exp(excess / len(ritz))
    while True:
        middle = (low + high) / 2
        if not low < middle < high or high - low <= 1e-12 * high:
            return high
        low, high = (low, middle) if _log_polynomial(ritz, middle) >= excess else (middle, high)
