"""Judgement: whether an iteration provably converges; and what follows from what is proven of a denoiser."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch

from .problem import Problem
from .regularity import Regularity
from .steps.base import Step, at_hand
from .steps.convergence import converges
from .steps.douglas_rachford import DRS
from .steps.equilibrium import Anderson
from .steps.least_squares import CG, LSQR
from .steps.primal_dual import PDHG
from .steps.proximal import FISTA, ISTA
from .steps.red import DataProximal, GradientDescent
from .steps.relaxed import Relaxed
from .steps.splitting import ADMM, HQS

Remedy = Literal["none", "damp", "shorten", "average", "solve exactly"]

MANN = "Bauschke and Combettes (2017), Convex Analysis and Monotone Operator Theory, sections 4.5 and 5.2"
GROUPS = "Eckstein and Bertsekas (1992), Math. Program. 55"
SAFEGUARD = (
    "Anderson acceleration of an averaged map, safeguarded",
    "Zhang, O'Donoghue and Boyd (2020), SIAM J. Optim. 30; priorloom.anderson.anderson",
)
FIXED_POINT = "the iterates converge to a fixed point, where there is one"
STATIONARY = "|x+ - x| vanishes and every cluster point is a stationary point of {}"


@dataclass(frozen=True)
class Judgement:
    """Whether an iteration provably converges.

    Parameters
    ----------
    certified
        Whether a theorem applies.
    theorem
        Its name; empty where none applies.
    condition
        What it asks for, with the numbers at hand.
    reference
        Where it is proven.
    guarantee
        What it promises.
    reason
        Why no theorem applies; empty where one does.
    dampable
        Whether the damped iteration (`Relaxed` with a in (0, 1)) is certified.
    remedy
        What would make it certified: "damp" (`Relaxed`), "shorten" the step, "average" the denoiser more with the
        identity, "solve exactly" the x-update; "none" where it is certified, or where nothing of the kind helps.
    averaged
        Whether the map that is repeated is proven to be averaged in a norm of its state; of images in the Euclidean
        one, so that `Anderson` acceleration of it is certified.
    """

    certified: bool
    theorem: str = ""
    condition: str = ""
    reference: str = ""
    guarantee: str = ""
    reason: str = ""
    dampable: bool = False
    remedy: Remedy = "none"
    averaged: bool = False

    def to_json(self) -> dict[str, Any]:
        """The plain form for files."""
        return asdict(self)


@dataclass(frozen=True)
class Facts:
    """What follows from a `Regularity`.

    Parameters
    ----------
    averaged
        The smallest theta; at most 1.
    lipschitz
        The smallest Lipschitz constant of D.
    prox
        M where ``D = prox_phi`` with a phi that is M-weakly convex: D is the gradient of a convex function.
    slope
        r where ``D = I - grad g`` and grad g is r-Lipschitz.
    """

    averaged: float
    lipschitz: float
    prox: float | None
    slope: float | None
    is_prox: bool

    @property
    def text(self) -> str:
        """In words."""
        if math.isfinite(self.averaged):
            return f"D is {self.averaged:.4g}-averaged" if self.averaged < 1 else "D is nonexpansive"
        return f"D is {self.lipschitz:.4g}-Lipschitz" if math.isfinite(self.lipschitz) else "nothing bounds D"


def facts(known: Regularity) -> Facts:
    """What follows from what is proven.

    A contraction with constant l is ``(1 + l) / 2``-averaged, and ``I - grad g`` with g convex and grad g r-Lipschitz
    is ``r / 2``-averaged (Baillon and Haddad, 1977). ``D = grad h`` with ``h = |x|^2 / 2 - g`` is the proximal map of
    ``phi = h* - |x|^2 / 2`` where h is convex, which it is for ``r <= 1`` (Moreau, 1965; Gribonval and Nikolova, 2020);
    as h* is ``1 / l``-strongly convex where D is l-Lipschitz, phi is ``(1 - 1 / l)``-weakly convex.
    """
    thetas = [] if known.averaged is None else [known.averaged]
    constants = [] if known.lipschitz is None else [known.lipschitz]
    if known.residual is not None:
        constants.append(1 + known.residual)
        if known.gradient and known.convex:
            thetas.append(known.residual / 2)
    thetas += [(1 + c) / 2 for c in constants if c <= 1]
    theta = min([t for t in thetas if t <= 1], default=math.inf)
    lipschitz = min([*constants, *([1.0] if theta <= 1 else [])], default=math.inf)
    slope = known.residual if known.gradient else None
    prox = max(0.0, 1 - 1 / lipschitz) if slope is not None and slope <= 1 and lipschitz > 0 else None
    return Facts(theta, lipschitz, prox, slope, known.gradient and theta <= 0.5)


def obstacle_of(step: Step[Any], problem: Problem) -> str:
    """What stands against every theorem, whatever the step; empty where nothing does."""
    if any(t.backprojector is not None for t in (problem.data, *problem.terms)):
        return "the data gradient is carried back by a backprojector in the place of the adjoint"
    if not problem.data.f.is_convex:
        return f"the data term {type(problem.data.f).__name__} is not convex"
    for term in problem.terms:
        if not (term.f.is_convex and term.f.has_exact_prox):
            return f"the operator term {type(term.f).__name__} is not convex with an exact proximal map"
    inner = step
    while isinstance(inner, Relaxed | Anderson):
        inner = inner.step
    if isinstance(inner, ADMM | DRS | HQS | PDHG) and not problem.data.f.has_exact_prox:
        return f"the proximal map of {type(problem.data.f).__name__} is not exact"
    # Training moves learned numbers, and nothing keeps a bare nn.Parameter positive.
    numbers = [getattr(inner, name, None) for name in ("step_size", "rho", "step", "ratio")]
    numbers += [getattr(problem.prior, name, None) for name in ("tau", "lam")]
    for found in [ends(problem, n) for n in numbers if not isinstance(n, Step)]:
        if found is not None and not 0 < found[0] <= found[1] < math.inf:
            return f"a step size or weight is {found[0]:.4g}, not positive"
    return ""


_CONVEX: dict[type, tuple[str, str]] = {
    ISTA: ("proximal gradient method", "Combettes and Wajs (2005), Multiscale Model. Simul. 4"),
    FISTA: ("accelerated proximal gradient method", "Beck and Teboulle (2009), SIAM J. Imaging Sci. 2"),
    PDHG: ("primal-dual hybrid gradient method", "Chambolle and Pock (2011), J. Math. Imaging Vis. 40"),
    ADMM: ("alternating direction method of multipliers", GROUPS),
    DRS: ("Douglas-Rachford splitting", GROUPS),
    GradientDescent: ("gradient descent", "Nesterov (2004), Introductory Lectures on Convex Optimization"),
    DataProximal: ("proximal gradient method", "Combettes and Wajs (2005), Multiscale Model. Simul. 4"),
    CG: ("conjugate gradients", "Hestenes and Stiefel (1952), J. Res. Natl. Bur. Stand. 49"),
    LSQR: ("LSQR", "Paige and Saunders (1982), ACM Trans. Math. Softw. 8"),
    Relaxed: ("Krasnoselskii-Mann, damped", MANN),
    Anderson: SAFEGUARD,
}


def classical(step: Step[Any], problem: Problem) -> Judgement:
    """The judgement on a problem without a denoiser."""
    if converges(step, problem):
        theorem, reference = _CONVEX.get(type(step), (f"that of {type(step).__name__}", ""))
        return Judgement(True, theorem, "convex functionals, exact proximal maps and steps within their limits",
                         reference, "convergence to the minimum, where it is attained")  # fmt: skip
    for f in (problem.data.f, problem.prior, *(t.f for t in problem.terms)):
        if not f.is_convex:
            return Judgement(False, reason=f"{type(f).__name__} is not convex")
        if not f.has_exact_prox:
            return Judgement(False, reason=f"the proximal map of {type(f).__name__} is not exact")
    obstacle = obstacle_of(step, problem)
    told = "the conditions of its theorem on step sizes, smoothness or exact inner solutions do not hold"
    if isinstance(step, HQS):
        told = "half-quadratic splitting minimises another objective, the penalised one"
    return Judgement(False, reason=obstacle or f"{type(step).__name__}: {told}")


def ends(problem: Problem, value: Any) -> tuple[float, float] | None:
    """The smallest and the largest of a parameter that may differ between the images of a batch."""
    number = at_hand(problem, value)
    if number is None:
        return None
    numbers = torch.as_tensor(number, dtype=torch.float64).detach()
    return float(numbers.min()), float(numbers.max())
