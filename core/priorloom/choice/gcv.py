"""Generalised cross-validation: the parameter that would best predict a measurement that was left out."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ..chosen import Chosen
from ..modality import Case
from ..pipeline import Result
from ..reconstruction import Method
from ..registry import Registry
from .influence import Influence
from .one_case import OneCase, misfit
from .trials import OnTrial


def by_gcv(
    case: Case,
    method: Method,
    parameter: str,
    low: float,
    high: float,
    *,
    budget: int = 24,
    probes: int = 1,
    registry: Registry | None = None,
    seed: int = 0,
    on_trial: OnTrial | None = None,
) -> Chosen:
    """Generalised cross-validation: the minimum of ``V = (|A x - y|^2 / n) / (1 - div h / n)^2``.

    n counts the real coordinates of what was measured (two for a complex entry), and h is the influence map
    ``y -> A x(y)``; see `choice.influence.Influence` for its divergence, which is ``trace A (A^T A + lam)^-1 A^T`` for
    Tikhonov's method, and twice the real part of the trace where y is complex. The factor two cancels: V is the complex
    formula with entries in the place of coordinates.

    No noise level is needed, but the noise must be white: V then estimates, up to the variance of the noise, the risk
    ``E |A x - A x_true|^2 / n`` for a measurement of many entries. Noise that differs from entry to entry (Poisson)
    weighs the loud entries too much; noise that is correlated between entries is taken for signal, and the choice is
    too small by far. The minimum is flat where n is much larger than the divergence. For a nonlinear method the formula
    is a linearisation, which is used with success (Ramani et al. 2012), and not a theorem.

    Parameters
    ----------
    case
        The measurement; its truth is not looked at.
    method, parameter, low, high
        The method with the settings that stay, the dotted name of one number, and the range to search.
    budget
        Runs of the method, at least three times ``1 + probes``: every probe at every value is a run.
    probes
        Random probes of the divergence; as many as coordinates make it exact for a linear method. One is enough for
        images: its error falls as ``1 / sqrt(n)``.
    registry, seed, on_trial
        As for `by_discrepancy`.

    Raises
    ------
    InputError
        An unknown parameter, a range or a budget that cannot be used, or no value at which the method works.

    References
    ----------
    Golub, Heath and Wahba (1979), Generalized cross-validation as a method for choosing a good ridge parameter,
    Technometrics 21, 215-223. Girard (1989), A fast Monte-Carlo cross-validation procedure for large least squares
    problems with noisy data, Numerische Mathematik 56, 1-23. Ramani, Liu, Rosen, Nielsen and Fessler (2012),
    Regularization parameter selection for nonlinear iterative image restoration and MRI reconstruction using GCV and
    SURE-based methods, IEEE Transactions on Image Processing 21, 3659-3672.
    """
    runs = OneCase(case, method, parameter, low, high, rule="gcv", measure="gcv", budget=budget, registry=registry,
                   seed=seed, on_trial=on_trial)  # fmt: skip
    influence = Influence(runs, probes)
    n = influence.freedom

    def judge(value: float, result: Result) -> tuple[float, Mapping[str, float]]:
        missed, divergence = misfit(case, result), influence.divergence(value, result)
        left = 1 - divergence / n
        return missed / n / left**2 if left > 0 else math.inf, {"misfit": missed, "divergence": divergence}

    best = runs.minimise(judge, influence.cost)
    return runs.chosen(best, runs.end_of_range(best.settings[parameter]))
