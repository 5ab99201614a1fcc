"""Where a parameter is searched when a rule states no range."""

from __future__ import annotations

import math
from dataclasses import replace

from ..errors import InputError
from ..modality import Case
from ..pipeline import Range
from ..reconstruction import Method, prepare
from ..registry import Registry
from ..rule import Rule
from .search import rounded


def range_of(case: Case, method: Method, rule: Rule, registry: Registry, seed: int = 0) -> tuple[float, float]:
    """The range of a rule's parameter on a case: as stated, else that of ``Pipeline.search``.

    A relative range is in multiples of the value that the method chooses by itself, for which it is assembled once.

    Raises
    ------
    InputError
        A parameter for which neither the rule nor the pipeline has a range, or one whose ends are reversed.
    """
    low, high = rule.low, rule.high
    if low is None or high is None:
        ends = _of_pipeline(case, method, rule, registry, seed)
        low, high = (ends[0] if low is None else low), (ends[1] if high is None else high)
    if not 0 < low < high < math.inf:
        raise InputError(f"range of '{rule.parameter}' of method '{method.name}' on {case.name}",
                         expected="low below high", got=f"{low:g} to {high:g}",
                         cure=f"set {rule.parameter}.low and {rule.parameter}.high")  # fmt: skip
    return low, high


def stated_range(method: Method, rule: Rule, registry: Registry) -> Range:
    """What the pipeline states of a rule's parameter; raises InputError where that is nothing."""
    stated = registry.pipeline(method.pipeline).search.get(rule.parameter)
    if not isinstance(stated, Range):
        raise _no_ends(method, rule, "none, and the method has no default")
    return stated


def _of_pipeline(case: Case, method: Method, rule: Rule, registry: Registry, seed: int) -> tuple[float, float]:
    stated = stated_range(method, rule, registry)
    if not stated.relative:
        return stated.low, stated.high
    by_itself = prepare(case, replace(method, rule=None), registry, seed).assembly.parameters.get(rule.parameter)
    if not isinstance(by_itself, float | int) or not 0 < by_itself < math.inf:
        raise _no_ends(method, rule, "none, and the method chooses no value")
    return rounded(stated.low * by_itself), rounded(stated.high * by_itself)


def _no_ends(method: Method, rule: Rule, got: str) -> InputError:
    return InputError(f"range of '{rule.parameter}' of method '{method.name}'", expected="its two ends", got=got,
                      cure=f"set {rule.parameter}.low and {rule.parameter}.high")  # fmt: skip
