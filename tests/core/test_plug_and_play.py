"""Plug-and-play is exact when the denoiser is a prox: with that of TV, every algorithm reaches what PDHG reaches on TV.

With ``D(., sigma) = prox_{sigma^2 g}`` and g the total variation, an algorithm whose prox has the step t minimises
``0.5 |Ax - y|^2 + g(x)`` where ``sigma^2 = t``. RED with this D and ``tau = 1 / t``, and half-quadratic splitting with
a fixed penalty ``1 / t``, minimise that objective with the Moreau envelope of g in its place; PDHG on image and split
variable together is the referee for that.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from priorloom import LinearOperator, PnP, Problem, Registry, Space, Step, Term, run
from priorloom.functional import Functional, LeastSquares
from priorloom.plug_and_play import RED, ImplicitPrior
from priorloom.regularity import Regularity
from priorloom.steps import ADMM, DRS, FISTA, HQS, ISTA, PDHG, DataProximal, GradientDescent, Relaxed
from priorloom.steps.equilibrium import Anderson

N = 16
Array = np.ndarray[Any, np.dtype[Any]]


def differences(x: Array) -> Array:
    """``[2, N, N]``, zero across the far edge."""
    d = np.zeros((2, *x.shape), x.dtype)
    d[0, :-1] = x[1:] - x[:-1]
    d[1, :, :-1] = x[:, 1:] - x[:, :-1]
    return d


def back(p: Array) -> Array:
    """The adjoint."""
    x = np.zeros(p.shape[1:], p.dtype)
    x[1:] += p[0, :-1]
    x[:-1] -= p[0, :-1]
    x[:, 1:] += p[1, :, :-1]
    x[:, :-1] -= p[1, :, :-1]
    return x


def lengths(p: Array) -> Array:
    return np.sqrt((p.real**2 + p.imag**2).sum(0))


class TotalVariationDenoiser:
    """``prox_{sigma^2 lam TV}`` by accelerated projected gradient on the dual, to a proven relative error; every call
    begins at the dual point of the one before, which saves time and changes nothing beyond that error."""

    def __init__(self, lam: float, tolerance: float = 3e-5) -> None:
        self.lam, self.tolerance = lam, tolerance
        self.p: Array = np.zeros((2, N, N))

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        a, t = x.numpy(), float(sigma) ** 2
        allowed = 0.5 * (self.tolerance * float(np.linalg.norm(a))) ** 2
        p = q = self.p.astype(a.dtype) if a.dtype != self.p.dtype else self.p
        k = 1.0
        for i in range(20000):
            if i % 4 == 0:
                u = a - t * back(p)
                z = differences(u)
                if t * (self.lam * lengths(z).sum() - np.vdot(p, z).real) <= allowed:
                    self.p = p
                    return torch.from_numpy(u)
            new = q + differences(a - t * back(q)) / (8 * t)
            new = new / np.maximum(lengths(new) / self.lam, 1)
            if np.vdot(q - new, new - p).real > 0:
                k = 1.0
            later = (1 + (1 + 4 * k * k) ** 0.5) / 2
            p, q, k = new, new + (k - 1) / later * (new - p), later
        raise AssertionError("the prox did not converge")

    def regularity(self, sigma: float) -> Regularity:
        return Regularity(1.0, 0.5, 1.0, gradient=True, convex=True, reason="a proximal map")


def picture() -> Tensor:
    """A disc, a box and a ramp."""
    r = torch.linspace(-1, 1, N, dtype=torch.float64)
    x = 0.4 * (r[:, None] ** 2 + r**2 < 0.7)
    x[N // 3 : N // 2, N // 4 : N // 2] += 0.6
    return x + 0.1 * r * (r[:, None].abs() < 0.4)


@cache
def setting(modality: str) -> tuple[Term, float, float]:
    """The data term, the weight of TV, and the TV objective that PDHG reaches."""
    registry = Registry.discover()
    image = picture()
    if modality == "ct":
        A = registry.operator(
            "ct.parallel2d", image_shape=(N, N), pixel_size=1.0, views=20, detectors=23, detector_pitch=1.0
        ).double()
        noise = 0.3
    else:
        mask = torch.rand((N, N), generator=torch.Generator().manual_seed(9)) < 0.4
        mask[6:10, 6:10] = True
        A = registry.operator("mri.fourier2d", image_shape=(N, N), mask=mask).double()
        image = image * torch.exp(1j * torch.linspace(0, 2, N, dtype=torch.float64))
        noise = 0.05
    y = A(image) + noise * A.range.random(torch.Generator().manual_seed(7))
    pulled = A.adjoint(A.range.random(torch.Generator().manual_seed(8)))
    lam = 0.7 * noise * float(pulled.abs().square().mean().sqrt())
    data = Term(LeastSquares(A.range, y), A)
    problem = convex(data, lam)
    solution = run(PDHG(), problem, n=20000, tol=3e-6)
    assert solution.converged
    return data, lam, float(problem.objective(solution.x))


def convex(data: Term, lam: float) -> Problem:
    return Problem(data, terms=[Registry.discover().prior("tv", data.K.domain, lam=lam)])


def start(data: Term) -> Tensor:
    assert isinstance(data.f, LeastSquares)
    return data.K.pseudo_inverse(data.f.y)


STEPS: dict[str, tuple[float, Callable[[float], Step[Any]]]] = {
    "pgd": (1.0, ISTA),
    "equilibrium": (1.0, lambda t: Anderson(ISTA(t))),
    "fista": (1.0, FISTA),
    "admm": (3.0, lambda t: ADMM(rho=1 / t)),
    "drs": (3.0, DRS),
    "pdhg": (3.0, PDHG),
    "admm damped": (3.0, lambda t: Relaxed(ADMM(rho=1 / t), 0.6)),
    "pdhg damped": (3.0, lambda t: Relaxed(PDHG(t), 0.6)),
}
"""The step t in units of ``1 / L``, and the algorithm with that step; PDHG's primal step is its ratio, as its only
block is scaled to norm 1."""


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("modality", ["ct", "mri"])
def test_the_prox_of_tv_as_a_denoiser_gives_the_tv_objective_of_pdhg(modality: str, name: str) -> None:
    data, lam, minimum = setting(modality)
    scale, make = STEPS[name]
    t = scale / (data.lipschitz() or 1.0)
    prior = PnP(data.K.domain, TotalVariationDenoiser(lam), t**0.5)
    solution = run(make(t), Problem(data, prior), n=2000, tol=2e-5, x0=start(data))
    assert solution.converged, solution.residual
    assert float(convex(data, lam).objective(solution.x)) == pytest.approx(minimum, rel=1e-4)


def test_another_strength_gives_another_objective() -> None:
    """The agreement above is not the problem's indifference: a third more noise taken out is another minimiser."""
    data, lam, minimum = setting("mri")
    t = 1 / (data.lipschitz() or 1.0)
    prior = PnP(data.K.domain, TotalVariationDenoiser(lam), (4 / 3 * t) ** 0.5)
    solution = run(FISTA(t), Problem(data, prior), n=2000, tol=2e-5, x0=start(data))
    assert float(convex(data, lam).objective(solution.x)) > minimum * (1 + 1e-3)


class Part(LinearOperator):
    """``(x, z) -> x`` or z, or ``x - z``."""

    def __init__(self, space: Space, signs: tuple[float, float]) -> None:
        super().__init__(Space((2, *space.shape), space.dtype), space)
        self.signs = signs

    def _forward(self, x: Tensor) -> Tensor:
        a, b = self.signs
        return a * x[..., 0, :, :] + b * x[..., 1, :, :]

    def _adjoint(self, y: Tensor) -> Tensor:
        a, b = self.signs
        return torch.stack((a * y, b * y), -3)


class Half(Functional):
    """``0.5 c |x|^2``."""

    has_conjugate = True

    def __init__(self, space: Space, c: float) -> None:
        super().__init__(space)
        self.c = c

    def _value(self, x: Tensor) -> Tensor:
        return 0.5 * self.c * self.space.squared(x)

    def _prox(self, x: Tensor, step: Tensor) -> Tensor:
        return x / (1 + step * self.c)

    def _conjugate(self, z: Tensor) -> Tensor:
        return self.space.squared(z) / (2 * self.c)


@cache
def enveloped(modality: str) -> tuple[float, float]:
    """t, and the minimum over x and z of ``0.5 |Ax - y|^2 + lam TV(z) + |x - z|^2 / (2 t)`` by PDHG."""
    data, lam, _ = setting(modality)
    space = data.K.domain
    t = 2 / (data.lipschitz() or 1.0)
    tv = convex(data, lam).terms[0]
    terms = [Term(tv.f, tv.K @ Part(space, (0.0, 1.0))), Term(Half(space, 1 / t), Part(space, (1.0, -1.0)))]
    problem = Problem(Term(data.f, data.K @ Part(space, (1.0, 0.0))), None, terms)
    solution = run(PDHG(), problem, n=30000, tol=3e-6)
    assert solution.converged, solution.residual
    return t, float(problem.objective(solution.x))


@pytest.mark.parametrize("name", ["hqs", "red gradient", "red proximal"])
@pytest.mark.parametrize("modality", ["ct", "mri"])
def test_hqs_and_red_with_the_prox_of_tv_minimise_the_objective_with_the_moreau_envelope(
    modality: str, name: str
) -> None:
    data, lam, _ = setting(modality)
    t, minimum = enveloped(modality)
    space = data.K.domain
    denoiser = TotalVariationDenoiser(lam)
    prior: Functional = RED(space, denoiser, t**0.5, tau=1 / t)
    step: Step[Any] = GradientDescent() if name == "red gradient" else DataProximal()
    if name.startswith("hqs"):
        prior, step = ImplicitPrior(space, denoiser, 1.0), HQS(rho=1 / t, growth=1.0, steps=0)
    solution = run(step, Problem(data, prior), n=3000, tol=1e-5, x0=start(data))
    assert solution.converged, solution.residual
    x = solution.x
    z = denoiser(x, torch.tensor(t**0.5)) if not name.startswith("hqs") else x
    if name.startswith("hqs"):  # its image is z; x is the solution of the linear system
        x = solution.state.solution  # type: ignore[attr-defined]
    value = float(data(x) + convex(data, lam).terms[0](z) + space.squared(x - z) / (2 * t))
    assert value == pytest.approx(minimum, rel=1e-4)
