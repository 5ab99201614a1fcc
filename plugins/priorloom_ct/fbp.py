"""Filtered backprojection for parallel and fan beams."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from priorloom.errors import InputError
from priorloom.operator import LinearOperator
from priorloom.space import Space

from .geometry import FloatArray, Geometry
from .plan import Plan, pixel_plan

if TYPE_CHECKING:
    from .operators import RayTransform

Filter = Literal["ram-lak", "shepp-logan", "cosine", "hamming", "hann"]


def filtered_backprojection(
    operator: RayTransform, y: Tensor, filter: Filter = "ram-lak", cutoff: float = 1.0
) -> Tensor:
    """The direct reconstruction: weigh, filter every view, backproject.

    With views at angles a, virtual detector positions s at the rotation axis, and D the distance from the source to
    the axis::

        q = (D / sqrt(D^2 + s^2) r(a, s) y(a, s)) * h
        image(s, d) = sum over a of weight(a) (D / (D + d))^2 q(a, s D / (D + d))

    where s and d are the coordinates of the pixel along the detector and along the central ray, h is the band-limited
    ramp (Kak and Slaney, Principles of Computerized Tomographic Imaging, eq. 61 of ch. 3, times the window) and r
    shares out rays that are measured twice. For parallel rays D is infinite and r = 1. Every ray through the object
    must reach the detector in all views.

    Parameters
    ----------
    operator
        The ray transform of the scan.
    y
        The sinogram ``[..., views, detectors]``.
    filter
        Window on the ramp; "ram-lak" is none.
    cutoff
        Where the window ends, as a fraction of the detector's Nyquist frequency, in (0, 1].

    Returns
    -------
    image
        ``[..., rows, columns]`` in 1/mm; differentiable with respect to `y`.
    """
    operator.range.check(y, "sinogram")
    if not y.numel():  # there is no FFT of an empty batch
        return operator.backprojection.forward(y)
    geometry = operator.geometry
    response = ramp_response(geometry.detectors, filter, cutoff) / (geometry.detector_pitch / geometry.magnification)
    backprojection = operator.backprojection
    length = 2 * (len(response) - 1)
    spectrum = torch.fft.rfft(y * backprojection.ray_weights, n=length) * response.to(y)
    filtered = torch.fft.irfft(spectrum, n=length)[..., : geometry.detectors]
    image: Tensor = backprojection(filtered.contiguous())
    return image


def ramp_response(detectors: int, filter: Filter, cutoff: float) -> Tensor:
    """Response of the windowed ramp at unit pitch, for zero-padded views, ``[padded / 2 + 1]``.

    Sampling the band-limited ramp in space rather than in frequency keeps the mean right (Kak and Slaney, section
    3.3.3).
    """
    if not 0 < cutoff <= 1:
        raise InputError("cutoff of the filter", expected="a fraction of Nyquist in (0, 1]", got=cutoff)
    length = 2 ** math.ceil(math.log2(max(2 * detectors, 8)))
    n = torch.arange(length, dtype=torch.float64)
    n = torch.minimum(n, length - n)
    kernel = torch.where(n % 2 == 1, -1 / (math.pi * n.clamp_min(1)) ** 2, torch.zeros_like(n))
    kernel[0] = 0.25
    response = torch.fft.rfft(kernel).real
    f = torch.arange(length // 2 + 1, dtype=torch.float64) / (length // 2) / cutoff  # 1 at the cutoff
    windows = {
        "ram-lak": torch.ones_like(f),
        "shepp-logan": torch.sinc(f / 2),
        "cosine": torch.cos(math.pi * f / 2),
        "hamming": 0.54 + 0.46 * torch.cos(math.pi * f),
        "hann": 0.5 + 0.5 * torch.cos(math.pi * f),
    }
    if filter not in windows:
        raise InputError("filter", expected=f"one of {', '.join(windows)}", got=filter)
    windowed: Tensor = response * windows[filter] * (f <= 1)
    return windowed


class Backprojection(LinearOperator):
    """Pixel-driven backprojection, ``[..., views, detectors]`` to ``[..., rows, columns]``.

    Each pixel takes from every view the value at its shadow (linear interpolation), times ``(D / (D + d))^2`` in a
    fan.

    Parameters
    ----------
    geometry
        The scan.
    """

    def __init__(self, geometry: Geometry) -> None:
        super().__init__(Space((geometry.views, geometry.detectors)), Space(geometry.image_shape))
        self.geometry = geometry
        self.register_buffer("ray_weights", torch.from_numpy(fan_weights(geometry)).float(), persistent=False)
        self.ray_weights: Tensor
        self._plan: Plan | None = None
        self._planned_for: tuple[str, torch.dtype] | None = None

    @property
    def plan(self) -> Plan:
        """How it is computed here; made on first use."""
        here = self.device.type, self.domain.dtype
        plan = self._plan
        if plan is None or self._planned_for != here:
            plan = pixel_plan(self.geometry, self.domain.dtype, self.device)
            self._plan, self._planned_for = plan, here
        return plan

    def _forward(self, x: Tensor) -> Tensor:
        images = self.plan.adjoint(x.reshape(-1, *self.domain.shape))
        return images.reshape(*self.domain.batch_shape(x), *self.range.shape)

    def _adjoint(self, y: Tensor) -> Tensor:
        views: Tensor = self.plan(y.reshape(-1, *self.range.shape))
        return views.reshape(*self.range.batch_shape(y), *self.domain.shape)


def fan_weights(geometry: Geometry) -> FloatArray:
    """Angular weight, cosine of the fan angle and share of every ray, ``[views, detectors]``.

    A parallel view stands for the angles (modulo half a turn) that are nearest to it. In a fan the ray at source
    angle a and fan angle g is measured again at ``a + pi - 2 g``; rays are shared out in proportion to a function c
    of the source angle that falls smoothly to zero at the ends of the arc and is one elsewhere (Noo, Defrise,
    Clackdoyle and Kudo, Phys. Med. Biol. 47, 2002), which covers full turns, short scans and limited arcs.
    """
    if geometry.is_parallel:
        weights, _ = angular_weights(geometry.angles_deg, 180.0)
        return np.repeat(weights[:, None], geometry.detectors, axis=1)
    weights, arc = angular_weights(geometry.angles_deg, 360.0)
    fan = np.arctan(geometry.detector_positions / geometry.magnification / geometry.source_to_axis)
    angles = np.deg2rad(geometry.angles_deg)[:, None]
    here, there = _taper(angles, arc), _taper(angles + math.pi - 2 * fan, arc)
    here = np.maximum(here, 1e-9)  # never 0 / 0: a ray that nobody else has counts in full
    shared: FloatArray = weights[:, None] * np.cos(fan) * here / (here + there)
    return shared


def _taper(angle: FloatArray, arc: tuple[float, float] | None) -> FloatArray:
    """c: cos^2 over the last ten degrees (at most a quarter) of the arc, in radians; one everywhere on a full turn."""
    if arc is None:
        return np.ones_like(angle)
    start, length = arc
    into = np.mod(angle - start, 2 * math.pi)
    to_end = np.minimum(into, length - into).clip(min=0)
    ramp = min(math.radians(10), length / 4)
    taper: FloatArray = np.sin(math.pi / 2 * np.minimum(to_end / ramp, 1)) ** 2
    return taper


def angular_weights(angles_deg: tuple[float, ...], period_deg: float) -> tuple[FloatArray, tuple[float, float] | None]:
    """The angle that every view stands for, and the arc (start, length) that they cover (None: all of it), in radians.

    Half the distance between the neighbours, cyclically; angles that repeat to a millionth of a degree share it. A gap
    of more than three times the second largest is a missing wedge, which nobody stands for: the views beside it count
    as if their other gap repeated itself.
    """
    # Rounded once more after the remainder, so that 359.9999999 and 0 are one.
    turned = np.mod(np.round(np.mod(angles_deg, period_deg), 6), period_deg)
    distinct, member, repeats = np.unique(turned, return_inverse=True, return_counts=True)
    angles, period = np.deg2rad(distinct), math.radians(period_deg)
    after = np.diff(angles, append=angles[0] + period)
    before = np.roll(after, 1)
    arc = None
    widest = int(np.argmax(after))
    others = np.delete(after, widest)
    if others.size and 3 * others.max() < after[widest]:
        following = (widest + 1) % len(angles)
        wedge = after[widest]
        after[widest], before[following] = before[widest], after[following]
        start = angles[following] - before[following] / 2
        arc = (start, period - wedge + (before[following] + after[widest]) / 2)
    weights: FloatArray = ((before + after) / 2 / repeats)[member]
    return weights, arc
