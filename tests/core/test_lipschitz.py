"""Upper bounds against lower ones: the Jacobian of every layer, and the norms of dense matrices."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from priorloom import PnP, Problem, Term
from priorloom.constraints import StepSize
from priorloom.errors import InputError
from priorloom.functional import LeastSquares, Zero
from priorloom.lipschitz import certificate, gradient_step_bound, jacobian_norm, lipschitz, step_bound
from priorloom.networks import Averaged, ConvolutionBlock, ImageNetwork, NonexpansiveBlock, UNet
from priorloom.operator import LinearOperator
from priorloom.space import Space
from priorloom.steps import ADMM, FISTA, ISTA, PDHG, ExactUpdate, State, Step
from priorloom.steps.learned import (
    Layer,
    LearnedPrimalDual,
    LearnedWeight,
    MemoryMoDL,
    MoDL,
    NetworkPrior,
    PostProcessing,
    VariationalNetwork,
)
from priorloom_priors.functionals import L1


class Dense(LinearOperator):
    """A dense matrix between images, with the closed form."""

    def __init__(self, M: Tensor, domain: tuple[int, int], range_: tuple[int, int]) -> None:
        super().__init__(Space(domain, M.dtype), Space(range_, M.dtype))
        self.register_buffer("M", M)
        self.M: Tensor

    def _forward(self, x: Tensor) -> Tensor:
        return (x.flatten(-2) @ self.M.T).unflatten(-1, self.range.shape)

    def _adjoint(self, y: Tensor) -> Tensor:
        return (y.flatten(-2) @ self.M.conj()).unflatten(-1, self.domain.shape)

    def solve_normal(self, b: Tensor, rho: float | Tensor) -> Tensor | None:
        H = self.M.mH @ self.M
        eye = torch.eye(len(H), dtype=H.dtype)
        shift = torch.as_tensor(rho).reshape(-1, 1, 1)[0] * eye
        return torch.linalg.solve(H + shift, b.flatten(-2).mT if b.ndim > 2 else b.flatten(-2)).reshape(b.shape)


@pytest.fixture(params=[torch.float64, torch.complex128], ids=["real", "complex"])
def problem(request: pytest.FixtureRequest, gaussian: Callable[..., Tensor]) -> Problem:
    A = Dense(gaussian(12, 30, dtype=request.param), (6, 5), (4, 3))
    y = gaussian(4, 3, seed=1, dtype=request.param)
    return Problem(Term(LeastSquares(A.range, y), A), L1(A.domain, 0.1))


def mixed(problem: Problem, gaussian: Callable[..., Tensor]) -> Problem:
    """The same with a backprojector that is not the adjoint."""
    B = Dense(gaussian(30, 12, seed=5, dtype=problem.space.dtype), (4, 3), (6, 5))
    return Problem(Term(problem.data.f, problem.data.K, B), problem.prior)


def network(problem: Problem, skip: bool) -> ImageNetwork:
    n = 2 if problem.space.is_complex else 1
    torch.manual_seed(3)
    return ImageNetwork(ConvolutionBlock(n, n, 4, 2, zero=False), skip).double()


def nonexpansive(problem: Problem) -> ImageNetwork:
    n = 2 if problem.space.is_complex else 1
    torch.manual_seed(3)
    averaged = Averaged(NonexpansiveBlock(n, n, 4, 2))
    nn.init.constant_(averaged.free, -0.7)
    return ImageNetwork(averaged).double()


def lower(step: Step[Any], problem: Problem, x: Tensor) -> float:
    return jacobian_norm(lambda image: step(problem, State(image)).x, x)


Build = Callable[[Problem], Step[Any]]
BOUNDED: dict[str, Build] = {
    "ista": lambda p: ISTA(),
    "long ista": lambda p: ISTA(5.0 / p.data.lipschitz()),  # type: ignore[operator]
    "learned ista": lambda p: Layer(ISTA(StepSize(0.95)), LearnedWeight()),
    "learned proximal gradient": lambda p: Layer(ISTA(StepSize()), NetworkPrior(network(p, True))),
    "nonexpansive": lambda p: Layer(ISTA(StepSize(0.9)), NetworkPrior(nonexpansive(p))),
    "variational network": lambda p: VariationalNetwork(network(p, False)),
    "post-processing": lambda p: PostProcessing(network(p, True)),
    "modl": lambda p: Layer(MoDL(0.2, ExactUpdate()), NetworkPrior(network(p, True))),
}


@pytest.mark.parametrize("name", BOUNDED)
def test_the_jacobian_stays_below_the_bound(name: str, problem: Problem, gaussian: Callable[..., Tensor]) -> None:
    step = BOUNDED[name](problem).double()
    bound = lipschitz(step, problem)
    if name == "post-processing" and problem.space.is_complex:
        assert bound is None
        assert "phase" in str(step_bound(step, problem))
        return
    assert bound is not None
    for seed in (7, 8):
        x = gaussian(6, 5, seed=seed, dtype=problem.space.dtype)
        found = lower(step, problem, x)
        assert 0.05 * bound < found <= bound * (1 + 1e-9)


@pytest.mark.parametrize("name", ["ista", "learned ista", "nonexpansive"])
def test_legal_steps_never_expand(name: str, problem: Problem) -> None:
    assert lipschitz(BOUNDED[name](problem), problem) == 1.0


@pytest.mark.parametrize("t", [0.3, 1.9, 6.0])
def test_gradient_steps_exactly(t: float, problem: Problem, gaussian: Callable[..., Tensor]) -> None:
    """A wide matrix has a null space, on which the step is the identity."""
    constant = problem.data.lipschitz()
    assert constant is not None
    M = problem.data.K.M
    assert isinstance(M, Tensor)
    eye = torch.eye(30, dtype=M.dtype)
    exact = float(torch.linalg.matrix_norm(eye - t / constant * M.mH @ M, 2))
    bound = gradient_step_bound(t / constant, problem)
    assert isinstance(bound, float)
    assert exact <= bound * (1 + 1e-9)
    assert bound == pytest.approx(exact, rel=0.05)
    other = mixed(problem, gaussian)
    B = other.data.backprojector
    assert isinstance(B, Dense)
    exact = float(torch.linalg.matrix_norm(eye - t / constant * B.M @ M, 2))
    bound = gradient_step_bound(t / constant, other)
    assert isinstance(bound, float)
    assert exact <= bound * (1 + 1e-9)
    assert bound == pytest.approx(exact, rel=0.02)


def test_of_several_steps_through_a_backprojector_the_worst_counts(gaussian: Callable[..., Tensor]) -> None:
    """``|I - t B A|`` is not monotone in t: here it is 1 - t for a B that is an inverse."""
    M = gaussian(30, 30) + 20 * torch.eye(30, dtype=torch.float64)
    A, B = Dense(M, (6, 5), (6, 5)), Dense(torch.linalg.inv(M), (6, 5), (6, 5))
    y = gaussian(3, 6, 5, seed=1)
    problem = Problem(Term(LeastSquares(A.range, y), A, B), L1(A.domain, 0.1))
    steps = torch.tensor([0.1, 0.9, 0.5], dtype=torch.float64)
    bound = gradient_step_bound(steps, problem)
    assert isinstance(bound, float)
    assert bound == pytest.approx(0.9, rel=0.02)
    x = gaussian(3, 6, 5, seed=2)
    moved = ISTA(steps)(problem.with_prior(Zero(A.domain)), State(x)).x
    still = ISTA(steps)(problem.with_prior(Zero(A.domain)), State(torch.zeros_like(x))).x
    assert float(((moved - still).norm(dim=(1, 2)) / x.norm(dim=(1, 2))).max()) <= bound


def test_legal_steps_through_a_backprojector_may_expand(problem: Problem, gaussian: Callable[..., Tensor]) -> None:
    """Nonexpansive where B A is symmetric and positive semidefinite, and not in general."""
    other = mixed(problem, gaussian)
    A = other.data.K
    scaled = Problem(Term(other.data.f, A, Dense(3 * A.M.mH, A.range.shape, A.domain.shape)), other.prior)  # type: ignore[arg-type, operator]
    for share in (0.1, 0.5, 0.9):
        step = ISTA(StepSize(share))
        assert lipschitz(step, scaled) == pytest.approx(1.0, rel=0.011)
        assert lipschitz(step, other) > 1.05  # type: ignore[operator]


def test_jacobian_norm_is_that_of_the_matrix(problem: Problem, gaussian: Callable[..., Tensor]) -> None:
    A = problem.data.K
    x = gaussian(6, 5, seed=2, dtype=problem.space.dtype)
    exact = float(torch.linalg.matrix_norm(A.M, 2))  # type: ignore[arg-type]
    assert jacobian_norm(A, x, 300) == pytest.approx(exact, rel=1e-3)
    assert jacobian_norm(A, x, 300) <= exact * (1 + 1e-9)
    assert jacobian_norm(lambda image: 0 * image, x) == 0
    with pytest.raises(InputError, match="iterations"):
        jacobian_norm(A, x, 0)


def test_the_product_is_the_certificate(problem: Problem, gaussian: Callable[..., Tensor]) -> None:
    layers = nn.ModuleList([BOUNDED["learned proximal gradient"](problem), BOUNDED["nonexpansive"](problem)]).double()
    found = certificate(layers, problem)
    assert found.bound is not None
    assert found.per_layer == (pytest.approx(found.bound), 1.0)

    def whole(image: Tensor) -> Tensor:
        state = State(image)
        for layer in layers:
            state = layer(problem, state)
        return state.x

    assert jacobian_norm(whole, gaussian(6, 5, seed=7, dtype=problem.space.dtype)) <= found.bound
    plain = json.loads(json.dumps(found.to_json()))
    assert plain["lipschitz_bound"] == found.bound
    assert len(plain["per_layer"]) == 2
    assert plain["reason"]


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (FISTA(), "FISTA"),
        (PDHG(), "PDHG"),
        (ADMM(), "ADMM"),
        (LearnedPrimalDual(nn.Identity(), nn.Identity(), 0), "LearnedPrimalDual"),
        (MemoryMoDL(nn.Identity(), 0), "MemoryMoDL, whose state holds more than an image"),
        (MoDL(), "x-update that is not exact"),
        (PostProcessing(ImageNetwork(UNet(1, 1, 4, 1))), "UNet|phase"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_where_there_is_no_bound_there_is_a_reason(step: Step[Any], reason: str, problem: Problem) -> None:
    assert lipschitz(step, problem) is None
    found = certificate([BOUNDED["ista"](problem), step], problem)
    assert found.bound is None
    assert found.per_layer == (1.0, None)
    assert found.reason.startswith("layer 1: ")
    assert re.search(reason, found.reason)
    assert json.loads(json.dumps(found.to_json()))["lipschitz_bound"] is None


def test_a_denoiser_has_no_bound_and_an_overflow_is_none(problem: Problem) -> None:
    plug = problem.with_prior(PnP(problem.space, lambda x, sigma: x, 0.1))
    assert "PnP" in str(step_bound(ISTA(), plug))
    assert lipschitz(ISTA(), problem.with_prior(Zero(problem.space))) == 1.0
    huge = BOUNDED["long ista"](problem)
    assert certificate([huge] * 2000, problem).bound is None


def test_plugins_register_their_steps(problem: Problem) -> None:
    class Halve(Step[State]):
        def forward(self, problem: Problem, state: State) -> State:
            return State(state.x / 2)

    assert lipschitz(Halve(), problem) is None
    step_bound.register(Halve, lambda step, problem: 0.5)
    assert lipschitz(Halve(), problem) == 0.5
