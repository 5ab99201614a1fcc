"""Term and Problem: the objective, its pieces, and what does not fit together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from priorloom import Functional, PnP, Problem, Space, Term
from priorloom.errors import InputError
from priorloom.functional import LeastSquares, Zero
from priorloom.operator import Gradient, Identity
from priorloom_priors.functionals import L1

Gaussian = Callable[..., Tensor]


@pytest.fixture
def problem(matrix: Any, gaussian: Gaussian) -> Problem:
    A = matrix(gaussian(5, 8))
    D = Gradient(A.domain)
    return Problem(
        Term(LeastSquares(A.range, gaussian(2, 5, seed=1)), A), L1(A.domain, 0.3), [Term(L1(D.range, 0.7), D)]
    )


def test_objective_is_the_sum(problem: Problem, gaussian: Gaussian) -> None:
    x = gaussian(2, 8, seed=3)
    M, y = problem.data.K.M, problem.data.f.y
    expected = 0.5 * (x @ M.T - y).square().sum(-1) + 0.3 * x.abs().sum(-1) + 0.7 * x.diff(dim=-1).abs().sum(-1)
    torch.testing.assert_close(problem.objective(x), expected)


def test_gradient_and_lipschitz_constant_of_a_term(problem: Problem, gaussian: Gaussian) -> None:
    x = gaussian(2, 8, seed=3).requires_grad_()
    (expected,) = torch.autograd.grad(problem.data(x).sum(), x)
    torch.testing.assert_close(problem.data.gradient(x), expected)
    exact = float(torch.linalg.matrix_norm(problem.data.K.M, 2)) ** 2
    assert exact <= problem.data.lipschitz() <= exact * 1.003
    assert problem.terms[0].lipschitz() is None


def test_batch_and_start(problem: Problem) -> None:
    assert problem.batch_shape == (2,)
    assert problem.zeros().shape == (2, 8)
    assert problem.zeros().dtype == torch.float64
    assert problem.space == problem.data.K.domain


class Distance(Functional):
    """``|z - y|_1``: a data term of somebody else's."""

    def __init__(self, space: Space, y: Tensor) -> None:
        super().__init__(space)
        self.register_buffer("y", y)
        self.y: Tensor

    def _value(self, x: Tensor) -> Tensor:
        return (x - self.y).abs().sum(-1)


def test_batch_and_device_of_any_functional(problem: Problem, gaussian: Gaussian) -> None:
    A = problem.data.K
    other = Problem(Term(Distance(A.range, gaussian(2, 5)), A), problem.prior)
    assert other.batch_shape == (2,)
    reference = Distance(A.domain, gaussian(3, 2, 8))
    assert Problem(problem.data, terms=[Term(reference, Identity(A.domain))]).batch_shape == (3, 2)
    # An operator without tensors works anywhere, so the measurement decides.
    E = Identity(Space((4,)))
    assert Problem(Term(LeastSquares(E.range, torch.ones(3, 4, device="meta")), E)).zeros().device.type == "meta"


def test_defaults(problem: Problem) -> None:
    plain = Problem(problem.data)
    assert isinstance(plain.prior, Zero)
    assert plain.terms == ()
    assert plain.has_value


def test_plug_and_play_has_no_value(problem: Problem) -> None:
    assert problem.has_value
    assert not Problem(problem.data, PnP(problem.space, lambda x, sigma: x, 1.0)).has_value


def test_says_what_does_not_fit(problem: Problem) -> None:
    other = Space((9,), torch.float64)
    with pytest.raises(InputError, match=r"space of the prior: expected \[8\] torch\.float64 \(the domain of Matrix\)"):
        Problem(problem.data, L1(other, 1.0))
    D = Gradient(other)
    with pytest.raises(InputError, match="space of the operator term"):
        Problem(problem.data, terms=[Term(L1(D.range, 1.0), D)])
    with pytest.raises(
        InputError, match=r"space of L1: expected \[5\] torch\.float64 \(the range of Matrix\), got \[8\]"
    ):
        Term(L1(problem.space, 1.0), problem.data.K)
