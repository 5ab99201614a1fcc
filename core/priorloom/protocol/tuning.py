"""Tuning: on what, how far and over what the methods of a comparison are tuned; the section ``tuning`` of a config."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..choice import MEASURES, Measure
from ..chosen import Searched
from ..errors import InputError, did_you_mean

KEYS = ("case", "input", "seed", "budget", "measure", "over")
_NUMBERS = ("seed", "budget")
_MOST = 10_000
"""Settings of a budget; more are a slip of the hand."""


@dataclass(frozen=True)
class Tuning:
    """What ``compare`` tunes every method on before it runs the cases.

    Parameters
    ----------
    case
        ``case.*`` settings of the tuning cases that differ from those of the comparison. Where they name files or
        images, none of the comparison's are taken.
    input, options
        A measured file with a truth in the place of simulated cases, and its reader's options.
    seed
        Of the tuning cases; the comparison's plus one when absent.
    budget
        How many settings of every method are tried, each on every tuning case.
    measure
        What is made best on average: "psnr", "ssim" or "nmse".
    over
        For the rows named: what is searched instead of ``Pipeline.search``, by dotted names: the ends of a range, or
        words.
    """

    case: Mapping[str, Any] = field(default_factory=dict)
    input: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    budget: int = 12
    measure: Measure = "psnr"
    over: Mapping[str, Mapping[str, Searched]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.seed is not None and not 0 <= self.seed < 2**31:
            raise InputError("tuning.seed", expected="0 to 2147483647", got=self.seed)
        if not 1 <= self.budget <= _MOST:
            raise InputError("tuning.budget", expected=f"1 to {_MOST} settings", got=self.budget)
        if self.measure not in MEASURES:
            raise InputError(f"tuning.measure '{self.measure}'", cure=did_you_mean(str(self.measure), MEASURES))
        if self.input is not None and self.case:
            raise InputError("tuning in the config", expected="a case or an input", got="both")

    def changed(self, key: str, value: Any) -> Tuning:
        """The same with one value of the section changed: ``case.NAME``, ``seed``, ``budget`` or ``measure``."""
        head, _, tail = key.partition(".")
        if head == "case" and tail:
            return replace(self, case={**self.case, tail: value})
        if tail or head not in (*_NUMBERS, "measure"):
            raise InputError(f"unknown setting 'tuning.{key}'", cure=did_you_mean(key, (*_NUMBERS, "measure", "case.")))
        return replace(self, **{key: _checked(key, value)})


def over_ranges(nested: Mapping[str, Any]) -> dict[str, dict[str, Searched]]:
    """``{"fbp": {"cutoff": [0.1, 1], "filter": ["hann", "cosine"]}}`` checked; names may be nested or dotted."""
    return {str(method): _ranges(str(method), settings) for method, settings in nested.items()}


def _ranges(method: str, nested: Any, prefix: str = "") -> dict[str, Searched]:
    where = f"tuning.over.{method}{'.' * bool(prefix)}{prefix.removesuffix('.')}"
    if not isinstance(nested, Mapping) or not nested:
        raise InputError(where, expected="PARAMETER: [LOW, HIGH]", got=repr(nested))
    found: dict[str, Searched] = {}
    for key, value in nested.items():
        name = f"{prefix}{key}"
        new = (
            _ranges(method, value, f"{name}.") if isinstance(value, Mapping) else {name: _searched(method, name, value)}
        )
        for inner in new:
            if inner in found:
                raise InputError(f"tuning.over.{method}.{inner}", expected="one range", got="two")
        found |= new
    return found


def _searched(method: str, name: str, value: Any) -> Searched:
    if isinstance(value, list):
        if len(value) == 2 and all(_is_number(v) for v in value):
            return float(value[0]), float(value[1])
        if value and all(isinstance(v, str) for v in value):
            return tuple(value)
    raise InputError(f"tuning.over.{method}.{name}", expected="[LOW, HIGH], or a list of words", got=repr(value))


def _checked(key: str, value: Any) -> Any:
    if key in _NUMBERS and (not isinstance(value, int) or isinstance(value, bool)):
        raise InputError(f"tuning.{key}", expected="a whole number", got=repr(value))
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
