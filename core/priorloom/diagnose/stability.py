"""The stability of a reconstruction method at one measurement: local Lipschitz constant, worst change, random noise."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from ..modality import Case
from ..noise import backprojected_std
from .method_map import MethodMap
from .perturbation import Draws, Local, Worst, local_lipschitz, norm, random_changes, worst_perturbation

LOCAL = 0.1
"""The size of the changes that the local Lipschitz constant is taken over, in units of the norm of the noise."""


@dataclass(frozen=True)
class Budget:
    """What a search may spend, and its seed.

    Parameters
    ----------
    local
        Iterations for the local Lipschitz constant.
    iterations, restarts
        Runs of the ascent for each start, and how many random starts there are besides the direction of the local
        constant.
    draws
        Of random noise.
    seed
        Of directions and noise.
    """

    local: int = 8
    iterations: int = 6
    restarts: int = 1
    draws: int = 5
    seed: int = 0


QUICK = Budget(local=4, iterations=3, restarts=0, draws=2)


@dataclass(frozen=True)
class Errors:
    """``|image - truth| / |truth|`` of the measurement as it is, of the worst change, and the mean over random noise of
    the same norm."""

    plain: float
    worst: float
    random: float


@dataclass(frozen=True)
class Stability:
    """What was found about one method at one measurement; Euclidean norms in the units of image and data.

    Parameters
    ----------
    method
        Its name.
    derivative
        What the directions were found by, in words.
    image, measurement
        ``F(y)``, and the norm of y.
    radius, noise
        What a perturbation was allowed, and the norm of the noise.
    image_noise
        The norm that the noise has in the image by Frobenius' count, ``sigma pixels / |A|_F``: a unit that the methods
        on one operator share.
    local, worst, draws
        The three searches.
    errors
        Against the truth; None without one.
    runs, pulls, seconds
        What was spent.
    """

    method: str
    derivative: str
    image: Tensor
    measurement: float
    radius: float
    noise: float
    image_noise: float
    local: Local
    worst: Worst
    draws: Draws
    errors: Errors | None
    runs: int
    pulls: int
    seconds: float

    def relative(self, amplification: float) -> float:
        """An amplification of relative changes, ``(|dx| / |x|) / (|dy| / |y|)``."""
        size = norm(self.image)
        return amplification * self.measurement / size if size else math.inf

    @property
    def in_noise_units(self) -> float:
        """The worst change of the image in units of `image_noise`."""
        return self.worst.change / self.image_noise

    @property
    def over_random(self) -> float:
        """How many times the worst perturbation moves the image as far as random noise of the same norm does."""
        return self.worst.amplification / self.draws.amplification if self.draws.amplification else math.inf


def free_entries(case: Case) -> Tensor:
    """Which entries of the measurement may be perturbed, bool: those that were measured, so not the zeros that stand
    for k-space that was not sampled."""
    A = case.operator
    with torch.no_grad():
        probe = A(A.domain.random(torch.Generator().manual_seed(0), (), A.device))
    measured: Tensor = (probe != 0) | (case.measurement != 0)
    return measured


def noise_norm(case: Case, noise_std: float) -> float:
    """``sigma sqrt(m)`` over the m entries that were measured; raises InputError where that is no positive number."""
    size = noise_std * math.sqrt(int(free_entries(case).sum()))
    if not 0 < size < math.inf:
        raise InputError(f"noise of case '{case.name}'", expected="a positive level, which a perturbation is sized by",
                         got=noise_std)  # fmt: skip
    return size


def check_level(level: float) -> None:
    """Raise InputError unless the level is positive and finite."""
    if not 0 < level < math.inf:
        raise InputError("level of a perturbation", expected="a positive multiple of the noise", got=level)


def stability(
    F: MethodMap,
    case: Case,
    noise_std: float,
    *,
    level: float = 1.0,
    budget: Budget | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> Stability:
    """The stability of a method at the measurement of a case.

    Parameters
    ----------
    F, case
        The method on the operator, and the measurement; its truth may be absent.
    noise_std
        Per entry of the measurement, in its units.
    level
        The norm of a perturbation in units of the norm of the noise.
    budget
        What may be spent.
    tell
        Told what is done next.

    Raises
    ------
    InputError
        A level or a noise that is not positive, or a method without a derivative.
    """
    budget = budget or Budget()
    check_level(level)
    y, free, noise = case.measurement, free_entries(case), noise_norm(case, noise_std)
    radius, name = level * noise, F.method.name
    tell(f"{name}: local Lipschitz constant")
    local = local_lipschitz(F, y, LOCAL * noise, iterations=budget.local, seed=budget.seed, free=free)
    tell(f"{name}: worst perturbation, from {1 + budget.restarts} starts")
    worst = worst_perturbation(
        F, y, radius, iterations=budget.iterations, restarts=budget.restarts, seed=budget.seed,
        first=[local.direction], free=free,
    )  # fmt: skip
    draws = random_changes(F, y, radius, draws=budget.draws, seed=budget.seed, free=free)
    image = F(y)
    return Stability(
        name, F.derivative, image, norm(y), radius, noise,
        noise_std * math.sqrt(case.operator.domain.size) / backprojected_std(case.operator), local, worst, draws,
        _errors(case, image, worst, draws), F.runs, F.pulls, F.seconds,
    )  # fmt: skip


def _errors(case: Case, image: Tensor, worst: Worst, draws: Draws) -> Errors | None:
    if case.truth is None or not norm(case.truth) > 0:
        return None
    truth, size = case.truth, norm(case.truth)
    random = math.fsum(norm(x - truth) for x in draws.images) / len(draws.images)
    return Errors(norm(image - truth) / size, norm(worst.image - truth) / size, random / size)


__all__ = ["LOCAL", "QUICK", "Budget", "Errors", "Stability", "check_level", "free_entries", "noise_norm", "stability"]
