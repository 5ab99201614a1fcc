"""A disc of known attenuation: its pixel image and its exact line integrals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from priorloom_ct.geometry import Geometry

SAMPLES = 8  # per pixel and direction


@dataclass(frozen=True)
class Disc:
    """Radius and centre in mm, attenuation in 1/mm."""

    radius: float = 22.0
    x: float = 8.0
    y: float = -11.0
    mu: float = 0.02

    def distances(self, geometry: Geometry) -> np.ndarray:
        """Distance of the pixel centres from the disc's centre."""
        rows, columns = geometry.image_shape
        x = (np.arange(columns) - (columns - 1) / 2) * geometry.pixel_size
        y = ((rows - 1) / 2 - np.arange(rows)) * geometry.pixel_size
        return np.hypot(x[None] - self.x, y[:, None] - self.y)

    def image(self, geometry: Geometry) -> Tensor:
        """Area averages over the pixels, ``[rows, columns]``."""
        fine = np.array(geometry.image_shape) * SAMPLES
        step = geometry.pixel_size / SAMPLES
        x = (np.arange(fine[1]) - (fine[1] - 1) / 2) * step
        y = ((fine[0] - 1) / 2 - np.arange(fine[0])) * step
        inside = (x[None] - self.x) ** 2 + (y[:, None] - self.y) ** 2 <= self.radius**2
        blocks = inside.reshape(geometry.image_shape[0], SAMPLES, geometry.image_shape[1], SAMPLES)
        return torch.from_numpy(self.mu * blocks.mean(axis=(1, 3))).float()

    def line_integrals(self, geometry: Geometry) -> Tensor:
        """``2 mu sqrt(r^2 - d^2)`` with d the distance of the ray from the centre, ``[views, detectors]``.

        The rays are those of ASTRA's documentation: at angle a, the ``parallel`` ray t meets the points with ``x cos
        a + y sin a = t``; a ``fanflat`` source is at ``D (sin a, -cos a)``, its detector at ``d (-sin a, cos a) + u
        (cos a, sin a)``.
        """
        a = np.deg2rad(geometry.angles_deg)[:, None]
        places = (np.arange(geometry.detectors) - (geometry.detectors - 1) / 2) * geometry.detector_pitch
        u = places[None] - geometry.offset
        if geometry.is_parallel:
            d = u - (self.x * np.cos(a) + self.y * np.sin(a))
        else:
            sx, sy = geometry.source_to_axis * np.sin(a), -geometry.source_to_axis * np.cos(a)
            px = u * np.cos(a) - geometry.axis_to_detector * np.sin(a)
            py = u * np.sin(a) + geometry.axis_to_detector * np.cos(a)
            d = ((self.x - sx) * (py - sy) - (self.y - sy) * (px - sx)) / np.hypot(px - sx, py - sy)
        return torch.from_numpy(2 * self.mu * np.sqrt(np.clip(self.radius**2 - d**2, 0, None))).float()


@pytest.fixture
def disc() -> Disc:
    """A disc off the rotation axis, so that every flip shows."""
    return Disc()


@pytest.fixture
def relative() -> Callable[[Tensor, Tensor], float]:
    """``|a - b| / |b|``."""
    return lambda a, b: float((a - b).norm() / b.norm())
