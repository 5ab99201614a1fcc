"""The normal operator of non-Cartesian MRI as a convolution, without a nonuniform FFT.

``A^H A x = sum_c conj(S_c) (p * (S_c x))`` with the point-spread function ``p(d) = 1/N sum_j exp(2 pi i k_j . d)``,
because the normal matrix of the Fourier sums depends on the difference of two pixels only: it is Toeplitz. A
convolution of n points is circular over 2 n, and its transform K is real because ``p(-d) = conj(p(d))``.

The FFT over 2 n of an image that is zero beyond n splits into its even and its odd frequencies: those are the FFTs over
n of the image, and of the image times ``exp(-pi i j / n)``. So with ``phi_q = prod_a exp(-pi i q_a j_a / n_a)`` over
the axes a, and q in {0, 1}^axes,

    p * x = 2^-axes sum_q conj(phi_q) IFFT_n(K_q FFT_n(phi_q x)),    K_q[l] = K[2 l + q].

No array of twice the size is ever transformed, nothing is padded or cropped, and the phases meet single images only.

References
----------
Wajer and Pruessmann. Major speedup of reconstruction for sensitivity encoding with arbitrary trajectories. Proceedings
of the ISMRM, 2001. Fessler et al. Toeplitz-based iterative image reconstruction for MRI with correction for magnetic
field inhomogeneity. IEEE Transactions on Signal Processing 53, 2005.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from priorloom.operator import LinearOperator
from priorloom.space import Space

from .nonuniform import NonuniformFFT

CHUNK_BYTES = {"cpu": 2 << 20, "cuda": 256 << 20}
"""Coil images that are transformed at once: on a CPU they should stay in the cache, a GPU wants to be filled."""


def parities(axes: int) -> list[tuple[int, ...]]:
    """{0, 1}^axes."""
    return list(itertools.product((0, 1), repeat=axes))


def transfer(transform: NonuniformFFT) -> Tensor:
    """The transfer functions ``2^-axes K_q``, float64 ``[2^axes, *image_shape]``.

    Parameters
    ----------
    transform
        That of the trajectory, in double precision: p is a sum of many terms that nearly cancel. The 2 n values of p
        along an axis come in two blocks of n, whose centres are shifted by a modulation of the samples.
    """
    shape = transform.image_shape
    k = transform.points
    p = torch.zeros(*(2 * n for n in shape), dtype=torch.complex128, device=k.device)
    for corner in parities(len(shape)):
        # Block 1 holds the differences 0 ... n - 1, block 0 holds -n ... -1.
        shift = torch.tensor([n // 2 - (0 if q else n) for q, n in zip(corner, shape, strict=True)], device=k.device)
        modulation = torch.polar(torch.ones_like(k[:, 0]), 2 * math.pi * (k @ shift.to(k)))
        where = tuple(slice(0, n) if q else slice(n, 2 * n) for q, n in zip(corner, shape, strict=True))
        p[where] = transform.adjoint(modulation[None])[0]
    for axis, n in enumerate(shape):
        p.select(axis, n).zero_()  # the difference -n has no partner n, and no two pixels are so far apart
    K = torch.fft.fftn(p).real / math.prod(shape) / 2 ** len(shape)
    return torch.stack([K[tuple(slice(q, None, 2) for q in corner)] for corner in parities(len(shape))])


class ToeplitzNormal(LinearOperator):
    """``x -> sum_c conj(S_c) (p * (S_c x))`` on ``[..., *image_shape]``; its own adjoint.

    The inverse FFT is a second forward one, ``F^-1 k = conj(F conj(k)) / N``: the first conjugation is a sign in the
    transfer function, the second one that of the single image at the end, and the maps need no conjugate.

    Parameters
    ----------
    kernel
        The transfer functions of :func:`transfer` in the precision of the images, real ``[2^axes, *image_shape]``.
    maps
        Coil maps S, complex ``[coils, *image_shape]``; one uniform coil when absent.
    """

    def __init__(self, kernel: Tensor, maps: Tensor | None) -> None:
        space = Space(tuple(kernel.shape[1:]), kernel.dtype.to_complex())
        super().__init__(space, space)
        gain = kernel / space.size
        # Factors for real and imaginary parts, side by side in memory: ten times faster than to broadcast one to both.
        self.register_buffer("_weights", torch.stack((gain, -gain), -1), persistent=False)
        for axis, n in enumerate(space.shape):
            angle = (-math.pi / n) * torch.arange(n, dtype=torch.float64, device=kernel.device)
            half = torch.polar(torch.ones_like(angle), angle).to(space.dtype)
            self.register_buffer(f"_half_{axis}", half.reshape(-1, *(1,) * (space.ndim - 1 - axis)), persistent=False)
        self.register_buffer("maps", maps, persistent=False)
        self._weights: Tensor
        self.maps: Tensor | None

    def _forward(self, x: Tensor) -> Tensor:
        images = x.reshape(-1, *self.domain.shape)
        total = torch.zeros_like(images)
        for corner, weights in zip(parities(self.domain.ndim), self._weights, strict=True):
            modulated, part = self._modulated(images, corner), torch.zeros_like(images)
            for b, c in chunks(len(images), self._coils, self.domain, images.device):
                part[b] += self._filtered(modulated[b], c, weights)
            total += self._modulated(part, corner)
        return total.conj_physical_().reshape(x.shape)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._forward(y)

    def _filtered(self, images: Tensor, coils: slice, weights: Tensor) -> Tensor:
        """``conj(sum_c conj(S_c) IFFT(K_q FFT(S_c x)))`` of a few images and coils."""
        maps, dims = self.maps if self.maps is None else self.maps[coils], self.domain.dims
        z = torch.fft.fftn(images if maps is None else images[:, None] * maps, dim=dims)
        torch.view_as_real(z).mul_(weights)
        z = torch.fft.fftn(z, dim=dims)
        result: Tensor = z if maps is None else z.mul_(maps).sum(1)
        return result

    def _modulated(self, images: Tensor, corner: tuple[int, ...]) -> Tensor:
        """``phi_q x``."""
        for axis, q in enumerate(corner):
            images = images * getattr(self, f"_half_{axis}") if q else images
        return images

    @property
    def _coils(self) -> int:
        return 1 if self.maps is None else len(self.maps)


def chunks(batch: int, coils: int, space: Space, device: torch.device, least: int = 1) -> list[tuple[slice, slice]]:
    """Slices of the batch and of the coils whose coil images fit into `CHUNK_BYTES`, all coils of an image first; at
    least so many images, where there are as many."""
    images = max(least, CHUNK_BYTES["cpu" if device.type == "cpu" else "cuda"] // (space.size * space.dtype.itemsize))
    images_at_once, coils_at_once = max(1, images // coils), min(images, coils)
    return [
        (slice(b, b + images_at_once), slice(c, c + coils_at_once))
        for b in range(0, batch, images_at_once)
        for c in range(0, coils, coils_at_once)
    ]
