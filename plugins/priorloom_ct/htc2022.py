"""The .mat files of the Helsinki Tomography Challenge 2022 (Zenodo, 10.5281/zenodo.7418878): fan-beam sinograms."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from priorloom.errors import ReaderError
from priorloom.modality import Reader, Scan

from . import mat5

IMAGE_SHAPE = (512, 512)
"""The organisers' reconstruction grid."""

_VARIABLES = ("CtDataFull", "CtDataLimited")
_EXPECTED = "a MATLAB 5 file of the challenge"


def htc2022() -> Reader:
    """The reader of the challenge's full and limited-angle scans."""
    summary = "Helsinki Tomography Challenge 2022: MATLAB files with a fan-beam sinogram and its geometry"
    return Reader("htc2022", summary, (".mat",), _recognises, read)


def _recognises(path: Path) -> bool:
    try:
        return any(name in _VARIABLES for name in mat5.variables(path))
    except ReaderError:
        return False


def read(path: Path, *, every: int = 1, angles: tuple[float, float] | None = None) -> Scan:
    """Read a scan, or some of its views.

    A view at 360 degrees that repeats the one at 0 is dropped.

    Parameters
    ----------
    path
        The file.
    every
        Keep every n-th of the views.
    angles
        Keep views from the first up to, not including, the second angle, in degrees; the range may cross 360.

    Returns
    -------
    scan
        Of the operator ct.fanbeam2d, on the organisers' grid of 512 x 512 pixels.

    Raises
    ------
    ReaderError
        Empty, truncated, another format, too large, without geometry, NaN, rows that do not match the angles, or an
        option that selects nothing.
    """
    if every < 1:
        raise ReaderError("input.every", expected="at least 1", got=every)
    data = _load(path)
    parameters = data.get("parameters")
    if not isinstance(parameters, dict):
        raise ReaderError(f"parameters in {path.name}", expected="a structure with the geometry", got="none")
    sinogram = _numbers(path, "sinogram", data)
    view_angles = np.atleast_1d(_numbers(path, "angles", parameters).squeeze())
    if sinogram.ndim != 2 or view_angles.ndim != 1 or len(sinogram) != len(view_angles):
        raise ReaderError(
            f"sinogram in {path.name}", expected=f"[{view_angles.size} angles, detectors]", got=list(sinogram.shape)
        )
    if len(view_angles) > 1 and abs(view_angles[-1] - view_angles[0] - 360) < 1e-6:
        sinogram, view_angles = sinogram[:-1], view_angles[:-1]
    chosen = _choose(view_angles, every, angles)
    sinogram, view_angles = sinogram[chosen], view_angles[chosen]
    source_to_axis = _length(path, "distanceSourceOrigin", parameters)
    source_to_detector = _length(path, "distanceSourceDetector", parameters)
    if source_to_detector < source_to_axis:
        raise ReaderError(
            f"distanceSourceDetector in {path.name}", expected=f"at least {source_to_axis}", got=source_to_detector
        )
    pitch = _length(path, "pixelSizePost", parameters)
    geometry = {
        "image_shape": IMAGE_SHAPE,
        "pixel_size": round(pitch * source_to_axis / source_to_detector, 6),
        "angles_deg": tuple(float(a) for a in view_angles),
        "detectors": sinogram.shape[1],
        "detector_pitch": pitch,
        "source_to_axis": source_to_axis,
        "axis_to_detector": round(source_to_detector - source_to_axis, 6),
    }
    facts = {
        "source": path.name,
        "scanner": str(parameters.get("scanner", "unknown")),
        "views": len(view_angles),
        "angles [deg]": f"{view_angles[0]:g} to {view_angles[-1]:g}",
    }
    return Scan("ct", "ct.fanbeam2d", geometry, np.ascontiguousarray(sinogram), metadata=facts)


def _choose(angles: npt.NDArray[np.float64], every: int, limits: tuple[float, float] | None) -> npt.NDArray[np.int64]:
    kept = np.arange(len(angles))
    if limits is not None:
        first, last = limits
        if not (math.isfinite(first) and 0 < last - first <= 360):
            raise ReaderError("input.angles", expected="two rising angles in degrees, at most 360 apart", got=limits)
        # A millionth of a degree forgives the rounding of angles that were summed up.
        kept = kept[np.mod(angles - first + 1e-6, 360) < last - first]
        if not kept.size:
            raise ReaderError(
                "input.angles", expected=f"a range that meets {angles.min():g} to {angles.max():g} degrees", got=limits
            )
    return kept[::every]


def _load(path: Path) -> Mapping[str, Any]:
    found = mat5.variables(path, _EXPECTED)
    for name in _VARIABLES:
        value = mat5.load(path, found[name]) if name in found else None
        if isinstance(value, dict):
            return value
    raise ReaderError(path.name, expected=f"a structure {' or '.join(_VARIABLES)}", got="none of them")


def _numbers(path: Path, name: str, structure: Mapping[str, Any]) -> npt.NDArray[np.float64]:
    value = np.asarray(structure.get(name))
    if not (np.issubdtype(value.dtype, np.floating) or np.issubdtype(value.dtype, np.integer)) or not value.size:
        raise ReaderError(f"{name} in {path.name}", expected="real numbers", got=f"{value.dtype} {list(value.shape)}")
    if not np.isfinite(value).all():
        bad = int((~np.isfinite(value)).sum())
        raise ReaderError(f"{name} in {path.name}", expected="finite values", got=f"{bad} NaN or infinite")
    return value.astype(np.float64)


def _length(path: Path, name: str, parameters: Mapping[str, Any]) -> float:
    value = _numbers(path, name, parameters)
    if value.size != 1 or not value.item() > 0:
        raise ReaderError(f"{name} in {path.name}", expected="one positive length in mm", got=value.tolist())
    return float(value.item())
