"""What every rule of choice does: check its ranges, run the method at a setting, count, and record."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from ..binding import pipeline_parameters
from ..chosen import Chosen, ChosenBy, Searched, Trial, TuningCase
from ..errors import DivergenceError, InputError, did_you_mean
from ..modality import Case
from ..pipeline import Result
from ..reconstruction import TROUBLE, Method, reconstruct
from ..registry import Registry

Measure = Literal["psnr", "ssim", "nmse"]
MEASURES: tuple[Measure, ...] = get_args(Measure)
OnTrial = Callable[[Trial], None]
Figure = Callable[[Case, Result], float]


def check_ranges(registry: Registry, method: Method, ranges: Mapping[str, tuple[float, float]]) -> None:
    """Raise InputError where a parameter is unknown or not a real number, or a range is not positive or reversed."""
    pipeline = registry.pipeline(method.pipeline)
    known = {p.name: p for p in pipeline_parameters(registry, pipeline, method.settings)}
    real = {name for name, p in known.items() if p.is_real}
    if not ranges:
        raise InputError("parameters to choose", expected="at least one", got="none")
    for name, (low, high) in ranges.items():
        if name not in known:
            raise InputError(f"unknown parameter '{name}' of method '{method.name}'", cure=did_you_mean(name, real))
        if name not in real:
            raise InputError(f"parameter '{name}' of method '{method.name}'", expected="a real number",
                             got=known[name].type_name)  # fmt: skip
        if not 0 < low < high < math.inf:
            raise InputError(f"range of '{name}'", expected="0 < LOW < HIGH", got=f"{low:g} to {high:g}")


def noise_level(case: Case, registry: Registry) -> tuple[float, bool]:
    """Standard deviation of the noise per entry of y, and whether the modality estimated it.

    Raises
    ------
    InputError
        It is not known, and the estimate is not a positive number.
    """
    if case.noise_std is not None and case.noise_std > 0:
        return case.noise_std, False
    # On the normalised case, as `reconstruct` estimates it.
    modality = registry.modality(case.modality)
    scale = modality.scale(case)
    estimate = modality.noise_std(case.scaled(scale)) * scale if 0 < scale < math.inf else math.nan
    if case.noise_std is not None or not 0 < estimate < math.inf:
        got = case.noise_std if case.noise_std is not None else f"none, and {case.modality} estimates {estimate:g}"
        raise InputError(f"noise level of case '{case.name}'", expected="a positive number", got=got,
                         cure="choose by gcv or lcurve, or on tuning cases")  # fmt: skip
    return estimate, True


def measured_entries(case: Case) -> int:
    """How many entries of y were measured: all but those that are zero in y and in A applied to a random image."""
    return int(measured_mask(case).sum())


def measured_mask(case: Case) -> Tensor:
    """Which entries of y were measured, boolean in the shape of y; raises InputError where none was."""
    A = case.operator
    with torch.no_grad():
        probe = A(A.domain.random(torch.Generator().manual_seed(0), (), A.device))
    mask: Tensor = (probe != 0) | (case.measurement != 0)
    if not bool(mask.any()):
        raise InputError(f"measurement of case '{case.name}'", expected="one that is not zero", got="zero everywhere")
    return mask


def run_trial(
    cases: Sequence[Case], method: Method, tried: Mapping[str, Any], registry: Registry, seed: int, figure: Figure
) -> Trial:
    figures: dict[str, float | None] = {}
    remarks: dict[str, str] = {}
    row = Method(method.pipeline, {**method.settings, **tried}, method.label)
    for case in cases:
        try:
            result = reconstruct(case, row, registry=registry, seed=seed)
        except DivergenceError:
            figures[case.name], remarks[case.name] = None, "diverged"
            continue
        figures[case.name] = figure(case, result)
        remarks |= remark(case, result)
    return Trial(dict(tried), figures, remarks)


def remark(case: Case, result: Result) -> dict[str, str]:
    """What a `Trial` remarks of a run that left an image."""
    if result.outcome in TROUBLE:
        return {case.name: result.outcome}
    return {case.name: "not converged"} if result.converged is False else {}


def figure_of(result: Result, measure: Measure) -> float:
    assert result.metrics is not None, "cases without a truth are refused before the first run"
    return result.metrics[measure]


def remarks(best: Trial) -> list[str]:
    return [f"at the chosen setting the method is '{remark}' on {case}" for case, remark in best.remarks.items()]


def check_budget(budget: int, least: int, why: str) -> None:
    if budget < least:
        raise InputError("budget", expected=f"at least {least} runs ({why})", got=budget)


def check_values(budget: int, values: int, parameter: str, runs: int = 1) -> None:
    """Raise InputError where a budget does not allow that many values of a parameter, at `runs` runs for each."""
    each = f", {runs} runs each" if runs > 1 else ""
    check_budget(budget, values * runs, f"{values} values of {parameter}{each}")


def chosen(
    method: Method,
    found: Mapping[str, Any],
    ranges: Mapping[str, Searched],
    rule: ChosenBy,
    measure: str,
    budget: int,
    trials: Sequence[Trial],
    cases: Sequence[Case],
    seed: int,
    warnings: Sequence[str],
) -> Chosen:
    return Chosen(
        method.pipeline, method.label, {**method.settings, **found}, dict(ranges), rule, measure, budget,
        len(trials) * len(cases), tuple(trials), tuple(TuningCase.of(c) for c in cases), seed, tuple(warnings),
    )  # fmt: skip
