"""Every learned layer against its classical step, with which it must begin; by dense algebra where that is shorter."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from priorloom import Problem, Term, run
from priorloom.constraints import Penalty, StepSize
from priorloom.errors import InputError
from priorloom.functional import LeastSquares
from priorloom.networks import Averaged, ConvolutionBlock, ImageNetwork, NonexpansiveBlock, UNet
from priorloom.networks.images import channels
from priorloom.operator import Gradient, LinearOperator
from priorloom.space import Space
from priorloom.steps import ADMM, CG, DRS, FISTA, HQS, ISTA, LSQR, PDHG, CGUpdate, NetworkUpdate, NormalSystem, Step
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
from priorloom.unrolled import repeat
from priorloom_priors.functionals import L1, GroupL1

LAYERS = 4
REAL, COMPLEX = torch.float64, torch.complex128
Make = Callable[[], Step[Any]]


class Dense(LinearOperator):
    """A dense matrix between images, of which a norm may be stated."""

    def __init__(self, M: Tensor, domain: tuple[int, int], range_: tuple[int, int], norm: float | None = None) -> None:
        super().__init__(Space(domain, M.dtype), Space(range_, M.dtype))
        self.register_buffer("M", M)
        self.M: Tensor
        self.stated = norm

    def _forward(self, x: Tensor) -> Tensor:
        return (x.flatten(-2) @ self.M.T).unflatten(-1, self.range.shape)

    def _adjoint(self, y: Tensor) -> Tensor:
        return (y.flatten(-2) @ self.M.conj()).unflatten(-1, self.domain.shape)

    def _norm(self) -> float | None:
        return self.stated


@pytest.fixture(params=[REAL, COMPLEX], ids=["real", "complex"])
def A(request: pytest.FixtureRequest, gaussian: Callable[..., Tensor]) -> Dense:
    return Dense(gaussian(24, 30, dtype=request.param), (6, 5), (4, 6))


@pytest.fixture
def y(A: Dense, gaussian: Callable[..., Tensor]) -> Tensor:
    return gaussian(2, 4, 6, seed=1, dtype=A.M.dtype)


@pytest.fixture
def x0(A: Dense, gaussian: Callable[..., Tensor]) -> Tensor:
    return gaussian(2, 6, 5, seed=2, dtype=A.M.dtype)


def network(A: LinearOperator, inputs: int, outputs: int, skip: bool) -> ImageNetwork:
    """A new network on the domain or the range, as the architectures make them."""
    n = A.domain.is_complex
    return ImageNetwork(ConvolutionBlock(channels(inputs, n), channels(outputs, n), 4, 2), skip).double()


def identity(A: LinearOperator) -> NetworkPrior:
    return NetworkPrior(network(A, 1, 1, skip=True))


def least_squares(A: Dense, y: Tensor, backprojector: LinearOperator | None = None) -> Problem:
    return Problem(Term(LeastSquares(A.range, y), A, backprojector))


def sparse(A: Dense, y: Tensor) -> Problem:
    return least_squares(A, y).with_prior(L1(A.domain, 2.0))


def unrolled(make: Make, problem: Problem, x0: Tensor | None) -> Tensor:
    layers = nn.ModuleList(repeat(make, LAYERS)).double()
    x = run(layers, problem, x0=x0).x
    assert x.requires_grad
    return x.detach()


def repeated(step: Step[Any], problem: Problem, x0: Tensor | None, n: int = LAYERS) -> Tensor:
    return run(step, problem, x0=x0, n=n, tol=1e-30).x


def test_learned_ista_begins_as_ista(A: Dense, y: Tensor, x0: Tensor) -> None:
    problem = sparse(A, y)
    found = unrolled(lambda: Layer(ISTA(StepSize()), LearnedWeight()), problem, x0)
    torch.testing.assert_close(found, repeated(ISTA(), problem, x0))


def test_learned_fista_begins_as_fista(A: Dense, y: Tensor, x0: Tensor) -> None:
    problem = sparse(A, y)
    found = unrolled(lambda: Layer(FISTA(StepSize()), LearnedWeight()), problem, x0)
    torch.testing.assert_close(found, repeated(FISTA(), problem, x0))


def test_learned_proximal_gradient_begins_as_gradient_descent(A: Dense, y: Tensor, x0: Tensor) -> None:
    problem = least_squares(A, y)
    found = unrolled(lambda: Layer(ISTA(StepSize()), identity(A)), problem, x0)
    torch.testing.assert_close(found, repeated(ISTA(), problem, x0))


def test_nonexpansive_network_begins_as_the_identity(A: Dense, y: Tensor, x0: Tensor) -> None:
    n = channels(1, A.domain.is_complex)
    problem = least_squares(A, y)
    found = unrolled(
        lambda: Layer(ISTA(StepSize()), NetworkPrior(ImageNetwork(Averaged(NonexpansiveBlock(n, n, 4, 2))))),
        problem,
        x0,
    )
    torch.testing.assert_close(found, repeated(ISTA(), problem, x0))


def test_proximal_gradient_with_a_backprojector(
    A: Dense, y: Tensor, x0: Tensor, gaussian: Callable[..., Tensor]
) -> None:
    B = Dense(gaussian(30, 24, seed=3, dtype=A.M.dtype), (4, 6), (6, 5))
    problem = least_squares(A, y, B)
    found = unrolled(lambda: Layer(ISTA(StepSize()), identity(A)), problem, x0)
    largest = float(torch.linalg.matrix_norm(B.M @ A.M, 2))
    assert problem.data.lipschitz() == pytest.approx(largest, rel=0.02)
    x = x0.flatten(-2)
    for _ in range(LAYERS):
        x = x - (x @ A.M.T - y.flatten(-2)) @ B.M.T / problem.data.lipschitz()
    torch.testing.assert_close(found, x.unflatten(-1, (6, 5)))


def primal_dual(A: Dense) -> LearnedPrimalDual:
    return LearnedPrimalDual(network(A, 4, 3, skip=False), network(A, 4, 3, skip=False), memory=2)


def test_learned_primal_dual_begins_as_pdhg(A: Dense, y: Tensor) -> None:
    """The layers begin with the dual step, PDHG with the primal one, which moves nothing at zero."""
    problem = sparse(A, y)
    found = unrolled(lambda: primal_dual(A), problem, None)
    torch.testing.assert_close(found, repeated(PDHG(ratio=A.norm() ** -2), problem, None, LAYERS + 1))


def test_learned_primal_dual_with_a_backprojector_begins_as_weighted_pdhg(
    A: Dense, y: Tensor, x0: Tensor, gaussian: Callable[..., Tensor]
) -> None:
    """``B = A^H W`` makes it PDHG on the data term ``0.5 |W^(1/2) (A x - y)|^2``, as density compensation would."""
    weights = gaussian(24, seed=4).square() + 0.1
    B = Dense(A.M.mH * weights, (4, 6), (6, 5))
    problem = least_squares(A, y, B)
    found = unrolled(lambda: primal_dual(A), problem, x0)
    lipschitz = problem.data.lipschitz()
    assert lipschitz is not None
    root = weights.sqrt()
    weighted = Dense(root[:, None] * A.M, (6, 5), (4, 6), norm=math.sqrt(lipschitz))
    scaled = (root * y.flatten(-2)).unflatten(-1, (4, 6))
    expected = repeated(PDHG(ratio=1 / lipschitz), least_squares(weighted, scaled), x0, LAYERS + 1)
    torch.testing.assert_close(found, expected)
    adjoint = unrolled(lambda: primal_dual(A), least_squares(A, y), x0)
    assert not torch.allclose(found, adjoint)  # the backprojector was used


def normal_matrix(A: Dense, rho: float) -> Tensor:
    return A.M.mH @ A.M + rho * torch.eye(30, dtype=A.M.dtype)


def solve(A: Dense, rho: float, b: Tensor) -> Tensor:
    return torch.linalg.solve(normal_matrix(A, rho), b.flatten(-2).mT).mT.unflatten(-1, (6, 5))


class DenseUpdate(nn.Module):
    """The x-update by a dense solver."""

    def forward(self, system: NormalSystem) -> Tensor:
        basis = torch.eye(30, dtype=system.b.dtype).unflatten(-1, (6, 5))
        columns = system.apply(basis[:, None].expand(-1, len(system.b), -1, -1)).flatten(-2)  # [column, batch, row]
        return torch.linalg.solve(columns.permute(1, 2, 0), system.b.flatten(-2)).unflatten(-1, (6, 5))


class GradientUpdate(nn.Module):
    """One gradient step on the system, its norm from the dense matrix that it should have."""

    def __init__(self, bound: float) -> None:
        super().__init__()
        self.bound = bound

    def forward(self, system: NormalSystem) -> Tensor:
        return system.x + (system.b - system.apply(system.x)) / self.bound


@pytest.mark.parametrize("x_update", [DenseUpdate(), CGUpdate(1e-12, 60)], ids=["exact", "cg"])
def test_learned_admm_begins_as_admm(A: Dense, y: Tensor, x0: Tensor, x_update: nn.Module) -> None:
    problem = sparse(A, y)
    rho = 0.1 * A.norm() ** 2
    found = unrolled(lambda: Layer(ADMM(Penalty(0.1), x_update), LearnedWeight()), problem, x0)
    torch.testing.assert_close(found, repeated(ADMM(rho, DenseUpdate()), problem, x0), rtol=1e-6, atol=1e-8)


def test_learned_admm_with_a_network_as_prox_begins_as_the_proximal_point_method(
    A: Dense, y: Tensor, x0: Tensor
) -> None:
    rho = 0.1 * A.norm() ** 2
    found = unrolled(lambda: Layer(ADMM(Penalty(0.1), DenseUpdate()), identity(A)), least_squares(A, y), x0)
    x = x0
    for _ in range(LAYERS):
        x = solve(A, rho, A.adjoint(y) + rho * x)
    torch.testing.assert_close(found, x)


def test_a_network_that_solves_begins_as_a_gradient_step(A: Dense, y: Tensor, x0: Tensor) -> None:
    problem = sparse(A, y)
    square = A.norm() ** 2
    rho = 0.1 * square

    def layer() -> Step[Any]:
        return Layer(ADMM(Penalty(0.1), NetworkUpdate([network(A, 3, 1, skip=False)])), LearnedWeight())

    expected = repeated(ADMM(rho, GradientUpdate(square + rho)), problem, x0)
    torch.testing.assert_close(unrolled(layer, problem, x0), expected)


def test_more_learned_steps_begin_as_landweber_on_the_system(A: Dense, y: Tensor, x0: Tensor) -> None:
    rho = 0.3
    update = NetworkUpdate([network(A, 3, 1, skip=False) for _ in range(200)]).double()
    one = torch.ones(2, dtype=torch.float64)
    system = NormalSystem((A,), (one,), A.adjoint(y), x0)
    H = normal_matrix(A, rho)
    both = NormalSystem((A, Dense(torch.eye(30, dtype=A.M.dtype), (6, 5), (6, 5))), (one, rho * one), A.adjoint(y), x0)
    assert float(both.lipschitz()[0]) >= float(torch.linalg.matrix_norm(H, 2))
    with torch.no_grad():
        before = A.domain.norm(system.apply(x0) - system.b)
        x = update(both)
        after = A.domain.norm(both.apply(x) - both.b)
    assert bool((after < 0.1 * before).all())
    with pytest.raises(InputError, match="networks of an x-update"):
        NetworkUpdate([])


def test_modl_begins_as_the_proximal_point_method(A: Dense, y: Tensor, x0: Tensor) -> None:
    found = unrolled(lambda: Layer(MoDL(0.2, CGUpdate(1e-12, 60)), identity(A)), least_squares(A, y), x0)
    rho = 0.2 * A.norm() ** 2
    x = x0
    for _ in range(LAYERS):
        x = solve(A, rho, A.adjoint(y) + rho * x)
    torch.testing.assert_close(found, x, rtol=1e-6, atol=1e-8)


def test_variational_network_begins_as_a_gradient_step(A: Dense, y: Tensor, x0: Tensor) -> None:
    problem = least_squares(A, y)
    found = unrolled(lambda: VariationalNetwork(network(A, 1, 1, skip=False)), problem, x0)
    torch.testing.assert_close(found, repeated(ISTA(), problem, x0))


def test_post_processing_begins_as_the_identity(A: Dense, y: Tensor, x0: Tensor) -> None:
    n = channels(1, A.domain.is_complex)
    found = unrolled(lambda: PostProcessing(ImageNetwork(UNet(n, n, 4, 1), skip=True)), least_squares(A, y), x0)
    torch.testing.assert_close(found, x0)


@pytest.mark.parametrize("step", [ADMM(), HQS(), DRS(), CG(), LSQR(), PDHG(), MoDL()], ids=lambda s: type(s).__name__)
def test_steps_that_need_the_adjoint_refuse_a_backprojector(A: Dense, y: Tensor, step: Step[Any]) -> None:
    problem = least_squares(A, y, Dense(A.M.mH, (4, 6), (6, 5)))
    if not isinstance(step, CG | LSQR):
        problem = problem.with_prior(L1(A.domain, 1.0))
    with pytest.raises(InputError, match=f"{type(step).__name__}: expected the adjoint .* got a backprojector"):
        step.init(problem)


@pytest.mark.parametrize("step", [ADMM(), PDHG()], ids=lambda s: type(s).__name__)
def test_a_backprojector_of_an_operator_term_is_refused_too(A: Dense, y: Tensor, step: Step[Any]) -> None:
    D = Gradient(A.domain)
    problem = Problem(Term(LeastSquares(A.range, y), A), terms=[Term(GroupL1(D.range, 1.0), D, D.H)])
    with pytest.raises(InputError, match="backprojector"):
        step.init(problem)


def test_the_backprojector_is_used_by_every_step_that_takes_it(
    A: Dense, y: Tensor, x0: Tensor, gaussian: Callable[..., Tensor]
) -> None:
    B = Dense(gaussian(30, 24, seed=3, dtype=A.M.dtype), (4, 6), (6, 5))
    for make in (
        lambda: Layer(ISTA(StepSize()), identity(A)),
        lambda: Layer(FISTA(StepSize()), identity(A)),
        lambda: VariationalNetwork(network(A, 1, 1, skip=False)),
        lambda: primal_dual(A),
    ):
        adjoint = unrolled(make, least_squares(A, y), x0)
        other = unrolled(make, least_squares(A, y, B), x0)
        assert not torch.allclose(adjoint, other), type(make()).__name__


def test_no_layers_are_refused() -> None:
    with pytest.raises(InputError, match="layers of an unrolled network: expected at least 1, got 0"):
        repeat(lambda: Layer(ISTA(StepSize()), LearnedWeight()), 0)


@torch.no_grad()
def test_memory_modl_begins_as_the_proximal_point_method(A: Dense, gaussian: Callable[..., Tensor]) -> None:
    n, m = (channels(k, A.domain.is_complex) for k in (3, 2))
    step = MemoryMoDL(ImageNetwork(ConvolutionBlock(n, m, 4, 2)), 1, x_update=CGUpdate(1e-12, 60)).double()
    problem = Problem(Term(LeastSquares(A.range, gaussian(2, 4, 6, dtype=A.domain.dtype)), A))
    rho = float(step.rho(problem.data.lipschitz() or 1.0))
    H = A.M.mH @ A.M + rho * torch.eye(30, dtype=A.M.dtype)
    back = A.adjoint(problem.data.f.y).flatten(-2)
    x = torch.zeros_like(back)
    state = step.init(problem)
    for _ in range(3):
        x = torch.linalg.solve(H, (back + rho * x).mT).mT
        torch.testing.assert_close(state.x.flatten(-2), x)
        state = step(problem, state)


@pytest.mark.parametrize("kind", ["memory", "post"])
@torch.no_grad()
def test_turning_the_measurement_turns_the_image(kind: str, gaussian: Callable[..., Tensor]) -> None:
    A = Dense(gaussian(24, 30, dtype=COMPLEX), (6, 5), (4, 6))
    inputs = channels(2 if kind == "memory" else 1, True)
    network = ImageNetwork(ConvolutionBlock(inputs, 2, 4, 2, zero=False))
    step: Step[Any] = (MemoryMoDL(network, 0) if kind == "memory" else PostProcessing(network)).double()
    y = gaussian(2, 4, 6, dtype=COMPLEX)
    x0 = A.adjoint(y)
    images = []
    for turn in (1, 1j):
        problem = Problem(Term(LeastSquares(A.range, turn * y), A))
        images.append(step(problem, step.init(problem, turn * x0)).x)
    assert float((images[0] - x0).abs().max()) > 1e-3
    torch.testing.assert_close(images[1], 1j * images[0])
