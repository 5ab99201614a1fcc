"""What the data say about each singular value, and what they cannot say about an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..errors import InputError
from ..functional import LeastSquares, Zero
from ..operator import LinearOperator
from ..problem import Problem, Term
from ..solve import run
from ..steps import CG
from .coordinates import Coordinates, in_double
from .spectrum import Spectrum

ABOVE = 3.0
"""How many standard deviations of the noise a coefficient must exceed to count as signal."""
ITERATIONS, TOLERANCE = 400, 1e-8


@dataclass(frozen=True)
class Picard:
    """Data of the Picard plot (Hansen, 1990).

    Parameters
    ----------
    values, coefficients
        sigma_i and ``|u_i^H y|``, ``[count]``.
    noise_std
        The level at which the coefficients of noise lie; None when unknown.
    above_noise
        How many coefficients are larger than `ABOVE` times the noise; None when that is unknown.
    complete
        Whether these are all values that are not zero.
    """

    values: Tensor
    coefficients: Tensor
    noise_std: float | None
    above_noise: int | None
    complete: bool


def picard(A: LinearOperator, found: Spectrum, y: Tensor, noise_std: float | None = None) -> Picard:
    """``|u_i^H y|`` beside sigma_i: where the coefficients stop falling and stay at the noise, data say nothing more.

    Parameters
    ----------
    A, found
        The operator and its spectrum.
    y
        The measurement, ``A.range.shape``.
    noise_std
        Standard deviation of the noise per entry (complex: of the modulus).
    """
    A.range.check(y, "measurement of the Picard plot")
    flat = Coordinates(A).flat(y[None], A.range)
    coefficients = (flat.to(found.left.device) @ found.left.mH)[0].abs().cpu()
    above = None if noise_std is None else int((coefficients > ABOVE * noise_std).sum())
    return Picard(found.values.cpu(), coefficients, noise_std, above, found.method == "dense")


@dataclass(frozen=True)
class NullShare:
    """How much of an image the operator does not see.

    Parameters
    ----------
    share
        ``|x - A^+ A x|^2 / |x|^2``, from 0 to 1.
    standing
        ``exact`` to rounding, or ``at most``: the iteration has stopped before slow components came.
    iterations
        Of CG; 0 where the singular vectors are known.
    residual
        ``|A^H A (x - x_k)| / |A^H A x|`` at the end.
    """

    share: float
    standing: Literal["exact", "at most"]
    iterations: int
    residual: float


def null_share(A: LinearOperator, found: Spectrum, x: Tensor, *, iterations: int = ITERATIONS) -> NullShare:
    """The share of the energy of an image in the null space of A.

    By the singular vectors where all are known. Else by CG on ``min_z |A z - A x|^2`` from zero, whose iterates tend
    to ``A^+ A x`` with ever smaller error (Hestenes and Stiefel, 1952): ``|x - x_k|^2 / |x|^2`` is never too small.

    Parameters
    ----------
    A, found
        The operator and its spectrum.
    x
        The image, ``A.domain.shape``.
    iterations
        The most of CG.

    Raises
    ------
    InputError
        An image that does not fit, or is zero.
    """
    A.domain.check(x, "image for the null space")
    if not bool(x.isfinite().all()) or not bool(x.abs().max() > 0):
        raise InputError("image for the null space", expected="finite values that are not all zero", got="others")
    if found.method == "dense" and len(found.right) == found.unknowns:
        return NullShare(0.0, "exact", 0, 0.0)
    if found.method == "dense":
        flat = Coordinates(A).flat(x[None], A.domain)
        rest = flat
        for _ in range(2):
            rest = rest - (rest @ found.right.mH) @ found.right
        return NullShare(_squared(rest) / _squared(flat), "exact", 0, 0.0)
    B = in_double(A)
    exact = x.to(B.domain.dtype)
    with torch.no_grad():
        y = B(exact)
        if not bool(y.abs().max() > 0):
            return NullShare(1.0, "exact", 0, 0.0)
        problem = Problem(Term(LeastSquares(B.range, y), B), Zero(B.domain))
        solution = run(CG(), problem, n=iterations, tol=TOLERANCE)
        rest = exact - solution.x
    return NullShare(
        min(_squared(rest) / _squared(exact), 1.0), "at most", solution.iterations, float(solution.residual or 0.0)
    )


def _squared(x: Tensor) -> float:
    return float(x.abs().square().sum())
