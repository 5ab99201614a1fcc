"""Cost: what one application of an operator does, for the bound that ``priorloom bench`` prints."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Literal, Protocol, runtime_checkable

from .operator import LinearOperator

Operation = Literal["forward", "adjoint", "normal"]


@dataclass(frozen=True)
class Cost:
    """What one application to a batch does.

    Parameters
    ----------
    flops
        Floating-point operations, a multiplication and an addition each one; a complex multiplication is six.
    bytes
        Bytes read from and written to memory, each as often as the algorithm must go there.
    """

    flops: float
    bytes: float

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.flops + other.flops, self.bytes + other.bytes)


def fft_flops(sizes: Iterable[int]) -> float:
    """Operations of one complex FFT over axes of these sizes: ``5 n log2 n`` in all, as FFTW counts them."""
    count = math.prod(sizes)
    return 5.0 * count * math.log2(count) if count else 0.0


@runtime_checkable
class Costed(Protocol):
    """An operator that knows its cost. Without it the bound is that of `compulsory_traffic`."""

    def cost(self, operation: Operation, batch: int) -> Cost:
        """Of one application to `batch` elements."""
        ...


def compulsory_traffic(operator: LinearOperator, batch: int) -> Cost:
    """Input, output and every tensor that the operator stores, each moved once; no arithmetic counted."""
    spaces = (operator.domain, operator.range)
    moved = batch * sum(space.size * space.dtype.itemsize for space in spaces)
    stored = sum(t.numel() * t.element_size() for t in chain(operator.parameters(), operator.buffers()))
    return Cost(0.0, float(moved + stored))
