"""Choose a method's parameters within a stated budget: what ``priorloom tune`` runs."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.table import Table

from priorloom.choice import MEASURES, ON_ONE_CASE, RUNS, Measure, on_cases
from priorloom.chosen import RECORDS, Chosen, ChosenBy, Trial
from priorloom.config import Plan, make_cases, make_methods
from priorloom.errors import InputError, OutputError, did_you_mean
from priorloom.files import check_writable, write_atomic
from priorloom.reconstruction import Method
from priorloom.registry import Registry

from .device import on_device
from .present import console

SETTINGS = 8
"""Values of each parameter where no budget is stated."""


def run_tune(
    plan: Plan,
    name: str,
    over: Sequence[str],
    registry: Registry,
    out: Path,
    *,
    rule: str = "cases",
    budget: int | None = None,
    measure: str | None = None,
    device: str = "cpu",
) -> Chosen:
    """Choose the parameters `over` of method `name` on the cases of `plan`; print the trials, write the record.

    Parameters
    ----------
    plan
        Cases and settings, as for a comparison; where it lists methods, `name` is the label or the name of one.
    name, over
        The method, and ``PARAMETER=LOW:HIGH`` texts.
    registry
        Where components come from.
    out
        The record, a name that ends in .json.
    rule, budget, measure
        "cases" (with psnr, ssim or nmse), or a rule on one case (`priorloom.rule.Rule`), and the runs of the method in
        all; eight settings for every parameter when absent.
    device
        "cpu" or "cuda".

    Raises
    ------
    InputError
        A parameter, range, rule or budget that cannot be used, or cases that the rule cannot use.
    """
    if out.suffix.lower() != ".json":
        raise OutputError(f"output {out}", expected="a name that ends in .json", got=out.suffix or "no suffix")
    chosen_rule = _rule(rule, measure)
    ranges = _ranges(over)
    method = method_named(plan, name, registry)
    cases = [on_device(case, device) for case in make_cases(plan, registry)]
    modalities = list(dict.fromkeys(c.modality for c in cases))
    if len(modalities) > 1:
        raise InputError("tuning cases", expected="one modality", got=", ".join(modalities), cure="add --modality NAME")
    (row,) = make_methods(replace(plan, methods=(method,)), registry, modalities)[modalities[0]]
    check_writable(out.parent)
    if row.rule is not None:
        raise InputError(f"'{row.rule.parameter}' of method '{row.name}'", expected="no rule, since --rule names it",
                         got=f"the rule {row.rule.name}", cure="leave it out")  # fmt: skip
    each = RUNS.get(chosen_rule, 1)
    runs = SETTINGS * each * len(cases) * len(ranges) if budget is None else budget
    progress = _Progress(runs, each)
    if chosen_rule in ON_ONE_CASE:
        if len(cases) != 1 or len(ranges) != 1:
            got = f"{len(cases)} cases, {len(ranges)} parameters"
            raise InputError(f"rule {chosen_rule}", expected="one case and one parameter", got=got,
                             cure="choose one, e.g. by --input FILE")  # fmt: skip
        ((parameter, (low, high)),) = ranges.items()
        found = ON_ONE_CASE[chosen_rule](cases[0], row, parameter, low, high, budget=runs, registry=registry,
                                         seed=plan.seed, on_trial=progress)  # fmt: skip
    else:
        found = on_cases(cases, row, ranges, budget=runs, measure=_measure(measure), registry=registry, seed=plan.seed,
                         on_trial=progress)  # fmt: skip
    write_atomic(out, (json.dumps(found.to_json(), indent=1, allow_nan=False) + "\n").encode())
    _print(found, out)
    return found


class _Progress:
    """One line for each trial on standard error."""

    def __init__(self, runs: int, each: int) -> None:
        self.runs, self.each, self.done = runs, each, 0

    def __call__(self, trial: Trial) -> None:
        self.done += self.each * len(trial.figures)
        values = ", ".join(f"{name}={value:g}" for name, value in trial.settings.items())
        print(f"[{self.done}/{self.runs}] {values}: {_number(trial.mean)}", file=sys.stderr, flush=True)


def _rule(rule: str, measure: str | None) -> ChosenBy:
    for known in RECORDS:
        if rule == known:
            if known != "cases" and measure is not None:
                raise InputError("--measure", expected="the rule cases", got=f"the rule {rule}", cure="leave it out")
            return known
    raise InputError(f"unknown rule '{rule}'", cure=did_you_mean(rule, RECORDS))


def _measure(measure: str | None) -> Measure:
    for known in MEASURES:
        if (measure or "psnr") == known:
            return known
    raise InputError(f"unknown measure '{measure}'", cure=did_you_mean(str(measure), MEASURES))


def _ranges(over: Sequence[str]) -> dict[str, tuple[float, float]]:
    ranges: dict[str, tuple[float, float]] = {}
    for text in over:
        name, _, ends = text.partition("=")
        low, colon, high = ends.partition(":")
        try:
            low_high = float(low), float(high)
        except ValueError:
            low_high = (math.nan, math.nan)
        if not name.strip() or not colon or not all(map(math.isfinite, low_high)):
            raise InputError(f"--over {text}", expected="PARAMETER=LOW:HIGH with two numbers", got=ends or "no range")
        if name.strip() in ranges:
            raise InputError(f"--over {text}", expected="one range for each parameter", got="two")
        ranges[name.strip()] = low_high
    if not ranges:
        raise InputError("parameters to choose", expected="--over PARAMETER=LOW:HIGH", got="none")
    return ranges


def method_named(plan: Plan, name: str, registry: Registry) -> Method:
    """The row of the config with that label or that method; else the method with its defaults."""
    listed = plan.methods or ()
    for method in listed:
        if method.name == name:
            return method
    of_it = [m for m in listed if m.pipeline == name]
    if len(of_it) > 1:
        raise InputError(f"method '{name}'", expected="the label of one row", got=", ".join(m.name for m in of_it))
    if of_it:
        return of_it[0]
    registry.factory("pipeline", name)
    return Method(name)


def _print(found: Chosen, out: Path) -> None:
    shell = console()
    shown = Table(box=None, pad_edge=False)
    for name in found.ranges:
        shown.add_column(name, justify="right")
    for case in found.cases:
        shown.add_column(f"{found.measure} {case.name}", justify="right")
    if len(found.cases) > 1:
        shown.add_column("mean", justify="right")
    shown.add_column("remarks")
    for trial in found.trials:
        values = [_number(trial.settings.get(name)) for name in found.ranges]
        figures = [_number(trial.figures[case.name]) for case in found.cases]
        mean = [_number(trial.mean)] if len(found.cases) > 1 else []
        remarks = ", ".join(f"{remark} on {case}" for case, remark in trial.remarks.items())
        shown.add_row(*values, *figures, *mean, remarks)
    shell.print(shown)
    for warning in found.warnings:
        shell.print(f"note: {warning}", highlight=False, markup=False)
    names = ", ".join(case.name for case in found.cases)
    shell.print(f"chosen by {found.rule} on {names} in {found.used} of {found.budget} runs; wrote {out}",
                highlight=False, markup=False)  # fmt: skip
    # Not through the console, which breaks long lines.
    method = found.method.name
    print(" ".join(f"--set {method}.{p}={found.settings[p]!r}" for p in found.ranges if p in found.settings))


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


__all__ = ["run_tune"]
