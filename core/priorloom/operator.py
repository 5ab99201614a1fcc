"""Linear operators ``y = A x`` on tensors ``[..., *domain.shape]``, with the adjoint as autograd backward.

A plugin writes two methods, ``_forward`` and ``_adjoint``; NumPy, ASTRA or ODL may run inside. Differentiation,
shape and dtype checks, algebra, the norm and the conformance kit follow from them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from .errors import InputError
from .lanczos import norm_interval
from .precision import full_precision
from .space import Space, keep_kind

Map = Literal["_forward", "_adjoint", "_normal"]
_TRANSPOSE: dict[Map, Map] = {"_forward": "_adjoint", "_adjoint": "_forward", "_normal": "_normal"}


class _Linear(torch.autograd.Function):
    """Applies an operator, its adjoint or its normal operator; the derivative is the adjoint of that, to any order.

    So none of the three needs to be differentiable, and all of them may write into memory of their own.
    """

    @staticmethod
    def forward(x: Tensor, operator: LinearOperator, which: Map) -> Tensor:
        with full_precision(x.device):
            result: Tensor = getattr(operator, which)(x)
        return result

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, LinearOperator, Map], output: Tensor) -> None:
        _, ctx.operator, ctx.which = inputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return _linear(grads[0], ctx.operator, _TRANSPOSE[ctx.which]), None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        return _linear(tangents[0], ctx.operator, ctx.which)

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor, operator: LinearOperator, which: Map) -> tuple[Tensor, int]:
        return _linear(x.movedim(in_dims[0], 0), operator, which), 0


def _linear(x: Tensor, operator: LinearOperator, which: Map) -> Tensor:
    result: Tensor = _Linear.apply(x, operator, which)  # type: ignore[no-untyped-call]
    return result


Stored = dict[str, tuple[nn.Module | Tensor, int, torch.dtype | None]]


class LinearOperator(nn.Module):
    """A linear map between two Spaces.

    Subclasses write ``_forward`` ([..., *domain.shape] -> [..., *range.shape]) and ``_adjoint`` (back), exactly
    adjoint in the Euclidean inner products, and may write the three optional methods ``_normal``, ``_pseudo_inverse``
    and ``_norm`` where they know better than the defaults. Physics is not learned: gradients flow to the input,
    not to what an operator stores.

    Parameters
    ----------
    domain, range
        The Space of one input and of one output.
    """

    has_double: ClassVar[bool] = True
    """Whether the operator's own code computes in double precision after ``.double()``."""

    timed: bool = False
    """Whether how it computes is chosen by timing, so that the last digits may differ from run to run."""

    def __init__(self, domain: Space, range: Space) -> None:
        super().__init__()
        self.domain = domain
        self.range = range
        self._norm_cache: tuple[Stored, float, tuple[float, float]] | None = None

    # What a plugin writes.

    def _forward(self, x: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} has no _forward")

    def _adjoint(self, y: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} has no _adjoint")

    def _normal(self, x: Tensor) -> Tensor:
        return self._adjoint(self._forward(x))

    def _pseudo_inverse(self, y: Tensor) -> Tensor:
        raise InputError(f"{type(self).__name__} has no direct method", cure="reconstruct with an iterative method")

    def _norm(self) -> float | None:
        """The exact norm where a formula gives it."""
        return None

    def solve_normal(self, b: Tensor, rho: float | Tensor) -> Tensor | None:
        """``(A^H A + rho I)^-1 b`` in closed form, or None where the operator offers none."""
        return None

    # What everybody calls.

    def forward(self, x: Tensor) -> Tensor:
        """``A x``; raises InputError for a wrong shape or dtype."""
        self.domain.check(x, f"input of {type(self).__name__}")
        return _linear(x, self, "_forward")

    def adjoint(self, y: Tensor) -> Tensor:
        """``A^H y``; raises InputError for a wrong shape or dtype."""
        self.range.check(y, f"input of the adjoint of {type(self).__name__}")
        return _linear(y, self, "_adjoint")

    def normal(self, x: Tensor) -> Tensor:
        """``A^H A x``."""
        self.domain.check(x, f"input of {type(self).__name__}")
        return _linear(x, self, "_normal")

    def pseudo_inverse(self, y: Tensor) -> Tensor:
        """The modality's direct reconstruction (FBP, zero-filled), in the units of the image; differentiable."""
        self.range.check(y, f"measurement for {type(self).__name__}")
        return self._pseudo_inverse(y)

    def norm(self) -> float:
        """Largest singular value: the upper end of an interval about 1 % wide at most, so that step sizes are legal."""
        return self.norm_bounds(1e-2)[1]

    def norm_bounds(self, tolerance: float = 1e-3) -> tuple[float, float]:
        """An interval that holds the largest singular value; cached until a tensor of the operator changes.

        Exact where a formula exists. Else the Lanczos process narrows it to the relative width `tolerance` (or as far
        as its 120 steps go): the lower end is always attained, the upper end holds except with probability 1e-6; see
        `priorloom.lanczos.norm_interval`.
        """
        # Asked again for what the process could not deliver, it would only fail again.
        if self._norm_cache is None or tolerance < self._norm_cache[1] or not self._still_stores(self._norm_cache[0]):
            exact = self._norm()
            if exact is not None:
                reached, bounds = 0.0, (exact, exact)
            else:
                reached = tolerance
                bounds = norm_interval(type(self).__name__, self.normal, self.domain, self.device, tolerance)
            # Only now: the first application may have built the weights.
            self._norm_cache = self._stored(), reached, bounds
        return self._norm_cache[2]

    def _stored(self) -> Stored:
        """Every part and tensor by name, the count of in-place changes and the dtype of tensors."""
        tensors = (*self.named_parameters(), *self.named_buffers())
        return {
            **{f"part {name}": (part, 0, None) for name, part in self.named_modules() if name},
            **{name: (t, 0 if t.is_inference() else t._version, t.dtype) for name, t in tensors},
        }

    def _still_stores(self, before: Stored) -> bool:
        """Whether all of `before` is as it was; what came on top since was built from it, such as a direct method."""
        now = self._stored()
        return all(
            name in now and now[name][0] is kept and now[name][1:] == (version, dtype)
            for name, (kept, version, dtype) in before.items()
        )

    # A copy counts the changes of its tensors anew.
    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_norm_cache": None}

    @property
    def H(self) -> LinearOperator:
        """The adjoint as an operator; ``A.H.H is A``."""
        return Adjoint(self)

    @property
    def image_space(self) -> Space:
        """The Space of one image: the domain, unless an element of it holds several (frames, map sets).

        Priors and denoisers are made for one image and see all of them one by one.
        """
        return self.domain

    def combined(self, x: Tensor) -> Tensor:
        """What of an element `x` of the domain is shown and measured: all of it, unless several parts of it (map sets)
        stand for one image."""
        return x

    @property
    def computes_double(self) -> bool:
        """Whether the operator and all its parts compute in double precision after ``.double()``."""
        return all(part.has_double for part in self._operators())

    def _operators(self) -> Iterator[LinearOperator]:
        """The operator itself and every operator in it."""
        return (m for m in self.modules() if isinstance(m, LinearOperator))

    @property
    def device(self) -> torch.device:
        """Where the operator's tensors live (the CPU when it has none)."""
        for tensor in (*self.parameters(), *self.buffers()):
            return tensor.device
        return torch.device("cpu")

    def __matmul__(self, other: LinearOperator) -> LinearOperator:
        return Composition(self, other)

    def __add__(self, other: LinearOperator) -> LinearOperator:
        return Sum(self, other)

    def __sub__(self, other: LinearOperator) -> LinearOperator:
        return Sum(self, Scaled(-1.0, other))

    def __rmul__(self, factor: complex) -> LinearOperator:
        return Scaled(factor, self)

    def __neg__(self) -> LinearOperator:
        return Scaled(-1.0, self)

    # nn.Module sends .to(), .double() and .cuda() through here: the Spaces must follow, and complex data stay complex.
    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> LinearOperator:
        # All parts are asked before the first is converted.
        for part in self._operators():
            for space in () if part.has_double else (part.domain, part.range):
                if space.moved(fn) != space:
                    raise InputError(
                        f"precision of {type(part).__name__}", expected=space.dtype, got=space.moved(fn).dtype,
                        cure="its backend computes in one precision only",
                    )  # fmt: skip
        before = self.domain, self.range
        self.domain, self.range = self.domain.moved(fn), self.range.moved(fn)
        super()._apply(keep_kind(fn), recurse)  # type: ignore[no-untyped-call]
        if before != (self.domain, self.range):  # where tensors move, the cache knows by itself
            self._norm_cache = None
        return self


class Adjoint(LinearOperator):
    """``A^H`` as an operator; made by ``A.H``."""

    def __init__(self, operator: LinearOperator) -> None:
        super().__init__(operator.range, operator.domain)
        self.operator = operator

    def _forward(self, x: Tensor) -> Tensor:
        return self.operator._adjoint(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.operator._forward(y)

    def norm_bounds(self, tolerance: float = 1e-3) -> tuple[float, float]:
        """That of the operator itself."""
        return self.operator.norm_bounds(tolerance)

    @property
    def H(self) -> LinearOperator:
        """The operator itself."""
        return self.operator


def _same(a: Space, b: Space, what: str) -> None:
    if a != b:
        raise InputError(what, expected=f"{list(a.shape)} {a.dtype}", got=f"{list(b.shape)} {b.dtype}")


class Composition(LinearOperator):
    """``A B``: first B, then A; made by ``A @ B``."""

    def __init__(self, outer: LinearOperator, inner: LinearOperator) -> None:
        _same(outer.domain, inner.range, "range of the inner operator of a composition")
        super().__init__(inner.domain, outer.range)
        self.outer, self.inner = outer, inner

    def _forward(self, x: Tensor) -> Tensor:
        return self.outer._forward(self.inner._forward(x))

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.inner._adjoint(self.outer._adjoint(y))

    def _normal(self, x: Tensor) -> Tensor:
        return self.inner.adjoint(self.outer.normal(self.inner(x)))


class Sum(LinearOperator):
    """``A + B``; made by ``A + B``."""

    def __init__(self, first: LinearOperator, second: LinearOperator) -> None:
        _same(first.domain, second.domain, "domain of the second operator of a sum")
        _same(first.range, second.range, "range of the second operator of a sum")
        super().__init__(first.domain, first.range)
        self.first, self.second = first, second

    def _forward(self, x: Tensor) -> Tensor:
        return self.first._forward(x) + self.second._forward(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.first._adjoint(y) + self.second._adjoint(y)


class Scaled(LinearOperator):
    """``a A``; made by ``a * A``. A complex factor needs complex spaces."""

    def __init__(self, factor: complex, operator: LinearOperator) -> None:
        if isinstance(factor, complex) and not (operator.domain.is_complex and operator.range.is_complex):
            raise InputError("factor of an operator on real spaces", expected="a real number", got=factor)
        super().__init__(operator.domain, operator.range)
        self.factor, self.operator = factor, operator

    def _forward(self, x: Tensor) -> Tensor:
        return self.factor * self.operator._forward(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.factor.conjugate() * self.operator._adjoint(y)

    def _normal(self, x: Tensor) -> Tensor:
        return abs(self.factor) ** 2 * self.operator.normal(x)

    def norm_bounds(self, tolerance: float = 1e-3) -> tuple[float, float]:
        """That of the operator, times ``|a|``."""
        lower, upper = self.operator.norm_bounds(tolerance)
        return abs(self.factor) * lower, abs(self.factor) * upper


class Stack(LinearOperator):
    """``x -> (A_1 x, A_2 x, ...)``, flattened and concatenated into one vector; ``split`` takes it apart."""

    def __init__(self, operators: Sequence[LinearOperator]) -> None:
        if not operators:
            raise InputError("operators of a stack", expected="at least one", got="none")
        first = operators[0]
        for other in operators[1:]:
            _same(first.domain, other.domain, "domain of an operator in a stack")
            if other.range.dtype != first.range.dtype:
                raise InputError(
                    "range of an operator in a stack", expected=first.range.dtype, got=other.range.dtype,
                    cure="keep the operators apart: PDHG and ADMM take terms of any dtype",
                )  # fmt: skip
        super().__init__(first.domain, Space((sum(a.range.size for a in operators),), first.range.dtype))
        self.operators = nn.ModuleList(operators)

    def _parts(self) -> list[LinearOperator]:
        return [a for a in self.operators if isinstance(a, LinearOperator)]

    def split(self, y: Tensor) -> list[Tensor]:
        """The parts of a stacked measurement, each ``[..., *range.shape]`` of its operator."""
        parts = self._parts()
        pieces = torch.split(y, [a.range.size for a in parts], dim=-1)
        return [p.reshape(*y.shape[:-1], *a.range.shape) for p, a in zip(pieces, parts, strict=True)]

    def _forward(self, x: Tensor) -> Tensor:
        batch = self.domain.batch_shape(x)
        return torch.cat([a._forward(x).reshape(*batch, -1) for a in self._parts()], dim=-1)

    def _adjoint(self, y: Tensor) -> Tensor:
        return torch.stack([a._adjoint(p) for a, p in zip(self._parts(), self.split(y), strict=True)]).sum(0)

    def _normal(self, x: Tensor) -> Tensor:
        return torch.stack([a.normal(x) for a in self._parts()]).sum(0)


class Identity(LinearOperator):
    """``x -> x``."""

    def __init__(self, space: Space) -> None:
        super().__init__(space, space)

    def _forward(self, x: Tensor) -> Tensor:
        return x.clone()

    def _adjoint(self, y: Tensor) -> Tensor:
        return y.clone()

    def _normal(self, x: Tensor) -> Tensor:
        return x

    def _pseudo_inverse(self, y: Tensor) -> Tensor:
        return y

    def _norm(self) -> float | None:
        return 1.0

    def solve_normal(self, b: Tensor, rho: float | Tensor) -> Tensor | None:
        """``b / (1 + rho)``."""
        return b / (1 + rho)


class Gradient(LinearOperator):
    """Forward differences along every dimension, zero at the far edge: ``[..., *shape] -> [..., ndim, *shape]``.

    Differences are per pixel, not per mm. The norm is exact: along n points the largest eigenvalue of ``D^T D`` is
    ``4 sin^2(pi (n - 1) / (2 n))``.
    """

    def __init__(self, space: Space) -> None:
        super().__init__(space, Space((space.ndim, *space.shape), space.dtype))

    def _forward(self, x: Tensor) -> Tensor:
        n = self.domain.ndim
        g = x.new_zeros(*self.domain.batch_shape(x), *self.range.shape)
        for axis in range(n):
            part = g.select(-n - 1, axis)
            size = self.domain.shape[axis] - 1
            if size:
                torch.sub(x.narrow(axis - n, 1, size), x.narrow(axis - n, 0, size), out=part.narrow(axis - n, 0, size))
        return g

    def _adjoint(self, y: Tensor) -> Tensor:
        n = self.domain.ndim
        x = y.new_zeros(*self.range.batch_shape(y), *self.domain.shape)
        for axis in range(n):
            size = self.domain.shape[axis] - 1
            if size:
                part = y.select(-n - 1, axis).narrow(axis - n, 0, size)
                x.narrow(axis - n, 1, size).add_(part)
                x.narrow(axis - n, 0, size).sub_(part)
        return x

    def _norm(self) -> float | None:
        return math.sqrt(sum(4 * math.sin(math.pi * (n - 1) / (2 * n)) ** 2 for n in self.domain.shape))
