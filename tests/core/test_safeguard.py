"""The safeguard against the classical sequence that it promises to beat, with layers that want to break the promise."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from priorloom import PnP, Problem, Term, run
from priorloom.constraints import StepSize
from priorloom.errors import InputError
from priorloom.functional import LeastSquares
from priorloom.networks import ConvolutionBlock, ImageNetwork
from priorloom.operator import Gradient, Identity, LinearOperator
from priorloom.space import Space
from priorloom.steps import FISTA, ISTA, State, Step
from priorloom.steps.learned import Layer, LearnedPrimalDual, LearnedWeight, NetworkPrior, VariationalNetwork
from priorloom.steps.safeguard import Guarded, Safeguard, safeguarded
from priorloom.unrolled import Unrolled
from priorloom_priors.functionals import L1

LAYERS = 6
Layers = list[Step[Any]]


class Blur(LinearOperator):
    """A dense matrix on small images ``[6, 5]``, with its Moore-Penrose inverse as the direct method."""

    def __init__(self, dtype: torch.dtype, seed: int = 0) -> None:
        super().__init__(Space((6, 5), dtype), Space((3, 6), dtype))
        M = torch.randn(18, 30, dtype=dtype, generator=torch.Generator().manual_seed(seed))
        self.register_buffer("M", M)
        self.register_buffer("inverse", torch.linalg.pinv(M))
        self.M: Tensor
        self.inverse: Tensor

    def _forward(self, x: Tensor) -> Tensor:
        return (x.flatten(-2) @ self.M.T).unflatten(-1, self.range.shape)

    def _adjoint(self, y: Tensor) -> Tensor:
        return (y.flatten(-2) @ self.M.conj()).unflatten(-1, self.domain.shape)

    def _pseudo_inverse(self, y: Tensor) -> Tensor:
        return (y.flatten(-2) @ self.inverse.T).unflatten(-1, self.domain.shape)


class Bend(nn.Module):
    """A network that is a function of the image."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *images: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.function(x) for x in images)


def drawn(is_complex: bool, inputs: int = 1, outputs: int = 1) -> ImageNetwork:
    """A network with random weights."""
    twice = 2 if is_complex else 1
    return ImageNetwork(ConvolutionBlock(twice * inputs, twice * outputs, width=4, depth=2, zero=False), inputs == 1)


def poison(x: Tensor) -> Tensor:
    """Every second batch element is not a number."""
    odd = torch.arange(x.shape[0]) % 2 == 1
    return torch.where(odd[:, None, None], x * math.nan, x)


def networks(function: Callable[[Tensor], Tensor]) -> Callable[[bool], Layers]:
    return lambda _: [Layer(ISTA(StepSize()), NetworkPrior(Bend(function))) for _ in range(LAYERS)]


ADVERSARIES: dict[str, Callable[[bool], Layers]] = {
    "huge thresholds": lambda _: [Layer(ISTA(StepSize()), LearnedWeight(1e6)) for _ in range(LAYERS)],
    "tiny thresholds": lambda _: [Layer(ISTA(StepSize(0.99)), LearnedWeight(1e-6)) for _ in range(LAYERS)],
    "steps near 2 / L": lambda _: [Layer(ISTA(StepSize(0.998)), LearnedWeight()) for _ in range(LAYERS)],
    "steps near 0": lambda _: [Layer(ISTA(StepSize(0.002)), LearnedWeight()) for _ in range(LAYERS)],
    "momentum": lambda _: [Layer(FISTA(StepSize(0.9)), LearnedWeight(0.5)) for _ in range(LAYERS)],
    "random network": lambda c: [Layer(ISTA(StepSize()), NetworkPrior(drawn(c))) for _ in range(LAYERS)],
    "random variational": lambda c: [VariationalNetwork(drawn(c)) for _ in range(LAYERS)],
    "random primal-dual": lambda c: [
        LearnedPrimalDual(
            drawn(c, 3, 2),
            drawn(c, 3, 2),
            1,
        )
        for _ in range(LAYERS)
    ],
    "NaN": networks(lambda x: x * math.nan),
    "NaN in every second element": networks(poison),
    "infinite": networks(lambda x: x + math.inf),
    "explosion": networks(lambda x: 1e30 * x),
    "overflow of the objective": networks(lambda x: 3e38 * x.sgn()),
    "zero": networks(torch.zeros_like),
}
REFUSED = {"huge thresholds", "NaN", "NaN in every second element", "infinite", "explosion"}


def unrolled(layers: Layers, **settings: Any) -> Unrolled:
    return Unrolled(layers, prior=lambda space: L1(space, 1.0), **settings)


def measured(A: LinearOperator, batch: int = 9, seed: int = 1) -> Tensor:
    """Measurements of sizes from 1e-2 to 1e2."""
    y = A.range.random(torch.Generator().manual_seed(seed), (batch,))
    return y * torch.logspace(-2, 2, batch)[:, None, None]


def walked(model: Unrolled, problem: Problem, x0: Tensor | None) -> list[Guarded]:
    state = model.layers[0].init(problem, x0)  # type: ignore[operator]
    states = [state]
    for layer in model.layers:
        states.append(layer(problem, states[-1]))
    return states


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
@pytest.mark.parametrize("back", ["adjoint", "pseudo-inverse"])
@pytest.mark.parametrize("adversary", ADVERSARIES)
def test_objective_never_above_as_many_steps_of_ista(adversary: str, back: Any, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    A = Blur(dtype)
    y = measured(A)
    noise = y.abs().mean(dim=(-2, -1)) / 10
    model = unrolled(ADVERSARIES[adversary](dtype.is_complex), back=back)
    guarded = safeguarded(model)
    problem, x0 = guarded.problem(A, y, noise), guarded.starting_image(A, y)
    states = walked(guarded, problem, x0)
    # The promise, checked with classical steps on a problem of our own that has no backprojector.
    plain = Problem(Term(LeastSquares(A.range, y), A), problem.prior)
    for k, state in enumerate(states):
        classical = run(nn.ModuleList([ISTA()] * k), plain, x0=x0).x
        assert bool((plain.objective(state.x) <= plain.objective(classical)).all())
        if k:
            assert bool((plain.objective(state.x) <= plain.objective(states[k - 1].x)).all())
    assert bool(states[-1].x.isfinite().all())
    assert states[-1].fallbacks.shape == (LAYERS, 9)
    # The report says what happened, and forward() gives the same image.
    torch.testing.assert_close(states[-1].objective, plain.objective(states[-1].x), rtol=0, atol=0)
    torch.testing.assert_close(guarded(A, y, noise), states[-1].x, rtol=0, atol=0)
    if adversary in REFUSED:
        with torch.no_grad():
            bare = plain.objective(model(A, y, noise))
        assert not bool((bare <= states[-1].objective).all())
        assert bool(states[-1].fallbacks.any())


def test_classical_layers_are_taken_and_change_nothing() -> None:
    A = Blur(torch.float32)
    y = measured(A)
    guarded = safeguarded(unrolled([Layer(ISTA(), LearnedWeight()) for _ in range(LAYERS)], back="adjoint"))
    problem, x0 = guarded.problem(A, y, 0.1), guarded.starting_image(A, y)
    state = run(guarded.layers, problem, x0=x0).state
    assert isinstance(state, Guarded)
    assert not bool(state.fallbacks.any())
    expected = run(nn.ModuleList([ISTA()] * LAYERS), problem, x0=x0).x
    # A learned weight of one passes through softplus.
    torch.testing.assert_close(state.x, expected, rtol=1e-5, atol=1e-5)


def test_better_layers_are_taken() -> None:
    """Longer steps than ISTA's get lower, and the safeguard keeps what they gain."""
    A = Blur(torch.float32)
    y = measured(A)
    guarded = safeguarded(unrolled([Layer(ISTA(StepSize(0.85)), LearnedWeight()) for _ in range(4)], back="adjoint"))
    state = run(guarded.layers, guarded.problem(A, y, 0.1), x0=guarded.starting_image(A, y)).state
    assert isinstance(state, Guarded)
    assert bool((state.objective < state.classical_objective).float().mean() > 0.7)


def test_layer_that_never_moves_still_gets_as_far_as_ista() -> None:
    """It never raises the objective, so that forbidding a rise alone would leave it where it starts."""
    A = Blur(torch.float32)
    y = measured(A)

    class Idle(Step[State]):
        def init(self, problem: Problem, x0: Tensor | None = None) -> State:
            return State(problem.zeros() if x0 is None else x0)

        def forward(self, problem: Problem, state: State) -> State:
            return state

    guarded = safeguarded(unrolled([Idle() for _ in range(LAYERS)], start="zero", back="adjoint"))
    problem = guarded.problem(A, y, 1e-4)
    state = run(guarded.layers, problem).state
    assert isinstance(state, Guarded)
    assert bool(state.fallbacks.all())
    classical = run(nn.ModuleList([ISTA()] * LAYERS), problem).x
    assert bool((problem.objective(state.x) <= problem.objective(classical)).all())
    assert bool((state.objective < problem.objective(problem.zeros())).all())


def test_every_element_decides_for_itself() -> None:
    A = Blur(torch.float32)
    y = measured(A, batch=4)
    layers = [Layer(ISTA(), NetworkPrior(Bend(poison))) for _ in range(LAYERS)]
    guarded = safeguarded(Unrolled(layers, start="zero", back="adjoint", prior=lambda space: L1(space, 1e-6)))
    state = run(guarded.layers, guarded.problem(A, y, 1.0)).state
    assert isinstance(state, Guarded)
    assert state.fallbacks.tolist() == [[False, True, False, True]] * LAYERS


def test_memory_begins_anew_after_a_fallback() -> None:
    """What a refused layer remembers must not spoil those that follow."""
    A = Blur(torch.float32)
    y = measured(A)

    class Poisoned(FISTA):
        def forward(self, problem: Problem, state: Any) -> Any:
            after = super().forward(problem, state)
            return type(after)(after.x * math.nan, after.z * math.nan, after.t * math.nan)

    layers: Layers = [FISTA(), Poisoned(), FISTA(), FISTA()]
    guarded = safeguarded(unrolled(layers, start="zero", back="adjoint"))
    state = run(guarded.layers, guarded.problem(A, y, 0.1)).state
    assert isinstance(state, Guarded)
    assert state.fallbacks.all(dim=1).tolist() == [False, True, False, False]
    assert not bool(state.fallbacks[2:].any())


def test_layers_are_shared_and_gradients_do_not_flow() -> None:
    A = Blur(torch.float32)
    model = unrolled([Layer(ISTA(StepSize()), LearnedWeight())])
    guarded = safeguarded(model)
    assert {id(p) for p in guarded.parameters()} == {id(p) for p in model.parameters()}
    assert not guarded(A, measured(A), 0.1).requires_grad


def test_problems_without_the_theorem_are_refused() -> None:
    A = Blur(torch.float32)
    data = Term(LeastSquares(A.range, measured(A)), A)
    guard = Safeguard(ISTA())
    with pytest.raises(InputError, match="objective of a safeguarded method"):
        guard.init(Problem(data, PnP(A.domain, lambda x, sigma: x, 0.1)))
    gradient = Gradient(A.domain)
    with pytest.raises(InputError, match="without operator terms"):
        guard.init(Problem(data, terms=(Term(L1(gradient.range, 1.0), gradient),)))
    with pytest.raises(InputError, match="smooth"):
        guard.init(Problem(Term(L1(A.domain, 1.0), Identity(A.domain))))
