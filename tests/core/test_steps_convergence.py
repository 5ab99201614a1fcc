"""converges(): a certificate only where a theorem applies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from priorloom import Functional, PnP, Problem, Registry, Space, Step, Term
from priorloom.functional import LeastSquares
from priorloom.operator import Gradient, Identity
from priorloom.steps import ADMM, CG, DRS, FISTA, HQS, ISTA, LSQR, PDHG, CGUpdate, ExactUpdate, converges
from priorloom_priors.functionals import L1

Gaussian = Callable[..., Tensor]


class Count(Functional):
    """The number of entries that are not zero: a prox, but not convex."""

    is_convex = False

    def _value(self, x: Tensor) -> Tensor:
        return (x != 0).sum(-1).to(self.space.real_dtype)

    def _prox(self, x: Tensor, step: Tensor) -> Tensor:
        return torch.where(x.square() > 2 * step, x, 0)


@pytest.fixture
def data(matrix: Any, gaussian: Gaussian) -> Term:
    A = matrix(gaussian(6, 4))
    return Term(LeastSquares(A.range, gaussian(6, seed=1)), A)


def lasso(data: Term) -> Problem:
    return Problem(data, L1(data.K.domain, 0.1))


@pytest.mark.parametrize("step", [ISTA(), FISTA(), FISTA(restart=False), PDHG(), PDHG(ratio=3.0)])
def test_convex_problems_are_certified(step: Step[Any], data: Term) -> None:
    assert converges(step, lasso(data))


@pytest.mark.parametrize("step", [ISTA(), FISTA(), PDHG(), ADMM(), DRS()])
def test_a_functional_that_is_not_convex_is_not(step: Step[Any], data: Term) -> None:
    space = data.K.domain
    identity = Term(LeastSquares(space, torch.ones(4, dtype=space.dtype)), Identity(space))
    denoiser = PnP(space, lambda x, sigma: x / (1 + sigma), sigma=0.5)
    assert converges(step, lasso(identity))
    for prior in (Count(space), denoiser):
        assert not converges(step, Problem(identity, prior))
    assert not converges(step, Problem(identity, terms=[Term(Count(space), Identity(space))]))


def test_step_sizes_have_limits(data: Term) -> None:
    L = data.lipschitz()
    assert L is not None
    legal = [
        ISTA(1.9 / L),
        FISTA(1 / L),
        ISTA(torch.tensor([0.1 / L, 1 / L])),
        FISTA(nn.Parameter(torch.tensor(1 / L))),
    ]
    illegal = [
        ISTA(2 / L),
        FISTA(1.01 / L),
        ISTA(torch.tensor([0.1 / L, 2.1 / L])),
        FISTA(nn.Parameter(torch.tensor(-1.0))),
    ]
    assert [converges(s, lasso(data)) for s in legal] == [True] * 4
    assert [converges(s, lasso(data)) for s in illegal] == [False] * 4
    assert not converges(PDHG(nn.Parameter(torch.tensor(-1.0))), lasso(data))


def test_gradient_methods_need_a_smooth_data_term_and_no_operator_terms(data: Term) -> None:
    A = data.K
    D = Gradient(A.domain)
    rough = Problem(Term(L1(A.range, 1.0), A))
    composite = Problem(data, terms=[Term(L1(D.range, 1.0), D)])
    for step in (ISTA(), FISTA()):
        assert not converges(step, rough)
        assert not converges(step, composite)
    assert converges(PDHG(), rough)
    assert converges(PDHG(), composite)
    assert not converges(DRS(), rough)


def test_inner_systems_have_to_be_solved_exactly(data: Term) -> None:
    space = Space((4,))
    identity = lasso(Term(LeastSquares(space, torch.ones(4)), Identity(space)))
    for step in (ADMM(), ADMM(x_update=ExactUpdate()), DRS()):
        assert converges(step, identity)
        assert not converges(step, lasso(data))
    for x_update in (CGUpdate(), lambda system: system.x):
        assert not converges(ADMM(x_update=x_update), identity)
        assert not converges(DRS(x_update=x_update), identity)


def test_krylov_methods_need_their_kind_of_problem(data: Term) -> None:
    for step in (CG(), LSQR()):
        assert converges(step, Problem(data))
        assert not converges(step, lasso(data))


def test_other_objectives_and_other_steps_are_not_certified(data: Term) -> None:
    assert not converges(HQS(), lasso(data))
    assert not converges(nn.ModuleList([ISTA()]), lasso(data))

    class Own(Step[Any]):
        pass

    assert not converges(Own(), lasso(data))


def test_an_iterated_prox_is_not_certified() -> None:
    space = Space((8, 8))
    iterated = Registry.discover().prior("tv-prox", space, lam=0.1)
    assert not converges(ISTA(), Problem(Term(LeastSquares(space, space.zeros()), Identity(space)), iterated))
    exact = Registry.discover().prior("wavelet-l1", space, lam=0.1)
    assert converges(ISTA(), Problem(Term(LeastSquares(space, space.zeros()), Identity(space)), exact))
