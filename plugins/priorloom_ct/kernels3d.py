"""Compiled loops of the cone-beam transform, of its transpose, and of voxel-driven backprojection and its transpose.

Inside, z comes last: volumes are ``[rows, columns, slices]`` and views ``[views, detector columns, detector rows]``. A
detector column sees a plane that contains the direction of z. For each of its steps the two columns of voxels beside it
are first mixed into one line along z, on which the samples of all detector rows are equally spaced (Joseph, IEEE Trans.
Med. Imaging 1, 1982, one axis after the other). Transposes have the same weights, in the opposite direction.

Every kernel works on a piece of its output and writes nowhere else; the order of its sums does not depend on the
pieces.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .compiler import compiled
from .geometry3d import Rays, Shadows

_PAD = 2
"""Zeros beside a line: one for the interpolation at its ends, one for the rounding of positions."""

# Positions along a line are in fixed point with 40 bits of fraction, the upper 31 of which are the weight: in floating
# point, rounding down costs more than all the rest of an interpolation (2.0 against 0.8 ns on a Zen 4).
_BITS, _DROPPED, _MASK, _UNIT = 40, 9, 2**31 - 1, 2.0**-31
_ONE, _AHEAD = np.uint64(1), np.uint64(_PAD)

_ROWS = 4
"""Of voxels that are backprojected together, so that a view is fetched once for all of them."""


@compiled
def _range(first: int, last: int) -> Any:
    """``range(first, last)`` in unsigned numbers: a signed index may count from the end, which forbids SIMD code."""
    return range(np.uint64(first), np.uint64(last))


@compiled
def _fixed(start: float, step: float, first: int) -> tuple[Any, Any]:
    """``start + step first`` on a padded line, and ``step``, in fixed point."""
    # The place of sample 0 may be too far away for it.
    return np.int64((start + step * first + _PAD) * 2.0**_BITS), np.int64(step * 2.0**_BITS)


@compiled
def _samples(start: float, step: float, length: int, count: int) -> tuple[int, int]:
    """The k in ``range(count)`` for which ``start + step k`` is within ``(-1, length)``, as first and last + 1."""
    first = max(0, math.ceil((-1 - start) / step))
    last = min(count, math.floor((length - start) / step) + 1)
    return first, last


@compiled
def _span(start: float, step: float, first: int, last: int, length: int) -> tuple[int, int]:
    """The part of a line that these samples touch, generously, as first and last + 1."""
    return max(0, int(start + step * first) - 1), min(length, int(start + step * (last - 1)) + 3)


@compiled
def _neighbours(place: float, low: int, high: int) -> tuple[int, int, float, float]:
    """Indices in ``[low, high)`` and weights of linear interpolation; the weight is zero for an index outside of it."""
    left = math.floor(place)
    share = place - left
    a, b, weight_a, weight_b = left, left + 1, 1 - share, share
    if a < low or a >= high:
        a, weight_a = low, 0.0
    if b < low or b >= high:
        b, weight_b = low, 0.0
    return a, b, weight_a, weight_b


@compiled
def _mix(line: Any, a: Any, b: Any, weight_a: Any, weight_b: Any, low: int, high: int) -> None:
    """``line = weight_a a + weight_b b`` on a span."""
    for k in _range(low, high):
        line[_AHEAD + k] = weight_a * a[k] + weight_b * b[k]


@compiled
def _unmix(line: Any, a: Any, b: Any, weight_a: Any, weight_b: Any, low: int, high: int) -> None:
    """Transpose of _mix; leaves the line zero."""
    for k in _range(low, high):
        a[k] += weight_a * line[_AHEAD + k]
    for k in _range(low, high):
        b[k] += weight_b * line[_AHEAD + k]
    for k in _range(low, high + 2 * _PAD):
        line[k] = 0


@compiled
def _read(out: Any, line: Any, start: float, step: float, first: int, last: int) -> None:
    """``out[k] += line(start + step k)``, interpolated linearly."""
    unit = line.dtype.type(_UNIT)
    at, advance = _fixed(start, step, first)
    for k in _range(first, last):
        left = np.uint64(at >> _BITS)
        a, b = line[left], line[left + _ONE]
        out[k] += a + line.dtype.type(np.int32((at >> _DROPPED) & _MASK)) * unit * (b - a)
        at += advance


@compiled
def _write(line: Any, values: Any, start: float, step: float, first: int, last: int) -> None:
    """Transpose of _read."""
    unit = line.dtype.type(_UNIT)
    at, advance = _fixed(start, step, first)
    for k in _range(first, last):
        left = np.uint64(at >> _BITS)
        b = line.dtype.type(np.int32((at >> _DROPPED) & _MASK)) * unit * values[k]
        line[left] += values[k] - b
        line[left + _ONE] += b
        at += advance


@compiled
def project(
    volume: Any, views: Any, rays: Rays, slant: Any, height: Any, row: float, row_step: float, first: int, last: int
) -> None:
    """Line integrals of the volume in the views ``[first, last)``.

    Parameters
    ----------
    volume, views
        Input and output.
    rays
        The rays seen along z.
    slant
        Factor of their lengths, ``[detector columns, detector rows]``.
    height
        The source's z in every view, in slices.
    row, row_step
        z of the first detector row relative to the source, and the distance of rows, in slices.
    first, last
        The views.
    """
    rows, columns, slices = volume.shape
    real = volume.dtype.type
    line = np.zeros(slices + 2 * _PAD, volume.dtype)
    for view in range(first, last):
        for column in range(views.shape[1]):
            out = views[view, column]
            out[:] = 0
            steep = rays.along_rows[view, column]
            for j in range(rays.first[view, column], rays.last[view, column]):
                depth = rays.depth[view, column] + rays.depth_step[view, column] * j
                start, step = height[view] + depth * row, depth * row_step
                k, stop = _samples(start, step, slices, views.shape[2])
                if k >= stop:
                    continue
                low, high = _span(start, step, k, stop, slices)
                place = rays.place[view, column] + rays.slope[view, column] * j
                a, b, weight_a, weight_b = _neighbours(place, 0, columns if steep else rows)
                if steep:
                    _mix(line, volume[j, a], volume[j, b], real(weight_a), real(weight_b), low, high)
                else:
                    _mix(line, volume[a, j], volume[b, j], real(weight_a), real(weight_b), low, high)
                _read(out, line, start, step, k, stop)
            for k in _range(0, views.shape[2]):
                out[k] *= real(rays.length[view, column]) * slant[column, k]


@compiled
def project_transposed(
    volume: Any, views: Any, rays: Rays, slant: Any, height: Any, row: float, row_step: float, first: int, last: int
) -> None:
    """Transpose of ``project``, in the rows ``[first, last)`` of the volume; parameters alike."""
    _, columns, slices = volume.shape
    real = volume.dtype.type
    line = np.zeros(slices + 2 * _PAD, volume.dtype)
    values = np.empty(views.shape[2], volume.dtype)
    volume[first:last] = 0
    for view in range(views.shape[0]):
        for column in range(views.shape[1]):
            steep = rays.along_rows[view, column]
            place, slope = rays.place[view, column], rays.slope[view, column]
            begin, end = rays.first[view, column], rays.last[view, column]
            if steep:
                begin, end = max(begin, first), min(end, last)
            elif abs(slope) > 1e-12:  # the steps that reach into these rows, and one more
                one, other = (first - 1 - place) / slope, (last - place) / slope
                begin = max(begin, math.floor(min(max(min(one, other), -1.0), 2.0**30)))
                end = min(end, math.ceil(max(min(max(one, other), 2.0**30), -1.0)) + 1)
            if begin >= end:
                continue
            for k in _range(0, views.shape[2]):
                values[k] = views[view, column, k] * (real(rays.length[view, column]) * slant[column, k])
            for j in range(begin, end):
                if steep:
                    a, b, weight_a, weight_b = _neighbours(place + slope * j, 0, columns)
                else:
                    a, b, weight_a, weight_b = _neighbours(place + slope * j, first, last)
                if weight_a == 0 and weight_b == 0:
                    continue
                depth = rays.depth[view, column] + rays.depth_step[view, column] * j
                start, step = height[view] + depth * row, depth * row_step
                k, stop = _samples(start, step, slices, views.shape[2])
                if k >= stop:
                    continue
                low, high = _span(start, step, k, stop, slices)
                _write(line, values, start, step, k, stop)
                if steep:
                    _unmix(line, volume[j, a], volume[j, b], real(weight_a), real(weight_b), low, high)
                else:
                    _unmix(line, volume[a, j], volume[b, j], real(weight_a), real(weight_b), low, high)


@compiled
def _shadow(scan: Shadows, view: int, x: float, y: float, bottom: float) -> tuple[float, float, float, float]:
    """Where a column of voxels throws its shadow: detector column, row of slice 0, rows per slice, ``D / (D + d)``."""
    cos, sin = scan.cos[view], scan.sin[view]
    shrink = 1 / (1 + (y * cos - x * sin) / scan.distance)
    column = scan.column + (x * cos + y * sin) * shrink * scan.columns_per_mm
    row = scan.row + (bottom - scan.height[view]) * shrink * scan.rows_per_mm
    return column, row, shrink * scan.rows_per_slice, shrink


@compiled
def backproject(
    volume: Any, views: Any, scan: Shadows, x: Any, y: Any, bottom: float, window: Any, first: int, last: int
) -> None:
    """Sum over the views of ``window (D / (D + d))^2`` times the view at the voxel's shadow, in rows ``[first, last)``.

    Parameters
    ----------
    volume, views
        Output and input.
    scan
        The cone.
    x, y, bottom
        Positions of the columns, of the rows and of slice 0, in mm.
    window
        Weight of every slice in every view, ``[views, slices]``.
    first, last
        The rows of the volume.
    """
    count, detector_columns, detector_rows = views.shape
    _, columns, slices = volume.shape
    real = volume.dtype.type
    line = np.zeros(detector_rows + 2 * _PAD, volume.dtype)
    taken = np.zeros(slices, volume.dtype)
    volume[first:last] = 0
    for block in range(first, last, _ROWS):
        for view in range(count):
            for i in range(block, min(block + _ROWS, last)):
                for j in range(columns):
                    column, row, row_step, shrink = _shadow(scan, view, x[j], y[i], bottom)
                    a, b, weight_a, weight_b = _neighbours(column, 0, detector_columns)
                    k, stop = _samples(row, row_step, detector_rows, slices)
                    k, stop = max(k, scan.first[view]), min(stop, scan.last[view])
                    if k >= stop or (weight_a == 0 and weight_b == 0):
                        continue
                    low, high = _span(row, row_step, k, stop, detector_rows)
                    weight_a, weight_b = real(weight_a * shrink * shrink), real(weight_b * shrink * shrink)
                    _mix(line, views[view, a], views[view, b], weight_a, weight_b, low, high)
                    for s in _range(k, stop):
                        taken[s] = 0
                    _read(taken, line, row, row_step, k, stop)
                    for s in _range(k, stop):
                        volume[i, j, s] += window[view, s] * taken[s]


@compiled
def backproject_transposed(
    volume: Any, views: Any, scan: Shadows, x: Any, y: Any, bottom: float, window: Any, first: int, last: int
) -> None:
    """Transpose of ``backproject``, in the views ``[first, last)``; parameters alike."""
    _, detector_columns, detector_rows = views.shape
    rows, columns, slices = volume.shape
    real = volume.dtype.type
    line = np.zeros(detector_rows + 2 * _PAD, volume.dtype)
    values = np.empty(slices, volume.dtype)
    views[first:last] = 0
    for view in range(first, last):
        for i in range(rows):
            for j in range(columns):
                column, row, row_step, shrink = _shadow(scan, view, x[j], y[i], bottom)
                a, b, weight_a, weight_b = _neighbours(column, 0, detector_columns)
                k, stop = _samples(row, row_step, detector_rows, slices)
                k, stop = max(k, scan.first[view]), min(stop, scan.last[view])
                if k >= stop or (weight_a == 0 and weight_b == 0):
                    continue
                low, high = _span(row, row_step, k, stop, detector_rows)
                for s in _range(k, stop):
                    values[s] = window[view, s] * volume[i, j, s]
                _write(line, values, row, row_step, k, stop)
                square = shrink * shrink
                _unmix(
                    line, views[view, a], views[view, b], real(weight_a * square), real(weight_b * square), low, high
                )
