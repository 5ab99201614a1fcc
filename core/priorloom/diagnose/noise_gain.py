"""What becomes of noise in the image, pixel by pixel, and of a given perturbation in the data."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from ..operator import LinearOperator

_TOGETHER = 8  # samples that are reconstructed at a time


@dataclass(frozen=True)
class NoiseMap:
    """The noise of the direct method's image.

    Parameters
    ----------
    std
        Standard deviation of every pixel (complex: of the modulus of its deviation), real, ``A.domain.shape``, in units
        of the image.
    relative_error
        The standard error of each of them, relative; of Gaussian noise through a linear method.
    noise_std
        Of the measurement; the map is proportional to it where the method is linear.
    samples, seed
        How many realisations, and the seed of them.
    """

    std: Tensor
    relative_error: float
    noise_std: float
    samples: int
    seed: int


def noise_map(A: LinearOperator, y: Tensor, noise_std: float, *, samples: int = 64, seed: int = 0) -> NoiseMap:
    """Standard deviation of ``A.pseudo_inverse(y + e)`` for white Gaussian e, by Monte Carlo.

    ``s^2 = sum_j |x_j - mean x|^2 / (samples - 1)``, with a relative standard error of ``1 / sqrt(2 (samples - 1))``
    for real images and ``1 / sqrt(4 (samples - 1))`` for complex ones with circular noise.

    Parameters
    ----------
    A
        An operator with a direct method.
    y
        The measurement around which the noise lies, ``A.range.shape``.
    noise_std
        Per entry of y (complex: of the modulus).
    samples, seed
        How many realisations, and their seed.

    Raises
    ------
    InputError
        Fewer than two samples, a noise level that is not positive, or an operator without a direct method.
    """
    A.range.check(y, "measurement of the noise map")
    if samples < 2:
        raise InputError("samples of the noise map", expected="at least 2", got=samples)
    if not 0 < noise_std < math.inf:
        raise InputError("noise level of the noise map", expected="a positive number", got=noise_std)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        centre = A.pseudo_inverse(y)
        # Deviations from the image without noise: their mean is small, so that nothing cancels.
        total, squares = torch.zeros_like(centre), torch.zeros_like(centre.abs())
        for begin in range(0, samples, _TOGETHER):
            e = A.range.random(generator, (min(_TOGETHER, samples - begin),), y.device)
            deviation = A.pseudo_inverse(y + noise_std * e) - centre
            total += deviation.sum(0)
            squares += deviation.abs().square().sum(0)
    variance = (squares - total.abs().square() / samples) / (samples - 1)
    dimensions = 2 if A.domain.is_complex else 1
    return NoiseMap(
        variance.clamp_min(0).sqrt(), 1 / math.sqrt(2 * dimensions * (samples - 1)), noise_std, samples, seed
    )


@dataclass(frozen=True)
class Direction:
    """The stability of the problem in one direction d of the image.

    Parameters
    ----------
    gain
        ``|A d| / |d|``.
    relative_gain
        The gain over the largest singular value: 1 is as visible as anything.
    amplification
        ``sigma_1 |d| / |A d|``: how much worse an error of the data in the direction ``A d`` does than in the best one,
        infinite for a d that is not seen.
    distance
        ``|A d| / s`` with s the standard deviation of the noise of the data along ``A d``: how many standard
        deviations x and x + d are apart; below about 3 the data cannot tell them apart. None without a noise level.
    """

    gain: float
    relative_gain: float
    amplification: float
    distance: float | None


def direction(A: LinearOperator, d: Tensor, norm: float, noise_std: float | None = None) -> Direction:
    """How well the data determine the image along d.

    Parameters
    ----------
    A
        The operator.
    d
        A change of the image, ``A.domain.shape``.
    norm
        The largest singular value of A.
    noise_std
        Per entry of the data; where data are complex, of the modulus, ``sqrt(2)`` times that along one direction.

    Raises
    ------
    InputError
        A perturbation that does not fit, is not finite or is zero.
    """
    A.domain.check(d, "perturbation")
    size = float(torch.linalg.vector_norm(d))
    if not 0 < size < math.inf:
        raise InputError("perturbation", expected="finite values that are not all zero", got=f"norm {size}")
    with torch.no_grad():
        seen = float(torch.linalg.vector_norm(A(d)))
    along = None if not noise_std else noise_std / math.sqrt(2 if A.range.is_complex else 1)
    # What rounding leaves of a direction in the null space is no signal.
    eps = float(torch.finfo(A.domain.real_dtype).eps)
    amplification = norm * size / seen if seen > 10 * eps * norm * size else math.inf
    return Direction(seen / size, seen / size / norm, amplification, None if along is None else seen / along)
