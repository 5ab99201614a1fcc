"""The safeguard of unsupervised unrolled solvers: never above the objective of as many classical steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..problem import Problem, Term
from ..unrolled import Unrolled
from .base import State, Step, refuse_terms, smooth_lipschitz, start
from .proximal import ISTA


@dataclass(frozen=True)
class Guarded(State):
    """The state of safeguarded layers.

    Parameters
    ----------
    objective
        ``J(x)``, one value per batch element.
    classical, classical_objective
        The iterate z of ISTA after as many steps from the same start, and ``J(z)``.
    learned
        What the next layer continues from.
    fallbacks
        Which layers fell back, bool ``[layers so far, ...]``, a row for every layer and a column per batch element.
    """

    objective: Tensor
    classical: Tensor
    classical_objective: Tensor
    learned: State
    fallbacks: Tensor


class Safeguard(Step[Guarded]):
    """A learned layer whose result is taken only where it serves the objective; for every batch element by itself.

    For ``J(x) = f(Ax) + g(x)``, the proximal gradient step T with ``t = 1 / L`` and the layer's proposal u::

        z+ = T(z)
        x+ = u                                            where J(u) <= min(J(x), J(z+))
             the one of T(x), z+, x with the smallest J   elsewhere (a fallback)

    Theorem. With ``z_0 = x_0``, for every k, every problem and whatever the layers propose (NaN included)::

        J(x_k+1) <= J(x_k)    and    J(x_k) <= J(z_k), the objective of k steps of ISTA from x_0.

    Proof. For k = 0 the second is an equality. A proposal is taken only when ``J(u) <= J(x_k)`` and
    ``J(u) <= J(z_k+1)``; a comparison with NaN is false. A fallback has the smallest J of a set that holds x_k and
    z_k+1. Both give both inequalities.

    To forbid a rise is not enough for the second: the layer ``u = x`` never raises J, and never gets anywhere. That the
    fallback is worth having is a property of T: ``J(T(x)) <= J(x) - (L / 2) |T(x) - x|^2`` for convex g, and without a
    rise for any g (T minimises a majorant of J). With convex g the layers inherit ``J(x_k) - J* <= L |x_0 - x*|^2 /
    (2 k)`` (Beck and Teboulle, 2009, theorem 3.1).

    The numbers that are compared are those of the very tensors that are returned, so rounding cannot break the theorem
    for J as it is computed; for J as it is defined it holds up to the rounding error of one evaluation.

    It costs one step of ISTA and two values of J more per layer, and another step and value where an element falls
    back. Gradients do not flow: it belongs to inference.

    Parameters
    ----------
    layer
        The learned layer; its problem may have a backprojector, J and T have none.

    Raises
    ------
    InputError
        A problem without an objective (plug-and-play), with operator terms or with a data term that is not smooth.
    """

    def __init__(self, layer: Step[Any]) -> None:
        super().__init__()
        self.layer = layer
        self.proximal = ISTA()

    def init(self, problem: Problem, x0: Tensor | None = None) -> Guarded:
        """Both sequences start at `x0`."""
        refuse_terms(self, problem)
        smooth_lipschitz(self, problem)
        if not problem.has_value:
            raise InputError(
                "objective of a safeguarded method", expected="a data term and a prior that have a value",
                got=type(problem.prior).__name__,
            )  # fmt: skip
        with torch.no_grad():
            x = start(problem, x0)
            objective = problem.objective(x)
            nothing = torch.zeros((0, *problem.space.batch_shape(x)), dtype=torch.bool, device=x.device)
            return Guarded(x, objective, x, objective, self.layer.init(problem, x), nothing)

    def forward(self, problem: Problem, state: Guarded) -> Guarded:
        """The layer, or what the classical steps offer instead."""
        with torch.no_grad():
            plain = Problem(Term(problem.data.f, problem.data.K), problem.prior)
            classical, classical_objective = self._step(plain, state.classical)
            proposal: State = self.layer(problem, self._continued(problem, state))
            x, objective = proposal.x, problem.objective(proposal.x)
            taken = (objective <= state.objective) & (objective <= classical_objective)
            if not bool(taken.all()):
                options = ((classical, classical_objective), (state.x, state.objective), self._step(plain, state.x))
                best, least = _best(problem, options)
                x = torch.where(problem.space.expand(taken), x, best)
                objective = torch.where(taken, objective, least)
        fallbacks = torch.cat([state.fallbacks, ~taken[None]])
        return Guarded(x, objective, classical, classical_objective, proposal, fallbacks)

    def _step(self, problem: Problem, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.proximal(problem, State(x)).x
        return x, problem.objective(x)

    def _continued(self, problem: Problem, state: Guarded) -> State:
        """What the layer before left, begun anew at x where that was refused."""
        if not len(state.fallbacks) or not bool(state.fallbacks[-1].any()):
            return state.learned
        anew: State = _where(state.fallbacks[-1], self.layer.init(problem, state.x), state.learned)
        return anew


def safeguarded(model: Unrolled) -> Unrolled:
    """`model` with every layer safeguarded, for inference; the layers are shared with `model`, not copied.

    Its objective is ``model.problem(A, y, noise_std).objective``, with the model's prior. The last state of its layers
    is `Guarded`, which says how often it fell back.
    """
    layers = [Safeguard(layer) for layer in model.layers if isinstance(layer, Step)]
    return Unrolled(layers, start=model.start, back=model.back, prior=model.prior)


def _best(problem: Problem, options: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """The image with the smallest objective, per batch element, and that objective; the first of equals."""
    best, least = options[0]
    for x, objective in options[1:]:
        better = (objective < least) | least.isnan()
        best = torch.where(problem.space.expand(better), x, best)
        least = torch.where(better, objective, least)
    return best, least


def _where(chosen: Tensor, a: Any, b: Any) -> Any:
    """States `a` where `chosen` (per batch element) and `b` elsewhere, field by field."""
    if isinstance(a, Tensor):
        return torch.where(chosen.reshape(*chosen.shape, *[1] * (a.ndim - chosen.ndim)), a, b)
    if isinstance(a, tuple):
        return tuple(_where(chosen, p, q) for p, q in zip(a, b, strict=True))
    if isinstance(a, State):
        return type(a)(**{f.name: _where(chosen, getattr(a, f.name), getattr(b, f.name)) for f in fields(a)})
    return a
