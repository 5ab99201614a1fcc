"""LISTA and its coupled and support-selecting variants: ISTA for a dense dictionary with learned matrices.

For ``y = A x`` with a sparse x and a real matrix A ``[m, n]``. ISTA on ``0.5 |A x - y|^2 + lam |x|_1`` with the step
size ``1 / L``, ``L = |A|^2``, is ``x+ = S(x - A^T (A x - y) / L, lam / L)`` with soft-thresholding S. Every layer here
is that step at initialisation.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from ..constraints import Positive, StepSize
from ..dense import DenseOperator
from ..errors import InputError
from ..problem import Problem
from .base import State, Step, per_image, refuse_terms, start
from .learned import least_squares


class FilterAndInhibition(nn.Module):
    """The two free matrices of LISTA: the filters W ``[n, m]``, and the inhibition S ``[n, n]`` held as its departure
    ``D = S - (I - W A)`` from coupling. At first ``W = A^T / L`` and ``D = 0``.

    Every pair (W, S) is a pair (W, D), and back. But a network that recovers x must have ``S = I - W A`` in the limit
    (Chen et al., theorem 1): in these coordinates an optimiser that moves W takes S along, in the others it must find
    the n x n numbers of S anew.
    """

    def __init__(self, A: DenseOperator) -> None:
        super().__init__()
        self.W = nn.Parameter((A.matrix.T * _inverse_lipschitz(A)).contiguous())
        self.D = nn.Parameter(torch.zeros(A.domain.size, A.domain.size, dtype=A.matrix.dtype))


class CoupledMatrix(nn.Module):
    """The one matrix of LISTA-CP, ``W = A`` ``[m, n]`` at first, then free."""

    def __init__(self, A: DenseOperator) -> None:
        super().__init__()
        self.W = nn.Parameter(A.matrix.clone(memory_format=torch.contiguous_format))


class LISTA(Step[State]):
    """``x+ = soft(W y + S x, theta)`` (Gregor and LeCun, Learning fast approximations of sparse coding, ICML 2010).

    Computed as ``soft(x - W (A x - y) + D x, theta)`` with ``S = I - W A + D``. W and D serve the operator that they
    were trained for. There is no step size, and no bound on what the matrices may become.

    Parameters
    ----------
    weights
        The matrices; layers that hold the same ones are tied.
    threshold
        The first theta, ``lam / L`` for ISTA with the weight lam; it stays positive by parametrisation.
    """

    def __init__(self, weights: FilterAndInhibition, threshold: float) -> None:
        super().__init__()
        self.weights = weights
        self.threshold = Positive(threshold)

    def init(self, problem: Problem, x0: Tensor | None = None) -> State:
        """Start at `x0`."""
        return _sparse_start(self, problem, x0, tuple(self.weights.W.shape[::-1]))

    def forward(self, problem: Problem, state: State) -> State:
        """One layer."""
        x, weights = state.x, self.weights
        residual = problem.data.K(x) - least_squares(self, problem).y
        return State(soft_threshold(x - residual @ weights.W.T + x @ weights.D.T, self.threshold()))


class CoupledLISTA(Step[State]):
    """``x+ = soft(x - t W^T (A x - y), theta)``: LISTA-CP, and LISTA-CPSS where the largest entries are not shrunk.

    Chen, Liu, Wang and Yin (Theoretical linear convergence of unfolded ISTA and its practical weights and thresholds,
    NeurIPS 2018) show that the two matrices of a LISTA that converges to x must be coupled, ``S = I - W A`` in the
    limit (theorem 1), that coupled layers converge linearly (theorem 2), and faster with support selection (theorem 3).
    The step size apart from W is that of TiLISTA (Liu, Chen, Wang and Yin, ALISTA, ICLR 2019): layers that share W keep
    steps of their own.

    Parameters
    ----------
    weights
        W; layers may share it.
    threshold
        The first theta, ``lam / L`` for ISTA with the weight lam; it stays positive by parametrisation.
    trusted
        The share of the entries, in [0, 1], that are taken to be in the support: the largest of ``|x - t W^T (A x -
        y)|``, which are kept as they are where they exceed theta. At 0 the new layer is ISTA's step; else it is ISTA's
        step on all other entries.
    """

    def __init__(self, weights: CoupledMatrix, threshold: float, trusted: float = 0.0) -> None:
        super().__init__()
        if not 0 <= trusted <= 1:
            raise InputError("share of trusted entries", expected="a number in [0, 1]", got=trusted)
        self.weights = weights
        self.step_size = StepSize()
        self.threshold = Positive(threshold)
        self.trusted = trusted

    def init(self, problem: Problem, x0: Tensor | None = None) -> State:
        """Start at `x0`."""
        return _sparse_start(self, problem, x0, tuple(self.weights.W.shape))

    def forward(self, problem: Problem, state: State) -> State:
        """One layer."""
        x = state.x
        t = problem.space.expand(per_image(problem, x, self.step_size))
        residual = problem.data.K(x) - least_squares(self, problem).y
        moved = x - t * (residual @ self.weights.W)
        return State(select_support(moved, self.threshold(), round(self.trusted * x.shape[-1])))


def soft_threshold(x: Tensor, threshold: Tensor) -> Tensor:
    """``sign(x) max(|x| - theta, 0)`` for real x; differentiable in theta too."""
    return relu(x - threshold) - relu(-x - threshold)


def select_support(x: Tensor, threshold: Tensor, trusted: int) -> Tensor:
    """Soft-thresholding that keeps the `trusted` largest entries of every vector where they exceed the threshold."""
    shrunk = soft_threshold(x, threshold)
    if not trusted:
        return shrunk
    size = x.detach().abs()
    least = size.topk(trusted, dim=-1).values[..., -1:]
    return torch.where((size >= least) & (size > threshold), x, shrunk)


def dense_real(operator: object, owner: str) -> DenseOperator:
    """`operator` if it is a real dense matrix; raises InputError otherwise."""
    if not isinstance(operator, DenseOperator) or operator.domain.is_complex:
        kind = type(operator).__name__
        raise InputError(
            f"operator of {owner}", expected="a real DenseOperator",
            got=f"a complex {kind}" if isinstance(operator, DenseOperator) else kind,
            cure="architecture 'learned-ista' serves other operators",
        )  # fmt: skip
    return operator


def ista_threshold(A: DenseOperator, lam: float) -> float:
    """``lam / L``: the threshold of ISTA for the weight `lam`."""
    return lam * _inverse_lipschitz(A)


def _inverse_lipschitz(A: DenseOperator) -> float:
    norm = A.norm()
    if norm == 0:
        raise InputError("operator of LISTA", expected="a matrix that is not zero", got="norm 0")
    return 1 / norm**2


def _sparse_start(step: Step[State], problem: Problem, x0: Tensor | None, shape: tuple[int, ...]) -> State:
    refuse_terms(step, problem)
    least_squares(step, problem)
    K = problem.data.K
    if (*K.range.shape, *K.domain.shape) != shape:
        raise InputError(
            f"operator of {type(step).__name__}", expected=f"the matrix size it was made for, {list(shape)}",
            got=[*K.range.shape, *K.domain.shape],
        )  # fmt: skip
    return State(start(problem, x0))
