"""PDHG against linear programs, on problems that are not strongly convex, and its automatic ratio."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor, nn

from priorloom import Functional, LinearOperator, PnP, Problem, Space, Term, run
from priorloom.errors import InputError
from priorloom.functional import LeastSquares
from priorloom.operator import Gradient, Identity
from priorloom.steps import ADMM, FISTA, PDHG
from priorloom_priors.functionals import L1, Box, GroupL1

Gaussian = Callable[..., Tensor]


class Equals(Functional):
    """The indicator of ``{y}``: turns the data term into the constraint ``A x = y``."""

    has_conjugate = True

    def __init__(self, space: Space, y: Tensor) -> None:
        super().__init__(space)
        self.y = y

    def _value(self, x: Tensor) -> Tensor:
        return torch.where(self.space.norm(x - self.y) <= 1e-6 * self.space.norm(self.y), 0.0, torch.inf)

    def _prox(self, x: Tensor, step: Tensor) -> Tensor:
        return self.y

    def _conjugate(self, z: Tensor) -> Tensor:
        return self.space.inner(z, self.y).real


class Distance(Functional):
    """``|x - y|_1``."""

    def __init__(self, space: Space, y: Tensor) -> None:
        super().__init__(space)
        self.y = y

    def _value(self, x: Tensor) -> Tensor:
        return (x - self.y).abs().sum(self.space.dims)

    def _prox(self, x: Tensor, step: Tensor) -> Tensor:
        d = x - self.y
        return self.y + d.sign() * (d.abs() - step).clamp_min(0)


def basis_pursuit(A: Any, y: Tensor) -> Problem:
    return Problem(Term(Equals(A.range, y), A), L1(A.domain, 1.0))


def test_basis_pursuit_equals_the_linear_program(matrix: Any, gaussian: Gaussian) -> None:
    """Neither strongly convex nor smooth on either side: an extrapolation that is wrong does not converge here."""
    M = gaussian(10, 25)
    y = M[:, :4] @ gaussian(4, seed=1)
    A = matrix(M)
    solution = run(PDHG(), basis_pursuit(A, y), n=20000, tol=1e-9)
    program = linprog(np.ones(50), A_eq=np.hstack([M.numpy(), -M.numpy()]), b_eq=y.numpy())
    assert solution.converged
    assert float(solution.x.abs().sum()) == pytest.approx(program.fun, rel=1e-6)
    np.testing.assert_allclose(solution.x.numpy(), program.x[:25] - program.x[25:], atol=1e-6)
    assert solution.gap == pytest.approx(0, abs=1e-6)


def test_l1_data_with_total_variation_equals_the_linear_program(matrix: Any, gaussian: Gaussian) -> None:
    """No prior and no smooth term: all the convexity is polyhedral."""
    n, m, lam = 12, 9, 0.7
    M, y = gaussian(m, n), gaussian(m, seed=1)
    A = matrix(M)
    D = Gradient(A.domain)
    problem = Problem(Term(Distance(A.range, y), A), terms=[Term(L1(D.range, lam), D)])
    solution = run(PDHG(), problem, n=50000, tol=1e-8)
    difference = np.diff(np.eye(n), axis=0)
    # min 1's + lam 1't  with  |Mx - y| <= s, |Dx| <= t
    upper = np.block(
        [
            [M.numpy(), -np.eye(m), np.zeros((m, n - 1))],
            [-M.numpy(), -np.eye(m), np.zeros((m, n - 1))],
            [difference, np.zeros((n - 1, m)), -np.eye(n - 1)],
            [-difference, np.zeros((n - 1, m)), -np.eye(n - 1)],
        ]
    )
    right = np.concatenate([y.numpy(), -y.numpy(), np.zeros(2 * (n - 1))])
    cost = np.concatenate([np.zeros(n), np.ones(m), lam * np.ones(n - 1)])
    program = linprog(cost, A_ub=upper, b_ub=right, bounds=[(None, None)] * n + [(0, None)] * (m + n - 1))
    assert solution.converged
    assert float(problem.objective(solution.x)) == pytest.approx(program.fun, rel=1e-6)


def test_without_strong_convexity_a_singular_operator(matrix: Any, gaussian: Gaussian) -> None:
    """Rank 3 of 8, TV, nonnegativity: the minimisers are many, the minimum is one."""
    A = matrix(gaussian(6, 3) @ gaussian(3, 8, seed=1))
    D = Gradient(A.domain)
    problem = Problem(
        Term(LeastSquares(A.range, gaussian(6, seed=2)), A), Box(A.domain), [Term(GroupL1(D.range, 0.1), D)]
    )
    values = []
    for seed in (5, 6):
        solution = run(PDHG(), problem, n=50000, tol=1e-7, x0=gaussian(8, seed=seed).abs())
        assert solution.converged
        assert bool((solution.x >= 0).all())
        values.append(float(problem.objective(solution.x)))
    assert values[0] == pytest.approx(values[1], rel=1e-6)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_units_of_the_operator_do_not_matter(scale: float, matrix: Any, gaussian: Gaussian) -> None:
    """The same problem in other units of A: the same iterations."""
    M, y = gaussian(20, 30), gaussian(20, seed=1)

    def iterations(s: float) -> int:
        A = matrix(s * M)
        D = Gradient(A.domain)
        data = Term(LeastSquares(A.range, s * y), A)
        problem = Problem(data, terms=[Term(L1(D.range, 0.5 * s**2), D)])
        solution = run(PDHG(), problem, n=20000, tol=1e-6)
        assert solution.converged
        return solution.iterations

    assert iterations(scale) == pytest.approx(iterations(1.0), abs=2)


def test_step_sizes_come_from_the_stacked_scaled_operator(matrix: Any, gaussian: Gaussian) -> None:
    M = 100 * gaussian(9, 12)
    A = matrix(M)
    D = Gradient(A.domain)
    problem = Problem(Term(LeastSquares(A.range, gaussian(9, seed=1)), A), terms=[Term(L1(D.range, 1.0), D)])
    difference = np.diff(np.eye(12), axis=0)
    blocks = [b / np.linalg.norm(b, 2) for b in (M.numpy(), difference)]
    exact = np.linalg.norm(np.vstack(blocks), 2)
    step = PDHG()
    state = step.init(problem)
    for _ in range(20):
        state = step(problem, state)
        assert float(state.tau * state.sigma) * exact**2 <= 1 + 1e-9
        assert float(state.tau * state.sigma) * exact**2 >= 0.8


@pytest.mark.parametrize("lam", [0.5, 5.0])
def test_automatic_ratio_is_close_to_the_best_of_many(lam: float, matrix: Any, gaussian: Gaussian) -> None:
    A = matrix(30 * gaussian(40, 80))
    x = torch.zeros(80, dtype=torch.float64)
    x[:6] = gaussian(6, seed=3)
    y = A(x) + gaussian(40, seed=4)
    problem = Problem(Term(LeastSquares(A.range, y), A), L1(A.domain, 30 * lam))
    natural = 1 / problem.data.lipschitz()
    counts = [run(PDHG(ratio=r * natural), problem, n=1000, tol=1e-5).iterations for r in np.logspace(-1, 3, 5)]
    automatic = run(PDHG(), problem, n=1000, tol=1e-5)
    assert automatic.converged
    assert automatic.iterations < 2 * min(counts)
    assert automatic.iterations < 0.7 * np.median(counts)


class Diagonal(LinearOperator):
    """``x -> d x`` with real d."""

    def __init__(self, d: Tensor) -> None:
        space = Space(tuple(d.shape), d.dtype)
        super().__init__(space, space)
        self.d = d

    def _forward(self, x: Tensor) -> Tensor:
        return self.d * x

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.d * y


@pytest.mark.parametrize("ratio", [None, 1.0])
def test_legal_where_one_pixel_alone_makes_the_norm(ratio: float | None, gaussian: Gaussian) -> None:
    """``|x - y|_1 + |K(x - y)|_1`` is 0 at y; both scaled blocks have norm 1 at the same single pixel."""
    d = torch.ones(256, 256, dtype=torch.float64)
    d[3, 4] = 2.2
    K = Diagonal(d)
    y = gaussian(256, 256)
    E = Identity(K.domain)
    problem = Problem(Term(Distance(E.range, y), E), terms=[Term(Distance(K.range, K(y)), K)])
    solution = run(PDHG(ratio), problem, n=500, tol=1e-6)
    assert solution.converged
    torch.testing.assert_close(solution.x, y, atol=1e-5, rtol=0)


class RealFourier(LinearOperator):
    """The unitary FFT of a real image."""

    def __init__(self, *shape: int) -> None:
        super().__init__(Space(shape, torch.float64), Space(shape, torch.complex128))

    def _forward(self, x: Tensor) -> Tensor:
        return torch.fft.fft2(x.to(self.range.dtype), norm="ortho")

    def _adjoint(self, y: Tensor) -> Tensor:
        return torch.fft.ifft2(y, norm="ortho").real


def test_real_image_with_complex_measurement_is_denoising(gaussian: Gaussian) -> None:
    """The FFT is unitary: total variation of the Fourier data is total variation denoising of the image."""
    A = RealFourier(8, 9)
    D = Gradient(A.domain)
    image = gaussian(8, 9)
    terms = [Term(GroupL1(D.range, 0.3), D)]
    E = Identity(A.domain)
    far = run(PDHG(), Problem(Term(LeastSquares(A.range, A(image)), A), terms=terms), n=5000, tol=1e-8)
    near = run(ADMM(), Problem(Term(LeastSquares(E.range, image), E), terms=terms), n=5000, tol=1e-8)
    assert far.converged
    assert near.converged
    torch.testing.assert_close(far.x, near.x, atol=1e-6, rtol=0)


def test_one_forward_and_one_adjoint_of_every_block_per_iteration(matrix: Any, gaussian: Gaussian) -> None:
    A, K = matrix(gaussian(6, 8)), matrix(gaussian(7, 8, seed=1))
    problem = Problem(Term(LeastSquares(A.range, gaussian(6, seed=2)), A), terms=[Term(L1(K.range, 1.0), K)])
    step = PDHG()
    state = step.init(problem)
    for M in (A, K):
        M.forwards = M.adjoints = 0
    for _ in range(7):
        before, state = state, step(problem, state)
        step.residual(problem, before, state)
    assert (A.forwards, A.adjoints, K.forwards, K.adjoints) == (7, 7, 7, 7)


def test_kept_images_are_those_of_x_and_the_duals(matrix: Any, gaussian: Gaussian) -> None:
    A, K = matrix(gaussian(6, 8)), matrix(gaussian(7, 8, seed=1))
    problem = Problem(Term(LeastSquares(A.range, gaussian(6, seed=2)), A), terms=[Term(L1(K.range, 1.0), K)])
    state = run(PDHG(), problem, n=9, tol=1e-14).state
    torch.testing.assert_close(state.images, (A.M @ state.x, K.M @ state.x))
    torch.testing.assert_close(state.force, A.M.T @ state.duals[0] + K.M.T @ state.duals[1])


def test_converged_means_that_the_optimality_conditions_hold(matrix: Any, gaussian: Gaussian) -> None:
    """LASSO: ``|A^T (Ax - y)|_inf <= lam``, with equality and opposite sign on the support."""
    A = matrix(gaussian(20, 30))
    y, lam = gaussian(20, seed=1), 2.0
    problem = Problem(Term(LeastSquares(A.range, y), A), L1(A.domain, lam))
    solution = run(PDHG(), problem, n=20000, tol=1e-9)
    slope = A.M.T @ (A.M @ solution.x - y)
    support = solution.x.abs() > 1e-6
    assert bool(support.any())
    assert float(slope.abs().max()) <= lam * (1 + 1e-6)
    torch.testing.assert_close(slope[support], -lam * solution.x[support].sign(), rtol=1e-6, atol=1e-6)


def test_complex_lasso_equals_fista(matrix: Any, gaussian: Gaussian) -> None:
    A = matrix(gaussian(12, 20, dtype=torch.complex128))
    y = gaussian(2, 12, seed=1, dtype=torch.complex128)
    problem = Problem(Term(LeastSquares(A.range, y), A), L1(A.domain, 0.5))
    solutions = [run(step, problem, n=20000, tol=1e-9) for step in (PDHG(), FISTA())]
    assert all(s.converged for s in solutions)
    torch.testing.assert_close(solutions[0].x, solutions[1].x, rtol=1e-6, atol=1e-6)


def test_a_given_ratio_is_fixed_and_learnable(matrix: Any, gaussian: Gaussian) -> None:
    A = matrix(gaussian(6, 8))
    problem = Problem(Term(LeastSquares(A.range, gaussian(6, seed=1)), A), L1(A.domain, 0.1))
    step = PDHG(ratio=nn.Parameter(torch.tensor(0.1, dtype=torch.float64)))
    state = step.init(problem)
    for _ in range(5):
        state = step(problem, state)
        assert float(torch.sqrt(state.tau / state.sigma).detach()) == pytest.approx(0.1)
    state.x.square().sum().backward()
    assert step.ratio.grad is not None
    assert float(step.ratio.grad) != 0


def test_plug_and_play_keeps_its_steps(matrix: Any, gaussian: Gaussian) -> None:
    A = matrix(gaussian(12, 8))
    prior = PnP(A.domain, lambda x, sigma: x / (1 + sigma), sigma=0.5)
    problem = Problem(Term(LeastSquares(A.range, gaussian(12, seed=1)), A), prior)
    step = PDHG()
    solution = run(step, problem, n=5000, tol=1e-8)
    assert solution.converged
    assert solution.gap is None
    assert torch.equal(solution.state.tau, step.init(problem).tau)
    fixed = solution.x - solution.state.tau * solution.state.force
    torch.testing.assert_close(solution.x, fixed / 1.5, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("ratio", [0.0, -1.0, math.nan])
def test_refuses_a_bad_ratio(ratio: float) -> None:
    with pytest.raises(InputError, match="ratio of PDHG"):
        PDHG(ratio=ratio)
