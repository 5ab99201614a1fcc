"""The orthonormal Daubechies wavelet transform of arrays of any size, as a LinearOperator."""

from __future__ import annotations

import math
from types import EllipsisType
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import conv2d

from priorloom import LinearOperator, Space
from priorloom.errors import InputError

WaveletName = Literal["haar", "db2", "db3", "db4", "db5", "db6", "db7", "db8"]


def daubechies(moments: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The orthonormal scaling filter with `moments` vanishing moments and minimal phase, ``[2 moments]``.

    Spectral factorisation: ``H(z) = c (1 + z)^N prod_k (1 - r_k z)`` where the r_k inside the unit circle solve
    ``(2 - r - 1 / r) / 4 = y_k`` for the roots y_k of ``sum_{k<N} binom(N - 1 + k, k) y^k``
    (Daubechies, 1992, Ten Lectures on Wavelets, section 6.1).
    """
    N = moments
    taps = np.ones(1, dtype=complex)
    for _ in range(N):
        taps = np.convolve(taps, [1, 1])
    for y in np.roots([math.comb(N - 1 + k, k) for k in reversed(range(N))]):
        b = 1 - 2 * y
        r = b + np.sqrt(b * b - 1 + 0j)
        taps = np.convolve(taps, [1, -r if abs(r) < 1 else -1 / r])
    low = np.asarray(taps.real, dtype=np.float64)
    return np.asarray(low * math.sqrt(2) / low.sum())


class Wavelet(LinearOperator):
    """Orthonormal separable wavelet transform over all dimensions, periodic at the edges: ``[..., *shape]`` both ways.

    Every level splits each dimension of the approximation into its low-pass and its high-pass half. The coefficients
    lie in the array as Mallat drew them: the approximation in the first corner (``approximation_shape``), the details
    of the levels around it. Even lengths are PyWavelets' ``mode="periodization"``. At an odd length the
    last sample stands aside as an approximation coefficient, so that the transform is orthonormal for every size:
    ``W^H W = W W^H = I``, and a prox behind it is exact. A dimension of length one is left alone.

    Parameters
    ----------
    space
        The Space of one array, real or complex.
    wavelet
        "haar" (= db1) or "db2" to "db8", by the number of vanishing moments.
    levels
        How deep; when absent, as deep as the shortest side of the approximation stays at least ``max(8, taps - 1)``.

    References
    ----------
    Mallat (1989), IEEE Trans. PAMI 11; Daubechies (1992), Ten Lectures on Wavelets.
    """

    def __init__(self, space: Space, wavelet: WaveletName = "db4", levels: int | None = None) -> None:
        super().__init__(space, space)
        names = ("haar", *(f"db{n}" for n in range(2, 9)))
        if wavelet not in names:
            raise InputError("wavelet", expected=f"one of {', '.join(names)}", got=repr(wavelet))
        low = daubechies(names.index(wavelet) + 1)
        high = low[::-1] * (-1.0) ** np.arange(low.size)
        longest = math.ceil(math.log2(max(space.shape)))
        if levels is None:
            shortest = min((n for n in space.shape if n > 1), default=1)
            levels = min(longest, max(1, math.floor(math.log2(shortest / max(8, low.size - 1)))))
        if not 0 <= levels <= longest:
            raise InputError("levels of the wavelet transform", expected=f"0 to {longest}", got=levels)
        self.wavelet, self.levels = wavelet, levels
        # The bits as integers: those follow to a device, while .float() and a later .double() leave them exact.
        taps = torch.from_numpy(np.stack([low, high]))[:, None, :, None]
        self.register_buffer("_taps", taps.view(torch.int64), persistent=False)
        self._taps: Tensor
        self._shapes = [space.shape]
        for _ in range(levels):
            self._shapes.append(tuple((n + 1) // 2 for n in self._shapes[-1]))

    @property
    def approximation_shape(self) -> tuple[int, ...]:
        """Shape of the corner that holds the approximation."""
        return self._shapes[-1]

    def details(self) -> Tensor:
        """1 at the detail coefficients and 0 at the approximation, ``[*shape]``."""
        mask = torch.ones(self.domain.shape, dtype=self.domain.real_dtype)
        mask[_corner(self.approximation_shape)] = 0
        return mask

    def _forward(self, x: Tensor) -> Tensor:
        parts = _as_real(x).clone()
        for shape in self._shapes[:-1]:
            corner = (*_corner(shape), slice(None))
            block = parts[corner]
            for axis in range(len(shape)):
                block = self._split(block, axis - len(shape) - 1)
            parts[corner] = block
        return _as_kind(parts, x)

    def _adjoint(self, y: Tensor) -> Tensor:
        parts = _as_real(y).clone()
        for shape in reversed(self._shapes[:-1]):
            corner = (*_corner(shape), slice(None))
            block = parts[corner]
            for axis in reversed(range(len(shape))):
                block = self._merge(block, axis - len(shape) - 1)
            parts[corner] = block
        return _as_kind(parts, y)

    def _filters(self, like: Tensor) -> Tensor:
        """The low-pass and the high-pass filter, ``[2, 1, taps, 1]``."""
        return self._taps.view(torch.float64).to(like)

    def _split(self, x: Tensor, axis: int) -> Tensor:
        """One level along one axis: ``(a_k, d_k) = sum_m (low, high)_m x_(2k + m - taps / 2 + 1)``, indices mod n."""
        n = x.shape[axis] // 2 * 2
        if n == 0:
            return x
        flat = x.reshape(-1, x.shape[axis], math.prod(x.shape[axis:][1:]))
        filters = self._filters(x)
        taps = filters.shape[2]
        even = flat[:, :n].roll(taps // 2 - 1, 1)
        wrapped = torch.cat([even] * (1 + -(-(taps - 2) // n)), 1)[:, : n + taps - 2]
        halves = conv2d(wrapped[:, None], filters, stride=(2, 1)).flatten(1, 2)
        if n < x.shape[axis]:
            halves = torch.cat([halves[:, : n // 2], flat[:, n:], halves[:, n // 2 :]], 1)
        return halves.reshape(x.shape)

    def _merge(self, c: Tensor, axis: int) -> Tensor:
        """The adjoint of ``_split``: ``x_(2i + r) = sum_j low_(2j+r) a_(i-j) + high_(2j+r) d_(i-j)``, shifted back."""
        n = c.shape[axis] // 2 * 2
        if n == 0:
            return c
        flat = c.reshape(-1, c.shape[axis], math.prod(c.shape[axis:][1:]))
        half = n // 2
        pairs = self._filters(c).reshape(2, -1, 2).permute(2, 0, 1).flip(2)[..., None]
        lag = pairs.shape[2] - 1
        halves = torch.stack([flat[:, :half], flat[:, c.shape[axis] - half :]], 1)
        copies = 1 + -(-lag // half)
        wrapped = torch.cat([halves] * copies, 2)[:, :, copies * half - half - lag :]
        even = conv2d(wrapped, pairs).transpose(1, 2).reshape(flat.shape[0], n, flat.shape[2])
        even = even.roll(-lag, 1)
        if n < c.shape[axis]:
            even = torch.cat([even, flat[:, half : half + 1]], 1)
        return even.reshape(c.shape)

    def _normal(self, x: Tensor) -> Tensor:
        return x

    def _pseudo_inverse(self, y: Tensor) -> Tensor:
        return self.adjoint(y)

    def _norm(self) -> float | None:
        return 1.0

    def solve_normal(self, b: Tensor, rho: float | Tensor) -> Tensor | None:
        """``b / (1 + rho)``."""
        return b / (1 + rho)


def _corner(shape: tuple[int, ...]) -> tuple[EllipsisType | slice, ...]:
    return (..., *(slice(n) for n in shape))


def _as_real(x: Tensor) -> Tensor:
    """Real and imaginary part in a last dimension (of length one for real input): the filters are real."""
    return torch.view_as_real(x) if x.is_complex() else x[..., None]


def _as_kind(parts: Tensor, like: Tensor) -> Tensor:
    return torch.view_as_complex(parts) if like.is_complex() else parts[..., 0]
