"""The oracle: the parameter with the best PSNR against the truth, which nobody has where it matters."""

from __future__ import annotations

from collections.abc import Mapping

from ..chosen import Chosen
from ..errors import InputError
from ..modality import Case
from ..pipeline import Result
from ..reconstruction import Method
from ..registry import Registry
from .one_case import OneCase
from .trials import OnTrial


def by_oracle(
    case: Case,
    method: Method,
    parameter: str,
    low: float,
    high: float,
    *,
    budget: int = 12,
    registry: Registry | None = None,
    seed: int = 0,
    on_trial: OnTrial | None = None,
) -> Chosen:
    """The best PSNR against the case's own truth: what the other rules are measured by, and no rule itself.

    Parameters
    ----------
    case
        A case with a truth.
    method, parameter, low, high
        The method with the settings that stay, the dotted name of one number, and the range to search.
    budget
        Runs of the method, at least 3.
    registry, seed, on_trial
        As for `by_discrepancy`.

    Raises
    ------
    InputError
        An unknown parameter, a range or a budget that cannot be used, no truth, or no value at which the method works.
    """
    runs = OneCase(case, method, parameter, low, high, rule="oracle", measure="psnr", budget=budget, registry=registry,
                   seed=seed, on_trial=on_trial)  # fmt: skip
    check_truth(case)

    def judge(value: float, result: Result) -> tuple[float, Mapping[str, float]]:
        assert result.metrics is not None, "a case with a truth has metrics"
        return result.metrics["psnr"], {}

    best = runs.minimise(judge, sign=-1.0)
    return runs.chosen(best, runs.end_of_range(best.settings[parameter]))


def check_truth(case: Case) -> None:
    """Raise InputError for a case without a truth."""
    if case.truth is None:
        raise InputError(f"case '{case.name}' for the rule oracle", expected="a truth", got="none",
                         cure="choose by gcv, lcurve, sure or discrepancy")  # fmt: skip
