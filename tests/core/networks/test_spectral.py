"""Norms of convolutions against the singular values of their dense matrices; nonexpansive networks against pairs of
images."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from priorloom.errors import DivergenceError, InputError
from priorloom.networks import Averaged, ConvolutionBlock, ImageNetwork, NonexpansiveBlock, UNet
from priorloom.networks.spectral import DENSITY, MaxMin, NonexpansiveConvolution, circular_norm, convolution_bound


def dense_norm(kernel: Tensor, grid: tuple[int, int], padding_mode: str) -> float:
    """The largest singular value of the convolution as a matrix."""
    outputs, inputs, rows, columns = kernel.shape
    layer = nn.Conv2d(inputs, outputs, (rows, columns), padding=(rows // 2, columns // 2), bias=False,
                      padding_mode=padding_mode, dtype=kernel.dtype)  # fmt: skip
    with torch.no_grad():
        layer.weight.copy_(kernel)
        basis = torch.eye(inputs * math.prod(grid), dtype=kernel.dtype).reshape(-1, inputs, *grid)
        return float(torch.linalg.matrix_norm(layer(basis).flatten(1), 2))


def kernels(generator: torch.Generator) -> list[Tensor]:
    shapes = [(1, 1, 3, 3), (4, 2, 3, 3), (2, 5, 3, 5), (3, 3, 1, 1), (2, 2, 5, 1)]
    drawn = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    smooth = torch.ones(1, 1, 3, 3, dtype=torch.float64)
    difference = torch.zeros(2, 1, 3, 3, dtype=torch.float64)
    difference[0, 0, 1, 1:], difference[1, 0, 1:, 1] = torch.tensor([-1.0, 1.0]), torch.tensor([-1.0, 1.0])
    return [*drawn, smooth, difference]


@pytest.mark.parametrize("grid", [(7, 6), (8, 8), (5, 9)])
def test_circular_convolution_exactly(generator: torch.Generator, grid: tuple[int, int]) -> None:
    for kernel in kernels(generator):
        assert float(circular_norm(kernel, grid)) == pytest.approx(dense_norm(kernel, grid, "circular"), rel=1e-10)


@pytest.mark.parametrize("grid", [(1, 1), (3, 2), (9, 8)])
def test_zero_padding_is_bounded_on_every_grid(generator: torch.Generator, grid: tuple[int, int]) -> None:
    for kernel in kernels(generator):
        assert dense_norm(kernel, grid, "zeros") <= float(convolution_bound(kernel))


def test_the_bound_holds_between_the_points_of_its_grid_and_is_tight(generator: torch.Generator) -> None:
    """Against a grid of other frequencies, forty times as fine."""
    for kernel in kernels(generator):
        truth = float(circular_norm(kernel, (487, 491)))
        bound = float(convolution_bound(kernel))
        assert truth <= bound <= truth * (1.0001 / math.cos(math.pi / DENSITY) ** 2)


def test_weights_that_are_not_finite_are_named() -> None:
    with pytest.raises(DivergenceError, match="weights of a convolution"):
        convolution_bound(torch.full((1, 1, 3, 3), torch.nan))


def test_a_bound_needs_an_odd_kernel() -> None:
    with pytest.raises(InputError, match="odd sides"):
        convolution_bound(torch.ones(1, 1, 2, 3))


def test_the_reshaped_kernel_is_no_bound() -> None:
    """What spectral normalisation of the reshaped kernel divides by may be a third of the norm."""
    kernel = torch.ones(1, 1, 3, 3, dtype=torch.float64)
    reshaped = float(torch.linalg.matrix_norm(kernel.flatten(1), 2))
    assert reshaped == pytest.approx(3.0)
    assert dense_norm(kernel, (12, 12), "circular") == pytest.approx(9.0)


def test_the_norm_is_differentiable(generator: torch.Generator) -> None:
    kernel = torch.randn(3, 2, 3, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda k: circular_norm(k, (6, 6)), kernel)
    assert torch.autograd.gradcheck(convolution_bound, kernel)
    layer = NonexpansiveConvolution(2, 3).double()
    x = torch.randn(2, 2, 5, 5, generator=generator, dtype=torch.float64)

    def run(weight: Tensor) -> Tensor:
        result: Tensor = torch.func.functional_call(layer, {"weight": weight}, (x,))
        return result

    assert torch.autograd.gradcheck(run, (layer.weight,), fast_mode=True)


def test_the_gradient_is_orthogonal_to_the_weight(generator: torch.Generator) -> None:
    layer = NonexpansiveConvolution(2, 4)
    layer(torch.randn(1, 2, 8, 8, generator=generator)).square().sum().backward()
    assert layer.weight.grad is not None
    cosine = torch.cosine_similarity(layer.weight.grad.flatten(), layer.weight.detach().flatten(), dim=0)
    assert abs(float(cosine)) < 1e-4


def test_normalisation_is_kept_until_the_weight_changes() -> None:
    layer = NonexpansiveConvolution(2, 2)
    with torch.no_grad():
        first = layer.normalised()
        assert layer.normalised() is first
        layer.weight.mul_(3.0)
        second = layer.normalised()
        assert second is not first
        torch.testing.assert_close(second, first)
        layer.weight.add_(torch.randn(2, 2, 3, 3))
        assert not torch.allclose(layer.normalised(), first)
        assert layer.double().normalised().dtype == torch.float64
        assert dense_norm(layer.normalised(), (6, 6), "zeros") <= 1
    twin = copy.deepcopy(layer)
    torch.testing.assert_close(twin.normalised(), layer.normalised())
    assert layer.normalised().requires_grad
    with torch.no_grad():
        layer.weight.zero_()
    assert bool(layer.normalised().isfinite().all())


def randomised(network: nn.Module, generator: torch.Generator) -> nn.Module:
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(torch.randn(p.shape, generator=generator))
    return network.double()


@pytest.mark.parametrize("grid", [(3, 4), (12, 9)])
@pytest.mark.parametrize("average", [-2.0, 0.3, 40.0])
def test_averaged_networks_never_carry_images_apart(
    generator: torch.Generator, grid: tuple[int, int], average: float
) -> None:
    network = Averaged(NonexpansiveBlock(2, 2, 6, 3))
    randomised(network, generator)
    with torch.no_grad():
        network.free.fill_(average)
        a, b = torch.randn(2, 50, 2, *grid, generator=generator, dtype=torch.float64)
        ratios = (network(a) - network(b)).flatten(1).norm(dim=1) / (a - b).flatten(1).norm(dim=1)
        assert bool((network(a).flatten(1).norm(dim=1) <= a.flatten(1).norm(dim=1)).all())
    assert float(ratios.max()) <= 1
    assert abs(float(network.average().detach())) < 1


def test_averaged_begins_as_the_identity_and_learns(generator: torch.Generator) -> None:
    network = Averaged(NonexpansiveBlock(2, 2, 4, 2))
    x = torch.randn(1, 2, 6, 6, generator=generator)
    torch.testing.assert_close(network(x), x)
    network(x).square().sum().backward()
    assert network.free.grad is not None
    assert float(network.free.grad) != 0


def test_max_min_keeps_norms_and_sorts(generator: torch.Generator) -> None:
    x = torch.randn(2, 4, 3, 3, generator=generator)
    y = MaxMin()(x)
    torch.testing.assert_close(y.norm(), x.norm())
    assert bool((y[:, :2] >= y[:, 2:]).all())


def test_odd_widths_are_refused() -> None:
    with pytest.raises(InputError, match="even width"):
        NonexpansiveBlock(1, 1, 3, 2)


def test_networks_state_their_bounds() -> None:
    torch.manual_seed(0)
    block = ConvolutionBlock(2, 2, 4, 3, zero=False).double()
    norms = [dense_norm(c.weight, (10, 10), "zeros") for c in block.convolutions if isinstance(c, nn.Conv2d)]
    assert 0.8 * math.prod(norms) < math.prod(norms) <= block.lipschitz() < 1.5 * math.prod(norms)
    plain, skipped = ImageNetwork(block).lipschitz(), ImageNetwork(block, skip=True).lipschitz()
    assert plain is not None
    assert skipped == pytest.approx(plain + 1)
    assert ImageNetwork(Averaged(NonexpansiveBlock(2, 2, 4, 2))).lipschitz() == 1.0
    assert ImageNetwork(UNet(1, 1, 4, 1)).lipschitz() is None
