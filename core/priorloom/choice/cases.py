"""Tuning on cases with a truth, within a stated number of runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..binding import pipeline_parameters
from ..chosen import Chosen, Searched, Trial
from ..errors import InputError, did_you_mean, unique
from ..modality import Case
from ..multiples import check_settings, split_multiples
from ..parameters import AUTOMATIC, REQUIRED, TIMES, Parameter
from ..reconstruction import Method
from ..registry import Registry
from .search import LEAST, rounded
from .trials import MEASURES, Measure, OnTrial, check_budget, check_ranges, chosen, figure_of, remarks, run_trial


def on_cases(
    cases: Sequence[Case],
    method: Method,
    ranges: Mapping[str, Searched],
    *,
    budget: int,
    measure: Measure = "psnr",
    registry: Registry | None = None,
    seed: int = 0,
    on_trial: OnTrial | None = None,
) -> Chosen:
    """The settings with the best mean over tuning cases.

    A number is searched on a logarithmic grid of half its settings, refined in the wider of the two gaps beside the
    best one; of words every one is tried. Several parameters are searched in the order given, each with the best values
    of those before it; one that is not searched yet is as the method has or chooses it, and stays so where nothing was
    better. The value that the method has by itself is among those tried, where it is known and in the range. A setting
    at which a run diverges, cycles or grows, or that the method refuses, is never chosen.

    Parameters
    ----------
    cases
        Cases with a truth, all of one modality.
    method
        The method, with the settings that stay.
    ranges
        By its dotted name the lowest and highest value of each number, or the words to choose from. Of
        ``PARAMETER.times`` the multiples of what the method chooses for each case by itself: the value for other cases
        is then the same multiple of their own.
    budget
        Runs of the method in all, settings times cases: one for each word, the rest shared equally among the numbers;
        at least 3 settings each.
    measure
        "psnr", "ssim" (largest) or "nmse" (smallest).
    registry, seed
        As for `reconstruction.reconstruct`.
    on_trial
        Called after every trial.

    Raises
    ------
    InputError
        An unknown parameter, a range or a budget that cannot be used, cases without a truth or of two modalities, or
        no setting in the range at which the method works.
    """
    registry = registry or Registry.discover()
    own = _own_values(registry, method, ranges)
    _check_cases(cases)
    if measure not in MEASURES:
        raise InputError(f"measure '{measure}'", cure=did_you_mean(measure, MEASURES))
    least = least_settings(registry, method, ranges) * len(cases)
    check_budget(budget, least, f"{LEAST} settings of each number on each case, and every word")
    shares = _shares(ranges, own, budget // len(cases))
    sign = -1.0 if measure == "nmse" else 1.0
    trials: list[Trial] = []
    refused: list[InputError] = []

    def score(trial: Trial) -> float:
        return sign * trial.mean if trial.sound and trial.mean is not None else -math.inf

    def run(tried: Mapping[str, Any]) -> float:
        try:
            trial = run_trial(cases, method, tried, registry, seed, lambda _, r: figure_of(r, measure))
        except InputError as error:
            refused.append(error)
            trial = Trial(dict(tried), {c.name: None for c in cases}, {c.name: "refused" for c in cases})
        trials.append(trial)
        if on_trial is not None:
            on_trial(trial)
        return score(trial)

    for parameter, searched in ranges.items():
        so_far = max(trials, key=score, default=None)
        fixed = dict(so_far.settings) if so_far else {}
        # What the method has by itself was run with the best of the parameters before.
        known = {own[parameter]: score(so_far)} if so_far and parameter in own else {}

        def run_at(value: Any, fixed: dict[str, Any] = fixed, parameter: str = parameter) -> float:
            return run({**fixed, parameter: value})

        ends = ends_of(searched)
        if ends is None:
            for word in searched:
                if word not in known:
                    run_at(word)
        else:
            _search_number(ends, shares[parameter], run_at, own.get(parameter), known)
    best = max(trials, key=score)
    if not best.sound:
        if len(refused) == len(trials):
            raise refused[0]
        raise InputError(f"method '{method.name}' in the ranges", expected="a setting at which it does not diverge",
                         got=f"none of {len(trials)}", cure="search elsewhere, or damp the iteration")  # fmt: skip
    warnings = remarks(best) + _ends(best, ranges, own)
    return chosen(method, best.settings, ranges, "cases", measure, budget, trials, cases, seed, warnings)


def least_settings(registry: Registry, method: Method, ranges: Mapping[str, Searched]) -> int:
    """The fewest settings with which `on_cases` can search these; raises InputError where it cannot search them."""
    return sum(_fewest(ranges, _own_values(registry, method, ranges)).values())


def ends_of(searched: Searched) -> tuple[float, float] | None:
    """The ends of a range; None of words."""
    if all(isinstance(value, str) for value in searched):
        return None
    low, high = searched
    return float(low), float(high)


def _fewest(ranges: Mapping[str, Searched], own: Mapping[str, Any]) -> dict[str, int]:
    """How many runs each parameter needs: of words one each, but not again the one that the method has by itself."""
    return {
        name: len(set(searched) - ({own.get(name)} if place else set())) if ends_of(searched) is None else LEAST
        for place, (name, searched) in enumerate(ranges.items())
    }


def _shares(ranges: Mapping[str, Searched], own: Mapping[str, Any], settings: int) -> dict[str, int]:
    fewest = _fewest(ranges, own)
    numbers = [name for name, searched in ranges.items() if ends_of(searched) is not None]
    rest = settings - sum(fewest[name] for name in ranges if name not in numbers)
    return fewest | {name: rest // len(numbers) + (k < rest % len(numbers)) for k, name in enumerate(numbers)}


def _search_number(
    ends: tuple[float, float],
    count: int,
    score: Callable[[float], float],
    own: Any,
    known: Mapping[Any, float],
) -> None:
    """Score `count` values: a logarithmic grid with the method's own value, then the middle of the wider gap beside
    the best, again and again."""
    low, high = ends
    inside = isinstance(own, float | int) and low <= own <= high
    scores = {float(value): figure for value, figure in known.items()} if inside else {}
    new = count + len(scores)
    first = max(LEAST, (count + 1) // 2) - (inside and not scores)
    grid = [rounded(low * (high / low) ** (k / (first - 1)), low, high) for k in range(first)]
    for value in dict.fromkeys([*grid, *([float(own)] if inside else [])]):
        if value not in scores and len(scores) < new:
            scores[value] = score(value)
    while len(scores) < new:
        best = max(scores, key=lambda v: scores[v])
        below = max((v for v in scores if v < best), default=best)
        above = min((v for v in scores if v > best), default=best)
        other = above if above / best >= best / below else below
        value = rounded(math.sqrt(best * other), low, high)
        if value in scores:
            return
        scores[value] = score(value)


def _own_values(registry: Registry, method: Method, ranges: Mapping[str, Searched]) -> dict[str, Any]:
    """What the searched parameters are where nothing is chosen, as far as that is known before a case is.

    Raises
    ------
    InputError
        A parameter that is unknown, not searchable or already set, or a range or words that cannot be.
    """
    pipeline = registry.pipeline(method.pipeline)
    check_settings(registry, pipeline, method.settings)
    plain, multiples = split_multiples(method.settings)
    known = {p.name: p for p in pipeline_parameters(registry, pipeline, plain)}
    ends = {name.removesuffix(TIMES): ends_of(searched) for name, searched in ranges.items()}
    numbers = {name: low_high for name, low_high in ends.items() if low_high is not None}
    if numbers or not ranges:
        check_ranges(registry, method, numbers)
    own: dict[str, Any] = {}
    for name, searched in ranges.items():
        base = name.removesuffix(TIMES)
        if base != name:
            if base in plain or base in ranges:
                raise InputError(f"'{name}' of method '{method.name}'", expected=f"'{base}' not set or searched",
                                 got="both", cure="leave one out")  # fmt: skip
            own[name] = multiples.get(base, 1.0)
            continue
        if ends_of(searched) is None:
            _check_words(known, name, [str(word) for word in searched], method)
        given = plain.get(name, known[name].default)
        if given is not REQUIRED and given is not AUTOMATIC and given is not None:
            own[name] = given
    return own


def _check_words(known: Mapping[str, Parameter], name: str, words: Sequence[str], method: Method) -> None:
    if name not in known:
        raise InputError(f"unknown parameter '{name}' of method '{method.name}'", cure=did_you_mean(name, known))
    for word in words:
        known[name].validate(word, f"method '{method.name}'")
    if len(words) < 2 or len(set(words)) < len(words):
        raise InputError(f"words of '{name}'", expected="different ones, at least two", got=", ".join(words) or "none",
                         cure="a single one is a value: set it")  # fmt: skip


def _ends(best: Trial, ranges: Mapping[str, Searched], own: Mapping[str, Any]) -> list[str]:
    """A warning for each number that may be better outside of its range."""
    found = []
    for parameter, searched in ranges.items():
        ends = ends_of(searched)
        if ends is None:
            continue
        low, high = ends
        value, mine = best.settings.get(parameter), own.get(parameter)
        inside = isinstance(mine, float | int) and low <= mine <= high
        if value is None and not inside:
            found.append(f"{parameter} is left as it was: no value from {low:g} to {high:g} was better")
        # Where the method's own value is the end, the range ends there because the parameter does.
        elif value in (low, high) and value != mine:
            found.append(f"{parameter}={value:g} is an end of its range: the best value may lie beyond it")
    return found


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
