"""How far a layer can carry two images apart: upper bounds that hold for all images, and lower ones from the Jacobian.

A bound is of ``x -> layer(x)`` for one measurement, in the Euclidean norm. Where every layer has one, the product
bounds the whole network's ``x_0 -> x_K``: its certificate. It holds for the operator at hand; where the layers take the
adjoint's gradient it does not depend on it, as steps in ``(0, 2 / L)`` never expand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import singledispatch
from typing import Any

import torch
from torch import Tensor, nn

from .constraints import Relative
from .errors import InputError
from .functional import Functional, LeastSquares
from .operator import Identity
from .problem import Problem
from .steps.base import Step, at_hand, per_image
from .steps.equilibrium import Equilibrium
from .steps.learned import Layer, MoDL, NetworkProx, PostProcessing, VariationalNetwork
from .steps.proximal import ISTA
from .steps.x_update import NormalSystem, is_exact


@dataclass(frozen=True)
class LipschitzBound:
    """What is known of a network's Lipschitz constant.

    Parameters
    ----------
    bound
        The product over the layers; None where one of them has no bound.
    per_layer
        The bound of each layer, or None.
    reason
        Why it holds, or why there is none, in a sentence.
    """

    bound: float | None
    per_layer: tuple[float | None, ...]
    reason: str

    def to_json(self) -> dict[str, Any]:
        """The plain form for files."""
        return {"lipschitz_bound": self.bound, "per_layer": list(self.per_layer), "reason": self.reason}


def lipschitz(step: Step[Any] | nn.Module, problem: Problem) -> float | None:
    """A Lipschitz bound of a step on `problem` as a map of images, or of a network by itself; None where unknown."""
    found = step_bound(step, problem) if isinstance(step, Step) else network_bound(step)
    return found if isinstance(found, float) else None


def certificate(layers: Iterable[nn.Module], problem: Problem) -> LipschitzBound:
    """The bounds of the layers of an unrolled network, and their product.

    Parameters
    ----------
    layers
        ``Unrolled.layers``.
    problem
        ``Unrolled.problem(A, y, noise_std)`` of the operator at hand.
    """
    with torch.no_grad():
        found = [step_bound(layer, problem) for layer in layers if isinstance(layer, Step)]
    bounds = tuple(f if isinstance(f, float) else None for f in found)
    missing = next(((i, f) for i, f in enumerate(found) if isinstance(f, str)), None)
    if missing is not None:
        return LipschitzBound(None, bounds, f"layer {missing[0]}: {missing[1]}")
    product = math.prod(b for b in bounds if b is not None)
    if not math.isfinite(product):
        return LipschitzBound(None, bounds, "the product of the layers' bounds overflows")
    return LipschitzBound(product, bounds, "the product of the layers' bounds, for the operator at hand")


@singledispatch
def step_bound(step: Step[Any], problem: Problem) -> float | str:
    """The bound of a step, or why there is none; plugins register their steps with ``step_bound.register``."""
    return f"no bound is known for {type(step).__name__}, whose state holds more than an image"


@step_bound.register
def _(step: Layer, problem: Problem) -> float | str:  # type: ignore[type-arg]
    return step_bound(step.step, problem.with_prior(step.prior(problem)))


@step_bound.register
def _(step: ISTA, problem: Problem) -> float | str:
    descent = gradient_step_bound(step.step_size, problem)
    prox = prox_bound(problem.prior)
    return descent if isinstance(descent, str) else prox if isinstance(prox, str) else descent * prox


@step_bound.register
def _(step: VariationalNetwork, problem: Problem) -> float | str:
    descent = gradient_step_bound(step.step_size, problem)
    network = network_bound(step.regulariser)
    return descent if isinstance(descent, str) else network if isinstance(network, str) else descent + network


@step_bound.register
def _(step: MoDL, problem: Problem) -> float | str:
    x = problem.zeros()
    one = per_image(problem, x, 1.0)
    if not is_exact(step.x_update, NormalSystem((problem.data.K, Identity(problem.space)), (one, one), x, x)):
        return "no bound is known for an x-update that is not exact"
    # rho (A^H A + rho)^-1 has norm at most 1
    return prox_bound(problem.prior)


@step_bound.register
def _(step: PostProcessing, problem: Problem) -> float | str:
    if problem.space.is_complex:
        return "the phase that is divided out depends on the image without a bound"
    return network_bound(step.network)


@step_bound.register
def _(step: Equilibrium, problem: Problem) -> float | str:
    inner = step_bound(step.step, problem)
    if isinstance(inner, str):
        return inner
    if inner >= 1:
        return f"no fixed point is guaranteed for a step with the bound {inner:.3g}"
    return (
        f"the step contracts by {inner:.3g}: its fixed point is unique and depends on the measurement, not on the image"
        " that the layer starts from; what is computed does, within the tolerance"
    )


def gradient_step_bound(step_size: float | Tensor | Relative | None, problem: Problem) -> float | str:
    """The norm of ``I - t B A`` for least squares, B the adjoint or a backprojector.

    With the adjoint it is at most ``max(1, t L - 1)``, for any smooth convex data term; with a backprojector it is that
    of the operator, see ``LinearOperator.norm``. For one t per batch element it is the largest: the norm is convex in
    t, so that of the smallest t or that of the largest.
    """
    constant = problem.data.lipschitz()
    if constant is None:
        return f"{type(problem.data.f).__name__} is not smooth"
    given = at_hand(problem, step_size)
    if given is None:
        ends = {1 / constant if constant else 1.0}
    else:
        steps = torch.as_tensor(given, dtype=torch.float64).detach()
        ends = {float(steps.min()), float(steps.max())}
    backprojector = problem.data.backprojector
    if backprojector is None:
        return max(1.0, max(ends) * constant - 1) if problem.data.f.is_convex else "the data term is not convex"
    if not isinstance(problem.data.f, LeastSquares):
        return "the data term with a backprojector is not least squares"
    return max((Identity(problem.space) - t * (backprojector @ problem.data.K)).norm() for t in ends)


def prox_bound(prior: Functional) -> float | str:
    """1 for an exact prox of a convex functional; the network's bound where a network stands in its place."""
    if isinstance(prior, NetworkProx):
        return network_bound(prior.network)
    if prior.is_convex and prior.has_exact_prox:
        return 1.0
    return f"the prox of {type(prior).__name__} is not known to be nonexpansive"


def network_bound(network: nn.Module) -> float | str:
    """The bound that a network states with ``lipschitz() -> float | None``, or why there is none."""
    stated = getattr(network, "lipschitz", None)
    bound = stated() if callable(stated) else None
    if bound is None:
        inner = next((type(m).__name__ for m in network.modules() if not hasattr(m, "lipschitz")), "")
        return f"no bound is known for {inner or type(network).__name__}"
    return float(bound)


def jacobian_norm(function: Callable[[Tensor], Tensor], x: Tensor, iterations: int = 30, seed: int = 0) -> float:
    """``|J v| / |v|`` after power iterations on ``J^T J`` at x: a lower bound of the Lipschitz constant of `function`.

    Parameters
    ----------
    function
        From one tensor to another, twice differentiable by autograd at x.
    x
        Where; real or complex.
    iterations
        A forward and a backward derivative each.
    seed
        Of the first v.
    """
    if iterations < 1:
        raise InputError("iterations of a power iteration", expected="at least 1", got=iterations)
    x = x.detach()

    def on_reals(coordinates: Tensor) -> Tensor:
        return _coordinates(function(torch.view_as_complex(coordinates) if x.is_complex() else coordinates))

    at = _coordinates(x)
    generator = torch.Generator().manual_seed(seed)
    v = torch.randn(at.shape, dtype=at.dtype, generator=generator).to(at.device)
    largest = 0.0
    for _ in range(iterations):
        v = v / v.norm()
        _, image = torch.autograd.functional.jvp(on_reals, at, v)  # type: ignore[no-untyped-call]
        size = float(image.norm())
        largest = max(largest, size)
        if size == 0:
            break
        _, v = torch.autograd.functional.vjp(on_reals, at, image)  # type: ignore[no-untyped-call]
    return largest


def _coordinates(x: Tensor) -> Tensor:
    return torch.view_as_real(x.resolve_conj()) if x.is_complex() else x
