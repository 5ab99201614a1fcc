"""Memory that is used within one call and kept for the next: asking the system anew costs more than many a kernel."""

from __future__ import annotations

import threading

import torch
from torch import Tensor

_KEPT = threading.local()


def scratch(name: str, size: int, like: Tensor) -> Tensor:
    """A flat tensor of `size` entries on the CPU with the dtype of `like`, its content undefined.

    It belongs to the calling thread until that asks again under the same name: it must not leave the function that
    asked. Each thread keeps the largest that it ever asked for under a name.
    """
    bytes_needed = size * like.element_size()
    kept: Tensor | None = getattr(_KEPT, name, None)
    if kept is None or kept.numel() < bytes_needed:
        kept = torch.empty(bytes_needed, dtype=torch.uint8)
        setattr(_KEPT, name, kept)
    return kept[:bytes_needed].view(like.dtype)
