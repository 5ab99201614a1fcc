"""Scan geometry: where the image, the rays and the detector are.

Coordinates are ODL's and ASTRA's. The image has its centre at the rotation axis; columns run along x, rows run along
*minus* y, so that ``image[0]`` is the top row of a picture whose y axis points up. At the view angle a
(counter-clockwise) the detector axis points along ``(cos a, sin a)`` and the rays travel along ``(-sin a, cos a)``:
from below the image to above it at angle zero. Detector element k sits at ``(k - (detectors - 1) / 2) detector_pitch
- offset`` from the projection of the rotation axis.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from priorloom.errors import InputError

from .backends import backend

SIZE_LIMIT = 2**31
"""Entries of an image or a sinogram, far beyond what one machine holds: a larger one is a slip of the pen."""

SENSIBLE, ANGLE_LIMIT_DEG = (1e-6, 1e9), 1e6
"""Lengths in mm and angles that make sense, so that a slip is refused here and not by the floating-point hardware."""

FloatArray = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Geometry:
    """A parallel-beam or fan-beam scan of one slice with a flat, equispaced detector.

    Parameters
    ----------
    image_shape
        Rows and columns.
    pixel_size
        Side of the square pixels in mm.
    angles_deg
        View angles in degrees, in the order of the rows of the sinogram.
    detectors
        Number of detector elements.
    detector_pitch
        Their spacing in mm, on the detector itself.
    offset
        Position of the projected rotation axis relative to the detector's centre, in mm on the detector.
    source_to_axis
        Distance from the source to the rotation axis in mm; infinite for parallel rays.
    axis_to_detector
        Distance from the rotation axis to the detector in mm; without meaning for parallel rays.
    """

    image_shape: tuple[int, int]
    pixel_size: float
    angles_deg: tuple[float, ...]
    detectors: int
    detector_pitch: float
    offset: float = 0.0
    source_to_axis: float = math.inf
    axis_to_detector: float = 0.0

    @property
    def is_parallel(self) -> bool:
        """Whether the source is at infinity."""
        return math.isinf(self.source_to_axis)

    @property
    def views(self) -> int:
        """Number of view angles."""
        return len(self.angles_deg)

    @property
    def magnification(self) -> float:
        """Lengths on the detector over lengths at the rotation axis."""
        return 1.0 if self.is_parallel else (self.source_to_axis + self.axis_to_detector) / self.source_to_axis

    @property
    def x(self) -> FloatArray:
        """Horizontal positions of the pixel columns in mm, ``[columns]``."""
        columns = self.image_shape[1]
        return (np.arange(columns) - (columns - 1) / 2) * self.pixel_size

    @property
    def y(self) -> FloatArray:
        """Vertical positions of the pixel rows in mm, ``[rows]``, falling."""
        rows = self.image_shape[0]
        return ((rows - 1) / 2 - np.arange(rows)) * self.pixel_size

    @property
    def detector_positions(self) -> FloatArray:
        """Positions of the detector elements relative to the projected rotation axis, in mm on the detector."""
        return (np.arange(self.detectors) - (self.detectors - 1) / 2) * self.detector_pitch - self.offset

    def truncation(self) -> str | None:
        """Which part of the image's inscribed circle the detector misses, in words; None when it misses none."""
        radius = min(self.image_shape) / 2 * self.pixel_size
        half = radius if self.is_parallel else radius / math.sqrt(1 - (radius / self.source_to_axis) ** 2)
        places = self.detector_positions
        seen = (min(-places[0], places[-1]) + self.detector_pitch / 2) / self.magnification
        if seen > half - self.pixel_size:
            return None
        return (
            f"the detector sees {max(seen, 0.0):.4g} mm on one side of the axis, the image's circle has {half:.4g} mm: "
            "filtered backprojection is wrong where the object is cut off; take more detectors, or an iterative method"
        )

    def key(self) -> dict[str, Any]:
        """All that determines the rays but for the angles, as plain values."""
        return {name: value for name, value in asdict(self).items() if name != "angles_deg"}

    def describe(self) -> str:
        """The scan in words."""
        beam = "parallel" if self.is_parallel else "fan"
        rows, columns = self.image_shape
        return f"{beam}-beam scan, {rows} x {columns} pixels, {self.views} views, {self.detectors} detectors"

    def rays(self, angles: FloatArray) -> tuple[FloatArray, FloatArray]:
        """A point in mm and the direction of every ray at view angles in radians, each ``[views, detectors, 2]``."""
        a = np.asarray(angles)[:, None]
        element, beam = np.stack([np.cos(a), np.sin(a)], -1), np.stack([-np.sin(a), np.cos(a)], -1)
        target = self.detector_positions[:, None] * element
        if self.is_parallel:
            return target, np.broadcast_to(beam, target.shape)
        source = -self.source_to_axis * beam
        return np.broadcast_to(source, target.shape), target + self.axis_to_detector * beam - source

    def to_odl(self) -> Any:
        """The same scan as an ``odl.applications.tomo`` geometry.

        ODL keeps angles as a partition of an interval, so they come sorted and without repetition.
        """
        odl = backend("odl", "a CT geometry")
        tomo = backend("odl.applications.tomo", "a CT geometry")
        angles = np.unique(np.deg2rad(self.angles_deg))
        apart = odl.nonuniform_partition(angles, min_pt=angles[0] - 1e-3, max_pt=angles[-1] + 1e-3)
        half = self.detectors * self.detector_pitch / 2
        dpart = odl.uniform_partition(-half - self.offset, half - self.offset, self.detectors)
        if self.is_parallel:
            return tomo.Parallel2dGeometry(apart, dpart, check_bounds=False)
        return tomo.FanBeamGeometry(apart, dpart, self.source_to_axis, self.axis_to_detector, check_bounds=False)


def scan_geometry(
    image_shape: tuple[int, int],
    pixel_size: float,
    views: int | None,
    angles_deg: Sequence[float] | None,
    arc_deg: float,
    detectors: int | None,
    detector_pitch: float | None,
    offset: float,
    source_to_axis: float = math.inf,
    axis_to_detector: float = 0.0,
) -> Geometry:
    """A Geometry from what the user gave; otherwise the detector covers the whole image at the image's resolution.

    Raises
    ------
    InputError
        For a value without meaning, both or contradictory `views` and `angles_deg`, or a source inside the image.
    """
    if len(image_shape) != 2 or min(image_shape) < 1:
        raise InputError("image_shape", expected="two positive integers (rows, columns)", got=tuple(image_shape))
    rows, columns = (int(n) for n in image_shape)
    if rows * columns > SIZE_LIMIT:
        raise InputError("image_shape", expected=f"at most {SIZE_LIMIT} pixels", got=tuple(image_shape))
    _positive("pixel_size", pixel_size, "mm")
    _positive("arc_deg", arc_deg, "degrees")
    if not abs(offset) <= SENSIBLE[1]:
        raise InputError("offset", expected="a finite length in mm", got=offset)
    radius = math.hypot(rows, columns) / 2 * pixel_size
    if not math.isinf(source_to_axis):
        _positive("source_to_axis", source_to_axis, "mm")
        if not (axis_to_detector >= 0 and math.isfinite(axis_to_detector)):
            raise InputError("axis_to_detector", expected="a length in mm", got=axis_to_detector)
        if source_to_axis <= radius:
            raise InputError(
                "source_to_axis", expected=f"more than {radius:g} mm (the image's half diagonal)", got=source_to_axis,
                cure="the source may not enter the image: check the units (mm) and pixel_size",
            )  # fmt: skip
    angles = _angles(views, angles_deg, arc_deg, default=math.ceil(math.pi / 2 * max(rows, columns) * arc_deg / 180))
    magnification = 1.0 if math.isinf(source_to_axis) else (source_to_axis + axis_to_detector) / source_to_axis
    pitch = pixel_size * magnification if detector_pitch is None else detector_pitch
    _positive("detector_pitch", pitch, "mm")
    if detectors is None:
        # Half the shadow of the image's circumscribed circle at the distance of the axis; rays graze it under an
        # angle in a fan.
        half = radius if math.isinf(source_to_axis) else radius / math.sqrt(1 - (radius / source_to_axis) ** 2)
        width = 2 * (half * magnification + abs(offset))
        detectors = (math.ceil(width / pitch - 1e-9) + 1) | 1  # odd, so that one element sees the axis
    if detectors < 1:
        raise InputError("detectors", expected="at least 1", got=detectors)
    if detectors * len(angles) > SIZE_LIMIT:
        raise InputError(
            "detectors times views", expected=f"at most {SIZE_LIMIT} measurements", got=detectors * len(angles)
        )
    return Geometry(
        (rows, columns), float(pixel_size), angles, int(detectors), float(pitch), float(offset),
        float(source_to_axis), float(axis_to_detector),
    )  # fmt: skip


def _positive(name: str, value: float, unit: str) -> None:
    if not (value > 0 and math.isfinite(value)):
        raise InputError(name, expected=f"a positive number ({unit})", got=value)
    if not SENSIBLE[0] <= value <= SENSIBLE[1]:
        raise InputError(name, expected=f"{SENSIBLE[0]:g} to {SENSIBLE[1]:g} ({unit})", got=value)


def _angles(views: int | None, angles_deg: Sequence[float] | None, arc_deg: float, default: int) -> tuple[float, ...]:
    if angles_deg is None:
        count = default if views is None else views
        if not 1 <= count <= SIZE_LIMIT // 256:
            raise InputError("views", expected=f"at least 1, at most {SIZE_LIMIT // 256}", got=count)
        return tuple(arc_deg * k / count for k in range(count))
    angles = tuple(float(a) for a in angles_deg)
    if not angles or not all(abs(a) <= ANGLE_LIMIT_DEG for a in angles):
        raise InputError(
            "angles_deg", expected=f"at least one angle, all finite and within {ANGLE_LIMIT_DEG:g}",
            got=f"{len(angles)} values",
        )  # fmt: skip
    if views is not None and views != len(angles):
        raise InputError("views", expected=f"{len(angles)}, the number of angles_deg", got=views, cure="give only one")
    return angles
