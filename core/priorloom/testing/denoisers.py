"""check_denoiser(): does it take out noise, image by image, without touching anything else?"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ..plug_and_play import Denoiser
from ..regularity import Regularity
from ..space import Space
from .measures import Check, ConformanceError, far, require, require_fit, rounding, unchanged


def check_denoiser(denoiser: Denoiser, space: Space, *, sigma: float = 0.1, seed: int = 0) -> list[Check]:
    """Check a Denoiser on a smooth image with values from 0 to 1 and white noise of standard deviation `sigma`.

    Shape, dtype and device; the input stays as it was; the same output twice; a batch with a sigma per image equals the
    single images; the noise becomes less; and as sigma goes to zero the image stays, also at zero itself. Where it says
    what is proven of it: pairs of images must not contradict that, and ``x - D(x)`` must be the gradient of the
    potential.

    Parameters
    ----------
    denoiser, space
        The denoiser and the Space of its images.
    sigma
        The noise level of the test.
    seed
        Of the noise.
    """
    with torch.no_grad():
        return list(_denoiser_checks(denoiser, space, sigma, torch.Generator().manual_seed(seed)))


def _denoiser_checks(denoiser: Denoiser, space: Space, sigma: float, generator: torch.Generator) -> Iterator[Check]:
    clean = _smooth_image(space)
    noisy = clean + sigma * space.random(generator, (2,))
    level = torch.tensor(sigma, dtype=space.real_dtype)
    result = unchanged("denoiser", lambda v: denoiser(v, level), noisy)
    require_fit("output of the denoiser", space, result, (2,))
    if result.device != noisy.device:
        raise ConformanceError("device of the denoiser's output", expected=noisy.device, got=result.device)
    yield Check("shape, dtype, device, finite values", 0.0)
    yield require("same output twice", far(space, denoiser(noisy, level), result), 0.0)
    levels = space.expand(torch.tensor([sigma, sigma / 2], dtype=space.real_dtype))
    stacked = torch.stack([denoiser(image, s.reshape(())) for image, s in zip(noisy, levels, strict=True)])
    yield require("batch equals stack", far(space, denoiser(noisy, levels), stacked), 1000 * rounding(space))
    left = float((space.norm(result - clean) / space.norm(noisy - clean)).max())
    yield require("share of the noise that is left", left, 0.999)
    faint = far(space, denoiser(noisy, 1e-4 * level), noisy)
    yield require("change of the image as sigma goes to zero", faint, 0.01)
    still = denoiser(noisy, 0 * level)
    require_fit("output of the denoiser for sigma 0", space, still, (2,))
    yield require("change of the image for sigma 0", far(space, still, noisy), 0.01)
    stated = getattr(denoiser, "regularity", None)
    if callable(stated):
        yield from _regularity_checks(denoiser, space, noisy, sigma, stated(sigma), generator)


def _regularity_checks(
    denoiser: Denoiser, space: Space, x: Tensor, sigma: float, known: object, generator: torch.Generator
) -> Iterator[Check]:
    """What is said to be proven, on pairs of images near and far; a pair can contradict it, and proves nothing."""
    if not isinstance(known, Regularity):
        raise ConformanceError("regularity of the denoiser", expected="a Regularity", got=type(known).__name__)
    level = torch.tensor(sigma, dtype=space.real_dtype)
    distances = space.expand(torch.tensor([0.01, 0.1, 1.0, 10.0], dtype=space.real_dtype)).repeat(2, *(1,) * space.ndim)
    a = x[:1].expand(8, *space.shape).contiguous()
    smooth = _smooth_image(space).expand(4, *space.shape)  # what a denoiser keeps; the noise is what it takes out
    b = a + distances * sigma * torch.cat((space.random(generator, (4,)), smooth))
    before, moved = a - b, denoiser(a, level) - denoiser(b, level)
    slack = 1 + 1e4 * rounding(space)  # a difference of neighbours keeps few digits
    size, after, rest = (space.norm(v) for v in (before, moved, before - moved))
    for name, bound, found in (("lipschitz", known.lipschitz, after), ("residual", known.residual, rest)):
        if bound is not None:
            yield require(f"regularity: {name}", float((found / size).max()), bound * slack)
    if known.averaged is not None:
        sum_of_both = after**2 + (1 - known.averaged) / known.averaged * rest**2
        yield require("regularity: averaged", float((sum_of_both / size**2).max()), slack**2)
    if known.gradient:
        yield _potential_check(denoiser, space, x, level)


def _potential_check(denoiser: Denoiser, space: Space, x: Tensor, level: Tensor) -> Check:
    potential = getattr(denoiser, "potential", None)
    if not callable(potential):
        raise ConformanceError(
            "potential of the denoiser", expected="a method, as it says to be I - grad g", got="none"
        )
    with torch.enable_grad():
        at = x.clone().requires_grad_()
        value = potential(at, level)
        if tuple(value.shape) != space.batch_shape(x):
            expected = f"one value per image, {list(space.batch_shape(x))}"
            raise ConformanceError("potential of the denoiser", expected=expected, got=list(value.shape))
        (slope,) = torch.autograd.grad(value.sum(), at)
    return require("x - D(x) is the gradient of the potential", far(space, x - denoiser(x, level), slope), 1e-3)


def _smooth_image(space: Space) -> Tensor:
    image = torch.ones(space.shape, dtype=space.real_dtype)
    for axis, n in enumerate(space.shape):
        wave = 0.5 - 0.5 * torch.cos(2 * math.pi * (torch.arange(n, dtype=space.real_dtype) + 0.5) / n)
        image = image * wave.reshape(-1, *(1,) * (space.ndim - axis - 1))
    return torch.polar(image, image) if space.is_complex else image
