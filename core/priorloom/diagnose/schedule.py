"""The learned schedule: every constrained number that an unrolled network has learned, against its classical value."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from ..constraints import Penalty, Positive, Relative, StepSize
from ..steps.learned import Layer, LearnedWeight
from ..unrolled import Unrolled
from .states import steps_of

Quantity = Literal["step size", "penalty", "weight", "threshold", "number"]
Unit = Literal["1/L", "L", "lam/L", "1"]


@dataclass(frozen=True)
class Learned:
    """One learned number of one layer.

    Parameters
    ----------
    layer
        1, ..., K.
    name
        Where it is in the layer, such as ``step.step_size``.
    quantity
        A step size, a penalty, a weight in ``[0, inf)``, the threshold of a layer (learned as such, or the product of
        its step size and its weight), or a free number.
    unit
        In what: the reciprocal of the Lipschitz constant L of the data gradient, L, the problem's weight lam over L,
        or none.
    value, classical
        The number, and that of the classical method (where training started); None where there is none.
    legal
        Whether it is in its legal range: step sizes in (0, 2), the others in [0, inf).
    """

    layer: int
    name: str
    quantity: Quantity
    unit: Unit
    value: float
    classical: float | None
    legal: bool


def schedule(model: Unrolled) -> tuple[Learned, ...]:
    """Every `StepSize`, `Penalty`, `Positive` and free number of a network, layer by layer; ``1 / L`` is the step size
    of ISTA, ``lam / L`` its threshold."""
    with torch.no_grad():
        found: list[Learned] = []
        for number, step in enumerate(steps_of(model.layers), start=1):
            mine = list(_numbers(number, step))
            found += mine
            found += _threshold(number, step, mine)
    return tuple(found)


def _numbers(layer: int, step: nn.Module) -> Iterator[Learned]:
    inside: set[str] = set()  # what belongs to a constrained number above it
    for name, module in step.named_modules():
        if any(name.startswith(f"{outer}.") for outer in inside):
            continue
        if isinstance(module, Relative):
            inside.add(name)
            yield _relative(layer, name, module)
        elif isinstance(module, Positive):
            inside.add(name)
            value = float(module())
            quantity: Quantity = "threshold" if name.rpartition(".")[2] == "threshold" else "weight"
            yield Learned(layer, name, quantity, "1", value, module.initial, 0 <= value < torch.inf)
    for name, parameter in step.named_parameters():
        if parameter.ndim == 0 and not any(name.startswith(f"{outer}.") for outer in inside):
            value = float(parameter)
            yield Learned(layer, name, "number", "1", value, None, abs(value) < torch.inf)


def _relative(layer: int, name: str, module: Relative) -> Learned:
    value = float(module(1.0))
    if isinstance(module, StepSize):
        return Learned(layer, name, "step size", "1/L", value, 1.0, 0 < value < 2)
    classical = module.factor.initial if isinstance(module, Penalty) else None
    return Learned(layer, name, "penalty", "L", value, classical, 0 <= value < torch.inf)


def _threshold(layer: int, step: nn.Module, mine: list[Learned]) -> list[Learned]:
    """The threshold of a proximal gradient layer, ``t c`` in units of ``lam / L``."""
    if not (isinstance(step, Layer) and isinstance(step.prior, LearnedWeight)):
        return []
    steps = [n for n in mine if n.quantity == "step size"]
    weights = [n for n in mine if n.name == "prior.weight"]
    if len(steps) != 1 or len(weights) != 1:
        return []
    value = steps[0].value * weights[0].value
    return [Learned(layer, "threshold", "threshold", "lam/L", value, 1.0, 0 <= value < torch.inf)]
