"""Every method reaches the same objective on denoising, CT and MRI; ODL's PDHG is the referee on CT."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from priorloom import LinearOperator, Problem, Registry, Space, Term, run
from priorloom.functional import LeastSquares
from priorloom.operator import Identity
from priorloom.steps import ADMM, DRS, FISTA, ISTA, PDHG

Gaussian = Callable[..., Tensor]

STEPS = [ISTA(), FISTA(), PDHG(), ADMM(), DRS()]
NAMES = [type(step).__name__ for step in STEPS]


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.discover()


def picture(n: int) -> Tensor:
    """A disc, a box and a ramp, ``[n, n]``."""
    r = torch.linspace(-1, 1, n, dtype=torch.float64)
    x = 0.4 * (r[:, None] ** 2 + r**2 < 0.7)
    x[n // 3 : n // 2, n // 4 : n // 2] += 0.6
    return x + 0.1 * r * (r[:, None].abs() < 0.4)


def data_term(A: LinearOperator, image: Tensor, noise: float) -> tuple[Term, float]:
    """Least squares of a noisy measurement, and the noise in ``A^H y`` per pixel: the unit of a weight."""
    clean = A(image.to(A.domain.dtype))
    scale = noise * float(clean.abs().square().mean().sqrt())
    y = clean + scale * A.range.random(torch.Generator().manual_seed(7))
    back = A.adjoint(A.range.random(torch.Generator().manual_seed(8)))
    return Term(LeastSquares(A.range, y), A), scale * float(back.abs().square().mean().sqrt())


@pytest.fixture(scope="module")
def denoising(registry: Registry) -> Callable[[Any], Problem]:
    """Isotropic TV denoising: an operator term for PDHG and ADMM, a prox by an inner iteration for the others."""
    A = Identity(Space((16, 16), torch.float64))
    data, unit = data_term(A, picture(16), 0.2)
    term = registry.prior("tv", A.domain, lam=unit)
    functional = registry.prior("tv-prox", A.domain, lam=unit, tolerance=3e-4)
    both = {True: Problem(data, terms=[term]), False: Problem(data, functional)}
    return lambda step: both[isinstance(step, PDHG | ADMM)]


@pytest.fixture(scope="module")
def ct(registry: Registry) -> Callable[[Any], Problem]:
    """Wavelet-sparse CT from 24 views."""
    A = registry.operator(
        "ct.parallel2d", image_shape=(32, 32), pixel_size=1.0, views=24, detectors=47, detector_pitch=1.0
    )
    data, unit = data_term(A, picture(32), 0.02)
    problem = Problem(data, registry.prior("wavelet-l1", A.domain, lam=2 * unit, wavelet="db2"))
    return lambda step: problem


@pytest.fixture(scope="module")
def mri(registry: Registry) -> Callable[[Any], Problem]:
    """Wavelet-sparse complex MRI from 40 % of k-space: the normal operator is singular."""
    mask = torch.rand((32, 32), generator=torch.Generator().manual_seed(9)) < 0.4
    mask[12:20, 12:20] = True
    A = registry.operator("mri.fourier2d", image_shape=(32, 32), mask=mask).double()
    image = picture(32) * torch.exp(1j * torch.linspace(0, 2, 32, dtype=torch.float64))
    data, unit = data_term(A, image, 0.05)
    problem = Problem(data, registry.prior("wavelet-l1", A.domain, lam=2 * unit, wavelet="db2"))
    return lambda step: problem


@pytest.mark.parametrize("name", ["denoising", "ct", "mri"])
def test_all_methods_reach_the_same_objective(name: str, request: pytest.FixtureRequest) -> None:
    problem_for = request.getfixturevalue(name)
    objectives, images = {}, []
    # The inner iteration of the TV prox is the cheaper the shorter the step.
    steps = [*STEPS[:-1], DRS(step=1.0)] if name == "denoising" else STEPS
    for step in steps:
        problem = problem_for(step)
        solution = run(step, problem, n=20000, tol=5e-6)
        assert solution.converged, type(step).__name__
        objectives[type(step).__name__] = float(problem.objective(solution.x))
        images.append(solution.x)
    best = min(objectives.values())
    assert max(objectives.values()) <= best * (1 + 1e-4), objectives
    assert best < 0.9 * float(problem.objective(problem.zeros()))
    for x in images[1:]:
        assert float((x - images[0]).norm() / images[0].norm()) < 0.02


@pytest.mark.parametrize("step", STEPS, ids=NAMES)
def test_the_criterion_means_the_same_for_every_method(step: Any, ct: Callable[[Any], Problem]) -> None:
    """At the default tolerance each method, however short its steps, is within a per cent of the minimum."""
    problem = ct(step)
    minimum = float(problem.objective(run(FISTA(), problem, n=20000, tol=1e-6).x))
    solution = run(step, problem)
    assert solution.converged
    assert float(problem.objective(solution.x)) <= 1.01 * minimum


@pytest.mark.filterwarnings("ignore")  # odl 1.0 warns about its own use of NumPy
def test_total_variation_ct_equals_odls_pdhg(registry: Registry) -> None:
    """ODL solves the same discrete problem, from the matrix of our ray transform."""
    odl = pytest.importorskip("odl")
    n = 16
    A = registry.operator(
        "ct.parallel2d", image_shape=(n, n), pixel_size=1.0, views=12, detectors=25, detector_pitch=1.0
    )
    data, unit = data_term(A, picture(n), 0.02)
    assert isinstance(data.f, LeastSquares)
    lam = 2 * unit
    problem = Problem(data, terms=[registry.prior("tv", A.domain, lam=lam)])
    matrix = A(torch.eye(n * n).reshape(n * n, n, n)).reshape(n * n, -1).T.double().numpy()
    y = data.f.y.reshape(-1).double().numpy()

    space = odl.uniform_discr([0, 0], [n, n], (n, n), dtype="float64")  # cells of size 1: plain inner products
    gradient = odl.Gradient(space, method="forward", pad_mode="order0")
    flat = odl.rn(n * n)

    class Flatten(odl.Operator):
        def __init__(self, back: bool) -> None:
            super().__init__(flat if back else space, space if back else flat, linear=True)
            self.back = back

        def _call(self, x: Any) -> Any:
            return self.range.element(np.asarray(x.asarray()).reshape(self.range.shape))

        @property
        def adjoint(self) -> Any:
            return Flatten(not self.back)

    ray = odl.MatrixOperator(matrix, domain=flat) @ Flatten(False)
    functionals = odl.functionals if hasattr(odl, "functionals") else odl.solvers
    fit = 0.5 * functionals.L2NormSquared(ray.range).translated(ray.range.element(y))
    tv = lam * functionals.GroupL1Norm(gradient.range)
    stacked = odl.BroadcastOperator(ray, gradient)
    norm = np.linalg.norm(np.vstack([matrix, np.sqrt(8) * np.eye(n * n)]), 2)
    x = space.zero()
    odl.solvers.pdhg(
        x,
        functionals.ZeroFunctional(space),
        functionals.SeparableSum(fit, tv),
        stacked,
        niter=1500,
        tau=0.1 / norm,
        sigma=10 / norm,
    )
    theirs = torch.from_numpy(np.asarray(x.asarray())).float()
    for step in (PDHG(), ADMM()):
        solution = run(step, problem, n=20000, tol=3e-6)
        assert solution.converged
        assert float(problem.objective(solution.x)) == pytest.approx(float(problem.objective(theirs)), rel=1e-4)
        assert float((solution.x - theirs).norm() / theirs.norm()) < 0.01
