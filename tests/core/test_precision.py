"""Operators and norms under autocast are those without it."""

from __future__ import annotations

import torch

from priorloom import LinearOperator, Space
from priorloom.dense import DenseOperator


class Hidden(LinearOperator):
    """A dense operator whose norm has no formula."""

    def __init__(self, matrix: torch.Tensor) -> None:
        super().__init__(Space((matrix.shape[1],)), Space((matrix.shape[0],)))
        self.register_buffer("matrix", matrix)

    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.matrix.T

    def _adjoint(self, y: torch.Tensor) -> torch.Tensor:
        return y @ self.matrix


def test_autocast_changes_neither_products_nor_norms() -> None:
    matrix = torch.randn(40, 60, generator=torch.Generator().manual_seed(0))
    x = torch.randn(3, 60, generator=torch.Generator().manual_seed(1))
    exact = DenseOperator(matrix)(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (x @ matrix.T).dtype == torch.bfloat16
        A = Hidden(matrix)
        torch.testing.assert_close(A(x), exact)
        lower, upper = A.norm_bounds(1e-4)
    largest = float(torch.linalg.matrix_norm(matrix, 2))
    assert lower <= largest * (1 + 1e-6)
    assert largest <= upper <= largest * (1 + 2e-4)


def test_moving_to_where_it_is_keeps_the_norm() -> None:
    A = Hidden(torch.eye(5))
    norm = A.norm()
    A._normal = None  # type: ignore[assignment]  # a second computation would fail
    assert A.to("cpu").norm() == norm
