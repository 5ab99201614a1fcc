"""Gradient flow: against a hand-made backward pass, and on fifty layers with and without skip connections."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
from torch import nn

from priorloom.constraints import StepSize
from priorloom.diagnose.gradient_flow import GradientFlow, gradient_flow, mean_square
from priorloom.errors import InputError
from priorloom.modality import Batch
from priorloom.networks import ConvolutionBlock, ImageNetwork
from priorloom.operator import Identity
from priorloom.registry import Registry
from priorloom.space import Space
from priorloom.steps import ISTA, State
from priorloom.steps.learned import Layer, NetworkPrior
from priorloom.unrolled import Unrolled, repeat

Start = Literal["critical", "torch", "zero"]


def deep(skip: bool, start: Start, layers: int = 50, width: int = 16) -> Unrolled:
    """Learned proximal gradient with 50 layers; without skips its networks replace their input.

    "critical" is the start that favours a network without skips the most: weights that keep the mean square of the
    signal from layer to layer (He et al., 2015; the last convolution has no ReLU behind it). "torch" is PyTorch's.
    """

    def layer() -> Layer[State]:
        block = ConvolutionBlock(1, 1, width=width, zero=start == "zero")
        if start == "critical":
            weight = block.convolutions[-1].weight
            assert isinstance(weight, torch.Tensor)
            nn.init.kaiming_normal_(weight, nonlinearity="linear")
        if start == "torch":
            for convolution in block.convolutions:
                assert isinstance(convolution, nn.Conv2d)
                convolution.reset_parameters()
        return Layer(ISTA(StepSize()), NetworkPrior(ImageNetwork(block, skip)))

    torch.manual_seed(0)
    return Unrolled(repeat(layer, layers))


def train(model: Unrolled, batch: Batch, steps: int = 20) -> float:
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(steps):
        optimiser.zero_grad()
        loss = mean_square(model(batch.operator, batch.measurement, batch.noise_std), batch)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
    return float(loss.detach())


@pytest.mark.parametrize("start", ["critical", "torch", "zero"])
def test_fifty_layers_without_skips_are_flagged(ct: Batch, start: Start) -> None:
    flow = gradient_flow(deep(skip=False, start=start), ct)
    assert flow.layers == 50
    assert flow.verdict == "vanishing"
    assert flow.ratio < 1e-3


def test_fifty_layers_with_skips_pass(ct: Batch, registry: Registry) -> None:
    model = registry.architecture("learned-proximal-gradient", ct.operator, {"layers": 50, "width": 16})
    assert gradient_flow(model, ct).verdict == "passes"


@pytest.mark.slow
def test_training_cures_neither_but_the_one_with_skips_learns(tiny: Batch) -> None:
    flat, skipping = deep(skip=False, start="torch", width=8), deep(skip=True, start="zero", width=8)
    before = gradient_flow(skipping, tiny).loss
    train(flat, tiny)
    assert train(skipping, tiny) < 0.2 * before
    assert gradient_flow(flat, tiny).verdict == "vanishing"
    assert gradient_flow(skipping, tiny).verdict == "passes"


def test_random_networks_beside_skips_explode(ct: Batch) -> None:
    # Each of the 50 layers adds a signal as large as its input.
    flow = gradient_flow(deep(skip=True, start="critical"), ct)
    assert flow.verdict == "exploding"
    assert flow.factor > 1.15


def test_norms_are_those_of_the_backward_pass(ct: Batch) -> None:
    model = deep(skip=True, start="critical", layers=3)
    flow = gradient_flow(model, ct)
    loss = mean_square(model(ct.operator, ct.measurement, ct.noise_std), ct)
    loss.backward()  # type: ignore[no-untyped-call]
    for layer, norm in zip(model.layers, flow.parameters, strict=True):
        parts = [p.grad.norm() for p in layer.parameters() if p.grad is not None]
        assert norm == pytest.approx(float(torch.stack(parts).norm()), rel=1e-4)
    assert flow.loss == pytest.approx(float(loss.detach()), rel=1e-5)
    assert flow.state == flow.image
    # d mean |x - truth|^2 / dx = 2 (x - truth) / n has the norm 2 sqrt(loss / n).
    assert ct.truth is not None
    assert flow.image[-1] == pytest.approx(2 * math.sqrt(flow.loss / ct.truth.numel()), rel=1e-5)


def test_layers_that_share_their_parameters_get_their_shares(ct: Batch, registry: Registry) -> None:
    settings = {"layers": 3, "width": 8, "shared": True}
    model = registry.architecture("learned-proximal-gradient", ct.operator, settings)
    flow = gradient_flow(model, ct)
    mean_square(model(ct.operator, ct.measurement, ct.noise_std), ct).backward()  # type: ignore[no-untyped-call]
    whole = math.sqrt(sum(float(p.grad.square().sum()) for p in model.parameters() if p.grad is not None))
    assert max(flow.parameters) < whole <= sum(flow.parameters) * 1.0001


class Scaling(ISTA):
    """``x+ = c x``: the gradient is known in closed form."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, problem: object, state: State) -> State:
        return State(self.factor * state.x)


def scaled(factor: float, layers: int) -> GradientFlow:
    space = Space((3,))
    batch = Batch(Identity(space), torch.ones(2, 3), torch.zeros(2, 3), torch.zeros(2))
    return gradient_flow(Unrolled([Scaling(factor) for _ in range(layers)], back="adjoint"), batch)


@pytest.mark.parametrize(("factor", "verdict"), [(0.8, "vanishing"), (1.0, "passes"), (1.3, "exploding")])
def test_known_gradient(factor: float, verdict: str) -> None:
    flow = scaled(factor, 40)
    assert flow.verdict == verdict
    assert flow.factor == pytest.approx(factor, rel=1e-4)
    assert flow.relative == pytest.approx([factor ** (40 - k) for k in range(1, 41)], rel=1e-4)


def test_one_layer_passes() -> None:
    assert scaled(0.1, 1).verdict == "passes"


def test_gradient_that_is_not_finite_is_exploding() -> None:
    assert scaled(1e15, 3).verdict == "exploding"


def test_complex_network_with_memory(mri: Batch, registry: Registry) -> None:
    model = registry.architecture("learned-primal-dual", mri.operator, {"layers": 4, "width": 8})
    flow = gradient_flow(model, mri)
    assert flow.verdict == "passes"
    assert all(whole >= image for whole, image in zip(flow.state, flow.image, strict=True))
    assert all(p.grad is None for p in model.parameters())


def test_no_truth_and_no_gradient_are_told(ct: Batch, registry: Registry) -> None:
    model = registry.architecture("learned-proximal-gradient", ct.operator, {"layers": 2, "width": 8})
    with pytest.raises(InputError, match="expected a truth"):
        gradient_flow(model, Batch(ct.operator, ct.measurement, None, ct.noise_std))
    with pytest.raises(InputError, match="expected not zero"):
        gradient_flow(model, ct, loss=lambda x, _: (0 * x).abs().sum())
    with pytest.raises(InputError, match="at least one, each a Step"):
        gradient_flow(Unrolled([]), ct)
