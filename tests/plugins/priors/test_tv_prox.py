"""TV denoising as a prox, against closed forms, a dense solver and scikit-image."""

from __future__ import annotations

import pytest
import torch

from priorloom import Functional, PriorloomError, Registry, Space
from priorloom.errors import InputError
from priorloom.operator import Gradient
from priorloom.testing import check_functional

REGISTRY = Registry.discover()


def tv_prox(space: Space, **parameters: float) -> Functional:
    prior = REGISTRY.prior("tv-prox", space, **parameters)
    assert isinstance(prior, Functional)
    return prior


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_conformance(dtype: torch.dtype) -> None:
    assert len(check_functional(tv_prox(Space((6, 5), dtype), lam=0.3))) > 8


def test_a_step_in_closed_form() -> None:
    """In one dimension TV denoising moves the two plateaus towards each other by ``t lam / length``."""
    x = torch.cat([torch.zeros(10), torch.ones(20)]).double()
    u = tv_prox(Space((30,), torch.float64), lam=1.0, tolerance=1e-6).prox(x, 2.0)
    expected = torch.cat([torch.full((10,), 0.2), torch.full((20,), 0.9)]).double()
    torch.testing.assert_close(u, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_optimality_in_the_dual(dtype: torch.dtype, generator: torch.Generator) -> None:
    """The error is proven by an independent plain projected gradient run to high accuracy."""
    space = Space((8, 7), dtype)
    K, t = Gradient(space), 0.4
    x = space.random(generator)
    p = K.range.zeros()
    for _ in range(20000):
        p = p + K(x - t * K.adjoint(p)) / (8 * t)
        p = p / torch.linalg.vector_norm(p, dim=0, keepdim=True).clamp_min(1)
    reference = x - t * K.adjoint(p)
    for tolerance in (1e-2, 1e-4):
        u = tv_prox(space, lam=1.0, tolerance=tolerance).prox(x, t)
        assert float(space.norm(u - reference) / space.norm(x)) <= tolerance


def test_no_memory_and_every_element_by_itself(generator: torch.Generator) -> None:
    space = Space((9, 8))
    prior = tv_prox(space, lam=0.5)
    x = space.random(generator, (3,)) * torch.tensor([1.0, 5.0, 0.0])[:, None, None]
    steps = torch.tensor([0.1, 2.0, 1.0])
    first = prior.prox(x, steps)
    prior.prox(10 * x, 3.0)
    assert torch.equal(first, prior.prox(x, steps))
    for one, image, step in zip(first, x, steps, strict=True):
        torch.testing.assert_close(one, prior.prox(image, step), atol=1e-6, rtol=1e-6)


def test_the_same_objective_as_tv(generator: torch.Generator) -> None:
    space = Space((9, 8), torch.complex64)
    x = space.random(generator, (2,))
    torch.testing.assert_close(tv_prox(space, lam=0.5)(x), REGISTRY.prior("tv", space, lam=0.5)(x))


def test_a_budget_that_does_not_suffice_is_said(generator: torch.Generator) -> None:
    x = Space((32, 32)).random(generator)
    with pytest.raises(PriorloomError, match=r"relative error of at most 1e-06 in 20 iterations, got"):
        tv_prox(Space((32, 32)), lam=1.0, tolerance=1e-6, max_iterations=20).prox(x, 1.0)
    with pytest.raises(InputError, match="tolerance"):
        tv_prox(Space((4, 4)), lam=1.0, tolerance=0.0)
