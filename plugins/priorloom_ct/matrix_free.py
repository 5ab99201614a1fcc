"""The ray transform and backprojection without a matrix: compiled kernels that find every ray when it is needed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from priorloom.memory import require_memory

from . import kernels
from .geometry import FloatArray, Geometry
from .plan import Plan
from .scratch import scratch
from .symmetry import Folding
from .threads import spread

Index = npt.NDArray[np.int64]

SCRATCH = 2**27
"""Bytes of lanes that a batch may take; larger images have fewer of them."""

TABLE_BYTES = 2 * 4 * 8
"""Of a ray in the tables of both directions."""


@dataclass(frozen=True)
class Layout:
    """Where the lines of images, or of sinograms, go among the lanes, and back; see ``kernels.pack``.

    Parameters
    ----------
    width, padding
        Entries of a line of lanes, and empty ones at either end.
    starts, steps
        For ``pack``: ``[lines, copies]`` and ``[copies]``, into one image.
    width_back, starts_back, steps_back
        For ``unpack``: entries of a line of the image, then as above, into the lanes.
    """

    width: int
    padding: int
    starts: Index
    steps: Index
    width_back: int
    starts_back: Index
    steps_back: Index

    @property
    def copies(self) -> int:
        """Lanes per image."""
        return len(self.steps)

    @property
    def size(self) -> int:
        """Entries of one lane."""
        return len(self.starts) * (self.width + 2 * self.padding)

    def pack(self, batch: Tensor, lanes: tuple[int, ...], name: str) -> Tensor:
        """``[batch, ...]`` to ``[size * lanes]``, in the scratch memory of that name."""
        target = scratch(name, self.size * len(lanes), batch)
        source, into = batch.flatten(1).contiguous().resolve_neg().numpy(), target.numpy()

        def work(first: int, last: int) -> None:
            kernels.pack(source, self.starts, self.steps, first, last, self.width, self.padding, into, len(lanes))

        spread(work, len(self.starts))
        return target

    def unpack(self, packed: Tensor, batch: Tensor, lanes: tuple[int, ...]) -> None:
        """Adds ``[size * lanes]`` to ``[batch, size]``."""
        source, into = packed.numpy(), batch.numpy()

        def work(first: int, last: int) -> None:
            kernels.unpack(source, self.starts_back, self.steps_back, first, last, self.width_back, into, len(lanes))

        spread(work, len(self.starts_back))


def image_layout(geometry: Geometry, folding: Folding, padding: int, by_columns: bool = False) -> Layout:
    """The copies of an image side by side, line by line: its rows, or its columns where rays run along rows."""
    rows, columns = geometry.image_shape
    places: Index = np.arange(rows * columns).reshape(rows, columns)
    seen = [s.copy(places) for s in folding.symmetries]
    seen = [c.T for c in seen] if by_columns else seen
    lines, width = seen[0].shape
    inside: Index = np.arange(lines * (width + 2 * padding)).reshape(lines, -1)[:, padding : padding + width]
    inside = inside.T if by_columns else inside
    back = [s.original(inside) for s in folding.symmetries]
    return Layout(width, padding, *_affine(seen), columns, *_affine(back))


def _affine(views: list[Index]) -> tuple[Index, Index]:
    """Starts of the lines and steps along them, of arrays of places that are turns of a grid."""
    starts = np.stack([view[:, 0] for view in views], axis=1)
    steps = np.array([view[0, 1] - view[0, 0] if view.shape[1] > 1 else 0 for view in views], dtype=np.int64)
    return np.ascontiguousarray(starts), steps


def sinogram_layout(geometry: Geometry, folding: Folding, padding: int) -> Layout:
    """The views of one orbit side by side."""
    elements = geometry.detectors
    backwards = np.array([s.reverses for s in folding.symmetries])
    steps = np.where(backwards, -1, 1)
    last = np.where(backwards, elements - 1, 0)
    starts = np.where(folding.views >= 0, folding.views * elements + last, -1)
    starts_back = np.full((geometry.views, len(steps)), -1, dtype=np.int64)
    orbit, copy = np.nonzero(folding.views >= 0)
    starts_back[folding.views[orbit, copy], copy] = orbit * (elements + 2 * padding) + padding + last[copy]
    return Layout(elements, padding, starts, steps, elements, starts_back, steps)


@dataclass(frozen=True)
class Rays:
    """The rays of the base views as they cross the lines of an image; see ``kernels.project``.

    Parameters
    ----------
    table
        ``[4, orbits * detectors]``.
    runs
        Consecutive rays that cross these lines rather than those in the other direction, ``[runs, 2]``.
    runs_before
        The number of runs before each orbit, ``[orbits + 1]``.
    """

    table: FloatArray
    runs: Index
    runs_before: Index


def rays_across(geometry: Geometry, angles_deg: tuple[float, ...], by_columns: bool) -> Rays:
    """The rays at `angles_deg` that cross the rows, or the columns, of the image more steeply than the other."""
    point, direction = geometry.rays(np.deg2rad(angles_deg))
    rows, columns = geometry.image_shape
    # Down the rows the vertical position falls; in units of pixels, from the centre of the first one.
    sign = np.array([1.0, -1.0])
    place = point * sign / geometry.pixel_size + np.array([columns - 1, rows - 1]) / 2
    way = direction * sign
    across, along = (1, 0) if not by_columns else (0, 1)
    # Rays at exactly 45 degrees belong to the rows, whatever the rounding: one pass less.
    steep = np.abs(way[..., 1]) >= np.abs(way[..., 0]) * (1 - 1e-9)
    chosen = ~steep if by_columns else steep
    safe = np.where(chosen, way[..., across], 1.0)
    slope = np.where(chosen, way[..., along] / safe, 0.0)
    start = place[..., along] - place[..., across] * slope + 1  # one empty pixel before the line
    if geometry.is_parallel:
        sharpness = np.ones_like(slope)
    else:
        sharpness = 1 / np.maximum(np.abs(slope), 1e-6)  # a ray along an edge is shared by both sides
    length = geometry.pixel_size * np.sqrt(1 + slope**2)
    table = np.stack([start, slope, sharpness, length], axis=0).reshape(4, -1)
    # In a wide fan of few rays one that goes up may follow one that goes down; they meet no line in one order.
    heading = np.where(chosen, np.sign(way[..., across]), 0).astype(np.int8)
    turn = np.diff(heading, axis=1, prepend=0, append=0) != 0
    views, first = np.nonzero(turn[:, :-1] & chosen)
    last = np.nonzero(turn[:, 1:] & chosen)[1] + 1
    runs = np.stack([first, last], axis=1) + (views * geometry.detectors)[:, None]
    before = np.searchsorted(views, np.arange(len(angles_deg) + 1))
    return Rays(np.ascontiguousarray(table), np.ascontiguousarray(runs), before)


class KernelPlan(Plan):
    """What both plans without a matrix share: which images are computed together, as which lanes."""

    name = "matrix-free"

    def __init__(self, geometry: Geometry, dtype: torch.dtype) -> None:
        super().__init__()
        self.geometry, self.dtype = geometry, dtype
        self.folding = Folding.of(geometry)
        copies = len(self.folding.symmetries)
        most = next(n for n in reversed(kernels.LANES) if n == kernels.LANES[0] or n * self._lane_bytes <= SCRATCH)
        self.images_at_once = max(1, most // copies)
        lanes = len(kernels.lanes_for(copies))
        require_memory(
            f"a {geometry.describe()}", lanes * self._lane_bytes + TABLE_BYTES * len(self.folding.bases_deg)
            * geometry.detectors, "use larger pixels, fewer views or fewer detectors",
        )  # fmt: skip

    @property
    def _lane_bytes(self) -> int:
        rows, columns = self.geometry.image_shape
        return self.dtype.itemsize * (2 * rows * columns + len(self.folding.bases_deg) * self.geometry.detectors)

    def _chunks(self, batch: int) -> Iterator[tuple[slice, tuple[int, ...]]]:
        for first in range(0, batch, self.images_at_once):
            last = min(first + self.images_at_once, batch)
            yield slice(first, last), kernels.lanes_for((last - first) * len(self.folding.symmetries))

    def __str__(self) -> str:
        orbits, copies = self.folding.views.shape
        return f"{self.name}: {orbits} base views, {copies} copies of the image"


class RayDriven(KernelPlan):
    """The ray transform by ``kernels.project``: no matrix, no memory beyond the lanes.

    Parameters
    ----------
    geometry
        The scan.
    dtype
        Of what it will be applied to.
    """

    def __init__(self, geometry: Geometry, dtype: torch.dtype) -> None:
        super().__init__(geometry, dtype)
        self._sinogram = sinogram_layout(geometry, self.folding, 0)
        self._passes: list[tuple[Layout, Rays]] = []
        for by_columns in (False, True):
            rays = rays_across(geometry, self.folding.bases_deg, by_columns)
            if len(rays.runs):
                self._passes.append((image_layout(geometry, self.folding, 1, by_columns), rays))

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, rows, columns]`` to ``[batch, views, detectors]``, on the CPU."""
        geometry = self.geometry
        y = x.new_zeros(x.shape[0], geometry.views * geometry.detectors)
        for members, lanes in self._chunks(x.shape[0]):
            packed = [
                (layout.pack(x[members], lanes, f"image {k}").numpy(), layout, rays)
                for k, (layout, rays) in enumerate(self._passes)
            ]
            sinogram = scratch("sinogram", self._sinogram.size * len(lanes), x)
            self._project(packed, sinogram.numpy(), lanes)
            self._sinogram.unpack(sinogram, y[members], lanes)
        return y.reshape(-1, geometry.views, geometry.detectors)

    def _project(self, packed: list[tuple[Any, Layout, Rays]], sinogram: Any, lanes: tuple[int, ...]) -> None:
        entries = self.geometry.detectors * len(lanes)

        def work(first: int, last: int) -> None:
            sinogram[first * entries : last * entries] = 0
            for image, layout, rays in packed:
                runs = int(rays.runs_before[first]), int(rays.runs_before[last])
                kernels.project(image, layout.width, rays.table, rays.runs, *runs, sinogram, lanes)

        spread(work, len(self.folding.bases_deg))

    def adjoint(self, y: Tensor) -> Tensor:
        """``[batch, views, detectors]`` to ``[batch, rows, columns]``, on the CPU."""
        rows, columns = self.geometry.image_shape
        x = y.new_zeros(y.shape[0], rows * columns)
        for members, lanes in self._chunks(y.shape[0]):
            sinogram = self._sinogram.pack(y[members], lanes, "sinogram").numpy()
            for layout, rays in self._passes:
                image = scratch("image 0", layout.size * len(lanes), y)
                _project_back(image.numpy(), layout, rays, sinogram, lanes)
                layout.unpack(image, x[members], lanes)
        return x.reshape(-1, rows, columns)

    @property
    def bytes_held(self) -> int:
        """Of the table of rays."""
        return sum(rays.table.nbytes for _, rays in self._passes)


def _project_back(image: Any, layout: Layout, rays: Rays, sinogram: Any, lanes: tuple[int, ...]) -> None:
    entries = (layout.width + 2) * len(lanes)

    def work(first: int, last: int) -> None:
        image[first * entries : last * entries] = 0
        kernels.project_back(image, layout.width, rays.table, rays.runs, first, last, sinogram, lanes)

    spread(work, len(layout.starts))


class PixelDriven(KernelPlan):
    """The backprojection of filtered backprojection by ``kernels.collect``, as the adjoint.

    Parameters
    ----------
    geometry
        The scan.
    dtype
        Of what it will be applied to.
    """

    def __init__(self, geometry: Geometry, dtype: torch.dtype) -> None:
        super().__init__(geometry, dtype)
        self._image = image_layout(geometry, self.folding, 0)
        self._sinogram = sinogram_layout(geometry, self.folding, 1)
        self._shadows = shadows(geometry, self.folding.bases_deg)

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, rows, columns]`` to ``[batch, views, detectors]``, on the CPU."""
        geometry, layout = self.geometry, self._image
        y = x.new_zeros(x.shape[0], geometry.views * geometry.detectors)
        for members, lanes in self._chunks(x.shape[0]):
            image = layout.pack(x[members], lanes, "image 0").numpy()
            sinogram = scratch("sinogram", self._sinogram.size * len(lanes), x)
            _collect_back(image, layout, self._shadows, sinogram.numpy(), geometry.detectors, lanes)
            self._sinogram.unpack(sinogram, y[members], lanes)
        return y.reshape(-1, geometry.views, geometry.detectors)

    def adjoint(self, y: Tensor) -> Tensor:
        """``[batch, views, detectors]`` to ``[batch, rows, columns]``, on the CPU."""
        layout = self._image
        x = y.new_zeros(y.shape[0], layout.size)
        for members, lanes in self._chunks(y.shape[0]):
            sinogram = self._sinogram.pack(y[members], lanes, "sinogram").numpy()
            image = scratch("image 0", layout.size * len(lanes), y)
            _collect(image.numpy(), layout, self._shadows, sinogram, self.geometry.detectors, lanes)
            layout.unpack(image, x[members], lanes)
        return x.reshape(-1, *self.geometry.image_shape)

    @property
    def bytes_held(self) -> int:
        """Of the table of shadows."""
        return self._shadows.nbytes


def shadows(geometry: Geometry, angles_deg: tuple[float, ...]) -> FloatArray:
    """Where the pixels cast their shadow at `angles_deg`, ``[views, 7]``; see ``kernels.collect``."""
    a = np.deg2rad(angles_deg)
    cos, sin = np.cos(a), np.sin(a)
    size, far = geometry.pixel_size, 1 / geometry.source_to_axis
    x, y = geometry.x[0], geometry.y[0]
    pitch = geometry.detector_pitch / geometry.magnification
    first = geometry.detector_positions[0] / geometry.magnification
    along = np.stack([x * cos + y * sin, size * cos, -size * sin], axis=1) / pitch
    depth = np.stack([1 + (y * cos - x * sin) * far, -size * sin * far, -size * cos * far], axis=1)
    return np.concatenate([along, np.full((len(a), 1), 1 - first / pitch), depth], axis=1)


def _collect(image: Any, layout: Layout, table: Any, sinogram: Any, elements: int, lanes: tuple[int, ...]) -> None:
    entries = layout.width * len(lanes)

    def work(first: int, last: int) -> None:
        image[first * entries : last * entries] = 0
        kernels.collect(image, layout.width, table, first, last, sinogram, elements, lanes)

    spread(work, len(layout.starts))


def _collect_back(image: Any, layout: Layout, table: Any, sinogram: Any, elements: int, lanes: tuple[int, ...]) -> None:
    entries = (elements + 2) * len(lanes)

    def work(first: int, last: int) -> None:
        sinogram[first * entries : last * entries] = 0
        kernels.collect_back(image, layout.width, table, first, last, sinogram, elements, lanes)

    spread(work, len(table))
