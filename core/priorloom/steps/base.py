"""State and Step: one iteration of a method, the same code whether repeated (classical) or listed (unrolled)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from ..constraints import Relative
from ..errors import InputError
from ..problem import Problem
from ..space import Space


@dataclass(frozen=True)
class State:
    """What one iteration hands to the next; steps add their own fields.

    Parameters
    ----------
    x
        The image, ``[..., *space.shape]``.
    """

    x: Tensor


S = TypeVar("S", bound=State)


class Step(nn.Module, Generic[S]):
    """One iteration of a method: pure, with parameters that are floats or nn.Parameters.

    Subclasses write ``init`` (which refuses a problem that the method cannot solve) and ``forward``, should write
    ``residual``, and may write ``gap`` and, where the method has a stopping rule of its own, ``finished`` and
    ``rule``.
    """

    rule: str = ""
    """The stopping rule of ``finished`` in words."""

    def init(self, problem: Problem, x0: Tensor | None = None) -> S:
        """The state before the first iteration; `x0` is the starting image (zero when absent)."""
        raise NotImplementedError(f"{type(self).__name__} has no init")

    def forward(self, problem: Problem, state: S) -> S:
        """The next state."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def residual(self, problem: Problem, before: S, after: S) -> Tensor:
        """How far the optimality conditions are from holding after one iteration, per batch element, dimensionless.

        The conditions are ``0 in A^H p + sum_i K_i^H q_i + dg(x)`` with ``p in df(Ax)`` and ``q_i in df_i(K_i x)``.
        Their defect is measured relative to the natural size of what stands in them: ``L |x|`` for the first, with L
        the Lipschitz constant of the data gradient, ``|K_i| |x|`` for the others (and where x vanishes, `unit_size` for
        ``|x|``). So the number does not depend on units, and a method does not look converged because its steps are
        short. For a step that solves no stated problem (a learned one) it is ``|x+ - x| / |x|``.
        """
        return relative(problem.space, after.x - before.x, after.x)

    def gap(self, problem: Problem, state: S) -> Tensor | None:
        """The primal-dual gap per batch element where the method has a dual point and the gap exists, else None."""
        return None

    def refresh(self, problem: Problem, state: S) -> S:
        """`state` with what recursions have drifted away from computed anew; asked for before convergence is declared.

        The iteration goes on from the result where that does not meet the criterion.
        """
        return state

    def is_legal(self, problem: Problem) -> bool:
        """Whether a convergence theorem applies on convex functionals, with the step sizes given; see `converges`."""
        return False

    def finished(self, problem: Problem, state: S) -> Tensor | None:
        """Which batch elements the method's own stopping rule (``rule``) ends; None where it has no such rule."""
        return None


def relative(space: Space, defect: Tensor, *sizes: Tensor) -> Tensor:
    """``|defect| / max |size|`` per batch element; 0 where both vanish."""
    return safe_divide(space.norm(defect), torch.stack([space.norm(s) for s in sizes]).amax(0))


def apart(problem: Problem, a: Tensor, b: Tensor, unit: Tensor) -> Tensor:
    """``|a - b| / max(|a|, unit)`` per batch element, for two images that should agree."""
    norm = problem.space.norm
    return safe_divide(norm(a - b), torch.maximum(norm(a), unit))


def safe_divide(a: Tensor, b: Tensor) -> Tensor:
    """``a / b``, and 0 where ``b`` is 0 and ``a`` is too (1 where only ``b`` is 0)."""
    return torch.where(b != 0, a / torch.where(b != 0, b, 1), (a != 0).to(a.dtype))


def refuse_terms(step: Step[Any], problem: Problem) -> None:
    """Raise InputError when `problem` has operator terms that `step` cannot treat."""
    if problem.terms:
        raise InputError(
            f"{type(step).__name__}", expected="a problem without operator terms", got=f"{len(problem.terms)} of them",
            cure="use PDHG or ADMM, or a prior with a proximal map",
        )  # fmt: skip


def refuse_backprojector(step: Step[Any], problem: Problem) -> None:
    """Raise InputError when a term of `problem` has a backprojector, which a `step` that needs K^H would not see."""
    if any(term.backprojector is not None for term in (problem.data, *problem.terms)):
        raise InputError(
            f"{type(step).__name__}", expected="the adjoint to carry the data gradient back", got="a backprojector",
            cure="choose back: adjoint, or a step that takes the gradient of the data term, such as ISTA",
        )  # fmt: skip


def smooth_lipschitz(step: Step[Any], problem: Problem) -> float:
    """Lipschitz constant of the data gradient; raises InputError when the data term is not smooth."""
    constant = problem.data.lipschitz()
    if constant is None:
        raise InputError(
            f"data term of {type(step).__name__}", expected="a smooth functional", got=type(problem.data.f).__name__
        )
    return constant


def unit_size(problem: Problem, slope: Tensor) -> Tensor:
    """``|slope| / L`` for the data gradient at 0, per batch element: the size of an image that a gradient step makes of
    nothing; 0 for data terms that are not smooth."""
    lipschitz = problem.data.lipschitz()
    return problem.space.norm(slope) * (1 / lipschitz if lipschitz else 0.0)


def check_positive(what: str, value: float | Tensor | Relative | None) -> None:
    """Raise InputError unless `value` is absent, learned (training may move it) or positive and finite."""
    if value is None or isinstance(value, nn.Parameter | Relative):
        return
    number = torch.as_tensor(value).detach()
    if not bool((torch.isfinite(number) & (number > 0)).all()):
        raise InputError(what, expected="a positive number", got=value)


def within(value: float | Tensor | None, limit: float, *, strictly: bool = False) -> bool:
    """Whether `value` is absent, or positive and at most (or `strictly` below) `limit`."""
    if value is None:
        return True
    number = torch.as_tensor(value).detach()
    # A limit that is itself a rounded reciprocal may be given back in single precision.
    above = number >= limit if strictly else number > limit * (1 + 1e-6)
    return bool((torch.isfinite(number) & (number > 0) & ~above).all())


def start(problem: Problem, x0: Tensor | None) -> Tensor:
    """The starting image: `x0` checked against the problem and repeated to its batch, or zero."""
    if x0 is None:
        return problem.zeros()
    space = problem.space
    space.check(x0, "starting image")
    batch, own = problem.batch_shape, space.batch_shape(x0)
    try:
        shape = torch.broadcast_shapes(batch, own)  # type: ignore[no-untyped-call]
    except RuntimeError:
        raise InputError("batch of the starting image", expected=list(batch), got=list(own)) from None
    return x0.expand(*shape, *space.shape).contiguous()


def at_hand(problem: Problem, value: float | Tensor | Relative | None) -> float | Tensor | None:
    """`value` as a number on this problem: a relative one is told the Lipschitz constant of the data gradient."""
    if not isinstance(value, Relative):
        return value
    # A data term that is constant (a zero operator), or not smooth, has no scale of its own.
    number: Tensor = value(problem.data.lipschitz() or 1.0)
    return number


def per_image(problem: Problem, x: Tensor, value: float | Tensor | Relative) -> Tensor:
    """`value` as one real number per batch element of `x`."""
    scalar = torch.as_tensor(at_hand(problem, value), dtype=problem.space.real_dtype, device=x.device)
    batch = problem.space.batch_shape(x)
    try:
        return scalar.expand(batch)
    except RuntimeError:
        raise InputError(
            "parameter of a step", expected=f"one number, or one per batch element {list(batch)}",
            got=list(scalar.shape),
        ) from None  # fmt: skip


def inverse_square(norm: float) -> float:
    """``1 / norm^2``, the weight that scales an operator to norm 1; a zero operator needs none."""
    return norm**-2 if norm > 0 else 1.0


def safe_sqrt(x: Tensor) -> Tensor:
    """``sqrt(x)``, with the derivative 0 at 0."""
    return torch.where(x > 0, torch.sqrt(torch.where(x > 0, x, 1)), 0)


def root_sum_square(parts: Sequence[Tensor]) -> Tensor:
    """``sqrt(sum_i a_i^2)`` of norms per batch element."""
    return torch.stack(list(parts)).square().sum(0).sqrt()


def total(parts: Sequence[Tensor]) -> Tensor:
    """The sum, without a stacked copy."""
    result = parts[0]
    for part in parts[1:]:
        result = result + part
    return result
