"""The learned schedule: a new network has the classical values, a trained one legal ones."""

from __future__ import annotations

import torch

from priorloom.constraints import Positive, StepSize
from priorloom.diagnose.schedule import schedule
from priorloom.modality import Batch
from priorloom.registry import Registry
from priorloom.steps import ISTA
from priorloom.unrolled import Unrolled


def test_new_networks_have_the_classical_values(ct: Batch, registry: Registry) -> None:
    for name in ("learned-ista", "learned-proximal-gradient", "learned-primal-dual", "modl", "variational-network"):
        found = schedule(registry.architecture(name, ct.operator, {"layers": 3}))
        assert {n.layer for n in found} == {1, 2, 3}, name
        for n in found:
            assert n.classical is not None
            assert abs(n.value - n.classical) < 1e-6 * n.classical


def test_numbers_are_those_of_the_steps(ct: Batch, registry: Registry) -> None:
    model = registry.architecture("learned-ista", ct.operator, {"layers": 2})
    layer = model.layers[1]
    steps = [m for m in layer.modules() if isinstance(m, StepSize)]
    weights = [m for m in layer.modules() if isinstance(m, Positive)]
    with torch.no_grad():
        steps[0].free.fill_(1.0)
        weights[0].free.fill_(-1.0)
    lipschitz = model.problem(ct.operator, ct.measurement, ct.noise_std).data.lipschitz()
    assert lipschitz is not None
    found = {n.quantity: n for n in schedule(model) if n.layer == 2}
    assert set(found) == {"step size", "weight", "threshold"}
    t, c = float(steps[0](lipschitz).detach()), float(weights[0]().detach())
    assert abs(found["step size"].value - t * lipschitz) < 1e-5
    assert abs(found["weight"].value - c) < 1e-6
    assert abs(found["threshold"].value - t * lipschitz * c) < 1e-5
    assert all(n.legal for n in found.values())


def test_free_numbers_and_layers_without_any(ct: Batch, registry: Registry) -> None:
    loose = Unrolled([ISTA(torch.nn.Parameter(torch.tensor(0.25))), ISTA()])
    (found,) = schedule(loose)
    assert (found.layer, found.quantity, found.value, found.classical) == (1, "number", 0.25, None)
    assert schedule(registry.architecture("unet", ct.operator)) == ()


def test_whatever_the_free_number_the_schedule_is_legal(ct: Batch, registry: Registry) -> None:
    model = registry.architecture("modl", ct.operator, {"layers": 2})
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(1e4)
    assert all(n.legal for n in schedule(model))
