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

CHUNK_BYTES = {"cpu": 4 << 20, "cuda": 256 << 20}
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
        self.register_buffer("kernel", kernel, persistent=False)
        self.register_buffer("maps", maps, persistent=False)
        self.kernel: Tensor
        self.maps: Tensor | None

    def _forward(self, x: Tensor) -> Tensor:
        shape = self.domain.shape
        images = x.reshape(-1, *shape)
        result = torch.zeros_like(images)
        for q, corner in enumerate(parities(len(shape))):
            phase = self._phase(corner)
            modulated, part = images * phase, torch.zeros_like(images)
            for b, c in self._chunks(len(images)):
                part[b] += self._filtered(modulated[b], c, self.kernel[q])
            result += part.mul_(phase.conj())
        return result.reshape(x.shape)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._forward(y)

    def _filtered(self, images: Tensor, coils: slice, kernel: Tensor) -> Tensor:
        """``sum_c conj(S_c) IFFT(K_q FFT(S_c x))`` of a few images and coils, with one buffer."""
        dims = self.domain.dims
        z = torch.fft.fftn(images if self.maps is None else images[:, None] * self.maps[coils], dim=dims)
        torch.view_as_real(z).mul_(kernel[..., None])
        torch.fft.ifftn(z, dim=dims, out=z)
        if self.maps is None:
            return z
        combined: Tensor = torch.linalg.vecdot(self.maps[coils], z, dim=-self.domain.ndim - 1)
        return combined

    def _phase(self, corner: tuple[int, ...]) -> Tensor:
        """``phi_q``, ``[*image_shape]``."""
        phase = torch.ones((), dtype=torch.complex128, device=self.kernel.device)
        for q, n in zip(corner, self.domain.shape, strict=True):
            angle = (-math.pi * q / n) * torch.arange(n, dtype=torch.float64, device=self.kernel.device)
            phase = phase[..., None] * torch.polar(torch.ones_like(angle), angle)
        return phase.to(self.domain.dtype)

    def _chunks(self, batch: int) -> list[tuple[slice, slice]]:
        coils = 1 if self.maps is None else len(self.maps)
        return chunks(batch, coils, self.domain, self.kernel.device)


def chunks(batch: int, coils: int, space: Space, device: torch.device) -> list[tuple[slice, slice]]:
    """Slices of the batch and of the coils whose coil images fit into `CHUNK_BYTES`, all coils of an image first."""
    images = max(1, CHUNK_BYTES["cpu" if device.type == "cpu" else "cuda"] // (space.size * space.dtype.itemsize))
    images_at_once, coils_at_once = max(1, images // coils), min(images, coils)
    return [
        (slice(b, b + images_at_once), slice(c, c + coils_at_once))
        for b in range(0, batch, images_at_once)
        for c in range(0, coils, coils_at_once)
    ]
