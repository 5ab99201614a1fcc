"""Nonexpansive networks: convolutions divided by the norm of the convolution operator itself, not of a reshaped kernel.

A convolution with circular padding is block-diagonal in the Fourier domain: its singular values are those of the
symbol ``K(theta) = sum_k w_k exp(-i <theta, k>)``, a matrix ``[outputs, inputs]``, at the frequencies of the grid
(Sedghi, Gupta and Long, The singular values of convolutional layers, 2019). A convolution with zero padding is a
compression of circular ones on larger grids, so its norm is at most the supremum of ``|K|`` over all frequencies,
whatever the size of the image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from ..constraints import MARGIN
from ..errors import DivergenceError, InputError

DENSITY = 24
"""Grid points per degree of the trigonometric polynomial: the bound exceeds the supremum by at most 1.8 %."""
ROUNDING = 1e-5
"""What a bound adds relative to itself, so that single precision cannot carry it below the truth."""


def circular_norm(kernel: Tensor, grid: tuple[int, int]) -> Tensor:
    """The norm of the convolution with circular padding on images of shape `grid`, exact; differentiable.

    Parameters
    ----------
    kernel
        As in ``torch.nn.Conv2d``, ``[outputs, inputs, rows, columns]``.
    grid
        (rows, columns) of the images.
    """
    with torch.autocast(kernel.device.type, enabled=False):
        return _largest(kernel if kernel.dtype == torch.float64 else kernel.float(), grid)


def convolution_bound(kernel: Tensor) -> Tensor:
    """An upper bound of the norm of the convolution with zero padding on images of any size; differentiable.

    ``Re <u, K(theta) v>`` is in each frequency a trigonometric polynomial of degree ``n = (size - 1) / 2`` once the
    kernel is centred, which changes no norm. By M. Riesz's lemma such a T with its maximum at theta_0 has ``T(theta) >=
    |T| cos(n (theta - theta_0))`` near theta_0, so its maximum is at most that on N > 2 n equidistant points over
    ``cos(pi n / N)`` (Ehlich and Zeller, Math. Z. 86, 1964; Pfister and Bresler, IEEE Trans. Signal Process. 67, 2019),
    for each of the two frequencies.

    Parameters
    ----------
    kernel
        ``[outputs, inputs, rows, columns]`` with odd sides.
    """
    rows, columns = kernel.shape[-2:]
    if rows % 2 == 0 or columns % 2 == 0:
        raise InputError("kernel of a convolution", expected="odd sides", got=[rows, columns])
    degrees = [(side - 1) // 2 for side in (rows, columns)]
    norm = circular_norm(kernel, (max(1, DENSITY * degrees[0]), max(1, DENSITY * degrees[1])))
    factor = math.prod(1 / math.cos(math.pi / DENSITY) for degree in degrees if degree)
    return norm * (factor * (1 + ROUNDING))


def _largest(kernel: Tensor, grid: tuple[int, int]) -> Tensor:
    """The largest singular value of the symbol on the grid; its derivative is that where it is attained."""
    phases = [frequencies(kernel, side, points) for side, points in zip(kernel.shape[-2:], grid, strict=True)]
    # A real kernel has K(-theta) = conj(K(theta)): half of the frequencies suffice.
    phases[1] = phases[1][: grid[1] // 2 + 1]
    if not bool(kernel.isfinite().all()):
        raise DivergenceError("weights of a convolution", expected="finite values", got="NaN or infinite ones")
    with torch.no_grad():
        symbols = torch.einsum("oiab,fa,gb->fgoi", kernel.to(phases[0].dtype), *phases).flatten(0, 1)
        at = int(torch.linalg.svdvals(symbols)[:, 0].argmax())
        u, _, v = torch.linalg.svd(symbols[at], full_matrices=False)
        row, column = divmod(at, len(phases[1]))
        # Re <u, K v> as one real number per entry of the kernel
        outer = torch.einsum("o,i,a,b->oiab", u[:, 0].conj(), v[0].conj(), phases[0][row], phases[1][column]).real
    return (kernel * outer).sum()


def frequencies(kernel: Tensor, side: int, points: int) -> Tensor:
    """``exp(-2 pi i f k / points)``, ``[points, side]``."""
    angles = torch.arange(points, dtype=torch.float64)[:, None] * torch.arange(side) * (-2 * math.pi / points)
    return torch.polar(torch.ones_like(angles), angles).to(kernel.device, kernel.dtype.to_complex())


class NonexpansiveConvolution(nn.Module):
    """``x -> w * x / c`` with zero padding and ``c = convolution_bound(w)``, hence 1-Lipschitz, on any grid.

    The normalised kernel does not change with the length of w, whose gradient is therefore orthogonal to it: no step of
    gradient descent shortens w, and a long one only slows training down. There is no bias, which nothing would bound:
    what comes out is never larger than what goes in (and scales with it; Mohan et al., Robust and interpretable blind
    image denoising via bias-free networks, 2020). Without gradients c is computed once.

    Parameters
    ----------
    inputs, outputs
        Channels in and out.
    kernel
        The odd side in pixels.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int = 3) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, kernel, kernel))
        nn.init.kaiming_normal_(self.weight)
        self._kept: tuple[Tensor, int, Tensor] | None = None

    def normalised(self) -> Tensor:
        """``w / c``."""
        if torch.is_grad_enabled() and self.weight.requires_grad:
            return self._divided()
        kept = self._kept
        if (
            kept is None
            or kept[0] is not self.weight
            or kept[1] != self.weight._version
            or _moved(kept[2], self.weight)
        ):
            kept = self._kept = (self.weight, self.weight._version, self._divided().detach())
        return kept[2]

    def _divided(self) -> Tensor:
        bound = convolution_bound(self.weight)
        return self.weight / torch.where(bound > 0, bound, 1).to(self.weight.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """The result."""
        return nn.functional.conv2d(x, self.normalised(), padding=self.weight.shape[-1] // 2)

    def lipschitz(self) -> float:
        """1."""
        return 1.0

    # A copy counts the changes of its tensors anew.
    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_kept": None}


def _moved(a: Tensor, b: Tensor) -> bool:
    return a.device != b.device or a.dtype != b.dtype


class MaxMin(nn.Module):
    """Sorts every pair of channels: a 1-Lipschitz activation that keeps the norm of gradients (Anil, Lucas and Grosse,
    2019)."""

    def forward(self, x: Tensor) -> Tensor:
        """``(max(a, b), min(a, b))`` of the two halves of the channels, ``[batch, channels, ...]``."""
        a, b = x.chunk(2, dim=1)
        return torch.cat([torch.maximum(a, b), torch.minimum(a, b)], dim=1)

    def lipschitz(self) -> float:
        """1."""
        return 1.0


class NonexpansiveBlock(nn.Sequential):
    """``depth`` nonexpansive convolutions with `MaxMin` between, ``[batch, inputs, rows, columns]`` to outputs.

    Parameters
    ----------
    inputs, outputs, width
        Channels in, out and between, the last an even number.
    depth
        Number of convolutions, at least 2.
    """

    def __init__(self, inputs: int, outputs: int, width: int = 32, depth: int = 3) -> None:
        if depth < 2 or width < 2 or width % 2:
            raise InputError("nonexpansive block", expected="depth >= 2 and an even width", got=(depth, width))
        super().__init__(*_alternate([inputs, *[width] * (depth - 1), outputs]))

    def lipschitz(self) -> float:
        """1."""
        return 1.0


def _alternate(sizes: Sequence[int]) -> list[nn.Module]:
    parts: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        parts += [MaxMin(), NonexpansiveConvolution(inputs, outputs)]
    return parts[1:]


class Averaged(nn.Module):
    """``(1 - |a|) I + a N`` with a nonexpansive N and a learned ``-1 < a < 1``: an averaged operator (Bauschke and
    Combettes, 2017, section 4.5), whose iterates converge where it has a fixed point.

    a starts at 0, where it is the identity; a negative one averages with ``-N``, which is nonexpansive too. As N keeps
    0, no image grows: whatever training does to the weights, the network's output is finite.

    Parameters
    ----------
    network
        N, from channels to as many channels.
    """

    def __init__(self, network: NonexpansiveBlock) -> None:
        super().__init__()
        self.network = network
        self.free = nn.Parameter(torch.zeros(()))

    def average(self) -> Tensor:
        """a."""
        return (1 - MARGIN) * torch.tanh(self.free)

    def forward(self, x: Tensor) -> Tensor:
        """The result."""
        a = self.average()
        result: Tensor = (1 - a.abs()) * x + a * self.network(x)
        return result

    def lipschitz(self) -> float:
        """1."""
        return 1.0
