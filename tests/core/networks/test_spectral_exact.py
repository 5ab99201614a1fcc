"""Norms of convolutions of any stride and padding against the singular values of their dense matrices, and their upper
bounds."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from torch import Tensor, nn

from priorloom.errors import DivergenceError, InputError
from priorloom.networks.convolution_norm import PaddingMode, convolution_norm, padded_bound

KERNELS = [(1, 1, 3, 3), (4, 2, 3, 3), (2, 5, 3, 5), (3, 3, 1, 1), (2, 3, 5, 1), (3, 2, 2, 2), (1, 2, 4, 3)]
GRIDS = [(8, 8), (6, 9), (7, 5), (5, 4)]


def dense_norm(
    kernel: Tensor, grid: tuple[int, int], stride: int, padding: tuple[int, int], mode: PaddingMode
) -> float:
    """The largest singular value of torch.nn.Conv2d as a matrix, whose columns are images of unit images."""
    outputs, inputs, rows, columns = kernel.shape
    layer = nn.Conv2d(inputs, outputs, (rows, columns), stride=stride, padding=padding, bias=False,
                      padding_mode=mode, dtype=kernel.dtype)  # fmt: skip
    with torch.no_grad():
        layer.weight.copy_(kernel)
        basis = torch.eye(inputs * math.prod(grid), dtype=kernel.dtype).reshape(-1, inputs, *grid)
        return float(torch.linalg.svdvals(layer(basis).flatten(1))[0])


@pytest.mark.parametrize("mode", ["zeros", "circular", "replicate", "reflect"])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_norm_and_bound_against_the_dense_matrix(
    generator: torch.Generator, stride: int, mode: PaddingMode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("priorloom.networks.convolution_norm._DENSE", 0)  # never by its own dense matrix
    for shape, grid in product(KERNELS, GRIDS):
        kernel = torch.randn(shape, generator=generator, dtype=torch.float64)
        padding = (shape[2] // 2, shape[3] // 2)
        truth = dense_norm(kernel, grid, stride, padding, mode)
        norm = convolution_norm(kernel, grid, stride=stride, padding_mode=mode, tolerance=1e-8)
        assert norm == pytest.approx(truth, rel=1e-6), (shape, grid)
        bound = padded_bound(kernel, grid, stride=stride, padding_mode=mode)
        assert truth <= bound, (shape, grid)


def test_dense_and_iterated_norms_agree(generator: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = torch.randn(5, 4, 3, 3, generator=generator)
    dense = convolution_norm(kernel, (9, 8), stride=2)
    monkeypatch.setattr("priorloom.networks.convolution_norm._DENSE", 0)
    assert convolution_norm(kernel, (9, 8), stride=2) == pytest.approx(dense, rel=1e-6)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("grid", [(8, 8), (6, 4), (10, 6)])
def test_circular_norms_by_frequencies_are_exact(
    generator: torch.Generator, grid: tuple[int, int], stride: int
) -> None:
    """Strides that divide the grid: no iteration is involved."""
    for inputs, outputs in [(1, 1), (3, 2), (2, 5)]:
        kernel = torch.randn(outputs, inputs, 3, 3, generator=generator, dtype=torch.float64)
        truth = dense_norm(kernel, grid, stride, (1, 1), "circular")
        found = convolution_norm(kernel, grid, stride=stride, padding_mode="circular", tolerance=0.9)
        assert found == pytest.approx(truth, rel=1e-12)


def test_padding_is_that_of_the_layer(generator: torch.Generator) -> None:
    kernel = torch.randn(3, 2, 3, 3, generator=generator, dtype=torch.float64)
    for padding in [(0, 0), (2, 1), (4, 4)]:
        truth = dense_norm(kernel, (6, 7), 2, padding, "zeros")
        assert convolution_norm(kernel, (6, 7), stride=2, padding=padding) == pytest.approx(truth, rel=1e-6)
        assert truth <= padded_bound(kernel, (6, 7), stride=2, padding=padding)


def test_the_bound_approaches_the_norm_on_large_grids(generator: torch.Generator) -> None:
    """Also with a stride, whose bound is that of the phases and not that of the convolution before it."""
    kernel = torch.randn(2, 2, 3, 3, generator=generator, dtype=torch.float64)
    for stride in (1, 2):
        norm = convolution_norm(kernel, (48, 48), stride=stride)
        assert norm <= padded_bound(kernel, (48, 48), stride=stride) <= 1.03 * norm
    assert padded_bound(kernel, (48, 48), stride=2) < 0.97 * padded_bound(kernel, (48, 48))


def test_a_kernel_of_zeros_has_norm_zero() -> None:
    for mode in ("zeros", "circular"):
        kernel = torch.zeros(2, 2, 3, 3)
        assert convolution_norm(kernel, (40, 40), padding_mode=mode) == 0
        assert padded_bound(kernel, (40, 40), padding_mode=mode) == 0


def test_bad_input_is_named() -> None:
    with pytest.raises(InputError, match="kernel of a convolution"):
        convolution_norm(torch.ones(3, 3), (8, 8))
    with pytest.raises(InputError, match="that the kernel fits into"):
        convolution_norm(torch.ones(1, 1, 5, 5), (3, 3), padding=0)
    with pytest.raises(InputError, match="positive stride"):
        padded_bound(torch.ones(1, 1, 3, 3), (8, 8), stride=0)
    with pytest.raises(DivergenceError, match="weights of a convolution"):
        convolution_norm(torch.full((1, 1, 3, 3), torch.inf), (8, 8))
