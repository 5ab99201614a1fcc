"""choose(): the parameter that a method leaves to a rule, on one case."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

from ..chosen import Chosen
from ..errors import InputError
from ..modality import Case
from ..reconstruction import Method
from ..registry import Registry
from ..rule import Rule
from .discrepancy import by_discrepancy
from .gcv import by_gcv
from .lcurve import POINTS, by_lcurve
from .oracle import by_oracle, check_truth
from .ranges import range_of, stated_range
from .search import LEAST
from .sure import by_sure
from .trials import OnTrial, check_values, noise_level

SETTINGS = 12
"""Values of the parameter that a rule tries where no budget is stated."""


class ByRule(Protocol):
    """What every rule on one case is: see `by_discrepancy`."""

    def __call__(
        self,
        case: Case,
        method: Method,
        parameter: str,
        low: float,
        high: float,
        *,
        budget: int = ...,
        registry: Registry | None = None,
        seed: int = 0,
        on_trial: OnTrial | None = None,
    ) -> Chosen: ...


ON_ONE_CASE: Mapping[str, ByRule] = {
    "discrepancy": by_discrepancy,
    "lcurve": by_lcurve,
    "gcv": by_gcv,
    "sure": by_sure,
    "oracle": by_oracle,
}
"""The rules by name."""

RUNS = {"gcv": 2, "sure": 2}
"""Runs for one value of the parameter, where it is not one: the image, and a probe."""


def choose(
    case: Case,
    method: Method,
    *,
    registry: Registry | None = None,
    seed: int = 0,
    on_trial: OnTrial | None = None,
) -> Chosen:
    """What the rule of a method chooses on a case, within its budget; see the rules for their formulas.

    Parameters
    ----------
    case, method
        What is measured, and a method with a rule.
    registry, seed, on_trial
        As for `by_discrepancy`.

    Raises
    ------
    InputError
        A method without a rule, or a rule that needs what is not there: tuning cases, a noise level, an objective, a
        truth, a range.
    """
    registry = registry or Registry.discover()
    rule = method.rule
    if rule is None:
        raise InputError(f"method '{method.name}'", expected="a rule for one of its parameters", got="none")
    check_rule(case, method, registry)
    low, high = range_of(case, method, rule, registry, seed)
    by = ON_ONE_CASE[rule.name]
    plain = replace(method, rule=None)
    return by(case, plain, rule.parameter, low, high, budget=_budget(rule), registry=registry, seed=seed,
              on_trial=on_trial)  # fmt: skip


def _budget(rule: Rule) -> int:
    return SETTINGS * RUNS.get(rule.name, 1) if rule.budget is None else rule.budget


def check_rule(case: Case, method: Method, registry: Registry) -> None:
    """Raise InputError where the rule of a method needs what the case does not have; cheap enough to ask of every row
    before the first one runs."""
    rule = method.rule
    if rule is None:
        return
    if rule.name == "tuned":
        raise InputError(f"rule tuned of '{rule.parameter}' of method '{method.name}'", expected="tuning cases",
                         got="none", cure="name them in the config under 'tuning:'")  # fmt: skip
    if rule.name == "oracle":
        check_truth(case)
    if rule.name in ("discrepancy", "sure"):
        noise_level(case, registry)
    if rule.name == "lcurve" and registry.pipeline(method.pipeline).kind != "classical":
        raise InputError(f"rule lcurve of '{rule.parameter}' of method '{method.name}'",
                         expected="the weight of an objective", got="a method without one",
                         cure="choose by gcv, sure or discrepancy")  # fmt: skip
    runs = RUNS.get(rule.name, 1)
    check_values(_budget(rule), POINTS if rule.name == "lcurve" else LEAST, rule.parameter, runs)
    if rule.low is None or rule.high is None:
        stated_range(method, rule, registry)


def facts(found: Chosen) -> dict[str, Any]:
    """Rule, range, runs, seconds and loss of a choice on one case, as parameters of its result."""
    ((parameter, (low, high)),) = found.ranges.items()
    told = {"rule": found.rule, "low": low, "high": high, "runs": found.used, "seconds": round(found.seconds, 3)}
    if found.loss_db is not None:
        told["loss_db"] = found.loss_db
    return {f"{parameter}.{name}": value for name, value in told.items()}
