"""Extremes of each layer's Jacobian: what the layer does to the longest and the shortest of its perturbations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ..modality import Batch
from ..steps.base import State, Step
from ..unrolled import Unrolled
from .states import (
    Images,
    from_real_matrix,
    images_of,
    mapped,
    moving,
    problem_of,
    real_matrix,
    states,
    steps_of,
    with_images,
)

Method = Literal["dense", "lanczos"]

DENSE_LIMIT = 1024
"""Up to so many real unknowns the Jacobian is made whole."""
STEPS = 24
"""Of the Lanczos process, where it is not."""
_ROWS = 64  # of the Jacobian that are made at a time
_ROUNDING = 1e-6  # of products in single precision, relative to the norm


@dataclass(frozen=True)
class Extremes:
    """The largest and smallest singular value of a layer's Jacobian at the state of the first example.

    Parameters
    ----------
    largest, smallest
        Exact to rounding for the method ``dense``. For ``lanczos`` estimates: the largest from below (usually within a
        per cent), the smallest from above (it may be far below, where the spectrum is crowded at its lower end).
    method
        How.
    unknowns
        Real dimensions of the state.
    """

    largest: float
    smallest: float
    method: Method
    unknowns: int


def jacobian_extremes(model: Unrolled, batch: Batch, *, lanczos_steps: int = STEPS) -> tuple[Extremes, ...]:
    """The singular values of ``d state_k / d state_(k-1)`` at the extremes, for every layer.

    The state is what the layer hands on: the image, and where there are any, dual variables and memory. Up to
    `DENSE_LIMIT` unknowns the Jacobian is made row by row; beyond, Golub and Kahan's bidiagonalisation (1965; the
    process of LSQR) with full reorthogonalisation runs on products with J (differentiating the backward pass) and J^T
    (the backward pass).

    Parameters
    ----------
    model, batch
        The network, and where it stands; only the first example is looked at.
    lanczos_steps
        Steps of the bidiagonalisation.
    """
    batch = _first(batch, 1)
    with torch.no_grad():
        path = list(states(model, batch))
    names = moving(path[0], path[1])
    unknowns = real_matrix([images_of(path[0])[name] for name in names]).shape[1]
    found = []
    for step, state in zip(steps_of(model.layers), path, strict=False):
        if unknowns <= DENSE_LIMIT:
            values = torch.linalg.svdvals(jacobian(model, step, batch, state, names))
            found.append(Extremes(float(values[0]), float(values[-1]), "dense", unknowns))
        else:
            start = state.x.real.new_empty(1, unknowns, dtype=torch.float64)
            low, high = _lanczos(*_products(model, step, batch, state, names), _unit_random(start), lanczos_steps)
            found.append(Extremes(high, low, "lanczos", unknowns))
    return tuple(found)


def jacobian(model: Unrolled, step: Step[Any], batch: Batch, state: State, names: tuple[str, ...]) -> Tensor:
    """The Jacobian of one layer at a state of the first example, real ``[n, n]``, in double precision.

    Parameters
    ----------
    model, step, batch, state
        The network, its layer, the batch and the state before the layer.
    names
        The images of the state that the layer replaces.
    """
    size = real_matrix([images_of(state)[name] for name in names]).shape[1]
    rows = []
    for begin in range(0, size, _ROWS):
        count = min(_ROWS, size - begin)
        # The same example `count` times: a batch element of the backward pass makes a row.
        inputs, outputs = _layer(model, step, _first(batch, count), _repeated(state, count), names)
        units = outputs[0].new_zeros(count, size, dtype=outputs[0].dtype.to_real())
        units[:, begin : begin + count] = torch.eye(count, dtype=units.dtype, device=units.device)
        rows.append(_pull(outputs, inputs, from_real_matrix(units, outputs)).double())
    return torch.cat(rows)


Product = Callable[[Tensor], Tensor]


def _products(
    model: Unrolled, step: Step[Any], batch: Batch, state: State, names: tuple[str, ...]
) -> tuple[Product, Product]:
    """``v -> J v`` and ``u -> J^T u`` on real ``[1, n]``."""
    inputs, outputs = _layer(model, step, batch, state, names)
    dummies = [torch.zeros_like(t).requires_grad_() for t in outputs]
    with torch.enable_grad():
        pulled = torch.autograd.grad(outputs, inputs, dummies, create_graph=True, allow_unused=True)
    # J^T is linear in the dummy, so that the derivative of J^T dummy pulls back by J.
    pairs = [(p, i) for i, p in enumerate(pulled) if p is not None and p.requires_grad]

    def push(v: Tensor) -> Tensor:
        if not pairs:
            return torch.zeros_like(v)
        parts = from_real_matrix(v, inputs)
        found = torch.autograd.grad(
            [p for p, _ in pairs], dummies, [parts[i] for _, i in pairs], retain_graph=True, allow_unused=True
        )
        return real_matrix([torch.zeros_like(d) if f is None else f for f, d in zip(found, dummies, strict=True)])

    def pull(u: Tensor) -> Tensor:
        return _pull(outputs, inputs, from_real_matrix(u, outputs))

    return push, pull


def _lanczos(push: Product, pull: Product, v: Tensor, steps: int) -> tuple[float, float]:
    """The extreme singular values of the bidiagonal matrix after `steps` steps from v, ``(smallest, largest)``."""
    rights: list[Tensor] = [v]
    lefts: list[Tensor] = []
    diagonal: list[float] = []
    above: list[float] = []
    for _ in range(min(steps, v.shape[1])):
        u, alpha = _unit(_outside(push(rights[-1]).double(), lefts))
        diagonal.append(alpha)
        lefts.append(u)
        if alpha == 0:
            break
        w, beta = _unit(_outside(pull(u).double(), rights))
        if beta <= _ROUNDING * max(diagonal):
            break  # an invariant subspace
        above.append(beta)
        rights.append(w)
    matrix = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    for i, beta in enumerate(above[: len(diagonal) - 1]):
        matrix[i, i + 1] = beta
    values = torch.linalg.svdvals(matrix)
    return float(values[-1]), float(values[0])


def _outside(v: Tensor, basis: list[Tensor]) -> Tensor:
    """v without its components along an orthonormal basis; twice is enough (Parlett)."""
    if basis:
        known = torch.cat(basis)
        for _ in range(2):
            v = v - (v @ known.T) @ known
    return v


def _unit_random(like: Tensor) -> Tensor:
    v = torch.randn(like.shape, dtype=like.dtype, generator=torch.Generator().manual_seed(0))
    return _unit(v.to(like.device))[0]


def _unit(v: Tensor) -> tuple[Tensor, float]:
    norm = float(v.norm())
    return (v / norm if norm else v), norm


def _layer(
    model: Unrolled, step: Step[Any], batch: Batch, state: State, names: tuple[str, ...]
) -> tuple[list[Tensor], list[Tensor]]:
    """The images before and after a layer, joined by a graph."""
    with torch.enable_grad():
        before = images_of(state)
        inputs: Images = {name: before[name].detach().clone().requires_grad_() for name in names}
        after = images_of(step(problem_of(model, batch), with_images(state, inputs)))
    return list(inputs.values()), [after[name] for name in names]


def _pull(outputs: list[Tensor], inputs: list[Tensor], cotangents: list[Tensor]) -> Tensor:
    pairs = [(o, c) for o, c in zip(outputs, cotangents, strict=True) if o.requires_grad]
    found: Iterator[Tensor | None] = iter([None] * len(inputs))
    if pairs:
        found = iter(
            torch.autograd.grad([o for o, _ in pairs], inputs, [c for _, c in pairs], retain_graph=True,
                                allow_unused=True)
        )  # fmt: skip
    return real_matrix([torch.zeros_like(t) if g is None else g for t, g in zip(inputs, found, strict=True)])


def _first(batch: Batch, count: int) -> Batch:
    """The first example of a batch, `count` times."""

    def repeated(t: Tensor) -> Tensor:
        return t[:1].expand(count, *t.shape[1:]).contiguous()

    truth = None if batch.truth is None else repeated(batch.truth)
    return Batch(batch.operator, repeated(batch.measurement), truth, repeated(batch.noise_std))


def _repeated(state: State, count: int) -> State:
    return mapped(state, lambda _, t: t[:1].expand(count, *t.shape[1:]).contiguous() if t.ndim else t)
