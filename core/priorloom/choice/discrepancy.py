"""The discrepancy principle: the image misses the data by as much as the noise does."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

from ..chosen import Chosen, Trial
from ..errors import InputError
from ..modality import Case
from ..pipeline import Result
from ..reconstruction import Method
from ..registry import Registry
from .one_case import OneCase, misfit
from .search import LEAST, regula_falsi
from .trials import OnTrial, check_values, measured_entries, noise_level

CLOSE = 5e-4
"""The search stops this close to the aim. The noise moves it further; but then the choice is the rule's, not the
search's."""


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
    entry counts once, and has two degrees of freedom. Where the noise is not white (Poisson) sigma is its root mean
    square, and the aim is right on average over the entries.

    The figure of a trial is ``|A x - y|^2 / (m sigma^2)``, and the search stops within `CLOSE` of 1. The noise alone
    moves it by ``sqrt(2 / degrees of freedom)``; a miss beyond both is a warning. Between the ends of the range the
    search is regula falsi in the logarithms (the Illinois variant), kept to the middle four fifths of the bracket.
    Where the range does not contain the crossing, its nearer end is chosen, with a warning.

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
        As for `reconstruction.reconstruct`.
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
    runs = OneCase(case, method, parameter, low, high, rule="discrepancy", measure="discrepancy", budget=budget,
                   registry=registry, seed=seed, on_trial=on_trial)  # fmt: skip
    check_values(budget, LEAST, parameter)
    noise, estimated = noise_level(case, runs.registry)
    entries = measured_entries(case)
    freedom = entries * (2 if case.measurement.is_complex() else 1)
    tolerance = max(math.sqrt(2 / freedom), math.expm1(CLOSE))

    def judge(value: float, result: Result) -> tuple[float, Mapping[str, float]]:
        missed = misfit(case, result)
        return missed / (entries * noise**2), {"misfit": missed}

    def excess(value: float) -> float:
        """Logarithm of the figure: zero is the aim."""
        figure = runs.trial(value, judge).mean
        if figure is None:
            raise InputError(f"{parameter}={value:g} of method '{method.name}'", expected="a run that does not diverge",
                             got="divergence", cure="narrow the range")  # fmt: skip
        return math.log(max(figure, 1e-300))

    def close(gap: float) -> bool:
        return abs(gap) <= CLOSE

    gap_low = excess(low)
    gap_high = gap_low if close(gap_low) else excess(high)
    crosses = gap_low * gap_high <= 0
    if crosses and not close(gap_high):
        regula_falsi(low, high, gap_low, gap_high, excess, close, budget)
    trials = runs.trials
    best = min(trials, key=lambda t: abs(math.log(max(t.mean or 0.0, 1e-300))))
    reached = best.mean or 0.0
    warnings = []
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
    return runs.chosen(best, warnings)


def _monotone(trials: Sequence[Trial], parameter: str, slack: float) -> bool:
    figures = [t.mean or 0.0 for t in sorted(trials, key=lambda t: t.settings[parameter])]
    pairs = list(pairwise(figures))
    return all(b >= a * (1 - slack) for a, b in pairs) or all(b <= a * (1 + slack) for a, b in pairs)
