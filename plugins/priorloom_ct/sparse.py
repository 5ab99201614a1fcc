"""A sparse matrix and its transpose, applied to a whole batch in one product."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor, nn

INDEX_BYTES = 4
"""Of a weight's index, an int32."""


class SparseMatrix(nn.Module):
    """A real matrix ``[m, n]`` as CSR, and from the first use of the transpose a second CSR for it.

    Indices are int32: the products are limited by memory traffic, and MKL's kernels take them without conversion.
    Nothing of it goes into a state_dict, since the geometry determines it.

    Parameters
    ----------
    matrix
        A ``scipy.sparse.csr_matrix``.
    dtype, device
        Of the values.
    """

    def __init__(self, matrix: Any, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__()
        self.shape: tuple[int, int] = matrix.shape
        for name, tensor in _csr_arrays(matrix, dtype, device).items():
            self.register_buffer(name, tensor, persistent=False)
            self.register_buffer(f"transposed_{name}", None, persistent=False)
        self.values: Tensor

    @property
    def weights(self) -> int:
        """Number of entries that are stored."""
        return int(self.values.numel())

    def forward(self, x: Tensor) -> Tensor:
        """``M x`` for every row of ``[batch, n]``."""
        return _product(self.starts, self.columns, self.values, self.shape, x)

    def transposed(self, y: Tensor) -> Tensor:
        """``M^T y`` for every row of ``[batch, m]``."""
        if self.transposed_values is None:
            arrays = (getattr(self, name).cpu().numpy() for name in ("values", "columns", "starts"))
            transpose = scipy.sparse.csr_matrix(tuple(arrays), shape=self.shape).T.tocsr()
            for name, tensor in _csr_arrays(transpose, self.values.dtype, self.values.device).items():
                setattr(self, f"transposed_{name}", tensor)
        starts, columns, values = self.transposed_starts, self.transposed_columns, self.transposed_values
        return _product(starts, columns, values, self.shape[::-1], y)


def _csr_arrays(matrix: Any, dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
    return {
        "starts": torch.from_numpy(matrix.indptr.astype(np.int32, copy=False)).to(device),
        "columns": torch.from_numpy(matrix.indices.astype(np.int32, copy=False)).to(device),
        "values": torch.from_numpy(matrix.data).to(device, dtype),
    }


def _product(starts: Any, columns: Any, values: Any, shape: tuple[int, int], x: Tensor) -> Tensor:
    with warnings.catch_warnings():
        # torch announces once per process that CSR is in beta; construction and product, all that is used here, are
        # stable.
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta", category=UserWarning)
        matrix = torch.sparse_csr_tensor(starts, columns, values, size=shape, check_invariants=False)
    if x.shape[0] == 1:  # the matrix-vector kernel is twice as fast as a product with one column
        return (matrix @ x[0])[None]
    return (matrix @ x.T.contiguous()).T
