"""Methods for every modality with a convex prior: total variation by PDHG.

An unset strength is chosen from the noise, in the dimensionless units that `tv_pdhg` states.
"""

from __future__ import annotations

from dataclasses import replace

from priorloom import Case, Pipeline
from priorloom.errors import InputError
from priorloom.pipeline import AROUND, Assembly, Slot, Solver, backprojected_noise, regularised
from priorloom.steps import PDHG

from .functionals import Box

WEIGHT = 0.5
"""Set once, from the mean PSNR on a grid. The tuning images: chest slices of LIDC-IDRI and head slices at 60 views and
1e5 photons; two of Kellman's complex images and a head with synthetic phase, 8 coils, R = 4, random and
variable-density masks. All 128 x 128, none of them a case that `compare` reports."""

NOISE_FLOOR = 1e-3
"""The automatic strengths take the noise as at least this fraction of the root mean square of the measurement."""

TV = Slot("prior", "tv")
SOLVER = Solver(max_iterations=5000)


def tv_pdhg() -> Pipeline:
    """Total variation, or any convex prior in its slot, by the primal-dual hybrid gradient method.

    ``min_x 0.5 |Ax - y|^2 + lam TV(x)``, with ``x >= 0`` for real images. An unset ``prior.lam`` becomes ``WEIGHT``
    times the standard deviation of ``A^H e`` per pixel (``priorloom.pipeline.backprojected_noise``).

    References
    ----------
    Chambolle and Pock (2011), J. Math. Imaging Vis. 40, 120-145.
    """
    return Pipeline(
        "tv-pdhg",
        "classical",
        "0.5 |Ax - y|^2 + lam TV(x), x >= 0 where real, by PDHG",
        _tv_pdhg,
        search={"prior.lam": AROUND},
    )


def _tv_pdhg(case: Case, *, prior: Slot = TV, nonnegative: bool = True, solver: Solver = SOLVER) -> Assembly:
    """The problem and PDHG.

    Parameters
    ----------
    nonnegative
        Whether real images are constrained to ``x >= 0``; complex images have no sign.
    """
    space = case.operator.domain
    constraint = Box(space) if nonnegative and not space.is_complex else None
    lam = WEIGHT * backprojected_noise(with_noise(case))
    assembly = regularised(case, PDHG(), prior, lam, solver, constraint=constraint)
    used = {"nonnegative": constraint is not None}
    return replace(assembly, parameters={**assembly.parameters, **used})


def with_noise(case: Case) -> Case:
    """The case with its noise level raised to ``NOISE_FLOOR``, below which the automatic strengths would vanish."""
    y = case.measurement
    floor = NOISE_FLOOR * float(y.abs().square().mean().sqrt())
    if not floor > 0:
        raise InputError(f"measurement of case '{case.name}'", expected="some signal", got="zeros everywhere")
    return replace(case, noise_std=max(case.noise_std or 0.0, floor))
