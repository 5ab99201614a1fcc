"""The L-curve: the parameter at the corner of penalty against misfit."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from ..chosen import Chosen
from ..errors import InputError
from ..functional import LeastSquares
from ..modality import Case
from ..pipeline import Result
from ..reconstruction import Method, prepare
from ..registry import Registry
from ..steps.base import Step
from .one_case import OneCase, misfit
from .search import LEAST, NEAR, rounded, spread
from .trials import OnTrial, check_values

Array = NDArray[np.float64]

POINTS = LEAST + 1
"""Values of the weight that the rule needs."""

STILL = 1e-3
"""Where log D and log R change by less than this while the weight grows e-fold, the curve stands still, and its angle
is rounding."""

FINE = 0.15
"""Gaps between logarithms of the weight that a cubic bridges to within the curvature of the curve."""


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
    minimum ``dR / dD = -1 / lam`` whatever the convex R is (the envelope theorem), so that every run gives the slope of
    the curve beside its point, ``d log R / d log D = -D / (lam R)``. Its curvature is then a first derivative, of the
    angle ``theta = atan(D / (lam R))`` over the length of the curve, and needs no second differences as the circle
    through three points does:

    ``kappa = -theta' / sqrt((log D)'^2 + (log R)'^2)``, with ``' = d / d log lam``.

    The three are interpolated by cubic splines through the trials; half of the budget is a grid, and the rest goes
    where kappa is largest, and beside it. The figure of a trial is ``D / (lam R)``, the negative slope.

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
    check_values(budget, POINTS, parameter)
    check_weight(runs)

    def judge(value: float, result: Result) -> tuple[float, Mapping[str, float]]:
        missed = misfit(case, result)
        data = 0.5 * missed / result.scale**2  # normalised, as the penalty is
        penalty = result.penalty
        facts = {"misfit": missed} if penalty is None else {"misfit": missed, "penalty": penalty}
        return (data / penalty if penalty else math.inf), facts

    curve = Curve()

    def look(value: float) -> bool:
        """Whether the run gave a point of the curve."""
        trial = runs.trial(value, judge)
        missed, penalty = trial.facts.get("misfit", 0.0), trial.facts.get("penalty", 0.0)
        usable = trial.sound and missed > 0 and 0 < penalty < math.inf and trial.mean is not None
        if usable:
            curve.add(value, missed, penalty / value, trial.mean or 0.0)
        return usable

    for value in spread(low, high, max(POINTS, (budget + 1) // 2)):
        look(value)
    while len(curve) >= LEAST and len(runs.trials) < budget:
        further = curve.next(rounded(curve.corner(), low, high))
        if further is None or not look(further):
            break
    if len(curve) < LEAST:
        raise runs.unusable()
    bends = curve.curvatures()
    best = max((t for t in runs.trials if t.settings[parameter] in bends), key=lambda t: bends[t.settings[parameter]])
    value = best.settings[parameter]
    warnings = runs.end_of_range(value)
    if bends[value] <= 0:
        warnings.append(f"the L-curve has no corner for {parameter}={low:g} to {high:g}")
    return runs.chosen(best, warnings)


def check_weight(runs: OneCase) -> None:
    """Raise InputError unless the method minimises ``0.5 |A x - y|^2 + lam R`` and the parameter is lam: twice as
    large, it makes the penalty of an image twice as large."""
    what = f"'{runs.parameter}' of method '{runs.method.name}' for the rule lcurve"
    penalties = []
    for value in (1.0, 2.0):
        prepared = prepare(runs.case, runs.at(value), runs.registry, runs.seed)
        problem = prepared.assembly.problem
        if not problem.has_value or not isinstance(prepared.assembly.steps, Step):
            raise InputError(what, expected="the weight of an objective", got="a method without one",
                             cure="choose by gcv, sure or discrepancy")  # fmt: skip
        if not isinstance(problem.data.f, LeastSquares):
            raise InputError(what, expected="the data term 0.5 |A x - y|^2", got=type(problem.data.f).__name__,
                             cure="choose by gcv, sure or discrepancy")  # fmt: skip
        x = problem.space.random(torch.Generator().manual_seed(0), (), problem.device).abs().to(problem.space.dtype)
        with torch.no_grad():
            penalties.append(float(sum(term(x).double().sum() for term in (problem.prior, *problem.terms))))
    once, twice = penalties
    if not (0 < once < math.inf and math.isclose(twice, 2 * once, rel_tol=1e-4)):
        raise InputError(what, expected="the weight of the whole penalty", got="another parameter",
                         cure="choose by gcv, sure or discrepancy")  # fmt: skip


class Curve:
    """Points of the L-curve with its slope, and its curvature between them."""

    def __init__(self) -> None:
        self._points: dict[float, tuple[float, float, float]] = {}

    def __len__(self) -> int:
        return len(self._points)

    def add(self, weight: float, misfit: float, penalty: float, slope: float) -> None:
        """A point: misfit and penalty without the weight, both up to constant factors, and the negative slope."""
        self._points[weight] = (math.log(misfit), math.log(penalty), math.atan(slope))

    def corner(self) -> float:
        """The weight at which the interpolated curvature is largest."""
        at = np.linspace(math.log(min(self._points)), math.log(max(self._points)), 4001)
        return math.exp(at[int(np.argmax(self._curvature(at)))])

    def next(self, corner: float) -> float | None:
        """Where to look next: at the corner, or, where a point is there already, into the wider gap beside it; None
        where the corner is known as well as the interpolation allows."""
        here = min(self._points, key=lambda weight: abs(math.log(weight / corner)))
        if abs(math.log(corner / here)) > NEAR:
            return corner
        beside = [min((w for w in self._points if w > here), default=here),
                  max((w for w in self._points if w < here), default=here)]  # fmt: skip
        other = max(beside, key=lambda weight: abs(math.log(weight / here)))
        if abs(math.log(other / here)) <= FINE:
            return None
        return rounded(math.sqrt(here * other))

    def curvatures(self) -> dict[float, float]:
        """The curvature at every point, by its weight."""
        weights = sorted(self._points)
        return dict(zip(weights, map(float, self._curvature(np.log(weights))), strict=True))

    def _curvature(self, at: Array) -> Array:
        from scipy.interpolate import CubicSpline  # imported late: it is slow to load

        weights = sorted(self._points)
        rows = np.array([self._points[weight] for weight in weights])
        along, down, turn = (CubicSpline(np.log(weights), row)(at, 1) for row in rows.T)
        bend: Array = -turn / (np.hypot(along, down) + STILL)
        return bend
