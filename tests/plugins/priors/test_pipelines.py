"""tv-pdhg and pnp-admm on small problems, against closed forms and scikit-image."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from skimage.restoration import denoise_tv_chambolle

from priorloom import Case, Registry, Space, run
from priorloom.binding import bind
from priorloom.errors import InputError
from priorloom.operator import Identity
from priorloom.pipeline import Assembly, backprojected_noise
from priorloom.plug_and_play import PnP
from priorloom.solve import Solution
from priorloom_priors.functionals import Box, GroupL1
from priorloom_priors.pipelines import WEIGHT
from priorloom_priors.plan import STRENGTH

REGISTRY = Registry.discover()


def ct_case(generator: torch.Generator) -> Case:
    A = REGISTRY.operator("ct.parallel2d", image_shape=(32, 32), pixel_size=1.0, views=20)
    truth = torch.zeros(32, 32)
    truth[8:24, 10:20] = 1.0
    noise = 0.2
    return Case("box", "ct", A, A(truth) + noise * A.range.random(generator), truth, noise)


def mri_case(generator: torch.Generator) -> Case:
    mask = torch.rand(32, 32, generator=generator) < 0.4
    mask[12:20, 12:20] = True
    A = REGISTRY.operator("mri.fourier2d", image_shape=(32, 32), mask=mask)
    truth = torch.zeros(32, 32, dtype=torch.complex64)
    truth[8:24, 10:20] = 0.6 + 0.8j
    noise = 0.05
    return Case("box", "mri", A, A(truth) + noise * mask * A.range.random(generator), truth, noise)


def solve(case: Case, method: str, **settings: Any) -> tuple[Assembly, Solution]:
    pipeline = REGISTRY.pipeline(method)
    arguments, _ = bind(REGISTRY, pipeline, {k.replace("__", "."): v for k, v in settings.items()})
    with torch.no_grad():
        a = pipeline.assemble(case, **arguments)
        return a, run(a.steps, a.problem, n=a.solver.max_iterations, tol=a.solver.tolerance, x0=a.start)


def error(case: Case, x: torch.Tensor) -> float:
    assert case.truth is not None
    return float((x - case.truth).norm() / case.truth.norm())


@pytest.mark.parametrize("method", ["tv-pdhg", "pnp-admm"])
@pytest.mark.parametrize("make", [ct_case, mri_case])
def test_converges_and_beats_the_direct_method(method: str, make: Any, generator: torch.Generator) -> None:
    case = make(generator)
    assembly, solution = solve(case, method)
    assert solution.converged is True
    assert error(case, solution.x) < 0.6 * error(case, case.operator.pseudo_inverse(case.measurement))
    assert assembly.certificate == ("certified" if method == "tv-pdhg" else "empirical")


def test_automatic_strengths_follow_their_formulas(generator: torch.Generator) -> None:
    case = ct_case(generator)
    noise = backprojected_noise(case)
    assembly, _ = solve(case, "tv-pdhg", solver__max_iterations=1)
    assert assembly.parameters["prior.lam"] == pytest.approx(WEIGHT * noise)
    assembly, _ = solve(case, "pnp-admm", solver__max_iterations=1)
    assert assembly.parameters["sigma"] == pytest.approx(STRENGTH * 0.2**2 / noise)
    assert assembly.parameters["rho"] == pytest.approx(0.2**2 / assembly.parameters["sigma"] ** 2)
    assembly, _ = solve(case, "tv-pdhg", prior__lam=0.7, solver__max_iterations=1)
    assert assembly.parameters == {"nonnegative": True}
    term = assembly.problem.terms[0].f
    assert isinstance(term, GroupL1)
    assert term.lam == 0.7


def test_tv_denoising_equals_scikit_image(generator: torch.Generator) -> None:
    space = Space((24, 24))
    y = torch.eye(24).roll(3, 0) + 0.3 * space.random(generator)
    case = Case("denoise", "any", Identity(space), y, None, 0.3)
    _, solution = solve(case, "tv-pdhg", prior__lam=0.2, nonnegative=False, solver__tolerance=1e-6)
    expected = denoise_tv_chambolle(y.double().numpy(), weight=0.2, eps=1e-12, max_num_iter=20000)
    assert float((solution.x - torch.from_numpy(expected)).norm() / y.norm()) < 1e-4
    _, solution = solve(case, "tv-pdhg", prior__lam=0.2)
    assert float(solution.x.min()) >= 0


def test_any_prior_fits_the_slot(generator: torch.Generator) -> None:
    case = ct_case(generator)
    assembly, _ = solve(case, "tv-pdhg", prior__name="wavelet-l1", solver__max_iterations=1)
    assert isinstance(assembly.problem.prior, Box)
    assert len(assembly.problem.terms) == 1
    assert "prior.lam" in assembly.parameters
    assembly, _ = solve(case, "tv-pdhg", prior__name="wavelet-l1", nonnegative=False, solver__max_iterations=1)
    assert not assembly.problem.terms
    assembly, solution = solve(case, "tv-pdhg", prior__name="box", prior__upper=0.5, nonnegative=False)
    assert assembly.parameters == {"nonnegative": False}
    assert float(solution.x.max()) <= 0.5


def test_a_case_without_noise_gets_the_floor(generator: torch.Generator) -> None:
    case = replace(ct_case(generator), noise_std=0.0)
    for method in ("tv-pdhg", "pnp-admm"):
        assembly, solution = solve(case, method)
        assert all(value > 0 for value in assembly.parameters.values())
        assert solution.converged is True


def test_pnp_takes_any_denoiser_and_refuses_bad_strengths(generator: torch.Generator) -> None:
    case = mri_case(generator)
    assembly, solution = solve(case, "pnp-admm", denoiser__name="wavelet", sigma=0.1, rho=0.3)
    assert isinstance(assembly.problem.prior, PnP)
    assert assembly.problem.prior.sigma == 0.1
    assert assembly.parameters == {"damped": True}
    assert bool(solution.x.isfinite().all())
    for settings in ({"sigma": -1.0}, {"rho": 0.0}):
        with pytest.raises(InputError, match="expected a positive number"):
            solve(case, "pnp-admm", **settings)
