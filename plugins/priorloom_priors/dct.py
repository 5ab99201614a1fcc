"""Denoising by thresholds on the cosine transform of all 8 x 8 blocks (Yu and Sapiro, DCT image denoising, Image
Processing On Line 1, 2011): real and complex, differentiable, on any device, without training."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import fold, pad, unfold

from priorloom import Denoiser, Space
from priorloom.errors import InputError
from priorloom.regularity import Regularity

SIDE = 8


class BlockCosines:
    """``W^H t(W x)``, W the orthonormal cosine transforms of all blocks of the periodic image over 8; ``W^H W = I``.

    For noise sigma every coefficient of a block has noise sigma, so that ``D(c x, c sigma) = c D(x, sigma)``.

    Parameters
    ----------
    space
        The Space of one image.
    strength
        The threshold in units of sigma, for real images; that of complex ones is exceeded by noise as often.
    """

    def __init__(self, space: Space, strength: float) -> None:
        if space.ndim != 2 or min(space.shape) < SIDE:
            raise InputError("image for cosine blocks", expected=f"two dimensions of at least {SIDE}",
                             got=list(space.shape))  # fmt: skip
        if not 0 < strength < 8:
            raise InputError("strength of cosine blocks", expected="a number between 0 and 8", got=strength)
        self.space = space
        self.factor = math.sqrt(-math.log(math.erfc(strength / 2**0.5))) if space.is_complex else strength
        n = torch.arange(SIDE, dtype=torch.float64)
        rows = torch.cos(math.pi / SIDE * (n + 0.5) * n[:, None])
        rows = rows / rows.norm(dim=1, keepdim=True)
        self.cosines = torch.kron(rows, rows)

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The denoised `x`, ``[..., rows, columns]``."""
        threshold = self._threshold(x, sigma)
        images = [self._back(self._shrink(c, t)) for c, t in zip(self._blocks(x), threshold, strict=True)]
        made = torch.stack(images) if images else x.reshape(-1, *self.space.shape)
        return (torch.view_as_complex(made.movedim(1, -1).contiguous()) if x.is_complex() else made[:, 0]).reshape(
            x.shape
        )

    def _shrink(self, c: Tensor, t: Tensor) -> Tensor:
        """The coefficients ``[parts, 64, blocks]`` after the threshold; the first of the 64 are the means."""
        kept = c * (c.square().sum(0, keepdim=True) > t**2)
        return torch.cat((c[:, :1], kept[:, 1:]), dim=1)

    def _threshold(self, x: Tensor, sigma: Tensor) -> Tensor:
        self.space.check(x, "image for cosine blocks")
        try:
            levels = torch.as_tensor(sigma).to(x.real).expand(*self.space.batch_shape(x), 1, 1).reshape(-1)
        except RuntimeError:
            raise InputError("sigma of cosine blocks", expected="one number, or one per batch element",
                             got=list(sigma.shape)) from None  # fmt: skip
        if not bool(((levels >= 0) & levels.isfinite()).all()):
            raise InputError("sigma of cosine blocks", expected="finite, at least 0", got=levels.tolist())
        return self.factor * levels

    def _blocks(self, x: Tensor) -> list[Tensor]:
        """The coefficients of every image, ``[parts, 64, blocks]``."""
        flat = x.reshape(-1, *self.space.shape)
        parts = torch.view_as_real(flat.resolve_conj()).movedim(-1, 1) if x.is_complex() else flat[:, None]
        C = self.cosines.to(parts)
        return [C @ unfold(pad(p[:, None], (0, SIDE - 1) * 2, mode="circular"), SIDE) for p in parts]

    def _back(self, c: Tensor) -> Tensor:
        """``[parts, rows, columns]`` of coefficients: the mean of the 64 blocks that hold a pixel."""
        rows, columns = self.space.shape
        wide = fold(self.cosines.to(c).mT @ c, (rows + SIDE - 1, columns + SIDE - 1), SIDE)[:, 0] / SIDE**2
        wide[:, : SIDE - 1] += wide[:, rows:]
        wide[:, :, : SIDE - 1] += wide[:, :, columns:]
        return wide[:, :rows, :columns]


class SoftBlockCosines(BlockCosines):
    """The same with soft thresholds: the mean of 64 proximal maps, one for each shift of the grid of blocks, hence a
    proximal map of a convex function itself (Moreau, Bull. Soc. Math. France 93, 1965), whose envelope is `potential`.

    The grids are those of a periodic image whose sides are multiples of 8; for other sizes the blocks still form a
    tight frame, and ``W^H prox(W x)`` with ``W^H W = I`` has the same properties.
    """

    def _shrink(self, c: Tensor, t: Tensor) -> Tensor:
        size = c.square().sum(0, keepdim=True).clamp_min(torch.finfo(c.dtype).tiny).sqrt()
        return torch.cat((c[:, :1], (c * (1 - t / size).clamp_min(0))[:, 1:]), dim=1)

    def potential(self, x: Tensor, sigma: Tensor) -> Tensor:
        """``g(x)`` with ``D = I - grad g``: the Huber function of every coefficient but the means, over 64."""
        values = []
        for c, t in zip(self._blocks(x), self._threshold(x, sigma), strict=True):
            square = c[:, 1:].square().sum(0)
            size = square.clamp_min(torch.finfo(c.dtype).tiny).sqrt()
            values.append(torch.where(size <= t, square / 2, t * size - t**2 / 2).sum() / SIDE**2)
        return torch.stack(values).reshape(self.space.batch_shape(x))

    def regularity(self, sigma: float) -> Regularity:
        """The proximal map of a convex function."""
        return Regularity(1.0, 0.5, 1.0, gradient=True, convex=True, reason="W^H prox(W x), prox of a norm, W^H W = I")


def dct(space: Space, *, strength: float = 3.0) -> Denoiser:
    """Hard thresholds on the cosine transform of all 8 x 8 blocks (Yu and Sapiro, 2011); nothing is proven of it.

    Parameters
    ----------
    strength
        The threshold in units of sigma.
    """
    return BlockCosines(space, strength)


def dct_soft(space: Space, *, strength: float = 1.2) -> Denoiser:
    """Soft thresholds on the cosine transform of all 8 x 8 blocks: the proximal map of a convex function.

    Parameters
    ----------
    strength
        The threshold in units of sigma.
    """
    return SoftBlockCosines(space, strength)
