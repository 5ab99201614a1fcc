"""The L-curve: the parameter at the corner of penalty against misfit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from ..chosen import Chosen
from ..errors import InputError
from ..modality import Case
from ..pipeline import Result
from ..reconstruction import Method, prepare
from ..registry import Registry
from ..steps.base import Step
from .one_case import OneCase, misfit
from .search import LEAST, NEAR, rounded, spread
from .trials import OnTrial, check_budget

Array = NDArray[np.float64]


def by_lcurve(
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
    """The corner of the L-curve ``(log D, log R)`` over the weight, with ``D = 0.5 |A x - y|^2``, the objective
    ``D + lam R`` and x its minimum: the largest curvature, positive where the curve is convex.

    For Tikhonov's method D and R are squared norms: the curve of Hansen and O'Leary, with both axes doubled. At the
    minimum ``dR / dD = -1 / lam`` whatever the convex R is, so that every run gives the curve's slope beside its point,
    and the curvature follows from one function and its first derivative: with ``w = log(D / (lam R))`` and
    ``w' = dw / d log lam``,

    ``kappa = e^w (1 + e^w) / (1 + e^2w)^1.5  w' / (1 + w')``.

    w is interpolated by a monotone cubic through the trials; half of the budget is a grid, and the rest goes where
    kappa is largest, until that is where a trial was. The factor before ``w'`` has its maximum at ``w = 0`` and falls
    as ``e^-|w|``: the corner lies where the penalty is about as large as the data term. The figure of a trial is
    ``e^w``, the negative slope of the curve.

    The rule needs no noise level, and no white noise. It has no theory behind it: as the noise vanishes or the image
    grows it need not converge (Vogel 1996), and where the curve is smooth the corner is vague. x must be the minimum:
    a method that has not converged bends the curve.

    Parameters
    ----------
    case
        The measurement; its truth is not looked at.
    method, parameter, low, high
        The method with the settings that stay, the dotted name of the weight, and the range to search.
    budget
        Runs of the method, at least 4.
    registry, seed, on_trial
        As for `by_discrepancy`.

    Raises
    ------
    InputError
        An unknown parameter or one that is not the weight of an objective's penalty, a range or a budget that cannot be
        used, or no value at which the method works.

    References
    ----------
    Hansen and O'Leary (1993), The use of the L-curve in the regularization of discrete ill-posed problems, SIAM Journal
    on Scientific Computing 14, 1487-1503. Vogel (1996), Non-convergence of the L-curve regularization parameter
    selection method, Inverse Problems 12, 535-547.
    """
    runs = OneCase(case, method, parameter, low, high, rule="lcurve", measure="slope", budget=budget, registry=registry,
                   seed=seed, on_trial=on_trial)  # fmt: skip
    check_budget(budget, LEAST + 1, f"{LEAST + 1} values of {parameter}")
    check_weight(runs)

    def judge(value: float, result: Result) -> tuple[float, Mapping[str, float]]:
        missed = misfit(case, result)
        data = 0.5 * missed / result.scale**2  # normalised, as the penalty is
        penalty = result.penalty
        facts = {"misfit": missed} if penalty is None else {"misfit": missed, "penalty": penalty}
        return (data / penalty if penalty else math.inf), facts

    seen: dict[float, float] = {}

    def look(value: float) -> None:
        trial = runs.trial(value, judge)
        if trial.sound and trial.mean is not None and 0 < trial.mean < math.inf:
            seen[math.log(value)] = math.log(trial.mean)

    for value in spread(low, high, max(LEAST + 1, (budget + 1) // 2)):
        look(value)
    while len(seen) >= LEAST and len(runs.trials) < budget:
        t = _corner(seen)
        if min(abs(t - s) for s in seen) <= NEAR:
            break
        before = len(seen)
        look(rounded(math.exp(t), low, high))
        if len(seen) == before:
            break
    if len(seen) < LEAST:
        raise runs.unusable()
    at = sorted(seen)
    bends = dict(zip(at, _curvature(seen, at), strict=True))
    best = max((t for t in runs.trials if math.log(t.settings[parameter]) in bends),
               key=lambda t: bends[math.log(t.settings[parameter])])  # fmt: skip
    value = best.settings[parameter]
    warnings = runs.end_of_range(value)
    if bends[math.log(value)] <= 0:
        warnings.append(f"the L-curve has no corner for {parameter}={low:g} to {high:g}")
    return runs.chosen(best, warnings)


def check_weight(runs: OneCase) -> None:
    """Raise InputError unless the method minimises ``D + lam R`` and the parameter is lam: twice as large, it makes the
    penalty of an image twice as large."""
    what = f"'{runs.parameter}' of method '{runs.method.name}' for the rule lcurve"
    penalties = []
    for value in (1.0, 2.0):
        prepared = prepare(runs.case, runs.at(value), runs.registry, runs.seed)
        problem = prepared.assembly.problem
        if not problem.has_value or not isinstance(prepared.assembly.steps, Step):
            raise InputError(what, expected="the weight of an objective", got="a method without one",
                             cure="choose by gcv, sure or discrepancy")  # fmt: skip
        x = problem.space.random(torch.Generator().manual_seed(0), (), problem.device).abs().to(problem.space.dtype)
        with torch.no_grad():
            penalties.append(float(sum(term(x).double().sum() for term in (problem.prior, *problem.terms))))
    once, twice = penalties
    if not (0 < once < math.inf and math.isclose(twice, 2 * once, rel_tol=1e-4)):
        raise InputError(what, expected="the weight of the whole penalty", got="another parameter",
                         cure="choose by gcv, sure or discrepancy")  # fmt: skip


def _corner(seen: Mapping[float, float]) -> float:
    """Where the interpolated curvature is largest."""
    at = np.linspace(min(seen), max(seen), 2001)
    return float(at[int(np.argmax(_curvature(seen, at)))])


def _curvature(seen: Mapping[float, float], at: Sequence[float] | Array) -> Array:
    """``kappa`` at logarithms of the weight, from ``{log lam: w}``."""
    from scipy.interpolate import PchipInterpolator  # imported late: it is slow to load

    places = sorted(seen)
    w = PchipInterpolator(places, [seen[t] for t in places])
    slope = np.clip(w(at, 1), -0.999, None)  # -1 is where two runs fit the data equally well
    e = np.exp(np.clip(w(at), -300, 200))
    bend: Array = e * (1 + e) / (1 + e**2) ** 1.5 * slope / (1 + slope)
    return bend
