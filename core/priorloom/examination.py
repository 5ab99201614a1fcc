"""examine(): whether a denoiser can be used at all, found out on one image before anything is built on it."""

from __future__ import annotations

import torch
from torch import Tensor

from .errors import InputError, PriorloomError
from .plug_and_play import Denoiser

_CURE = "choose one for complex images, or denoiser.complex_mode=real-imaginary or magnitude where it has that"


def examine(denoiser: Denoiser, what: str, x: Tensor, sigma: Tensor) -> Tensor:
    """The denoised `x`, which has the shape and the dtype of `x` and is finite.

    Parameters
    ----------
    denoiser, what
        The denoiser, and what messages call it.
    x, sigma
        The image ``[..., *shape]`` and the noise level.

    Raises
    ------
    InputError
        Another shape or dtype, values that are not finite, an image that was written into, any error on complex images,
        and what the denoiser raises of its own, such as a sigma outside the trained range.
    """
    given = x.clone()
    try:
        result: object = denoiser(given, sigma)
    except Exception as error:  # whatever the library behind a denoiser raises for numbers that it does not know
        if not x.is_complex() or isinstance(error, PriorloomError):
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{what} on complex images", expected="complex images to be denoised",
                         got=reason, cure=_CURE) from error  # fmt: skip
    if not isinstance(result, Tensor):
        raise InputError(f"output of {what}", expected="a tensor", got=type(result).__name__)
    if result.shape != x.shape or result.dtype != x.dtype:
        raise InputError(
            f"output of {what}", expected=f"{list(x.shape)} {x.dtype}", got=f"{list(result.shape)} {result.dtype}",
            cure=_CURE if x.is_complex() and not result.is_complex() else None,
        )  # fmt: skip
    if not bool(result.isfinite().all()):
        raise InputError(f"output of {what}", expected="finite values", got="NaN or infinite ones",
                         cure="the denoiser is broken; try another")  # fmt: skip
    if not torch.equal(given, x):
        raise InputError(what, expected="the image given to it left as it was", got="one that was written into",
                         cure="let it work on a copy: x.clone()")  # fmt: skip
    return result
