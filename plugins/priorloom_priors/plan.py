"""What the plug-and-play methods share: the noise, the denoiser, the start, the choices, and what becomes of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from priorloom import Case, Functional, Pipeline, PnP, Problem, Step
from priorloom.errors import InputError
from priorloom.pipeline import Assembly, Range, Slot, Solver, backprojected_noise, least_squares
from priorloom.plug_and_play import RED
from priorloom.steps import DataProximal, GradientDescent, Relaxed
from priorloom.steps.accelerated import AcceleratedDescent
from priorloom.steps.equilibrium import Anderson
from priorloom.theorems import judge

from .denoiser_slot import Filled, Phase, fill
from .pipelines import with_noise

STRENGTH = 2.5
"""Set once, with `pipelines.WEIGHT` and on the same images."""
Uncertified = Literal["damp", "refuse"]


@dataclass(frozen=True)
class Plan:
    """A plug-and-play method on a case, before its step is chosen.

    Parameters
    ----------
    case, filled, start, solver
        The case, its denoiser, the first image, and when to stop.
    uncertified, relaxation
        What happens where no theorem applies.
    noise, noise_back, noise_in_image
        Standard deviation of the noise per entry of y, per pixel of ``A^H y``, and ``noise sqrt(pixels) / |A|_F``.
    chosen
        The parameters that were chosen automatically.
    """

    case: Case
    filled: Filled
    start: Tensor
    solver: Solver
    uncertified: Uncertified
    relaxation: float
    noise: float
    noise_back: float
    noise_in_image: float
    chosen: dict[str, Any] = field(default_factory=dict)

    def pick(self, name: str, given: float | None, automatic: float) -> float:
        """The parameter: what was given, else the automatic value, which is then recorded."""
        if given is None:
            self.chosen[name] = given = automatic
        positive(name, given)
        return given

    def assembly(self, step: Step[Any], prior: Functional, sigmas: tuple[float, ...], after: int = 0) -> Assembly:
        """The problem with the step, damped or refused where no theorem applies.

        Parameters
        ----------
        step, prior
            The algorithm, and the denoiser as a prior.
        sigmas
            The noise levels at which the denoiser is examined.
        after
            How many iterations of a schedule are never damped.

        Raises
        ------
        InputError
            No theorem applies and `uncertified` is "refuse", or a denoiser that cannot be used.
        """
        for sigma in sigmas:
            self.filled.examine(self.start, sigma)
        problem = Problem(least_squares(self.case), prior)
        judgement = judge(step, problem)
        used: dict[str, Any] = {"damped": False}
        warnings: tuple[str, ...] = ()
        if not judgement.certified:
            if self.uncertified == "refuse":
                raise InputError(
                    f"{type(step).__name__} with denoiser '{self.filled.name}'",
                    expected="an iteration that provably converges", got=judgement.reason,
                    cure="set uncertified to damp, or choose another denoiser, step size or method",
                )  # fmt: skip
            step = _damped(step, self.relaxation, after)
            used["damped"] = self.relaxation < 1
            damped = judge(step, problem)
            if not damped.certified:
                warnings = (f"not certified to converge, {_how(self.relaxation)}: {judgement.reason}",)
            judgement = damped
        return Assembly(
            problem, step, self.start, self.solver, {**self.chosen, **used},
            "certified" if judgement.certified else "empirical", warnings=warnings, judgement=judgement,
            damped=bool(used["damped"]),
        )  # fmt: skip


def plan_for(
    case: Case,
    denoiser: Slot,
    phase: Phase,
    uncertified: Uncertified,
    relaxation: float,
    solver: Solver,
) -> Plan:
    """The plan; the iteration starts at the pseudo-inverse, the image that the modality's direct method gives.

    Raises
    ------
    InputError
        A denoiser that cannot be built for the case, or a relaxation outside (0, 1].
    """
    if not 0 < relaxation <= 1:
        raise InputError("relaxation", expected="a number above 0 and at most 1", got=relaxation)
    noisy = with_noise(case)
    start = case.operator.pseudo_inverse(case.measurement)
    filled = fill(case, denoiser, start, phase)
    chosen = {"denoiser.modality": case.modality} if "modality" in denoiser.unset else {}
    noise, back = noisy.noise_std or 1.0, backprojected_noise(noisy)
    return Plan(case, filled, start, solver, uncertified, relaxation, noise, back, noise**2 / back, dict(chosen))


SIGMA = {"sigma": Range(0.25, 4.0, relative=True)}
"""What of plug-and-play is tuned: the strength of the denoiser, which the free steps follow."""


def plug_and_play(
    name: str, how: str, assemble: Callable[..., Assembly], search: Mapping[str, Range] = SIGMA
) -> Pipeline:
    """A method with the data term ``0.5 |Ax - y|^2``; `how` says the rest, and `search` what is tuned."""
    return Pipeline(name, "pnp", f"0.5 |Ax - y|^2 with {how}", assemble, search=search)


def with_gradient_step(
    plan: Plan, make: Callable[[float], Step[Any]], sigma: float | None, step_size: float | None, default: float = 1.0
) -> Assembly:
    """A step that takes the gradient of the data: ``t = default / L``, and ``sigma = t noise_back / STRENGTH``."""
    t = plan.pick("step_size", step_size, default / (least_squares(plan.case).lipschitz() or 1.0))
    sigma = plan.pick("sigma", sigma, plan.filled.within(t * plan.noise_back / STRENGTH))
    return plan.assembly(make(t), PnP(plan.case.operator.domain, plan.filled.denoiser, sigma), (sigma,))


def with_free_step(
    plan: Plan,
    make: Callable[[float], Step[Any]],
    sigma: float | None,
    name: str,
    given: float | None,
    from_step: Callable[[float], float] = float,
) -> Assembly:
    """A step with any t: ``sigma = STRENGTH noise_in_image`` and ``t = sigma^2 / noise^2``.

    Parameters
    ----------
    plan, make, sigma
        The plan, the step made of its parameter, and the noise level.
    name, given, from_step
        That parameter, and what it is for a step t.
    """
    sigma = plan.pick("sigma", sigma, plan.filled.within(STRENGTH * plan.noise_in_image))
    value = plan.pick(name, given, from_step(sigma**2 / plan.noise**2))
    return plan.assembly(make(value), PnP(plan.case.operator.domain, plan.filled.denoiser, sigma), (sigma,))


def with_red(
    plan: Plan,
    make: Callable[[float | None], GradientDescent | DataProximal | AcceleratedDescent],
    sigma: float | None,
    tau: float | None,
    step_size: float | None,
) -> Assembly:
    """RED at ``sigma = noise_in_image`` with ``tau = weight(sigma) noise^2 / sigma^2``; t is the step's own choice."""
    sigma = plan.pick("sigma", sigma, plan.filled.within(plan.noise_in_image))
    known = plan.filled.within(sigma)
    tau = plan.pick("tau", tau, plan.filled.weight(known) * plan.noise**2 / known**2)
    prior = RED(plan.case.operator.domain, plan.filled.denoiser, sigma, tau)
    step = make(step_size)
    if step_size is None:
        plan.chosen["step_size"] = float(step.size(Problem(least_squares(plan.case), prior)))
    return plan.assembly(step, prior, (sigma,))


def positive(name: str, value: float) -> None:
    """Raise InputError unless the parameter is positive and finite."""
    if not 0 < value < float("inf"):
        raise InputError(name, expected="a positive number", got=value)


def _damped(step: Step[Any], relaxation: float, after: int) -> Step[Any]:
    """The step, damped; of an accelerated one the map inside, since the state of the acceleration is no fixed-point
    iteration."""
    if isinstance(step, Anderson):
        return Anderson(Relaxed(step.step, relaxation, after), step.memory)
    return Relaxed(step, relaxation, after)


def _how(relaxation: float) -> str:
    return "and run undamped" if relaxation == 1 else f"and so damped by {relaxation:g}"
