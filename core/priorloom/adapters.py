"""Operators from and for SciPy and PyLops: ``from_scipy(B)`` and ``to_scipy(A)``.

Vectors are elements of a Space in C order. Those of ODL are in ``priorloom_ct.odl_adapter``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse
import scipy.sparse.linalg
import torch
from torch import Tensor

from .errors import InputError
from .operator import LinearOperator
from .space import Space

Array = npt.NDArray[Any]

GAP_LIMIT = 1e-3
"""The largest gap of the dot test with which an adjoint is taken for one, far above rounding in single precision."""


class ScipyOperator(LinearOperator):
    """A linear map on flat NumPy vectors, on tensors; made by ``from_scipy``.

    Parameters
    ----------
    operator
        Anything with ``matmat``, ``[n, k] -> [m, k]``, and its adjoint ``rmatmat``.
    domain, range
        Spaces of n and of m entries.
    """

    has_double = False

    def __init__(self, operator: Any, domain: Space, range: Space) -> None:
        super().__init__(domain, range)
        self.scipy_operator = operator

    def _forward(self, x: Tensor) -> Tensor:
        return _on_columns(self.scipy_operator.matmat, x, self.domain, self.range)

    def _adjoint(self, y: Tensor) -> Tensor:
        return _on_columns(self.scipy_operator.rmatmat, y, self.range, self.domain)


class DoubleScipyOperator(ScipyOperator):
    """A ScipyOperator that computes in double precision."""

    has_double = True


def _on_columns(apply: Callable[[Array], Array], x: Tensor, source: Space, target: Space) -> Tensor:
    batch = source.batch_shape(x)
    columns = x.detach().resolve_conj().reshape(-1, source.size).cpu().numpy().T
    if not columns.shape[1]:
        return target.zeros(batch, x.device)
    result = np.asarray(apply(columns))
    if np.iscomplexobj(result) and not target.is_complex:  # the adjoint where real images have complex data
        result = result.real
    rows = np.ascontiguousarray(result.T)  # also writable, as torch asks
    return torch.from_numpy(rows).to(x.device, target.dtype).reshape(*batch, *target.shape)


def from_scipy(operator: Any, domain: Space | None = None, range: Space | None = None) -> LinearOperator:
    """A SciPy or PyLops operator, or a sparse or dense matrix, as a LinearOperator.

    It computes on the CPU, with ``matmat`` for a whole batch, in the operator's own precision.

    Parameters
    ----------
    operator
        A ``scipy.sparse.linalg.LinearOperator`` with ``rmatvec`` (the adjoint, so conjugated where complex), a sparse
        or dense matrix ``[m, n]``, or a PyLops operator.
    domain, range
        Spaces of n and of m entries. When absent: the shapes of a PyLops operator (``dims``, ``dimsd``), else flat
        vectors, both in the operator's dtype. Give them for shapes, and where real images have complex data.

    Raises
    ------
    InputError
        For anything else, a dtype that is not a real or complex float, Spaces of another size, and an adjoint that is
        missing or not the adjoint.
    """
    wrapped = _wrapped(operator)
    rows, columns = (int(n) for n in wrapped.shape)
    domain = _space(operator, wrapped, domain, "dims", columns, "domain")
    range = _space(operator, wrapped, range, "dimsd", rows, "range")
    if domain.is_complex and not range.is_complex:
        raise InputError("range for from_scipy", expected="a complex dtype, like the domain's", got=range.dtype)
    name = type(operator).__name__
    both_double = all(space.real_dtype == torch.float64 for space in (domain, range))
    # A product with a matrix has the higher precision of the two; what a function does is known from its dtype only.
    is_double = isinstance(operator, np.ndarray) or scipy.sparse.issparse(operator) or both_double
    result = (DoubleScipyOperator if is_double else ScipyOperator)(wrapped, domain, range)
    try:
        gap = adjoint_gap(result)
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"operator for from_scipy ({name})", expected="matvec and rmatvec that can be applied",
            got=f"{type(error).__name__}: {error}", cure="give the LinearOperator an rmatvec, the adjoint",
        ) from error  # fmt: skip
    if not gap < GAP_LIMIT:
        raise InputError(
            f"adjoint of the operator {name}", expected="the conjugate transpose", got=f"gap {gap:.2g}",
            cure="give a real domain, if it sees the real part only" if domain.is_complex else None,
        )  # fmt: skip
    return result


def adjoint_gap(A: LinearOperator) -> float:
    """The largest ``|<Ax, y> - <x, A^H y>| / (|Ax| |y|)`` of a random pair and two aligned ones.

    Real parts are compared where one of the spaces is real. Where both are complex, a map that is linear over the real
    numbers only, such as taking the real part, shows as a gap too.
    """
    generator = torch.Generator().manual_seed(0)
    gaps = [0.0]
    with torch.no_grad():
        x, y = A.domain.random(generator), A.range.random(generator)
        # Of white noise alone <Ax, y> is small, and a wrong scale would hide in that.
        for u, v in ((x, y), (x, A(x)), (A.adjoint(y), y)):
            image = A(u)
            ours, theirs = A.range.inner(image, v), A.domain.inner(u, A.adjoint(v))
            difference = ours - theirs if ours.is_complex() and theirs.is_complex() else ours.real - theirs.real
            gaps.append(float(difference.abs() / (A.range.norm(image) * A.range.norm(v)).clamp_min(1e-30)))
    return max(gaps) if all(np.isfinite(gaps)) else float("inf")


def _wrapped(operator: Any) -> Any:
    if isinstance(operator, LinearOperator):
        raise InputError("operator for from_scipy", expected="one of SciPy or PyLops", got="a LinearOperator already")
    if not (isinstance(operator, np.ndarray) or scipy.sparse.issparse(operator)) and all(
        hasattr(operator, name) for name in ("shape", "dtype", "matmat", "rmatmat")
    ):
        return operator
    try:
        return scipy.sparse.linalg.aslinearoperator(operator)
    except (TypeError, ValueError):
        raise InputError(
            "operator for from_scipy", expected="a scipy LinearOperator, a matrix or a PyLops operator",
            got=type(operator).__name__,
        ) from None  # fmt: skip


def _space(operator: Any, wrapped: Any, given: Space | None, name: str, size: int, what: str) -> Space:
    if given is not None:
        if not isinstance(given, Space):
            raise InputError(f"{what} for from_scipy", expected="a Space", got=repr(given)[:80])
        if given.size != size:
            raise InputError(f"{what} for from_scipy", expected=f"{size} entries", got=f"shape {list(given.shape)}")
        return given
    dtype = getattr(torch, np.dtype(wrapped.dtype).name, None) if wrapped.dtype is not None else None
    if not isinstance(dtype, torch.dtype) or not (dtype.is_floating_point or dtype.is_complex):
        raise InputError(
            "dtype of the operator for from_scipy", expected="a real or complex float", got=wrapped.dtype,
            cure=f"convert it, or give domain and range ({what} is missing)",
        )  # fmt: skip
    shape = tuple(int(n) for n in getattr(operator, name, None) or (size,))
    return Space(shape, dtype)


class _ScipyView(scipy.sparse.linalg.LinearOperator):
    """What ``to_scipy`` returns: A on the entries of its elements."""

    def __init__(self, A: LinearOperator) -> None:
        self.A = A
        dtype = np.result_type(*(np.dtype(str(s.dtype).removeprefix("torch.")) for s in (A.domain, A.range)))
        super().__init__(dtype, (A.range.size, A.domain.size))  # type: ignore[call-arg]

    def _matmat(self, X: Array) -> Array:
        return self._linear(self.A, X, self.A.domain)

    def _rmatmat(self, X: Array) -> Array:
        A = self.A
        result = self._linear(A.adjoint, X, A.range)
        if A.range.is_complex and not A.domain.is_complex:
            # A^H gives the real part of the conjugate transpose, which on complex vectors has an imaginary one too.
            result = result + 1j * self._linear(A.adjoint, -1j * X, A.range)
        return result

    def _matvec(self, x: Array) -> Array:
        return self._matmat(x.reshape(-1, 1))[:, 0]

    def _rmatvec(self, x: Array) -> Array:
        return self._rmatmat(x.reshape(-1, 1))[:, 0]

    def _linear(self, apply: Callable[[Tensor], Tensor], X: Array, source: Space) -> Array:
        if np.iscomplexobj(X) and not source.is_complex:
            return self._linear(apply, X.real, source) + 1j * self._linear(apply, X.imag, source)
        rows = np.ascontiguousarray(X.T, dtype=X.dtype.newbyteorder("="))  # torch knows no other byte order
        x = torch.from_numpy(rows).to(self.A.device, source.dtype)
        with torch.no_grad():
            result: Array = apply(x.reshape(-1, *source.shape)).flatten(1).cpu().resolve_conj().numpy().T
        return result


def to_scipy(A: LinearOperator) -> scipy.sparse.linalg.LinearOperator:
    """`A` as a ``scipy.sparse.linalg.LinearOperator`` on flattened elements, ``[range.size, domain.size]``.

    It computes in A's own precision and on A's device, without a graph for gradients; ``matmat`` is one batch. Where
    real images have complex data it acts on complex vectors as the complex matrix that it is. PyLops takes the result
    with ``pylops.aslinearoperator``.

    Parameters
    ----------
    A
        The operator. What it holds is shared, not copied.

    Raises
    ------
    InputError
        For anything that is not a LinearOperator, or has complex images and real data.
    """
    if not isinstance(A, LinearOperator):
        raise InputError("operator for to_scipy", expected="a LinearOperator", got=type(A).__name__)
    if A.domain.is_complex and not A.range.is_complex:
        raise InputError("operator for to_scipy", expected="complex data of complex images", got=A.range.dtype)
    return _ScipyView(A)
