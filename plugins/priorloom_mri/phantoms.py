"""Complex MRI phantoms."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from priorloom.errors import InputError

# Amplitude, semi-axes, centre (x, y), rotation in degrees; on [-1, 1]^2 with y up.
_ELLIPSES = (
    (1.0, 0.69, 0.92, 0.0, 0.0, 0.0),
    (-0.8, 0.6624, 0.874, 0.0, -0.0184, 0.0),
    (-0.2, 0.11, 0.31, 0.22, 0.0, -18.0),
    (-0.2, 0.16, 0.41, -0.22, 0.0, 18.0),
    (0.1, 0.21, 0.25, 0.0, 0.35, 0.0),
    (0.1, 0.046, 0.046, 0.0, 0.1, 0.0),
    (0.1, 0.046, 0.046, 0.0, -0.1, 0.0),
    (0.1, 0.046, 0.023, -0.08, -0.605, 0.0),
    (0.1, 0.023, 0.023, 0.0, -0.606, 0.0),
    (0.1, 0.023, 0.046, 0.06, -0.605, 0.0),
)


def shepp_logan(image_shape: tuple[int, int], supersampling: int = 4) -> Tensor:
    """The modified Shepp-Logan head, float32 ``[rows, columns]`` in [0, 1], the nose up.

    Pixels average `supersampling` squared points, so that edges have partial volume as in a scan.

    References
    ----------
    Toft. The Radon transform: theory and implementation. PhD thesis, DTU, 1996, table B.3.
    """
    if min(image_shape) < 1 or supersampling < 1:
        raise InputError("shape of the phantom", expected="positive sizes", got=image_shape)
    rows, columns = (n * supersampling for n in image_shape)
    y = 1 - (2 * torch.arange(rows, dtype=torch.float64) + 1) / rows
    x = (2 * torch.arange(columns, dtype=torch.float64) + 1) / columns - 1
    image = torch.zeros(rows, columns, dtype=torch.float64)
    for amplitude, a, b, x0, y0, degrees in _ELLIPSES:
        c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        u, v = x - x0, (y - y0)[:, None]
        image[((c * u + s * v) / a) ** 2 + ((c * v - s * u) / b) ** 2 <= 1] += amplitude
    pooled = image.reshape(image_shape[0], supersampling, image_shape[1], supersampling).mean((1, 3))
    return pooled.clamp_min(0).float()


def smooth_phase(image_shape: tuple[int, int], generator: torch.Generator, radians: float = math.pi / 2) -> Tensor:
    """A random quadratic phase, float32 ``[rows, columns]``, of at most `radians`, as field and coils give a scan."""
    y, x = (torch.linspace(-1, 1, n) for n in image_shape)
    y = y[:, None]
    basis = torch.stack([p.expand(image_shape) for p in (torch.ones(1, 1), x[None], y, x * y, x[None] ** 2, y**2)])
    phase = (torch.randn(len(basis), 1, 1, generator=generator) * basis).sum(0)
    return phase * (radians / phase.abs().max())


def as_scanned(magnitude: Tensor, generator: torch.Generator) -> Tensor:
    """A magnitude as an image with the phases of a scan, complex64 ``[rows, columns]``.

    The phase is a constant anywhere on the circle, a quadratic (`smooth_phase`), and variations over an eighth and a
    thirtieth of the image (field inhomogeneities, standard deviations of up to 0.5 and 0.4 radians). What is brighter
    than a random level is fat: shifted by up to two pixels, and turned by up to a right angle (chemical shift).
    """

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    shape = (magnitude.shape[-2], magnitude.shape[-1])
    phase = smooth_phase(shape, generator) + uniform(0, 2 * math.pi)
    for cells, strength in ((8, 0.5), (30, 0.4)):
        coarse = torch.randn(1, 1, cells, cells, generator=generator)
        fine = torch.nn.functional.interpolate(coarse, size=shape, mode="bicubic")[0, 0]
        phase = phase + uniform(0, strength) * fine
    fat = (magnitude - uniform(0.3, 0.9) * magnitude.max()).clamp_min(0)
    water = magnitude.clamp_min(0) - fat
    shift = round(uniform(-2, 2))
    return torch.polar(water, phase) + torch.polar(fat.roll(shift, -1), phase + uniform(-math.pi / 2, math.pi / 2))


def phantom(image_shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    """The Shepp-Logan head with a smooth phase, complex64 ``[rows, columns]``."""
    magnitude = shepp_logan(image_shape)
    return torch.polar(magnitude, smooth_phase(image_shape, generator))
