"""ASTRA's CUDA projectors on torch's own memory: nothing goes through the host, nothing is kept between calls.

Forward, ASTRA follows rays (Joseph's interpolation, by the texture units, whose weights have eight bits of fraction).
Back, it looks up every voxel's shadow in the views. The two have the same scale but are **not** transposes of each
other: ``adjoint_is_exact`` is False, ``priorloom check`` refuses the pair and prints the gap, and what needs the exact
gradient (CG to many digits, training through hundreds of layers) is better served by a matrix.

ASTRA's coordinates in 3D have rows of the volume rising along y, ours fall; all vectors are mirrored instead of data.
"""

from __future__ import annotations

import math
import threading
import weakref
from typing import Any

import numpy as np
import torch
from torch import Tensor

from priorloom.errors import InputError, PriorloomError
from priorloom.memory import readable_bytes

from .backends import backend
from .geometry import FloatArray, Geometry
from .geometry3d import ConeGeometry
from .plan import Plan
from .weights import astra_vectors

SLICES = 512
"""Images of a batch that are stacked into one volume at most."""

_LOCK = threading.Lock()  # ASTRA's projectors are not thread-safe


class AstraParallel(Plan):
    """Parallel beams: a batch is a volume, and every image one of its slices.

    Parameters
    ----------
    geometry
        The scan.
    """

    name = "astra"
    adjoint_is_exact = False

    def __init__(self, geometry: Geometry) -> None:
        super().__init__()
        self.geometry = geometry
        self._kept: tuple[int, _Projector] | None = None

    @property
    def bytes_held(self) -> int:
        """None: ASTRA's textures last as long as a call."""
        return 0

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, rows, columns]`` to ``[batch, views, detectors]``."""
        _require_single(x)
        y = x.new_empty(len(x), self.geometry.views, self.geometry.detectors)
        if not len(x):  # a projector has at least one slice
            return y
        for images, views in zip(torch.split(x.contiguous(), SLICES), torch.split(y, SLICES), strict=True):
            self._projector(len(images)).run(images, views, adjoint=False)
        return y

    def adjoint(self, y: Tensor) -> Tensor:
        """``[batch, views, detectors]`` to ``[batch, rows, columns]``; near the transpose, see the module."""
        _require_single(y)
        x = y.new_empty(len(y), *self.geometry.image_shape)
        if not len(y):
            return x
        for images, views in zip(torch.split(x, SLICES), torch.split(y.contiguous(), SLICES), strict=True):
            self._projector(len(images)).run(images, views, adjoint=True)
        return x

    def _projector(self, slices: int) -> _Projector:
        if self._kept is None or self._kept[0] != slices:
            self._kept = slices, _Projector("cuda3d", *stacked_beams(self.geometry, slices))
        return self._kept[1]

    def __str__(self) -> str:
        return "astra: CUDA, batches as volumes; the adjoint is not the exact transpose"


class AstraFan(Plan):
    """Fan beams, one image after the other.

    Parameters
    ----------
    geometry
        The scan.
    projector
        ASTRA's name of the projector; one for the CPU serves to test this class without CUDA.
    """

    name = "astra"
    adjoint_is_exact = False

    def __init__(self, geometry: Geometry, projector: str = "cuda") -> None:
        super().__init__()
        self.geometry, self.projector = geometry, projector
        self._kept: _Projector | None = None

    @property
    def bytes_held(self) -> int:
        """None: ASTRA's textures last as long as a call."""
        return 0

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, rows, columns]`` to ``[batch, views, detectors]``."""
        _require_single(x)
        y = x.new_empty(len(x), self.geometry.views, self.geometry.detectors)
        for image, views in zip(x.contiguous(), y, strict=True):
            self._projector().run(image, views, adjoint=False)
        return y

    def adjoint(self, y: Tensor) -> Tensor:
        """``[batch, views, detectors]`` to ``[batch, rows, columns]``; near the transpose, see the module."""
        _require_single(y)
        x = y.new_empty(len(y), *self.geometry.image_shape)
        for image, views in zip(x, y.contiguous(), strict=True):
            self._projector().run(image, views, adjoint=True)
        return x

    def _projector(self) -> _Projector:
        if self._kept is None:
            self._kept = _Projector(self.projector, *fan_beam(self.geometry))
        return self._kept

    def __str__(self) -> str:
        return "astra: CUDA, one image at a time; the adjoint is not the exact transpose"


class AstraCone(Plan):
    """Cone beams on circles and helices, one volume after the other.

    Parameters
    ----------
    geometry
        The scan.
    """

    name = "astra"
    adjoint_is_exact = False

    def __init__(self, geometry: ConeGeometry) -> None:
        super().__init__()
        self.geometry = geometry
        self._kept: _Projector | None = None

    @property
    def bytes_held(self) -> int:
        """None: ASTRA's textures last as long as a call."""
        return 0

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, slices, rows, columns]`` to ``[batch, views, detector rows, detector columns]``."""
        _require_single(x)
        views, rows, columns = self.geometry.range_shape
        y = x.new_empty(len(x), views, rows, columns)
        for volume, out in zip(x.contiguous(), y, strict=True):
            result = x.new_empty(rows, views, columns)
            self._projector().run(volume, result, adjoint=False)
            out.copy_(result.transpose(0, 1))
        return y

    def adjoint(self, y: Tensor) -> Tensor:
        """The way back; near the transpose, see the module."""
        _require_single(y)
        x = y.new_empty(len(y), *self.geometry.image_shape)
        for volume, views in zip(x, y, strict=True):
            self._projector().run(volume, views.transpose(0, 1).contiguous(), adjoint=True)
        return x

    def _projector(self) -> _Projector:
        if self._kept is None:
            self._kept = _Projector("cuda3d", *cone_beam(self.geometry))
        return self._kept

    def __str__(self) -> str:
        return "astra: CUDA, one volume at a time; the adjoint is not the exact transpose"


def astra_plan(geometry: Geometry) -> Plan:
    """ASTRA's CUDA projectors for a scan of one slice."""
    return AstraParallel(geometry) if geometry.is_parallel else AstraFan(geometry)


class _Projector:
    """An ASTRA projector that ends with this object."""

    def __init__(self, kind: str, projection: dict[str, Any], volume: dict[str, Any]) -> None:
        self.astra = backend("astra", "the CUDA projectors")
        self.made_of = kind, projection, volume
        self.solid = kind.endswith("3d")
        self.number = self.astra.create_projector(kind, projection, volume)
        delete = self.astra.projector3d.delete if self.solid else self.astra.projector.delete
        weakref.finalize(self, delete, self.number)

    # A copy is a projector of its own.
    def __reduce__(self) -> tuple[Any, ...]:
        return _Projector, self.made_of

    def run(self, volume: Tensor, views: Tensor, adjoint: bool) -> None:
        """From one to the other, in the memory of the two; both contiguous, one of them about to be overwritten."""
        direct = backend("astra.experimental", "the CUDA projectors")
        source, output = (views, volume) if adjoint else (volume, views)
        if self.made_of[0].startswith("cuda"):
            _require_cuda(source)
        if self.solid:
            function = direct.direct_BP3D if adjoint else direct.direct_FP3D
        else:
            function = direct.direct_BP2D if adjoint else direct.direct_FP2D
        with _LOCK:
            if volume.is_cuda:
                # ASTRA computes on streams of its own, which know nothing of torch's.
                torch.cuda.synchronize(volume.device)
                self.astra.set_gpu_index(volume.device.index)
            output.view(-1)[0] = math.nan
            function(self.number, volume.detach(), views.detach())
            if volume.is_cuda:
                torch.cuda.synchronize(volume.device)
        # Where ASTRA fails, it may only write to its log.
        if bool(output.view(-1)[0].isnan()) and bool(source.isfinite().all()):
            raise PriorloomError("ASTRA's CUDA projector failed", cure="see its log above; try a smaller batch")


def stacked_beams(geometry: Geometry, slices: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """ASTRA's ``parallel3d_vec`` and volume for so many images, at heights 1 mm apart with a detector row each."""
    angles = np.deg2rad(geometry.angles_deg)
    cos, sin, zero = np.cos(angles), np.sin(angles), np.zeros_like(angles)
    ray, element = np.stack([-sin, cos, zero], 1), np.stack([cos, sin, zero], 1)
    up = np.stack([zero, zero, zero + 1], 1)
    vectors = _mirrored(ray, -geometry.offset * element, geometry.detector_pitch * element, up)
    astra = backend("astra", "the CUDA projectors")
    projection = astra.create_proj_geom("parallel3d_vec", slices, geometry.detectors, vectors)
    return projection, _volume(geometry, slices, 1.0)


def fan_beam(geometry: Geometry) -> tuple[dict[str, Any], dict[str, Any]]:
    """ASTRA's ``fanflat_vec`` and image, in two dimensions, where rows fall along y as ours do."""
    astra = backend("astra", "the CUDA projectors")
    rows, columns = geometry.image_shape
    width, height = columns * geometry.pixel_size / 2, rows * geometry.pixel_size / 2
    vectors = astra_vectors(geometry, np.deg2rad(geometry.angles_deg))
    return (
        astra.create_proj_geom("fanflat_vec", geometry.detectors, vectors),
        astra.create_vol_geom(rows, columns, -width, width, -height, height),
    )


def cone_beam(geometry: ConeGeometry) -> tuple[dict[str, Any], dict[str, Any]]:
    """ASTRA's ``cone_vec`` and volume."""
    plane, angles = geometry.plane, geometry.angles
    cos, sin, zero = np.cos(angles), np.sin(angles), np.zeros_like(angles)
    height = np.stack([zero, zero, geometry.source_z], 1)
    ray, element = np.stack([-sin, cos, zero], 1), np.stack([cos, sin, zero], 1)
    up = np.stack([zero, zero, zero + 1], 1)
    centre = plane.axis_to_detector * ray - plane.offset * element - geometry.row_offset * up + height
    vectors = _mirrored(
        -plane.source_to_axis * ray + height, centre, plane.detector_pitch * element, geometry.row_pitch * up
    )
    astra = backend("astra", "the CUDA projectors")
    projection = astra.create_proj_geom("cone_vec", geometry.detector_rows, plane.detectors, vectors)
    return projection, _volume(plane, geometry.slices, geometry.slice_thickness)


def _mirrored(*vectors: FloatArray) -> FloatArray:
    """``[views, 12]`` with the y axis turned round."""
    joined: FloatArray = np.concatenate([v * [1, -1, 1] for v in vectors], axis=1)
    return joined


def _volume(plane: Geometry, slices: int, thickness: float) -> dict[str, Any]:
    rows, columns = plane.image_shape
    x, y, z = columns * plane.pixel_size / 2, rows * plane.pixel_size / 2, slices * thickness / 2
    made: dict[str, Any] = backend("astra", "the CUDA projectors").create_vol_geom(
        rows, columns, slices, -x, x, -y, y, -z, z
    )
    return made


def _require_cuda(source: Tensor) -> None:
    """Without a GPU, ASTRA ends the process; without the memory for its texture, it fails."""
    if not source.is_cuda:
        raise InputError("plan astra", expected="tensors on a CUDA device", got=source.device, cure="use plan=auto")
    needed = source.numel() * source.element_size()
    if torch.cuda.mem_get_info(source.device)[0] < 1.1 * needed:
        torch.cuda.empty_cache()  # what torch keeps for itself
    free = torch.cuda.mem_get_info(source.device)[0]
    if free < 1.1 * needed:
        raise InputError(
            "memory of the CUDA device", expected=f"at least {readable_bytes(needed)} for ASTRA's copy of the input",
            got=f"{readable_bytes(free)}", cure="use a smaller batch",
        )  # fmt: skip


def _require_single(x: Tensor) -> None:
    if x.dtype != torch.float32:
        raise InputError(
            "precision of the plan astra",
            expected=torch.float32,
            got=x.dtype,
            cure="compute on the CPU, or plan=folded",
        )
