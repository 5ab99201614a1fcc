"""A small U-Net (Ronneberger, Fischer and Brox, 2015), the reference for post-processing."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from ..errors import InputError


class UNet(nn.Module):
    """An encoder and a decoder with connections between their levels, ``[batch, inputs, rows, columns]`` to outputs.

    Two 3x3 convolutions with group normalisation and ReLU per level, average pooling down, bilinear interpolation up;
    images of any size are padded by reflection to a multiple of ``2^levels`` and cut back. The last convolution starts
    at zero, as that of ``ConvolutionBlock``.

    Parameters
    ----------
    inputs, outputs
        Channels in and out.
    width
        Channels of the first level; they double on the way down.
    levels
        How often the image is halved.
    """

    def __init__(self, inputs: int, outputs: int, width: int = 16, levels: int = 3) -> None:
        super().__init__()
        if width < 4 or width % 4 or levels < 1:
            raise InputError("U-Net", expected="a width that is a multiple of 4, and levels >= 1", got=(width, levels))
        widths = [width * 2**i for i in range(levels + 1)]
        self.levels = levels
        self.down = nn.ModuleList(_level(a, b) for a, b in zip([inputs, *widths], widths, strict=False))
        self.up = nn.ModuleList(
            _level(coarse + fine, fine) for coarse, fine in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.last = nn.Conv2d(width, outputs, 1)
        nn.init.zeros_(self.last.weight)
        assert self.last.bias is not None
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor) -> Tensor:
        """The result."""
        rows, columns = x.shape[-2:]
        multiple = 2**self.levels
        x = pad(x, (0, -columns % multiple, 0, -rows % multiple), mode="reflect")
        kept = []
        for i, level in enumerate(self.down):
            x = level(nn.functional.avg_pool2d(x, 2) if i else x)
            kept.append(x)
        kept.pop()
        for level in self.up:
            skipped = kept.pop()
            x = level(torch.cat([interpolate(x, scale_factor=2, mode="bilinear"), skipped], dim=1))
        result: Tensor = self.last(x)
        return result[..., :rows, :columns]


def _level(inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in ((inputs, outputs), (outputs, outputs)):
        layers += [nn.Conv2d(a, b, 3, padding=1, bias=False), nn.GroupNorm(4, b), nn.ReLU()]
    return nn.Sequential(*layers)
