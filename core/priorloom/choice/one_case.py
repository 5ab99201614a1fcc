"""The runs of a method on one case at values of one parameter: counted, and kept as trials."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..chosen import Chosen, ChosenBy, Trial, TuningCase
from ..errors import DivergenceError, InputError
from ..modality import Case
from ..pipeline import Result
from ..reconstruction import Method, reconstruct
from ..registry import Registry
from .search import LEAST, minimise
from .trials import OnTrial, check_ranges, check_values, remark, remarks

_REPORTER = logging.getLogger(reconstruct.__module__)

Judge = Callable[[float, Result], tuple[float, Mapping[str, float]]]
"""From a value of the parameter and its result to the figure of the trial, and what the figure is made of."""


class OneCase:
    """A method on one case, at values of one parameter.

    Parameters
    ----------
    case, method, parameter, low, high
        What runs, and which parameter takes which values.
    rule, measure, budget
        What the record will say: the rule, what its figures are, and how many runs are allowed.
    registry, seed, on_trial
        As for `by_discrepancy`.

    Attributes
    ----------
    trials, used
        What was tried, in order, and the runs that it took.
    """

    def __init__(
        self,
        case: Case,
        method: Method,
        parameter: str,
        low: float,
        high: float,
        *,
        rule: ChosenBy,
        measure: str,
        budget: int,
        registry: Registry | None,
        seed: int,
        on_trial: OnTrial | None,
    ) -> None:
        self.registry = registry or Registry.discover()
        check_ranges(self.registry, method, {parameter: (low, high)})
        self.case, self.method, self.parameter, self.low, self.high = case, method, parameter, low, high
        self.rule, self.measure, self.budget, self.seed = rule, measure, budget, seed
        self.on_trial = on_trial
        self.trials: list[Trial] = []
        self.used = 0
        self._began = time.perf_counter()

    def at(self, value: float) -> Method:
        """The method with that value of the parameter."""
        settings = {**self.method.settings, self.parameter: value}
        return Method(self.method.pipeline, settings, self.method.label)

    def run(self, value: float, measurement: Tensor | None = None) -> Result:
        """One run, on the case or on another measurement in its place; what it warns of, the chosen run says once."""
        self.used += 1
        case = self.case if measurement is None else self._like(measurement)
        _REPORTER.addFilter(_nothing)
        try:
            return reconstruct(case, self.at(value), registry=self.registry, seed=self.seed)
        finally:
            _REPORTER.removeFilter(_nothing)

    def trial(self, value: float, judge: Judge) -> Trial:
        """Run the case at `value` and keep what `judge` says of it; the figure is None where the method diverges."""
        figure: float | None = None
        facts: dict[str, float] = {}
        try:
            result = self.run(value)
            figure, made_of = judge(value, result)
            said = remark(self.case, result)
            facts = {**made_of, **({"psnr": result.metrics["psnr"]} if result.metrics else {})}
        except DivergenceError:
            said = {self.case.name: "diverged"}
        trial = Trial({self.parameter: value}, {self.case.name: figure}, said, facts)
        self.trials.append(trial)
        if self.on_trial is not None:
            self.on_trial(trial)
        return trial

    def minimise(self, judge: Judge, runs: int = 1, sign: float = 1.0) -> Trial:
        """The trial with the lowest ``sign figure``, by `search.minimise` within the budget, at `runs` for each value.

        A value at which the run diverges, cycles or grows is never chosen.
        """
        check_values(self.budget, LEAST, self.parameter, runs)

        def score(trial: Trial) -> float:
            figure = trial.mean
            return sign * figure if trial.sound and figure is not None and not math.isnan(figure) else math.inf

        minimise(self.low, self.high, self.budget // runs, lambda value: score(self.trial(value, judge)))
        best = min(self.trials, key=score)
        if not math.isfinite(score(best)):
            raise self.unusable()
        return best

    def unusable(self) -> InputError:
        """No value gave a figure."""
        what = f"{self.parameter}={self.low:g} to {self.high:g} of method '{self.method.name}'"
        return InputError(what, expected="a value at which it does not diverge", got=f"none of {len(self.trials)}",
                          cure="search elsewhere")  # fmt: skip

    def end_of_range(self, value: float) -> list[str]:
        """The warning that a value is the end of the range, or none."""
        if value not in (self.low, self.high):
            return []
        return [f"{self.parameter}={value:g} is an end of its range: the best value may lie beyond it"]

    def chosen(self, best: Trial, warnings: Sequence[str]) -> Chosen:
        """The record."""
        return Chosen(
            self.method.pipeline,
            self.method.label,
            {**self.method.settings, **best.settings},
            {self.parameter: (self.low, self.high)},
            self.rule,
            self.measure,
            self.budget,
            self.used,
            tuple(self.trials),
            (TuningCase.of(self.case),),
            self.seed,
            (*remarks(best), *warnings),
            time.perf_counter() - self._began,
        )

    def _like(self, measurement: Tensor) -> Case:
        """The case with another measurement, and what the method makes of the noise level unchanged."""
        noise = self.case.noise_std
        if noise is None:
            modality = self.registry.modality(self.case.modality)
            scale = modality.scale(self.case)
            noise = modality.noise_std(self.case.scaled(scale)) * scale
        return replace(self.case, measurement=measurement, truth=None, noise_std=noise)


def _nothing(_: logging.LogRecord) -> bool:
    return False


def misfit(case: Case, result: Result) -> float:
    """``|A x - y|^2``."""
    with torch.no_grad():
        return float((case.operator(result.image) - case.measurement).abs().double().square().sum())
