"""compare(): methods on cases."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from .binding import bind
from .choice import check_rule, choose, facts
from .errors import PriorloomError, unique
from .modality import Case
from .pipeline import Result
from .reconstruction import Method, reconstruct
from .registry import Registry
from .solve import Watch
from .trained import ModelSlot

_LOG = logging.getLogger(__name__)


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
            check_rule(case, method, registry)
        # The other rules are measured by the oracle, wherever it stands.
        oracles = [m for m in named if m.rule is not None and m.rule.name == "oracle"]
        early = {m.name: run_method(case, m, registry=registry, seed=seed) for m in oracles}
        for method in named:
            result = early.get(method.name) or run_method(case, method, registry=registry, seed=seed)
            result = _against_oracle(result, method, [(m, early[m.name]) for m in oracles])
            results.append(result)
            if on_result is not None:
                on_result(case, result)
    return results


def run_method(
    case: Case,
    method: Method | str,
    *,
    registry: Registry | None = None,
    seed: int = 0,
    watch: Watch | None = None,
) -> Result:
    """One method on one case, as `reconstruct`; where it leaves a parameter to a rule, that is chosen first.

    The result has the record of the choice (``Result.chosen``), and ``PARAMETER.rule``, ``.low``, ``.high``, ``.runs``,
    ``.seconds`` and, where the case has a truth, ``.loss_db`` among its parameters: how far its PSNR is below the best
    one that the rule met. The last run, at the value that was chosen, is not among the runs of the rule.

    Raises
    ------
    InputError
        As `reconstruct`, or a rule that needs what is not there; see `choice.choose`.
    """
    registry = registry or Registry.discover()
    method = Method(method) if isinstance(method, str) else method
    if method.rule is None:
        return reconstruct(case, method, registry=registry, seed=seed, watch=watch)
    found = choose(case, method, registry=registry, seed=seed)
    result = reconstruct(case, found.method, registry=registry, seed=seed, watch=watch)
    return replace(
        result,
        parameters={**result.parameters, **facts(found)},
        warnings=result.warnings + found.warnings,
        chosen=found,
    )


def _against_oracle(result: Result, method: Method, oracles: Sequence[tuple[Method, Result]]) -> Result:
    """The result with its loss against the oracle of the same parameter, where one was run with the same settings, or
    against the best of its own trials, where that is better than what the oracle's search found."""
    rule = method.rule
    for oracle, best in oracles:
        assert oracle.rule is not None
        same = rule is not None and (method.pipeline, rule.parameter) == (oracle.pipeline, oracle.rule.parameter)
        if same and _kept(method) == _kept(oracle) and result.metrics and best.metrics:
            name = f"{oracle.rule.parameter}.loss_db"
            loss = max(best.metrics["psnr"] - result.metrics["psnr"], result.parameters.get(name, 0.0))
            return replace(result, parameters={**result.parameters, name: loss})
    return result


def _kept(method: Method) -> dict[str, Any]:
    return {name: value for name, value in method.settings.items() if not name.startswith("solver.")}


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
