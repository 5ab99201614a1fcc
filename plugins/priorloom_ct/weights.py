"""ASTRA's projection weights as a sparse matrix."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy.sparse

from .backends import backend
from .geometry import FloatArray, Geometry

_RAYS_PER_BLOCK = 8192  # ASTRA reserves the longest possible row for every ray of a block, so blocks bound its memory


def expected_weights(geometry: Geometry, views: int) -> int:
    """About how many weights are not zero.

    The rays of one view cover the image with ``area / pitch`` of total length. Joseph's kernel makes two weights per
    row (or column) that a ray crosses, ``8 sqrt(2) / (2 pi) = 1.80`` per pixel length on average over the angles;
    intersection lengths make ``4 / pi = 1.27``.
    """
    rows, columns = geometry.image_shape
    per_length = 4 * math.sqrt(2) / math.pi if geometry.is_parallel else 4 / math.pi
    rays_per_pixel = geometry.pixel_size * geometry.magnification / geometry.detector_pitch
    longest = 2.0 * (rows + columns) * geometry.detectors
    return math.ceil(views * min(per_length * rays_per_pixel * rows * columns, longest))


def ray_weights(geometry: Geometry, angles_deg: tuple[float, ...]) -> Any:
    """Weights in mm of the scan's rays at `angles_deg`: float32 CSR ``[views * detectors, rows * columns]``."""
    astra = backend("astra", "the ray transform")
    rows, columns = geometry.image_shape
    half_width, half_height = columns * geometry.pixel_size / 2, rows * geometry.pixel_size / 2
    volume = astra.create_vol_geom(rows, columns, -half_width, half_width, -half_height, half_height)
    vectors = astra_vectors(geometry, np.deg2rad(angles_deg))
    per_block = max(1, _RAYS_PER_BLOCK // geometry.detectors)
    blocks = [
        _block(astra, geometry, volume, vectors[first : first + per_block])
        for first in range(0, len(vectors), per_block)
    ]
    return scipy.sparse.vstack(blocks, format="csr") if len(blocks) > 1 else blocks[0]


def astra_vectors(geometry: Geometry, angles: FloatArray) -> FloatArray:
    """ASTRA's ``parallel_vec`` (ray, detector centre, element) or ``fanflat_vec`` (source, ...), ``[views, 6]``.

    The vectors come from ODL's geometry. ODL's own translation to ASTRA (odl 1.0) drops the offset of a parallel
    detector, so it is not used.
    """
    scan = geometry.to_odl()
    angles = np.atleast_1d(angles)
    beam = -scan.det_to_src(angles, 0.0) if geometry.is_parallel else scan.src_position(angles)
    centre = scan.det_point_position(angles, -geometry.offset)
    element = scan.det_axis(angles) * geometry.detector_pitch
    return np.concatenate([np.reshape(v, (len(angles), 2)) for v in (beam, centre, element)], axis=1)


def _block(astra: Any, geometry: Geometry, volume: Any, vectors: FloatArray) -> Any:
    kind, kernel = ("parallel_vec", "linear") if geometry.is_parallel else ("fanflat_vec", "line_fanflat")
    projection = astra.create_proj_geom(kind, geometry.detectors, vectors)
    projector = astra.create_projector(kernel, projection, volume)
    try:
        handle = astra.projector.matrix(projector)
        try:
            block = astra.matrix.get(handle).astype(np.float32)
        finally:
            astra.matrix.delete(handle)
    finally:
        astra.projector.delete(projector)
    block.eliminate_zeros()
    block.sort_indices()
    return block
