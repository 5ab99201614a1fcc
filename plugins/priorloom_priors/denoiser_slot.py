"""A denoiser in the slot of a method: built for real or complex images, examined before the iteration begins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from priorloom import Case, Denoiser
from priorloom.errors import InputError
from priorloom.examination import examine
from priorloom.pipeline import Slot
from priorloom.plug_and_play import Rephased
from priorloom.regularity import Regularity, regularity_of
from priorloom.steps.learned import smooth_phase
from priorloom.trained_denoiser import TrainedDenoiser

Phase = Literal["smooth", "none"]

SAME = 1e-5
"""Two results of one denoiser on one image may differ by this fraction of the largest entry: the order of sums."""

RED_WEIGHT = 0.25
"""Of 0.12, 0.25, 0.5 and 1 the best on two slices of LIDC-IDRI-0314 and TotalSegmentator and on four simulated scans of
the MRI training subjects (lines and points), with the shipped ridge denoisers at 0.5 to 3 times the noise."""


class OnParts(nn.Module):
    """A denoiser of real images on complex ones.

    "real-imaginary": ``D(Re x, sigma / sqrt(2)) + i D(Im x, sigma / sqrt(2))``, as each part has half of the noise's
    variance; everything that is proven of D holds for it too. "magnitude": ``max(D(|x|, sigma / sqrt(2)), 0) x / |x|``,
    the phase kept; nothing is proven, as the phase is not continuous at 0.

    Parameters
    ----------
    denoiser
        D.
    mode
        Which.
    """

    def __init__(self, denoiser: Denoiser, mode: Literal["real-imaginary", "magnitude"]) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.mode = mode
        if mode == "real-imaginary" and hasattr(denoiser, "potential"):
            self.potential = self._potential

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The denoised `x`, ``[..., *shape]``."""
        level = torch.as_tensor(sigma) / 2**0.5
        if self.mode == "magnitude":
            return self.denoiser(x.abs(), level).clamp_min(0) * x.sgn()
        real, imaginary = self.denoiser(torch.stack((x.real, x.imag)), level)
        return torch.complex(real, imaginary)

    def regularity(self, sigma: float) -> Regularity:
        """That of D at ``sigma / sqrt(2)``; nothing of the magnitude."""
        if self.mode == "magnitude":
            return Regularity(reason="the phase of an image is not continuous where it vanishes")
        return regularity_of(self.denoiser, sigma / 2**0.5)

    def _potential(self, x: Tensor, sigma: Tensor) -> Tensor:
        potential: Any = self.denoiser.potential  # type: ignore[attr-defined]
        value: Tensor = potential(torch.stack((x.real, x.imag)), torch.as_tensor(sigma) / 2**0.5)
        return value.sum(0)


@dataclass(frozen=True)
class Filled:
    """A denoiser slot, filled.

    Parameters
    ----------
    name
        The denoiser's, for messages.
    denoiser
        What the method calls, on images of the case.
    bare
        What the slot holds, without what deals with complex images.
    """

    name: str
    denoiser: Denoiser
    bare: Denoiser

    def within(self, sigma: float) -> float:
        """`sigma`, moved into the range of a trained denoiser: for levels that a method chooses."""
        trained, unit = self._trained()
        return sigma if trained is None else min(max(sigma, unit * trained.noise[0]), unit * trained.noise[1])

    def weight(self, sigma: float) -> float:
        """RED_WEIGHT times the weight with which the regulariser of the denoiser removes noise of this level where it
        has learned one (``RidgeNetwork.weight``), else 1."""
        trained, unit = self._trained()
        weight: Any = None if trained is None else getattr(trained.network, "weight", None)
        return RED_WEIGHT * float(weight(torch.tensor(sigma / unit)).detach()) if callable(weight) else 1.0

    def _trained(self) -> tuple[TrainedDenoiser | None, float]:
        """The trained denoiser in the slot, and the level on images over that which it sees."""
        parts = isinstance(self.bare, OnParts)
        inner = self.bare.denoiser if isinstance(self.bare, OnParts) else self.bare
        return (inner if isinstance(inner, TrainedDenoiser) else None), (2**0.5 if parts else 1.0)

    def examine(self, x: Tensor, sigma: float) -> None:
        """Denoise `x` twice, and compare.

        Raises
        ------
        InputError
            Another shape or dtype, values that are not finite, an image that was written into, two results that
            differ, or a sigma outside the trained range.
        """
        what = f"denoiser '{self.name}'"
        level = torch.as_tensor(sigma, dtype=x.real.dtype, device=x.device)
        first = examine(self.bare, what, x, level)
        difference, size = float((self.bare(x, level) - first).abs().max()), float(first.abs().max())
        if difference > SAME * size:
            raise InputError(
                what, expected="the same result for the same image",
                got=f"results that differ by up to {difference:.2g} where the image is at most {size:.2g}",
                cure="an iteration needs a deterministic denoiser: fix its seed, or put its network in evaluation mode",
            )  # fmt: skip


def fill(case: Case, slot: Slot, image: Tensor, phase: Phase) -> Filled:
    """The denoiser of a slot for the images of a case.

    Parameters
    ----------
    case
        The case; its modality is told to denoisers that ask for one.
    slot
        The slot.
    image
        A first reconstruction, whose smooth phase complex images are divided by where `phase` says so.
    phase
        "smooth" or "none".
    """
    bare: Denoiser = slot.build(case.operator.image_space, modality=case.modality)
    if isinstance(bare, nn.Module):
        bare.to(image.device).eval()
    smooth = image.is_complex() and phase == "smooth"
    return Filled(slot.name, Rephased(bare, smooth_phase(image)) if smooth else bare, bare)
