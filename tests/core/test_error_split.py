"""The error split: the bound against theorems, against wrong factors, and on networks that are no contraction."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from priorloom import Problem, Term, run
from priorloom.dense import DenseOperator
from priorloom.diagnose.error_split import crossover, error_split, errors_of_iterations, one_step
from priorloom.errors import InputError
from priorloom.functional import LeastSquares
from priorloom.steps import FISTA, ISTA
from priorloom.steps.lista import CoupledLISTA, CoupledMatrix, ista_threshold
from priorloom_priors.functionals import L1

Gaussian = Callable[..., Tensor]
LAM = 0.2


def lasso(M: Tensor, y: Tensor) -> Problem:
    A = DenseOperator(M)
    return Problem(Term(LeastSquares(A.range, y), A), L1(A.domain, LAM))


def minimiser(problem: Problem) -> Tensor:
    return run(FISTA(), problem, n=100000, tol=1e-14).x


@pytest.fixture
def overdetermined(gaussian: Gaussian) -> Problem:
    """A lasso whose ISTA is a contraction, for a batch of three measurements."""
    return lasso(gaussian(20, 8), gaussian(3, 20, seed=1))


@pytest.fixture
def underdetermined(gaussian: Gaussian) -> Problem:
    """A lasso whose ISTA is no contraction."""
    return lasso(gaussian(6, 12), gaussian(3, 6, seed=1))


def disturbed(problem: Problem, layers: int, seed: int = 0) -> nn.ModuleList:
    """LISTA-CPSS whose matrices are far from ISTA's."""
    A = problem.data.K
    assert isinstance(A, DenseOperator)
    made = [CoupledLISTA(CoupledMatrix(A), ista_threshold(A, LAM), 0.2).double() for _ in range(layers)]
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in made:
            layer.weights.W.add_(0.3 * torch.randn(layer.weights.W.shape, generator=g, dtype=torch.float64))
    return nn.ModuleList(made)


def theorem(problem: Problem) -> float:
    """``max |1 - t l|`` over the eigenvalues l of A^T A, with ``t = 1 / L``."""
    A = problem.data.K
    assert isinstance(A, DenseOperator)
    values = np.linalg.eigvalsh((A.matrix.T @ A.matrix).numpy())
    return float(1 - values.min() / values.max())


def test_for_the_classical_step_itself_nothing_remains_but_contraction(overdetermined: Problem) -> None:
    layers = nn.ModuleList([ISTA() for _ in range(25)])
    split = error_split(layers, overdetermined, one_step(ISTA(), overdetermined), minimiser(overdetermined))
    assert float(split.remainders.max()) == 0
    assert float(split.bias.max()) < 1e-10
    assert bool(split.holds.all())
    assert bool((split.rho <= theorem(overdetermined) + 1e-9).all())
    assert bool((split.rho < 1).all())


def test_a_wrong_factor_violates_the_bound(overdetermined: Problem) -> None:
    layers = nn.ModuleList([ISTA() for _ in range(25)])
    T, best = one_step(ISTA(), overdetermined), minimiser(overdetermined)
    right = error_split(layers, overdetermined, T, best)
    for factor, holds in [(1.0, True), (0.7, False)]:
        split = error_split(layers, overdetermined, T, best, rho=factor * right.rho)
        assert bool(split.holds[0].all())  # e_0 is e_0
        assert bool(split.holds[1:].all()) == holds


def test_the_factor_of_the_theorem_bounds_any_network(overdetermined: Problem) -> None:
    T, best = one_step(ISTA(), overdetermined), minimiser(overdetermined)
    for seed in range(5):
        split = error_split(disturbed(overdetermined, 12, seed), overdetermined, T, best, rho=theorem(overdetermined))
        assert float(split.remainders.min()) > 1e-3
        assert bool(split.holds.all())


@pytest.mark.parametrize("of_truth", [False, True])
def test_the_measured_factor_bounds_a_network_where_the_step_is_no_contraction(
    underdetermined: Problem, of_truth: bool, gaussian: Gaussian
) -> None:
    assert theorem(underdetermined) == pytest.approx(1)
    reference = gaussian(3, 12, seed=7) if of_truth else minimiser(underdetermined)
    T = one_step(ISTA(), underdetermined)
    for seed in range(5):
        split = error_split(disturbed(underdetermined, 12, seed), underdetermined, T, reference)
        assert (float(split.bias.max()) > 1e-3) == of_truth
        assert bool(split.holds.all())
        assert bool((split.rho <= 1 + 1e-12).all())  # T is nonexpansive


def test_without_the_bias_the_bound_of_a_reference_that_is_no_fixed_point_fails(underdetermined: Problem) -> None:
    """The bias is not decoration: ISTA started at the truth moves away from it."""
    truth = underdetermined.data.K.domain.zeros((3,)) + 1.0
    layers = nn.ModuleList([ISTA() for _ in range(5)])
    split = error_split(layers, underdetermined, one_step(ISTA(), underdetermined), truth, x0=truth)
    assert float(split.remainders.max()) == 0
    assert float(split.contraction.max()) == 0
    assert bool((split.errors[1:] > split.rounding).all())
    assert bool(split.holds.all())


def test_every_part_is_what_its_definition_says(underdetermined: Problem) -> None:
    layers, best = disturbed(underdetermined, 4), minimiser(underdetermined)
    split = error_split(layers, underdetermined, one_step(ISTA(), underdetermined), best)
    rho = split.rho.numpy()
    x = np.zeros((3, 12))
    for k in range(4):
        step = ISTA()(underdetermined, ISTA().init(underdetermined, torch.from_numpy(x))).x.numpy()
        after = run(layers[: k + 1], underdetermined).x.detach().numpy()
        np.testing.assert_allclose(split.remainders[k].numpy(), np.linalg.norm(after - step, axis=1), rtol=1e-9)
        np.testing.assert_allclose(split.errors[k + 1].numpy(), np.linalg.norm(after - best.numpy(), axis=1), rtol=1e-9)
        expected = rho ** (k + 1) * split.errors[0].numpy() + sum(
            rho ** (k - j) * (split.remainders[j] + split.bias).numpy() for j in range(k + 1)
        )
        np.testing.assert_allclose(split.bound[k + 1].numpy(), expected, rtol=1e-9)
        x = after
    np.testing.assert_array_equal(split.rho, split.factors.amax(0))


def test_iterations_and_crossover(overdetermined: Problem) -> None:
    best = minimiser(overdetermined)
    errors = errors_of_iterations(ISTA(), overdetermined, best, 10)
    for k in (1, 4, 10):
        x = run(ISTA(), overdetermined, n=k, tol=1e-30).x
        torch.testing.assert_close(errors[k], torch.linalg.vector_norm(x - best, dim=-1))
    one = errors[:, 0]
    assert crossover(float(one[4]), one) == 4
    assert crossover(float(one[0]), one) == 0
    assert crossover(0.0, one) is None


def test_what_makes_no_split_is_refused(overdetermined: Problem) -> None:
    T, best = one_step(ISTA(), overdetermined), minimiser(overdetermined)
    with pytest.raises(InputError, match="layers of an error split"):
        error_split(nn.ModuleList(), overdetermined, T, best)
    with pytest.raises(InputError, match="layers of an error split"):
        error_split(nn.ModuleList([nn.ReLU()]), overdetermined, T, best)
    with pytest.raises(InputError, match="reference of an error split"):
        error_split(nn.ModuleList([ISTA()]), overdetermined, T, best[..., :5])
    with pytest.raises(InputError, match="rho of an error split"):
        error_split(nn.ModuleList([ISTA()]), overdetermined, T, best, rho=-0.5)
