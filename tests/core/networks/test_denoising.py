"""Denoising networks against their definitions: scaling, sizes, gradients of functions, norms of Jacobians."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from priorloom.errors import InputError
from priorloom.lipschitz import jacobian_norm
from priorloom.networks import (
    AveragedNetwork,
    DenoisingNetwork,
    DnCNN,
    DRUNet,
    GradientStep,
    RidgeDenoiser,
    RidgeNetwork,
)

MAKE: dict[str, Callable[[bool], DenoisingNetwork]] = {
    "dncnn": lambda c: DnCNN(c, width=4, depth=3),
    "drunet": lambda c: DRUNet(c, (4, 6, 8), 1, zero=False),
    "gradient-step": lambda c: GradientStep(DRUNet(c, (4, 6), 1, nn.ELU, zero=False, limit=None)),
    "averaged": lambda c: AveragedNetwork(c, width=4, depth=3),
    "ridge": lambda c: RidgeNetwork(c, side=3),
    "ridge-denoiser": lambda c: RidgeDenoiser(RidgeNetwork(c, side=3), iterations=4),
}
SIGMA = torch.tensor(0.2, dtype=torch.float64)


def made(name: str, is_complex: bool, spread: float = 0.3) -> DenoisingNetwork:
    """A network in double precision whose weights are moved by random numbers, as if training had moved them."""
    torch.manual_seed(5)
    network = MAKE[name](is_complex)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(spread * p.std(correction=0).clamp_min(0.1) * torch.randn(p.shape))
    return network.double()


def images(generator: torch.Generator, is_complex: bool, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.complex128 if is_complex else torch.float64)


def inner(a: Tensor, b: Tensor) -> float:
    """The real inner product."""
    return float((a.conj() * b).sum().real)


both = pytest.mark.parametrize("is_complex", [False, True])
every = pytest.mark.parametrize("name", list(MAKE))


@both
@every
@pytest.mark.parametrize("size", [(1, 1), (3, 2), (7, 12), (13, 9)])
def test_images_of_any_size(name: str, is_complex: bool, size: tuple[int, int], generator: torch.Generator) -> None:
    x = images(generator, is_complex, *size)
    with torch.no_grad():
        y = made(name, is_complex)(x, SIGMA)
    assert (y.shape, y.dtype) == (x.shape, x.dtype)
    assert bool(y.isfinite().all())
    assert not torch.equal(y, x) or size == (1, 1)


@both
@every
def test_a_batch_with_its_noise_levels_is_the_single_images(
    name: str, is_complex: bool, generator: torch.Generator
) -> None:
    x = images(generator, is_complex, 2, 3, 8, 6)
    sigma = torch.rand((2, 3, 1, 1), generator=generator, dtype=torch.float64)
    network = made(name, is_complex)
    with torch.no_grad():
        single = [[network(x[i, j], sigma[i, j].reshape(())) for j in range(3)] for i in range(2)]
        torch.testing.assert_close(network(x, sigma), torch.stack([torch.stack(row) for row in single]))
        torch.testing.assert_close(network(x.mT.contiguous().mT, sigma), network(x, sigma))
        assert not torch.allclose(network(x, 3 * sigma), network(x, sigma))


@both
@pytest.mark.parametrize("c", [0.01, 7.0])
def test_drunet_commutes_with_scaling(is_complex: bool, c: float, generator: torch.Generator) -> None:
    network = made("drunet", is_complex)
    x = images(generator, is_complex, 2, 11, 6)
    with torch.no_grad():
        torch.testing.assert_close(network(c * x, c * SIGMA), c * network(x, SIGMA))
        assert not torch.allclose(network(c * x, SIGMA), c * network(x, SIGMA))  # the noise level matters


def test_drunet_extends_images_by_their_edges(generator: torch.Generator) -> None:
    network = made("drunet", False)
    x = images(generator, False, 1, 1, 11, 6)
    with torch.no_grad():
        larger = network(pad(x, (0, 2, 0, 1), mode="replicate"), SIGMA)
        torch.testing.assert_close(network(x, SIGMA), larger[..., :11, :6])


@both
def test_a_new_drunet_is_the_identity(is_complex: bool, generator: torch.Generator) -> None:
    x = images(generator, is_complex, 8, 8)
    torch.testing.assert_close(DRUNet(is_complex, (4, 6), 1).double()(x, SIGMA), x)


@both
def test_networks_see_the_noise_of_a_channel(is_complex: bool) -> None:
    """sigma is that of a complex entry; its real and its imaginary part have ``sigma / sqrt(2)`` each."""
    network = DnCNN(is_complex, width=2, depth=2)
    seen: list[Tensor] = []
    network.network[0].register_forward_pre_hook(lambda _, given: seen.append(given[0][:, -1]))
    network(torch.zeros(4, 4, dtype=torch.complex64 if is_complex else torch.float32), torch.tensor(0.5))
    torch.testing.assert_close(seen[0], torch.full((1, 4, 4), 0.5**1.5 if is_complex else 0.5))


@both
@pytest.mark.parametrize("name", ["gradient-step", "ridge"])
def test_the_identity_minus_a_gradient(name: str, is_complex: bool, generator: torch.Generator) -> None:
    """Against finite differences and autograd of the potential."""
    network = made(name, is_complex)
    x, v = images(generator, is_complex, 2, 7, 6)
    with torch.no_grad():
        slope = x - network(x, SIGMA)
        h = 1e-6
        along = (network.potential(x + h * v, SIGMA) - network.potential(x - h * v, SIGMA)) / (2 * h)  # type: ignore[operator]
    assert float(along) == pytest.approx(inner(v, slope), rel=1e-6)
    at = x.clone().requires_grad_()
    value = network.potential(at, SIGMA)  # type: ignore[operator]
    assert value.shape == ()
    assert float(value.detach()) > 0
    torch.testing.assert_close(slope, torch.autograd.grad(value, at)[0])
    batch = network.potential(torch.stack([x, v]), SIGMA)  # type: ignore[operator]
    torch.testing.assert_close(batch[0], value.detach(), check_dtype=True)
    assert network.regularity(0.2).gradient


@both
def test_a_gradient_step_can_be_trained(is_complex: bool, generator: torch.Generator) -> None:
    network = made("gradient-step", is_complex)
    x = images(generator, is_complex, 5, 4)
    names = [n for n, p in network.named_parameters() if p.ndim == 4][:3:2]

    def run(*weights: Tensor) -> Tensor:
        result: Tensor = torch.func.functional_call(network, dict(zip(names, weights, strict=True)), (x, SIGMA))
        return result

    weights = tuple(dict(network.named_parameters())[n].detach().requires_grad_() for n in names)
    assert torch.autograd.gradcheck(run, weights, fast_mode=True)


def test_a_gradient_step_learns_from_its_start(generator: torch.Generator) -> None:
    """Around the identity the derivative by every weight would be zero."""
    network = GradientStep(DRUNet(False, (4, 6), 1, nn.ELU, zero=False, limit=None))
    network(torch.randn(8, 8, generator=generator), torch.tensor(0.2)).square().sum().backward()
    assert all(p.grad is not None and float(p.grad.abs().max()) > 0 for p in network.parameters())


@both
def test_a_gradient_step_without_gradients(is_complex: bool, generator: torch.Generator) -> None:
    network = made("gradient-step", is_complex)
    x = images(generator, is_complex, 6, 6)
    learning = network(x, SIGMA)
    assert learning.requires_grad
    with torch.no_grad():
        y = network(x, SIGMA)
    torch.testing.assert_close(y, learning.detach(), rtol=0, atol=0)
    network.requires_grad_(False)
    assert not network(x, SIGMA).requires_grad  # nothing of it is needed: no graph is kept
    assert not x.requires_grad
    moved = x.clone().requires_grad_()
    (pull,) = torch.autograd.grad(network(moved, SIGMA).abs().square().sum(), moved)
    h = 1e-6
    ahead, behind = (float(network(x + s * h * pull, SIGMA).abs().square().sum()) for s in (1, -1))
    assert (ahead - behind) / (2 * h) == pytest.approx(inner(pull, pull), rel=1e-5)


def test_a_gradient_step_learns_from_blank_images() -> None:
    network = GradientStep(DRUNet(True, (4, 6), 1, nn.ELU, zero=False, limit=None))
    network(torch.zeros(8, 8, dtype=torch.complex64), torch.tensor(0.0)).abs().square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in network.parameters())


@both
@pytest.mark.parametrize("average", [0.3, 0.5, 0.9])
def test_averaged_networks(is_complex: bool, average: float, generator: torch.Generator) -> None:
    """Nonexpansive, and averaged (Bauschke and Combettes, 2017, proposition 4.35), for arbitrary weights."""
    torch.manual_seed(1)
    network = AveragedNetwork(is_complex, width=6, depth=4, average=average).double()
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(5 * torch.randn(p.shape))
        x = images(generator, is_complex, 60, 9, 7)
        z = x + images(generator, is_complex, 60, 9, 7) * torch.logspace(-4, 1, 60)[:, None, None]
        level = SIGMA * torch.rand((60, 1, 1), generator=generator, dtype=torch.float64)
        moved = (network(x, level) - network(z, level)).abs().square().sum((-2, -1))
        before = (x - z).abs().square().sum((-2, -1))
        residual = (x - network(x, level) - z + network(z, level)).abs().square().sum((-2, -1))
    assert bool((moved <= before).all())
    assert bool((moved + (1 - average) / average * residual <= (1 + 1e-12) * before).all())
    known = network.regularity(0.1)
    assert known.averaged == average
    assert known.lipschitz == 1
    assert known.is_firm == (average <= 0.5)
    assert bool((residual <= (known.residual * (1 + 1e-12)) ** 2 * before).all())  # type: ignore[operator]
    assert not known.gradient
    assert float((residual / before).max()) > 0.01 * average**2  # it does something


@both
@pytest.mark.parametrize("spread", [0.0, 0.5, 3.0])
def test_the_gradient_of_a_ridge_is_1_lipschitz(is_complex: bool, spread: float, generator: torch.Generator) -> None:
    network = made("ridge", is_complex, spread)
    x = images(generator, is_complex, 16, 15)
    found = [jacobian_norm(lambda v: network.gradient(v, SIGMA), s * x, iterations=15) for s in (1e-3, 0.1, 1.0)]  # type: ignore[operator]
    assert max(found) <= 1
    assert max(found) > 0.5  # not by a bound far from the truth
    assert network.regularity(0.2).residual == 1


@both
def test_the_hessian_of_a_ridge(is_complex: bool, generator: torch.Generator) -> None:
    """Dense: symmetric, eigenvalues in [-1/8, 1]; both ends of the potential's curvature show."""
    network = made("ridge", is_complex)
    shape = (5, 4, 2) if is_complex else (6, 5)
    extremes = []
    for size in (1e-3, 0.3, 1.0, 3.0):
        at = size * torch.randn(shape, generator=generator, dtype=torch.float64)

        def value(r: Tensor) -> Tensor:
            result: Tensor = network.potential(torch.view_as_complex(r) if is_complex else r, SIGMA)  # type: ignore[operator]
            return result

        hessian = torch.autograd.functional.hessian(value, at).reshape(at.numel(), -1)  # type: ignore[no-untyped-call]
        torch.testing.assert_close(hessian, hessian.mT)
        eigenvalues = torch.linalg.eigvalsh(hessian)
        extremes += [float(eigenvalues[0]), float(eigenvalues[-1])]
    assert -1 / 8 <= min(extremes) < -0.01
    assert 0.5 < max(extremes) <= 1


def test_a_ridge_knows_no_phase(generator: torch.Generator) -> None:
    for name in ("ridge", "ridge-denoiser"):
        network = made(name, True)
        x = images(generator, True, 8, 8)
        turn = torch.polar(torch.ones((), dtype=torch.float64), torch.tensor(1.1, dtype=torch.float64))
        with torch.no_grad():
            torch.testing.assert_close(network(turn * x, SIGMA), turn * network(x, SIGMA))
            torch.testing.assert_close(network(x.conj(), SIGMA), network(x, SIGMA).conj())


def test_real_and_complex_ridges_have_the_same_parameters(generator: torch.Generator) -> None:
    real, full = made("ridge", False), made("ridge", True)
    full.load_state_dict(real.state_dict())
    x = images(generator, False, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(full(x + 0j, SIGMA), real(x, SIGMA) + 0j)
    assert set(RidgeDenoiser(RidgeNetwork(False)).state_dict()) == {
        f"regulariser.{n}" for n in ("filters", "log_scale", "exponent", "log_weight", "weight_exponent")
    }


@both
def test_a_ridge_denoiser_descends_its_objective(is_complex: bool, generator: torch.Generator) -> None:
    network = made("ridge-denoiser", is_complex)
    assert isinstance(network, RidgeDenoiser)
    g = network.regulariser
    x = images(generator, is_complex, 9, 8)

    def objective(u: Tensor) -> float:
        return float(0.5 * (u - x).abs().square().sum() + g.weight(SIGMA) * g.potential(u, SIGMA))

    with torch.no_grad():
        g.log_weight.fill_(0.7)
        g.weight_exponent.zero_()
        assert float(g.weight(SIGMA)) < 8  # the objective is strongly convex
        u = x
        for _ in range(80):  # plain descent
            u = u - (u - x + g.weight(SIGMA) * g.gradient(u, SIGMA)) / (1 + g.weight(SIGMA))
        after = []
        for n in (1, 4, 80):
            network.iterations = n
            after.append(objective(network(x, SIGMA)))
        assert objective(x) > after[0] > after[1] > after[2]
        assert after[2] == pytest.approx(objective(u), rel=1e-8)
        torch.testing.assert_close(network(x, SIGMA), u, rtol=1e-4, atol=1e-4)


@every
def test_other_numbers_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="expected real images, got complex images"):
        MAKE[name](False)(torch.zeros(4, 4, dtype=torch.complex64), torch.tensor(0.1))
    with pytest.raises(InputError, match="expected complex images, got real images"):
        MAKE[name](True)(torch.zeros(4, 4), torch.tensor(0.1))


def test_settings_that_cannot_be_used() -> None:
    for make, match in (
        (lambda: DnCNN(False, depth=1), "depth >= 2"),
        (lambda: DRUNet(False, ()), "positive widths"),
        (lambda: DRUNet(False, (4, 0)), "positive widths"),
        (lambda: GradientStep(DRUNet(False, (4,), 1)), "activations with a derivative"),
        (lambda: AveragedNetwork(False, average=1.0), "between 0 and 1"),
        (lambda: AveragedNetwork(False, width=3), "even width"),
        (lambda: RidgeNetwork(False, side=4), "odd number"),
        (lambda: RidgeDenoiser(RidgeNetwork(False), 0), "at least 1"),
    ):
        with pytest.raises(InputError, match=match):
            make()
