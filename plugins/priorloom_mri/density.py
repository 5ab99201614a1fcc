"""Density compensation: how many Cartesian samples each sample of a trajectory stands for.

With weights w the direct method is ``A^H W y``; on a fully sampled Cartesian grid all weights are 1. In general a
weight is N times the area (volume in 3D) of k-space that belongs to the sample, in (cycles per pixel)^axes, for images
of N pixels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from priorloom.errors import InputError

from .nonuniform import NonuniformFFT

STRAIGHT = 1e-3
"""How far, as a fraction of the largest radius, a sample of a spoke may lie beside it."""


def ramp(trajectory: Tensor, image_shape: tuple[int, ...]) -> Tensor:
    """The areas of the cells of a radial trajectory: ``|k|`` times the spacings along and across the spokes.

    A cell reaches half way to its neighbours on the spoke, ``[a, b]`` in radius, and takes the integral of ``|r|`` (2D)
    or ``r^2`` (3D) over it: the sample in the centre, where ``|k| = 0``, gets its small disc. In 2D the angles between
    neighbouring spokes are halved, whatever their order; in 3D the spokes share the sphere equally.

    Parameters
    ----------
    trajectory
        Straight spokes through the centre or from it, ``[spokes, readout, axes]``.
    image_shape
        Sizes of the image; their product is N.

    Raises
    ------
    InputError
        Another shape, or spokes that are not straight or miss the centre.
    """
    axes = len(image_shape)
    if trajectory.ndim != 3 or trajectory.shape[-1] != axes or trajectory.shape[1] < 2:
        raise InputError(
            "trajectory for the density 'ramp'", expected=f"[spokes, readout, {axes}]", got=list(trajectory.shape),
            cure="use 'pipe-menon'",
        )  # fmt: skip
    outermost = trajectory.norm(dim=-1).argmax(-1)
    end = trajectory[torch.arange(len(trajectory), device=trajectory.device), outermost]
    direction = end / end.norm(dim=-1, keepdim=True)
    radius = (trajectory * direction[:, None]).sum(-1)
    beside = (trajectory - radius[..., None] * direction[:, None]).norm(dim=-1).max()
    if not float(beside) <= STRAIGHT * float(radius.abs().max()):
        raise InputError(
            "trajectory for the density 'ramp'", expected="straight spokes through the centre of k-space",
            got=f"samples {float(beside):.2g} cycles per pixel beside", cure="use 'pipe-menon'",
        )  # fmt: skip
    through = bool((radius.amin(-1) < -0.5 * radius.amax(-1)).all())
    sorted_radius, order = radius.sort(dim=-1)
    middle = (sorted_radius[:, 1:] + sorted_radius[:, :-1]) / 2
    first, last = 2 * sorted_radius[:, :1] - middle[:, :1], 2 * sorted_radius[:, -1:] - middle[:, -1:]
    edges = torch.cat([first if through else first.clamp_min(0), middle, last], dim=-1)
    moment = (edges * edges.abs() ** (axes - 1)).diff(dim=-1) / axes  # of |r|^(axes - 1)
    cells = torch.empty_like(moment).scatter_(-1, order, moment)
    if axes == 2:
        across = _sectors(torch.atan2(direction[:, 0], direction[:, 1]), math.pi if through else 2 * math.pi)
    else:
        across = torch.full_like(cells[:, 0], 4 * math.pi / len(cells) / (2 if through else 1))
    return math.prod(image_shape) * cells * across[:, None]


def _sectors(angles: Tensor, period: float) -> Tensor:
    """Half the angle between the two neighbours of each, around a circle of `period`."""
    ordered, order = angles.remainder(period).sort()
    gaps = torch.cat([ordered[1:], ordered[:1] + period]) - ordered
    return torch.empty_like(gaps).scatter_(0, order, (gaps + gaps.roll(1)) / 2)


def pipe_menon(trajectory: Tensor, image_shape: tuple[int, ...], *, iterations: int = 20) -> Tensor:
    """Weights of any trajectory by the fixed point ``w <- w / (C w)`` with ``C_ij = |<a_i, a_j>|^2 / (|a_i| |a_j|)^2``.

    a_i is the row of A for sample i. Where ``C w = 1``, w minimises ``|A^H W A - I|`` in the Frobenius norm, so the
    weights have their scale: that of a fully sampled grid is 1, and so is that of samples too far apart to interact. C
    has no negative entry, hence no weight turns negative. It is a Fourier sum over differences of pixels, weighted with
    the number of pairs that have this difference: one nonuniform FFT pair of twice the image's size.

    Parameters
    ----------
    trajectory
        ``[..., axes]`` in cycles per pixel.
    image_shape
        Sizes of the image.
    iterations
        Number of updates. After twenty the weights of most samples move by less than 1 %.

    References
    ----------
    Pipe and Menon. Sampling density compensation in MRI: rationale and an iterative numerical solution. Magnetic
    Resonance in Medicine 41, 1999. Rosenfeld. An optimal and efficient new gridding algorithm using singular value
    decomposition. Magnetic Resonance in Medicine 40, 1998.
    """
    if iterations < 1:
        raise InputError("iterations of pipe_menon", expected="at least 1", got=iterations)
    points = trajectory.reshape(-1, len(image_shape))
    transform = NonuniformFFT(tuple(2 * n for n in image_shape), points, torch.complex64)
    pairs = torch.ones((), dtype=torch.float64, device=points.device)
    for n in image_shape:
        difference = torch.arange(-n, n, dtype=torch.float64, device=points.device)
        pairs = pairs[..., None] * (1 - difference.abs() / n)
    pairs = (pairs / math.prod(image_shape)).to(torch.float32)
    weights = torch.ones(len(points), dtype=torch.float32, device=points.device)
    for _ in range(iterations):
        density = transform.forward(transform.adjoint(weights.to(torch.complex64)[None]) * pairs)[0].real
        weights = weights / density.clamp_min(1e-6 * float(density.max()))
    return weights.to(trajectory.dtype).reshape(trajectory.shape[:-1])


def scaled(weights: Tensor, transform: NonuniformFFT) -> Tensor:
    """Weights in any unit, scaled so that ``<b, A^H W A b> = <b, b>`` for a smooth bump b in the middle of the image.

    The bump is a Gaussian, of a standard deviation of an eighth of the image: what it consists of lies in the centre of
    k-space, which every trajectory samples best.

    Parameters
    ----------
    weights
        Nonnegative, ``[*samples]``.
    transform
        That of the trajectory.

    Raises
    ------
    InputError
        When the weighted samples do not see the bump.
    """
    bump = torch.ones((), dtype=weights.dtype, device=weights.device)
    for n in transform.image_shape:
        position = (torch.arange(n, dtype=weights.dtype, device=weights.device) - n // 2) / (n / 8)
        bump = bump[..., None] * torch.exp(-0.5 * position.square())
    samples = transform.forward(bump.to(transform.dtype)[None])[0]
    seen = float((weights.flatten() * samples.abs().square()).sum() / bump.numel() / bump.square().sum())
    if not seen > 0 or not bool((weights / seen).isfinite().all()):
        raise InputError("density weights", expected="some weight in the centre of k-space", got="none there")
    return weights / seen
