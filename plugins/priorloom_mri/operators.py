"""The Cartesian operators by name: ``mri.fourier2d``, ``mri.fourier3d``, ``mri.sense2d`` and ``mri.sense3d``."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from priorloom.errors import InputError
from priorloom.hooks import example
from priorloom.memory import require_memory
from priorloom.operator import LinearOperator
from priorloom.space import Space

from .cartesian import Array, fftc, ifftc, sampling_mask
from .sense import CHUNK_BYTES, MAPS_FLOOR, Sense, sense

__all__ = [
    "CHUNK_BYTES", "MAPS_FLOOR", "Fourier", "Sense", "fftc", "fourier2d", "fourier3d", "ifftc", "sense2d", "sense3d",
]  # fmt: skip


class Fourier(LinearOperator):
    """``y_f = M_f F x_f`` on ``[..., (frames), *image]``, by ``mri.fourier2d`` and ``mri.fourier3d``; its norm is 1.

    Parameters
    ----------
    mask
        Bool ``[frames, *sizes]``, each size that of the image or 1.
    frames, image_shape
        The shape of the frames, ``(n,)`` or ``()``, and of one image.
    """

    def __init__(self, mask: Tensor, frames: tuple[int, ...], image_shape: tuple[int, ...]) -> None:
        space = Space((*frames, *image_shape), torch.complex64)
        super().__init__(space, space)
        self.frames, self.image_shape = frames, image_shape
        self.register_buffer("_mask", (mask if frames else mask[0]).to(torch.float32))
        self._mask: Tensor

    @property
    def mask(self) -> Tensor:
        """The sampling mask, bool ``[(frames), *image]``, centred."""
        return self._mask.bool().expand(self.domain.shape)

    @property
    def image_space(self) -> Space:
        """One image of one frame."""
        return Space(self.image_shape, self.domain.dtype)

    def _forward(self, x: Tensor) -> Tensor:
        return fftc(x, len(self.image_shape)) * self._mask

    def _adjoint(self, y: Tensor) -> Tensor:
        return ifftc(y * self._mask, len(self.image_shape))

    def _normal(self, x: Tensor) -> Tensor:
        return self._filtered(x, self._mask)

    def _filtered(self, x: Tensor, gain: Tensor) -> Tensor:
        """``F^H gain F x``: here the shifts of the image cancel, and only the small gain is shifted."""
        axes = tuple(range(-len(self.image_shape), 0))
        k = torch.fft.fftn(x, dim=axes) * torch.fft.ifftshift(gain.expand(self.domain.shape), axes)
        filtered: Tensor = torch.fft.ifftn(k, dim=axes)
        return filtered

    def _pseudo_inverse(self, y: Tensor) -> Tensor:
        return self.adjoint(y)

    def _norm(self) -> float | None:
        return 1.0

    def solve_normal(self, b: Tensor, rho: float | Tensor) -> Tensor | None:
        """``F^H (M + rho)^-1 F b``."""
        ndim = len(self.image_shape)
        return ifftc(fftc(b, ndim) / (self._mask + rho), ndim)


def _example_maps() -> Tensor:
    return torch.randn(3, 12, 9, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))


def _example_mask() -> Tensor:
    return torch.rand(12, 9, generator=torch.Generator().manual_seed(1)) < 0.4


def _example_volume_maps() -> Tensor:
    return torch.randn(2, 3, 4, 6, 5, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))


def _example_volume_mask() -> Tensor:
    return torch.rand(6, 5, generator=torch.Generator().manual_seed(1)) < 0.4


def _fourier(name: str, image_shape: tuple[int, ...], mask: Tensor | Array | None) -> Fourier:
    if min(image_shape) < 1:
        expected = f"{len(image_shape)} positive sizes"
        raise InputError(f"image_shape of {name}", expected=expected, got=image_shape)
    samples, frames = sampling_mask(mask, image_shape)
    # The image, k-space, and what an iteration keeps of each.
    bytes_needed = 8 * 6 * len(samples) * math.prod(image_shape)
    require_memory(f"{name} of {' x '.join(map(str, image_shape))}", bytes_needed, "take fewer frames or slices")
    return Fourier(samples, frames, image_shape)


@example(image_shape=(12, 9), mask=_example_mask)
def fourier2d(*, image_shape: tuple[int, int], mask: Tensor | Array | None = None) -> LinearOperator:
    """Single-coil Cartesian MRI, ``y = M F x`` with the centred orthonormal FFT.

    Parameters
    ----------
    image_shape
        (rows, columns).
    mask
        Which samples were measured, bool ``[rows, columns]`` or ``[columns]``, centred; all of them when absent. With
        ``[frames, rows, columns]``, image and k-space are ``[frames, rows, columns]``.

    Raises
    ------
    InputError
        For a mask of another shape, or one that samples nothing, and sizes beyond the memory.
    """
    return _fourier("mri.fourier2d", image_shape, mask)


@example(image_shape=(4, 6, 5), mask=_example_volume_mask)
def fourier3d(*, image_shape: tuple[int, int, int], mask: Tensor | Array | None = None) -> LinearOperator:
    """Single-coil Cartesian MRI of a volume, ``y = M F x`` with the centred orthonormal FFT in three dimensions.

    Parameters
    ----------
    image_shape
        (slices, rows, columns).
    mask
        Which samples were measured, bool ``[rows, columns]`` of phase encodes, the readout being the first axis, or
        ``[slices, rows, columns]``, centred; all of them when absent. With ``[frames, slices, rows, columns]``, image
        and k-space have frames too.

    Raises
    ------
    InputError
        For a mask of another shape, or one that samples nothing, and sizes beyond the memory.
    """
    return _fourier("mri.fourier3d", image_shape, mask)


@example(maps=_example_maps, mask=_example_mask)
def sense2d(*, maps: Tensor | Array, mask: Tensor | Array | None = None) -> LinearOperator:
    """Multi-coil Cartesian MRI, ``y_c = M F (S_c x)`` with the centred orthonormal FFT (Pruessmann et al., 1999).

    With several sets of maps (ESPIRiT), ``y_c = M F sum_s S_sc x_s`` and the image is ``[sets, rows, columns]``; with a
    mask per frame, image and k-space are ``[frames, ...]``. Computes in complex64 (complex128 after ``.double()``). The
    direct method is the zero-filled, coil-combined image, ``A^H y / sum_c |S_c|^2``, set by set.

    Parameters
    ----------
    maps
        Coil sensitivities S, complex ``[coils, rows, columns]`` or ``[sets, coils, rows, columns]``.
    mask
        Which samples were measured, bool ``[rows, columns]`` or ``[columns]``, or one for each frame,
        ``[frames, rows, columns]`` (of size 1 along an axis that is sampled alike), centred, the same for all coils;
        all of them when absent.

    Raises
    ------
    InputError
        For maps of another number of axes, more sets than coils, maps that are not finite or zero, a mask that does not
        fit or samples nothing, and sizes beyond the memory.

    References
    ----------
    Pruessmann, Weiger, Scheidegger and Boesiger. SENSE: sensitivity encoding for fast MRI. Magnetic Resonance in
    Medicine 42, 1999. Uecker et al. ESPIRiT. Magnetic Resonance in Medicine 71, 2014 (several sets).
    """
    return sense("mri.sense2d", ("rows", "columns"), maps, mask)


@example(maps=_example_volume_maps, mask=_example_volume_mask)
def sense3d(*, maps: Tensor | Array, mask: Tensor | Array | None = None) -> LinearOperator:
    """Multi-coil Cartesian MRI of a volume, ``y_c = M F (S_c x)`` with the FFT in three dimensions; see ``sense2d``.

    Where the mask is one of phase encodes, the same for every point of the readout, the normal operator transforms
    these two axes only.

    Parameters
    ----------
    maps
        Coil sensitivities S, complex ``[coils, slices, rows, columns]`` or ``[sets, coils, slices, rows, columns]``.
    mask
        Which samples were measured, bool ``[rows, columns]`` of phase encodes, the readout being the first axis, or
        ``[slices, rows, columns]``, or one for each frame, ``[frames, slices, rows, columns]`` (of size 1 along an axis
        that is sampled alike), centred, the same for all coils; all of them when absent.

    Raises
    ------
    InputError
        As ``sense2d``.
    """
    return sense("mri.sense3d", ("slices", "rows", "columns"), maps, mask)
