"""The norm of a convolution on images of one size, exact for every stride and padding, and an upper bound of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from ..errors import DivergenceError, InputError
from .spectral import convolution_bound, frequencies

PaddingMode = Literal["zeros", "circular", "replicate", "reflect"]

_DENSE, _ROUNDS = 400, 2000
"""Matrices with no more rows or columns are decomposed; the most iterations for larger ones."""
_SINGLE = 1e-4
"""A tolerance from which on single precision does, in which convolutions are several times faster."""


@dataclass(frozen=True)
class ConvolutionOperator:
    """A convolution as a linear map of images of one size, exactly as ``torch.nn.Conv2d`` computes it.

    Parameters
    ----------
    kernel
        ``[outputs, inputs, rows, columns]``.
    grid
        (rows, columns) of the images.
    stride, padding
        Per axis; pixels added on each side.
    padding_mode
        "zeros", "circular", "replicate" or "reflect".
    """

    kernel: Tensor
    grid: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    padding_mode: PaddingMode = "zeros"

    def __call__(self, x: Tensor) -> Tensor:
        """``[batch, inputs, *grid]`` to ``[batch, outputs, ...]``."""
        if self.padding_mode == "zeros":
            return conv2d(x, self.kernel, stride=self.stride, padding=self.padding)
        rows, columns = self.padding
        padded = pad(x, (columns, columns, rows, rows), mode=self.padding_mode)
        return conv2d(padded, self.kernel, stride=self.stride)

    @property
    def results(self) -> tuple[int, int]:
        """(rows, columns) of the result."""
        axes = zip(self.grid, self.padding, self.kernel.shape[-2:], self.stride, strict=True)
        rows, columns = ((n + 2 * p - k) // s + 1 for n, p, k, s in axes)
        return rows, columns

    @property
    def is_cyclic(self) -> bool:
        """Whether it commutes with cyclic shifts by the stride: circular padding, and as many results as fit."""
        fits = all(m * s == n for m, s, n in zip(self.results, self.stride, self.grid, strict=True))
        return self.padding_mode == "circular" and fits


def convolution_norm(
    kernel: Tensor,
    grid: tuple[int, int],
    *,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] | None = None,
    padding_mode: PaddingMode = "zeros",
    tolerance: float = 1e-6,
) -> float:
    """The norm of a convolution as ``torch.nn.Conv2d`` computes it, on images of shape `grid`.

    With circular padding, and a stride that divides the grid, it is the largest norm of a block ``K(theta_1), ...,
    K(theta_n)`` of the symbols at the n frequencies that the stride folds into one, over ``sqrt(n)``. Else it is the
    largest singular value of the dense matrix where that is small, and of larger ones a Rayleigh quotient, never above
    the norm, whose residual is below `tolerance`.

    Parameters
    ----------
    kernel
        ``[outputs, inputs, rows, columns]``.
    grid
        (rows, columns) of the images.
    stride, padding
        For both axes or per axis; half a kernel of padding when absent.
    padding_mode
        "zeros", "circular", "replicate" or "reflect".
    tolerance
        Of the iteration, relative.
    """
    operator = _operator(kernel, grid, stride, padding, padding_mode)
    with torch.no_grad():
        if operator.is_cyclic:
            return _folded_norm(operator.kernel, grid, operator.stride)
        inputs, outputs = kernel.shape[1] * math.prod(grid), kernel.shape[0] * math.prod(operator.results)
        if min(inputs, outputs) <= _DENSE and max(inputs, outputs) <= 4 * _DENSE:
            basis = torch.eye(inputs, dtype=torch.float64, device=kernel.device).reshape(inputs, -1, *grid)
            return float(torch.linalg.matrix_norm(operator(basis).flatten(1), 2))
        return _rayleigh(operator, (1, kernel.shape[1], *grid), tolerance)


def padded_bound(
    kernel: Tensor,
    grid: tuple[int, int],
    *,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] | None = None,
    padding_mode: PaddingMode = "zeros",
) -> float:
    """An upper bound of `convolution_norm`, rigorous up to rounding, for which `convolution_bound` leaves room.

    A stride takes the phases of the image as channels: in between nothing is lost, and `convolution_bound` holds for
    the kernel ``[outputs, stride^2 inputs, ...]`` of the phases (filled up with zeros to odd sides). Zero padding, and
    circular padding where `ConvolutionOperator.is_cyclic`, are compressions of the convolution on the plane or its
    values at some frequencies. Any other padding is a linear map of its own, of norm at most ``sqrt(m)`` where it
    repeats no pixel more than m times.
    """
    operator = _operator(kernel, grid, stride, padding, padding_mode)
    with torch.no_grad():
        bound = float(convolution_bound(_phase_kernel(operator.kernel, operator.stride)))
    if padding_mode == "zeros" or operator.is_cyclic:
        return bound
    for side, amount in zip(grid, operator.padding, strict=True):
        bound *= math.sqrt(_repetitions(side, amount, padding_mode))
    return bound


def _operator(
    kernel: Tensor,
    grid: tuple[int, int],
    stride: int | tuple[int, int],
    padding: int | tuple[int, int] | None,
    padding_mode: PaddingMode,
) -> ConvolutionOperator:
    if kernel.ndim != 4:
        raise InputError("kernel of a convolution", expected="[outputs, inputs, rows, columns]", got=list(kernel.shape))
    if not bool(kernel.isfinite().all()):
        raise DivergenceError("weights of a convolution", expected="finite values", got="NaN or infinite ones")
    rows, columns = kernel.shape[-2:]
    amounts = (rows // 2, columns // 2) if padding is None else _pair(padding)
    made = ConvolutionOperator(kernel.detach().double(), grid, _pair(stride), amounts, padding_mode)
    if min(*made.stride, *grid) < 1 or min(amounts) < 0 or min(made.results) < 1:
        raise InputError("convolution", expected="a positive stride, and a grid and padding that the kernel fits into",
                         got=f"grid {list(grid)}, kernel {[rows, columns]}, stride {list(made.stride)}, padding "
                         f"{list(amounts)}")  # fmt: skip
    return made


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def _folded_norm(kernel: Tensor, grid: tuple[int, int], stride: tuple[int, int]) -> float:
    """Frequencies f and f + grid / stride of the image are one frequency of the result."""
    phases = [frequencies(kernel, side, points) for side, points in zip(kernel.shape[-2:], grid, strict=True)]
    symbols = torch.einsum("oiab,fa,gb->fgoi", kernel.to(phases[0].dtype), *phases)
    (rows, columns), (down, across) = grid, stride
    outputs, inputs = kernel.shape[:2]
    folded = symbols.reshape(down, rows // down, across, columns // across, outputs, inputs)
    blocks = folded.permute(1, 3, 4, 0, 2, 5).reshape(-1, outputs, down * across * inputs)
    return float(torch.linalg.matrix_norm(blocks, 2).max()) / math.sqrt(down * across)


def _phase_kernel(kernel: Tensor, stride: tuple[int, int]) -> Tensor:
    """The kernel on the phases of the image as channels, of odd sides: entry a of the kernel sees phase ``a % s`` at
    offset ``a // s``."""
    rows, columns = kernel.shape[-2:]
    (down, across), (high, wide) = stride, (-(-rows // stride[0]), -(-columns // stride[1]))
    filled = pad(kernel, (0, wide * across - columns, 0, high * down - rows))
    split = filled.reshape(*kernel.shape[:2], high, down, wide, across)
    made = split.permute(0, 1, 3, 5, 2, 4).reshape(kernel.shape[0], -1, high, wide)
    return pad(made, (0, 1 - wide % 2, 0, 1 - high % 2))


def _repetitions(side: int, amount: int, padding_mode: PaddingMode) -> int:
    """How often a padding shows one pixel at most, along one axis."""
    indices = pad(torch.arange(side, dtype=torch.float64)[None, None, :], (amount, amount), mode=padding_mode)
    return int(indices.flatten().long().bincount().max())


def _rayleigh(operator: ConvolutionOperator, shape: tuple[int, ...], tolerance: float) -> float:
    """The largest singular value by locally optimal conjugate gradients on the Rayleigh quotient of ``A^T A`` (Knyazev,
    2001): three images instead of a whole Krylov basis."""
    if tolerance >= _SINGLE:
        operator = replace(operator, kernel=operator.kernel.float())
    kernel = operator.kernel
    x = torch.randn(shape, dtype=kernel.dtype, generator=torch.Generator().manual_seed(0)).to(kernel.device)
    pull = torch.func.vjp(operator, x)[1]

    def normal(v: Tensor) -> Tensor:
        (result,) = pull(operator(v.reshape(shape)))
        flat: Tensor = result.flatten()
        return flat

    x = x.flatten() / x.norm()
    hx, top = normal(x), 0.0
    basis, images = x[:, None], hx[:, None]
    for _ in range(_ROUNDS):
        top = float(x @ hx)
        r = hx - top * x
        if float(r.norm()) <= tolerance * top or top == 0:
            break
        r = r - basis @ (basis.T @ r)
        r = r / r.norm()
        basis, images = torch.cat([basis, r[:, None]], 1), torch.cat([images, normal(r)[:, None]], 1)
        _, vectors = torch.linalg.eigh(basis.T @ images)
        # The new x, and what it adds to the old one, orthogonal to it
        best = vectors[:, -1]
        direction = best.clone()
        direction[0] = 0
        direction = direction - (direction @ best) * best
        keep = [best] if float(direction.norm()) < 1e-14 else [best, direction / direction.norm()]
        turn = torch.stack(keep, 1)
        basis, images = basis @ turn, images @ turn
        # Products of nearly orthonormal columns drift
        basis, triangle = torch.linalg.qr(basis)
        images = torch.linalg.solve_triangular(triangle, images, upper=True, left=False)
        x, hx = basis[:, 0], images[:, 0]
    return math.sqrt(max(top, 0.0))
