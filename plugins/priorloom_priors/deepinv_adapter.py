"""Denoisers of deepinv (https://deepinv.org, BSD-3-Clause) in the plug-and-play slot; deepinv is not required.

deepinv's networks fetch their weights from the internet when they are built, and are not registered here: build one
yourself and give it to `from_deepinv`. Registered are those that have no weights. Its median filter is not: it takes no
noise level, so that it changes an image without noise.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import Tensor, nn

from priorloom import Denoiser, PriorloomError, Space
from priorloom.errors import InputError

from .denoiser_slot import OnParts

ComplexMode = Literal["real-imaginary", "magnitude"]


class DeepinvDenoiser:
    """A deepinv denoiser, called as ``denoiser(x[1, 1, rows, columns], sigma)`` with a number sigma, image by image.

    Several of deepinv's iterations stop for all images of a batch at once, or begin where the call before ended; so
    every image is a call of its own, which begins anew. There is no gradient with respect to sigma.

    Parameters
    ----------
    denoiser
        Any callable of this signature; a module is put in evaluation mode.
    space
        The Space of one image, real.
    unit
        What images and sigma are divided by first: deepinv's networks were trained on values from 0 to 1.
    """

    def __init__(self, denoiser: Callable[[Tensor, float], Tensor], space: Space, unit: float = 1.0) -> None:
        if space.ndim != 2 or space.is_complex:
            raise InputError("images for a deepinv denoiser", expected="two dimensions, real", got=space)
        if not 0 < unit < float("inf"):
            raise InputError("unit of a deepinv denoiser", expected="a positive number", got=unit)
        self.denoiser = denoiser.eval() if isinstance(denoiser, nn.Module) else denoiser
        self.space = space
        self.unit = unit

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The denoised `x`, ``[..., rows, columns]``."""
        self.space.check(x, "image for a deepinv denoiser")
        try:
            levels = torch.as_tensor(sigma).expand(*self.space.batch_shape(x), 1, 1).flatten().tolist()
        except RuntimeError:
            raise InputError("sigma of a deepinv denoiser", expected="one number, or one per batch element",
                             got=list(sigma.shape)) from None  # fmt: skip
        if not all(0 <= level < float("inf") for level in levels):
            raise InputError("sigma of a deepinv denoiser", expected="finite, at least 0", got=levels)
        images = x.reshape(-1, *self.space.shape)
        made = [self._one(image, level) for image, level in zip(images, levels, strict=True)]
        return torch.stack(made).reshape(x.shape) if made else x.clone()

    def _one(self, image: Tensor, sigma: float) -> Tensor:
        if sigma == 0:
            return image.clone()
        if hasattr(self.denoiser, "restart"):
            self.denoiser.restart = True
        weights = next(self.denoiser.parameters(), None) if isinstance(self.denoiser, nn.Module) else None
        given = (image / self.unit)[None, None].to(image.dtype if weights is None else weights.dtype)
        result = self.denoiser(given, sigma / self.unit)
        if not isinstance(result, Tensor) or result.shape != given.shape:
            got = list(result.shape) if isinstance(result, Tensor) else type(result).__name__
            raise InputError("output of a deepinv denoiser", expected=list(given.shape), got=got)
        return result[0, 0].to(image.dtype) * self.unit


def from_deepinv(
    denoiser: Callable[[Tensor, float], Tensor],
    space: Space,
    *,
    unit: float = 1.0,
    complex_mode: ComplexMode = "real-imaginary",
) -> Denoiser:
    """A deepinv denoiser of one channel as a Denoiser; nothing is proven of it.

    Parameters
    ----------
    denoiser, space, unit
        As for `DeepinvDenoiser`; the space may be complex.
    complex_mode
        For complex images: both parts, each with noise ``sigma / sqrt(2)``, or the magnitude with the phase kept.
    """
    if not space.is_complex:
        return DeepinvDenoiser(denoiser, space, unit)
    return OnParts(DeepinvDenoiser(denoiser, space.with_dtype(space.real_dtype), unit), complex_mode)


def tv(
    space: Space, *, strength: float = 0.8, max_iterations: int = 300, complex_mode: ComplexMode = "real-imaginary"
) -> Denoiser:
    """deepinv's TVDenoiser: ``argmin_u 0.5 |u - x|^2 + strength sigma TV(u)`` (Condat, 2013).

    Parameters
    ----------
    strength
        The weight in units of sigma.
    max_iterations
        Budget of the inner iteration.
    complex_mode
        real-imaginary, or magnitude with the phase kept.
    """
    return _scaled(space, strength, complex_mode, "TVDenoiser", n_it_max=max_iterations)


def tgv(
    space: Space, *, strength: float = 0.8, max_iterations: int = 300, complex_mode: ComplexMode = "real-imaginary"
) -> Denoiser:
    """deepinv's TGVDenoiser: total generalised variation of second order (Bredies, Kunisch and Pock, 2010).

    Parameters
    ----------
    strength, max_iterations, complex_mode
        As for deepinv-tv.
    """
    return _scaled(space, strength, complex_mode, "TGVDenoiser", n_it_max=max_iterations)


def wavelet(
    space: Space, *, strength: float = 1.0, level: int = 3, complex_mode: ComplexMode = "real-imaginary"
) -> Denoiser:
    """deepinv's WaveletDenoiser: soft thresholds on an orthogonal wavelet transform (db8). Needs ptwt too.

    Parameters
    ----------
    strength
        The threshold in units of sigma.
    level
        Depth of the transform.
    complex_mode
        real-imaginary, or magnitude with the phase kept.
    """
    if find_spec("ptwt") is None:
        raise PriorloomError("denoiser 'deepinv-wavelet' needs deepinv and ptwt", cure="pip install deepinv ptwt")
    return _scaled(space, strength, complex_mode, "WaveletDenoiser", level=level)


def _scaled(space: Space, strength: float, mode: ComplexMode, name: str, **settings: Any) -> Denoiser:
    """A deepinv class whose second argument is a weight in the place of sigma."""
    if not 0 < strength < float("inf"):
        raise InputError("strength of a deepinv denoiser", expected="a positive number", got=strength)
    made = _models(name)(**settings).eval()

    def weighted(x: Tensor, sigma: float) -> Tensor:
        if hasattr(made, "restart"):
            made.restart = True
        result: Tensor = made(x, strength * sigma)
        return result

    return from_deepinv(weighted, space, complex_mode=mode)


def _models(name: str) -> Any:
    """A class of ``deepinv.models``; its import fails with more than ImportError where torchvision does not fit."""
    try:
        from deepinv import models  # type: ignore[import-not-found]
    except (ImportError, RuntimeError, OSError, AttributeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise PriorloomError(f"deepinv's {name}", expected="deepinv installed", got=reason,
                             cure="pip install deepinv, with a torchvision that fits torch") from error  # fmt: skip
    return getattr(models, name)
