"""check_denoiser(): does it take out noise, image by image, without touching anything else?"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ..plug_and_play import Denoiser
from ..space import Space
from .measures import Check, ConformanceError, far, require, require_fit, rounding, unchanged


def check_denoiser(denoiser: Denoiser, space: Space, *, sigma: float = 0.1, seed: int = 0) -> list[Check]:
    """Check a Denoiser on a smooth image with values from 0 to 1 and white noise of standard deviation `sigma`.

    Shape, dtype and device; the input stays as it was; the same output twice; a batch with a sigma per image equals the
    single images; the noise becomes less; and as sigma goes to zero the image stays.

    Parameters
    ----------
    denoiser, space
        The denoiser and the Space of its images.
    sigma
        The noise level of the test.
    seed
        Of the noise.
    """
    with torch.no_grad():
        return list(_denoiser_checks(denoiser, space, sigma, torch.Generator().manual_seed(seed)))


def _denoiser_checks(denoiser: Denoiser, space: Space, sigma: float, generator: torch.Generator) -> Iterator[Check]:
    clean = _smooth_image(space)
    noisy = clean + sigma * space.random(generator, (2,))
    level = torch.tensor(sigma, dtype=space.real_dtype)
    result = unchanged("denoiser", lambda v: denoiser(v, level), noisy)
    require_fit("output of the denoiser", space, result, (2,))
    if result.device != noisy.device:
        raise ConformanceError("device of the denoiser's output", expected=noisy.device, got=result.device)
    yield Check("shape, dtype, device, finite values", 0.0)
    yield require("same output twice", far(space, denoiser(noisy, level), result), 0.0)
    levels = space.expand(torch.tensor([sigma, sigma / 2], dtype=space.real_dtype))
    stacked = torch.stack([denoiser(image, s.reshape(())) for image, s in zip(noisy, levels, strict=True)])
    yield require("batch equals stack", far(space, denoiser(noisy, levels), stacked), 1000 * rounding(space))
    left = float((space.norm(result - clean) / space.norm(noisy - clean)).max())
    yield require("share of the noise that is left", left, 0.999)
    faint = far(space, denoiser(noisy, 1e-4 * level), noisy)
    yield require("change of the image as sigma goes to zero", faint, 0.01)


def _smooth_image(space: Space) -> Tensor:
    image = torch.ones(space.shape, dtype=space.real_dtype)
    for axis, n in enumerate(space.shape):
        wave = 0.5 - 0.5 * torch.cos(2 * math.pi * (torch.arange(n, dtype=space.real_dtype) + 0.5) / n)
        image = image * wave.reshape(-1, *(1,) * (space.ndim - axis - 1))
    return torch.polar(image, image) if space.is_complex else image
