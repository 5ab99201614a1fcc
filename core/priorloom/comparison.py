"""compare(): methods on cases."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence

from .binding import bind
from .errors import PriorloomError, unique
from .modality import Case
from .pipeline import Result
from .reconstruction import Method, reconstruct
from .registry import Registry
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
