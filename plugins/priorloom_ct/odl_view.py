"""The class behind ``to_odl``, apart because it needs ODL when it is defined."""

from __future__ import annotations

from typing import Any

import numpy as np
import odl
import torch

from priorloom.operator import LinearOperator


class OdlView(odl.Operator):  # type: ignore[misc, name-defined]
    """A LinearOperator between ODL spaces: ``x -> apply(x * before) * after``; made by ``to_odl``.

    Parameters
    ----------
    A
        The operator; the view of the adjoint holds ``A.H``.
    domain, range
        Its ODL spaces.
    weights
        The diagonals of their inner products.
    is_adjoint
        Whether this is the adjoint in those, ``W_range^-1 A W_domain``, or A itself.
    """

    def __init__(self, A: LinearOperator, domain: Any, range: Any, weights: tuple[Any, Any], is_adjoint: bool) -> None:
        super().__init__(domain, range, linear=True)
        self.A, self.weights, self.is_adjoint = A, weights, is_adjoint

    def _call(self, x: Any) -> Any:
        before, after = (self.weights[0], 1 / self.weights[1]) if self.is_adjoint else (1.0, 1.0)
        array = np.asarray(x.asarray() * before, order="C")
        with torch.no_grad():
            result = self.A(torch.from_numpy(array).to(self.A.device, self.A.domain.dtype)).cpu().resolve_conj()
        return (result.numpy() * after).astype(str(self.A.range.dtype).removeprefix("torch."))

    @property
    def adjoint(self) -> OdlView:
        """In the weighted inner products of the spaces."""
        back = self.weights[1], self.weights[0]
        return OdlView(self.A.H, self.range, self.domain, back, not self.is_adjoint)
