"""Rule: that a parameter is to be chosen by a rule, instead of a value for it; and how settings say so."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from .errors import InputError, did_you_mean
from .parameters import TIMES, Parameter

RuleName = Literal["discrepancy", "lcurve", "gcv", "sure", "oracle", "tuned"]
RULES: tuple[RuleName, ...] = get_args(RuleName)
_PARTS = {"rule": str, "low": float, "high": float, "budget": int}


@dataclass(frozen=True)
class Rule:
    """How the value of one parameter is to be found.

    Parameters
    ----------
    name
        "discrepancy", "lcurve", "gcv" or "sure" (from the measurement alone), "oracle" (from the truth, for reference),
        or "tuned" (on tuning cases, which a config names).
    parameter
        The dotted name of a number of the method.
    low, high
        The range to search; where absent, that of ``Pipeline.search``.
    budget
        Runs of the method; twelve values of the parameter when absent.
    """

    name: RuleName
    parameter: str
    low: float | None = None
    high: float | None = None
    budget: int | None = None

    def __post_init__(self) -> None:
        if self.name not in RULES:
            raise InputError(f"unknown rule '{self.name}' of '{self.parameter}'",
                             cure=did_you_mean(str(self.name), RULES))  # fmt: skip
        for end, value in (("low", self.low), ("high", self.high)):
            if value is not None and not 0 < value < math.inf:
                raise InputError(f"'{self.parameter}.{end}'", expected="a positive number", got=value)
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise InputError(f"range of '{self.parameter}'", expected="low below high",
                             got=f"{self.low:g} to {self.high:g}")  # fmt: skip
        if self.budget is not None and self.budget < 1:
            raise InputError(f"'{self.parameter}.budget'", expected="a number of runs", got=self.budget)


def rule_settings(parameters: Iterable[Parameter]) -> set[str]:
    """The settings that a rule adds to those of a method: ``PARAMETER.rule``, ``.low``, ``.high`` and ``.budget``."""
    return {f"{p.name}.{part}" for p in parameters if p.is_real for part in _PARTS}


def split_rule(
    settings: Mapping[str, Any], parameters: Iterable[Parameter], owner: str
) -> tuple[dict[str, Any], Rule | None]:
    """The settings that are values, and the Rule that the others state: ``{"prior.lam.rule": "gcv"}`` or
    ``{"prior.lam": {"rule": "gcv"}}``.

    Raises
    ------
    InputError
        An unknown rule, a range or budget without a rule, a value beside a rule, or two rules.
    """
    real = [p.name for p in parameters if p.is_real]
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        nested = isinstance(value, Mapping) and key in real
        flat |= {f"{key}.{part}": v for part, v in value.items()} if nested else {key: value}
    rules: list[Rule] = []
    for name in real:
        inside = {k.removeprefix(f"{name}."): k for k in flat if k.startswith(f"{name}.") and k != f"{name}{TIMES}"}
        if not inside:
            continue
        stated: dict[str, Any] = {}
        for part, key in inside.items():
            if part not in _PARTS:
                raise InputError(f"unknown setting '{key}' of {owner}", cure=did_you_mean(part, _PARTS))
            stated[part] = Parameter(key, _PARTS[part]).validate(flat.pop(key), owner)
        if "rule" not in stated:
            raise InputError(f"'{name}.{next(iter(stated))}' of {owner}", expected=f"a rule, '{name}.rule'", got="none",
                             cure=f"rules: {', '.join(RULES)}")  # fmt: skip
        if name in flat or f"{name}{TIMES}" in flat:
            raise InputError(f"'{name}' of {owner}", expected="a value or a rule", got="both", cure="leave one out")
        rules.append(Rule(stated.pop("rule"), name, **stated))
    if len(rules) > 1:
        names = ", ".join(r.parameter for r in rules)
        raise InputError(f"rules of {owner}", expected="one parameter that is chosen by a rule", got=names,
                         cure="give the others values, or use priorloom tune")  # fmt: skip
    return flat, rules[0] if rules else None
