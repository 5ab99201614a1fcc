"""Any linear ODL operator as a LinearOperator, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from priorloom.adapters import GAP_LIMIT, adjoint_gap
from priorloom.errors import InputError
from priorloom.operator import LinearOperator
from priorloom.space import Space

from .backends import backend
from .odl_pickle import Shared


class OdlOperator(LinearOperator):
    """A linear ODL operator on tensors, with the Euclidean adjoint; made by ``from_odl``.

    ODL's inner products are weighted, ``<a, b>_W = <a, W b>`` with a diagonal W, and its adjoint ``A*`` belongs to
    those: ``A* = W_domain^-1 A^H W_range``. So the conjugate transpose is ``A^H = W_domain A* W_range^-1``, as exact
    as ``A*`` is.

    Parameters
    ----------
    operator
        A linear ``odl.Operator``.
    """

    has_double = False

    def __init__(self, operator: Any) -> None:
        super().__init__(_space(operator.domain), _space(operator.range))
        self._shared = Shared(operator)
        self._domain_weight, self._range_weight = diagonal_weight(operator.domain), diagonal_weight(operator.range)

    @property
    def odl_operator(self) -> Any:
        """The ODL operator itself."""
        return self._shared.value

    def _forward(self, x: Tensor) -> Tensor:
        images = (self.odl_operator(element).asarray() for element in self._elements(x, self.domain, 1.0))
        return self._batch(images, x, self.domain, self.range)

    def _adjoint(self, y: Tensor) -> Tensor:
        elements = self._elements(y, self.range, self._range_weight, of_range=True)
        adjoint = self.odl_operator.adjoint
        images = (self._domain_weight * adjoint(element).asarray() for element in elements)
        return self._batch(images, y, self.range, self.domain)

    def _elements(self, x: Tensor, space: Space, weight: Any, of_range: bool = False) -> Any:
        home = self.odl_operator.range if of_range else self.odl_operator.domain
        dtype = _dtype(home)
        for one in x.detach().resolve_conj().reshape(-1, *space.shape).cpu().numpy():
            yield home.element((one / weight).astype(dtype))

    @staticmethod
    def _batch(images: Any, like: Tensor, source: Space, target: Space) -> Tensor:
        batch, made = source.batch_shape(like), [np.asarray(image) for image in images]
        if not made:
            return target.zeros(batch, like.device)
        return torch.from_numpy(np.stack(made)).reshape(*batch, *target.shape).to(like.device, target.dtype)


class DoubleOdlOperator(OdlOperator):
    """An OdlOperator whose ODL spaces are in double precision."""

    has_double = True


def from_odl(operator: Any) -> OdlOperator:
    """A linear ODL operator, such as a RayTransform with any backend, as a LinearOperator.

    It computes on the CPU, one image after the other, in the precision of the ODL spaces. The power of a space, such
    as the range of a gradient, is one tensor with a leading dimension.

    Parameters
    ----------
    operator
        A linear ``odl.Operator`` with an adjoint, between tensor spaces, discretised spaces, or powers of one, with
        constant or array weights and real or complex floating-point entries.

    Returns
    -------
    operator
        The same map, with the Euclidean adjoint.

    Raises
    ------
    InputError
        For anything else, also for an ODL operator whose adjoint ignores the weights of its spaces.
    """
    odl = backend("odl", "the ODL adapter")
    if not isinstance(operator, odl.Operator) or not operator.is_linear:
        raise InputError("operator for from_odl", expected="a linear odl.Operator", got=repr(operator)[:80])
    try:
        _ = operator.adjoint
    except (NotImplementedError, odl.OpNotImplementedError):
        name = type(operator).__name__
        raise InputError("operator for from_odl", expected="an operator with an adjoint", got=name) from None
    result = _wrap(operator)
    gap = adjoint_gap(result)
    if not gap < GAP_LIMIT:
        name = type(operator).__name__
        raise InputError(
            f"adjoint of the odl operator {name}", expected="that of its inner products", got=f"gap {gap:.2g}"
        )
    return result


def _wrap(operator: Any) -> OdlOperator:
    double = all(
        _dtype(space).itemsize == (16 if _space(space).is_complex else 8) for space in (operator.domain, operator.range)
    )
    return DoubleOdlOperator(operator) if double else OdlOperator(operator)


def to_odl(A: LinearOperator, domain: Any = None, range: Any = None) -> Any:
    """`A` as an ``odl.Operator`` with its adjoint, for ODL's solvers and algebra.

    It computes in A's own precision, without a graph for gradients. ODL's adjoint belongs to the weighted inner
    products of its spaces: ``A* = W_domain^-1 A^H W_range`` with their diagonal weights W.

    Parameters
    ----------
    A
        The operator. What it holds is shared, not copied.
    domain, range
        ODL spaces of A's shapes and dtypes, such as ``odl.uniform_discr``; ``odl.rn`` or ``odl.cn`` when absent.

    Raises
    ------
    InputError
        For anything that is not a LinearOperator, or a space of another shape or dtype.
    PluginError
        When odl is not installed.
    """
    odl = backend("odl", "the ODL adapter")
    if not isinstance(A, LinearOperator):
        raise InputError("operator for to_odl", expected="a LinearOperator", got=type(A).__name__)
    from .odl_view import OdlView

    domain, range = _home(odl, A.domain, domain, "domain"), _home(odl, A.range, range, "range")
    return OdlView(A, domain, range, (diagonal_weight(domain), diagonal_weight(range)), is_adjoint=False)


def _home(odl: Any, space: Space, given: Any, what: str) -> Any:
    if given is None:
        dtype = str(space.dtype).removeprefix("torch.")
        return (odl.cn if space.is_complex else odl.rn)(space.shape, dtype=dtype)
    if _space(given) != space:
        raise InputError(
            f"{what} for to_odl", expected=f"a space of shape {list(space.shape)} and {space.dtype}",
            got=f"shape {list(given.shape)} and {_dtype(given)}",
        )  # fmt: skip
    return given


def _is_product(space: Any) -> bool:
    return isinstance(space, backend("odl", "the ODL adapter").ProductSpace)


def _dtype(space: Any) -> np.dtype[Any]:
    dtype: np.dtype[Any] = np.dtype(space[0].dtype if _is_product(space) else space.dtype)
    return dtype


def _space(space: Any) -> Space:
    if _is_product(space) and not (space.is_power_space and len(space)):
        raise InputError("space of the odl operator", expected="one space or a power of one", got=repr(space)[:80])
    if not hasattr(space, "shape"):
        raise InputError("space of the odl operator", expected="a tensor or discretised space", got=repr(space)[:80])
    dtype = getattr(torch, _dtype(space).name, None)
    if not isinstance(dtype, torch.dtype):
        raise InputError("dtype of the odl space", expected="a real or complex float", got=_dtype(space))
    return Space(tuple(space.shape), dtype)


def diagonal_weight(space: Any) -> npt.NDArray[Any]:
    """The diagonal of W, in a shape that broadcasts against one element."""
    weighting = space.weighting
    value = getattr(weighting, "const", None)
    if value is None:
        value = getattr(weighting, "array", None)
    if value is None:
        name = type(weighting).__name__
        raise InputError("weights of the odl space", expected="a constant or an array", got=name)
    own = np.asarray(value.asarray() if hasattr(value, "asarray") else value, dtype=np.float64)
    if not _is_product(space):
        return own
    trailing = (1,) * (len(space.shape) - own.ndim if own.ndim else 0)
    weight: npt.NDArray[Any] = own.reshape(own.shape + trailing) * diagonal_weight(space[0])
    return weight
