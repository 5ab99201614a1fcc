"""Phantoms in attenuation units (1/mm): Shepp-Logan, random ellipses, foam. Same generator state, same image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from priorloom.errors import InputError

from .geometry import FloatArray
from .simulate import MU_WATER

OVERSAMPLING = 4
"""Samples per pixel and direction: edges are area averages, not stairs."""


@dataclass(frozen=True)
class Ellipse:
    """An ellipse in coordinates where the image is ``[-1, 1]^2`` (longer side), y up.

    Parameters
    ----------
    value
        What it adds to the image.
    semi_axes, centre
        (x, y) pairs.
    angle_deg
        Counter-clockwise rotation.
    """

    value: float
    semi_axes: tuple[float, float]
    centre: tuple[float, float]
    angle_deg: float = 0.0


# Toft, The Radon Transform, PhD thesis, DTU 1996, table B.1: the contrast-enhanced head of Shepp and Logan (1974).
_HEAD = (
    Ellipse(1.0, (0.69, 0.92), (0.0, 0.0)),
    Ellipse(-0.8, (0.6624, 0.874), (0.0, -0.0184)),
    Ellipse(-0.2, (0.11, 0.31), (0.22, 0.0), -18.0),
    Ellipse(-0.2, (0.16, 0.41), (-0.22, 0.0), 18.0),
    Ellipse(0.1, (0.21, 0.25), (0.0, 0.35)),
    Ellipse(0.1, (0.046, 0.046), (0.0, 0.1)),
    Ellipse(0.1, (0.046, 0.046), (0.0, -0.1)),
    Ellipse(0.1, (0.046, 0.023), (-0.08, -0.605)),
    Ellipse(0.1, (0.023, 0.023), (0.0, -0.606)),
    Ellipse(0.1, (0.023, 0.046), (0.06, -0.605)),
)


def shepp_logan(image_shape: tuple[int, int], peak: float = 2 * MU_WATER) -> Tensor:
    """The modified Shepp-Logan head, ``[rows, columns]``.

    Parameters
    ----------
    image_shape
        Rows and columns.
    peak
        Attenuation of the skull in 1/mm; the brain has a fifth of it.
    """
    return peak * ellipses(image_shape, _HEAD)


def adler_shepp_logan(image_shape: tuple[int, int]) -> Tensor:
    """The modified Shepp-Logan head as Adler and Oktem evaluate on it: the skull is water, pixels are samples."""
    return MU_WATER * sampled_ellipses(image_shape, _HEAD)


def adler_ellipses(image_shape: tuple[int, int], generator: torch.Generator, mean_count: int = 50) -> Tensor:
    """Random ellipses as Adler and Oktem (IEEE Trans. Med. Imaging 37, 2018) and their published code train on them.

    Their number is Poisson distributed, centres are uniform in the square, semi-axes exponential with mean 0.2; a value
    is a uniform number in [-0.5, 0.5] times an exponential one with mean 0.4, times water. The sum is not clipped, so
    it has negative parts.

    Parameters
    ----------
    image_shape
        Rows and columns.
    generator
        Source of randomness.
    mean_count
        Mean number of ellipses.
    """
    count = int(torch.poisson(torch.tensor(float(mean_count)), generator=generator))
    u = torch.rand(count, 7, dtype=torch.float64, generator=generator).numpy()
    values = (u[:, 0] - 0.5) * -0.4 * np.log1p(-u[:, 1])
    # An axis of zero would divide by zero; far below a pixel it covers none.
    axes = np.maximum(-0.2 * np.log1p(-u[:, 2:4]), 1e-6)
    centres = 2 * u[:, 4:6] - 1
    members = [
        Ellipse(float(v), (float(a[0]), float(a[1])), (float(c[0]), float(c[1])), float(360 * turn))
        for v, a, c, turn in zip(values, axes, centres, u[:, 6], strict=True)
    ]
    return MU_WATER * sampled_ellipses(image_shape, members)


def random_ellipses(image_shape: tuple[int, int], generator: torch.Generator, mean_count: int = 40) -> Tensor:
    """A sum of random ellipses, clipped at zero, in the manner of Adler and Oktem (IEEE Trans. Med. Imaging 37, 2018).

    Their number is Poisson distributed, positions are uniform in the inscribed disc, semi-axes exponential with a
    small mean, values uniform in [-0.4, 1] times water.

    Parameters
    ----------
    image_shape
        Rows and columns.
    generator
        Source of randomness.
    mean_count
        Mean number of ellipses.
    """
    if mean_count < 1:
        raise InputError("mean_count of random ellipses", expected="at least 1", got=mean_count)
    count = max(1, int(torch.poisson(torch.tensor(float(mean_count)), generator=generator)))
    u = torch.rand(count, 6, dtype=torch.float64, generator=generator).numpy()
    radius, direction = 0.75 * np.sqrt(u[:, 0]), 2 * math.pi * u[:, 1]
    axes = np.clip(-0.2 * np.log1p(-u[:, 2:4]), 0.02, 0.5)
    members = [
        Ellipse(
            float(1.4 * u[i, 4] - 0.4),
            (float(axes[i, 0]), float(axes[i, 1])),
            (float(radius[i] * math.cos(direction[i])), float(radius[i] * math.sin(direction[i]))),
            float(180 * u[i, 5]),
        )
        for i in range(count)
    ]
    return MU_WATER * ellipses(image_shape, members).clamp_min(0)


def foam(image_shape: tuple[int, int], generator: torch.Generator, voids: int = 100, radius: float = 0.16) -> Tensor:
    """A disc of water with circular voids that do not overlap, large ones first.

    After the foam of Pelt, Hendriksen and Batenburg (J. Synchrotron Rad. 29, 2022): positions are tried at random,
    and a void is as large as its neighbours, the disc and `radius` allow.

    Parameters
    ----------
    image_shape
        Rows and columns.
    generator
        Source of randomness.
    voids
        Number of voids.
    radius
        Largest radius of a void; the disc has radius 0.9, the longer side of the image is 2.
    """
    if voids < 1 or not 0 < radius < 0.9:
        raise InputError("foam", expected="at least one void of a radius in (0, 0.9)", got=f"{voids}, {radius}")
    disc, smallest = 0.9, 2.0 / max(image_shape)
    centres, radii = np.empty((0, 2)), np.empty(0)
    for _ in range(voids):
        u = torch.rand(500, 2, dtype=torch.float64, generator=generator).numpy()
        r, a = disc * np.sqrt(u[:, 0]), 2 * math.pi * u[:, 1]
        tries = np.stack([r * np.cos(a), r * np.sin(a)], axis=1)
        room = np.minimum(disc - r, radius)
        if len(radii):
            apart = np.linalg.norm(tries[:, None] - centres, axis=2) - radii
            room = np.minimum(room, apart.min(axis=1))
        # A wall of a tenth of the radius stays between voids.
        best = int(np.argmax(room))
        if room[best] < smallest:
            break
        centres, radii = np.vstack([centres, tries[best]]), np.append(radii, 0.9 * room[best])
    body = [Ellipse(1.0, (disc, disc), (0.0, 0.0))]
    holes = [
        Ellipse(-1.0, (float(q), float(q)), (float(c[0]), float(c[1]))) for c, q in zip(centres, radii, strict=True)
    ]
    return MU_WATER * ellipses(image_shape, [*body, *holes]).clamp_min(0)


def ellipses(image_shape: tuple[int, int], members: Sequence[Ellipse]) -> Tensor:
    """The sum of the ellipses' values, averaged over every pixel, ``[rows, columns]``."""
    rows, columns = image_shape
    half = max(rows, columns) * OVERSAMPLING / 2
    x = (np.arange(columns * OVERSAMPLING) + 0.5 - columns * OVERSAMPLING / 2) / half
    y = (rows * OVERSAMPLING / 2 - np.arange(rows * OVERSAMPLING) - 0.5) / half
    blocks = _sum_at(x, y, members).reshape(rows, OVERSAMPLING, columns, OVERSAMPLING)
    return torch.from_numpy(blocks.mean(axis=(1, 3), dtype=np.float64)).float()


def sampled_ellipses(image_shape: tuple[int, int], members: Sequence[Ellipse]) -> Tensor:
    """The sum of the ellipses' values at the pixels' centres, the outermost at -1 and 1, as ODL's phantoms are made."""
    rows, columns = image_shape
    longer = max(rows, columns, 2) - 1
    x, y = (np.arange(n) * 2.0 - (n - 1) for n in (columns, rows))
    return torch.from_numpy(_sum_at(x / longer, -y / longer, members))


def _sum_at(x: FloatArray, y: FloatArray, members: Sequence[Ellipse]) -> npt.NDArray[np.float32]:
    """The sum of the ellipses' values at ascending x and descending y, ``[len(y), len(x)]``."""
    fine = np.zeros((y.size, x.size), np.float32)
    for e in members:
        # Only the square around it is looked at.
        reach = max(e.semi_axes)
        cols = slice(*np.searchsorted(x, (e.centre[0] - reach, e.centre[0] + reach)))
        lines = slice(*np.searchsorted(-y, (-e.centre[1] - reach, -e.centre[1] + reach)))
        dx, dy = x[None, cols] - e.centre[0], y[lines, None] - e.centre[1]
        c, s = math.cos(math.radians(e.angle_deg)), math.sin(math.radians(e.angle_deg))
        inside = ((dx * c + dy * s) / e.semi_axes[0]) ** 2 + ((dy * c - dx * s) / e.semi_axes[1]) ** 2 <= 1
        fine[lines, cols] += e.value * inside
    return fine
