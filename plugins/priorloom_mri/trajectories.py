"""Trajectories: points k in cycles per pixel, float64 ``[..., axes]``, each component in [-0.5, 0.5].

The components are in the order of the image's axes, so in 2D k = (along the rows, along the columns).
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from priorloom.errors import InputError
from priorloom.memory import require_memory

Ordering = Literal["uniform", "golden"]

GOLDEN_ANGLE = math.pi * (math.sqrt(5) - 1) / 2
"""111.25 degrees: any number of successive spokes covers the half circle almost evenly."""

SAMPLE_LIMIT = 2**28

FINE = 8
"""Points per sample on which the length of a spiral is inverted."""


def radial(spokes: int, readout: int, ordering: Ordering = "uniform") -> Tensor:
    """Straight spokes through the centre of k-space, ``[spokes, readout, 2]``.

    Sample j of a spoke is at the signed radius ``(j - readout // 2) / readout``; twice as many samples as the image
    has pixels along an axis sample the diameter twice as densely as the field of view asks for, as scanners do.

    Parameters
    ----------
    spokes, readout
        Their number, and samples of each.
    ordering
        Angles "uniform" over the half circle, or each the "golden" angle after the one before (Winkelmann et al., IEEE
        Transactions on Medical Imaging 26, 2007). Spoke 0 runs along the columns.
    """
    _check("spokes and readout", spokes, readout)
    turns = torch.arange(spokes, dtype=torch.float64)
    angle = turns * (math.pi / spokes if ordering == "uniform" else GOLDEN_ANGLE)
    direction = torch.stack([angle.sin(), angle.cos()], dim=-1)
    return _radii(readout)[:, None] * direction[:, None]


def spiral(interleaves: int, readout: int, turns: float) -> Tensor:
    """Interleaved Archimedean spirals from the centre out, ``[interleaves, readout, 2]``.

    Radius ``0.5 t`` at the angle ``2 pi (turns t + interleaf / interleaves)``, t in [0, 1], with samples equally far
    apart along the curve.

    Parameters
    ----------
    interleaves, readout
        Their number, and samples of each.
    turns
        Of each interleaf. Neighbouring turns are ``0.5 / (turns interleaves)`` apart; images of n pixels need 1 / n.
    """
    if not 0 < turns < math.inf:
        raise InputError("turns of a spiral", expected="a positive number", got=turns)
    _check("interleaves and readout", interleaves, readout)
    fine = np.linspace(0, 1, FINE * readout + 1)
    t = torch.from_numpy(np.interp(np.linspace(0, 1, readout), arc_length(fine, turns) / arc_length(1.0, turns), fine))
    start = torch.arange(interleaves, dtype=torch.float64)[:, None] / interleaves
    angle = 2 * math.pi * (turns * t + start)
    return 0.5 * t[:, None] * torch.stack([angle.sin(), angle.cos()], dim=-1)


def arc_length(t: Any, turns: float) -> Any:
    """Length of the spiral of radius ``0.5 t`` and angle ``2 pi turns t`` from its centre to t, in cycles per pixel."""
    angle = 2 * math.pi * turns * t
    return 0.25 / (2 * math.pi * turns) * (angle * np.hypot(1, angle) + np.arcsinh(angle))


def stack_of_stars(partitions: int, spokes: int, readout: int, ordering: Ordering = "uniform") -> Tensor:
    """Radial in the plane of the last two axes, Cartesian along the first: ``[partitions, spokes, readout, 3]``.

    Parameters
    ----------
    partitions
        Planes, at ``(j - partitions // 2) / partitions``.
    spokes, readout, ordering
        As for :func:`radial`; the same in every plane.
    """
    _check("partitions, spokes and readout", partitions, spokes, readout)
    star = radial(spokes, readout, ordering)
    planes = _radii(partitions)[:, None, None, None].expand(partitions, spokes, readout, 1)
    return torch.cat([planes, star.expand(partitions, *star.shape)], dim=-1)


def kooshball(spokes: int, readout: int) -> Tensor:
    """Straight spokes through the centre of 3D k-space, ``[spokes, readout, 3]``.

    Their directions spread evenly over the half sphere: equal steps in height along the first axis, golden steps in
    azimuth.
    """
    _check("spokes and readout", spokes, readout)
    index = torch.arange(spokes, dtype=torch.float64)
    height = 1 - (index + 0.5) / spokes
    across, azimuth = (1 - height.square()).sqrt(), index * math.pi * (3 - math.sqrt(5))
    direction = torch.stack([height, across * azimuth.sin(), across * azimuth.cos()], dim=-1)
    return _radii(readout)[:, None] * direction[:, None]


def _radii(readout: int) -> Tensor:
    return (torch.arange(readout, dtype=torch.float64) - readout // 2) / readout


def _check(what: str, *counts: int) -> None:
    samples = math.prod(counts)
    if min(counts) < 1 or samples > SAMPLE_LIMIT:
        raise InputError(f"{what} of a trajectory", expected=f"positive, at most {SAMPLE_LIMIT} samples", got=counts)
    # Three components and what they are made of; five arrays on the fine grid of a spiral.
    needed = 64 * samples + 40 * FINE * counts[-1]
    require_memory(f"a trajectory of {' x '.join(map(str, counts))} samples", needed, "take fewer")
