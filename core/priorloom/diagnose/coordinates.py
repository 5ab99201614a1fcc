"""A linear operator on the rows of matrices in double precision, for the linear algebra of its spectrum."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from ..operator import LinearOperator
from ..space import Space

_TOGETHER = 2**22
"""Numbers of images and data that one application holds."""


def in_double(A: LinearOperator) -> LinearOperator:
    """A copy of `A` in double precision; `A` itself where its backend has single precision only."""
    return copy.deepcopy(A).double() if A.computes_double else A


class Coordinates:
    """``A`` as a matrix ``[rows, columns]`` that is applied to the rows of matrices.

    Where images and data are complex the matrix is complex. Else both are real, a complex number taking two
    coordinates: the adjoint of the real inner product is then the transpose.

    Parameters
    ----------
    A
        The operator; it is copied to double precision where it can compute there.
    """

    def __init__(self, A: LinearOperator) -> None:
        self.A = in_double(A)
        self.is_complex = A.domain.is_complex and A.range.is_complex
        self.dtype = torch.complex128 if self.is_complex else torch.float64
        self.columns, self.rows = (self._size(s) for s in (A.domain, A.range))
        self.rounding = float(torch.finfo(self.A.domain.real_dtype).eps) * max(self.rows, self.columns)
        """Relative to the largest singular value: what is below is taken for zero."""

    def forward(self, x: Tensor) -> Tensor:
        """``[k, columns] -> [k, rows]``."""
        return self._applied(self.A, x, self.A.domain, self.A.range)

    def adjoint(self, y: Tensor) -> Tensor:
        """``[k, rows] -> [k, columns]``."""
        return self._applied(self.A.adjoint, y, self.A.range, self.A.domain)

    def flat(self, x: Tensor, space: Space) -> Tensor:
        """Elements ``[k, *space.shape]`` as rows."""
        x = x.detach().resolve_conj().reshape(-1, space.size)
        if not self.is_complex and x.is_complex():
            x = torch.view_as_real(x).flatten(1)
        return x.to(self.dtype)

    def element(self, rows: Tensor, space: Space) -> Tensor:
        """Rows as elements ``[k, *space.shape]``."""
        if not self.is_complex and space.is_complex:
            rows = torch.view_as_complex(rows.reshape(len(rows), -1, 2))
        return rows.to(space.dtype).reshape(-1, *space.shape)

    def _size(self, space: Space) -> int:
        return space.size * (2 if space.is_complex and not self.is_complex else 1)

    def _applied(self, apply: Callable[[Tensor], Tensor], x: Tensor, source: Space, target: Space) -> Tensor:
        count = max(1, _TOGETHER // (self.rows + self.columns))
        with torch.no_grad():
            return torch.cat([self.flat(apply(self.element(part, source)), target) for part in torch.split(x, count)])
