"""The direct method as a linear operator in the place of the adjoint: FBP, or zero-filling with the coils combined."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from .operator import LinearOperator, Stored

_NORMS: WeakKeyDictionary[LinearOperator, tuple[Stored, float]] = WeakKeyDictionary()


class PseudoInverse(LinearOperator):
    """``y -> A.pseudo_inverse(y)`` as an operator; its adjoint comes from differentiating it.

    As a backprojector of a data term it preconditions the gradient: ``A^+ (A x - y)`` is nearly the error of the image
    itself, so a few layers do what A^H needs hundreds for.

    Parameters
    ----------
    operator
        A, whose direct method must be linear and differentiable.
    """

    def __init__(self, operator: LinearOperator) -> None:
        super().__init__(operator.range, operator.domain)
        self.operator = operator

    def _forward(self, x: Tensor) -> Tensor:
        return self.operator.pseudo_inverse(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        with torch.enable_grad():
            at = self.domain.zeros(self.range.batch_shape(y), y.device).requires_grad_()
            (pulled,) = torch.autograd.grad(self.operator.pseudo_inverse(at), at, y)
        result: Tensor = pulled
        return result


def round_trip_norm(backprojector: LinearOperator, operator: LinearOperator) -> float:
    """``|B A|``, an upper bound as ``LinearOperator.norm``; kept for a pseudo-inverse as long as A is unchanged."""
    if not isinstance(backprojector, PseudoInverse) or backprojector.operator is not operator:
        return (backprojector @ operator).norm()
    kept = _NORMS.get(operator)
    if kept is None or not operator._still_stores(kept[0]):
        norm = (backprojector @ operator).norm()
        # Only now: the first application may have built the weights.
        kept = _NORMS[operator] = (operator._stored(), norm)
    return kept[1]
