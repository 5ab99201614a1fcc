"""A ball of known attenuation in 3D: its voxel image and its exact line integrals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import odl
import odl.applications.tomo as tomo
import torch
from torch import Tensor

from priorloom_ct.geometry3d import ConeGeometry

SAMPLES = 4  # per voxel and direction


def odl_geometry(geometry: ConeGeometry) -> Any:
    """The same scan in ODL, whose angles rise and whose detector has its columns first."""
    plane = geometry.plane
    angles = geometry.angles
    half = plane.detectors * plane.detector_pitch / 2, geometry.detector_rows * geometry.row_pitch / 2
    low = [-half[0] - plane.offset, -half[1] - geometry.row_offset]
    high = [half[0] - plane.offset, half[1] - geometry.row_offset]
    return tomo.ConeBeamGeometry(
        odl.nonuniform_partition(angles, min_pt=angles[0] - 1e-3, max_pt=angles[-1] + 1e-3),
        odl.uniform_partition(low, high, (plane.detectors, geometry.detector_rows)),
        plane.source_to_axis, plane.axis_to_detector, pitch=geometry.pitch, offset_along_axis=geometry.start_z,
        check_bounds=False,
    )  # fmt: skip


def odl_rays(geometry: ConeGeometry) -> tuple[np.ndarray, np.ndarray]:
    """Source and detector element of every ray in mm, each ``[views, detector rows, detector columns, 3]``."""
    scan, angles = odl_geometry(geometry), geometry.angles
    u, v = scan.det_partition.coord_vectors
    shape = geometry.range_shape
    sources = np.broadcast_to(scan.src_position(angles)[:, None, None], (*shape, 3))
    centre, axes = scan.det_refpoint(angles), scan.det_axes(angles)
    elements = (
        centre[:, None, None]
        + u[None, None, :, None] * axes[:, None, None, 0]
        + v[None, :, None, None] * axes[:, None, None, 1]
    )
    return sources, elements


@dataclass(frozen=True)
class Ball:
    """Radius and centre (x, y, z) in mm, attenuation in 1/mm."""

    radius: float = 15.0
    centre: tuple[float, float, float] = (4.0, -6.0, 3.0)
    mu: float = 0.02

    def distances(self, geometry: ConeGeometry, samples: int = 1) -> np.ndarray:
        """Distance of the voxels (or finer samples) from the centre."""
        axes = []
        for count, step in zip(
            geometry.image_shape,
            (geometry.slice_thickness, geometry.plane.pixel_size, geometry.plane.pixel_size),
            strict=True,
        ):
            axes.append((np.arange(count * samples) - (count * samples - 1) / 2) * step / samples)
        z, y, x = np.meshgrid(axes[0], -axes[1], axes[2], indexing="ij", sparse=True)
        cx, cy, cz = self.centre
        return np.sqrt((x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2)

    def image(self, geometry: ConeGeometry) -> Tensor:
        """Averages over the voxels, ``[slices, rows, columns]``."""
        inside = self.distances(geometry, SAMPLES) <= self.radius
        slices, rows, columns = geometry.image_shape
        blocks = inside.reshape(slices, SAMPLES, rows, SAMPLES, columns, SAMPLES)
        return torch.from_numpy(self.mu * blocks.mean(axis=(1, 3, 5))).float()

    def gaussian(self, geometry: ConeGeometry) -> tuple[Tensor, Tensor]:
        """``mu exp(-d^2 / (2 s^2))`` around the centre with s = radius / 2, at the voxels, and its line integrals."""
        width = self.radius / 2
        image = self.mu * np.exp(-((self.distances(geometry) / width) ** 2) / 2)
        integrals = self.mu * width * math.sqrt(2 * math.pi) * np.exp(-self._squared_distances(geometry) / width**2 / 2)
        return torch.from_numpy(image).float(), torch.from_numpy(integrals).float()

    def line_integrals(self, geometry: ConeGeometry) -> Tensor:
        """``2 mu sqrt(r^2 - d^2)`` along the rays of ODL's geometry, with d their distance from the centre."""
        inside = np.clip(self.radius**2 - self._squared_distances(geometry), 0, None)
        return torch.from_numpy(2 * self.mu * np.sqrt(inside)).float()

    def _squared_distances(self, geometry: ConeGeometry) -> np.ndarray:
        sources, elements = odl_rays(geometry)
        along = elements - sources
        along /= np.linalg.norm(along, axis=-1, keepdims=True)
        to_centre = np.asarray(self.centre) - sources
        return (to_centre**2).sum(-1) - (to_centre * along).sum(-1) ** 2


def box_integrals(geometry: ConeGeometry, low: np.ndarray, high: np.ndarray, mu: float) -> Tensor:
    """Attenuation times the length of every ray inside of a box with the corners `low` and `high` (x, y, z)."""
    sources, elements = odl_rays(geometry)
    along = elements - sources
    with np.errstate(divide="ignore"):
        one, other = (low - sources) / along, (high - sources) / along
    enter, leave = np.minimum(one, other).max(-1), np.maximum(one, other).min(-1)
    lengths = np.clip(leave - enter, 0, None) * np.linalg.norm(along, axis=-1)
    assert math.isfinite(float(lengths.max()))
    return torch.from_numpy(mu * lengths).float()
