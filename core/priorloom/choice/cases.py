"""Tuning on cases with a truth, within a stated number of runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ..chosen import Chosen, Trial
from ..errors import InputError, did_you_mean, unique
from ..modality import Case
from ..reconstruction import Method
from ..registry import Registry
from .search import LEAST, refined_grid
from .trials import MEASURES, Measure, OnTrial, check_budget, check_ranges, chosen, figure_of, remarks, run_trial


def on_cases(
    cases: Sequence[Case],
    method: Method,
    ranges: Mapping[str, tuple[float, float]],
    *,
    budget: int,
    measure: Measure = "psnr",
    registry: Registry | None = None,
    seed: int = 0,
    on_trial: OnTrial | None = None,
) -> Chosen:
    """The settings with the best mean over tuning cases.

    Each parameter is searched on a logarithmic grid of half its settings, refined in the wider of the two gaps beside
    the best one. Several are searched in the order given, each with the best values of those before it; a parameter
    that is not searched yet is as the method has or chooses it, and stays so where no value was better. A setting
    at which a run diverges, cycles or grows is never chosen.

    Parameters
    ----------
    cases
        Cases with a truth, all of one modality.
    method
        The method, with the settings that stay.
    ranges
        Lowest and highest value of each parameter by its dotted name.
    budget
        Runs of the method in all, settings times cases, shared equally among the parameters; at least 3 settings each.
    measure
        "psnr", "ssim" (largest) or "nmse" (smallest).
    registry, seed
        As for `comparison.reconstruct`.
    on_trial
        Called after every trial.

    Raises
    ------
    InputError
        An unknown parameter, a range or a budget that cannot be used, cases without a truth or of two modalities, or
        no setting in the range at which the method works.
    """
    registry = registry or Registry.discover()
    check_ranges(registry, method, ranges)
    _check_cases(cases)
    if measure not in MEASURES:
        raise InputError(f"measure '{measure}'", cure=did_you_mean(measure, MEASURES))
    least = LEAST * len(cases) * len(ranges)
    check_budget(budget, least, f"{LEAST} settings of each parameter on each case")
    settings = budget // len(cases)
    sign = -1.0 if measure == "nmse" else 1.0
    trials: list[Trial] = []

    def score(trial: Trial) -> float:
        return sign * trial.mean if trial.sound and trial.mean is not None else -math.inf

    for place, (parameter, ends) in enumerate(ranges.items()):
        fixed = dict(max(trials, key=score).settings) if trials else {}
        share = settings // len(ranges) + (place < settings % len(ranges))

        def run_at(value: float, fixed: dict[str, float] = fixed, parameter: str = parameter) -> float:
            trial = run_trial(
                cases, method, {**fixed, parameter: value}, registry, seed, lambda _, r: figure_of(r, measure)
            )
            trials.append(trial)
            if on_trial is not None:
                on_trial(trial)
            return score(trial)

        refined_grid(*ends, share, run_at)
    best = max(trials, key=score)
    if not best.sound:
        raise InputError(f"method '{method.name}' in the ranges", expected="a setting at which it does not diverge",
                         got=f"none of {len(trials)}", cure="search elsewhere, or damp the iteration")  # fmt: skip
    warnings = remarks(best)
    for parameter, (low, high) in ranges.items():
        value = best.settings.get(parameter)
        if value is None:
            warnings.append(f"{parameter} is left as it was: no value from {low:g} to {high:g} was better")
        elif value in (low, high):
            warnings.append(f"{parameter}={value:g} is an end of its range: the best value may lie beyond it")
    return chosen(method, best.settings, ranges, "cases", measure, budget, trials, cases, seed, warnings)


def _check_cases(cases: Sequence[Case]) -> None:
    if not cases:
        raise InputError("tuning cases", expected="at least one", got="none")
    unique("case", [c.name for c in cases])
    modalities = dict.fromkeys(c.modality for c in cases)
    if len(modalities) > 1:
        raise InputError("tuning cases", expected="one modality", got=", ".join(modalities), cure="add --modality NAME")
    for case in cases:
        if case.truth is None:
            raise InputError(f"tuning case '{case.name}'", expected="a truth", got="none",
                             cure="the discrepancy principle needs none")  # fmt: skip
