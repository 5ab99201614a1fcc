"""LISTA for dense dictionaries: untied, tied, coupled, and coupled with support selection.

Every factory takes a real ``DenseOperator`` and returns an untrained network whose layers are ISTA's step with the step
size ``1 / L`` and the weight `lam` at initialisation. Images start at zero.
"""

from __future__ import annotations

from collections.abc import Callable

from priorloom.operator import LinearOperator
from priorloom.steps.lista import (
    LISTA,
    CoupledLISTA,
    CoupledMatrix,
    FilterAndInhibition,
    dense_real,
    ista_threshold,
)
from priorloom.unrolled import Unrolled


def lista(operator: LinearOperator, *, layers: int = 16, lam: float = 0.4) -> Unrolled:
    """LISTA with matrices and thresholds of their own in every layer (Gregor and LeCun, 2010).

    Parameters
    ----------
    layers
        How many.
    lam
        The weight of the l1 norm in ISTA, with which the layers start.
    """
    A = dense_real(operator, "lista")
    theta = ista_threshold(A, lam)
    return Unrolled([LISTA(FilterAndInhibition(A), theta) for _ in range(layers)], start="zero", back="adjoint")


def lista_tied(operator: LinearOperator, *, layers: int = 16, lam: float = 0.4) -> Unrolled:
    """LISTA as first published: one pair of matrices for all layers, a threshold for each (Gregor and LeCun, 2010).

    Parameters
    ----------
    layers
        How many.
    lam
        The weight of the l1 norm in ISTA, with which the layers start.
    """
    A = dense_real(operator, "lista-tied")
    theta = ista_threshold(A, lam)
    weights = FilterAndInhibition(A)
    return Unrolled([LISTA(weights, theta) for _ in range(layers)], start="zero", back="adjoint")


def lista_cp(operator: LinearOperator, *, layers: int = 16, lam: float = 0.4, shared: bool = True) -> Unrolled:
    """LISTA with coupled weights (Chen, Liu, Wang and Yin, 2018).

    Parameters
    ----------
    layers
        How many.
    lam
        The weight of the l1 norm in ISTA, with which the layers start.
    shared
        Whether all layers share the matrix, which suffices (Liu et al., ALISTA, 2019), or have one each. Step sizes
        and thresholds are always their own.
    """
    A = dense_real(operator, "lista-cp")
    theta = ista_threshold(A, lam)
    matrix = _matrices(lambda: CoupledMatrix(A), shared)
    return Unrolled([CoupledLISTA(matrix(), theta) for _ in range(layers)], start="zero", back="adjoint")


def lista_cpss(
    operator: LinearOperator,
    *,
    layers: int = 16,
    lam: float = 0.4,
    shared: bool = True,
    trusted: float = 0.012,
    most_trusted: float = 0.12,
) -> Unrolled:
    """LISTA with coupled weights and support selection (Chen, Liu, Wang and Yin, 2018).

    Layer k does not shrink the largest ``min(k trusted, most_trusted)`` of the entries.

    Parameters
    ----------
    layers
        How many.
    lam
        The weight of the l1 norm in ISTA, with which the layers start.
    shared
        Whether all layers share the matrix, which suffices (Liu et al., ALISTA, 2019), or have one each. Step sizes
        and thresholds are always their own.
    trusted, most_trusted
        The share of the entries that each layer trusts more than the one before, and the most, in [0, 1]; a little
        above the share that is not zero.
    """
    A = dense_real(operator, "lista-cpss")
    theta = ista_threshold(A, lam)
    matrix = _matrices(lambda: CoupledMatrix(A), shared)
    shares = [min(k * trusted, most_trusted) for k in range(1, layers + 1)]
    return Unrolled([CoupledLISTA(matrix(), theta, share) for share in shares], start="zero", back="adjoint")


def _matrices(make: Callable[[], CoupledMatrix], shared: bool) -> Callable[[], CoupledMatrix]:
    if not shared:
        return make
    one = make()
    return lambda: one
