"""A matrix as a linear operator: the dense dictionaries of sparse coding and compressed sensing."""

from __future__ import annotations

import torch
from torch import Tensor

from .errors import InputError
from .operator import LinearOperator
from .space import Space


class DenseOperator(LinearOperator):
    """``y = M x`` with a matrix that is held entry by entry.

    Parameters
    ----------
    matrix
        M, ``[rows, columns]``, real or complex, finite.

    Raises
    ------
    InputError
        For anything that is not a finite floating-point matrix.
    """

    def __init__(self, matrix: Tensor) -> None:
        if matrix.ndim != 2 or not (matrix.is_floating_point() or matrix.is_complex()):
            raise InputError(
                "matrix of a dense operator", expected="[rows, columns] of floating-point numbers",
                got=f"{list(matrix.shape)} {matrix.dtype}",
            )  # fmt: skip
        if not bool(torch.isfinite(matrix).all()):
            raise InputError("matrix of a dense operator", expected="finite entries", got="inf or nan")
        rows, columns = matrix.shape
        super().__init__(Space((columns,), matrix.dtype), Space((rows,), matrix.dtype))
        self.register_buffer("matrix", matrix)
        self.matrix: Tensor

    def _forward(self, x: Tensor) -> Tensor:
        return x @ self.matrix.T

    def _adjoint(self, y: Tensor) -> Tensor:
        return y @ self.matrix.conj()

    def _norm(self) -> float | None:
        return float(torch.linalg.matrix_norm(self.matrix, 2))
