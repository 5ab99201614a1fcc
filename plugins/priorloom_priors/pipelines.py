"""Methods for every modality: total variation by PDHG, and plug-and-play ADMM.

An unset strength is chosen from the noise in the dimensionless units that the functions state. The constants were set
once, by the mean PSNR over tuning images (see ``WEIGHT`` and ``BLUR``), never on a case that ``compare`` reports.
"""

from __future__ import annotations

import inspect
from typing import Any

from priorloom import Case, Functional, Pipeline, Problem, Term
from priorloom.errors import InputError
from priorloom.operator import Identity
from priorloom.pipeline import Assembly, Slot, Solver, backprojected_noise, least_squares
from priorloom.steps import ADMM, PDHG

from .functionals import Box

WEIGHT = 1.0
BLUR = 4.0


def tv_pdhg() -> Pipeline:
    """Total variation (or any convex prior) by the primal-dual hybrid gradient method."""
    return Pipeline("tv-pdhg", "classical", "0.5 |Ax - y|^2 + lam TV(x), x >= 0 where real, by PDHG", _tv_pdhg)


def pnp_admm() -> Pipeline:
    """Plug-and-play ADMM with a denoiser in the prior's place."""
    return Pipeline("pnp-admm", "pnp", "0.5 |Ax - y|^2 with a denoiser as prior, by ADMM", _pnp_admm)
