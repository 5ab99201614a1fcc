"""Pixel-driven backprojection as a matrix."""

from __future__ import annotations

import math

import numpy as np
import scipy.sparse

from .geometry import Geometry


def interpolation(geometry: Geometry, angles_deg: tuple[float, ...]) -> scipy.sparse.csr_matrix:
    """``[views * detectors, pixels]``: two weights for every pixel and view, the transpose of backprojection."""
    x, y = (c.ravel() for c in np.meshgrid(geometry.x, geometry.y))
    views, detectors = len(angles_deg), geometry.detectors
    columns = np.empty((x.size, views, 2), np.int32)
    values = np.empty((x.size, views, 2), np.float32)
    pitch = geometry.detector_pitch / geometry.magnification
    first = geometry.detector_positions[0] / geometry.magnification
    for v, a in enumerate(np.deg2rad(angles_deg)):
        shrink = 1 / (1 + (y * math.cos(a) - x * math.sin(a)) / geometry.source_to_axis)
        place = ((x * math.cos(a) + y * math.sin(a)) * shrink - first) / pitch
        left = np.floor(place)
        share = place - left
        for side, (element, weight) in enumerate(((left, 1 - share), (left + 1, share))):
            inside = (element >= 0) & (element < detectors)
            columns[:, v, side] = v * detectors + np.where(inside, element, 0)
            values[:, v, side] = np.where(inside, weight * shrink**2, 0)
    starts = np.arange(x.size + 1, dtype=np.int64) * (2 * views)
    pixels = scipy.sparse.csr_matrix((values.ravel(), columns.ravel(), starts), shape=(x.size, views * detectors))
    return pixels.T.tocsr()
