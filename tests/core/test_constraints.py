"""Learned scalars stay legal, whatever an optimiser does to the free number and whatever the operator at hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from priorloom import Problem, Term, run
from priorloom.constraints import LEAST, MARGIN, Penalty, Positive, StepSize
from priorloom.errors import InputError
from priorloom.functional import LeastSquares
from priorloom.steps import ISTA
from priorloom.steps.base import per_image
from priorloom.steps.learned import Layer, LearnedPrimalDual, LearnedWeight
from priorloom_priors.functionals import L1

FREE = [-1e30, -1e4, -30.0, -1.0, 0.0, 1.0, 30.0, 1e4]


def at(module: nn.Module, free: float) -> nn.Module:
    with torch.no_grad():
        next(module.parameters()).fill_(free)
    return module


@pytest.mark.parametrize("free", [*FREE, 1e30])
@pytest.mark.parametrize("lipschitz", [1e-8, 1.0, 3e7])
def test_step_sizes_are_inside_the_open_interval(free: float, lipschitz: float) -> None:
    t = float(at(StepSize(), free)(lipschitz).detach())
    assert 0.99 * MARGIN * 2 / lipschitz < t < 2 / lipschitz * (1 - 0.99 * MARGIN)


@pytest.mark.parametrize("free", FREE)
def test_weights_are_not_negative_and_finite(free: float) -> None:
    weight = float(at(Positive(0.5), free)().detach())
    assert 0 <= weight < float("inf")
    penalty = at(Penalty(0.1), free)(4.0).detach()
    assert float(penalty) >= 0.99 * LEAST * 0.4
    assert bool(torch.isfinite(1 / penalty))
    ratio = at(LearnedPrimalDual(nn.Identity(), nn.Identity(), 0), free).ratio
    assert isinstance(ratio, Positive)
    assert bool(torch.isfinite(1 / ratio().detach()))


def test_initial_values_are_what_was_asked_for() -> None:
    assert float(StepSize(0.5)(8.0).detach()) == pytest.approx(1 / 8)
    assert float(StepSize(0.9)(8.0).detach()) == pytest.approx(0.9 * 2 / 8)
    assert float(Positive(3.0)().detach()) == pytest.approx(3.0)
    assert float(Penalty(0.1)(8.0).detach()) == pytest.approx(0.8)
    assert torch.allclose(StepSize()(torch.tensor([1.0, 4.0])), torch.tensor([1.0, 0.25]))  # one per batch element


@pytest.mark.parametrize("make", [lambda: StepSize(0.0), lambda: StepSize(1.0), lambda: Positive(-1.0),
                                  lambda: Positive(float("inf")), lambda: Positive(1.0, 1.0)])  # fmt: skip
def test_illegal_beginnings_are_refused(make: Callable[[], nn.Module]) -> None:
    with pytest.raises(InputError, match="expected a"):
        make()


def test_derivatives_exist_and_point_up() -> None:
    for module, argument in ((StepSize(), (2.0,)), (Positive(), ()), (Penalty(), (2.0,))):
        (gradient,) = torch.autograd.grad(module(*argument), list(module.parameters()))
        assert float(gradient) > 0


@pytest.mark.parametrize("scale", [1e-3, 1.0, 100.0])
def test_the_operator_at_inference_decides(matrix: Any, gaussian: Callable[..., Tensor], scale: float) -> None:
    """Layers with the longest steps that training could reach, on an operator a hundred times that of training."""
    A = matrix(scale * gaussian(12, 20))
    problem = Problem(Term(LeastSquares(A.range, scale * gaussian(12, seed=1)), A), L1(A.domain, 1e-3 * scale**2))
    layers = nn.ModuleList(Layer(ISTA(at(StepSize(), 1e4)), LearnedWeight()) for _ in range(60)).double()
    steps = [float(per_image(problem, problem.zeros(), layer.step.step_size).detach()) for layer in layers]
    largest = float(torch.linalg.matrix_norm(A.M, 2)) ** 2
    assert all(0 < t < 2 / largest for t in steps)
    with torch.no_grad():
        values = [float(problem.objective(run(layers[:k], problem).x)) for k in (1, 30, 60)]
    assert float(problem.objective(problem.zeros())) > values[0] > values[1] >= values[2]
