"""Convolutions of a network on the grids where they run: norms, bounds, and what the layers together are bounded by."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from .convolution_norm import PaddingMode, convolution_norm, padded_bound
from .denoising import AveragedNetwork, DnCNN, DRUNet
from .ridge import RidgeNetwork
from .spectral import NonexpansiveConvolution, convolution_bound

_CONTRACTIONS = (
    nn.ReLU, nn.ReLU6, nn.Tanh, nn.Sigmoid, nn.Softplus, nn.Hardtanh, nn.Softsign, nn.Identity, nn.LogSigmoid,
    nn.Dropout, nn.Flatten,
)  # fmt: skip
"""Activations with slopes between -1 and 1; dropout is the identity in evaluation."""
_PADDINGS: dict[str, PaddingMode] = {
    "zeros": "zeros", "circular": "circular", "replicate": "replicate", "reflect": "reflect",
}  # fmt: skip


@dataclass(frozen=True)
class ConvolutionNorm:
    """One convolution on the grid where it ran.

    Parameters
    ----------
    name
        Where it stands in the network.
    channels, kernel, stride, grid
        (in, out), (rows, columns), (down, across), and (rows, columns) of the images that came in.
    norm
        The norm of the convolution operator, see `convolution_norm`.
    bound
        Its upper bound, see `padded_bound`.
    """

    name: str
    channels: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    grid: tuple[int, int]
    norm: float
    bound: float


def convolution_norms(
    network: nn.Module, run: Callable[[], object], tolerance: float = 1e-3
) -> dict[nn.Module, ConvolutionNorm]:
    """The norms of the two-dimensional convolutions of `network`, on the largest grids that they see in ``run()``.

    Convolutions are modules Conv2d, ConvTranspose2d (which has the norm of the convolution that it is the transpose of)
    and NonexpansiveConvolution, and the filters of a RidgeNetwork; others are not seen.

    Parameters
    ----------
    network
        Its parts are searched.
    run
        Runs it once.
    tolerance
        Of the norms, relative; the bounds do not depend on it.
    """
    names = {module: name for name, module in network.named_modules()}
    with torch.no_grad(), _watched(network) as grids:
        run()
    return {module: _one(names[module], module, grid, tolerance) for module, grid in grids.items()}


@contextmanager
def _watched(network: nn.Module) -> Iterator[dict[nn.Module, tuple[int, int]]]:
    """The grids of the images that come into the convolutions, and out of the transposed ones."""
    grids: dict[nn.Module, tuple[int, int]] = {}

    def note(module: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> None:
        rows, columns = (made if isinstance(module, nn.ConvTranspose2d) else given[0]).shape[-2:]
        known = grids.get(module)
        if known is None or rows * columns > math.prod(known):
            grids[module] = (rows, columns)

    kinds = (nn.Conv2d, nn.ConvTranspose2d, NonexpansiveConvolution, RidgeNetwork)
    hooks = [m.register_forward_hook(note) for m in network.modules() if isinstance(m, kinds)]
    try:
        yield grids
    finally:
        for hook in hooks:
            hook.remove()


def _one(name: str, module: nn.Module, grid: tuple[int, int], tolerance: float) -> ConvolutionNorm:
    mode: PaddingMode = "zeros"
    stride = (1, 1)
    padding: tuple[int, int] | None = None
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        kernel = _plain(module)
        stride = (module.stride[0], module.stride[1])
        mode = _PADDINGS[module.padding_mode]
        padding = _amounts(module, kernel)
    elif isinstance(module, NonexpansiveConvolution):
        kernel = module.normalised()
    else:
        assert isinstance(module, RidgeNetwork)
        kernel = _filters(module)
    norm = convolution_norm(kernel, grid, stride=stride, padding=padding, padding_mode=mode, tolerance=tolerance)
    bound = padded_bound(kernel, grid, stride=stride, padding=padding, padding_mode=mode)
    outputs, inputs, rows, columns = kernel.shape
    channels = (outputs, inputs) if isinstance(module, nn.ConvTranspose2d) else (inputs, outputs)
    return ConvolutionNorm(name, channels, (rows, columns), stride, grid, norm, bound)


def _plain(module: nn.Conv2d | nn.ConvTranspose2d) -> Tensor:
    """The kernel without groups and dilation: ``[outputs, inputs, ...]`` with zeros between."""
    weight = module.weight.detach()
    down, across = module.dilation
    outputs, per, rows, columns = weight.shape
    size = (outputs, per * module.groups, (rows - 1) * down + 1, (columns - 1) * across + 1)
    kernel = weight.new_zeros(size)
    for i, part in enumerate(weight.chunk(module.groups)):
        kernel[i * len(part) : (i + 1) * len(part), i * per : (i + 1) * per, ::down, ::across] = part
    if module.padding == "same":  # torch puts the odd pixel of the padding behind the image
        kernel = pad(kernel, (1 - kernel.shape[-1] % 2, 0, 1 - kernel.shape[-2] % 2, 0))
    return kernel


def _amounts(module: nn.Conv2d | nn.ConvTranspose2d, kernel: Tensor) -> tuple[int, int]:
    if isinstance(module.padding, str):
        same = module.padding == "same"
        return (kernel.shape[-2] // 2, kernel.shape[-1] // 2) if same else (0, 0)
    rows, columns = module.padding
    return rows, columns


def _filters(module: RidgeNetwork) -> Tensor:
    """As the network uses them: without their mean, over a bound of their norm."""
    centred = module.filters.detach() - module.filters.detach().mean((-2, -1), keepdim=True)
    return centred / convolution_bound(centred)


def layered_bounds(network: nn.Module, found: Mapping[nn.Module, ConvolutionNorm]) -> tuple[float, float] | None:
    """Upper bounds of the Lipschitz constants of a denoising network D and of ``I - D``, layer by layer; None where the
    network is not made of what is known here. They hold for the grid of `found`, are rigorous, and useless for deep
    networks that were not trained for them: the bounds of layers multiply."""
    if isinstance(network, DnCNN):
        inner = _bound(network.network, found)
        return None if inner is None else (1 + inner, inner)
    if isinstance(network, DRUNet):
        inner = _u_net(network, found)
        return None if inner is None else (1 + inner, inner)
    if isinstance(network, AveragedNetwork):
        inner = _bound(network.network, found)
        a = network.average
        return None if inner is None else (1 - a + a * inner, a * (1 + inner))
    if isinstance(network, RidgeNetwork) and network in found:
        # I - W^T J W with the eigenvalues of J between -1/8 and 1
        square = found[network].bound ** 2
        return max(abs(1 - square), 1 + square / 8), square
    inner = _bound(network, found)
    return None if inner is None else (inner, 1 + inner)


def _bound(module: nn.Module, found: Mapping[nn.Module, ConvolutionNorm]) -> float | None:
    if module in found:
        return found[module].bound
    if isinstance(module, _CONTRACTIONS):
        return 1.0
    if isinstance(module, nn.LeakyReLU | nn.ELU):
        return max(1.0, abs(float(module.negative_slope if isinstance(module, nn.LeakyReLU) else module.alpha)))
    if isinstance(module, nn.Sequential):
        parts = [_bound(part, found) for part in module]
        return None if None in parts else math.prod(p for p in parts if p is not None)
    names = {name for name, _ in module.named_children()}
    if names == {"first", "activation", "second"}:  # a residual block
        inner = [_bound(part, found) for part in module.children()]
        return None if None in inner else 1 + math.prod(p for p in inner if p is not None)
    stated = getattr(module, "lipschitz", None)
    bound = stated() if callable(stated) else None
    return None if bound is None else float(bound)


def _u_net(network: DRUNet, found: Mapping[nn.Module, ConvolutionNorm]) -> float | None:
    """Of ``x -> change``; the image's replicated edge has multiplied what comes in by at most sqrt(1 + m) per axis."""
    modules = [network.head, *network.down, *network.shrink, network.body, *network.grow, *network.up, network.tail]
    known = {m: _bound(m, found) for m in modules}
    bounds = {m: b for m, b in known.items() if b is not None}
    if len(bounds) < len(known):
        return None
    made = bounds[network.head] * 2.0 ** len(network.shrink)  # m < 2^levels on each of two axes
    kept = []
    for stage, shrink in zip(network.down, network.shrink, strict=True):
        made *= bounds[stage]
        kept.append(made)
        made *= bounds[shrink]
    made *= bounds[network.body]
    for stage, grow in zip(reversed(network.up), reversed(network.grow), strict=True):
        made = bounds[stage] * (bounds[grow] * made + kept.pop())
    return made * bounds[network.tail]
