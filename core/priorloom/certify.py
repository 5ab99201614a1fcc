"""Certificates of denoisers: what is proven of one, the norms of its convolutions, and what is measured of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .errors import InputError, PriorloomError
from .examination import examine
from .judgement import Judgement
from .lipschitz import jacobian_norm
from .networks.bounds import ConvolutionNorm, convolution_norms, layered_bounds
from .plug_and_play import Denoiser, Rephased
from .regularity import Regularity, name_of, regularity_of
from .space import Space
from .theorems import judge, judge_step
from .trained_denoiser import TrainedDenoiser

Verdict = Literal["certified", "none"]
How = Literal["power iteration on the Jacobian", "difference quotients"]

ROUNDING = 1e-3
"""A measured number contradicts a proven one where it is larger by this share; single precision has less."""
SMALL = 1e-3
"""The size of a perturbation whose difference quotient is taken, relative to the image."""
LOPSIDED = 1e-2
"""A Jacobian whose antisymmetric part is larger, relative to its symmetric one along random directions, is of no
gradient."""


@dataclass(frozen=True)
class Measured:
    """Lower bounds of Lipschitz constants, found at one image.

    Parameters
    ----------
    at
        Which image: "image 1", "image 1 with noise", "random 1".
    denoiser, residual
        Of D and of ``I - D``.
    nonexpansive
        Of ``N = (D - (1 - theta) I) / theta`` where D is said to be theta-averaged; at most 1 if that is so.
    asymmetry
        ``|<u, J v> - <J u, v>|`` over ``(|<u, J v>| + |<J u, v>|) / 2`` for two smooth random directions where D is
        said to be ``I - grad g``; 0 if that is so.
    """

    at: str
    denoiser: float
    residual: float
    nonexpansive: float | None = None
    asymmetry: float | None = None


@dataclass(frozen=True)
class DenoiserReport:
    """What is proven and what is measured of a denoiser at one noise level.

    Parameters
    ----------
    denoiser, sigma, shape
        Its type, the noise level, and the shape of the images.
    regularity
        What is claimed to be proven.
    upper, upper_residual
        Upper bounds of the Lipschitz constants of D and of ``I - D``: the smaller of the claimed one and of that from
        the layers; None where there is none.
    convolutions
        Their norms on their grids and upper bounds.
    measured
        The lower bounds at every image.
    how
        How those were found.
    contradiction
        Where a measurement exceeds what is claimed; empty where none does.
    layers
        The upper bounds of D and ``I - D`` from the layers alone; None where they are not known.
    """

    denoiser: str
    sigma: float
    shape: tuple[int, ...]
    regularity: Regularity
    upper: float | None
    upper_residual: float | None
    convolutions: tuple[ConvolutionNorm, ...]
    measured: tuple[Measured, ...]
    how: How
    contradiction: str
    layers: tuple[float, float] | None = None

    @property
    def kind(self) -> str:
        """The class in words; "none" where a measurement contradicts it."""
        return "none" if self.contradiction else self.regularity.kind

    @property
    def verdict(self) -> Verdict:
        """ "certified" where something is proven that no measurement contradicts, else "none"."""
        return "none" if self.kind == "none" else "certified"

    @property
    def product(self) -> float | None:
        """The product of the convolutions' bounds: a Lipschitz bound of a plain chain of them with 1-Lipschitz
        activations, and of nothing else; None without convolutions."""
        return math.prod(c.bound for c in self.convolutions) if self.convolutions else None

    @property
    def lower(self) -> float:
        """The largest measured constant of D."""
        return max(m.denoiser for m in self.measured)

    @property
    def lower_residual(self) -> float:
        """The largest measured constant of ``I - D``."""
        return max(m.residual for m in self.measured)

    def lower_at(self, kind: str) -> tuple[float, float]:
        """The largest measured constants of D and ``I - D`` at the images whose name begins so ("image", "random")."""
        here = [m for m in self.measured if m.at.startswith(kind)]
        return max((m.denoiser for m in here), default=0.0), max((m.residual for m in here), default=0.0)

    def to_json(self) -> dict[str, Any]:
        """The plain form for files."""
        return {
            **asdict(self), "shape": list(self.shape), "regularity": self.regularity.to_json(), "class": self.kind,
            "verdict": self.verdict, "product": self.product, "lower": self.lower,
            "lower_residual": self.lower_residual,
        }  # fmt: skip


def certify_denoiser(
    denoiser: Denoiser,
    space: Space,
    sigma: float,
    images: Sequence[Tensor],
    *,
    iterations: int = 15,
    tolerance: float = 1e-3,
    seed: int = 0,
    before: DenoiserReport | None = None,
) -> DenoiserReport:
    """What is proven of `denoiser` at `sigma`, held against what is measured of it.

    The lower bounds are of D at the images, at the images with noise of standard deviation sigma, and at white noise as
    large as the images. Where autograd differentiates D they come from power iterations on its Jacobian. Else they are
    quotients ``|D(x + h) - D(x)| / |h|`` with a small random h, which ``D(x + h) - D(x)`` replaces in every iteration:
    each is a lower bound, and they grow towards the norm where the derivative is symmetric.

    Parameters
    ----------
    denoiser, space, sigma
        The denoiser, the Space of its images, and the noise level in their units.
    images
        At least one image, ``[*space.shape]``, of the kind that it was made for.
    iterations
        For every lower bound.
    tolerance
        Of the norms of the convolutions, relative.
    seed
        Of the noise and the directions.
    before
        A report of the same denoiser at another noise level, which its convolutions do not depend on.

    Raises
    ------
    InputError
        No images, images that do not fit, or a denoiser that cannot be used (`examination.examine`).
    """
    if not images:
        raise InputError("images for the certificate of a denoiser", expected="at least one", got="none")
    for image in images:
        space.check(image, "image for the certificate of a denoiser")
    level = torch.tensor(sigma, dtype=space.real_dtype, device=images[0].device)
    with torch.no_grad():
        first = examine(denoiser, f"the denoiser {name_of(denoiser)}", images[0], level)
        repeats = bool((denoiser(images[0], level) == first).all())
    known = regularity_of(denoiser, sigma)
    probe = _Probe(lambda x: denoiser(x, level), space, known, iterations, seed)
    points = _points(images, space, sigma, torch.Generator().manual_seed(seed))
    how: How = "power iteration on the Jacobian" if _differentiable(probe.run, images[0]) else "difference quotients"
    measure = probe.by_jacobian if how.startswith("power") else probe.by_quotients
    measured = tuple(measure(at, x) for at, x in points)
    if before is None:
        convolutions, layers = _from_layers(denoiser, lambda: denoiser(images[0], level), tolerance)
    else:
        convolutions, layers = before.convolutions, before.layers
    claims = (known.lipschitz if known.averaged is None else 1.0, known.residual)
    upper, upper_residual = (_least(claim, layers and layers[i]) for i, claim in enumerate(claims))
    contradiction = _contradiction(known, measured) if repeats else "the same image twice gives two results"
    return DenoiserReport(
        _name(denoiser),
        sigma,
        space.shape,
        known,
        upper,
        upper_residual,
        convolutions,
        measured,
        how,
        contradiction,
        layers,
    )


def _name(denoiser: object) -> str:
    """The type, with what it wraps: TrainedDenoiser(DRUNet)."""
    inner = _unwrapped(denoiser)
    outer = type(denoiser).__name__
    return outer if inner is denoiser else f"{outer}({type(inner).__name__})"


def _unwrapped(denoiser: object) -> object:
    while isinstance(denoiser, TrainedDenoiser | Rephased):
        denoiser = denoiser.network if isinstance(denoiser, TrainedDenoiser) else denoiser.denoiser
    return denoiser


def _points(
    images: Sequence[Tensor], space: Space, sigma: float, generator: torch.Generator
) -> list[tuple[str, Tensor]]:
    found = []
    for i, image in enumerate(images, start=1):
        noise = space.random(generator, device=image.device)
        found += [(f"image {i}", image), (f"image {i} with noise", image + sigma * noise)]
    size = math.sqrt(sum(float(space.squared(i)) for i in images) / (len(images) * space.size))
    return [*found, ("random 1", size * space.random(generator, device=images[0].device))]


def _differentiable(run: Callable[[Tensor], Tensor], x: Tensor) -> bool:
    with torch.enable_grad():
        try:
            return run(x.detach().clone().requires_grad_()).requires_grad
        except (PriorloomError, RuntimeError):  # a NumPy backend says so in its own words
            return False


@dataclass(frozen=True)
class _Probe:
    run: Callable[[Tensor], Tensor]
    space: Space
    known: Regularity
    iterations: int
    seed: int

    def maps(self) -> list[Callable[[Tensor], Tensor]]:
        """D, ``I - D``, and N where D is said to be averaged."""
        run, theta = self.run, self.known.averaged
        found = [run, lambda x: x - run(x)]
        return found if theta is None else [*found, lambda x: (run(x) - (1 - theta) * x) / theta]

    def by_jacobian(self, at: str, x: Tensor) -> Measured:
        norms = [jacobian_norm(f, x, self.iterations, self.seed) for f in self.maps()]
        return Measured(at, norms[0], norms[1], norms[2] if len(norms) == 3 else None, self._asymmetry(x))

    def by_quotients(self, at: str, x: Tensor) -> Measured:
        with torch.no_grad():
            norms = [self._quotient(f, x) for f in self.maps()]
        return Measured(at, norms[0], norms[1], norms[2] if len(norms) == 3 else None)

    def _quotient(self, f: Callable[[Tensor], Tensor], x: Tensor) -> float:
        norm = self.space.norm
        generator = torch.Generator().manual_seed(self.seed)
        size = SMALL * float(norm(x)) or SMALL
        made, largest = f(x), 0.0
        h = self.space.random(generator, device=x.device)
        for _ in range(self.iterations):
            h = h * (size / float(norm(h)))
            moved = x + h
            change = f(moved) - made
            # What was added, after rounding
            largest = max(largest, float(norm(change) / norm(moved - x)))
            h = change if float(norm(change)) > 0 else self.space.random(generator, device=x.device)
        return largest

    def _asymmetry(self, x: Tensor) -> float | None:
        if not self.known.gradient:
            return None
        generator = torch.Generator().manual_seed(self.seed)
        # Two kinds of noise that D has smoothed, so that the products do not vanish
        noise = self.space.random(generator, (2,), x.device) * (self.space.norm(x) / self.space.size**0.5)
        u, v = (self.run(x + n).detach() - self.run(x).detach() for n in noise)
        jv, ju = (torch.autograd.functional.jvp(self.run, x, d)[1] for d in (v, u))  # type: ignore[no-untyped-call]
        a, b = float(self.space.inner(u, jv).real), float(self.space.inner(ju, v).real)
        return abs(a - b) / max((abs(a) + abs(b)) / 2, torch.finfo(torch.float32).tiny)


def _from_layers(
    denoiser: object, run: Callable[[], object], tolerance: float
) -> tuple[tuple[ConvolutionNorm, ...], tuple[float, float] | None]:
    network = _unwrapped(denoiser)
    if not isinstance(network, nn.Module):
        return (), None
    norms = convolution_norms(network, run, tolerance)
    return tuple(norms.values()), layered_bounds(network, norms)


def _least(*bounds: float | None) -> float | None:
    return min((b for b in bounds if b is not None), default=None)


def _contradiction(known: Regularity, measured: Sequence[Measured]) -> str:
    """The first measurement that exceeds a claim, in words."""
    for m in measured:
        claims = [
            ("the Lipschitz constant of D", m.denoiser, known.lipschitz),
            ("the Lipschitz constant of I - D", m.residual, known.residual),
            ("the Lipschitz constant of N in D = (1 - theta) I + theta N", m.nonexpansive, 1.0),
        ]
        for what, found, claimed in claims:
            if found is not None and claimed is not None and not found <= claimed * (1 + ROUNDING):
                return f"{what} is at least {found:.6g} at {m.at}, and is claimed to be at most {claimed:.6g}"
        if m.asymmetry is not None and not m.asymmetry <= LOPSIDED:
            return f"the Jacobian at {m.at} is not symmetric ({m.asymmetry:.2g}), so D is not I - grad g as claimed"
    return ""


__all__ = ["DenoiserReport", "Judgement", "Measured", "certify_denoiser", "judge", "judge_step"]
