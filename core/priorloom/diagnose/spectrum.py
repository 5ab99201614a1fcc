"""The singular values of an operator: all where it is small, else its ends, with error bars and without a matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..errors import InputError
from ..memory import memory_budget, require_memory
from ..operator import LinearOperator
from .coordinates import Coordinates
from .decay import Decay, classify, distribution

Method = Literal["dense", "block Krylov"]
Standing = Literal["exact", "estimate", "at most"]

DENSE_LIMIT = 2048
"""Up to so many unknowns or data the matrix is made whole."""
BASIS = 300
"""The most vectors of a Krylov space."""
HELD = 2**24
"""The most numbers that its images and data hold together: fewer vectors where both are large."""
SPARE = 10
"""Vectors of a block beyond the values that are asked for: a value that occurs as often as a block is wide is found."""
TOLERANCE = 1e-9
"""The error, relative to the largest value, at which the leading values are left."""


@dataclass(frozen=True)
class SingularValue:
    """One singular value.

    Parameters
    ----------
    value, error
        The estimate; a singular value of A lies within `error` of it.
    standing
        ``exact``: to rounding, and it is the one of its index. ``estimate``: never above the one of its index.
        ``at most``: never below it, which may be far smaller.
    """

    value: float
    error: float
    standing: Standing


@dataclass(frozen=True)
class Spectrum:
    """The singular values of an operator, one for every unknown.

    Parameters
    ----------
    method
        How.
    unknowns, data
        Columns and rows: complex numbers where both images and data are complex, else real ones.
    leading, trailing
        The largest and the smallest, both falling.
    rank, rank_error
        How many are not zero (above the rounding), and the standard error of that where it is an estimate.
    condition, condition_is_exact
        The largest over the smallest that is not zero; where that is not known, a number that it exceeds.
    index, curve
        sigma_i over i, for fits and pictures, ``[count]``: all that are not zero, or estimates spread over them.
    decay
        Its class.
    values, left, right
        Singular values with the left and right singular vectors in the rows, ``[k]``, ``[k, data]`` and ``[k,
        unknowns]``: all that are not zero (``dense``), or the leading ones, as good as their error bars.
    """

    method: Method
    unknowns: int
    data: int
    leading: tuple[SingularValue, ...]
    trailing: tuple[SingularValue, ...]
    rank: float
    rank_error: float
    condition: float
    condition_is_exact: bool
    index: Tensor
    curve: Tensor
    decay: Decay
    values: Tensor
    left: Tensor
    right: Tensor

    @property
    def null_space(self) -> float:
        """Its dimension."""
        return self.unknowns - self.rank


def spectrum(
    A: LinearOperator, count: int = 20, *, dense_limit: int = DENSE_LIMIT, basis: int = BASIS, seed: int = 0
) -> Spectrum:
    """The `count` largest and smallest singular values of A.

    Up to `dense_limit` unknowns or data the matrix is made and decomposed. Beyond, a block Krylov space of ``A^H A``
    (Golub and Underwood, 1977; Musco and Musco, 2015) grows from random images V, orthonormal to rounding; values are
    those of ``A V``, so that small ones are not squared. With ``A v = theta u`` the error bar is
    ``|A^H u - theta v|``. The i-th largest is never above the i-th of A, the i-th smallest never below (Cauchy). Blocks
    are wider than `count`, so that values that occur many times (masks, symmetric scans) are found as often as they
    occur. Where the space is the whole domain, the lower end is exact too.

    Computed in double precision where the operator can.

    Parameters
    ----------
    A
        The operator.
    count
        How many at either end.
    dense_limit, basis
        The largest matrix, and the most vectors of the Krylov space.
    seed
        Of the random images.

    Raises
    ------
    InputError
        A count below 1, an operator that is zero or not finite, or vectors that would not fit in memory.
    """
    if count < 1:
        raise InputError("number of singular values", expected="at least 1", got=count)
    matrix = Coordinates(A)
    count = min(count, matrix.columns)
    smaller, larger = sorted((matrix.rows, matrix.columns))
    whole = 3 * matrix.dtype.itemsize * smaller * larger
    if smaller <= dense_limit and (smaller == larger or whole <= memory_budget()):
        require_memory("the matrix of the operator", whole, "ask for a smaller dense_limit")
        return _dense(matrix, count)
    most = min(basis, HELD // (matrix.rows + matrix.columns))
    return _krylov(matrix, count, min(max(most, 2 * (count + SPARE)), matrix.columns), seed)


def _dense(matrix: Coordinates, count: int) -> Spectrum:
    device = matrix.A.device
    if matrix.rows < matrix.columns:
        held = matrix.adjoint(torch.eye(matrix.rows, dtype=matrix.dtype, device=device)).conj()
    else:
        held = matrix.forward(torch.eye(matrix.columns, dtype=matrix.dtype, device=device)).T
    _require_finite(held)
    u, values, vh = torch.linalg.svd(held, full_matrices=False)
    floor = matrix.rounding * _largest(values)
    rank = int((values > floor).sum())
    padded = torch.cat([values[:rank], values.new_zeros(matrix.columns - rank)])
    found = tuple(SingularValue(float(v), floor, "exact") for v in padded)
    solid = values[:rank]
    index = torch.arange(1, rank + 1, dtype=torch.float64)
    return Spectrum(
        "dense", matrix.columns, matrix.rows, found[:count], found[-count:], float(rank), 0.0,
        float(solid[0] / solid[-1]), True, index, solid.cpu(), classify(index, solid, rank), solid,
        u[:, :rank].T, vh[:rank].conj().resolve_conj(),
    )  # fmt: skip


def _krylov(matrix: Coordinates, count: int, most: int, seed: int) -> Spectrum:
    n = matrix.columns
    require_memory(
        "the Krylov space",
        3 * matrix.dtype.itemsize * most * (n + matrix.rows),
        "ask for fewer singular values or a smaller basis",
    )
    width = min(count + SPARE, most)
    generator = torch.Generator().manual_seed(seed)

    def random(rows: int) -> Tensor:
        return torch.randn(rows, n, dtype=matrix.dtype, generator=generator).to(matrix.A.device)

    rights = _orthonormal(random(width), None, 0.0)
    images = matrix.forward(rights)
    _require_finite(images)
    last = images
    while True:
        values, _, _, errors = _ritz(matrix, rights, images, count)
        # A space that may be the whole domain is grown to it: the lower end comes last.
        if len(rights) >= most or (most < n and bool((errors <= TOLERANCE * values[0]).all())):
            break
        fresh = _orthonormal(matrix.adjoint(last)[: most - len(rights)], rights, _largest(values))
        if not len(fresh):  # A maps the space to itself: on with what it has nothing of
            fresh = _orthonormal(random(min(width, most - len(rights))), rights, 0.0)
        last = matrix.forward(fresh)
        rights, images = torch.cat([rights, fresh]), torch.cat([images, last])
    values, lefts, v, errors = _ritz(matrix, rights, images, len(rights))
    top = _largest(values)
    floor = matrix.rounding * top
    # The rows of A V may be fewer than the vectors: the rest of them is in the null space.
    ritz = torch.cat([values, values.new_zeros(len(rights) - len(values))])
    bars = torch.cat([errors, errors.new_zeros(len(rights) - len(values))])
    leading = tuple(SingularValue(float(s), max(float(e), floor), "estimate")
                    for s, e in zip(ritz[:count], bars[:count], strict=True))  # fmt: skip
    null = max(n - matrix.rows, int((ritz <= floor).sum()))
    known = len(rights) == n  # the space is the domain
    trailing = tuple(
        SingularValue(0.0 if s <= floor else float(s), max(float(e), floor),
                      "exact" if known or s <= floor else "at most")
        for s, e in zip(ritz[-count:], bars[-count:], strict=True)
    )  # fmt: skip
    zero = SingularValue(0.0, floor, "exact")
    trailing = trailing if null < count else (zero,) * count
    solid = values[values > floor]
    # A value within half of itself of a singular value is evidence that one that is not zero is no larger.
    sure = (errors < values / 2) & (values > floor)
    least = float((values + errors)[sure].min()) if bool(sure.any()) else top
    if known:
        index, curve, rank, spread = torch.arange(1, len(solid) + 1).double(), solid.cpu(), float(len(solid)), 0.0
    else:
        estimated = distribution(matrix, seed)
        index, curve, rank, spread = estimated.index, estimated.values, estimated.rank, estimated.rank_error
    kept = min(count, len(solid))
    return Spectrum(
        "block Krylov", n, matrix.rows, leading, trailing, rank, spread, float(solid[-1].reciprocal() * top) if known
        else top / least, known, index, curve, classify(index, curve, rank), values[:kept], lefts[:kept], v[:kept],
    )  # fmt: skip


def _ritz(matrix: Coordinates, rights: Tensor, images: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Values theta, vectors u and v in rows with ``A v = theta u``, and the error bars of the first `count`."""
    u, values, vh = torch.linalg.svd(images.T, full_matrices=False)
    lefts, v = u.T, vh.conj() @ rights
    theta = values[:count]
    errors = torch.linalg.vector_norm(matrix.adjoint(lefts[:count]) - theta[:, None] * v[: len(theta)], dim=1)
    # In the null space u is arbitrary: what A makes of v says it all.
    return values, lefts, v, torch.where(theta <= matrix.rounding * _largest(values), theta, errors)


def _orthonormal(block: Tensor, known: Tensor | None, top: float) -> Tensor:
    """An orthonormal basis, in rows, of what `block` adds to the orthonormal rows `known`; twice is enough."""
    scale = torch.linalg.vector_norm(block, dim=1).max()
    for _ in range(2):
        if known is not None:
            block = block - (block @ known.mH) @ known
        _, s, vh = torch.linalg.svd(block, full_matrices=False)
        block = vh[s > 1e-10 * max(float(scale), 1e-12 * top)]
        scale = scale.new_ones(())
    return block


def _largest(values: Tensor) -> float:
    top = float(values.max())
    if not top > 0:
        raise InputError("operator to diagnose", expected="one that is not zero", got="zero")
    return top


def _require_finite(held: Tensor) -> None:
    if not bool(torch.isfinite(held).all()):
        raise InputError("operator to diagnose", expected="finite products", got="inf or nan")
