"""Crossover: on curves that are known, and of an unrolled ISTA, which needs as many iterations as it has layers."""

from __future__ import annotations

import time

import pytest
import torch
from torch import Tensor

from priorloom.diagnose.crossover import (
    Curve,
    Need,
    Rival,
    faster_from,
    iteration_seconds,
    layer_errors,
    need,
    relative_error,
    rival_errors,
    seconds_of,
)
from priorloom.errors import InputError
from priorloom.modality import Batch
from priorloom.problem import Problem
from priorloom.registry import Registry
from priorloom.solve import run
from priorloom.space import Space
from priorloom.steps import FISTA, ISTA, State
from priorloom.unrolled import Unrolled

CURVE = Curve("m", (1.0, 0.5, 0.25, 0.3), iteration_seconds(0.1, 0.2, 3), limit=0.3)


def test_what_a_method_needs() -> None:
    assert need(CURVE, 0.5) == Need("m", "reached", 1, pytest.approx(0.3))
    assert need(CURVE, 0.26) == Need("m", "reached", 2, pytest.approx(0.5))  # on the way, before its limit
    assert need(CURVE, 0.2) == Need("m", "never")
    open_end = Curve("m", CURVE.errors, CURVE.seconds)
    assert need(open_end, 0.2) == Need("m", "not yet", 3, pytest.approx(0.7))


def test_from_which_layer_a_network_is_faster() -> None:
    network = Curve("network", (1.0, 0.9, 0.5, 0.2), (0.05, 0.15, 0.25, 0.35))
    needs = [Need("m", "reached", 1, 0.1), Need("m", "reached", 3, 0.3), Need("m", "never")]
    assert faster_from(network, needs) == 2
    assert faster_from(network, [*needs[:2], Need("m", "reached", 1, 0.1)]) is None
    assert faster_from(network, [Need("m", "never")] * 3) == 1


def test_an_unrolled_ista_needs_its_layers(tiny: Batch, registry: Registry) -> None:
    model = registry.architecture("learned-ista", tiny.operator, {"layers": 6})
    problem = model.problem(tiny.operator, tiny.measurement, tiny.noise_std)
    start = model.starting_image(tiny.operator, tiny.measurement)
    best = run(FISTA(), problem, n=20_000, tol=1e-5, x0=start)
    assert best.converged
    errors = layer_errors(model, tiny, best.x)
    ista, converged = rival_errors(Rival("ista", ISTA(), problem, lambda: start, max_iterations=8), best.x)
    assert not converged
    assert errors == pytest.approx(ista[:7], rel=1e-5)
    curve = Curve("ista", ista, iteration_seconds(0.0, 1.0, 8))
    assert need(curve, errors[-1] * 1.00001).iterations == 6


def test_iterations_end_with_convergence(tiny: Batch, registry: Registry) -> None:
    model = registry.architecture("learned-ista", tiny.operator, {"layers": 1})
    problem = model.problem(tiny.operator, tiny.measurement, tiny.noise_std)
    assert tiny.truth is not None
    rival = Rival("fista", FISTA(), problem, lambda: None, max_iterations=5000, tolerance=1e-3)
    errors, converged = rival_errors(rival, tiny.truth)
    assert converged
    assert len(errors) < 1000
    assert errors[0] == pytest.approx(1.0)  # the start is zero


class Sleeping(ISTA):
    """A layer that takes its time."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def forward(self, problem: Problem, state: State) -> State:
        time.sleep(self.seconds)
        return State(state.x + 1)


def test_seconds(ct: Batch) -> None:
    model = Unrolled([Sleeping(0.004), Sleeping(0.012)], start="zero", back="adjoint")
    problem = model.problem(ct.operator, ct.measurement, ct.noise_std)
    rival = Rival("slow", Sleeping(0.002), problem, lambda: time.sleep(0.003))
    found = seconds_of(model, ct, [rival], repeats=3)
    start, first, second = found["network"]
    assert first - start >= 0.004
    assert second - first >= 0.012
    begin, iteration = found["slow"]
    assert begin >= 0.003
    assert iteration >= 0.002
    assert iteration_seconds(begin, iteration, 2) == pytest.approx((begin, begin + iteration, begin + 2 * iteration))


def test_relative_error() -> None:
    space = Space((2,))
    reference: Tensor = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    assert relative_error(space, reference + torch.tensor([[0.0, 0.0], [0.0, 1.0]]), reference) == pytest.approx(0.2)
    with pytest.raises(InputError, match="not zero"):
        relative_error(space, reference, torch.zeros(2, 2))
