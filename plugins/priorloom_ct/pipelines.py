"""Classical CT methods: filtered backprojection, Tikhonov, CGLS and wavelet-sparse least squares.

The case is normalised (water is 1). An unset ``prior.lam`` is a constant times the backprojected noise
(``priorloom.pipeline.backprojected_noise``). The constants were chosen once, by the mean PSNR of converged solutions on
a grid of five or six values: a Shepp-Logan and a random-ellipses phantom and two chest slices (LIDC-IDRI-0314) of
128 x 128 pixels, in 60 views with 1e4 and 1e5 photons; none of these is a default case. On these eight the constant
costs 0.1 dB on average against the best value of the grid for each.
"""

from __future__ import annotations

from typing import get_args

from priorloom.errors import InputError
from priorloom.modality import Case
from priorloom.pipeline import (
    AROUND,
    Assembly,
    Pipeline,
    Range,
    Slot,
    Solver,
    backprojected_noise,
    direct,
    least_squares,
    regularised,
)
from priorloom.problem import Problem
from priorloom.steps import CG, FISTA, converges

from .fbp import Filter, filtered_backprojection
from .fdk import fdk, remarks
from .operators import RayTransform
from .operators3d import ConeTransform

TIKHONOV, WAVELET = Slot("prior", "tikhonov"), Slot("prior", "wavelet-l1")
SOLVER = Solver()

TIKHONOV_WEIGHT = 2.8
"""Weight of Tikhonov's prior in units of the backprojected noise."""

WAVELET_WEIGHT = 1.2
"""Weight of the wavelet prior in units of the backprojected noise."""


FILTERS: tuple[Filter, ...] = get_args(Filter)


def fbp() -> Pipeline:
    """The direct method."""
    # The filter first: with few photons a soft one at its full width is better than a hard one cut off.
    search: dict[str, Range | tuple[str, ...]] = {"filter": FILTERS, "cutoff": Range(0.1, 1.0)}
    return Pipeline("fbp", "direct", "filtered backprojection", _fbp, ("ct",), search)


def tikhonov() -> Pipeline:
    """Tikhonov regularisation, solved by conjugate gradients."""
    return Pipeline(
        "tikhonov",
        "classical",
        "0.5 |Ax - y|^2 + 0.5 lam |x|^2 by conjugate gradients",
        _tikhonov,
        ("ct",),
        {"prior.lam": AROUND},
    )


def cgls() -> Pipeline:
    """Least squares by conjugate gradients, stopped at the noise level (Morozov's discrepancy principle)."""
    return Pipeline(
        "cgls",
        "classical",
        "0.5 |Ax - y|^2 by conjugate gradients until |Ax - y| is the noise",
        _cgls,
        ("ct",),
        {"discrepancy": Range(0.1, 10.0)},
    )


def wavelet_fista() -> Pipeline:
    """Wavelet-sparse least squares by FISTA."""
    return Pipeline(
        "wavelet-fista",
        "classical",
        "0.5 |Ax - y|^2 + lam |W x|_1 by FISTA",
        _wavelet_fista,
        ("ct",),
        {"prior.lam": AROUND},
    )


def _fbp(case: Case, *, filter: Filter = "ram-lak", cutoff: float = 1.0) -> Assembly:
    """The direct image.

    Parameters
    ----------
    filter
        Window on the ramp; ram-lak is none.
    cutoff
        Where the window ends, as a fraction of the detector's Nyquist frequency, in (0, 1].
    """
    A = case.operator
    if isinstance(A, RayTransform):
        cut_off = A.geometry.truncation()
        image = filtered_backprojection(A, case.measurement, filter, cutoff)
        return direct(case, image, () if cut_off is None else (cut_off,))
    if isinstance(A, ConeTransform):
        return direct(case, fdk(A.backprojection, case.measurement, filter, cutoff), remarks(A.geometry))
    if (filter, cutoff) != ("ram-lak", 1.0):
        raise InputError("filter of fbp", expected="a ct ray transform", got=type(A).__name__, cure="leave it unset")
    return direct(case, A.pseudo_inverse(case.measurement))


def _tikhonov(case: Case, *, prior: Slot = TIKHONOV, solver: Solver = SOLVER) -> Assembly:
    start = case.operator.pseudo_inverse(case.measurement)
    return regularised(case, CG(), prior, TIKHONOV_WEIGHT * backprojected_noise(case), solver, start=start)


def _wavelet_fista(case: Case, *, prior: Slot = WAVELET, solver: Solver = SOLVER) -> Assembly:
    start = case.operator.pseudo_inverse(case.measurement)
    return regularised(case, FISTA(), prior, WAVELET_WEIGHT * backprojected_noise(case), solver, start=start)


def _cgls(case: Case, *, discrepancy: float = 1.0, solver: Solver = SOLVER) -> Assembly:
    """Least squares and CG with its stopping rule.

    Parameters
    ----------
    discrepancy
        Stop when ``|Ax - y|`` is this multiple of the expected noise, ``noise_std sqrt(measurements)``.
    """
    if not discrepancy > 0:
        raise InputError("discrepancy of cgls", expected="a positive multiple of the noise", got=discrepancy)
    assert case.noise_std is not None, "the host fills in noise_std before a pipeline sees a case"
    A = case.operator
    noise = case.noise_std * A.range.size**0.5
    problem = Problem(least_squares(case))
    step = CG(discrepancy * noise if noise > 0 else None)
    return Assembly(problem, step, solver=solver, certificate="certified" if converges(step, problem) else "empirical")
