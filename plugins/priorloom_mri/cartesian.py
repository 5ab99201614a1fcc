"""The centred orthonormal Fourier transform on a grid of any number of axes, and sampling masks.

The convention is that of ``bart fft -u``, sigpy and fastMRI: image and k-space are centred, so the centre of an axis of
n points has index ``s = n // 2``, and the FFT is unitary. Shifting arrays on each call would cost as much as the FFT.
Instead, since ``(j - s)(k - s) = jk - js - ks + s^2``, with an FFT that starts at index 0,

    y_k = exp(2 pi i (k s - s^2) / n) / sqrt(n) FFT(x_j exp(2 pi i j s / n))_k

along each axis: one factor on the image, folded into the coil maps, and one on k-space, folded into the mask.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from priorloom.errors import InputError

Array = np.ndarray[Any, Any]


def fftc(x: Tensor, ndim: int = 2) -> Tensor:
    """Centred orthonormal FFT over the last `ndim` axes: image to k-space."""
    axes = tuple(range(-ndim, 0))
    shifted: Tensor = torch.fft.fftshift(torch.fft.fftn(torch.fft.ifftshift(x, axes), dim=axes, norm="ortho"), axes)
    return shifted


def ifftc(k: Tensor, ndim: int = 2) -> Tensor:
    """Centred orthonormal inverse FFT over the last `ndim` axes: k-space to image."""
    axes = tuple(range(-ndim, 0))
    shifted: Tensor = torch.fft.fftshift(torch.fft.ifftn(torch.fft.ifftshift(k, axes), dim=axes, norm="ortho"), axes)
    return shifted


def image_factor(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """``exp(2 pi i j s / n)`` along every axis, ``[*shape]``: a checkerboard of signs where all n are even."""
    return _outer(shape, lambda j, s: j * s).to(dtype)


def kspace_factor(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """``exp(2 pi i (k s - s^2) / n) / sqrt(n)`` along every axis, ``[*shape]``."""
    return (_outer(shape, lambda k, s: k * s - s * s) / math.sqrt(math.prod(shape))).to(dtype)


def _outer(shape: tuple[int, ...], turns: Any) -> Tensor:
    product = torch.ones((), dtype=torch.complex128)
    for n in shape:
        angle = 2 * math.pi * (turns(torch.arange(n), n // 2) % n).double() / n
        product = product[..., None] * torch.polar(torch.ones_like(angle), angle)
    return product


def sampling_mask(mask: Tensor | Array | None, shape: tuple[int, ...]) -> tuple[Tensor, tuple[int, ...]]:
    """`mask` as a bool tensor ``[frames, *sizes]``, each size that of the image or 1, and the shape of the frames.

    The last axes of a mask are those of the image; leading ones that it lacks were all sampled. With one axis more
    than the image, the first counts the frames: the shape of the frames is ``(n,)``, else ``()``. An axis along which
    the mask does not vary comes back with size 1.

    Raises
    ------
    InputError
        For a wrong shape, values other than 0 and 1, or a mask (of one frame) that samples nothing.
    """
    given = torch.ones(shape[-1:], dtype=torch.bool) if mask is None else torch.as_tensor(mask)
    frames = tuple(given.shape[:1]) if given.ndim == len(shape) + 1 else ()
    sizes = (1,) * (len(shape) - given.ndim) + tuple(given.shape[len(frames) :])
    if given.ndim == 0 or 0 in frames or len(sizes) != len(shape) or any(
        size not in (1, n) for size, n in zip(sizes, shape, strict=True)
    ):  # fmt: skip
        last, whole = str(list(shape[-1:])), str(list(shape))
        expected = f"{last}, ... or {whole}, or one such mask a frame, [frames, {whole[1:]}"
        raise InputError("mask", expected=expected, got=list(given.shape), cure="it must fit the image")
    result = given.bool()
    if not bool((given == result).all()):
        raise InputError("mask", expected="only 0 and 1 (or booleans)", got="other values")
    result = result.reshape(-1, *sizes)
    empty = ~result.flatten(1).any(1)
    if bool(empty.any()):
        got = f"none in frame {int(empty.int().argmax())}" if frames else "a mask that samples nothing"
        raise InputError("mask", expected="at least one sample", got=got)
    for axis in range(1, result.ndim):
        first = result.narrow(axis, 0, 1)
        if bool((result == first).all()):
            result = first
    return result, frames
