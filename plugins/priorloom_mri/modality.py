"""The MRI modality: normalisation, noise estimate, metrics convention and simulated cases."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from priorloom.errors import InputError
from priorloom.modality import Case, Modality, Training

from .coils import birdcage_maps
from .masks import MaskName, kspace_radius, make_mask, sampled_fraction
from .noise import add_noise
from .phantoms import phantom
from .training import PHANTOMS, from_stored, simulator, typical_magnitude

if TYPE_CHECKING:
    from priorloom.registry import Registry

METHODS = ("zero-filled", "cg-sense", "l1-wavelet", "tv-pdhg", "pnp-admm")

VALUE_LIMIT = 2**27
"""Values of a simulated k-space."""


def mri() -> Modality:
    """Magnetic resonance imaging: complex images, k-space measurements, magnitudes at the edges."""
    return Modality(
        "mri", "Cartesian MRI", "arbitrary", METHODS, scale, noise_std, data_range, torch.abs, cases,
        Training(from_stored, PHANTOMS, simulator),
    )  # fmt: skip


def scale(case: Case) -> float:
    """The 99th percentile of the zero-filled magnitude: an intensity near 1 inside, whatever the scanner's unit."""
    return float(typical_magnitude(case.operator.pseudo_inverse(case.measurement)))


def noise_std(case: Case, fraction: float = 0.1) -> float:
    """Noise level from the outermost `fraction` of the sampled k-space, where signal is weakest.

    The modulus of complex Gaussian noise is Rayleigh distributed with median ``sigma sqrt(ln 2)``: a median that a few
    samples with signal do not move. Coils are taken one by one and averaged as powers.
    """
    y = case.measurement
    rows, columns = y.shape[-2:]
    coils = y.reshape(-1, rows, columns)
    radius = kspace_radius((rows, columns)).to(y.device)
    sampled = (coils != 0).any(0)
    count = int(sampled.sum())
    if count == 0:
        return 0.0
    outermost = radius[sampled].topk(max(1, math.ceil(fraction * count))).indices
    medians = coils[:, sampled][:, outermost].abs().median(dim=-1).values
    return float(medians.square().mean().sqrt()) / math.sqrt(math.log(2))


def data_range(truth: Tensor) -> float:
    """The maximum of the true magnitude (fastMRI's evaluate)."""
    return float(truth.max())


def cases(
    registry: Registry,
    operator: Mapping[str, Any],
    *,
    seed: int,
    acceleration: float = 4.0,
    mask: MaskName = "variable-density",
    coils: int = 8,
    noise: float = 0.005,
    image_shape: tuple[int, int] = (128, 128),
) -> list[Case]:
    """A Shepp-Logan head with smooth phase, measured by birdcage coils through a random mask.

    Parameters
    ----------
    registry
        Where the operator comes from.
    operator
        ``operator.*``: its ``name`` (mri.sense2d when absent) and further parameters.
    seed
        Of the phase, the mask and the noise.
    acceleration
        Nominal acceleration R; what the mask achieves is in the metadata.
    mask
        Kind of sampling mask.
    coils
        Number of receive coils (one for mri.fourier2d).
    noise
        Standard deviation of the k-space noise relative to the brightest pixel.
    image_shape
        (rows, columns).
    """
    settings = dict(operator)
    name = str(settings.pop("name", "mri.sense2d"))
    if not 0 <= noise < math.inf:
        raise InputError("case.noise", expected="a number of at least 0", got=noise)
    if not 0 < math.prod(image_shape) * max(coils, 1) <= VALUE_LIMIT:
        raise InputError("case.image_shape times case.coils", expected=f"1 to {VALUE_LIMIT} values",
                         got=f"{image_shape} x {coils}")  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    truth = phantom(image_shape, generator)
    lines = make_mask(mask, image_shape, acceleration=acceleration, generator=generator)
    if name == "mri.fourier2d":
        coils = 1
        made: dict[str, Any] = {"image_shape": image_shape}
    else:
        made = {"maps": birdcage_maps(coils, image_shape)}
    A = registry.operator(name, **{**made, "mask": lines, **settings})
    if A.domain.shape != truth.shape:
        raise InputError(f"image of operator '{name}'", expected=list(truth.shape), got=list(A.domain.shape),
                         cure="set case.image_shape")  # fmt: skip
    y = add_noise(A(truth), noise, generator, lines)
    fraction = sampled_fraction(lines)
    facts = {
        "source": "Shepp-Logan phantom with smooth phase",
        "mask": mask,
        "nominal acceleration": acceleration,
        "sampled fraction": round(fraction, 4),
        "achieved acceleration": round(1 / fraction, 3),
        "coils": coils,
        "noise": noise,
    }
    return [Case("phantom", "mri", A, y, truth, noise if noise > 0 else None, facts)]
