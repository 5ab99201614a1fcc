"""Filtered backprojection of cone beams: Feldkamp, Davis and Kress on circles, and its extension to helices."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from priorloom.memory import require_memory
from priorloom.operator import LinearOperator
from priorloom.space import Space

from .fbp import Filter, angular_weights, fan_weights, ramp_response
from .geometry import FloatArray
from .geometry3d import COPIES, ConeGeometry, compiled_kernels
from .plan import require_precision
from .threads import spread

OVERLAP = math.radians(20)
"""Half the angle over which one turn of a helix fades into the next."""

_BLOCK = 2**26  # bytes of padded detector rows that are filtered at once


def fdk(backprojection: ConeBackprojection, y: Tensor, filter: Filter = "ram-lak", cutoff: float = 1.0) -> Tensor:
    """The direct reconstruction: weigh, filter every detector row, backproject.

    With detector positions (u, v) relative to the shadow of the rotation axis in the source's plane, R the distance
    from the source to the detector and D to the axis::

        q = (R / sqrt(R^2 + u^2 + v^2) r(a, u) y(a, v, u)) * h
        image = sum over a of weight(a) g(a, z) (D / (D + d))^2 q(a, shadow of the voxel)

    where d is the voxel's depth behind the axis, h the band-limited ramp along the rows, and r shares out rays that are
    measured twice: a half on a full circle, Parker's weights on an arc of at least half a turn and the fan (`parker`),
    on less than that as in a fan beam (``fbp``). On a circle g = 1, and the image is exact in the source's plane only
    (Feldkamp, Davis and Kress, J. Opt. Soc. Am. A 1, 1984). On a helix, g is one turn around the voxel's height with
    edges that overlap smoothly (after Wang, Lin, Cheng and Shinozaki, IEEE Trans. Med. Imaging 12, 1993): an
    approximation that is the better the smaller the pitch.

    Parameters
    ----------
    backprojection
        That of the scan.
    y
        The measurement ``[..., views, detector rows, detector columns]``.
    filter
        Window on the ramp; "ram-lak" is none.
    cutoff
        Where the window ends, as a fraction of the detector's Nyquist frequency, in (0, 1].

    Returns
    -------
    image
        ``[..., slices, rows, columns]`` in 1/mm; differentiable with respect to `y`.
    """
    if not y.numel():  # there is no FFT of an empty batch
        return backprojection.forward(y)
    # What was filtered, twice while it is put together, and what the backprojection needs.
    entries = 2 * y.numel() + COPIES * (backprojection.domain.size + backprojection.range.size)
    require_memory("filtered backprojection", y.element_size() * entries, "use a smaller batch or fewer views")
    plane = backprojection.geometry.plane
    response = ramp_response(plane.detectors, filter, cutoff) / (plane.detector_pitch / plane.magnification)
    length = 2 * (len(response) - 1)

    def filtered(views: Tensor, weights: Tensor) -> Tensor:
        spectrum = torch.fft.rfft(views * weights, n=length) * response.to(views)
        rows: Tensor = torch.fft.irfft(spectrum, n=length)[..., : plane.detectors]
        return rows

    # A few views at a time: the padded rows take many times the memory of the views.
    per_view = y.element_size() * length * y.shape[-2] * math.prod(y.shape[:-3])
    blocks = zip(
        torch.split(y, max(1, _BLOCK // per_view), dim=-3),
        torch.split(backprojection.ray_weights, max(1, _BLOCK // per_view)),
        strict=True,
    )
    image: Tensor = backprojection(torch.cat([filtered(*block) for block in blocks], dim=-3))
    return image


class ConeBackprojection(LinearOperator):
    """Voxel-driven backprojection, ``[..., views, detector rows, columns]`` to ``[..., slices, rows, columns]``.

    Every voxel takes from every view the value at its shadow (bilinear interpolation), times ``(D / (D + d))^2`` and,
    on a helix, the weight of the view at the voxel's height. On CUDA, circles are backprojected by ASTRA; everything
    else is computed on the CPU.

    Parameters
    ----------
    geometry
        The scan.
    """

    def __init__(self, geometry: ConeGeometry) -> None:
        super().__init__(Space(geometry.range_shape), Space(geometry.image_shape))
        self.geometry = geometry
        require_memory("the weights of FDK", 12 * self.domain.size, "use fewer views")  # computed in double precision
        self.register_buffer("ray_weights", torch.from_numpy(ray_weights(geometry)).float(), persistent=False)
        self.ray_weights: Tensor

    def _forward(self, x: Tensor) -> Tensor:
        if x.is_cuda and not self.geometry.pitch:
            return self._by_astra(x)
        return self._each(x, self.domain, self.range, adjoint=False)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._each(y, self.range, self.domain, adjoint=True)

    def _by_astra(self, x: Tensor) -> Tensor:
        """ASTRA's backprojection weighs a voxel in a view by its volume over the area that an element covers there."""
        from .astra_cuda import AstraCone

        plane = self.geometry.plane
        voxel = plane.pixel_size**2 * self.geometry.slice_thickness
        element = plane.detector_pitch * self.geometry.row_pitch / plane.magnification**2
        volumes = AstraCone(self.geometry).adjoint(x.reshape(-1, *self.domain.shape)) * (element / voxel)
        return volumes.reshape(*self.domain.batch_shape(x), *self.range.shape)

    def _each(self, x: Tensor, source: Space, target: Space, adjoint: bool) -> Tensor:
        batch = source.batch_shape(x)
        entries = math.prod(batch) * target.size + COPIES * (source.size + target.size)
        require_precision(x.dtype)
        require_memory("a batch of backprojections", x.element_size() * entries, "use a smaller batch")
        y = x.new_empty(*batch, *target.shape)
        slices, rows, columns = self.range.shape
        for one, out in zip(x.detach().reshape(-1, *source.shape), y.view(-1, *target.shape), strict=True):
            if adjoint:
                views = torch.empty((target.shape[0], target.shape[2], target.shape[1]), dtype=x.dtype)
                self._run(one.cpu().permute(1, 2, 0).contiguous(), views, adjoint=True)
                out.copy_(views.transpose(1, 2))
            else:
                volume = torch.empty((rows, columns, slices), dtype=x.dtype)
                self._run(volume, one.cpu().transpose(1, 2).contiguous(), adjoint=False)
                out.copy_(volume.permute(2, 0, 1))
        return y

    def _run(self, volume: Tensor, views: Tensor, adjoint: bool) -> None:
        """One volume ``[rows, columns, slices]`` and its views ``[views, detector columns, detector rows]``."""
        kernels, scan = compiled_kernels("backprojection of cone beams"), self.geometry
        window = turn_window(scan)
        shadows, arrays = scan.shadows(window), (volume.resolve_neg().numpy(), views.resolve_neg().numpy())
        window = window.astype(volume.numpy().dtype)
        bottom = float(scan.z[0])
        if adjoint:
            kernel, count = kernels.backproject_transposed, views.shape[0]
        else:
            kernel, count = kernels.backproject, volume.shape[0]
        spread(
            lambda first, last: kernel(*arrays, shadows, scan.plane.x, scan.plane.y, bottom, window, first, last), count
        )


def ray_weights(geometry: ConeGeometry) -> FloatArray:
    """Angle that a view stands for, cosine and share of every ray, ``[views, detector rows, detector columns]``."""
    plane, reach = geometry.plane, geometry.source_to_detector
    u, v = plane.detector_positions[None, :], geometry.row_positions[:, None]
    weights = shares(geometry)[:, None, :] * (reach / np.sqrt(reach**2 + u**2 + v**2))
    return weights


def shares(geometry: ConeGeometry) -> FloatArray:
    """Angle that a view stands for, times the share of a ray that is measured twice, ``[views, detector columns]``."""
    plane = geometry.plane
    fan = np.arctan(plane.detector_positions / geometry.source_to_detector)
    if geometry.pitch:
        angles, member, repeats = np.unique(geometry.angles, return_inverse=True, return_counts=True)
        spans = np.abs(np.gradient(angles)) if len(angles) > 1 else np.full(1, 2 * math.pi)
        return np.repeat((spans / repeats)[member][:, None] / 2, plane.detectors, axis=1)
    weights, arc = angular_weights(plane.angles_deg, 360.0)
    if arc is None:
        return np.repeat(weights[:, None] / 2, plane.detectors, axis=1)
    start, length = arc
    widest = min(float(np.abs(fan).max()), math.asin(_radius(geometry) / plane.source_to_axis))
    if length < math.pi + 2 * widest:  # a limited arc
        fan_beam: FloatArray = fan_weights(plane) / np.cos(fan)
        return fan_beam
    along = np.mod(geometry.angles - start, 2 * math.pi)
    shared: FloatArray = weights[:, None] * parker(along[:, None], fan[None], length)
    return shared


def parker(along: FloatArray, fan: FloatArray, arc: float) -> FloatArray:
    """Share of the ray at the source angle `along` (from the beginning of the arc) and the fan angle `fan`, in radians.

    The ray is measured again at ``along + pi - 2 fan`` with the opposite fan angle, and the shares of the two add up to
    one. Parker's weights (Med. Phys. 9, 1982) for an arc of half a turn and the fan; a longer `arc` fades over all of
    what it measures twice.
    """
    half = (arc - math.pi) / 2
    fan = np.clip(fan, -half, half)
    tiny = 1e-12
    rising = np.sin(np.pi / 4 * np.clip(along / np.maximum(half + fan, tiny), 0, 2)) ** 2
    falling = np.sin(np.pi / 4 * np.clip((arc - along) / np.maximum(half - fan, tiny), 0, 2)) ** 2
    share: FloatArray = rising * falling
    return share


def turn_window(geometry: ConeGeometry) -> FloatArray:
    """Weight of every view for every slice, ``[views, slices]``; over the turns of a helix it adds up to one."""
    if not geometry.pitch:
        return np.ones((geometry.plane.views, geometry.slices))
    turned = np.abs(geometry.z[None] - geometry.source_z[:, None]) / abs(geometry.pitch) * 2 * math.pi
    window: FloatArray = np.cos(np.pi / 4 * np.clip((turned - math.pi) / OVERLAP + 1, 0, 2)) ** 2
    return np.where(window < 1e-12, 0.0, window)


def remarks(geometry: ConeGeometry) -> tuple[str, ...]:
    """What the direct method cannot get right in this scan, for the result's warnings: truncation, lacking views."""
    plane, found = geometry.plane, []
    radius = _radius(geometry)
    edge = radius / math.sqrt(1 - (radius / plane.source_to_axis) ** 2) * plane.magnification
    half = plane.detectors * plane.detector_pitch / 2
    if edge > half - abs(plane.offset) + 1e-6 * edge:
        found.append(
            f"the detector reaches {half - abs(plane.offset):.4g} mm to the side, the shadow of the volume "
            f"{edge:.4g} mm: what lies outside of the field of view in any view spoils the image (truncation)"
        )
    top = geometry.slices * geometry.slice_thickness / 2
    reach = geometry.row_positions + geometry.row_pitch / 2, geometry.row_positions - geometry.row_pitch / 2
    rows = min(float(reach[0].max()), -float(reach[1].min()))
    nearest = geometry.source_to_detector / (plane.source_to_axis - radius)
    if geometry.pitch:
        turn = abs(geometry.pitch) * (0.5 + OVERLAP / (2 * math.pi))
        complete = (geometry.z >= geometry.source_z.min() + turn) & (geometry.z <= geometry.source_z.max() - turn)
        if not complete.all():
            lacking = int((~complete).sum())
            found.append(f"{lacking} of {geometry.slices} slices are too near to an end of the helix and lack views")
        top = min(top, turn)
    if top * nearest > rows * (1 + 1e-6):
        found.append(
            f"the detector reaches {rows:.4g} mm in height, the shadow of the volume {top * nearest:.4g} mm: "
            "the outermost voxels lack views"
        )
    return tuple(found)


def _radius(geometry: ConeGeometry) -> float:
    """Of the volume's cylinder in mm."""
    rows, columns = geometry.plane.image_shape
    return math.hypot(rows, columns) / 2 * geometry.plane.pixel_size
