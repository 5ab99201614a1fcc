"""Functionals with a closed-form prox, on real and complex tensors: L1, group L1, squared norm, box."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from priorloom import Functional, Space
from priorloom.errors import InputError


class Weighted(Functional):
    """A Functional with a weight `lam`, finite and at least 0; a tensor follows ``.to()``, a Parameter is learned."""

    lam: float | Tensor

    def __init__(self, space: Space, lam: float | Tensor) -> None:
        super().__init__(space)
        values = torch.as_tensor(lam)
        if values.is_complex() or not bool(((values >= 0) & values.isfinite()).all()):
            raise InputError("lam", expected="a finite number, at least 0", got=lam if values.ndim == 0 else "a tensor")
        if isinstance(lam, Tensor) and not isinstance(lam, nn.Parameter):
            self.register_buffer("lam", lam, persistent=False)
        else:
            self.lam = lam


def _within(size: Tensor, bound: float | Tensor) -> Tensor:
    """``size <= bound`` up to rounding, which is measured against the largest bound."""
    top = torch.as_tensor(bound, device=size.device).detach().amax().to(size.dtype)
    return size <= bound + 100 * torch.finfo(size.dtype).eps * top


def _indicator(inside: Tensor, space: Space) -> Tensor:
    """0 for every batch element that lies inside entirely, else infinity."""
    zero = torch.zeros((), dtype=space.real_dtype, device=inside.device)
    return torch.where(inside.flatten(-space.ndim).all(-1) if space.ndim else inside, zero, torch.inf)


def _shrink(x: Tensor, size: Tensor, threshold: Tensor) -> Tensor:
    """``x max(0, 1 - threshold / size)``, differentiable also at zero, and x where the threshold is zero."""
    tiny = torch.finfo(size.dtype).tiny
    return x * (1 - threshold / torch.maximum(size, threshold).clamp_min(tiny))


def _root(square: Tensor) -> Tensor:
    """The square root, with derivative zero at zero."""
    positive = square > 0
    return torch.where(positive, torch.sqrt(torch.where(positive, square, 1.0)), 0.0)


class L1(Weighted):
    """``f(x) = sum_i lam_i |x_i|``; the prox is soft-thresholding of the modulus, which keeps the phase.

    Conjugate: the indicator of ``|z_i| <= lam_i``, up to a hundred units of rounding.

    Parameters
    ----------
    space
        The Space of one element.
    lam
        The weight: a number, a tensor or nn.Parameter that broadcasts against one element.
    mask
        A factor per entry, ``[*space.shape]``; zero leaves the entry alone. One everywhere when absent.

    References
    ----------
    Parikh and Boyd (2014), Proximal Algorithms, section 6.5.2.
    """

    has_conjugate = True

    def __init__(self, space: Space, lam: float | Tensor, mask: Tensor | None = None) -> None:
        super().__init__(space, lam)
        self.register_buffer("mask", mask, persistent=False)
        self.mask: Tensor | None

    def _weight(self) -> float | Tensor:
        return self.lam if self.mask is None else self.lam * self.mask

    def _value(self, x: Tensor) -> Tensor:
        return (self._weight() * x.abs()).flatten(-self.space.ndim).sum(-1)

    def _prox(self, x: Tensor, step: Tensor) -> Tensor:
        return _shrink(x, x.abs(), step * self._weight())

    def _conjugate(self, z: Tensor) -> Tensor:
        return _indicator(_within(z.abs(), self._weight()), self.space)


class GroupL1(Weighted):
    """``f(x) = lam sum_groups |x_group|_2``: the entries along `axes` form a group and vanish together.

    The prox shrinks the 2-norm of every group. Conjugate: the indicator of ``|z_group|_2 <= lam``, up to a hundred
    units of rounding.

    Parameters
    ----------
    space
        The Space of one element, for example ``(ndim, rows, columns)`` of a gradient.
    lam
        The weight: a number, a scalar tensor or nn.Parameter.
    axes
        The dimensions of one element that a group spans (coils, contrasts, the components of a vector field).

    References
    ----------
    Yuan and Lin (2006), J. R. Stat. Soc. B 68; Parikh and Boyd (2014), section 6.5.4.
    """

    has_conjugate = True

    def __init__(self, space: Space, lam: float | Tensor, axes: int | Sequence[int] = 0) -> None:
        super().__init__(space, lam)
        given = (axes,) if isinstance(axes, int) else tuple(axes)
        if not given or any(not -space.ndim <= a < space.ndim for a in given):
            raise InputError("axis of a group", expected=f"from {-space.ndim} to {space.ndim - 1}", got=axes)
        self._dims = tuple(sorted({a % space.ndim - space.ndim for a in given}))

    def _sizes(self, x: Tensor) -> Tensor:
        # Ten times faster on the CPU than vector_norm along a leading dimension.
        squares = x.real.square() + x.imag.square() if x.is_complex() else x.square()
        return _root(squares.sum(self._dims, keepdim=True))

    def _value(self, x: Tensor) -> Tensor:
        return self.lam * self._sizes(x).flatten(-self.space.ndim).sum(-1)

    def _prox(self, x: Tensor, step: Tensor) -> Tensor:
        return _shrink(x, self._sizes(x), step * self.lam)

    def _conjugate(self, z: Tensor) -> Tensor:
        return _indicator(_within(self._sizes(z), self.lam), self.space)


class SquaredNorm(Weighted):
    """``f(x) = 0.5 lam |x|^2``; ``prox(x, t) = x / (1 + t lam)`` and ``f*(z) = |z|^2 / (2 lam)``.

    Parameters
    ----------
    space
        The Space of one element.
    lam
        The weight: a number, a scalar tensor or nn.Parameter.
    """

    is_quadratic = True
    has_conjugate = True

    def __init__(self, space: Space, lam: float | Tensor) -> None:
        super().__init__(space, lam)

    def _value(self, x: Tensor) -> Tensor:
        return 0.5 * self.lam * self.space.squared(x)

    def _prox(self, x: Tensor, step: Tensor) -> Tensor:
        return x / (1 + step * self.lam)

    def _gradient(self, x: Tensor) -> Tensor:
        return self.lam * x

    def _conjugate(self, z: Tensor) -> Tensor:
        square = self.space.squared(z)
        lam = torch.as_tensor(self.lam, dtype=square.dtype, device=square.device)
        finite = square / (2 * torch.where(lam > 0, lam, 1.0))
        return torch.where((lam > 0) | (square == 0), finite, torch.inf)

    def gradient_lipschitz(self) -> float | None:
        """`lam`."""
        return float(self.lam)


class Box(Functional):
    """The indicator of ``lower <= x <= upper``: 0 inside, infinity outside; its prox clips. Real images only.

    Conjugate: the support function, ``sum_i max(lower z_i, upper z_i)``.

    Parameters
    ----------
    space
        The Space of one element; a complex one raises InputError, since complex numbers have no order.
    lower, upper
        The bounds, in the units of the image; either may be infinite.
    """

    has_conjugate = True

    def __init__(self, space: Space, lower: float = 0.0, upper: float = math.inf) -> None:
        super().__init__(space)
        if space.is_complex:
            raise InputError("image of a bound", expected="a real dtype", got=space.dtype)
        if not lower <= upper or lower == math.inf or upper == -math.inf:
            raise InputError(
                "bounds", expected="lower <= upper, not both infinite on one side", got=f"{lower}, {upper}"
            )
        self.lower, self.upper = lower, upper

    def _value(self, x: Tensor) -> Tensor:
        return _indicator((x >= self.lower) & (x <= self.upper), self.space)

    def _prox(self, x: Tensor, step: Tensor) -> Tensor:
        return x.clamp(self.lower, self.upper)

    def _conjugate(self, z: Tensor) -> Tensor:
        above = torch.where(z > 0, z * self.upper, z * self.lower)
        return torch.where(z == 0, 0.0, above).flatten(-self.space.ndim).sum(-1)
