"""The closed-form priors against dense minimisation, their definitions and the conformance kit."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.optimize
import torch
from torch import Tensor, nn

from priorloom import Functional, Registry, Space, Term
from priorloom.errors import InputError
from priorloom.operator import Gradient
from priorloom.testing import check_prior
from priorloom_priors.functionals import L1, Box, GroupL1, SquaredNorm

REGISTRY = Registry.discover()
SPACES = [Space((6, 5)), Space((6, 5), torch.complex64), Space((6, 5), torch.float64), Space((7,), torch.complex128)]


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_conformance_in_every_dtype(space: Space) -> None:
    mask = (torch.arange(space.size).reshape(space.shape) % 3).to(space.real_dtype)
    priors: list[Functional] = [L1(space, 0.3), L1(space, 0.3, mask), L1(space, 0.0)]
    priors += [GroupL1(space, 0.3, -1), GroupL1(space, 0.3, (0, -1)), SquaredNorm(space, 0.3), SquaredNorm(space, 0.0)]
    if not space.is_complex:
        priors += [Box(space), Box(space, -0.2, 0.4), Box(space, -math.inf, 0.1)]
    for prior in priors:
        assert len(check_prior(prior)) > 8


@pytest.mark.parametrize("name", ["l1", "group-l1", "tikhonov"])
def test_prox_minimises_the_objective(name: str, generator: torch.Generator) -> None:
    space = Space((2, 3), torch.float64)
    prior = REGISTRY.prior(name, space, lam=0.4)
    assert isinstance(prior, Functional)
    x, step = space.random(generator), 0.7
    value = {
        "l1": lambda u: 0.4 * np.abs(u).sum(),
        "group-l1": lambda u: 0.4 * np.sqrt((u.reshape(2, 3) ** 2).sum(0)).sum(),
        "tikhonov": lambda u: 0.2 * (u**2).sum(),
    }[name]
    target = x.numpy().ravel()

    def objective(u: np.ndarray) -> float:  # type: ignore[type-arg]
        return float(value(u) + ((u - target) ** 2).sum() / (2 * step))

    found = scipy.optimize.minimize(objective, target, method="Powell", options={"xtol": 1e-9, "ftol": 1e-14})
    np.testing.assert_allclose(prior.prox(x, step).numpy().ravel(), found.x, atol=1e-5)
    assert float(prior(x)) == pytest.approx(float(value(target)), rel=1e-12)


def test_soft_thresholding_keeps_the_phase() -> None:
    space = Space((3,), torch.complex128)
    x = torch.polar(torch.tensor([3.0, 1.0, 0.0], dtype=torch.float64), torch.tensor([1.0, 2.0, 0.0]).double())
    u = L1(space, 2.0).prox(x, 0.75)
    torch.testing.assert_close(u.abs(), torch.tensor([1.5, 0.0, 0.0], dtype=torch.float64))
    assert float(u[0].angle()) == pytest.approx(1.0)


def test_groups_vanish_together() -> None:
    space = Space((2, 2), torch.complex64)
    x = torch.tensor([[3.0 + 0j, 0.1], [4j, 0.1j]])
    u = GroupL1(space, 1.0).prox(x, 1.0)
    torch.testing.assert_close(u, torch.tensor([[2.4 + 0j, 0], [3.2j, 0]]))
    torch.testing.assert_close(GroupL1(space, 1.0)(x), torch.tensor(5 + 0.02**0.5))


@pytest.mark.parametrize("name", ["tv", "tv-anisotropic", "tikhonov-gradient", "joint-tv"])
def test_terms_on_a_step_edge(name: str) -> None:
    image = torch.zeros(2, 6, 5)
    image[0, 3:] = 3.0  # a step of 3 across five columns, and one of 4 at the same place
    image[1, 3:] = 4.0
    space = Space((2, 6, 5) if name == "joint-tv" else (6, 5))
    prior = REGISTRY.prior(name, space, lam=2.0)
    assert isinstance(prior, Term)
    expected = {"tv": 2.0 * 5 * 3, "tv-anisotropic": 2.0 * 5 * 3, "tikhonov-gradient": 5 * 9.0, "joint-tv": 2.0 * 5 * 5}
    assert float(prior(image if name == "joint-tv" else image[0])) == pytest.approx(expected[name])


def test_isotropic_and_anisotropic_differ_on_the_diagonal() -> None:
    image = torch.tensor([[0.0, 1.0], [1.0, 1.0]])
    tv, tva = (REGISTRY.prior(name, Space((2, 2)), lam=1.0) for name in ("tv", "tv-anisotropic"))
    assert float(tv(image)) == pytest.approx(math.sqrt(2))
    assert float(tva(image)) == pytest.approx(2.0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_prox_is_differentiable(dtype: torch.dtype, generator: torch.Generator) -> None:
    space = Space((2, 4), dtype)
    x = space.random(generator).requires_grad_()
    lam = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    for make in (L1, GroupL1):
        assert torch.autograd.gradcheck(lambda x, lam, make=make: make(space, lam).prox(x, 0.8), (x, lam))
    at_zero = space.zeros().requires_grad_()
    for f in (L1(space, 0.3), GroupL1(space, 0.3)):
        (slope,) = torch.autograd.grad((f.prox(at_zero, 0.5).abs().square().sum() + f(at_zero)).sum(), at_zero)
        assert bool(slope.isfinite().all())


def test_a_learned_weight_is_a_parameter() -> None:
    f = L1(Space((4,)), nn.Parameter(torch.tensor(0.2)))
    assert [name for name, _ in f.named_parameters()] == ["lam"]
    f.prox(torch.ones(4), 1.0).sum().backward()
    assert f.lam.grad is not None  # type: ignore[union-attr]
    assert float(f.lam.grad) == pytest.approx(-4.0)  # type: ignore[union-attr]


WEIGHTED = ["l1", "group-l1", "tikhonov", "tikhonov-gradient", "tv", "tv-anisotropic", "tv-prox", "wavelet-l1"]


@pytest.mark.parametrize("name", WEIGHTED)
@pytest.mark.parametrize("lam", [-1.0, math.nan, math.inf])
def test_bad_weights_are_refused(name: str, lam: float) -> None:
    with pytest.raises(InputError, match=r"lam: expected a finite number, at least 0, got"):
        REGISTRY.prior(name, Space((8, 8)), lam=lam)


def test_bad_bounds_axes_and_images_are_refused() -> None:
    with pytest.raises(InputError, match="bounds"):
        REGISTRY.prior("box", Space((4,)), lower=2.0, upper=1.0)
    with pytest.raises(InputError, match="bounds"):
        REGISTRY.prior("box", Space((4,)), lower=math.nan)
    with pytest.raises(InputError, match="image of a bound: expected a real dtype"):
        REGISTRY.prior("nonnegativity", Space((4,), torch.complex64))
    with pytest.raises(InputError, match="axis of a group"):
        REGISTRY.prior("group-l1", Space((4,)), lam=1.0, axis=1)
    with pytest.raises(InputError, match="joint-tv"):
        REGISTRY.prior("joint-tv", Space((4,)), lam=1.0)


def test_gradient_of_tikhonov_by_autograd(generator: torch.Generator) -> None:
    space = Space((5, 4), torch.complex128)
    prior = REGISTRY.prior("tikhonov-gradient", space, lam=0.7)
    assert isinstance(prior, Term)
    x = space.random(generator).requires_grad_()
    (slope,) = torch.autograd.grad(prior(x), x)
    torch.testing.assert_close(prior.gradient(x.detach()), slope)
    assert prior.lipschitz() == pytest.approx(0.7 * Gradient(space).norm() ** 2)


def test_conjugate_of_the_box_is_its_support_function(generator: torch.Generator) -> None:
    space = Space((3,), torch.float64)
    z = space.random(generator)
    corners = torch.cartesian_prod(*(torch.tensor([-0.5, 2.0]).double(),) * 3)
    expected: Tensor = (corners @ z).max()
    torch.testing.assert_close(Box(space, -0.5, 2.0).conjugate(z), expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("weight", [0.7, torch.tensor(0.7)], ids=["number", "tensor"])
def test_tikhonov_has_its_second_derivative_at_zero_too(dtype: torch.dtype, weight: float | Tensor) -> None:
    space = Space((2, 3), dtype)
    f = SquaredNorm(space, weight).double()
    for value, curvature in ((f, 0.7), (f.conjugate, 1 / 0.7)):
        for x in (space.zeros(), torch.ones(2, 3, dtype=dtype)):

            def of_parts(parts: Tensor, value: Functional = value) -> Tensor:
                return value(torch.view_as_complex(parts) if dtype.is_complex else parts[..., 0])

            leaf = torch.view_as_real(x) if dtype.is_complex else x[..., None]
            hessian = torch.autograd.functional.hessian(of_parts, leaf).reshape(leaf.numel(), -1)
            torch.testing.assert_close(hessian, curvature * torch.eye(leaf.numel()).double(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("weight", [0.0, torch.tensor(0.0)], ids=["number", "tensor"])
def test_conjugate_of_nothing_is_the_indicator_of_zero(weight: float | Tensor) -> None:
    z = torch.tensor([[0.0, 0.0], [0.0, 1e-30], [3.0, 0.0]], dtype=torch.float64)
    conjugate = SquaredNorm(Space((2,), torch.float64), weight).conjugate(z)
    assert conjugate.tolist() == [0.0, math.inf, math.inf]
