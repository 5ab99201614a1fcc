"""How fast singular values fall, by a stated criterion, and how they are distributed where there are too many."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..memory import require_memory
from .coordinates import Coordinates

Kind = Literal["well-posed", "mildly ill-posed", "moderately ill-posed", "severely ill-posed", "unknown"]

SHARE = 0.75
"""Of the values that are not zero, the leading share that is fitted; the last quarter belongs to the grid (its corners,
its interpolation) more than to the physics."""
WELL_POSED = 10.0
"""The largest ratio of the largest to the smallest value that is not zero of a well-posed operator."""
SEVERE = 10.0
"""The least factor by which the fitted exponential falls over the fitted share."""
FEWEST = 8
PROBES, STEPS = 8, 64


@dataclass(frozen=True)
class Decay:
    """The two laws fitted to the leading values, and the class that follows.

    Parameters
    ----------
    kind
        The class, see `classify`.
    exponent, power_rms
        alpha of ``sigma_i ~ i^-alpha``, and the root mean square of ``log sigma`` around the law.
    factor, exponential_rms
        By what factor the law ``sigma_i ~ exp(-c i)`` falls over the fitted share, and its root mean square.
    """

    kind: Kind
    exponent: float
    power_rms: float
    factor: float
    exponential_rms: float


def classify(index: Tensor, values: Tensor, rank: float) -> Decay:
    """The class of decay of singular values ``sigma_i`` that are not zero.

    Both laws are fitted to ``log sigma`` by least squares over the indices up to `SHARE` of the rank (Hofmann, 1986,
    for the classes; the criterion is for a discretised operator). In this order:

    * ``well-posed``: all of them are within a factor `WELL_POSED`;
    * ``severely ill-posed``: the exponential law fits better, and falls by `SEVERE` or more over the fitted share;
    * ``moderately ill-posed``: ``alpha > 1`` in the power law; ``mildly ill-posed`` otherwise.

    It says nothing about a null space, which is counted, not fitted. ``unknown`` for fewer than eight values.

    Parameters
    ----------
    index, values
        i from 1 on and sigma_i, falling, ``[count]``; not necessarily all of them.
    rank
        How many are not zero.
    """
    if len(values) < FEWEST:
        return Decay("unknown", float("nan"), float("nan"), float("nan"), float("nan"))
    i, sigma = (t.double().cpu().numpy() for t in (index, values))
    fitted = max(int(np.count_nonzero(i <= SHARE * rank)), min(FEWEST, len(i)))
    across, log = i[:fitted], np.log(sigma[:fitted])
    exponent, power = _line(np.log(across), log)
    rate, exponential = _line(across, log)
    factor = float(np.exp(np.clip(-rate * (across[-1] - across[0]), -700, 700)))
    kind: Kind
    if sigma[0] <= WELL_POSED * sigma[-1]:
        kind = "well-posed"
    elif exponential < power and factor >= SEVERE:
        kind = "severely ill-posed"
    else:
        kind = "moderately ill-posed" if -exponent > 1 else "mildly ill-posed"
    return Decay(kind, -exponent, power, factor, exponential)


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    slope, offset = np.polyfit(x, y, 1)
    return float(slope), float(np.sqrt(np.mean((y - slope * x - offset) ** 2)))


@dataclass(frozen=True)
class Distribution:
    """How many singular values there are above any level, estimated.

    Parameters
    ----------
    index, values
        An estimate of sigma_i at indices i spread over the rank, ``[count]``.
    rank, rank_error
        How many are told from zero, and the standard error of that over the probes. Values that are crowded at zero
        count as zero where there are fewer data than unknowns, and as values otherwise.
    """

    index: Tensor
    values: Tensor
    rank: float
    rank_error: float


def distribution(matrix: Coordinates, seed: int = 0) -> Distribution:
    """The distribution of the singular values by stochastic Lanczos quadrature (Lin, Saad and Yang, 2016).

    From a random unit vector the Lanczos process on ``A^H A`` gives nodes theta_j and weights tau_j (squares of the
    first entries of the eigenvectors of the triangle) with ``sum tau_j f(theta_j) ~ trace f(A^H A) / n``: so
    ``n sum tau_j`` over ``theta_j > t^2`` estimates how many values exceed t. The mean of eight probes of 64 steps in
    double precision, with full reorthogonalisation. Values below the square root of the rounding cannot be told from
    zero.

    Parameters
    ----------
    matrix
        A.
    seed
        Of the probes.
    """
    n, steps = matrix.columns, min(STEPS, matrix.columns)
    require_memory("the Lanczos vectors", matrix.dtype.itemsize * PROBES * (steps + 4) * n, "diagnose a smaller image")
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(PROBES, n, dtype=matrix.dtype, generator=generator).to(matrix.A.device)
    q = q / torch.linalg.vector_norm(q, dim=1, keepdim=True)
    basis = q.new_zeros(PROBES, steps, n)
    diagonal, off = np.zeros((PROBES, steps)), np.zeros((PROBES, steps))
    for k in range(steps):
        basis[:, k] = q
        w = matrix.adjoint(matrix.forward(q))
        diagonal[:, k] = (q.conj() * w).sum(1).real.cpu().numpy()
        known = basis[:, : k + 1]
        for _ in range(2):
            w = w - torch.einsum("pk,pkn->pn", torch.einsum("pkn,pn->pk", known.conj(), w), known)
        beta = torch.linalg.vector_norm(w, dim=1)
        off[:, k] = beta.cpu().numpy()
        # A probe whose space is exhausted goes on with zeros: their weight is zero.
        alive = beta > matrix.rounding * max(float(diagonal.max()), 1e-300)
        off[:, k] *= alive.cpu().numpy()
        q = torch.where(alive[:, None], w / beta.clamp_min(1e-300)[:, None], torch.zeros_like(w))
    nodes, weights = [], []
    for a, b in zip(diagonal, off, strict=True):
        theta, vectors = np.linalg.eigh(np.diag(a) + np.diag(b[:-1], -1) + np.diag(b[:-1], 1))
        nodes.append(theta)
        weights.append(vectors[0] ** 2)
    theta, tau = np.array(nodes), np.array(weights)
    # theta is a square: its rounding is that of the largest square.
    solid = theta > matrix.rounding * theta.max()
    if matrix.rows < n:
        # There is a null space, and the smallest node of every probe stands for it.
        solid &= theta > theta.min(1, keepdims=True)
    ranks = n * (tau * solid).sum(1)
    order = np.argsort(-theta[solid])
    sigma = np.sqrt(theta[solid][order])
    # The middle of every step of the staircase is where it crosses the smooth one.
    heights = n * tau[solid][order] / PROBES
    middle = np.cumsum(heights) - heights / 2
    rank = min(float(ranks.mean()), float(matrix.rows))
    grid = np.linspace(0.5, max(rank, 1.0), 200) if rank > 200 else np.arange(1.0, max(rank, 1.0) + 1e-9)
    curve = np.exp(np.interp(grid, middle, np.log(sigma)))
    error = float(ranks.std(ddof=1) / np.sqrt(PROBES))
    return Distribution(torch.from_numpy(grid.clip(1.0)), torch.from_numpy(curve), rank, error)
