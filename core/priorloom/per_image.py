"""Priors where the unknown is several images (frames, contrasts, map sets): each image by itself, the values added."""

from __future__ import annotations

from torch import Tensor

from .errors import InputError
from .functional import Functional
from .operator import LinearOperator
from .problem import Term
from .space import Space


class PerImage(Functional):
    """``x -> sum_i f(x_i)`` over the images of ``[*stack, *f.space.shape]``; the prox is that of every image.

    Parameters
    ----------
    f
        A functional on one image.
    stack
        The shape of the stack.
    """

    def __init__(self, f: Functional, stack: tuple[int, ...]) -> None:
        super().__init__(Space((*stack, *f.space.shape), f.space.dtype))
        self.f = f
        self.has_value, self.is_convex, self.has_exact_prox = f.has_value, f.is_convex, f.has_exact_prox
        self.is_quadratic, self.has_conjugate = f.is_quadratic, f.has_conjugate

    def _sum(self, values: Tensor) -> Tensor:
        return values.flatten(self.f.space.ndim - self.space.ndim).sum(-1)

    def _value(self, x: Tensor) -> Tensor:
        return self._sum(self.f._value(x))

    def _prox(self, x: Tensor, step: Tensor) -> Tensor:
        return self.f._prox(x, step)

    def _gradient(self, x: Tensor) -> Tensor:
        return self.f._gradient(x)

    def _conjugate(self, z: Tensor) -> Tensor:
        return self._sum(self.f._conjugate(z))

    def gradient_lipschitz(self) -> float | None:
        """That of one image."""
        return self.f.gradient_lipschitz()


class PerImageOperator(LinearOperator):
    """``K`` on every image: ``[*stack, *K.domain.shape] -> [*stack, *K.range.shape]``."""

    def __init__(self, K: LinearOperator, stack: tuple[int, ...]) -> None:
        super().__init__(*(Space((*stack, *s.shape), s.dtype) for s in (K.domain, K.range)))
        self.K = K

    def _forward(self, x: Tensor) -> Tensor:
        return self.K._forward(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.K._adjoint(y)

    def _normal(self, x: Tensor) -> Tensor:
        return self.K._normal(x)

    def norm_bounds(self, tolerance: float = 1e-3) -> tuple[float, float]:
        """Those of one image."""
        return self.K.norm_bounds(tolerance)


def per_image(prior: Functional | Term, space: Space) -> Functional | Term:
    """A prior of one image on `space`, whose leading dimensions count images; itself where there are none.

    Raises
    ------
    InputError
        When the last dimensions of `space` are not those of the prior's image.
    """
    one = prior.K.domain if isinstance(prior, Term) else prior.space
    stack = space.shape[: space.ndim - one.ndim]
    if (*stack, *one.shape) != space.shape or one.dtype != space.dtype:
        raise InputError(
            "image of a prior", expected=f"the last dimensions of {list(space.shape)}", got=list(one.shape)
        )
    if not stack:
        return prior
    if isinstance(prior, Functional):
        return PerImage(prior, stack)
    return Term(PerImage(prior.f, stack), PerImageOperator(prior.K, stack))


__all__ = ["PerImage", "PerImageOperator", "per_image"]
