"""Training examples for CT: low-dose scans simulated on the fly."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from priorloom.errors import InputError
from priorloom.modality import Batch, Simulate

from .phantoms import adler_ellipses, adler_shepp_logan, foam, random_ellipses, shepp_logan
from .simulate import MU_WATER, line_integrals, photon_counts

if TYPE_CHECKING:
    from priorloom.registry import Registry

PHANTOMS: Mapping[str, Callable[[tuple[int, int], torch.Generator], Tensor]] = {
    "shepp-logan": lambda shape, _: shepp_logan(shape),
    "ellipses": random_ellipses,
    "foam": foam,
    "adler-ellipses": adler_ellipses,
    "adler-shepp-logan": lambda shape, _: adler_shepp_logan(shape),
}


def water(images: Tensor) -> Tensor:
    """The attenuation of water for every image, ``[batch]``."""
    return images.new_full(images.shape[:1], MU_WATER)


def simulator(
    registry: Registry,
    operator: Mapping[str, Any],
    image_shape: tuple[int, int],
    *,
    seed: int,
    photons: tuple[float, float] = (1e5, 1e5),
    relative_noise: float | None = None,
    pixel_sizes: tuple[float, ...] = (1.0,),
) -> Simulate:
    """Scans with a dose and a pixel size drawn for every batch.

    Parameters
    ----------
    registry, operator, image_shape, seed
        As for every simulator; the operator is ct.parallel2d with 60 views where its settings do not say otherwise.
    photons
        The range of photons per detector element without an object; drawn log-uniformly.
    relative_noise
        White Gaussian noise instead of photons: its standard deviation as a fraction of the mean of ``|Ax|``, as Adler
        and Oktem (2018) simulate.
    pixel_sizes
        Sides of a pixel in mm, of which each batch takes one.
    """
    settings = dict(operator)
    name = str(settings.pop("name", "ct.parallel2d"))
    if "angles_deg" not in settings:
        settings.setdefault("views", 60)
    low, high = photons
    if not 1 <= low <= high < math.inf:
        raise InputError("simulation.photons", expected="a range of at least 1", got=photons)
    if relative_noise is not None and not 0 < relative_noise < math.inf:
        raise InputError("simulation.relative_noise", expected="a positive number", got=relative_noise)
    if not pixel_sizes:
        raise InputError("simulation.pixel_sizes", expected="at least one", got="none")
    operators = [
        registry.operator(name, **{"image_shape": image_shape, "pixel_size": size, **settings}) for size in pixel_sizes
    ]

    def simulate(images: Tensor, generator: torch.Generator) -> Batch:
        A = operators[int(torch.randint(len(operators), (), generator=generator))]
        clean = A(images.to(A.device))
        if relative_noise is not None:
            std = relative_noise * clean.abs().mean(dim=A.range.dims)
            noisy = clean + A.range.expand(std) * torch.randn(clean.shape, generator=generator).to(clean)
            return Batch(A, noisy / MU_WATER, images / MU_WATER, std / MU_WATER)
        dose = low * (high / low) ** float(torch.rand((), generator=generator))
        noisy = line_integrals(photon_counts(clean, dose, generator), dose)
        # To first order the variance of -log of a Poisson count is one over its mean.
        std = (clean.double().exp().mean(dim=A.range.dims) / dose).sqrt().float()
        return Batch(A, noisy / MU_WATER, images / MU_WATER, std / MU_WATER)

    return simulate
