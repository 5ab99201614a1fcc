"""Regularity: what is proven of a denoiser as a map of images, on which every convergence theorem rests."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Regularity:
    """Proven facts about ``D(., sigma)`` for one sigma, in the Euclidean norm on images of any size; None: unknown.

    Parameters
    ----------
    lipschitz
        ``|D(x) - D(z)| <= lipschitz |x - z|``.
    averaged
        theta in (0, 1] with ``D = (1 - theta) I + theta N`` and N nonexpansive (Bauschke and Combettes, 2017, section
        4.5): 1 is nonexpansive, 1/2 firmly nonexpansive.
    residual
        The same of ``R = I - D``: ``|R(x) - R(z)| <= residual |x - z|``.
    gradient
        Whether ``D = I - grad g`` for a function g that is bounded from below, whose value is ``potential(x, sigma)``.
    convex
        Whether that g is convex.
    reason
        Why, in a few words.
    """

    lipschitz: float | None = None
    averaged: float | None = None
    residual: float | None = None
    gradient: bool = False
    convex: bool = False
    reason: str = ""

    @property
    def is_firm(self) -> bool:
        """Whether D is firmly nonexpansive: the resolvent of a monotone operator."""
        return self.averaged is not None and self.averaged <= 0.5

    @property
    def is_prox(self) -> bool:
        """Whether D is the proximal map of a convex function: a firmly nonexpansive gradient (Moreau, 1965)."""
        return self.is_firm and self.gradient

    @property
    def kind(self) -> str:
        """The class in words: contractive, averaged, nonexpansive, gradient of a function, or none."""
        names = []
        if self.lipschitz is not None and self.lipschitz < 1:
            names.append(f"contractive ({self.lipschitz:.6g})")
        if self.is_prox:
            names.append("proximal map of a convex function")
        elif self.averaged is not None and self.averaged < 1:
            names.append(f"averaged ({self.averaged:.6g})")
        elif self.averaged is not None:
            names.append("nonexpansive")
        if self.gradient and not self.is_prox:
            names.append("gradient of a function")
        return ", ".join(names) or "none"

    def to_json(self) -> dict[str, Any]:
        """The plain form for files."""
        return {**asdict(self), "class": self.kind}


def regularity_of(denoiser: object, sigma: float | Tensor) -> Regularity:
    """What `denoiser` says is proven of it at `sigma` (of several noise levels, at all); nothing where it is silent."""
    stated: Any = getattr(denoiser, "regularity", None)
    if not callable(stated):
        return Regularity(reason=f"nothing is proven of {name_of(denoiser)}")
    levels = {float(s) for s in torch.as_tensor(sigma).detach().flatten()}
    found: list[Regularity] = [stated(level) for level in levels]
    if all(f == found[0] for f in found):
        return found[0]
    return Regularity(reason="what is proven differs between the noise levels of the batch")


def name_of(denoiser: object) -> str:
    """What to call a denoiser in a message: that of a function or a class, of what is wrapped for complex images."""
    while (inner := getattr(denoiser, "denoiser", None)) is not None:
        denoiser = inner
    # A function that a factory has made is known by the factory.
    return str(getattr(denoiser, "__qualname__", type(denoiser).__qualname__)).partition(".<locals>")[0]
