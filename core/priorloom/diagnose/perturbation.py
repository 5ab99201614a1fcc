"""How far a change of the measurement moves the image: the local Lipschitz constant, the worst change, random ones.

For a map F from measurements to images, its amplification along d is ``|F(y + d) - F(y)| / |d|`` (Euclidean norms). The
derivative of F only says where to look; every amplification that is reported is measured on F itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..errors import InputError
from .method_map import Point

MOMENTUM = 0.5
STEP = 10.0
"""The first step of the ascent in units of the radius: long ones turn d towards the gradient almost at once, which for
a linear map is a power iteration. It is halved where it does not lead upwards."""
ENOUGH = 1e-2
"""The Lanczos process ends when its error bar is this share of the value."""


class Differentiable(Protocol):
    """``x = F(y)`` with the transposed derivative, such as a `MethodMap`."""

    def __call__(self, y: Tensor) -> Tensor:
        """F(y)."""
        ...

    def at(self, y: Tensor) -> Point:
        """F(y) and the derivative there."""
        ...


@dataclass(frozen=True)
class Local:
    """The local Lipschitz constant at a measurement.

    Parameters
    ----------
    value
        ``|F(y + d) - F(y)| / |d|`` along the worst direction: a lower bound of the Lipschitz constant, and an
        estimate of the largest singular value of the derivative.
    error
        The residual of the last pair: where F is linear, a singular value lies within this of the value.
    size
        ``|d|``.
    direction
        d / |d|.
    iterations, history
        Of the Lanczos process, and its value after each.
    agreement
        ``<J^H u, d> / |u|^2`` with ``u = F(y + d) - F(y)``: 1 where the derivative explains the change; far from 1,
        the derivative is poor or the map is not smooth, and a worse direction is likely to be missed.
    """

    value: float
    error: float
    size: float
    direction: Tensor
    iterations: int
    history: tuple[float, ...]
    agreement: float


def local_lipschitz(
    F: Differentiable, y: Tensor, size: float, *, iterations: int = 10, seed: int = 0, free: Tensor | None = None
) -> Local:
    """The largest singular value of the derivative at y, by the Lanczos process on ``J^H J``.

    The directions v_1, v_2, ... are those of the power iteration, made orthonormal; J is a difference of F itself,
    ``u_i = (F(y + h v_i) - F(y)) / h``, J^H is the derivative. The best combination of the u_i (a Ritz vector) makes
    the next direction, and at the end it is measured on F like the others. Where F is linear the power iteration never
    does better.

    Parameters
    ----------
    F, y
        The map, and where.
    size
        h, small against what F changes over, such as a tenth of the noise.
    iterations
        At most; fewer where the error bar is within 1 %. Each keeps a measurement and an image.
    seed
        Of the first direction.
    free
        Which entries of the measurement may change, bool; all when absent.

    Raises
    ------
    InputError
        A size that is not positive, no iterations, or a map without a derivative.
    """
    _check(size, "size of a change", iterations)
    point = F.at(y)

    def along(v: Tensor) -> Tensor:
        return (F(y + size * v) - point.image) / size

    directions, changes, history = [_random(y, seed, free, 1.0)], list[Tensor](), list[float]()
    v, error, agreement = directions[0], 0.0, 1.0
    for _ in range(iterations):
        changes.append(along(directions[-1]))
        weights, value = _ritz(changes)
        v, u = _combined(directions, weights), _combined(changes, weights)
        history.append(value)
        if value == 0:
            break
        w = _masked(point.pull(u), free)
        error, agreement = norm(w - value**2 * v) / (2 * value), _inner(w, v) / value**2
        new = _orthogonal(w, directions)
        if error <= ENOUGH * value or new is None:
            break
        directions.append(new)
    v = v / (norm(v) or 1.0)
    return Local(norm(along(v)), error, size, v, len(history), tuple(history), agreement)


def _ritz(changes: Sequence[Tensor]) -> tuple[list[float], float]:
    """The combination of norm 1 with the largest change, and its norm."""
    gram = torch.tensor([[_inner(a, b) for b in changes] for a in changes], dtype=torch.float64)
    values, vectors = torch.linalg.eigh(gram)
    return vectors[:, -1].tolist(), math.sqrt(max(float(values[-1]), 0.0))


def _combined(parts: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    total = torch.zeros_like(parts[0])
    for part, weight in zip(parts, weights, strict=False):
        total = total + weight * part
    return total


def _orthogonal(w: Tensor, basis: Sequence[Tensor]) -> Tensor | None:
    """w without its components along an orthonormal basis, with norm 1; None where nothing is left."""
    size = norm(w)
    for _ in range(2):  # twice is enough (Parlett)
        for v in basis:
            w = w - _inner(v, w) * v
    left = norm(w)
    return w / left if left > 1e-5 * size else None


@dataclass(frozen=True)
class Worst:
    """The worst change of a measurement that was found; a lower bound of what there is.

    Parameters
    ----------
    d
        The change, ``|d| <= radius``.
    image
        ``F(y + d)``.
    change
        ``|F(y + d) - F(y)|``.
    amplification
        ``|F(y + d) - F(y)| / |d|``.
    radius
        What |d| was allowed.
    history
        The best change so far after every run, a row for each start; it never falls.
    seeds
        Of the starts; None for one that was given.
    """

    d: Tensor
    image: Tensor
    change: float
    amplification: float
    radius: float
    history: tuple[tuple[float, ...], ...]
    seeds: tuple[int | None, ...]


def worst_perturbation(
    F: Differentiable,
    y: Tensor,
    radius: float,
    *,
    iterations: int = 10,
    restarts: int = 1,
    seed: int = 0,
    first: Sequence[Tensor] = (),
    free: Tensor | None = None,
) -> Worst:
    """Maximise ``|F(y + d) - F(y)|^2`` over ``|d| <= radius`` by projected gradient ascent with momentum.

    ``m+ = beta m + g / |g|``, ``d+ = P(d + t m / |m|)`` with g the gradient and P the projection onto the ball. Where
    d+ is no better, d stays, the momentum is forgotten and t is halved. The maximum is not known to be found: F is
    neither linear nor its change concave.

    Parameters
    ----------
    F, y
        The map, and where.
    radius
        The largest |d|, such as the norm of the noise.
    iterations
        Runs of F after the first, for each start.
    restarts, seed
        How many random starts, and the seed of the first; the others follow.
    first
        Directions to start from before those, such as that of `Local`.
    free
        Which entries of the measurement may change, bool; all when absent.

    References
    ----------
    Antun, Renna, Poon, Adcock and Hansen (2020), On instabilities of deep learning in image reconstruction and the
    potential costs of AI, PNAS 117, 30088-30095. Genzel, Macdonald and März (2022), Solving inverse problems with deep
    neural networks - robustness included?, IEEE TPAMI 45, 1119-1134.
    """
    _check(radius, "radius of a perturbation", iterations)
    seeds: list[int | None] = [*(None for _ in first), *(seed + i for i in range(restarts))]
    if not seeds:
        raise InputError("starts of the ascent", expected="at least one", got="none")
    image = F(y)
    starts = [_project(radius * _masked(d, free) / norm(d), radius) for d in first]
    starts += [_random(y, seed + i, free, radius) for i in range(restarts)]
    found = [_ascent(F, y, image, d, radius, iterations, free) for d in starts]
    d, best, x = max(((d, history[-1], x) for d, history, x in found), key=lambda one: one[1])
    size = norm(d)
    amplification = best / size if size else 0.0
    return Worst(d, x, best, amplification, radius, tuple(history for _, history, _ in found), tuple(seeds))


def _ascent(
    F: Differentiable, y: Tensor, image: Tensor, d: Tensor, radius: float, iterations: int, free: Tensor | None
) -> tuple[Tensor, tuple[float, ...], Tensor]:
    """The best d, the best value after every run, and ``F(y + d)``."""
    best, value, shown = d, -1.0, image
    gradient = momentum = torch.zeros_like(d)
    step = STEP
    history: list[float] = []
    for k in range(iterations + 1):
        point = F.at(y + d)
        change = point.image - image
        size = norm(change)
        if size > value:
            best, value, shown = d, size, point.image
            if k < iterations:
                gradient = _masked(point.pull(change), free)
                length = norm(gradient)
                gradient = gradient / length if length else gradient
        else:
            step, momentum = step / 2, torch.zeros_like(momentum)
        history.append(value)
        momentum = MOMENTUM * momentum + gradient
        length = norm(momentum)
        if length == 0:
            break
        d = _project(best + step * radius * momentum / length, radius)
    return best, tuple(history), shown


@dataclass(frozen=True)
class Draws:
    """What random noise of one norm does.

    Parameters
    ----------
    changes
        ``|F(y + e) - F(y)|`` of every draw.
    images
        ``F(y + e)``, one after the other.
    radius
        ``|e|`` of all of them.
    seed
        Of the first draw; the others follow.
    """

    changes: tuple[float, ...]
    images: tuple[Tensor, ...]
    radius: float
    seed: int

    @property
    def amplification(self) -> float:
        """The mean of ``|F(y + e) - F(y)| / |e|``."""
        return math.fsum(self.changes) / len(self.changes) / self.radius


def random_changes(
    F: Differentiable, y: Tensor, radius: float, *, draws: int = 5, seed: int = 0, free: Tensor | None = None
) -> Draws:
    """White Gaussian noise, scaled to the norm `radius`: what a perturbation of that size does on average."""
    _check(radius, "radius of random noise", draws)
    image = F(y)
    images = [F(y + _random(y, seed + i, free, radius)) for i in range(draws)]
    return Draws(tuple(norm(x - image) for x in images), tuple(images), radius, seed)


def norm(t: Tensor) -> float:
    """Euclidean, summed in double precision."""
    flat = torch.view_as_real(t.resolve_conj()) if t.is_complex() else t
    return float(torch.linalg.vector_norm(flat.detach(), dtype=torch.float64))


def _inner(a: Tensor, b: Tensor) -> float:
    return float((a.conj() * b).sum().real)


def _random(y: Tensor, seed: int, free: Tensor | None, size: float) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    d = _masked(torch.randn(y.shape, dtype=y.dtype, generator=generator).to(y.device), free)
    return _project(d * (size / norm(d)), size)


def _masked(d: Tensor, free: Tensor | None) -> Tensor:
    return d if free is None else d * free


def _project(d: Tensor, radius: float) -> Tensor:
    size = norm(d)
    return d * (radius / size) if size > radius else d


def _check(size: float, what: str, count: int) -> None:
    if not 0 < size < math.inf:
        raise InputError(what, expected="a positive number", got=size)
    if count < 1:
        raise InputError("iterations, or draws", expected="at least 1", got=count)


__all__ = [
    "Differentiable", "Draws", "Local", "Worst", "local_lipschitz", "norm", "random_changes", "worst_perturbation",
]  # fmt: skip
