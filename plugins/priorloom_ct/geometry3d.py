"""Cone-beam scans: where the volume, the source and the detector are.

In the plane of rows and columns everything is as in ``geometry``. The rotation axis is z, and slices and detector rows
rise along it: slice s has its centre at ``(s - (slices - 1) / 2) slice_thickness``. The coordinates are ODL's and
ASTRA's. At the view angle a the source is at ``(D sin a, -D cos a, h)``, with D the distance from the source to the
axis and ``h = start_z + pitch a / (2 pi)``. The flat detector is parallel to the axis, with its element (r, c) at
``d (-sin a, cos a, 0) + u (cos a, sin a, 0) + (0, 0, h + v)``; d is the distance from the axis to the detector, ``u =
(c - (columns - 1) / 2) detector_pitch - offset``, and v alike from r with ``row_pitch`` and ``row_offset``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from priorloom.errors import InputError
from priorloom.memory import require_memory

from .backends import backend
from .geometry import SENSIBLE, SIZE_LIMIT, FloatArray, Geometry, scan_geometry

COPIES = 3
"""Of the volume and of the measurement, that a transform takes: the input, the output and their transposed copies."""


class Rays(NamedTuple):
    """The rays seen along the rotation axis, ``[views, detector columns]``, in units of voxels.

    A ray steps along the rows of the volume where it is steeper than the diagonal, else along the columns. At step j it
    is at ``place + slope j`` on the other axis, and at the fraction ``depth + depth_step j`` of its way from the source
    to the detector. It meets the volume for ``first <= j < last``. ``length`` is the path in mm from one step to the
    next, seen along the axis.
    """

    along_rows: npt.NDArray[np.bool_]
    place: FloatArray
    slope: FloatArray
    depth: FloatArray
    depth_step: FloatArray
    first: npt.NDArray[np.int32]
    last: npt.NDArray[np.int32]
    length: FloatArray


class Shadows(NamedTuple):
    """What a point's shadow follows from.

    A point s along the detector and z over the source, at t times the distance of the axis from the source, is seen at
    the column ``column + columns_per_mm s / t`` and at the row ``row + rows_per_mm z / t``. ``distance`` is that of the
    axis from the source, ``height`` the source's z. Slices count for ``first <= slice < last`` in a view.
    """

    cos: FloatArray
    sin: FloatArray
    height: FloatArray
    first: npt.NDArray[np.int32]
    last: npt.NDArray[np.int32]
    distance: float
    column: float
    columns_per_mm: float
    row: float
    rows_per_mm: float
    rows_per_slice: float


@dataclass(frozen=True)
class ConeGeometry:
    """A circular or helical cone-beam scan with a flat, equispaced detector.

    Parameters
    ----------
    plane
        The fan-beam scan in the plane of the source: rows and columns, angles, detector columns, distances.
    slices
        Number of slices.
    slice_thickness
        Their distance in mm.
    detector_rows
        Number of detector rows.
    row_pitch
        Their distance in mm on the detector.
    row_offset
        Height of the source's plane over the middle of the detector, in mm on the detector.
    pitch
        Rise of source and detector in one counter-clockwise turn, in mm; zero for a circle.
    start_z
        Height of the source at the angle zero, in mm.
    """

    plane: Geometry
    slices: int
    slice_thickness: float
    detector_rows: int
    row_pitch: float
    row_offset: float = 0.0
    pitch: float = 0.0
    start_z: float = 0.0

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Slices, rows and columns."""
        return (self.slices, *self.plane.image_shape)

    @property
    def range_shape(self) -> tuple[int, int, int]:
        """Views, detector rows and detector columns."""
        return (self.plane.views, self.detector_rows, self.plane.detectors)

    @property
    def angles(self) -> FloatArray:
        """View angles in radians."""
        angles: FloatArray = np.deg2rad(self.plane.angles_deg)
        return angles

    @property
    def z(self) -> FloatArray:
        """Heights of the slices in mm."""
        return (np.arange(self.slices) - (self.slices - 1) / 2) * self.slice_thickness

    @property
    def source_z(self) -> FloatArray:
        """Height of the source in every view, in mm."""
        return self.start_z + self.pitch * self.angles / (2 * math.pi)

    @property
    def row_positions(self) -> FloatArray:
        """Positions of the detector rows over the plane of the source, in mm on the detector."""
        return (np.arange(self.detector_rows) - (self.detector_rows - 1) / 2) * self.row_pitch - self.row_offset

    @property
    def source_to_detector(self) -> float:
        """Distance from the source to the detector in mm."""
        return self.plane.source_to_axis + self.plane.axis_to_detector

    @cached_property
    def rays(self) -> Rays:
        """The rays seen along the rotation axis."""
        plane = self.plane
        rows, columns = plane.image_shape
        cos, sin = np.cos(self.angles)[:, None], np.sin(self.angles)[:, None]
        # Source and direction in indices of columns (i) and rows (j, downwards).
        source_i = plane.source_to_axis * sin / plane.pixel_size + (columns - 1) / 2
        source_j = plane.source_to_axis * cos / plane.pixel_size + (rows - 1) / 2
        u, reach = plane.detector_positions[None], self.source_to_detector
        along_i, along_j = (u * cos - reach * sin) / plane.pixel_size, -(u * sin + reach * cos) / plane.pixel_size
        steep = np.abs(along_j) > np.abs(along_i)
        steps, others = np.where(steep, rows, columns), np.where(steep, columns, rows)
        step, across = np.where(steep, along_j, along_i), np.where(steep, along_i, along_j)
        source_step, source_across = np.where(steep, source_j, source_i), np.where(steep, source_i, source_j)
        slope = across / step
        place = source_across - slope * source_step
        # The other axis has samples to interpolate between for -1 < place + slope j < others.
        with np.errstate(divide="ignore", invalid="ignore"):
            ends = np.stack([(-1 - place) / slope, (others - place) / slope])
        level = np.abs(slope) < 1e-12
        inside = (place > -1) & (place < others)
        first = np.where(level, np.where(inside, 0, steps), np.ceil(ends.min(0).clip(-1, None)))
        last = np.where(level, steps, np.floor(ends.max(0)) + 1)
        first, last = np.clip(first, 0, steps), np.clip(last, 0, steps)
        return Rays(
            steep, place, slope, -source_step / step, 1 / step, first.astype(np.int32), last.astype(np.int32),
            np.hypot(u, reach) / np.abs(step),
        )  # fmt: skip

    def shadows(self, window: FloatArray) -> Shadows:
        """How points are seen in the views; slices count where their `window`, ``[views, slices]``, is not zero."""
        plane = self.plane
        seen = window != 0
        first = np.where(seen.any(1), seen.argmax(1), self.slices)
        last = self.slices - seen[:, ::-1].argmax(1)
        across, along = plane.magnification / plane.detector_pitch, plane.magnification / self.row_pitch
        return Shadows(
            np.cos(self.angles), np.sin(self.angles), self.source_z, first.astype(np.int32), last.astype(np.int32),
            plane.source_to_axis, -float(plane.detector_positions[0]) / plane.detector_pitch, across,
            -float(self.row_positions[0]) / self.row_pitch, along, along * self.slice_thickness,
        )  # fmt: skip

    @property
    def slant(self) -> FloatArray:
        """Length of a ray over its length seen along the axis, ``[detector columns, detector rows]``."""
        seen = np.hypot(self.plane.detector_positions, self.source_to_detector)
        return np.sqrt(1 + (self.row_positions[None] / seen[:, None]) ** 2)


def cone_geometry(
    image_shape: tuple[int, int, int],
    pixel_size: float,
    slice_thickness: float | None,
    views: int | None,
    angles_deg: Sequence[float] | None,
    arc_deg: float,
    detector_shape: tuple[int, int] | None,
    detector_pitch: float | None,
    row_pitch: float | None,
    offset: float,
    row_offset: float,
    source_to_axis: float,
    axis_to_detector: float,
    pitch: float = 0.0,
    start_z: float | None = None,
) -> ConeGeometry:
    """A ConeGeometry from what the user gave; otherwise the detector covers the whole volume at its resolution.

    Raises
    ------
    InputError
        For a value without meaning, a source inside the volume's cylinder, rays too steep for the slices, or sizes that
        do not fit in memory.
    """
    if len(image_shape) != 3 or min(image_shape) < 1:
        raise InputError(
            "image_shape", expected="three positive integers (slices, rows, columns)", got=tuple(image_shape)
        )
    if detector_shape is not None and (len(detector_shape) != 2 or min(detector_shape) < 1):
        raise InputError("detector_shape", expected="two positive integers (rows, columns)", got=tuple(detector_shape))
    if not math.isfinite(source_to_axis):
        raise InputError(
            "source_to_axis", expected="a finite length in mm", got=source_to_axis, cure="use ct.parallel3d"
        )
    for name, value in (("row_offset", row_offset), ("pitch", pitch), ("start_z", start_z or 0.0)):
        if not abs(value) <= SENSIBLE[1]:
            raise InputError(name, expected="a length in mm", got=value)
    slices, rows, columns = (int(n) for n in image_shape)
    plane = scan_geometry(
        (rows, columns), pixel_size, views, angles_deg, arc_deg,
        None if detector_shape is None else detector_shape[1], detector_pitch, offset,
        source_to_axis, axis_to_detector,
    )  # fmt: skip
    thickness = plane.pixel_size if slice_thickness is None else slice_thickness
    height = plane.detector_pitch if row_pitch is None else row_pitch
    for name, value in (("slice_thickness", thickness), ("row_pitch", height)):
        if not SENSIBLE[0] <= value <= SENSIBLE[1]:
            raise InputError(name, expected=f"{SENSIBLE[0]:g} to {SENSIBLE[1]:g} (mm)", got=value)
    if detector_shape is None:
        # The shadow of the volume's cylinder is highest where it is nearest to the source; a helix sees one turn of it.
        seen = slices * thickness / 2 if pitch == 0 else min(slices * thickness / 2, 0.75 * abs(pitch))
        nearest = source_to_axis - math.hypot(rows, columns) / 2 * plane.pixel_size
        half = seen * (source_to_axis + axis_to_detector) / nearest + abs(row_offset)
        detector_rows = max(1, math.ceil(2 * half / height - 1e-9))
    else:
        detector_rows = int(detector_shape[0])
    if slices * rows * columns > SIZE_LIMIT or plane.views * plane.detectors * detector_rows > SIZE_LIMIT:
        got = f"{slices} x {rows} x {columns}, {plane.views} x {detector_rows} x {plane.detectors}"
        raise InputError("volume and measurement", expected=f"at most {SIZE_LIMIT} entries each", got=got)
    angles = np.deg2rad(plane.angles_deg)
    if start_z is None:  # the helix is centred on the volume
        start_z = -pitch * float(angles.min() + angles.max()) / (4 * math.pi) if pitch else 0.0
    geometry = ConeGeometry(
        plane, slices, float(thickness), detector_rows, float(height), float(row_offset), float(pitch), float(start_z)
    )
    _check_steepness(geometry)
    entries = math.prod(geometry.image_shape) + math.prod(geometry.range_shape)
    require_memory("the cone-beam transform", 4 * COPIES * entries, "use larger voxels, fewer slices or fewer views")
    return geometry


def _check_steepness(geometry: ConeGeometry) -> None:
    """A ray may rise by one slice at most from one pixel to the next."""
    tangent = float(np.abs(geometry.row_positions).max()) / geometry.source_to_detector
    rise = tangent * geometry.plane.pixel_size / geometry.slice_thickness
    if rise > 1:
        raise InputError(
            "rays of the outermost detector row",
            expected=f"a rise of at most one slice ({geometry.slice_thickness:g} mm) per pixel "
            f"({geometry.plane.pixel_size:g} mm)",
            got=f"{rise:.2g} slices, a cone angle of {math.degrees(math.atan(tangent)):.0f} degrees",
            cure="use fewer detector rows, thicker slices or a larger source_to_axis",
        )  # fmt: skip


def compiled_kernels(purpose: str) -> Any:
    """The module of compiled loops; imported late, because numba takes half a second."""
    backend("numba", purpose)
    return backend("priorloom_ct.kernels3d", purpose)
