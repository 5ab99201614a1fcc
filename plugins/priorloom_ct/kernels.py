"""Compiled inner loops of the ray transform and of backprojection: every ray or pixel is found once for many images.

Images and sinograms that share their geometry (members of a batch, copies by the symmetries of ``symmetry``) are kept
side by side in memory as *lanes*, ``[row, column, lane]`` and ``[view, element, lane]``. An inner step finds two
neighbouring pixels and their weights once, and adds them up for all lanes with vector instructions. Their number,
one of `LANES`, travels in the type of a tuple, so that a kernel is compiled for each.

A step is ``interpolate``, ``target += u source[i] + t source[i + 1]``, or its transpose ``spread_over``. The two
directions of an operator compute u, t and i by the same expressions, so they are exact transposes of each other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .compiler import compiled

LANES = (4, 8, 16, 32)
"""Numbers of lanes: up to eight cost about as much as one; beyond the last, a line no longer stays in the cache."""

SLAB_BYTES = 2**19
"""Of an image that is worked on at a time: half of a small second-level cache."""


def lanes_for(images: int) -> tuple[int, ...]:
    """The tuple whose length is the number of lanes for so many images."""
    return (0,) * next(count for count in LANES if count >= images)


class _Lanes:
    """Emits vector instructions on consecutive entries of flat arrays."""

    def __init__(self, context: Any, builder: Any, signature: Any) -> None:
        self.context, self.builder = context, builder
        self.count = signature.args[-1].count
        self.scalar = context.get_value_type(signature.args[0].dtype)
        self.vector = ir.VectorType(self.scalar, self.count)

    def pointer(self, array_type: Any, array: Any, place: Any) -> Any:
        data = self.context.make_array(array_type)(self.context, self.builder, array).data
        return self.builder.bitcast(self.builder.gep(data, [place]), self.vector.as_pointer())

    def load(self, pointer: Any) -> Any:
        return self.builder.load(pointer, align=4)

    def store(self, value: Any, pointer: Any) -> None:
        self.builder.store(value, pointer, align=4)

    def splat(self, weight: Any) -> Any:
        undefined = ir.Constant(self.vector, ir.Undefined)
        one = self.builder.insert_element(undefined, weight, ir.Constant(ir.IntType(32), 0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), self.count), [0] * self.count)
        return self.builder.shuffle_vector(one, undefined, zeros)

    def multiply_add(self, a: Any, b: Any, c: Any) -> Any:
        return self.builder.fadd(self.builder.fmul(a, b, flags=("contract",)), c, flags=("contract",))


def _step_signature(target: Any, at: Any, source: Any, first: Any, u: Any, t: Any, lanes: Any) -> Any:
    return types.void(target, types.intp, source, types.intp, target.dtype, target.dtype, lanes)


def _interpolate(typing_context: Any, target: Any, at: Any, source: Any, first: Any, u: Any, t: Any, lanes: Any) -> Any:
    """``target[at : at + L] += u source[first : first + L] + t source[first + L : first + 2 L]`` for L lanes."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        a = _Lanes(context, builder, signature)
        into = a.pointer(signature.args[0], arguments[0], arguments[1])
        left = a.pointer(signature.args[2], arguments[2], arguments[3])
        right = a.pointer(signature.args[2], arguments[2], builder.add(arguments[3], _next(arguments[3], a.count)))
        total = a.multiply_add(a.splat(arguments[4]), a.load(left), a.load(into))
        a.store(a.multiply_add(a.splat(arguments[5]), a.load(right), total), into)
        return context.get_dummy_value()

    return _step_signature(target, at, source, first, u, t, lanes), emit


def _spread_over(typing_context: Any, target: Any, first: Any, source: Any, at: Any, u: Any, t: Any, lanes: Any) -> Any:
    """The transpose: ``target[first : ...] += u source[at : ...]``; the next L entries take t times the same."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        a = _Lanes(context, builder, signature)
        value = a.load(a.pointer(signature.args[2], arguments[2], arguments[3]))
        left = a.pointer(signature.args[0], arguments[0], arguments[1])
        right = a.pointer(signature.args[0], arguments[0], builder.add(arguments[1], _next(arguments[1], a.count)))
        a.store(a.multiply_add(a.splat(arguments[4]), value, a.load(left)), left)
        a.store(a.multiply_add(a.splat(arguments[5]), value, a.load(right)), right)
        return context.get_dummy_value()

    return _step_signature(target, first, source, at, u, t, lanes), emit


interpolate: Any = intrinsic(_interpolate)
spread_over: Any = intrinsic(_spread_over)


def _next(place: Any, count: int) -> Any:
    return ir.Constant(place.type, count)


@compiled
def _crossing(starts, slopes, sharpness, j, width, places, shares):  # type: ignore[no-untyped-def]
    """Which of some neighbouring rays meet line j of an image inside, as a range; for these, where and how.

    A ray meets the line at ``p = start + j slope``, between its padded pixels ``places = int(p)`` and the next. The
    share of the second is ``clip((frac(p) - 1/2) sharpness + 1/2, 0, 1)``: with 1 Joseph's linear interpolation, with
    one over the slope the part of the ray's way across the line that it spends in that pixel (Siddon's intersection
    length).
    """
    # The rays meet the line in order, so those inside are consecutive.
    n = len(starts)
    end = width + 1.0
    if starts[0] + j * slopes[0] <= starts[n - 1] + j * slopes[n - 1]:
        first = _count_below(starts, slopes, j, 1.0, 0.0, 0)
        last = _count_below(starts, slopes, j, 1.0, end, -1)
    else:
        first = _count_below(starts, slopes, j, -1.0, -end, 0)
        last = _count_below(starts, slopes, j, -1.0, 0.0, -1)
    # Slices rather than offsets: only then does the compiler see that this can be vectorised.
    a, b, c = starts[first:last], slopes[first:last], sharpness[first:last]
    for k in range(len(a)):
        p = a[k] + j * b[k]
        i = min(int(p), width)  # rounding may bring p to its upper bound
        places[k] = i
        shares[k] = min(max((p - i - 0.5) * c[k] + 0.5, 0.0), 1.0)
    return first, last


@compiled
def _count_below(starts, slopes, j, sign, bound, tie):  # type: ignore[no-untyped-def]
    """How many of the rising ``sign p`` are below `bound`, or, with the tie 0, not above it."""
    low, high = 0, len(starts)
    while low < high:
        middle = (low + high) // 2
        p = sign * (starts[middle] + j * slopes[middle])
        if p < bound or (p == bound and tie == 0):
            low = middle + 1
        else:
            high = middle
    return low


@compiled
def project(image, width, rays, runs, first_run, last_run, sinogram, lanes):  # type: ignore[no-untyped-def]
    """Adds up an image along the rays of some runs.

    image: ``[lines * (width + 2) * lanes]``, an empty pixel at either end of a line; rays: ``[4, rays]``, their starts,
    slopes, sharpness (see ``_crossing``) and ways across one line in mm; runs: ``[runs, 2]``, the first ray and the one
    after the last; sinogram: ``[rays * lanes]``, added to.
    """
    n = len(lanes)
    stride = (width + 2) * n
    places, shares = np.empty(rays.shape[1], np.int64), np.empty(rays.shape[1], image.dtype)
    lines, block = image.size // stride, _lines_at_once(stride * image.itemsize)
    for slab in range(0, lines, block):
        for run in range(first_run, last_run):
            a, b = runs[run, 0], runs[run, 1]
            starts, slopes, sharpness, lengths = rays[0, a:b], rays[1, a:b], rays[2, a:b], rays[3, a:b]
            for j in range(slab, min(slab + block, lines)):
                first, last = _crossing(starts, slopes, sharpness, j, width, places, shares)
                for k in range(last - first):
                    place, ray = j * stride + places[k] * n, (a + first + k) * n
                    t = lengths[first + k] * shares[k]
                    interpolate(sinogram, ray, image, place, lengths[first + k] - t, t, lanes)


@compiled
def project_back(image, width, rays, runs, first_line, last_line, sinogram, lanes):  # type: ignore[no-untyped-def]
    """The transpose of ``project`` for some lines of the image: adds the sinogram of all runs to them."""
    n = len(lanes)
    stride = (width + 2) * n
    places, shares = np.empty(rays.shape[1], np.int64), np.empty(rays.shape[1], image.dtype)
    block = _lines_at_once(stride * image.itemsize)
    for slab in range(first_line, last_line, block):
        for run in range(len(runs)):
            a, b = runs[run, 0], runs[run, 1]
            starts, slopes, sharpness, lengths = rays[0, a:b], rays[1, a:b], rays[2, a:b], rays[3, a:b]
            for j in range(slab, min(slab + block, last_line)):
                first, last = _crossing(starts, slopes, sharpness, j, width, places, shares)
                for k in range(last - first):
                    place, ray = j * stride + places[k] * n, (a + first + k) * n
                    t = lengths[first + k] * shares[k]
                    spread_over(image, place, sinogram, ray, lengths[first + k] - t, t, lanes)


@compiled
def _lines_at_once(line_bytes):  # type: ignore[no-untyped-def]
    """Lines of an image that stay in the second-level cache while all rays cross them."""
    return max(1, SLAB_BYTES // line_bytes)


@compiled
def _shadow(c, j, width, elements, places, shares, weights):  # type: ignore[no-untyped-def]
    """Where the pixels of line j cast their shadow in a view.

    Pixel (j, i) does at ``p = s (c0 + c1 i + c2 j) + c3``, with ``s = 1 / (c4 + c5 i + c6 j)``, between the padded
    elements ``places = int(p)`` and the next; shares is the weight of the second, weights is s^2.
    """
    for i in range(width):
        s = 1.0 / (c[4] + c[5] * i + c[6] * j)
        # Beyond the detector it falls on the empty elements at its ends.
        p = min(max(s * (c[0] + c[1] * i + c[2] * j) + c[3], 0.0), elements + 1.0)
        k = min(int(p), elements)
        places[i] = k
        shares[i] = p - k
        weights[i] = s * s


@compiled
def collect(image, width, shadows, first_line, last_line, sinogram, elements, lanes):  # type: ignore[no-untyped-def]
    """Adds to every pixel of some lines s^2 times what lies at its shadow in every view (``_shadow``).

    image: ``[lines * width * lanes]``; shadows: ``[views, 7]``; sinogram: ``[views * (elements + 2) * lanes]``, an
    empty element at either end of a view.
    """
    n = len(lanes)
    places, shares = np.empty(width, np.int64), np.empty(width, image.dtype)
    weights = np.empty(width, image.dtype)
    block = _lines_at_once(width * n * image.itemsize)
    for slab in range(first_line, last_line, block):
        for v in range(len(shadows)):
            for j in range(slab, min(slab + block, last_line)):
                _shadow(shadows[v], j, width, elements, places, shares, weights)
                for i in range(width):
                    place, t = (v * (elements + 2) + places[i]) * n, weights[i] * shares[i]
                    interpolate(image, (j * width + i) * n, sinogram, place, weights[i] - t, t, lanes)


@compiled
def collect_back(image, width, shadows, first_view, last_view, sinogram, elements, lanes):  # type: ignore[no-untyped-def]
    """The transpose of ``collect`` for some views: adds the image to them."""
    n = len(lanes)
    places, shares = np.empty(width, np.int64), np.empty(width, image.dtype)
    weights = np.empty(width, image.dtype)
    lines, block = image.size // (width * n), _lines_at_once(width * n * image.itemsize)
    for slab in range(0, lines, block):
        for v in range(first_view, last_view):
            for j in range(slab, min(slab + block, lines)):
                _shadow(shadows[v], j, width, elements, places, shares, weights)
                for i in range(width):
                    place, t = (v * (elements + 2) + places[i]) * n, weights[i] * shares[i]
                    spread_over(sinogram, place, image, (j * width + i) * n, weights[i] - t, t, lanes)


@compiled
def pack(source, starts, steps, first_line, last_line, width, pad, target, n):  # type: ignore[no-untyped-def]
    """Lays lines of a batch out as n lanes.

    Lane ``e batch + b`` of the target's line j is, at i, ``source[b, starts[j, e] + i steps[e]]``; zero where the start
    is negative, in the padding at both ends and in lanes that are left over.

    source: ``[batch, size]``; starts: ``[lines, copies]``; steps: ``[copies]``; target:
    ``[lines * (width + 2 pad) * n]``.
    """
    # Unsigned indices need no check for those that count from the end.
    batch, copies = len(source), starts.shape[1]
    stride = (width + 2 * pad) * n
    for j in range(first_line, last_line):
        target[j * stride : (j + 1) * stride] = 0
        for e in range(copies):
            start, step = starts[j, e], steps[e]
            if start >= 0:
                for b in range(batch):
                    place = j * stride + pad * n + e * batch + b
                    for i in range(width):
                        target[np.uint64(place + i * n)] = source[b, np.uint64(start + i * step)]


@compiled
def unpack(source, starts, steps, first_line, last_line, width, target, n):  # type: ignore[no-untyped-def]
    """Adds n lanes up into lines of a batch, the transpose of ``pack`` with the inverse starts and steps.

    ``target[b, j width + i] += sum over e of source[(starts[j, e] + i steps[e]) n + e batch + b]``, leaving out
    negative starts.
    """
    batch, copies = len(target), starts.shape[1]
    for j in range(first_line, last_line):
        for e in range(copies):
            start, step = starts[j, e] * n, steps[e] * n
            if start >= 0:
                for b in range(batch):
                    place = start + e * batch + b
                    for i in range(width):
                        target[b, np.uint64(j * width + i)] += source[np.uint64(place + i * step)]
