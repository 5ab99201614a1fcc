"""Trained denoisers from their folders: what they know, what they refuse, what they say is proven."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from priorloom import Registry, Space
from priorloom.card import Architecture, Facts, Learning, Scope, Stability, SubjectFacts
from priorloom.constraints import StepSize
from priorloom.errors import InputError
from priorloom.models import number_type, save_model
from priorloom.networks import AveragedNetwork, DenoisingNetwork, DRUNet, GradientStep, RidgeDenoiser, RidgeNetwork
from priorloom.operator import LinearOperator
from priorloom.regularity import regularity_of
from priorloom.steps import ISTA
from priorloom.steps.learned import Denoise
from priorloom.testing import check_denoiser
from priorloom.trained_denoiser import TrainedDenoiser, load_denoiser
from priorloom.unrolled import Unrolled

REAL, COMPLEX = Space((32, 24)), Space((32, 24), torch.complex64)
NOISE = (0.001, 0.5)


def ridge(operator: LinearOperator) -> Unrolled:
    """Denoises before it has learned anything."""
    return Unrolled([Denoise(RidgeDenoiser(RidgeNetwork(operator.domain.is_complex, 5), 8))], back="adjoint")


def gradient(operator: LinearOperator) -> Unrolled:
    torch.manual_seed(0)
    network = GradientStep(DRUNet(operator.domain.is_complex, (4, 6), 1, nn.ELU, zero=False, limit=None))
    return Unrolled([Denoise(network)], back="adjoint")


def descent(operator: LinearOperator) -> Unrolled:
    return Unrolled([ISTA(StepSize())], back="adjoint", start="zero")


@pytest.fixture
def registry(discover: Callable[..., Registry]) -> Registry:
    return discover(toy={"architectures": {"ridge": ridge, "gradient": gradient, "descent": descent}})


@pytest.fixture
def folder(registry: Registry, tmp_path: Path) -> Callable[..., Path]:
    """``folder("ridge", REAL)`` is that of a model of this architecture."""

    def write(name: str, space: Space, operator: str = "image.identity") -> Path:
        from priorloom.operator import Identity

        kind = number_type(space)
        facts = Facts(
            name=f"toy.{name}", version="1", modality="toy", architecture=Architecture(name, {}),
            scope=Scope(operator, kind, kind, {}, NOISE),
            learning=Learning((SubjectFacts("a", "src", "CC0"),), (), "mse", 0, 1, 1.0),
            metrics=(), certificate=Stability(None, "none"),
        )  # fmt: skip
        path = tmp_path / f"{name}-{kind}" / "1"
        save_model(path, registry.architecture(name, Identity(space), {}), replace(facts))
        return path

    return write


@pytest.mark.parametrize("space", [REAL, COMPLEX, REAL.with_dtype(torch.float64)])
def test_the_contract(space: Space, folder: Callable[..., Path], registry: Registry) -> None:
    denoiser = load_denoiser(folder("ridge", space), space, registry)
    assert {c.name: c.figure for c in check_denoiser(denoiser, space)}["share of the noise that is left"] < 0.9
    assert denoiser.noise == NOISE
    assert not denoiser.training
    assert not any(p.requires_grad for p in denoiser.parameters())


@pytest.mark.parametrize("space", [REAL, COMPLEX])
def test_a_gradient_step_says_so(
    space: Space, folder: Callable[..., Path], registry: Registry, generator: torch.Generator
) -> None:
    denoiser = load_denoiser(folder("gradient", space), space, registry)
    assert regularity_of(denoiser, 0.1).gradient
    x = space.random(generator, (2,))
    sigma = torch.tensor(0.1)
    at = x.clone().requires_grad_()
    value: Tensor = denoiser.potential(at, sigma)
    assert value.shape == (2,)
    (slope,) = torch.autograd.grad(value.sum(), at)
    torch.testing.assert_close(x - denoiser(x, sigma), slope)
    with pytest.raises(InputError, match=r"sigma of denoiser 'toy\.gradient'"):
        denoiser.potential(x, torch.tensor(0.9))


def test_what_is_proven_of_a_network_is_of_the_denoiser(generator: torch.Generator) -> None:
    for network in (RidgeNetwork(False, 5), AveragedNetwork(False, 4, 3), DRUNet(False, (4,), 1)):
        denoiser = TrainedDenoiser(REAL, network, "toy", NOISE)
        assert regularity_of(denoiser, 0.1) == network.regularity(0.1)
        assert hasattr(denoiser, "potential") == hasattr(network, "potential")


def test_less_noise_than_in_training_is_the_least_of_training(generator: torch.Generator) -> None:
    denoiser = TrainedDenoiser(REAL, RidgeDenoiser(RidgeNetwork(False, 5)), "toy", NOISE)
    x = REAL.random(generator)
    with torch.no_grad():
        torch.testing.assert_close(denoiser(x, torch.tensor(0.0)), denoiser(x, torch.tensor(NOISE[0])))
        assert not torch.equal(denoiser(x, torch.tensor(0.01)), denoiser(x, torch.tensor(NOISE[0])))
        assert bool(denoiser(x, torch.tensor(0.52)).isfinite().all())  # a little above is no reason to stop


@pytest.mark.parametrize(
    ("sigma", "match"),
    [
        (0.6, r"sigma of denoiser 'toy': expected at most 0\.5 \(it was trained for 0\.001 to 0\.5\), got 0\.6.*lower"),
        (-0.1, r"sigma of denoiser 'toy': expected at least 0, got -0\.1"),
        (float("nan"), "sigma of denoiser 'toy': expected at least 0, got nan"),
        ([0.1, 0.2, 0.3], "one number, or one per batch element"),
        ([[[0.1]], [[0.9]]], "expected at most"),
        (torch.full((32, 24), 0.1), "one number, or one per batch element"),
    ],
)
def test_noise_levels_that_it_cannot_know(sigma: object, match: str) -> None:
    denoiser = TrainedDenoiser(REAL, DRUNet(False, (4,), 1), "toy", NOISE)
    with pytest.raises(InputError, match=match) as caught:
        denoiser(REAL.zeros((2,)), torch.as_tensor(sigma))
    assert "\n" not in str(caught.value)


def test_images_that_it_does_not_take(folder: Callable[..., Path], registry: Registry) -> None:
    real, full = folder("ridge", REAL), folder("ridge", COMPLEX)
    denoiser = load_denoiser(real, REAL, registry)
    for bad in (REAL.zeros()[:-1], REAL.zeros().double(), COMPLEX.zeros()):
        with pytest.raises(InputError, match=r"image for denoiser 'toy\.ridge'"):
            denoiser(bad, torch.tensor(0.1))
    with pytest.raises(InputError, match="expected real images, got complex ones; set complex_mode to real-imag"):
        load_denoiser(real, COMPLEX, registry)
    with pytest.raises(
        InputError, match="expected complex images, got real ones; use a model that was trained on real"
    ):
        load_denoiser(full, REAL, registry)


def test_a_reconstruction_is_no_denoiser(folder: Callable[..., Path], registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected one that was trained for denoising, got architecture 'descent'"):
        load_denoiser(folder("descent", REAL), REAL, registry)
    with pytest.raises(InputError, match="nothing"):
        load_denoiser(tmp_path / "nothing", REAL, registry)


class Claims(nn.Module):
    """Half of the image with false claims: ``fault`` names which."""

    def __init__(self, network: DenoisingNetwork, **claimed: object) -> None:
        super().__init__()
        self.network, self.claimed = network, claimed

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        result: Tensor = self.network(x, sigma)
        return result

    def regularity(self, sigma: float) -> object:
        known = self.network.regularity(sigma)
        return replace(known, **self.claimed) if self.claimed else "averaged"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("claimed", "match"),
    [
        ({}, "expected a Regularity"),
        ({"lipschitz": 0.5}, "regularity: lipschitz"),
        ({"residual": 0.01}, "regularity: residual"),
        ({"averaged": 0.05}, "regularity: averaged"),
        ({"gradient": True}, "potential of the denoiser"),
    ],
)
def test_false_claims_are_rejected(claimed: dict[str, object], match: str) -> None:
    from priorloom.testing import ConformanceError

    network = RidgeDenoiser(RidgeNetwork(False, 5), 8)
    check_denoiser(Claims(network, lipschitz=2.0, residual=2.0), REAL)
    with pytest.raises(ConformanceError, match=match):
        check_denoiser(Claims(network, **claimed), REAL)


def test_a_potential_of_another_map_is_rejected() -> None:
    from priorloom.testing import ConformanceError

    class Other(RidgeNetwork):
        def potential(self, x: Tensor, sigma: Tensor) -> Tensor:
            return 1.1 * super().potential(x, sigma)

    check_denoiser(RidgeNetwork(False, 5), REAL)
    with pytest.raises(ConformanceError, match="gradient of the potential"):
        check_denoiser(Other(False, 5), REAL)
