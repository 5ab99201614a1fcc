"""A trained denoiser from its folder: the network with the noise levels and the intensities that it knows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .card import read_card
from .errors import InputError
from .models import load_card, number_type
from .networks.denoising import DenoisingNetwork
from .operator import Identity
from .regularity import Regularity, regularity_of
from .space import Space
from .steps.learned import Denoise

if TYPE_CHECKING:
    from .registry import Registry

LENIENCE = 1.05
"""A noise level may be above those of training by this factor."""


class TrainedDenoiser(nn.Module):
    """``D(x, sigma)`` with a trained network: images and noise levels as `Denoiser` says, within the trained range.

    It was trained on complex images without their smooth phase (``steps.learned.smooth_phase``); `Rephased` takes it
    out of an iteration's images.

    Parameters
    ----------
    space
        The Space of one image.
    network
        D.
    name
        The model's, for messages.
    noise
        The lowest and the highest level in training. A level above is an InputError; one below is served with the
        lowest, since less noise is not harder.
    """

    def __init__(self, space: Space, network: DenoisingNetwork, name: str, noise: tuple[float, float]) -> None:
        super().__init__()
        self.space = space
        self.network = network
        self.name = name
        self.noise = noise
        if hasattr(network, "potential"):
            self.potential = self._potential
        self.train(network.training)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The denoised `x`, ``[..., *shape]``."""
        image: Tensor = self.network(x, self._checked(x, sigma))
        return image

    def regularity(self, sigma: float) -> Regularity:
        """What is proven of the network."""
        return regularity_of(self.network, sigma)

    def _potential(self, x: Tensor, sigma: Tensor) -> Tensor:
        potential: Any = self.network.potential
        value: Tensor = potential(x, self._checked(x, sigma))
        return value

    def _checked(self, x: Tensor, sigma: Tensor) -> Tensor:
        self.space.check(x, f"image for denoiser '{self.name}'")
        sigma, what = torch.as_tensor(sigma), f"sigma of denoiser '{self.name}'"
        try:
            sigma.expand(*self.space.batch_shape(x), *(1,) * self.space.ndim)
        except RuntimeError:
            raise InputError(what, expected="one number, or one per batch element", got=list(sigma.shape)) from None
        if not bool((sigma >= 0).all()):
            raise InputError(what, expected="at least 0", got=f"{float(sigma.min()):.3g}")
        low, high = self.noise
        if not bool((sigma <= LENIENCE * high).all()):
            raise InputError(
                what, expected=f"at most {high:.3g} (it was trained for {low:.2g} to {high:.3g})",
                got=f"{float(sigma.max()):.3g}", cure="lower sigma, or train on more noise",
            )  # fmt: skip
        return sigma.clamp_min(low)


def load_denoiser(folder: Path, space: Space, registry: Registry) -> TrainedDenoiser:
    """The denoiser of a model's folder.

    Raises
    ------
    InputError
        Not a denoiser, one for other numbers (real, complex), or anything that is not exactly what the card says.
    """
    card = read_card(folder)
    if card.scope.images != number_type(space):
        raise InputError(
            f"images for model '{card.name}'", expected=f"{card.scope.images} images", got=f"{number_type(space)} ones",
            cure="set complex_mode to real-imaginary or magnitude where the denoiser has that, or use a model that was "
            "trained on complex images" if space.is_complex else "use a model that was trained on real images",
        )  # fmt: skip
    model = load_card(folder, card, registry, Identity(space))
    layer = model.layers[0]
    if len(model.layers) != 1 or not isinstance(layer, Denoise):
        raise InputError(f"model '{card.name}' as a denoiser", expected="one that was trained for denoising",
                         got=f"architecture '{card.architecture.name}'")  # fmt: skip
    return TrainedDenoiser(space, layer.network, card.name, card.scope.noise_std)
