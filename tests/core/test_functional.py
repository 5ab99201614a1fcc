"""Functional: what follows from value and prox, against the definitions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from priorloom import Denoiser, Functional, PnP, Space
from priorloom.errors import InputError, PriorloomError
from priorloom.functional import LeastSquares, Zero

Gaussian = Callable[..., Tensor]


@pytest.fixture(params=[torch.float64, torch.complex128], ids=["real", "complex"])
def space(request: pytest.FixtureRequest) -> Space:
    return Space((3, 4), request.param)


def functionals(space: Space, generator: torch.Generator) -> list[Functional]:
    return [Zero(space), LeastSquares(space, space.random(generator))]


def test_prox_is_the_minimiser(space: Space, generator: torch.Generator) -> None:
    for f in functionals(space, generator):
        x, step = space.random(generator, (2,)), torch.tensor([0.3, 2.0], dtype=torch.float64)
        u = f.prox(x, step)
        value = f(u) + space.norm(u - x) ** 2 / (2 * step)
        for _ in range(20):
            v = u + 0.1 * space.random(generator, (2,))
            assert bool((f(v) + space.norm(v - x) ** 2 / (2 * step) >= value).all())
        for i in range(2):
            torch.testing.assert_close(f.prox(x[i], float(step[i])), u[i])


def test_moreau_decomposition(space: Space, generator: torch.Generator) -> None:
    for f in functionals(space, generator):
        x, step = space.random(generator, (2,)), torch.tensor([0.3, 2.0], dtype=torch.float64)
        split = f.prox(x, step) + space.expand(step) * f.prox_conjugate(x / space.expand(step), 1 / step)
        torch.testing.assert_close(split, x)


def test_conjugate_prox_of_least_squares_is_known(space: Space, generator: torch.Generator) -> None:
    """``f*(z) = 0.5 |z|^2 + Re <z, y>``: the prox is ``(z - s y) / (1 + s)``."""
    y, z = space.random(generator), space.random(generator)
    torch.testing.assert_close(LeastSquares(space, y).prox_conjugate(z, 0.7), (z - 0.7 * y) / 1.7)


def test_gradient_is_the_derivative(space: Space, generator: torch.Generator) -> None:
    for f in functionals(space, generator):
        x = space.random(generator, (2,)).requires_grad_()
        (expected,) = torch.autograd.grad((f(x) + 0 * x.abs().sum()).sum(), x)
        torch.testing.assert_close(f.gradient(x), expected)
        other = space.random(generator, (2,))
        slope = space.norm(f.gradient(x) - f.gradient(other)) / space.norm(x - other)
        assert float(slope.detach().max()) <= f.gradient_lipschitz() + 1e-12


def test_fenchel_young(space: Space, generator: torch.Generator) -> None:
    """``f(x) + f*(z) >= Re <z, x>``, with equality for the gradient."""
    for f in functionals(space, generator):
        x, z = space.random(generator, (5,)), space.random(generator, (5,))
        assert bool((f(x) + f.conjugate(z) >= space.inner(z, x).real - 1e-12).all())
        slope = f.gradient(x)
        torch.testing.assert_close(f(x) + f.conjugate(slope), space.inner(slope, x).real)


def test_conjugate_of_zero_is_an_indicator() -> None:
    f = Zero(Space((3,)))
    assert f.conjugate(torch.stack([torch.zeros(3), torch.ones(3)])).tolist() == [0, math.inf]


def test_checks_its_inputs() -> None:
    f = LeastSquares(Space((3,)), torch.zeros(3))
    for call in (f, f.gradient, f.conjugate, lambda x: f.prox(x, 1.0), lambda x: f.prox_conjugate(x, 1.0)):
        with pytest.raises(InputError, match="LeastSquares"):
            call(torch.zeros(4))
    with pytest.raises(InputError, match="measurement"):
        LeastSquares(Space((3,)), torch.zeros(4))


def test_plug_and_play_takes_a_strength_per_image() -> None:
    prior = PnP(Space((3, 3)), lambda x, sigma: x / (1 + sigma), torch.tensor([1.0, 2.0, 3.0]))
    expected = torch.stack([torch.full((3, 3), 1 / (1 + s)) for s in (1, 2, 3)])
    torch.testing.assert_close(prior.prox(torch.ones(3, 3, 3), 1.0), expected)


def test_least_squares_bends_at_the_measurement_too() -> None:
    space = Space((3,), torch.float64)
    f = LeastSquares(space, torch.ones(3, dtype=torch.float64))
    hessian = torch.autograd.functional.hessian(f, torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(hessian, torch.eye(3, dtype=torch.float64))


def test_says_what_a_functional_does_not_have() -> None:
    f = Functional(Space((3,)))
    x = torch.zeros(3)
    for call, message in (
        (lambda: f(x), "Functional has no value"),
        (lambda: f.prox(x, 1.0), "Functional has no proximal map"),
        (lambda: f.gradient(x), "Functional has no gradient"),
        (lambda: f.conjugate(x), "Functional has no conjugate value"),
    ):
        with pytest.raises(PriorloomError, match=message):
            call()
    assert f.gradient_lipschitz() is None


def test_measurement_follows_the_module() -> None:
    f = LeastSquares(Space((3,)), torch.ones(3))
    assert f.double().y.dtype == torch.float64


def test_plug_and_play_hands_the_strength_to_the_denoiser() -> None:
    seen = []

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        seen.append(float(sigma))
        return x / 2

    assert isinstance(denoise, Denoiser)
    prior = PnP(Space((3,)), denoise, 0.25)
    x = torch.ones(2, 3)
    assert torch.equal(prior.prox(x, 17.0), x / 2)
    assert seen == [0.25]
    assert not prior.has_value
    with pytest.raises(PriorloomError, match="PnP has no value"):
        prior(x)


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.nan])
def test_plug_and_play_refuses_a_bad_strength(sigma: float) -> None:
    with pytest.raises(InputError, match="sigma of a denoiser"):
        PnP(Space((3,)), lambda x, sigma: x, sigma)


@pytest.mark.parametrize("broken", [lambda x, s: x[..., :2], lambda x, s: x.double()])
def test_plug_and_play_checks_the_denoiser(broken: Any) -> None:
    with pytest.raises(InputError, match=r"output of the denoiser <lambda>: expected \[3\] torch\.float32, got"):
        PnP(Space((3,)), broken, 1.0).prox(torch.ones(3), 1.0)
