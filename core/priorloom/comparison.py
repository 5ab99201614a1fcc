"""reconstruct() and compare(): methods on cases, each result with its evidence."""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from .binding import bind
from .errors import DivergenceError, InputError, PriorloomError
from .metrics import metrics
from .modality import Case, Modality, slug
from .monitor import Monitor
from .pipeline import Assembly, Certificate, Choice, Pipeline, Result
from .registry import Registry
from .solve import Record, Solution, run
from .steps import HQS
from .steps.base import Step
from .trained import ModelSlot

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
        How the settings were chosen: "default", "given" (by the user), "tuned", "oracle" or "learned".
    """

    pipeline: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    label: str | None = None
    tuned: Choice | None = None

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
    on_record: Callable[[Record], None] | None = None,
) -> Result:
    """One method on one case: normalise, assemble, solve, undo the normalisation, measure.

    Raises
    ------
    InputError
        Unknown method or parameter, a method of another modality, or settings that the components refuse.
    DivergenceError
        The iteration diverged, and nothing watched it (see `Monitor`).
    """
    registry = registry or Registry.discover()
    method = Method(method) if isinstance(method, str) else method
    pipeline = registry.pipeline(method.pipeline)
    modality = registry.modality(case.modality)
    if pipeline.modalities and case.modality not in pipeline.modalities:
        raise InputError(
            f"method '{pipeline.name}'", expected=f"a case of {' or '.join(pipeline.modalities)}", got=case.modality,
            cure=f"methods for {case.modality}: {', '.join(modality.methods)}",
        )  # fmt: skip
    return _reconstruct(case, method, pipeline, modality, registry, seed, on_record)


def _reconstruct(
    case: Case,
    method: Method,
    pipeline: Pipeline,
    modality: Modality,
    registry: Registry,
    seed: int,
    on_record: Callable[[Record], None] | None,
) -> Result:
    arguments, parameters = bind(registry, pipeline, method.settings)
    torch.manual_seed(seed)
    with torch.no_grad():
        scale = modality.scale(case)
        if not 0 < scale < float("inf"):
            raise InputError(f"scale of case '{case.name}'", expected="a measurement that is not zero", got=scale)
        inner = case.scaled(scale)
        if inner.noise_std is None:
            inner = replace(inner, noise_std=modality.noise_std(inner))
        began = time.perf_counter()
        assembly = pipeline.assemble(inner, **arguments)
        for module in (assembly.problem, assembly.steps):
            module.to(inner.measurement.device)
        assembled = time.perf_counter() - began
        solution = run(
            assembly.steps,
            assembly.problem,
            n=assembly.solver.max_iterations,
            tol=assembly.solver.tolerance,
            x0=assembly.start,
            on_record=on_record,
            monitor=_monitor(pipeline, assembly),
        )
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
        seconds=assembled + solution.seconds,
        iterations=solution.iterations,
        residual=solution.residual,
        gap=solution.gap,
        objective=solution.history[-1].objective if solution.history else None,
        converged=solution.converged,
        criterion=solution.criterion,
        history=solution.history,
        parameters={**parameters, **assembly.parameters},
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


def _monitor(pipeline: Pipeline, assembly: Assembly) -> Monitor | None:
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


def compare(
    cases: Iterable[Case],
    methods: Sequence[Method | str] | None = None,
    *,
    registry: Registry | None = None,
    seed: int = 0,
    on_result: Callable[[Case, Result], None] | None = None,
) -> list[Result]:
    """Every method on every case; the modality's default methods when none are named.

    Parameters
    ----------
    cases
        What to reconstruct; names must be unique.
    methods
        Names of pipelines, or Methods with settings.
    registry
        Where components come from; ``Registry.discover()`` when absent.
    seed
        Seeds every method afresh, so that the order does not matter.
    on_result
        Called with each case and result as it is finished; what it has seen is safe when a later method fails.

    Raises
    ------
    InputError
        Two cases or two methods share a name, or a method cannot run.
    """
    registry = registry or Registry.discover()
    cases = list(cases)
    unique("case", [c.name for c in cases])
    results = []
    defaults = {m: default_methods(registry, m) for m in {c.modality for c in cases}} if methods is None else {}
    for case in cases:
        chosen = methods if methods is not None else defaults[case.modality]
        named = [Method(m) if isinstance(m, str) else m for m in chosen]
        unique("method", [m.name for m in named])
        for method in named:
            result = reconstruct(case, method, registry=registry, seed=seed)
            results.append(result)
            if on_result is not None:
                on_result(case, result)
    return results


def default_methods(registry: Registry, modality: str) -> tuple[str, ...]:
    """What ``compare`` runs where no method is named: the modality's own, and every method that a registered model
    ``MODALITY.METHOD`` is for.

    A method whose model cannot be used is left out with a warning: a broken model must not stop the others.
    """
    own = registry.modality(modality).methods
    methods = registry.names("pipeline")
    trained = (name.partition(".") for name in registry.names("model"))
    named = [m for of, _, m in trained if of == modality and m in methods and m not in own]
    return own + tuple(m for m in named if _has_model(registry, modality, m))


def _has_model(registry: Registry, modality: str, method: str) -> bool:
    try:
        arguments, _ = bind(registry, registry.pipeline(method), {})
        for slot in arguments.values():
            if isinstance(slot, ModelSlot):
                slot.check(modality)
    except PriorloomError as error:
        _LOG.warning("priorloom: left out: method '%s' on %s: %s", method, modality, error)
        return False
    return True


def unique(what: str, names: Sequence[str]) -> None:
    """Raise InputError when two of the names are the same."""
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{what} name", expected="unique names", got=f"'{name}' twice", cure="give one a label")
