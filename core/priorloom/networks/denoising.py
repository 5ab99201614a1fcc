"""Networks that denoise images: DnCNN, DRUNet, gradient-step and averaged ones, and what is proven of each.

A `DenoisingNetwork` takes images ``[..., rows, columns]``, real or complex (a complex image is two channels), and the
noise's standard deviation per entry, which broadcasts against them (for complex entries that of the modulus).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from ..errors import InputError
from ..regularity import Regularity
from .images import from_channels, to_channels
from .spectral import NonexpansiveBlock

Activation = type[nn.Module]


class DenoisingNetwork(nn.Module):
    """A network ``D(x, sigma)`` between images; subclasses write ``_denoise`` on channels.

    Parameters
    ----------
    is_complex
        Whether images are complex; the noise per channel is then ``sigma / sqrt(2)``.
    """

    def __init__(self, is_complex: bool) -> None:
        super().__init__()
        self.is_complex = is_complex

    def _denoise(self, x: Tensor, level: Tensor) -> Tensor:
        """``[batch, channels, rows, columns]`` and the noise per channel ``[batch, 1, 1, 1]`` to the clean channels."""
        raise NotImplementedError(f"{type(self).__name__} has no _denoise")

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The denoised images, of the shape and dtype of x."""
        self.check(x)
        flat = to_channels((x,)).contiguous(memory_format=torch.channels_last)
        (image,) = from_channels(self._denoise(flat, self.levels(x, sigma, flat.shape[0])), x)
        return image

    def check(self, x: Tensor) -> None:
        """Raise InputError unless x has the network's kind of numbers."""
        if x.is_complex() != self.is_complex:
            kinds = {True: "complex images", False: "real images"}
            raise InputError(f"input of {type(self).__name__}", expected=kinds[self.is_complex],
                             got=kinds[x.is_complex()])  # fmt: skip

    def levels(self, x: Tensor, sigma: Tensor, batch: int) -> Tensor:
        """The noise per channel of every image, ``[batch, 1, 1, 1]``."""
        per_image = sigma.to(x.real.dtype).expand(*x.shape[:-2], 1, 1).reshape(batch, 1, 1, 1)
        return per_image / 2**0.5 if self.is_complex else per_image

    def regularity(self, sigma: float) -> Regularity:
        """What is proven at this noise level; nothing where a network does not know better."""
        return Regularity(reason=f"nothing bounds the convolutions of {type(self).__name__}")


def with_level(x: Tensor, level: Tensor) -> Tensor:
    """x with the noise level as one more channel."""
    return torch.cat([x, level.expand(-1, 1, *x.shape[-2:]).to(x.dtype)], dim=1)


class DnCNN(DenoisingNetwork):
    """``x - N(x, sigma)``: convolutions and ReLUs that estimate the noise (Zhang et al., IEEE Trans. Image Process. 26,
    2017), with the noise level as a channel (Zhang, Zuo and Zhang, FFDNet, 2018) and without batch normalisation.

    Parameters
    ----------
    is_complex
        Whether images are complex.
    width, depth
        Channels, and number of convolutions (at least 2).
    """

    def __init__(self, is_complex: bool, width: int = 32, depth: int = 10) -> None:
        super().__init__(is_complex)
        if width < 1 or depth < 2:
            raise InputError("DnCNN", expected="width >= 1 and depth >= 2", got=(width, depth))
        images = 2 if is_complex else 1
        layers: list[nn.Module] = []
        for a, b in pairwise([images + 1, *[width] * (depth - 1), images]):
            layers += [nn.Conv2d(a, b, 3, padding=1), nn.ReLU()]
        self.network = nn.Sequential(*layers[:-1])
        _begin(self.network)

    def _denoise(self, x: Tensor, level: Tensor) -> Tensor:
        estimate: Tensor = self.network(with_level(x, level))
        return x - estimate


class DRUNet(DenoisingNetwork):
    """A U-Net of residual blocks without any bias, the noise level as a channel (Zhang et al., Plug-and-play image
    restoration with deep denoiser prior, IEEE Trans. Pattern Anal. Mach. Intell. 44, 2022), made small.

    Without biases and with ReLUs it commutes with scaling, ``D(c x, c sigma) = c D(x, sigma)`` for ``c > 0``, so that
    it needs no intensity range (Mohan et al., 2020). It adds to x what the U-Net makes, cut off at `limit` standard
    deviations of the noise: a bounded denoiser in the sense of Chan, Wang and Elgendy (2017), which leaves x as it is
    where there is no noise. That starts at zero.

    Parameters
    ----------
    is_complex
        Whether images are complex.
    widths
        Channels per level; between two levels the image is halved.
    blocks
        Residual blocks per level, and on the way up as many.
    activation
        ReLU, or a smooth one where a derivative of the network must exist (then nothing commutes with scaling).
    zero
        Whether the network starts as the identity, or with a U-Net that makes something small.
    limit
        The most that a channel of a pixel is changed in evaluation mode, in units of its noise; None for no limit,
        where a derivative must exist.
    """

    def __init__(
        self,
        is_complex: bool,
        widths: Sequence[int] = (24, 40, 64, 96),
        blocks: int = 2,
        activation: Activation = nn.ReLU,
        zero: bool = True,
        limit: float | None = 4.0,
    ) -> None:
        super().__init__(is_complex)
        self.limit = limit
        if not widths or min(widths) < 1 or blocks < 1:
            raise InputError("DRUNet", expected="positive widths and at least one block", got=(tuple(widths), blocks))
        images = 2 if is_complex else 1
        self.head = _convolution(images + 1, widths[0])
        self.down = nn.ModuleList(_stage(w, blocks, activation) for w in widths[:-1])
        self.shrink = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2, bias=False) for a, b in pairwise(widths))
        self.body = _stage(widths[-1], blocks, activation)
        self.grow = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, stride=2, bias=False) for a, b in pairwise(widths))
        self.up = nn.ModuleList(_stage(w, blocks, activation) for w in widths[:-1])
        self.tail = _convolution(widths[0], images)
        _begin(self)
        if zero:
            nn.init.zeros_(self.tail.weight)
        else:
            self.tail.weight.data.mul_(0.1)

    def _denoise(self, x: Tensor, level: Tensor) -> Tensor:
        rows, columns = x.shape[-2:]
        multiple = 2 ** len(self.shrink)
        padded = pad(with_level(x, level), (0, -columns % multiple, 0, -rows % multiple), mode="replicate")
        made: Tensor = self.head(padded)
        kept = []
        for stage, shrink in zip(self.down, self.shrink, strict=True):
            made = stage(made)
            kept.append(made)
            made = shrink(made)
        made = self.body(made)
        for stage, grow in zip(reversed(self.up), reversed(self.grow), strict=True):
            made = stage(grow(made) + kept.pop())
        change: Tensor = self.tail(made)[..., :rows, :columns]
        if self.limit is not None and not self.training:  # beyond the limit nothing would be learned
            most = self.limit * level.to(change.dtype)
            change = torch.maximum(torch.minimum(change, most), -most)
        return x + change


class GradientStep(DenoisingNetwork):
    """``D = I - grad g`` with ``g(x) = 0.5 |x - N(x)|^2`` and a smooth network N (Hurault, Leclaire and Papadakis,
    Gradient step denoiser for convergent plug-and-play, 2022, eq. 14): the value of g is there to descend on.

    Parameters
    ----------
    network
        N, with activations that have a derivative; from images to images. It must not start as the identity, where the
        derivative of D by every weight of ``N - I`` is zero, and nothing is learned.
    """

    def __init__(self, network: DenoisingNetwork) -> None:
        super().__init__(network.is_complex)
        kinks = any(isinstance(m, nn.ReLU) or getattr(m, "limit", None) is not None for m in network.modules())
        if kinks:
            raise InputError("network of a gradient step", expected="activations with a derivative, such as ELU",
                             got="ReLU")  # fmt: skip
        self.network = network

    def potential(self, x: Tensor, sigma: Tensor) -> Tensor:
        """``g(x)``, one value per image ``[...]``."""
        difference = x - self.network(x, sigma)
        parts = torch.view_as_real(difference) if self.is_complex else difference[..., None]
        return 0.5 * parts.square().sum((-3, -2, -1))

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """``x - grad g(x)``; differentiable where gradients are enabled."""
        learning = torch.is_grad_enabled() and any(t.requires_grad for t in (x, sigma, *self.parameters()))
        with torch.enable_grad():
            at = x if learning and x.requires_grad else x.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.potential(at, sigma).sum(), at, create_graph=learning)
        return x - slope

    def regularity(self, sigma: float) -> Regularity:
        """The gradient of a function, whose Lipschitz constant nothing bounds."""
        return Regularity(gradient=True, reason="I - grad g by construction, g >= 0; no bound of grad g is known")


class AveragedNetwork(DenoisingNetwork):
    """``D = (1 - a) I + a N(., sigma)`` with a nonexpansive N (`NonexpansiveBlock`): averaged by construction, and
    firmly nonexpansive for ``a <= 1/2`` (Pesquet, Repetti, Terris and Wiaux, Learning maximally monotone operators for
    image recovery, 2021).

    Parameters
    ----------
    is_complex
        Whether images are complex.
    width, depth
        Channels, an even number, and number of convolutions.
    average
        a in (0, 1).
    """

    def __init__(self, is_complex: bool, width: int = 32, depth: int = 6, average: float = 0.5) -> None:
        super().__init__(is_complex)
        if not 0 < average < 1:
            raise InputError("average of a denoiser", expected="a number between 0 and 1", got=average)
        images = 2 if is_complex else 1
        self.average = average
        self.network = NonexpansiveBlock(images + 1, images, width, depth)

    def _denoise(self, x: Tensor, level: Tensor) -> Tensor:
        made: Tensor = (1 - self.average) * x + self.average * self.network(with_level(x, level))
        return made

    def regularity(self, sigma: float) -> Regularity:
        """Averaged, whatever the weights and the image's size."""
        bound = self.network.lipschitz()
        return Regularity(
            lipschitz=1.0,
            averaged=self.average,
            residual=2 * self.average,
            reason=f"(1 - a) I + a N, |N| <= {bound:g} as every convolution is divided by a bound of its norm",
        )


class _ResidualBlock(nn.Module):
    def __init__(self, width: int, activation: Activation) -> None:
        super().__init__()
        self.first, self.activation, self.second = _convolution(width, width), activation(), _convolution(width, width)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = x + self.second(self.activation(self.first(x)))
        return made


def _stage(width: int, blocks: int, activation: Activation) -> nn.Sequential:
    return nn.Sequential(*[_ResidualBlock(width, activation) for _ in range(blocks)])


def _convolution(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)


def _begin(network: nn.Module) -> None:
    """He's initialisation; the last convolution of a residual block is small, so that the block begins near the
    identity."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        if isinstance(module, _ResidualBlock):
            with torch.no_grad():
                module.second.weight.mul_(0.2)
