"""Networks on channels as maps between images: batches flattened, complex images as two channels inside only."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class ImageNetwork(nn.Module):
    """``(x_1, ..., x_m) -> (u_1, ..., u_n)``: a network on channels applied to images ``[..., rows, columns]``.

    All leading dimensions are batch for the network (the coils of a k-space too). A complex image is two channels.

    Parameters
    ----------
    network
        From ``channels(m, is_complex)`` to ``channels(n, is_complex)`` channels, ``[batch, channels, rows, columns]``.
    skip
        Adds the first n images to the results: with a network that starts at zero, the identity.
    """

    def __init__(self, network: nn.Module, skip: bool = False) -> None:
        super().__init__()
        self.network = network
        self.skip = skip

    def forward(self, *images: Tensor) -> tuple[Tensor, ...]:
        """The images that the network makes of `images`, in their dtype."""
        result = self.network(to_channels(images).contiguous(memory_format=torch.channels_last))
        made = from_channels(result, images[0])
        return tuple(a + b for a, b in zip(images, made, strict=False)) if self.skip else made

    def lipschitz(self) -> float | None:
        """The bound of the network, and 1 more with a skip; None where it states none. The channels are an isometry."""
        stated = getattr(self.network, "lipschitz", None)
        bound = stated() if callable(stated) else None
        return None if bound is None else float(bound) + self.skip


def channels(images: int, is_complex: bool) -> int:
    """How many channels so many images take."""
    return 2 * images if is_complex else images


def to_channels(images: Sequence[Tensor]) -> Tensor:
    """Images of one shape and dtype, ``[..., rows, columns]``, as ``[batch, channels, rows, columns]``."""
    stacked = torch.stack(list(images), dim=-3)
    if stacked.is_complex():
        stacked = torch.view_as_real(stacked.resolve_conj()).movedim(-1, -3).flatten(-4, -3)
    return stacked.reshape(-1, *stacked.shape[-3:])


def from_channels(x: Tensor, like: Tensor) -> tuple[Tensor, ...]:
    """The inverse of `to_channels`, with the batch shape and dtype of `like`."""
    shape = like.shape[:-2]
    if like.is_complex():
        parts = x.to(like.dtype.to_real()).reshape(x.shape[0], -1, 2, *x.shape[-2:]).movedim(-3, -1)
        image = torch.view_as_complex(parts.contiguous())
    else:
        image = x.to(like.dtype)
    return image.reshape(*shape, *image.shape[-3:]).unbind(-3)
