"""Stein's unbiased risk estimate: the parameter that predicts the noiseless measurement best."""

from __future__ import annotations

from collections.abc import Mapping

from ..chosen import Chosen
from ..modality import Case
from ..pipeline import Result
from ..reconstruction import Method
from ..registry import Registry
from .influence import Influence
from .one_case import OneCase, misfit
from .trials import OnTrial, noise_level


def by_sure(
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
    """Stein's unbiased estimate of the predictive risk ``E |A x - A x_true|^2``, made small.

    ``SURE = |A x - y|^2 - n tau^2 + 2 tau^2 div h`` for white Gaussian noise of variance ``tau^2`` in each of the n
    real coordinates of what was measured, with h the influence map ``y -> A x(y)`` (`choice.influence`). A complex
    entry with ``E |e|^2 = sigma^2`` has two coordinates of ``tau^2 = sigma^2 / 2`` each, so that for m complex entries
    ``SURE = |A x - y|^2 - m sigma^2 + sigma^2 div h``. The figure of a trial is ``SURE / (n tau^2)``.

    It needs the noise level: the case's, or the modality's estimate, which a warning says. A level that is too low
    gives too small a weight. Where the noise differs from entry to entry (Poisson) the level is its root mean square:
    the second term is right and the third counts every entry's influence alike, which is wrong as far as influence and
    noise go together. It estimates the risk of the *data*: components of the image that A hardly sees are not judged,
    and where A has a large null space the best image may need a larger weight.

    Parameters
    ----------
    case
        The measurement; its truth is not looked at.
    method, parameter, low, high
        The method with the settings that stay, the dotted name of one number, and the range to search.
    budget, probes
        As for `by_gcv`.
    registry, seed, on_trial
        As for `by_discrepancy`.

    Raises
    ------
    InputError
        An unknown parameter, a range or a budget that cannot be used, no noise level, or no value at which the method
        works.

    References
    ----------
    Stein (1981), Estimation of the mean of a multivariate normal distribution, Annals of Statistics 9, 1135-1151.
    Ramani, Blu and Unser (2008), Monte-Carlo SURE: a black-box optimization of regularization parameters for general
    denoising algorithms, IEEE Transactions on Image Processing 17, 1540-1554.
    """
    runs = OneCase(case, method, parameter, low, high, rule="sure", measure="sure", budget=budget, registry=registry,
                   seed=seed, on_trial=on_trial)  # fmt: skip
    noise, estimated = noise_level(case, runs.registry)
    influence = Influence(runs, probes)
    power = influence.entries * noise**2

    def judge(value: float, result: Result) -> tuple[float, Mapping[str, float]]:
        missed, divergence = misfit(case, result), influence.divergence(value, result)
        risk = missed - power + 2 * power * divergence / influence.freedom
        return risk / power, {"misfit": missed, "divergence": divergence}

    best = runs.minimise(judge, influence.cost)
    warnings = runs.end_of_range(best.settings[parameter])
    if estimated:
        warnings.append(f"the noise level {noise:.4g} is an estimate from the measurement")
    return runs.chosen(best, warnings)
