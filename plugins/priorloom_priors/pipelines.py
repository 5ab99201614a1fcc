"""Methods for every modality: total variation by PDHG, and plug-and-play ADMM.

An unset strength is chosen from the noise, in the dimensionless units that `tv_pdhg` and `pnp_admm` state.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from priorloom import Case, Pipeline, PnP, Problem
from priorloom.errors import InputError
from priorloom.pipeline import Assembly, Slot, Solver, backprojected_noise, least_squares, regularised
from priorloom.steps import ADMM, PDHG

from .functionals import Box

WEIGHT = 0.5
STRENGTH = 2.5
"""Set once, from the mean PSNR on a grid. The tuning images: chest slices of LIDC-IDRI and head slices at 60 views and
1e5 photons; two of Kellman's complex images and a head with synthetic phase, 8 coils, R = 4, random and
variable-density masks. All 128 x 128, none of them a case that `compare` reports."""

NOISE_FLOOR = 1e-3
"""The automatic strengths take the noise as at least this fraction of the root mean square of the measurement."""

TV, CHAMBOLLE = Slot("prior", "tv"), Slot("denoiser", "tv-chambolle")
SOLVER = Solver(max_iterations=5000)
PNP_SOLVER = Solver(max_iterations=500, tolerance=5e-4)
"""A denoiser that iterates inside is itself only accurate to about 1e-3, which bounds the residual from below."""


def tv_pdhg() -> Pipeline:
    """Total variation, or any convex prior in its slot, by the primal-dual hybrid gradient method.

    ``min_x 0.5 |Ax - y|^2 + lam TV(x)``, with ``x >= 0`` for real images. An unset ``prior.lam`` becomes ``WEIGHT``
    times the standard deviation of ``A^H e`` per pixel (``priorloom.pipeline.backprojected_noise``).

    References
    ----------
    Chambolle and Pock (2011), J. Math. Imaging Vis. 40, 120-145.
    """
    return Pipeline("tv-pdhg", "classical", "0.5 |Ax - y|^2 + lam TV(x), x >= 0 where real, by PDHG", _tv_pdhg)


def pnp_admm() -> Pipeline:
    """Plug-and-play ADMM: a denoiser in the place of the prior's prox.

    An unset `sigma` is ``STRENGTH s`` where s is the noise in the image, ``s = noise_std sqrt(pixels) / |A|_F``. An
    unset `rho` is ``noise_std^2 / sigma^2``, the Bayesian reading: the data are trusted by their noise, the
    denoised image by sigma.

    References
    ----------
    Venkatakrishnan, Bouman and Wohlberg (2013), Plug-and-play priors for model based reconstruction.
    """
    return Pipeline("pnp-admm", "pnp", "0.5 |Ax - y|^2 with a denoiser for the prior, by ADMM", _pnp_admm)


def _tv_pdhg(case: Case, *, prior: Slot = TV, nonnegative: bool = True, solver: Solver = SOLVER) -> Assembly:
    """The problem and PDHG.

    Parameters
    ----------
    nonnegative
        Whether real images are constrained to ``x >= 0``; complex images have no sign.
    """
    space = case.operator.domain
    constraint = Box(space) if nonnegative and not space.is_complex else None
    lam = WEIGHT * backprojected_noise(_with_noise(case))
    assembly = regularised(case, PDHG(), prior, lam, solver, constraint=constraint)
    used = {"nonnegative": constraint is not None}
    return replace(assembly, parameters={**assembly.parameters, **used})


def _pnp_admm(
    case: Case,
    *,
    denoiser: Slot = CHAMBOLLE,
    sigma: float | None = None,
    rho: float | None = None,
    solver: Solver = PNP_SOLVER,
) -> Assembly:
    """The plug-and-play problem and ADMM.

    Parameters
    ----------
    sigma
        Strength of the denoiser: the standard deviation of the noise it removes, in units of the normalised image.
    rho
        ADMM's penalty, which weighs the denoised image against the data.
    """
    A = case.operator
    noisy = _with_noise(case)
    noise = noisy.noise_std or 1.0
    chosen: dict[str, Any] = {}
    if sigma is None:
        chosen["sigma"] = sigma = STRENGTH * noise**2 / backprojected_noise(noisy)
    prior = PnP(A.domain, denoiser.build(A.domain), sigma)
    if rho is None:
        chosen["rho"] = rho = noise**2 / sigma**2
    if not rho > 0:
        raise InputError("rho", expected="a positive number", got=rho)
    problem = Problem(least_squares(case), prior)
    return Assembly(problem, ADMM(rho=rho), solver=solver, parameters=chosen, certificate="empirical")


def _with_noise(case: Case) -> Case:
    """The case with its noise level raised to ``NOISE_FLOOR``, below which the automatic strengths would vanish."""
    y = case.measurement
    floor = NOISE_FLOOR * float(y.abs().square().mean().sqrt())
    if not floor > 0:
        raise InputError(f"measurement of case '{case.name}'", expected="some signal", got="zeros everywhere")
    return replace(case, noise_std=max(case.noise_std or 0.0, floor))
