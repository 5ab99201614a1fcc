"""Noisy images for denoisers: the reconstruction with A = I."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from ..modality import Batch, Modality, Simulate, Training
from ..operator import Identity
from ..space import Space

OPERATOR = "image.identity"
"""What the card of a denoiser says in the place of a registered operator."""


@dataclass(frozen=True)
class Denoising:
    """White Gaussian noise of a level that is drawn for every image.

    Parameters
    ----------
    noise
        The range of its standard deviation as a fraction of the image's data range (``Modality.data_range``).
    emphasis
        How often low levels are drawn, where plug-and-play iterations end: a level is ``low + (high - low) u^emphasis``
        with u uniform.
    """

    noise: tuple[float, float] = (0.0, 50 / 255)
    emphasis: float = 2.0

    def __post_init__(self) -> None:
        low, high = self.noise
        if not 0 <= low <= high < math.inf or high == 0:
            raise InputError("denoising.noise in the config", expected="a range of fractions of the data range, such as"
                             " [0, 0.2]", got=self.noise)  # fmt: skip
        if not 0 < self.emphasis < math.inf:
            raise InputError("denoising.emphasis in the config", expected="a positive number", got=self.emphasis)


def denoising(settings: Denoising, modality: Modality, training: Training) -> Simulate:
    """Images with noise, normalised as the modality does."""
    low, high = settings.noise

    def simulate(images: Tensor, generator: torch.Generator) -> Batch:
        space = Space(tuple(images.shape[1:]), images.dtype)
        truth = images / space.expand(training.unit(images))
        spans = torch.tensor([modality.data_range(modality.display(image)) for image in truth])
        levels = low + (high - low) * torch.rand(len(truth), generator=generator) ** settings.emphasis
        std = (levels * spans).to(space.real_dtype)
        noise = space.random(generator, (len(truth),))
        return Batch(Identity(space), truth + space.expand(std) * noise, truth, std)

    return simulate
