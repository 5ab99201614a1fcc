"""Attenuation units and measurement noise."""

from __future__ import annotations

import torch
from torch import Tensor

from priorloom.errors import InputError

MU_WATER = 0.0206
"""Attenuation of water in 1/mm at 60 keV: 0.2059 cm^2/g (Hubbell and Seltzer, NIST Standard Reference Database 126)."""


def from_hounsfield(hu: Tensor) -> Tensor:
    """Hounsfield units to attenuation in 1/mm: ``mu = mu_water (1 + HU / 1000)``, at least zero."""
    return (MU_WATER * (1 + hu / 1000)).clamp_min(0)


def to_hounsfield(mu: Tensor) -> Tensor:
    """Attenuation in 1/mm to Hounsfield units."""
    return 1000 * (mu / MU_WATER - 1)


def photon_counts(line_integrals: Tensor, photons: float, generator: torch.Generator) -> Tensor:
    """Raw counts: Poisson distributed with mean ``photons exp(-p)``, in the shape of the sinogram p.

    Parameters
    ----------
    line_integrals
        Noiseless line integrals p.
    photons
        Mean count of a detector element without an object.
    generator
        Source of randomness, on the CPU.
    """
    if not photons >= 1 or photons == float("inf"):
        raise InputError("photons", expected="a finite number of at least 1", got=photons)
    means = photons * torch.exp(-line_integrals.double().cpu())
    return torch.poisson(means, generator=generator).to(line_integrals)


def line_integrals(counts: Tensor, photons: float) -> Tensor:
    """``-log(counts / photons)``; empty elements count as one photon, since the logarithm of zero is not a number."""
    return -torch.log(counts.clamp_min(1) / photons)


def photon_noise(sinogram: Tensor, photons: float, generator: torch.Generator) -> tuple[Tensor, float]:
    """The sinogram as measured with a stated number of photons, and the standard deviation of its noise.

    To first order the variance of ``-log`` of a Poisson count is one over its mean, ``exp(p) / photons``; the
    returned standard deviation is the root mean square of that over the sinogram.
    """
    noisy = line_integrals(photon_counts(sinogram, photons, generator), photons)
    return noisy, float((sinogram.double().exp().mean() / photons).sqrt())


def gaussian_noise(sinogram: Tensor, std: float, generator: torch.Generator) -> Tensor:
    """The sinogram plus white Gaussian noise of standard deviation `std`."""
    if not 0 <= std < float("inf"):
        raise InputError("standard deviation of the noise", expected="a number of at least 0", got=std)
    noise = torch.randn(sinogram.shape, dtype=sinogram.dtype, generator=generator)
    return sinogram + std * noise.to(sinogram.device)
