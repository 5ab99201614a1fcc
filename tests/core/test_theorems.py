"""Verdicts on iterations against runs of them: certified ones arrive, limits are where the iteration turns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from priorloom import Functional, PnP, Problem, Space, Step, Term
from priorloom.errors import DivergenceError
from priorloom.functional import LeastSquares
from priorloom.judgement import Judgement, facts
from priorloom.networks import AveragedNetwork, DnCNN, RidgeNetwork
from priorloom.networks.denoising import with_level
from priorloom.networks.spectral import NonexpansiveBlock
from priorloom.operator import LinearOperator
from priorloom.plug_and_play import RED, Denoiser, ImplicitPrior
from priorloom.regularity import Regularity
from priorloom.solve import run
from priorloom.steps import ADMM, DRS, FISTA, HQS, ISTA, PDHG, CGUpdate, DataProximal, GradientDescent
from priorloom.steps.accelerated import AcceleratedDescent
from priorloom.steps.equilibrium import Anderson
from priorloom.steps.relaxed import Relaxed
from priorloom.theorems import judge
from priorloom_priors.functionals import L1

SPACE = Space((4, 4), torch.float64)
SIZE = SPACE.size
Steps = Callable[[], Step[Any]]


class Filter(nn.Module):
    """``D x = M x`` for a matrix, with what is proven of it."""

    def __init__(self, M: Tensor, known: Regularity) -> None:
        super().__init__()
        self.M, self.known = M, known

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        return (x.flatten(-2) @ self.M.T).unflatten(-1, x.shape[-2:])

    def regularity(self, sigma: float) -> Regularity:
        return self.known

    def potential(self, x: Tensor, sigma: Tensor) -> Tensor:
        return 0.5 * (x * (x - self(x, sigma))).sum((-2, -1))


class Dense(LinearOperator):
    """A dense matrix on images, with or without the closed form."""

    def __init__(self, M: Tensor, closed: bool = True) -> None:
        super().__init__(SPACE, Space((M.shape[0],), M.dtype))
        self.register_buffer("M", M)
        self.M: Tensor
        self.closed = closed

    def _forward(self, x: Tensor) -> Tensor:
        return x.flatten(-2) @ self.M.T

    def _adjoint(self, y: Tensor) -> Tensor:
        return (y @ self.M).unflatten(-1, SPACE.shape)

    def _norm(self) -> float:
        return float(torch.linalg.matrix_norm(self.M, 2))

    def solve_normal(self, b: Tensor, rho: float | Tensor) -> Tensor | None:
        if not self.closed:
            return None
        H = self.M.T @ self.M + torch.as_tensor(rho).reshape(-1)[0] * torch.eye(SIZE, dtype=b.dtype)
        return torch.linalg.solve(H, b.flatten()).reshape(b.shape)


def data(seed: int = 1, rows: int = 10, *, closed: bool = True, singular: Tensor | None = None) -> Term:
    """Least squares with a random matrix, or one with given singular values on the pixels."""
    generator = torch.Generator().manual_seed(seed)
    M = torch.randn(rows, SIZE, generator=generator, dtype=SPACE.dtype) / 4 if singular is None else singular.diag()
    A = Dense(M, closed)
    return Term(LeastSquares(A.range, A(torch.rand(SPACE.shape, generator=generator, dtype=SPACE.dtype))), A)


def plugged(denoiser: Denoiser, term: Term | None = None) -> Problem:
    return Problem(data() if term is None else term, PnP(SPACE, denoiser, 0.1))


def red(denoiser: Denoiser, tau: float = 1.0, term: Term | None = None) -> Problem:
    return Problem(data() if term is None else term, RED(SPACE, denoiser, 0.1, tau))


def identity(scale: float = 1.0, **known: Any) -> Filter:
    return Filter(scale * torch.eye(SIZE, dtype=SPACE.dtype), Regularity(**known))


def turned(share: float, **known: Any) -> Filter:
    """``(1 - share) I + share R`` with R a quarter turn of pairs of pixels: share-averaged, and no less."""
    quarter = torch.block_diag(*[torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=SPACE.dtype)] * (SIZE // 2))
    return Filter((1 - share) * torch.eye(SIZE, dtype=SPACE.dtype) + share * quarter, Regularity(**known))


def ridge(seed: int) -> RidgeNetwork:
    torch.manual_seed(seed)
    network = RidgeNetwork(False, side=3).double()
    with torch.no_grad():
        network.log_scale += torch.randn(len(network.log_scale))
    return network


class Expanded(nn.Module):
    """1.3 times a nonexpansive network."""

    def __init__(self, network: NonexpansiveBlock) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        made: Tensor = 1.3 * self.network(with_level(x.reshape(-1, 1, *SPACE.shape), sigma.reshape(-1, 1, 1, 1)))
        return made.reshape(x.shape)

    def regularity(self, sigma: float) -> Regularity:
        return Regularity(lipschitz=1.3)


def averaged(average: float, seed: int = 0) -> AveragedNetwork:
    torch.manual_seed(seed)
    return AveragedNetwork(False, width=4, depth=2, average=average).double()


def shrinking(generator: torch.Generator) -> Filter:
    """A symmetric matrix with eigenvalues between 0 and 1."""
    values = torch.rand(SIZE, generator=generator, dtype=SPACE.dtype)
    basis = torch.linalg.qr(torch.randn(SIZE, SIZE, generator=generator, dtype=SPACE.dtype))[0]
    known = Regularity(averaged=0.5, residual=1.0, gradient=True, convex=True)
    return Filter(basis @ values.diag() @ basis.T, known)


def last_residual(step: Step[Any], problem: Problem, n: int = 3000, tol: float = 1e-6) -> float:
    """Infinite where the iteration diverges."""
    x0 = SPACE.random(torch.Generator().manual_seed(3))
    try:
        return run(step, problem, n=n, tol=tol, x0=x0).residual
    except DivergenceError:
        return float("inf")


PLUGGED: tuple[Steps, ...] = (
    ISTA, FISTA, ADMM, DRS, HQS, PDHG, lambda: Relaxed(ISTA()), lambda: Relaxed(DRS()),
    lambda: Relaxed(HQS(), after=16), lambda: Relaxed(PDHG()), lambda: DRS(0.01), lambda: ISTA(0.1), lambda: ADMM(3.0),
)  # fmt: skip
DESCENTS: tuple[Steps, ...] = (
    GradientDescent, DataProximal, AcceleratedDescent, lambda: Relaxed(GradientDescent()),
    lambda: Relaxed(DataProximal()), lambda: DataProximal(x_update=CGUpdate(0.9, 1)), lambda: DataProximal(0.2),
)  # fmt: skip


@pytest.mark.parametrize("seed", range(2))
def test_every_certified_iteration_arrives(seed: int) -> None:
    """Forty or more verdicts per seed on a matrix that is not injective, with linear and network denoisers."""
    denoisers: list[Denoiser] = [averaged(0.5, seed), averaged(0.9, seed),
                                 shrinking(torch.Generator().manual_seed(seed)), ridge(seed),
                                 turned(0.5, averaged=0.5), turned(1.0, averaged=1.0)]  # fmt: skip
    certified = 0
    for denoiser in denoisers:
        cases = [(make, plugged(denoiser, data(seed))) for make in PLUGGED]
        cases += [(make, red(denoiser, 0.5, data(seed))) for make in DESCENTS if make is not AcceleratedDescent
                  or hasattr(denoiser, "potential")]  # fmt: skip
        for make, problem in cases:
            step = make()
            found = judge(step, problem)
            assert found.certified == bool(found.theorem and found.reference and found.guarantee)
            assert found.certified != bool(found.reason)
            if found.certified:
                certified += 1
                # FISTA's and the averaged turn's rates are sublinear in the worst case
                assert last_residual(step, problem) <= 1e-6, (type(denoiser).__name__, type(step).__name__, found)
    assert certified >= 40


def test_fifty_random_problems_with_a_certificate_arrive() -> None:
    """Every problem has a matrix, a denoiser and a step of its own; the scaled denoisers among them get no certificate,
    their averaged versions do."""
    certified = scaled = 0
    for seed in range(70):
        generator = torch.Generator().manual_seed(seed)

        def pick(count: int, generator: torch.Generator = generator) -> int:
            return int(torch.randint(count, (), generator=generator))

        share = 0.2 + 0.75 * float(torch.rand((), generator=generator))
        network = averaged(share, seed)
        term = data(seed, 4 + pick(20))
        denoiser = (network, shrinking(generator), ridge(seed), Expanded(network.network))[pick(4)]
        steps = PLUGGED if pick(2) or not hasattr(denoiser, "potential") else DESCENTS
        step = steps[pick(len(steps))]()
        problem = red(denoiser, 0.1 + share, term) if steps is DESCENTS else plugged(denoiser, term)
        found = judge(step, problem)
        if isinstance(denoiser, Expanded):
            scaled += 1
            assert not found.certified
            step, problem = ISTA(), plugged(network, term)
            found = judge(step, problem)
            assert found.certified
        if found.certified:
            certified += 1
            assert last_residual(step, problem, n=20000, tol=9e-7) < 1e-6, (seed, step, found)
    assert certified >= 50
    assert scaled >= 10


# Limits: the linear case attains them


def limit_of(make: Callable[[float], Step[Any]], problem: Problem, limit: float) -> None:
    """Below the limit certified and arriving; above it neither."""
    below, above = make(0.97 * limit), make(1.03 * limit)
    assert judge(below, problem).certified
    assert last_residual(below, problem) <= 1e-6
    refused = judge(above, problem)
    assert (refused.certified, refused.remedy) == (False, "shorten")
    assert not last_residual(above, problem) <= 1e-3


def singular_values(largest: float = 2.0) -> Tensor:
    return torch.linspace(0.5, largest, SIZE, dtype=SPACE.dtype)


def test_proximal_gradient_with_an_averaged_denoiser_needs_two_over_the_norm() -> None:
    limit_of(ISTA, plugged(identity(averaged=0.5), data(singular=singular_values())), 2 / 4)


def test_proximal_gradient_with_a_contraction_may_go_further() -> None:
    limit_of(ISTA, plugged(identity(0.8, lipschitz=0.8), data(singular=singular_values())), (1 + 1 / 0.8) / 4)


def test_proximal_gradient_on_a_weakly_convex_function() -> None:
    """1.125 along the largest singular value, the prox of a concave parabola; 0.9 elsewhere."""
    scales = torch.full((SIZE,), 0.9, dtype=SPACE.dtype)
    scales[-1] = 1.125
    denoiser = Filter(scales.diag(), Regularity(lipschitz=1.125, residual=0.125, gradient=True))
    limit_of(ISTA, plugged(denoiser, data(singular=singular_values())), (1 + 1 / 1.125) / 4)


def test_gradient_descent_with_a_nonexpansive_denoiser() -> None:
    """D = -I: the slope of the prior is twice tau."""
    limit_of(GradientDescent, red(identity(-1.0, averaged=1.0), 0.3, data(singular=singular_values())), 2 / 4.6)


def test_gradient_descent_with_a_gradient_denoiser() -> None:
    denoiser = identity(-2.0, residual=3.0, gradient=True)
    limit_of(GradientDescent, red(denoiser, 0.3, data(singular=singular_values())), 2 / 4.9)


def test_data_proximal_with_a_gradient_denoiser() -> None:
    """The limit counts where A sees nothing."""
    values = singular_values()
    values[0] = 0
    denoiser = identity(-2.0, residual=3.0, gradient=True)
    limit_of(DataProximal, red(denoiser, 0.3, data(singular=values)), 2 / 0.9)


def test_data_proximal_with_a_nonexpansive_denoiser() -> None:
    values = singular_values()
    values[0] = 0
    limit_of(DataProximal, red(identity(-1.0, averaged=1.0), 0.3, data(singular=values)), 1 / 0.3)


# What is refused, and truly fails


def test_a_rotation_cycles_until_it_is_damped() -> None:
    values = singular_values()
    values[:2] = 0  # one pair of pixels that the data do not see
    problem = plugged(turned(1.0, averaged=1.0), data(singular=values))
    plain = judge(ISTA(), problem)
    assert (plain.certified, plain.remedy, plain.dampable) == (False, "damp", True)
    assert last_residual(ISTA(), problem) > 0.1
    assert judge(Relaxed(ISTA(), 1.0), problem) == plain
    damped = judge(Relaxed(ISTA(), 0.5), problem)
    assert damped.certified
    assert "0 < a = 0.5 < 1" in damped.condition
    assert last_residual(Relaxed(ISTA(), 0.5), problem) <= 1e-6


def test_splittings_need_more_than_an_averaged_denoiser() -> None:
    """A 0.9-averaged denoiser whose reflection expands: proximal gradient arrives, Douglas-Rachford does not."""
    denoiser = turned(0.9, averaged=0.9)
    problem = plugged(denoiser, data(singular=singular_values()))
    assert judge(ISTA(), problem).certified
    for step in (DRS(50.0), ADMM(0.02), PDHG()):
        found = judge(step, problem)
        assert (found.certified, found.remedy) == (False, "average")
    assert last_residual(DRS(50.0), problem) > 0.1
    for step in (DRS(50.0), ADMM(0.02), PDHG()):
        assert judge(step, plugged(turned(0.5, averaged=0.5), problem.data)).certified


def test_nothing_is_certified_of_a_denoiser_of_no_class() -> None:
    scaled = identity(1.3, lipschitz=1.3)
    for make in PLUGGED:
        found = judge(make(), plugged(scaled))
        assert not found.certified
        assert found.remedy in ("none",)
    for make in DESCENTS:
        if make is not AcceleratedDescent:
            assert not judge(make(), red(scaled)).certified
    torch.manual_seed(0)
    found = judge(ISTA(), plugged(DnCNN(False, 2, 2).double()))
    assert "nothing bounds the convolutions of DnCNN" in found.reason


def test_conjugate_gradients_certify_descent_and_nothing_else() -> None:
    term = data(closed=False)
    for step in (ADMM(), DRS(), HQS()):
        found = judge(step, plugged(averaged(0.5), term))
        assert (found.certified, found.remedy) == (False, "solve exactly")
        assert "summable" in found.reason
    assert judge(DataProximal(), red(averaged(0.5), term=term)).remedy == "solve exactly"
    for step in (ISTA(), PDHG()):
        assert judge(step, plugged(averaged(0.5), term)).certified
    assert judge(GradientDescent(), red(averaged(0.5), term=term)).certified
    assert judge(HQS(), plugged(ridge(0), term)).certified
    assert judge(DataProximal(), red(ridge(0), term=term)).certified
    assert judge(DataProximal(1.2), red(ridge(0), term=term)).remedy == "shorten"
    assert not judge(DataProximal(x_update=lambda system: system.x), red(ridge(0))).certified


@torch.no_grad()
@pytest.mark.parametrize("iterations", [1, 3])
def test_data_proximal_descends_after_any_number_of_conjugate_gradients(iterations: int) -> None:
    """The inequality behind the certificate: J falls by at least ``|grad J|^2 / (2 (L + 1 / t))``."""
    problem = red(ridge(1), 0.5, data(closed=False))
    step = DataProximal(x_update=CGUpdate(0.999, iterations))
    t, L = float(step.size(problem)), problem.data.lipschitz()
    assert L is not None
    state = step.init(problem, 3 * SPACE.random(torch.Generator().manual_seed(3)))
    for _ in range(50):
        slope = problem.data.gradient(state.x) + problem.prior.gradient(state.x)
        after = step(problem, state)
        fall = problem.objective(state.x) - problem.objective(after.x)
        assert float(fall) >= float(SPACE.squared(slope)) / (2 * (L + 1 / t)) * (1 - 1e-9) - 1e-13
        state = after


def test_momentum_asks_for_the_prox_of_a_convex_function() -> None:
    proximal = identity(0.5, averaged=0.5, gradient=True)
    assert judge(FISTA(), plugged(proximal)).certified
    assert judge(FISTA(10.0), plugged(proximal)).remedy == "shorten"
    assert "momentum" in judge(FISTA(), plugged(turned(0.5, averaged=0.5))).reason
    assert not judge(Relaxed(FISTA()), plugged(proximal)).certified


def test_anderson_acceleration_keeps_the_theorem_of_an_averaged_map() -> None:
    for problem, step in [(plugged(averaged(0.7)), ISTA()), (plugged(identity(0.5, lipschitz=0.5)), ISTA()),
                          (plugged(turned(1.0, averaged=1.0)), Relaxed(ISTA())),
                          (red(averaged(0.7)), GradientDescent()), (red(averaged(0.7)), DataProximal())]:  # fmt: skip
        assert judge(step, problem).averaged
        found = judge(Anderson(step), problem)
        assert found.certified
        assert "safeguarded" in found.theorem
        assert last_residual(Anderson(step), problem) <= 1e-6
    descent = judge(Anderson(ISTA()), plugged(ridge(0)))
    assert judge(ISTA(), plugged(ridge(0))).certified
    assert not descent.certified
    assert "averaged maps" in descent.reason
    assert judge(Anderson(ISTA()), plugged(turned(1.0, averaged=1.0))).remedy == "damp"
    assert "nothing is proven" in judge(Anderson(ISTA()), plugged(lambda x, sigma: x)).reason
    assert "not positive" in judge(Anderson(ISTA(nn.Parameter(torch.tensor(-0.1)))), plugged(averaged(0.5))).reason
    assert "Anderson" in judge(Anderson(ISTA()), Problem(data(), L1(SPACE, 0.1))).theorem


def test_noise_levels_are_those_that_the_step_asks_for() -> None:
    """Of an implicit prior: proven below sigma = 0.5 only."""

    class Low(Filter):
        def regularity(self, sigma: float) -> Regularity:
            return self.known if sigma < 0.5 else Regularity()

    low = Low(0.5 * torch.eye(SIZE, dtype=SPACE.dtype), Regularity(averaged=0.5))
    for step, sure in [(ADMM(5.0), True), (ADMM(3.0), False), (ISTA(0.2), True), (ISTA(0.3), False),
                       (HQS(1.0, 2.0, 3), True), (HQS(1.0, 2.0, 1), False), (DRS(0.2), True), (DRS(0.3), False),
                       (PDHG(0.01), True), (PDHG(100.0), False)]:  # fmt: skip
        assert judge(step, Problem(data(), ImplicitPrior(SPACE, low, 1.0))).certified == sure, step


def test_convex_problems_are_those_of_converges() -> None:
    prior: Functional = L1(SPACE, 0.1)
    found = judge(ISTA(), Problem(data(), prior))
    assert found.certified
    assert "proximal gradient" in found.theorem
    assert not judge(ISTA(1e3), Problem(data(), prior)).certified
    assert "penalised" in judge(HQS(), Problem(data(), prior)).reason
    term = data()
    back = Term(term.f, term.K, Dense(torch.ones(10, SIZE, dtype=SPACE.dtype)).H)
    assert "backprojector" in judge(ISTA(), Problem(back, prior)).reason
    assert "backprojector" in judge(ISTA(), plugged(averaged(0.5), back)).reason


def test_a_step_that_does_not_fit_the_prior_or_that_training_spoiled() -> None:
    assert "does not solve" in judge(ISTA(), red(averaged(0.5))).reason
    assert "does not solve" in judge(GradientDescent(), plugged(averaged(0.5))).reason
    robust = Term(L1(data().K.range, 1.0), data().K)
    assert "does not solve" in judge(DRS(), plugged(averaged(0.5), robust)).reason
    free = Problem(data(singular=torch.zeros(SIZE, dtype=SPACE.dtype)), RED(SPACE, identity(averaged=0.0), 0.1))
    assert judge(GradientDescent(), free).certified
    spoiled = ImplicitPrior(SPACE, averaged(0.5), nn.Parameter(torch.tensor(-1.0)))
    assert "not positive" in judge(ISTA(), Problem(data(), spoiled)).reason
    negative = ISTA(nn.Parameter(torch.tensor(-0.1)))
    assert "not positive" in judge(negative, plugged(averaged(0.5))).reason


def test_facts_follow_from_each_other() -> None:
    assert facts(Regularity(lipschitz=0.8)).averaged == pytest.approx(0.9)
    assert facts(Regularity(lipschitz=1.0)).averaged == 1
    assert facts(Regularity(averaged=0.7)).lipschitz == 1
    assert facts(Regularity(residual=1.2, gradient=True, convex=True)).averaged == pytest.approx(0.6)
    assert facts(Regularity(residual=0.5, gradient=True)).prox == pytest.approx(1 - 1 / 1.5)
    assert facts(Regularity(residual=0.5)).prox is None
    assert facts(Regularity(residual=1.5, gradient=True)).prox is None
    assert facts(Regularity(averaged=0.5, gradient=True)).is_prox


def test_a_judgement_has_a_plain_form() -> None:
    found = judge(ISTA(), plugged(averaged(0.5))).to_json()
    assert found["certified"] is True
    assert found["remedy"] == "none"
    assert set(found) == set(Judgement(False).to_json())
