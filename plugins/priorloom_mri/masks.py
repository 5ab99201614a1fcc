"""Cartesian sampling masks, centred: phase-encoding lines (bool ``[columns]``) and points (bool ``[rows, columns]``).

Every mask fully samples a centre: ``round(center_fraction n)`` of the n lines, as fastMRI places them, or a block of
that fraction along both axes. ``center_fraction`` is 0.32 / R when absent, fastMRI's choice for R = 4 and 8. The masks
of fastMRI hit the acceleration on average only, and the grid counts without its centre; the others sample exactly
``round(n / R)`` of the n positions.
:func:`sampled_fraction` tells what was achieved.
"""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from priorloom.errors import InputError, did_you_mean

Array = np.ndarray[Any, Any]
MaskName = Literal["random", "equispaced", "exact", "variable-density", "poisson-disc", "grid"]


def sampled_fraction(mask: Tensor) -> float:
    """The fraction of all positions that `mask` samples: 1 / (achieved acceleration)."""
    return float(mask.double().mean())


def make_mask(
    name: MaskName, image_shape: tuple[int, int], *, acceleration: float, generator: torch.Generator
) -> Tensor:
    """The mask `name` for an image, with its default centre and density."""
    rows, columns = image_shape
    match name:
        case "random":
            return random_lines(columns, acceleration=acceleration, generator=generator)
        case "equispaced":
            return equispaced_lines(columns, acceleration=acceleration, generator=generator)
        case "exact":
            return variable_density((columns,), acceleration=acceleration, degree=0.0, generator=generator)
        case "variable-density":
            return variable_density((columns,), acceleration=acceleration, generator=generator)
        case "poisson-disc":
            return poisson_disc((rows, columns), acceleration=acceleration, generator=generator)
        case "grid":
            return grid_points((rows, columns), acceleration=acceleration, generator=generator)
    raise InputError(f"unknown mask '{name}'", cure=did_you_mean(str(name), get_args(MaskName)))


def random_lines(
    columns: int, *, acceleration: float, center_fraction: float | None = None, generator: torch.Generator
) -> Tensor:
    """Each line outside the centre with equal probability, such that n / R are expected in total (fastMRI "random").

    References
    ----------
    Zbontar et al. fastMRI: an open dataset and benchmarks for accelerated MRI. arXiv:1811.08839, section 6.
    """
    mask = _centre((columns,), acceleration, center_fraction)
    low = int(mask.sum())
    probability = (columns / acceleration - low) / max(columns - low, 1)
    return mask | (torch.rand(columns, generator=generator) < probability)


def equispaced_lines(
    columns: int, *, acceleration: float, center_fraction: float | None = None, generator: torch.Generator
) -> Tensor:
    """Lines at a fixed pitch from a random offset, plus the centre (fastMRI "equispaced").

    The centre counts: the pitch is widened to ``R (n - low) / (n - R low)``, so that n / R lines result on average.

    References
    ----------
    As for :func:`random_lines`.
    """
    mask = _centre((columns,), acceleration, center_fraction)
    low = int(mask.sum())
    if columns == low or acceleration == 1:
        return torch.ones_like(mask)
    excess = columns - acceleration * low
    if excess <= 0:
        return mask
    pitch = acceleration * (columns - low) / excess
    offset = int(torch.randint(max(round(pitch), 1), (), generator=generator))
    lines = torch.arange(offset, columns - 1, pitch, dtype=torch.float64).round().long()
    mask[lines] = True
    return mask


def variable_density(
    shape: tuple[int, ...],
    *,
    acceleration: float,
    center_fraction: float | None = None,
    degree: float = 2.0,
    generator: torch.Generator,
) -> Tensor:
    """Exactly ``round(n / R)`` lines or points: the centre, and the rest drawn with density ``(1 - r)^degree``.

    r is the distance from the centre of k-space, 1 at its farthest corner; degree 0 is uniform.

    References
    ----------
    Lustig, Donoho and Pauly. Sparse MRI. Magnetic Resonance in Medicine 58, 2007.
    """
    mask = _centre(shape, acceleration, center_fraction)
    if not 0 <= degree < math.inf:
        raise InputError("degree of a variable-density mask", expected="at least 0", got=degree)
    missing = _count(shape, acceleration) - int(mask.sum())
    if missing > 0:
        radius = kspace_radius(shape)
        # The last line keeps a small chance, so that every position can be drawn.
        density = (1 - radius / radius.max()).clamp_min(1e-3) ** degree
        density[mask] = 0
        drawn = torch.multinomial(density.reshape(-1), missing, generator=generator)
        mask.view(-1)[drawn] = True
    return mask


def poisson_disc(
    shape: tuple[int, int],
    *,
    acceleration: float,
    center_fraction: float | None = None,
    slope: float = 2.0,
    generator: torch.Generator,
) -> Tensor:
    """Exactly ``round(n / R)`` points that keep a distance: incoherent, without clusters or holes.

    Darts are thrown at all positions in random order; an accepted point p blocks the open disc of radius
    ``r0 (1 + slope |p|)`` around it, with |p| = 1 at the edge of k-space. So any two points p and q outside the centre
    block are ``min(r(p), r(q))`` apart or more. r0 is found by bisection; the last few surplus points are dropped at
    random, which keeps the distances.

    References
    ----------
    Cook. Stochastic sampling in computer graphics. ACM Trans. Graph. 5, 1986.
    Vasanawala et al. Practical parallel imaging compressed sensing MRI. Proc. ISBI, 2011.
    """
    mask = _centre(shape, acceleration, center_fraction)
    if not 0 <= slope < math.inf:
        raise InputError("slope of a Poisson-disc mask", expected="at least 0", got=slope)
    wanted = _count(shape, acceleration) - int(mask.sum())
    if wanted <= 0:
        return mask
    order = torch.randperm(mask.numel(), generator=generator)
    order = order[~mask.view(-1)[order]]
    growth = (1 + slope * kspace_radius(shape)).numpy()
    small, large = 0.0, math.hypot(*shape)  # every position fits; one point fits
    for _ in range(20):
        middle = (small + large) / 2
        points = _throw(shape, order.numpy(), middle * growth)
        small, large = (middle, large) if len(points) >= wanted else (small, middle)
        if wanted <= len(points) <= 1.01 * wanted:
            break
    else:
        points = _throw(shape, order.numpy(), small * growth)
    kept = torch.randperm(len(points), generator=generator)[:wanted]
    mask.view(-1)[torch.from_numpy(points)[kept]] = True
    return mask


def grid_points(
    shape: tuple[int, int], *, acceleration: float, center_fraction: float | None = None, generator: torch.Generator
) -> Tensor:
    """Every p-th row and q-th column from a random offset, with p and q alike and ``p q`` about R, and the centre.

    The regular pattern of 2D SENSE with autocalibration, such as 2 x 2 for R = 4; the centre comes on top of ``n / R``.

    References
    ----------
    Weiger, Pruessmann and Boesiger. 2D SENSE for faster 3D MRI. MAGMA 14, 2002.
    """
    mask = _centre(shape, acceleration, center_fraction)
    p = max(1, round(math.sqrt(acceleration)))
    q = max(1, round(acceleration / p))
    top, left = (int(torch.randint(step, (), generator=generator)) for step in (p, q))
    mask[top::p, left::q] = True
    return mask


def _throw(shape: tuple[int, int], order: Array, radius: Array) -> Array:
    """Flat indices of the accepted darts."""
    rows, columns = shape
    free = np.ones(shape, dtype=bool)
    accepted = []
    for index in order.tolist():
        i, j = divmod(index, columns)
        if not free[i, j]:
            continue
        accepted.append(index)
        r = radius[i, j]
        reach = math.ceil(r)
        top, left = max(i - reach, 0), max(j - reach, 0)
        di = np.arange(top, min(i + reach + 1, rows)) - i
        dj = np.arange(left, min(j + reach + 1, columns)) - j
        near = di[:, None] ** 2 + dj**2 < r * r
        free[top : top + len(di), left : left + len(dj)] &= ~near
    return np.array(accepted, dtype=np.int64)


def kspace_radius(shape: tuple[int, ...]) -> Tensor:
    """Distance from the centre of k-space, index ``n // 2``, 1 at the middle of each edge."""
    axes = [(torch.arange(n, dtype=torch.float64) - n // 2) / max(n / 2, 1) for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij")).square().sum(0).sqrt()


def _count(shape: tuple[int, ...], acceleration: float) -> int:
    return max(1, round(math.prod(shape) / acceleration))


def _centre(shape: tuple[int, ...], acceleration: float, fraction: float | None) -> Tensor:
    """The fully sampled centre; raises InputError when it alone exceeds what the acceleration allows."""
    if not 1 <= acceleration <= max(shape):
        raise InputError("acceleration", expected=f"between 1 and {max(shape)}", got=acceleration)
    fraction = 0.32 / acceleration if fraction is None else fraction
    if not 0 <= fraction <= 1:
        raise InputError("center_fraction", expected="between 0 and 1", got=fraction)
    mask = torch.zeros(shape, dtype=torch.bool)
    low = [round(n * fraction) for n in shape]
    starts = [(n - k + 1) // 2 for n, k in zip(shape, low, strict=True)]
    mask[tuple(slice(s, s + k) for s, k in zip(starts, low, strict=True))] = True
    allowed = _count(shape, acceleration)
    if int(mask.sum()) > allowed:
        raise InputError(
            "center_fraction", expected=f"at most the {allowed} samples of {acceleration:g}-fold undersampling",
            got=int(mask.sum()), cure="reduce center_fraction or the acceleration",
        )  # fmt: skip
    return mask
