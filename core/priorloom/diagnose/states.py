"""The states between the layers of an unrolled network, and their images as tensors that can be differentiated."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..modality import Batch
from ..problem import Problem
from ..steps.base import State, Step
from ..unrolled import Unrolled

Images = dict[str, Tensor]
"""The images of a state by name: ``x``, ``p``, ``images.0`` ..."""


def steps_of(layers: nn.ModuleList | Sequence[nn.Module]) -> list[Step[Any]]:
    """The layers as Steps.

    Raises
    ------
    InputError
        There is none, or one is not a Step.
    """
    steps = [layer for layer in layers if isinstance(layer, Step)]
    if not steps or len(steps) != len(layers):
        odd = next((type(layer).__name__ for layer in layers if not isinstance(layer, Step)), "none")
        raise InputError("layers of an unrolled network", expected="at least one, each a Step", got=odd)
    return steps


def problem_of(model: Unrolled, batch: Batch) -> Problem:
    """The problem that the layers see on a batch."""
    return model.problem(batch.operator, batch.measurement, batch.noise_std)


def states(model: Unrolled, batch: Batch) -> Iterator[State]:
    """The states after 0, 1, ..., K layers."""
    steps = steps_of(model.layers)
    problem = problem_of(model, batch)
    state: State = steps[0].init(problem, model.starting_image(batch.operator, batch.measurement))
    yield state
    for step in steps:
        state = step(problem, state)
        yield state


def images_of(state: State, batch_dimensions: int = 1) -> Images:
    """The tensors of a state that have more than the batch dimensions: images and measurements, not scalars."""
    found: Images = {}
    for name, value in tensors_of(state):
        if value.ndim > batch_dimensions and (value.is_floating_point() or value.is_complex()):
            found[name] = value
    return found


def moving(before: State, after: State) -> tuple[str, ...]:
    """The names of the images that a layer replaces; it only hands on the others, such as ``A^H y``."""
    new = images_of(after)
    return tuple(name for name, value in images_of(before).items() if name in new and new[name] is not value)


def with_images(state: State, images: Mapping[str, Tensor]) -> State:
    """`state` with some of its images replaced."""
    return mapped(state, images.get)


def mapped(state: State, change: Callable[[str, Tensor], Tensor | None]) -> State:
    """`state` with every tensor changed."""
    made: dict[str, Any] = {}
    for f in fields(state):
        value = getattr(state, f.name)
        if isinstance(value, Tensor):
            made[f.name] = change(f.name, value)
        elif isinstance(value, tuple):
            made[f.name] = tuple(
                change(f"{f.name}.{i}", v) if isinstance(v, Tensor) else v for i, v in enumerate(value)
            )
    return replace(state, **made)


def real_matrix(images: Sequence[Tensor]) -> Tensor:
    """Images ``[batch, ...]`` as real coordinates ``[batch, n]``, one after the other."""
    parts = [torch.view_as_real(t.resolve_conj()) if t.is_complex() else t for t in images]
    return torch.cat([t.flatten(1) for t in parts], dim=1)


def from_real_matrix(matrix: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """The inverse of `real_matrix` for images like those, whatever their batch."""
    made, at = [], 0
    for t in like:
        shape = (*t.shape[1:], 2) if t.is_complex() else tuple(t.shape[1:])
        count = int(torch.Size(shape).numel())
        part = matrix[:, at : at + count].reshape(-1, *shape).to(t.dtype.to_real())
        made.append(torch.view_as_complex(part.contiguous()) if t.is_complex() else part)
        at += count
    return made


def tensors_of(state: State) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a state by name; those of a tuple by their place in it."""
    for f in fields(state):
        value = getattr(state, f.name)
        if isinstance(value, Tensor):
            yield f.name, value
        elif isinstance(value, tuple):
            for i, part in enumerate(value):
                if isinstance(part, Tensor):
                    yield f"{f.name}.{i}", part
