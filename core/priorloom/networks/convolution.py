"""The plain block of unrolled networks: a few convolutions, the last of which starts at zero."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from ..errors import InputError
from .spectral import convolution_bound


class ConvolutionBlock(nn.Module):
    """``depth`` convolutions with ReLUs between: ``[batch, inputs, rows, columns]`` to ``[batch, outputs, ...]``.

    The last convolution starts at zero, so that a layer which adds the result starts as its classical step; the others
    as He et al. (2015) for ReLUs.

    Parameters
    ----------
    inputs, outputs, width
        Channels in, out and between.
    depth
        Number of convolutions, at least 2.
    kernel
        Their odd side in pixels; the edge is padded with zeros.
    zero
        Whether the last convolution starts at zero.
    """

    def __init__(
        self, inputs: int, outputs: int, width: int = 32, depth: int = 3, kernel: int = 3, zero: bool = True
    ) -> None:
        super().__init__()
        if depth < 2 or width < 1 or kernel < 1 or kernel % 2 == 0:
            raise InputError(
                "convolution block", expected="depth >= 2, width >= 1 and an odd kernel", got=(depth, width, kernel)
            )
        sizes = [inputs, *[width] * (depth - 1), outputs]
        self.convolutions = nn.ModuleList(nn.Conv2d(a, b, kernel, padding=kernel // 2) for a, b in pairwise(sizes))
        for convolution in self.convolutions:
            assert isinstance(convolution, nn.Conv2d)
            assert convolution.bias is not None
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
            nn.init.zeros_(convolution.bias)
        last = self.convolutions[-1].weight
        assert isinstance(last, Tensor)
        if zero:
            nn.init.zeros_(last)
        else:
            nn.init.kaiming_normal_(last, nonlinearity="linear")

    def forward(self, x: Tensor) -> Tensor:
        """The result."""
        *inner, last = self.convolutions
        for convolution in inner:
            x = nn.functional.relu(convolution(x))
        result: Tensor = last(x)
        return result

    def lipschitz(self) -> float:
        """The product of the bounds of the convolutions; a ReLU has 1."""
        with torch.no_grad():
            kernels = [c.weight for c in self.convolutions if isinstance(c, nn.Conv2d)]
            return math.prod(float(convolution_bound(kernel)) for kernel in kernels)
