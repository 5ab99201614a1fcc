"""reconstruct(): one method on one case, and the evidence of how it went."""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor

from .binding import bind
from .errors import DivergenceError, InputError
from .metrics import metrics
from .modality import Case, slug
from .monitor import Monitor
from .multiples import resolve_multiples
from .pipeline import Assembly, Certificate, Choice, Pipeline, Result
from .registry import Registry
from .rule import Rule
from .solve import Record, Solution, Watch, run
from .steps import HQS
from .steps.base import Step

_LOG = logging.getLogger(__name__)

TROUBLE = ("diverged", "cycling", "growing")
"""The outcomes that a monitor declares."""


@dataclass(frozen=True)
class Method:
    """A pipeline with settings, as one row of a comparison.

    Parameters
    ----------
    pipeline
        The name of the pipeline.
    settings
        Its parameters by dotted names.
    label
        The name of the row, usable as a file name; the pipeline's when absent.
    tuned
        How the settings were chosen (``pipeline.Choice``); "default" or "given" when absent.
    rule
        By which rule one more parameter is to be chosen on every case (``comparison.run_method``); it has no value in
        the settings.
    """

    pipeline: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    label: str | None = None
    tuned: Choice | None = None
    rule: Rule | None = None

    def __post_init__(self) -> None:
        if slug(self.name) != self.name:
            raise InputError("method name", expected=f"a file name such as '{slug(self.name)}'", got=repr(self.name))

    @property
    def name(self) -> str:
        """The name of the row."""
        return self.label or self.pipeline

    @property
    def choice(self) -> Choice:
        """How the settings were chosen; when to stop is not a choice of that kind."""
        given = any(not name.startswith("solver.") for name in self.settings)
        return self.tuned or ("given" if given else "default")


def reconstruct(
    case: Case,
    method: Method | str,
    *,
    registry: Registry | None = None,
    seed: int = 0,
    watch: Watch | None = None,
) -> Result:
    """One method on one case: normalise, assemble, solve, undo the normalisation, measure.

    Parameters
    ----------
    case, method
        What to reconstruct, and how; a pipeline's name for its defaults.
    registry, seed
        Where components come from (``Registry.discover()`` when absent), and the seed of whatever draws.
    watch
        Called with every point of the convergence curve and its image in the user's units; what it raises ends the run.

    Raises
    ------
    InputError
        Unknown method or parameter, a method of another modality, or settings that the components refuse.
    DivergenceError
        The iteration diverged, and nothing watched it (see `Monitor`).
    """
    registry = registry or Registry.discover()
    method = Method(method) if isinstance(method, str) else method
    if method.rule is not None:
        raise InputError(f"'{method.rule.parameter}' of method '{method.name}'", expected="a value", got="a rule",
                         cure="run it by priorloom.comparison.run_method")  # fmt: skip
    pipeline = registry.pipeline(method.pipeline)
    modality = registry.modality(case.modality)
    with torch.no_grad():
        prepared = prepare(case, method, registry, seed)
        inner, assembly, scale = prepared.case, prepared.assembly, prepared.scale
        solution = run(
            assembly.steps,
            assembly.problem,
            n=assembly.solver.max_iterations,
            tol=assembly.solver.tolerance,
            x0=assembly.start,
            watch=None if watch is None else _in_units(watch, scale),
            monitor=monitor_for(pipeline, assembly),
            truth=inner.truth,
        )
        penalty = _penalty(assembly, solution.x)
    warnings = assembly.warnings + ((solution.story,) if solution.outcome in TROUBLE else ())
    for warning in warnings:
        _LOG.warning("priorloom: %s on %s: %s", method.name, case.name, warning)
    image = solution.x * scale
    if not bool(image.isfinite().all()):
        raise DivergenceError(f"method '{method.name}' on case '{case.name}'", expected="a finite image", got="NaN")
    figures = None
    if case.truth is not None:
        truth = modality.display(case.operator.combined(case.truth))
        figures = metrics(modality.display(case.operator.combined(image)), truth, modality.data_range(truth))
    return Result(
        method=method.name,
        kind=pipeline.kind,
        case=case.name,
        modality=case.modality,
        image=image,
        metrics=figures,
        seconds=prepared.seconds + solution.seconds,
        iterations=solution.iterations,
        residual=solution.residual,
        gap=solution.gap,
        objective=solution.history[-1].objective if solution.history else None,
        penalty=penalty,
        converged=solution.converged,
        criterion=solution.criterion,
        history=solution.history,
        parameters={**prepared.parameters, **assembly.parameters},
        tuned=(method.tuned or "learned") if pipeline.kind == "learned" else method.choice,
        certificate=_certificate(pipeline, assembly, solution),
        seed=seed,
        scale=scale,
        versions=versions(),
        model=assembly.model,
        warnings=warnings,
        outcome=solution.outcome,
        story=solution.story,
        judgement=assembly.judgement,
        damped=assembly.damped,
    )


@dataclass(frozen=True)
class Prepared:
    """A method on a case, ready to run.

    Parameters
    ----------
    case, scale
        The normalised case, and by what it was divided.
    assembly, parameters
        What the pipeline made of it, and the parameters that were bound, by dotted names.
    seconds
        What assembling took.
    """

    case: Case
    scale: float
    assembly: Assembly
    parameters: Mapping[str, Any]
    seconds: float


def prepare(case: Case, method: Method, registry: Registry, seed: int = 0) -> Prepared:
    """Normalise a case, bind a method's settings, and assemble; raises InputError as `reconstruct` does."""
    pipeline = registry.pipeline(method.pipeline)
    modality = registry.modality(case.modality)
    if pipeline.modalities and case.modality not in pipeline.modalities:
        raise InputError(
            f"method '{pipeline.name}'", expected=f"a case of {' or '.join(pipeline.modalities)}", got=case.modality,
            cure=f"methods for {case.modality}: {', '.join(modality.methods)}",
        )  # fmt: skip
    torch.manual_seed(seed)
    with torch.no_grad():
        scale = modality.scale(case)
        if not 0 < scale < float("inf"):
            raise InputError(f"scale of case '{case.name}'", expected="a measurement that is not zero", got=scale)
        inner = case.scaled(scale)
        if inner.noise_std is None:
            inner = replace(inner, noise_std=modality.noise_std(inner))
        settings, multiples = resolve_multiples(inner, pipeline, method.settings, registry)
        arguments, parameters = bind(registry, pipeline, settings)
        torch.manual_seed(seed)  # whatever the multiples took
        began = time.perf_counter()
        assembly = pipeline.assemble(inner, **arguments)
        for module in (assembly.problem, assembly.steps):
            module.to(inner.measurement.device)
    return Prepared(inner, scale, assembly, {**parameters, **multiples}, time.perf_counter() - began)


def _in_units(watch: Watch, scale: float) -> Watch:
    def scaled(record: Record, image: Tensor) -> None:
        watch(record, image * scale)

    return scaled


def _penalty(assembly: Assembly, x: Tensor) -> float | None:
    """The objective without its data term; None where there is none, and for methods that minimise nothing."""
    problem = assembly.problem
    if not problem.has_value or not isinstance(assembly.steps, Step):
        return None
    return float(sum((term(x).double() for term in (problem.prior, *problem.terms)), torch.zeros(())).sum())


def monitor_for(pipeline: Pipeline, assembly: Assembly) -> Monitor | None:
    """A monitor for plug-and-play, and for every other iteration without a theorem and without an objective."""
    step = assembly.steps
    if not isinstance(step, Step):
        return None
    alone = assembly.certificate != "certified" and not assembly.problem.has_value
    if pipeline.kind != "pnp" and not alone:
        return None
    inner = getattr(step, "step", step)  # of a damped one
    # The problem that is solved changes while a schedule runs.
    return Monitor(begin=inner.steps if isinstance(inner, HQS) else 0)


def _certificate(pipeline: Pipeline, assembly: Assembly, solution: Solution) -> Certificate:
    """The verdict: a theorem speaks before the iteration, "empirical" is said only of what was seen to converge.

    Trouble contradicts a theorem: then the theorem does not describe what was computed.
    """
    if solution.outcome in TROUBLE:
        return "none"
    if assembly.certificate == "certified":
        return "certified"
    observed = assembly.certificate == "empirical" or pipeline.kind == "pnp"
    return "empirical" if observed and solution.converged else "none"


@cache
def versions() -> Mapping[str, str]:
    """Versions of Python and of the packages that compute."""
    found = {"python": platform.python_version()}
    for package in ("priorloom", "torch", "numpy", "scikit-image", "odl", "astra-toolbox"):
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
