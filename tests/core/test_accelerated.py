"""Accelerated descent: minimisers of convex problems, descent on others, and where it is certified."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from priorloom import LinearOperator, Problem, Space, Term, run
from priorloom.errors import InputError
from priorloom.functional import LeastSquares
from priorloom.networks import RidgeNetwork
from priorloom.operator import Identity
from priorloom.plug_and_play import RED
from priorloom.regularity import Regularity
from priorloom.steps import GradientDescent, converges
from priorloom.steps.accelerated import AcceleratedDescent
from priorloom.theorems import judge

Gaussian = Callable[..., Tensor]
MatrixOperator = Callable[[Tensor], LinearOperator]
DTYPES = [torch.float64, torch.complex128]


class Huber:
    """``D = I - grad g`` with the Huber function of every entry: soft thresholds, g convex, grad g 1-Lipschitz."""

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        return x.sgn() * (x.abs() - sigma).clamp_min(0)

    def potential(self, x: Tensor, sigma: Tensor) -> Tensor:
        size = x.abs()
        return torch.where(size <= sigma, size**2 / 2, sigma * size - sigma**2 / 2).sum(-1)

    def regularity(self, sigma: float) -> Regularity:
        return Regularity(1.0, 0.5, 1.0, gradient=True, convex=True)


def convex(matrix: MatrixOperator, M: Tensor, y: Tensor, tau: float = 0.3) -> Problem:
    A = matrix(M)
    return Problem(Term(LeastSquares(A.range, y), A), RED(A.domain, Huber(), 0.2, tau))


def nonconvex(dtype: torch.dtype, batch: tuple[int, ...] = (), tau: float | Tensor = 3.0) -> Problem:
    """An image of which three quarters of the pixels are not measured, under a learned form of regulariser."""
    torch.manual_seed(0)
    space = Space((12, 12), dtype)
    network = RidgeNetwork(space.is_complex, side=3).to(space.real_dtype)
    with torch.no_grad():
        network.log_scale += torch.randn(len(network.log_scale)) - 1
    generator = torch.Generator().manual_seed(1)
    seen = (torch.rand(space.shape, generator=generator) < 0.25).to(dtype)

    class Mask(LinearOperator):
        def _forward(self, x: Tensor) -> Tensor:
            return seen * x

        def _adjoint(self, y: Tensor) -> Tensor:
            return seen * y

        def _norm(self) -> float:
            return 1.0

    A = Mask(space, space)
    y = A(space.random(generator, batch))
    return Problem(Term(LeastSquares(space, y), A), RED(space, network, 0.3, tau))


@pytest.mark.parametrize("dtype", DTYPES)
def test_reaches_the_minimiser_of_a_convex_problem(
    matrix: MatrixOperator, gaussian: Gaussian, dtype: torch.dtype
) -> None:
    """That of a quasi-Newton method on the same objective, and in fewer iterations than gradient descent."""
    M, y = gaussian(14, 10, dtype=dtype), gaussian(14, seed=1, dtype=dtype)
    problem = convex(matrix, M, y)

    def image(v: Any) -> Tensor:
        parts = torch.tensor(v)
        return torch.complex(parts[:10], parts[10:]) if dtype.is_complex else parts

    def value(v: Any) -> tuple[float, Any]:
        x = image(v)
        slope = M.mH @ (M @ x - y) + 0.3 * (x - Huber()(x, torch.tensor(0.2)))
        J = 0.5 * (M @ x - y).abs().square().sum() + 0.3 * Huber().potential(x, torch.tensor(0.2))
        return float(J), torch.cat((slope.real, slope.imag)).numpy() if dtype.is_complex else slope.numpy()

    start = torch.zeros(20 if dtype.is_complex else 10, dtype=torch.float64).numpy()
    best = minimize(value, start, jac=True, method="L-BFGS-B", options={"ftol": 1e-16, "gtol": 1e-11, "maxiter": 5000})
    found = run(AcceleratedDescent(), problem, n=5000, tol=1e-10)
    assert found.converged
    torch.testing.assert_close(found.x, image(best.x), rtol=1e-6, atol=1e-7)
    assert found.iterations < 0.5 * run(GradientDescent(), problem, n=5000, tol=1e-10).iterations
    assert converges(AcceleratedDescent(), problem)
    assert not converges(AcceleratedDescent(1e3), problem)


@torch.no_grad()
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_nonconvex_objective_falls_by_what_the_docstring_says_and_its_gradient_vanishes(dtype: torch.dtype) -> None:
    problem = nonconvex(dtype)
    step = AcceleratedDescent()
    s = float(step.size(problem))

    def slope(x: Tensor) -> Tensor:
        return problem.data.gradient(x) + problem.prior.gradient(x)

    state = step.init(problem, 3 * problem.space.random(torch.Generator().manual_seed(3)))
    first, plain, extrapolated = float(problem.space.norm(slope(state.x))), 0, 0
    for _ in range(400):
        after = step(problem, state)
        torch.testing.assert_close(after.objective, problem.objective(after.x))
        fall = 1e-2 * s / 2 * problem.space.squared(slope(after.taken_from))
        assert bool(after.objective <= state.objective - fall + 1e-12)
        torch.testing.assert_close(after.x, after.taken_from - s * slope(after.taken_from))
        if torch.equal(after.taken_from, state.x):
            plain += 1
        else:
            extrapolated += 1
            assert torch.equal(after.taken_from, state.z)
        state = after
    assert plain >= 2  # the first, and at least one that was refused: both ways are taken here
    assert extrapolated > 200
    assert float(problem.space.norm(slope(state.x))) < 1e-5 * first


def test_faster_than_gradient_descent_where_the_objective_is_not_convex() -> None:
    problem = nonconvex(torch.float64)
    fast, slow = (run(s, problem, n=3000, tol=1e-5) for s in (AcceleratedDescent(), GradientDescent()))
    assert fast.converged
    assert fast.iterations < 0.5 * slow.iterations


@pytest.mark.parametrize("dtype", DTYPES)
def test_batch_elements_do_not_see_each_other(dtype: torch.dtype) -> None:
    """Refusals differ between the elements."""
    problem = nonconvex(dtype, (3,))
    assert isinstance(problem.data.f, LeastSquares)
    step = AcceleratedDescent()
    x0 = problem.space.random(torch.Generator().manual_seed(3), (3,)) * torch.tensor([0.1, 1.0, 30.0])[:, None, None]
    state = step.init(problem, x0)
    singles = [Problem(Term(LeastSquares(problem.space, y), problem.data.K), problem.prior) for y in problem.data.f.y]
    alone = [step.init(p, x) for p, x in zip(singles, x0, strict=True)]
    restarts = set()
    for _ in range(60):
        state = step(problem, state)
        alone = [step(p, a) for p, a in zip(singles, alone, strict=True)]
        restarts.add(tuple((state.z == state.x).flatten(1).all(1).tolist()))
    torch.testing.assert_close(state.x, torch.stack([a.x for a in alone]))
    torch.testing.assert_close(state.objective, torch.stack([a.objective for a in alone]))
    assert any(len(set(r)) == 2 for r in restarts)


@torch.no_grad()
def test_a_weight_for_each_element() -> None:
    tau = torch.tensor([0.5, 4.0], dtype=torch.float64)
    problem = nonconvex(torch.float64, (2,), tau)
    assert isinstance(problem.data.f, LeastSquares)
    found = run(AcceleratedDescent(), problem, n=3000, tol=1e-9)
    for i in range(2):
        prior = RED(problem.space, problem.prior.denoiser, 0.3, float(tau[i]))
        one = Problem(Term(LeastSquares(problem.space, problem.data.f.y[i]), problem.data.K), prior)
        slope = one.data.gradient(found.x[i]) + one.prior.gradient(found.x[i])
        assert float(slope.norm()) < 1e-6
        assert float(problem.objective(found.x)[i]) == pytest.approx(float(one.objective(found.x[i])))


def test_what_is_certified() -> None:
    problem = nonconvex(torch.float64)
    found = judge(AcceleratedDescent(), problem)
    assert found.certified
    assert "never rises" in found.guarantee
    limit = float(AcceleratedDescent().size(problem))
    assert judge(AcceleratedDescent(0.9 * limit), problem).certified
    assert judge(AcceleratedDescent(1.1 * limit), problem).remedy == "shorten"


def test_refuses_a_prior_without_a_value(gaussian: Gaussian) -> None:
    space = Space((4, 4), torch.float64)
    data = Term(LeastSquares(space, torch.ones(space.shape, dtype=space.dtype)), Identity(space))
    problem = Problem(data, RED(space, lambda x, sigma: 0.5 * x, 0.1))
    with pytest.raises(InputError, match="objective of accelerated descent: expected a prior that has a value"):
        AcceleratedDescent().init(problem)
    assert not judge(AcceleratedDescent(), problem).certified
    with pytest.raises(InputError, match="step size of accelerated descent"):
        AcceleratedDescent(-1.0)
