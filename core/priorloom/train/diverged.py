"""Where a training went wrong: the first part of a network whose output is not finite."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import DivergenceError
from ..modality import Batch
from ..unrolled import Unrolled

_CURE = "lower optimiser.learning_rate, or set optimiser.gradient_clip"


def check_gradients(model: Unrolled, norm: float, number: int, kept: str) -> None:
    """Raise DivergenceError where the norm of the gradient is not finite, with the parameter named."""
    if not torch.isfinite(torch.tensor(norm)):
        bad = (n for n, p in model.named_parameters() if p.grad is not None and not bool(p.grad.isfinite().all()))
        name = next(bad, "all of them, whose sum overflows")
        raise DivergenceError(f"training diverged at batch {number}", expected="a finite gradient",
                              got=f"NaN or infinite values in that of {described(model, name)}",
                              cure=f"{_CURE}; {kept}")  # fmt: skip


def diverged(model: Unrolled, batch: Batch, number: int, kept: str) -> DivergenceError:
    """The error for a batch whose loss is not finite: runs the model again and watches every part."""
    where = _first(model, batch)
    return DivergenceError(f"training diverged at batch {number}", expected="a finite loss",
                           got=f"NaN or infinite values in {where}", cure=f"{_CURE}; {kept}")  # fmt: skip


def described(model: Unrolled, name: str) -> str:
    """A part of the model by its name, with the type of the layer that it belongs to."""
    parts = name.split(".")
    if len(parts) > 1 and parts[0] == "layers":
        layer = model.layers[int(parts[1])]
        return f"layer {int(parts[1]) + 1} of {len(model.layers)} ({type(layer).__name__}): {name}"
    return name


def _first(model: Unrolled, batch: Batch) -> str:
    for what, tensor in (
        ("the measurement", batch.measurement),
        ("the truth", batch.truth),
        ("the noise level", batch.noise_std),
    ):
        if tensor is not None and not bool(tensor.isfinite().all()):
            return what
    for name, parameter in model.named_parameters():
        if not bool(parameter.isfinite().all()):
            return f"the weights of {described(model, name)}"
    found: list[str] = []
    names = {module: name for name, module in model.named_modules() if name}

    def watch(module: nn.Module, arguments: Any, output: Any) -> None:
        if not found and not all(bool(t.isfinite().all()) for t in _tensors(output)):
            found.append(names[module])

    handles = [module.register_forward_hook(watch) for module in names]
    try:
        with torch.no_grad():
            start = model.starting_image(batch.operator, batch.measurement)
            if start is not None and not bool(start.isfinite().all()):
                return "the starting image"
            image: Tensor = model(batch.operator, batch.measurement, batch.noise_std)
    except DivergenceError as error:
        return str(error)
    finally:
        for handle in handles:
            handle.remove()
    if found:
        return f"the output of {described(model, found[0])}"
    return f"the loss of the output of {described(model, _last(model))}, which reaches {float(image.abs().max()):.3g}"


def _last(model: Unrolled) -> str:
    return f"layers.{len(model.layers) - 1}"


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
    elif is_dataclass(value):
        for item in fields(value):
            yield from _tensors(getattr(value, item.name))
