"""Jacobian extremes: against matrices that are known, autograd's Jacobian, and each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from priorloom.diagnose import jacobian as module
from priorloom.diagnose.jacobian import jacobian_extremes
from priorloom.diagnose.states import images_of, states
from priorloom.modality import Batch
from priorloom.operator import Identity
from priorloom.problem import Problem
from priorloom.registry import Registry
from priorloom.space import Space
from priorloom.steps import State, Step
from priorloom.steps.base import start
from priorloom.unrolled import Unrolled


class Matrix(Step[State]):
    """``x+ = M x``, real or complex."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.register_buffer("matrix", matrix)

    def init(self, problem: Problem, x0: Tensor | None = None) -> State:
        return State(start(problem, x0))

    def forward(self, problem: Problem, state: State) -> State:
        assert isinstance(self.matrix, Tensor)
        return State(state.x @ self.matrix.T)


def network(matrix: Tensor) -> tuple[Unrolled, Batch]:
    space = Space((matrix.shape[0],), matrix.dtype)
    y = space.random(torch.Generator().manual_seed(1), (2,))
    return Unrolled([Matrix(matrix)], back="adjoint"), Batch(Identity(space), y, None, torch.zeros(2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_singular_values_of_a_matrix(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = torch.randn(30, 30, dtype=dtype, generator=torch.Generator().manual_seed(0))
    model, batch = network(matrix)
    expected = np.linalg.svd(matrix.numpy(), compute_uv=False)
    (dense,) = jacobian_extremes(model, batch)
    assert dense.method == "dense"
    assert dense.unknowns == (60 if dtype.is_complex else 30)
    assert (dense.largest, dense.smallest) == pytest.approx((expected[0], expected[-1]), rel=1e-3)
    monkeypatch.setattr(module, "DENSE_LIMIT", 0)
    (all_steps,) = jacobian_extremes(model, batch, lanczos_steps=60)
    assert all_steps.method == "lanczos"
    assert (all_steps.largest, all_steps.smallest) == pytest.approx((expected[0], expected[-1]), rel=1e-2)
    (few,) = jacobian_extremes(model, batch, lanczos_steps=12)
    assert 0.97 * expected[0] <= few.largest <= expected[0] * 1.0001  # from below
    assert few.smallest >= 0.999 * expected[-1]  # from above


def test_zero_and_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in (module.DENSE_LIMIT, 0):
        monkeypatch.setattr(module, "DENSE_LIMIT", limit)
        for factor in (0.0, 1.0):
            (found,) = jacobian_extremes(*network(factor * torch.eye(7)))
            assert (found.largest, found.smallest) == pytest.approx((factor, factor), abs=1e-6)


def test_a_network_against_autograd(tiny: Batch, registry: Registry) -> None:
    model = registry.architecture("learned-proximal-gradient", tiny.operator, {"layers": 2, "width": 4})
    torch.manual_seed(3)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape))
    one = Batch(tiny.operator, tiny.measurement[:1], None, tiny.noise_std[:1])
    problem = model.problem(one.operator, one.measurement, one.noise_std)
    path = list(states(model, one))
    found = jacobian_extremes(model, tiny)
    for layer, state, extremes in zip(model.layers, path, found, strict=False):
        whole = torch.autograd.functional.jacobian(lambda x, layer=layer: layer(problem, State(x)).x, state.x.detach())
        values = torch.linalg.svdvals(whole.reshape(144, 144).double())
        assert extremes.largest == pytest.approx(float(values[0]), rel=1e-4)
        assert extremes.smallest == pytest.approx(float(values[-1]), abs=1e-4)


@pytest.mark.parametrize("name", ["learned-primal-dual", "modl", "learned-ista", "variational-network"])
def test_dense_and_lanczos_agree_on_the_largest(
    mri: Batch, registry: Registry, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = registry.architecture(name, mri.operator, {"layers": 2})
    torch.manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.02 * torch.randn(p.shape))
    monkeypatch.setattr(module, "DENSE_LIMIT", 10_000)
    if name == "learned-primal-dual":  # x, its extrapolation and 4 images, p and 4 measurements
        (state, *_) = states(model, mri)
        assert len(images_of(state)) == 11
    else:
        dense = jacobian_extremes(model, mri)
        monkeypatch.setattr(module, "DENSE_LIMIT", 0)
        for a, b in zip(dense, jacobian_extremes(model, mri), strict=True):
            assert b.largest == pytest.approx(a.largest, rel=1e-2)
            assert b.smallest >= a.smallest - 1e-4


def test_the_model_is_left_alone(ct: Batch, registry: Registry) -> None:
    model = registry.architecture("learned-proximal-gradient", ct.operator, {"layers": 1, "width": 4})
    model.requires_grad_(False)
    jacobian_extremes(model, ct)
    assert all(p.grad is None and not p.requires_grad for p in model.parameters())
    assert isinstance(model.layers, nn.ModuleList)
