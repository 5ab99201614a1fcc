"""Coil sensitivity maps, complex ``[coils, rows, columns]``: simulated, or estimated by Walsh and by ESPIRiT."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from priorloom.errors import InputError


def root_sum_of_squares(images: Tensor) -> Tensor:
    """``sqrt(sum_c |x_c|^2)`` of coil images ``[..., coils, rows, columns]``, real ``[..., rows, columns]``."""
    result: Tensor = torch.linalg.vector_norm(images, dim=-3)
    return result


def birdcage_maps(coils: int, image_shape: tuple[int, int], radius: float = 1.5) -> Tensor:
    """Simulated smooth maps of `coils` line conductors around the image, complex64, with unit root sum of squares.

    A long wire at w has the transverse field ``B1- ~ exp(i phi) / |p - w|`` with phi the angle of p - w; the phases of
    the wires' currents advance once around the ring, as in a birdcage.

    Parameters
    ----------
    coils, image_shape
        Their number, and (rows, columns).
    radius
        Of the ring, in half image widths.
    """
    if coils < 1 or min(image_shape) < 1 or not radius > 0:
        raise InputError("birdcage maps", expected="positive coils, sizes and radius", got=(coils, image_shape, radius))
    y, x = (2 * torch.arange(n, dtype=torch.float64) / n - 1 for n in image_shape)
    angle = (2 * math.pi / coils) * torch.arange(coils, dtype=torch.float64)[:, None, None]
    dx, dy = x - radius * torch.cos(angle), y[:, None] - radius * torch.sin(angle)
    maps = torch.polar(1 / torch.hypot(dx, dy), torch.atan2(dx, -dy) - angle)
    return (maps / root_sum_of_squares(maps)).to(torch.complex64)
