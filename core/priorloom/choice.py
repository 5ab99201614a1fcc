"""Choosing a method's parameters within a stated number of runs: by the discrepancy principle, or on tuning cases.

Both rules search on a logarithmic scale, run the method through `comparison.reconstruct`, never exceed their budget,
and do the same again for the same seed. What they return says what was tried.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Literal, get_args

import torch

from .binding import pipeline_parameters
from .chosen import Chosen, Trial, TuningCase
from .comparison import unique
from .errors import DivergenceError, InputError, did_you_mean
from .modality import Case
from .pipeline import Result
from .reconstruction import TROUBLE, Method, reconstruct
from .registry import Registry

Measure = Literal["psnr", "ssim", "nmse"]
MEASURES: tuple[Measure, ...] = get_args(Measure)
LEAST = 3
"""Settings that a range needs: its ends, and one between them."""

OnTrial = Callable[[Trial], None]
Figure = Callable[[Case, Result], float]


def by_discrepancy(
    case: Case,
    method: Method,
    parameter: str,
    low: float,
    high: float,
    *,
    budget: int = 8,
    registry: Registry | None = None,
    seed: int = 0,
    on_trial: OnTrial | None = None,
) -> Chosen:
    """Morozov's discrepancy principle: the parameter at which the image misses the data by as much as the noise does.

    With sigma the noise level, ``|A x - y|^2 = m sigma^2``, where m counts the measured entries of y. An entry counts
    unless it is zero both in y and in A applied to a random image: such an entry (k-space that the mask leaves out) is
    no measurement and adds nothing to the residual. Sigma is the standard deviation of the modulus, so that a complex
    entry counts once, and has two degrees of freedom.

    The figure of a trial is ``|A x - y|^2 / (m sigma^2)``. The noise alone moves it by ``sqrt(2 / degrees of
    freedom)``, so the search stops once it is that close to 1. Between the ends of the range it is regula falsi in the
    logarithms (the Illinois variant), kept to the middle four fifths of the bracket. Where the range does not contain
    the crossing, its nearer end is chosen, with a warning.

    Parameters
    ----------
    case
        The measurement; its truth is not looked at.
    method
        The method, with the settings that stay.
    parameter, low, high
        The dotted name of one number, and the range to search.
    budget
        Runs of the method, at least 3.
    registry, seed
        As for `comparison.reconstruct`.
    on_trial
        Called after every trial.

    Raises
    ------
    InputError
        An unknown parameter, a range or a budget that cannot be used, no noise level, or a run that diverges.

    References
    ----------
    Morozov (1966), On the solution of functional equations by the method of regularization, Soviet Math. Dokl. 7,
    414-417. Dowell and Jarratt (1971), A modified regula falsi method for computing the root of an equation, BIT 11,
    168-174.
    """
    registry = registry or Registry.discover()
    ranges = {parameter: (low, high)}
    check_ranges(registry, method, ranges)
    _check_budget(budget, LEAST, f"{LEAST} values of {parameter}")
    noise, estimated = noise_level(case, registry)
    entries = measured_entries(case)
    target = entries * noise**2
    freedom = entries * (2 if case.measurement.is_complex() else 1)
    tolerance = math.sqrt(2 / freedom)
    trials: list[Trial] = []

    def figure(case: Case, result: Result) -> float:
        return _squared_residual(case, result) / target

    def excess(value: float) -> float:
        """Logarithm of the figure: zero is the aim."""
        trial = _trial(
            [case], method, {parameter: value}, registry, seed, lambda c, r: _squared_residual(c, r) / target
        )
        trials.append(trial)
        if on_trial is not None:
            on_trial(trial)
        if trial.mean is None:
            raise InputError(f"{parameter}={value:g} of method '{method.name}'", expected="a run that does not diverge",
                             got="divergence", cure="narrow the range")  # fmt: skip
        return math.log(max(trial.mean, 1e-300))

    def close(gap: float) -> bool:
        return abs(math.expm1(gap)) <= tolerance

    a, b = low, high
    gap_a = excess(a)
    gap_b = gap_a if close(gap_a) else excess(b)
    crosses = gap_a * gap_b <= 0
    if crosses and not close(gap_b):
        _regula_falsi(a, b, gap_a, gap_b, excess, close, budget)
    best = min(trials, key=lambda t: abs(math.log(max(t.mean or 0.0, 1e-300))))
    reached, value = best.mean or 0.0, best.settings[parameter]
    warnings = _remarks(best)
    if estimated:
        warnings.append(f"the noise level {noise:.4g} is an estimate from the measurement")
    if abs(reached - 1) > tolerance and not crosses:
        ends = ", ".join(f"{t.mean:.3g} at {t.settings[parameter]:g}" for t in trials)
        warnings.append(f"{parameter}={low:g} to {high:g} does not contain the crossing: |Ax - y|^2 / (m sigma^2) is "
                        f"{ends}; the nearer end was taken")  # fmt: skip
    elif abs(reached - 1) > tolerance:
        warnings.append(f"after {len(trials)} runs |Ax - y|^2 is {reached:.4g} m sigma^2, not within "
                        f"{tolerance:.2g} of it; a larger budget comes closer")  # fmt: skip
    if not _monotone(trials, parameter, tolerance):
        warnings.append(f"the residual is not monotone in {parameter}: there may be other crossings")
    return _chosen(method, {parameter: value}, ranges, "discrepancy", "discrepancy", budget, trials, [case],
                   seed, warnings)  # fmt: skip


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
    _check_budget(budget, least, f"{LEAST} settings of each parameter on each case")
    settings = budget // len(cases)
    sign = -1.0 if measure == "nmse" else 1.0
    trials: list[Trial] = []

    def score(trial: Trial) -> float:
        return sign * trial.mean if trial.sound and trial.mean is not None else -math.inf

    for place, (parameter, ends) in enumerate(ranges.items()):
        fixed = dict(max(trials, key=score).settings) if trials else {}
        share = settings // len(ranges) + (place < settings % len(ranges))

        def run_at(value: float, fixed: dict[str, float] = fixed, parameter: str = parameter) -> float:
            trial = _trial(cases, method, {**fixed, parameter: value}, registry, seed, lambda _, r: _figure(r, measure))
            trials.append(trial)
            if on_trial is not None:
                on_trial(trial)
            return score(trial)

        _refined_grid(*ends, share, run_at)
    best = max(trials, key=score)
    if not best.sound:
        raise InputError(f"method '{method.name}' in the ranges", expected="a setting at which it does not diverge",
                         got=f"none of {len(trials)}", cure="search elsewhere, or damp the iteration")  # fmt: skip
    warnings = _remarks(best)
    for parameter, (low, high) in ranges.items():
        value = best.settings.get(parameter)
        if value is None:
            warnings.append(f"{parameter} is left as it was: no value from {low:g} to {high:g} was better")
        elif value in (low, high):
            warnings.append(f"{parameter}={value:g} is an end of its range: the best value may lie beyond it")
    return _chosen(method, best.settings, ranges, "cases", measure, budget, trials, cases, seed, warnings)


def check_ranges(registry: Registry, method: Method, ranges: Mapping[str, tuple[float, float]]) -> None:
    """Raise InputError where a parameter is unknown or not a real number, or a range is not positive or reversed."""
    pipeline = registry.pipeline(method.pipeline)
    known = {p.name: p for p in pipeline_parameters(registry, pipeline, method.settings)}
    real = {name for name, p in known.items() if p.annotation is float or float in get_args(p.annotation)}
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
                         cure="choose on tuning cases instead")  # fmt: skip
    return estimate, True


def measured_entries(case: Case) -> int:
    """How many entries of y were measured: all but those that are zero in y and in A applied to a random image."""
    A = case.operator
    with torch.no_grad():
        probe = A(A.domain.random(torch.Generator().manual_seed(0), (), A.device))
    entries = int(((probe != 0) | (case.measurement != 0)).sum())
    if entries == 0:
        raise InputError(f"measurement of case '{case.name}'", expected="one that is not zero", got="zero everywhere")
    return entries


def _trial(
    cases: Sequence[Case], method: Method, tried: Mapping[str, float], registry: Registry, seed: int, figure: Figure
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
        if result.outcome in TROUBLE:
            remarks[case.name] = result.outcome
        elif result.converged is False:
            remarks[case.name] = "not converged"
    return Trial(dict(tried), figures, remarks)


def _squared_residual(case: Case, result: Result) -> float:
    with torch.no_grad():
        return float((case.operator(result.image) - case.measurement).abs().double().square().sum())


def _figure(result: Result, measure: Measure) -> float:
    assert result.metrics is not None, "cases without a truth are refused before the first run"
    return result.metrics[measure]


def _regula_falsi(
    low: float,
    high: float,
    gap_low: float,
    gap_high: float,
    excess: Callable[[float], float],
    close: Callable[[float], bool],
    budget: int,
) -> None:
    """Shrink the bracket until the gap is close to zero, the budget is spent, or its ends are neighbours."""
    a, b = math.log(low), math.log(high)
    tried = {low, high}
    kept = 0
    for _ in range(budget - 2):
        middle = (a * gap_high - b * gap_low) / (gap_high - gap_low)
        margin = 0.1 * (b - a)
        value = _rounded(math.exp(min(max(middle, a + margin), b - margin)), low, high)
        if value in tried:
            return
        tried.add(value)
        gap = excess(value)
        if close(gap):
            return
        if (gap < 0) == (gap_low < 0):
            a, gap_low = math.log(value), gap
            gap_high = gap_high / 2 if kept > 0 else gap_high  # the end that stays a second time: Illinois
            kept = 1
        else:
            b, gap_high = math.log(value), gap
            gap_low = gap_low / 2 if kept < 0 else gap_low
            kept = -1


def _refined_grid(low: float, high: float, count: int, score: Callable[[float], float]) -> None:
    """Score `count` values: a logarithmic grid, then the middle of the wider gap beside the best, again and again."""
    first = max(LEAST, (count + 1) // 2)
    grid = [_rounded(low * (high / low) ** (k / (first - 1)), low, high) for k in range(first)]
    scores: dict[float, float] = {}
    for value in dict.fromkeys(grid):
        scores[value] = score(value)
    while len(scores) < count:
        best = max(scores, key=lambda v: scores[v])
        below = max((v for v in scores if v < best), default=best)
        above = min((v for v in scores if v > best), default=best)
        other = above if above / best >= best / below else below
        value = _rounded(math.sqrt(best * other), low, high)
        if value in scores:
            return
        scores[value] = score(value)


def _rounded(value: float, low: float, high: float) -> float:
    """To four significant digits, which a person can paste and no method notices; the ends stay as they are."""
    return min(max(float(f"{value:.4g}"), low), high)


def _monotone(trials: Sequence[Trial], parameter: str, slack: float) -> bool:
    figures = [t.mean or 0.0 for t in sorted(trials, key=lambda t: t.settings[parameter])]
    pairs = list(pairwise(figures))
    return all(b >= a * (1 - slack) for a, b in pairs) or all(b <= a * (1 + slack) for a, b in pairs)


def _remarks(best: Trial) -> list[str]:
    return [f"at the chosen setting the method is '{remark}' on {case}" for case, remark in best.remarks.items()]


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


def _check_budget(budget: int, least: int, why: str) -> None:
    if budget < least:
        raise InputError("budget", expected=f"at least {least} runs ({why})", got=budget)


def _chosen(
    method: Method,
    found: Mapping[str, float],
    ranges: Mapping[str, tuple[float, float]],
    rule: Literal["discrepancy", "cases"],
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
