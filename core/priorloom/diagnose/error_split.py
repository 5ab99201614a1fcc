"""The error of an unrolled network split into what the classical step explains and what the learned layers add.

Let T be one classical step, x* a reference image, ``x_k`` the image after layer k, and, per batch element::

    e_k     = |x_k - x*|                                  the error
    delta_k = |x_k - T(x_{k-1})|                          the unfolding remainder of layer k
    rho_k   = |T(x_{k-1}) - T(x*)| / |x_{k-1} - x*|       the factor of T at the image that the layer saw
    b       = |T(x*) - x*|                                the bias; 0 where x* is a fixed point of T

The triangle inequality gives ``e_k <= rho_k e_{k-1} + delta_k + b`` and so, for every rho that is at least each rho_k,

    e_L <= rho^L e_0 + sum_k rho^(L-k) (delta_k + b)      the contraction term plus the unfolding term.

The bound is a theorem in two cases. With rho a known contraction factor of T, such as ``max |1 - t l|`` over the
eigenvalues l of A^H A for a gradient step followed by a proximal map, it holds whatever the network does. Where T is no
contraction globally (an underdetermined A), rho is *measured*: the largest rho_k over the layers. That is a factor of T
around x* on the images that this network visited with this measurement, and says nothing about others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..problem import Problem
from ..steps.base import State, Step, per_image, safe_divide

Map = Callable[[Tensor], Tensor]
ROUNDING = 100
"""The bound is taken to hold up to this many rounding units of the largest image."""


@dataclass(frozen=True)
class ErrorSplit:
    """The split for L layers; every tensor is real, in the units of the image, ``[..., batch]`` behind its first axis.

    Parameters
    ----------
    errors
        ``e_0 .. e_L``, ``[L + 1, ...]``.
    remainders, factors
        ``delta_1 .. delta_L`` and ``rho_1 .. rho_L``, ``[L, ...]``.
    rho
        The factor in the bound, ``[...]``.
    bias
        b, ``[...]``.
    contraction, unfolding
        ``rho^k e_0`` and ``sum_j rho^(k-j) (delta_j + b)`` for k = 0 .. L, ``[L + 1, ...]``.
    rounding
        How far the computed errors may be from the exact ones, ``[...]``.
    """

    errors: Tensor
    remainders: Tensor
    factors: Tensor
    rho: Tensor
    bias: Tensor
    contraction: Tensor
    unfolding: Tensor
    rounding: Tensor

    @property
    def bound(self) -> Tensor:
        """The bound on ``e_0 .. e_L``, ``[L + 1, ...]``."""
        return self.contraction + self.unfolding

    @property
    def holds(self) -> Tensor:
        """Where the bound holds, up to rounding, ``[L + 1, ...]``. False says that rho is no factor of T around x*."""
        return self.errors <= self.bound + self.rounding


def error_split(
    layers: nn.ModuleList,
    problem: Problem,
    classical: Map,
    reference: Tensor,
    *,
    x0: Tensor | None = None,
    rho: float | Tensor | None = None,
) -> ErrorSplit:
    """Split the error of `layers`, applied once each to `problem`; no gradients.

    Parameters
    ----------
    layers, problem
        The network's steps, and the problem that they see (``Unrolled.layers``, ``Unrolled.problem``).
    classical
        T, from an image ``[..., *shape]`` to one; see `one_step`.
    reference
        x*, ``[..., *shape]``: a fixed point of T, or the truth.
    x0
        The starting image; zero when absent.
    rho
        A known factor of T around x*, a number or one per batch element; the largest measured one when absent.

    Raises
    ------
    InputError
        Without layers, for a layer that is no Step, a rho that is not a number of at least 0, or a reference of another
        shape.
    """
    steps = [layer for layer in layers if isinstance(layer, Step)]
    if not steps or len(steps) != len(layers):
        raise InputError("layers of an error split", expected="at least one Step, and Steps only", got=str(layers))
    space = problem.space
    space.check(reference, "reference of an error split")
    with torch.no_grad():
        state: State = steps[0].init(problem, x0)
        errors = [space.norm(state.x - reference)]
        size = torch.maximum(space.norm(state.x), space.norm(reference))
        kept = classical(reference)
        remainders: list[Tensor] = []
        factors: list[Tensor] = []
        for layer in steps:
            image = classical(state.x)
            factors.append(safe_divide(space.norm(image - kept), errors[-1]))
            state = layer(problem, state)
            remainders.append(space.norm(state.x - image))
            errors.append(space.norm(state.x - reference))
            size = torch.maximum(size, space.norm(state.x))
        measured = torch.stack(factors)
        factor = measured.amax(0) if rho is None else _given(problem, state.x, rho)
        bias = space.norm(kept - reference).expand(errors[-1].shape)
        contraction, unfolding = [errors[0]], [torch.zeros_like(errors[0])]
        for remainder in remainders:
            contraction.append(factor * contraction[-1])
            unfolding.append(factor * unfolding[-1] + remainder + bias)
        # The bound adds up the rounding errors of its terms.
        rounding = ROUNDING * torch.finfo(size.dtype).eps * size
    return ErrorSplit(
        torch.stack(errors), torch.stack(remainders), measured, factor, bias,
        torch.stack(contraction), torch.stack(unfolding), rounding,
    )  # fmt: skip


def one_step(step: Step[State], problem: Problem) -> Map:
    """T: one iteration of `step` on `problem` from any image, such as ISTA with the step size ``1 / L``.

    A step that remembers more than the image begins anew every time.
    """

    def apply(x: Tensor) -> Tensor:
        image: Tensor = step(problem, step.init(problem, x)).x
        return image

    return apply


def errors_of_iterations(
    step: Step[State], problem: Problem, reference: Tensor, n: int, *, x0: Tensor | None = None
) -> Tensor:
    """``|x_k - x*|`` for k = 0 .. n of the step repeated n times, ``[n + 1, ...]``: what a network is compared with."""
    with torch.no_grad():
        state = step.init(problem, x0)
        errors = [problem.space.norm(state.x - reference)]
        for _ in range(n):
            state = step(problem, state)
            errors.append(problem.space.norm(state.x - reference))
    return torch.stack(errors)


def crossover(level: float, errors: Tensor) -> int | None:
    """The first k with ``errors[k] <= level``; None where there is none.

    Parameters
    ----------
    level
        An error to reach, such as that of a network after its last layer.
    errors
        One error per iteration, ``[n + 1]``.
    """
    reached = torch.nonzero(errors <= level)
    return int(reached[0]) if len(reached) else None


def _given(problem: Problem, x: Tensor, rho: float | Tensor) -> Tensor:
    values = torch.as_tensor(rho)
    if not bool((values.isfinite() & (values >= 0)).all()):
        raise InputError("rho of an error split", expected="a number of at least 0", got=rho)
    return per_image(problem, x, values)
