"""Cartesian MRI: ``y = M F S x`` with coil maps S, the centred orthonormal FFT F and the sampling mask M.

The convention is that of ``bart fft -u``, sigpy and fastMRI: image and k-space are centred, so the centre of an axis of
n points has index ``n // 2``, and the FFT is unitary. Shifting every coil image and every k-space on each call would
cost as much as the FFT. Instead, with s the centre and an FFT that starts at index 0,

    F x = shift(fft(unshift(x)))    and    shift(fft(z))[k] = fft(z_j exp(2 pi i j s / n))[k],

so the output shift is a phase that is folded into the coil maps once, and only the single combined image is shifted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from priorloom.errors import InputError
from priorloom.hooks import example
from priorloom.operator import LinearOperator
from priorloom.space import Space

Array = np.ndarray[Any, Any]

CHUNK_BYTES = {"cpu": 4 << 20, "cuda": 256 << 20}
"""Coil images that are transformed at once: on a CPU they should stay in the cache, a GPU wants to be filled."""

MAPS_FLOOR = 1e-3
"""Where ``sum |maps|^2`` is below this fraction of its maximum, the direct method does not divide by less."""

_IMAGE = (-2, -1)


def _shift(x: Tensor) -> Tensor:
    """The origin from index 0 to the centre."""
    result: Tensor = torch.fft.fftshift(x, dim=_IMAGE)
    return result


def _unshift(x: Tensor) -> Tensor:
    """The origin from the centre to index 0."""
    result: Tensor = torch.fft.ifftshift(x, dim=_IMAGE)
    return result


def fftc(x: Tensor) -> Tensor:
    """Centred orthonormal 2D FFT of ``[..., rows, columns]``: image to k-space."""
    return _shift(torch.fft.fft2(_unshift(x), norm="ortho"))


def ifftc(k: Tensor) -> Tensor:
    """Centred orthonormal inverse 2D FFT of ``[..., rows, columns]``: k-space to image."""
    return _shift(torch.fft.ifft2(_unshift(k), norm="ortho"))


def sampling_mask(mask: Tensor | Array | None, shape: tuple[int, int]) -> Tensor:
    """`mask` as a bool tensor ``[rows, columns]`` or, where every row is the same, ``[1, columns]``.

    Raises
    ------
    InputError
        For a wrong shape, values other than 0 and 1, or a mask that samples nothing.
    """
    if mask is None:
        return torch.ones(1, shape[1], dtype=torch.bool)
    given = torch.as_tensor(mask)
    if tuple(given.shape) not in (shape, shape[1:]):
        expected = f"[{shape[0]}, {shape[1]}] or [{shape[1]}]"
        raise InputError("mask", expected=expected, got=list(given.shape), cure="it must fit the image")
    result = given.bool()
    if not bool((given == result).all()):
        raise InputError("mask", expected="only 0 and 1 (or booleans)", got="other values")
    if not bool(result.any()):
        raise InputError("mask", expected="at least one sample", got="a mask that samples nothing")
    result = result.reshape(-1, shape[1])
    return result[:1] if bool((result == result[:1]).all()) else result


def _phase(shape: tuple[int, int]) -> Tensor:
    """``exp(2 pi i j s / n)`` along both axes, ``[rows, columns]``: the output shift (a checkerboard for even n)."""
    rows, columns = (
        torch.exp(2j * math.pi * ((torch.arange(n, dtype=torch.float64) * (n // 2)) % n) / n) for n in shape
    )
    return (rows[:, None] * columns).to(torch.complex64)


class Sense2D(LinearOperator):
    """``y_c = M F (S_c x)``: ``[..., rows, columns]`` -> ``[..., coils, rows, columns]`` (Pruessmann et al., 1999).

    Made by :func:`sense2d`. The normal operator needs no shift of k-space, and where the mask samples whole columns it
    transforms the columns' axis only, because the FFT along fully sampled rows cancels.
    """

    def __init__(self, maps: Tensor, mask: Tensor) -> None:
        coils, rows, columns = maps.shape
        super().__init__(Space((rows, columns), maps.dtype), Space((coils, rows, columns), maps.dtype))
        unshifted = _unshift(maps) * _phase((rows, columns)).to(maps)
        self.register_buffer("_maps", unshifted)
        self.register_buffer("_mask", mask.to(maps.device, maps.dtype.to_real()))
        power = maps.abs().square().sum(0)
        self.register_buffer("_power", power.clamp_min(MAPS_FLOOR * float(power.max())))
        self._maps: Tensor
        self._mask: Tensor
        self._power: Tensor
        self._is_full = bool(mask.all())

    @property
    def maps(self) -> Tensor:
        """The coil maps, ``[coils, rows, columns]``, centred."""
        return _shift(self._maps * _phase(self.domain_shape).conj().to(self._maps))

    @property
    def mask(self) -> Tensor:
        """The sampling mask, bool ``[rows, columns]``, centred."""
        return self._mask.bool().expand(self.domain_shape)

    @property
    def domain_shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        rows, columns = self.domain.shape
        return rows, columns

    def _chunks(self, batch: int) -> Iterator[tuple[slice, slice]]:
        """Slices of the batch and of the coils that keep the coil images of one chunk within the budget."""
        coils = self.range.shape[0]
        budget = CHUNK_BYTES["cpu" if self._maps.device.type == "cpu" else "cuda"]
        images = max(1, budget // (self.domain.size * self._maps.element_size()))
        at_once, coils_at_once = max(1, images // coils), min(images, coils)
        for b in range(0, batch, at_once):
            for c in range(0, coils, coils_at_once):
                yield slice(b, b + at_once), slice(c, c + coils_at_once)

    def _forward(self, x: Tensor) -> Tensor:
        z = _unshift(x).reshape(-1, 1, *self.domain.shape)
        y = z.new_empty(z.shape[0], *self.range.shape)
        for b, c in self._chunks(z.shape[0]):
            torch.mul(torch.fft.fft2(z[b] * self._maps[c], norm="ortho"), self._mask, out=y[b, c])
        return y.reshape(*self.domain.batch_shape(x), *self.range.shape)

    def _adjoint(self, y: Tensor) -> Tensor:
        k = y.reshape(-1, *self.range.shape)
        z = k.new_zeros(k.shape[0], *self.domain.shape)
        for b, c in self._chunks(k.shape[0]):
            z[b] += torch.linalg.vecdot(self._maps[c], torch.fft.ifft2(k[b, c] * self._mask, norm="ortho"), dim=-3)
        return _shift(z).reshape(*self.range.batch_shape(y), *self.domain.shape)

    def _normal(self, x: Tensor) -> Tensor:
        # Only functional operations on constants, so that autograd differentiates it and stores no coil images.
        if self._is_full:
            return x * _shift(self._maps.abs().square().sum(0))
        dims = (-1,) if self._mask.shape[0] == 1 else _IMAGE
        z = _unshift(x).reshape(-1, 1, *self.domain.shape)
        parts: dict[int, Tensor] = {}
        for b, c in self._chunks(z.shape[0]):
            k = torch.fft.fftn(z[b] * self._maps[c], dim=dims) * self._mask
            part = torch.linalg.vecdot(self._maps[c], torch.fft.ifftn(k, dim=dims), dim=-3)
            parts[b.start] = parts[b.start] + part if b.start in parts else part
        image = torch.cat(list(parts.values())).reshape(x.shape)
        return _shift(image)

    def _pseudo_inverse(self, y: Tensor) -> Tensor:
        return self.adjoint(y) / self._power

    def _norm(self) -> float | None:
        return math.sqrt(float(self._power.max())) if self._is_full else None


class Fourier2D(LinearOperator):
    """``y = M F x`` on ``[..., rows, columns]``; made by :func:`fourier2d`. Its norm is exactly 1."""

    def __init__(self, mask: Tensor, shape: tuple[int, int]) -> None:
        space = Space(shape, torch.complex64)
        super().__init__(space, space)
        self.register_buffer("_mask", mask.to(torch.float32))
        self._mask: Tensor

    @property
    def mask(self) -> Tensor:
        """The sampling mask, bool ``[rows, columns]``, centred."""
        return self._mask.bool().expand(self.domain.shape)

    def _forward(self, x: Tensor) -> Tensor:
        return fftc(x) * self._mask

    def _adjoint(self, y: Tensor) -> Tensor:
        return ifftc(y * self._mask)

    def _normal(self, x: Tensor) -> Tensor:
        return ifftc(fftc(x) * self._mask)

    def _pseudo_inverse(self, y: Tensor) -> Tensor:
        return self.adjoint(y)

    def _norm(self) -> float | None:
        return 1.0

    def solve_normal(self, b: Tensor, rho: float | Tensor) -> Tensor | None:
        """``F^H (M + rho)^-1 F b``."""
        return ifftc(fftc(b) / (self._mask + rho))


def _example_maps() -> Tensor:
    return torch.randn(3, 12, 9, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))


def _example_mask() -> Tensor:
    return torch.rand(12, 9, generator=torch.Generator().manual_seed(1)) < 0.4


@example(image_shape=(12, 9), mask=_example_mask)
def fourier2d(*, image_shape: tuple[int, int], mask: Tensor | Array | None = None) -> LinearOperator:
    """Single-coil Cartesian MRI, ``y = M F x`` with the centred orthonormal FFT.

    Parameters
    ----------
    image_shape
        (rows, columns).
    mask
        Which samples were measured, bool ``[rows, columns]`` or ``[columns]``, centred; all of them when absent.

    Raises
    ------
    InputError
        For a mask of another shape, or one that samples nothing.
    """
    rows, columns = image_shape
    if rows < 1 or columns < 1:
        raise InputError("image_shape of mri.fourier2d", expected="two positive sizes", got=image_shape)
    return Fourier2D(sampling_mask(mask, (rows, columns)), (rows, columns))


@example(maps=_example_maps, mask=_example_mask)
def sense2d(*, maps: Tensor | Array, mask: Tensor | Array | None = None) -> LinearOperator:
    """Multi-coil Cartesian MRI, ``y_c = M F (S_c x)`` with the centred orthonormal FFT (Pruessmann et al., 1999).

    Computes in complex64 (complex128 after ``.double()``). The direct method is the zero-filled, coil-combined image,
    ``A^H y / sum_c |S_c|^2``.

    Parameters
    ----------
    maps
        Coil sensitivities S, complex ``[coils, rows, columns]``.
    mask
        Which samples were measured, bool ``[rows, columns]`` or ``[columns]``, centred, the same for all coils; all of
        them when absent.

    Raises
    ------
    InputError
        For maps that are not three-dimensional, not finite or zero, a mask that does not fit or samples nothing.

    References
    ----------
    Pruessmann, Weiger, Scheidegger and Boesiger. SENSE: sensitivity encoding for fast MRI. Magnetic Resonance in
    Medicine 42, 1999.
    """
    given = torch.as_tensor(maps)
    if given.ndim != 3 or 0 in given.shape:
        raise InputError("maps of mri.sense2d", expected="shape [coils, rows, columns]", got=list(given.shape))
    if not bool(given.isfinite().all()) or not bool((given != 0).any()):
        raise InputError("maps of mri.sense2d", expected="finite values, not all zero", got="NaN, infinite or all zero")
    rows, columns = given.shape[1:]
    return Sense2D(given.to(torch.complex64), sampling_mask(mask, (rows, columns)))
