"""Gradient flow: what of the loss's gradient reaches each layer of an unrolled network."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..errors import InputError
from ..modality import Batch
from ..unrolled import Unrolled
from .states import images_of, moving, problem_of, steps_of, with_images

Verdict = Literal["vanishing", "exploding", "passes"]
Loss = Callable[[Tensor, Batch], Tensor]

VANISHING, EXPLODING = 1e-3, 1e3
"""Below and above these multiples of the gradient at the last layer, that of a layer has vanished or exploded.

With one learning rate for all layers, a layer with a thousandth of the gradient takes a thousand steps for one of the
last layer's; and beside the others it is below the rounding of sums in half precision (2^-8 in bfloat16, 2^-11 in
float16). Over 50 layers the band is a mean factor per layer between 0.87 and 1.15."""


def mean_square(x: Tensor, batch: Batch) -> Tensor:
    """``mean |x - truth|^2``."""
    if batch.truth is None:
        raise InputError("batch for the gradient flow", expected="a truth", got="none", cure="give a loss without one")
    return (x - batch.truth).abs().square().mean()


@dataclass(frozen=True)
class GradientFlow:
    """Norms of the gradient of a loss, over the whole batch.

    Parameters
    ----------
    loss
        The loss.
    image
        ``|d loss / d x_k|`` for k = 0 (the starting image), 1, ..., K.
    state
        The same for all that layer k hands on: the image, dual variables, memory.
    parameters
        The norm of the gradient of the parameters of layers 1, ..., K; for shared parameters each layer's share of it.
    """

    loss: float
    image: tuple[float, ...]
    state: tuple[float, ...]
    parameters: tuple[float, ...]

    @property
    def layers(self) -> int:
        """K."""
        return len(self.parameters)

    @property
    def relative(self) -> tuple[float, ...]:
        """``|d loss / d state_k| / |d loss / d state_K|`` for k = 1, ..., K: what layer k gets of what the last one
        gets."""
        return tuple(value / self.state[-1] if self.state[-1] else math.nan for value in self.state[1:])

    @property
    def ratio(self) -> float:
        """The first layer's."""
        return self.relative[0]

    @property
    def factor(self) -> float:
        """The mean factor per layer on the way back, ``ratio^(1 / (K - 1))``; 1 for one layer."""
        return self.ratio ** (1 / (self.layers - 1)) if self.layers > 1 else 1.0

    @property
    def verdict(self) -> Verdict:
        """``exploding`` where a layer's relative gradient is above `EXPLODING` or not finite, else ``vanishing`` where
        one is below `VANISHING`, else ``passes``."""
        relative = self.relative
        if not all(math.isfinite(value) for value in relative) or max(relative) > EXPLODING:
            return "exploding"
        return "vanishing" if min(relative) < VANISHING else "passes"


def gradient_flow(model: Unrolled, batch: Batch, loss: Loss = mean_square) -> GradientFlow:
    """Differentiate a loss of ``x_K`` with respect to the state after every layer and to every layer's parameters.

    Parameters
    ----------
    model
        The network; it is not changed.
    batch
        What it reconstructs.
    loss
        ``loss(x_K, batch) -> scalar``.

    Raises
    ------
    InputError
        The loss has no gradient at ``x_K`` (it is zero there), so that there is nothing to compare with.
    """
    # Shared parameters would get one sum; copies get each layer's part.
    steps = [deepcopy(step).requires_grad_() for step in steps_of(model.layers)]
    with torch.enable_grad():
        problem = problem_of(model, batch)
        state = steps[0].init(problem, model.starting_image(batch.operator, batch.measurement))
        first = {name: value.detach().clone().requires_grad_() for name, value in images_of(state).items()}
        state = with_images(state, first)
        path = [state]
        for step in steps:
            state = step(problem, state)
            path.append(state)
        names = moving(path[0], path[1])
        kept = [[images_of(s)[name] for name in names] for s in path]
        value = loss(state.x, batch)
        wanted = [t for images in kept for t in images if t.requires_grad]
        weights = [list(step.parameters()) for step in steps]
        gradients = _gradients(value, [*wanted, *(w for ws in weights for w in ws)])
    flow = GradientFlow(
        float(value.detach()),
        tuple(_norm([s.x], gradients) for s in path),
        tuple(_norm(images, gradients) for images in kept),
        tuple(_norm(ws, gradients) for ws in weights),
    )
    if flow.state[-1] == 0:
        raise InputError("gradient of the loss at the last layer", expected="not zero", got=0.0)
    return flow


def _gradients(value: Tensor, wanted: Sequence[Tensor]) -> dict[int, Tensor | None]:
    """The gradient with respect to each tensor by its identity; None where the loss does not depend on it."""
    unique = {id(t): t for t in wanted}
    found = torch.autograd.grad(value, list(unique.values()), allow_unused=True)
    return dict(zip(unique, found, strict=True))


def _norm(tensors: Sequence[Tensor], gradients: dict[int, Tensor | None]) -> float:
    """The norm of the gradient with respect to all of `tensors`, in double precision; a tensor twice counts once."""
    found = [gradients.get(i) for i in {id(t): t for t in tensors}]
    return math.sqrt(sum(float(g.abs().double().square().sum()) for g in found if g is not None))
