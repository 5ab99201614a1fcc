"""Training examples for MRI: magnitudes with a random phase, measured by random coils through random masks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from priorloom.errors import InputError
from priorloom.modality import Batch, Simulate

from .coils import birdcage_maps
from .masks import MaskName, make_mask
from .noise import add_noise
from .phantoms import as_scanned, phantom

if TYPE_CHECKING:
    from priorloom.registry import Registry

PHANTOMS: Mapping[str, Callable[[tuple[int, int], torch.Generator], Tensor]] = {"shepp-logan": phantom}


def from_stored(magnitude: Tensor, generator: torch.Generator) -> Tensor:
    """A magnitude with random phases (`as_scanned`), complex64 ``[rows, columns]``."""
    return as_scanned(magnitude, generator)


def typical_magnitude(images: Tensor) -> Tensor:
    """The 99th percentile of the magnitude of each image ``[..., rows, columns]`` (the maximum where that is zero)."""
    magnitude = images.abs().flatten(-2)
    percentile = magnitude.kthvalue(math.ceil(0.99 * magnitude.shape[-1])).values
    return torch.where(percentile > 0, percentile, magnitude.amax(-1))


def simulator(
    registry: Registry,
    operator: Mapping[str, Any],
    image_shape: tuple[int, int],
    *,
    seed: int,
    acceleration: tuple[float, float] = (4.0, 4.0),
    masks: tuple[MaskName, ...] = ("variable-density",),
    coils: int = 8,
    noise: tuple[float, float] = (0.002, 0.02),
    operators: int = 32,
) -> Simulate:
    """Scans with a mask, coils and a noise level drawn for every batch.

    Parameters
    ----------
    registry, operator, image_shape, seed
        As for every simulator; the operator is mri.sense2d where its settings do not say otherwise. A mask in them is
        that of every scan.
    acceleration
        The range of nominal accelerations; drawn uniformly.
    masks
        Kinds of masks, of which each operator takes one.
    coils
        Number of receive coils; the ring's radius is random (no maps for mri.fourier2d).
    noise
        The range of the noise's standard deviation relative to the brightest pixel; drawn log-uniformly.
    operators
        How many masks with coils are drawn, once; each batch takes one of them.
    """
    settings = dict(operator)
    name = str(settings.pop("name", "mri.sense2d"))
    if not 0 < noise[0] <= noise[1] < math.inf:
        raise InputError("simulation.noise", expected="a range of positive numbers", got=noise)
    if not masks or operators < 1:
        raise InputError("simulation.masks and simulation.operators", expected="at least one", got=(masks, operators))
    drawn = torch.Generator().manual_seed(seed)
    pool = []
    for i in range(operators):
        factor = acceleration[0] + (acceleration[1] - acceleration[0]) * float(torch.rand((), generator=drawn))
        lines = make_mask(masks[i % len(masks)], image_shape, acceleration=factor, generator=drawn)
        given: dict[str, Any] = {"image_shape": image_shape} if name == "mri.fourier2d" else {}
        if not given:
            radius = 1.2 + 0.8 * float(torch.rand((), generator=drawn))
            given = {"maps": birdcage_maps(coils, image_shape, radius)}
        A = registry.operator(name, **{**given, "mask": lines, **settings})
        own = getattr(A, "mask", None)  # another one where the settings have a mask
        pool.append((A, own if isinstance(own, Tensor) else lines))

    def simulate(images: Tensor, generator: torch.Generator) -> Batch:
        A, mask = pool[int(torch.randint(len(pool), (), generator=generator))]
        level = noise[0] * (noise[1] / noise[0]) ** float(torch.rand((), generator=generator))
        peak = images.abs().amax(dim=(-2, -1))
        std = level * peak
        images, peak, std = images.to(A.device), peak.to(A.device), std.to(A.device)
        clean = A(images)
        spread = (peak / peak.max()).reshape(-1, *[1] * A.range.ndim)
        y = clean + spread * add_noise(torch.zeros_like(clean), float(std.max()), generator, mask)
        scale = typical_magnitude(A.pseudo_inverse(y))
        image_scale = scale.reshape(-1, 1, 1)
        return Batch(A, y / scale.reshape(-1, *[1] * A.range.ndim), images / image_scale, std / scale)

    return simulate
