"""Space: the shape and dtype of one element, never of a batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .errors import InputError


@dataclass(frozen=True)
class Space:
    """The shape and dtype of one element; every leading dimension of a tensor is batch.

    The inner product is the Euclidean one, ``<a, b> = sum(conj(a) b)``, real part taken where a real
    number is needed. Physical weights (pixel areas, density compensation) belong to the operators.

    Parameters
    ----------
    shape
        Shape of one element, for example ``(rows, columns)``.
    dtype
        A real or complex floating-point dtype.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        shape = tuple(int(n) for n in self.shape)
        if any(n < 1 for n in shape):
            raise InputError("shape of a space", expected="positive sizes", got=shape)
        if not (self.dtype.is_floating_point or self.dtype.is_complex):
            raise InputError("dtype of a space", expected="a real or complex floating-point dtype", got=self.dtype)
        object.__setattr__(self, "shape", shape)

    @property
    def ndim(self) -> int:
        """Number of dimensions of one element."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of entries of one element."""
        return math.prod(self.shape)

    @property
    def is_complex(self) -> bool:
        """Whether elements are complex."""
        return self.dtype.is_complex

    @property
    def real_dtype(self) -> torch.dtype:
        """The dtype of norms and inner products."""
        return self.dtype.to_real()

    @property
    def dims(self) -> tuple[int, ...]:
        """The negative dimensions that one element takes in a batched tensor."""
        return tuple(range(-self.ndim, 0))

    def with_dtype(self, dtype: torch.dtype) -> Space:
        """The same shape with another dtype."""
        return replace(self, dtype=dtype)

    def moved(self, move: Callable[[Tensor], Tensor]) -> Space:
        """The Space of this one's elements after `move`, which ``nn.Module.to`` and its like apply to every tensor."""
        return self.with_dtype(keep_kind(move)(torch.empty(0, dtype=self.dtype)).dtype)

    def batch_shape(self, x: Tensor) -> tuple[int, ...]:
        """The leading (batch) shape of `x`."""
        return tuple(x.shape[: x.ndim - self.ndim])

    def check(self, x: Tensor, what: str) -> None:
        """Raise InputError unless `x` is ``[..., *shape]`` with this dtype."""
        if not isinstance(x, Tensor):
            raise InputError(what, expected="a torch.Tensor", got=type(x).__name__, cure="use torch.from_numpy")
        if x.ndim < self.ndim or tuple(x.shape[x.ndim - self.ndim :]) != self.shape:
            expected = f"shape [..., {', '.join(map(str, self.shape))}]"
            raise InputError(what, expected=expected, got=f"[{', '.join(map(str, x.shape))}]")
        if x.dtype != self.dtype:
            raise InputError(what, expected=self.dtype, got=x.dtype, cure=f"convert with .to({self.dtype})")

    def zeros(self, batch: Sequence[int] = (), device: torch.device | str | None = None) -> Tensor:
        """Zeros of shape ``[*batch, *shape]``."""
        return torch.zeros((*batch, *self.shape), dtype=self.dtype, device=device)

    def random(
        self, generator: torch.Generator, batch: Sequence[int] = (), device: torch.device | str | None = None
    ) -> Tensor:
        """Standard normal entries (complex: unit variance in total), drawn on the CPU: the same for every device."""
        x = torch.randn((*batch, *self.shape), dtype=self.dtype, generator=generator)
        return x.to(device) if device is not None else x

    def inner(self, a: Tensor, b: Tensor) -> Tensor:
        """``sum(conj(a) b)`` of every batch element."""
        return (a.conj() * b).sum(dim=self.dims) if self.ndim else a.conj() * b

    def squared(self, x: Tensor) -> Tensor:
        """``|x|^2`` of every batch element, real; twice differentiable at 0 too, unlike ``norm(x) ** 2``."""
        x, dims = self._real(x)
        return x.square().sum(dim=dims) if dims else x.square()

    def norm(self, x: Tensor) -> Tensor:
        """Euclidean norm of every batch element, real."""
        x, dims = self._real(x)
        norm: Tensor = torch.linalg.vector_norm(x, dim=dims) if dims else x.abs()
        return norm

    def _real(self, x: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """The real coordinates of x, and the dimensions of one element; torch's own complex norm is a hundred times
        slower on the CPU."""
        if not x.is_complex():
            return x, self.dims
        return torch.view_as_real(x.resolve_conj()), (*(d - 1 for d in self.dims), -1)

    def expand(self, scalar: Tensor) -> Tensor:
        """Turn one number per batch element into a tensor that broadcasts against ``[..., *shape]``."""
        return scalar.reshape(*scalar.shape, *(1,) * self.ndim)


def keep_kind(move: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """`move` with complex tensors kept complex: ``.to(torch.float64)`` means double precision, not real numbers."""

    def moved(t: Tensor) -> Tensor:
        if not t.is_complex():
            return move(t)
        probe = move(torch.empty(0, dtype=t.dtype.to_real(), device=t.device))
        dtype = probe.dtype if probe.is_complex() else probe.dtype.to_complex()
        return t.to(device=probe.device, dtype=dtype)

    return moved
