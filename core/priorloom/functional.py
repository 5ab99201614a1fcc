"""Functionals: value, proximal map, and what follows from them (the conjugate prox by Moreau)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .errors import InputError, PriorloomError
from .space import Space, keep_kind


class Functional(nn.Module):
    """``f: X -> R`` on tensors ``[..., *space.shape]``.

    Subclasses write what exists of ``_value``, ``_prox``, ``_gradient`` and ``_conjugate``, and say so in the four
    attributes: on the class, or on the instance where it depends on another functional.

    Parameters
    ----------
    space
        The Space of one element.
    """

    has_value: bool = True
    """Whether ``f(x)`` exists; a plug-and-play denoiser has none."""
    is_convex: bool = True
    """Whether f is convex; then its prox is nonexpansive and Moreau's identity holds."""
    has_exact_prox: bool = True
    """Whether the prox is exact to rounding; an iterated one is not, and no convergence theorem covers it unchecked."""
    is_quadratic: bool = False
    """Whether the gradient is affine, so that conjugate gradients apply."""
    has_conjugate: bool = False
    """Whether ``conjugate`` gives the value of f*; the primal-dual gap needs it."""

    def __init__(self, space: Space) -> None:
        super().__init__()
        self.space = space

    # What a plugin writes.

    def _value(self, x: Tensor) -> Tensor:
        raise PriorloomError(f"{type(self).__name__} has no value")

    def _prox(self, x: Tensor, step: Tensor) -> Tensor:
        raise PriorloomError(
            f"{type(self).__name__} has no proximal map",
            cure="use it in an operator term with a method that takes gradients",
        )

    def _gradient(self, x: Tensor) -> Tensor:
        raise PriorloomError(f"{type(self).__name__} has no gradient", cure="use a proximal method")

    def _conjugate(self, z: Tensor) -> Tensor:
        raise PriorloomError(f"{type(self).__name__} has no conjugate value")

    def gradient_lipschitz(self) -> float | None:
        """Lipschitz constant of the gradient; None where f is not smooth."""
        return None

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The batch shape of what f holds, such as a batch of measurements: that of ``f(0)``; () without a value."""
        if not self.has_value:
            return ()
        with torch.no_grad():
            return tuple(self._value(self.space.zeros(device=self.device)).shape)

    @property
    def device(self) -> torch.device | None:
        """Where the functional's tensors live; None when it has none."""
        return next((t.device for t in (*self.parameters(), *self.buffers())), None)

    # What everybody calls.

    def forward(self, x: Tensor) -> Tensor:
        """``f(x)``, one value per batch element."""
        self.space.check(x, f"input of {type(self).__name__}")
        return self._value(x)

    def prox(self, x: Tensor, step: float | Tensor) -> Tensor:
        """``argmin_u f(u) + |u - x|^2 / (2 step)``; `step` is a number or one number per batch element."""
        self.space.check(x, f"input of the prox of {type(self).__name__}")
        return self._prox(x, _per_element(step, x, self.space))

    def prox_conjugate(self, z: Tensor, step: float | Tensor) -> Tensor:
        """``prox_{step f*}(z) = z - step prox_{f / step}(z / step)`` (Moreau)."""
        self.space.check(z, f"input of the conjugate prox of {type(self).__name__}")
        s = _per_element(step, z, self.space)
        return z - s * self._prox(z / s, 1 / s)

    def gradient(self, x: Tensor) -> Tensor:
        """``grad f(x)``."""
        self.space.check(x, f"input of the gradient of {type(self).__name__}")
        return self._gradient(x)

    def conjugate(self, z: Tensor) -> Tensor:
        """``f*(z) = sup_x Re <z, x> - f(x)``, one value per batch element (infinite outside its domain)."""
        self.space.check(z, f"input of the conjugate of {type(self).__name__}")
        return self._conjugate(z)

    # As for a LinearOperator: the Space follows .double(), and complex data stay complex.
    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Functional:
        super()._apply(keep_kind(fn), recurse)  # type: ignore[no-untyped-call]
        self.space = self.space.moved(fn)
        return self


def _per_element(step: float | Tensor, x: Tensor, space: Space) -> Tensor:
    """`step` as a real tensor that broadcasts against `x`."""
    s = torch.as_tensor(step, dtype=space.real_dtype, device=x.device)
    return space.expand(s) if s.ndim else s


class Zero(Functional):
    """``f = 0``."""

    is_quadratic = True
    has_conjugate = True

    def _value(self, x: Tensor) -> Tensor:
        return x.new_zeros(self.space.batch_shape(x), dtype=self.space.real_dtype)

    def _prox(self, x: Tensor, step: Tensor) -> Tensor:
        return x

    def _gradient(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)

    def _conjugate(self, z: Tensor) -> Tensor:
        zero = z.new_zeros((), dtype=self.space.real_dtype)
        return torch.where(self.space.norm(z) > 0, zero + torch.inf, zero)

    def gradient_lipschitz(self) -> float | None:
        """0."""
        return 0.0


class Weighted(Functional):
    """``c f`` with ``c >= 0``: a number, one number per batch element, or a learned one.

    Parameters
    ----------
    f
        Any functional with a prox.
    weight
        c.
    """

    def __init__(self, f: Functional, weight: float | Tensor) -> None:
        super().__init__(f.space)
        if not isinstance(weight, Tensor) and not 0 <= weight < float("inf"):
            raise InputError(f"weight of {type(f).__name__}", expected="a number of at least 0", got=weight)
        self.f = f
        self.weight = weight
        self.has_value, self.is_convex = f.has_value, f.is_convex
        self.has_exact_prox, self.is_quadratic = f.has_exact_prox, f.is_quadratic

    def _value(self, x: Tensor) -> Tensor:
        value: Tensor = self.weight * self.f(x)
        return value

    def _prox(self, x: Tensor, step: Tensor) -> Tensor:
        weight = self.weight
        if isinstance(weight, Tensor):
            weight = _per_element(weight, x, self.space)
        # A weight of zero is learned, not an error: soft-thresholding by zero is the identity.
        return self.f._prox(x, step * weight)

    def _gradient(self, x: Tensor) -> Tensor:
        weight = self.weight
        return (self.space.expand(weight) if isinstance(weight, Tensor) else weight) * self.f.gradient(x)

    def gradient_lipschitz(self) -> float | None:
        """c times that of f."""
        inner = self.f.gradient_lipschitz()
        return None if inner is None else inner * float(torch.as_tensor(self.weight).detach().max())


class LeastSquares(Functional):
    """``f(z) = 0.5 |z - y|^2``: the data term of Gaussian noise.

    Parameters
    ----------
    space
        The range of the forward operator.
    y
        The measurement, ``[..., *space.shape]``.
    """

    is_quadratic = True
    has_conjugate = True

    def __init__(self, space: Space, y: Tensor) -> None:
        super().__init__(space)
        space.check(y, "measurement")
        self.register_buffer("y", y)
        self.y: Tensor

    def _value(self, x: Tensor) -> Tensor:
        return 0.5 * self.space.squared(x - self.y)

    def _prox(self, x: Tensor, step: Tensor) -> Tensor:
        return (x + step * self.y) / (1 + step)

    def _gradient(self, x: Tensor) -> Tensor:
        return x - self.y

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """That of the measurement."""
        return self.space.batch_shape(self.y)

    def _conjugate(self, z: Tensor) -> Tensor:
        return 0.5 * self.space.squared(z) + self.space.inner(z, self.y).real

    def gradient_lipschitz(self) -> float | None:
        """1."""
        return 1.0
