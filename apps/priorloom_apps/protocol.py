"""The fair-baseline protocol of ``priorloom compare``: tune first, record every trial, say in words what was done."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from priorloom.choice import OnTrial
from priorloom.chosen import Chosen, Trial, TuningCase
from priorloom.config import Plan, make_cases, tuning_plan
from priorloom.errors import InputError
from priorloom.files import write_atomic
from priorloom.modality import Case
from priorloom.parameters import TIMES
from priorloom.protocol.disjoint import check_disjoint, check_learned
from priorloom.protocol.run import Prepared, Protocol, prepare_rows, record_path, tune, warnings_of
from priorloom.protocol.statistics import Paired, Summary
from priorloom.reconstruction import Method
from priorloom.registry import Registry

from .device import on_device


def run_protocol(
    plan: Plan, methods: Mapping[str, Sequence[Method]], cases: Sequence[Case], registry: Registry, out: Path,
    device: str = "cpu",
) -> Protocol | None:  # fmt: skip
    """Tune the rows of a plan on its tuning cases; ``OUT/tuning/MODALITY-METHOD.json`` has every trial of a row, and is
    written as soon as the row is done.

    None, and nothing done, without a section ``tuning``.

    Raises
    ------
    InputError
        Tuning and test cases that overlap, a model that has learned from a test case, or what `prepare_rows` and `tune`
        refuse; all but a row that works at none of its settings before the first run.
    """
    check_reference(plan, methods)
    if plan.tuning is None:
        return None
    rows = prepare_rows(plan.tuning, methods, registry)
    modalities = {row.modality for row in rows}
    tuning_cases = [
        on_device(case, device) for case in make_cases(tuning_plan(plan), registry) if case.modality in modalities
    ]
    check_disjoint(tuning_cases, cases, registry)
    check_learned(methods, cases, registry)
    total = plan.tuning.budget * sum(row.state == "tuned" for row in rows)
    lines = _Lines(total)

    def keep(record: Chosen) -> None:
        content = json.dumps(record.to_json(), indent=1, allow_nan=False) + "\n"
        write_atomic(out / record_path(record.modality, record.method.name), content.encode())

    return tune(
        plan.tuning, rows, tuning_cases, registry=registry, seed=plan.seed, on_trial=lines.of, on_record=keep
    )  # fmt: skip


def check_reference(plan: Plan, methods: Mapping[str, Sequence[Method]]) -> None:
    """Raise InputError where the reference of a plan is no row that is run."""
    names = list(dict.fromkeys(m.name for rows in methods.values() for m in rows))
    if plan.reference is not None and plan.reference not in names:
        raise InputError(f"reference '{plan.reference}'", expected="a method that is run", got=", ".join(names))


class _Lines:
    """One line for each trial on standard error."""

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0

    def of(self, row: Prepared) -> OnTrial:
        def line(trial: Trial) -> None:
            self.done += 1
            mean = "–" if trial.mean is None else f"{trial.mean:.4g}"
            told = f"tuning {row.method.name} on {row.modality}: {_settings(trial.settings)}: {mean}"
            print(f"[{self.done}/{self.total}] {told}", file=sys.stderr, flush=True)

        return line


def in_words(protocol: Protocol | None, summary: Sequence[Summary], reference: str | None = None) -> str:
    """The protocol in words: what was tuned on what, within which budget, how the intervals were found, and whether
    what differences are taken to is the `reference` that was named or was picked by its figures."""
    said = [] if protocol is None else _tuning_in_words(protocol)
    if summary:
        said.append(
            "Intervals are 95 % percentile bootstrap intervals of the mean (Efron 1979), widened for few cases "
            "(Hesterberg 2015); where more than one subject is known, subjects are drawn, not their images."
        )
        for modality in dict.fromkeys(s.modality for s in summary):
            mine = [s for s in summary if s.modality == modality]
            compared = next((s.difference.reference for s in mine if s.difference is not None), None)
            against = "" if compared is None else f"; differences in PSNR are paired, against {compared}"
            if compared not in (None, reference):
                against += ", the baseline that is best on these very cases, which favours it"
            said.append(f"{modality}: {_cases(mine[0])}{against}.")
    return " ".join(said)


def _tuning_in_words(protocol: Protocol) -> list[str]:
    tuning = protocol.tuning
    modalities = dict.fromkeys(case.modality for case in protocol.cases)
    cases = " and ".join(_tuning_cases([c for c in protocol.cases if c.modality == m], m) for m in modalities)
    said = [
        f"Every method that is named next was tried at up to {tuning.budget} settings on the same {cases}, for the "
        f"best mean {tuning.measure.upper()}; none of the cases has the measurement, the subject or the image of a "
        "test case, as far as these are known."
    ]
    for row in protocol.rows:
        record = protocol.records.get((row.modality, row.method.name))
        if record is not None:
            said.append(f"{row.method.name} ({row.modality}): {_settings(_found(record))}, in {record.used} runs.")
    for state in dict.fromkeys(row.state for row in protocol.rows if row.state != "tuned"):
        methods = ", ".join(dict.fromkeys(r.method.name for r in protocol.rows if r.state == state))
        said.append(f"{_STATES.get(state, f'Not tuned ({state})')}: {methods}.")
    return said


def _tuning_cases(cases: Sequence[TuningCase], modality: str) -> str:
    subjects = {case.subject for case in cases if case.subject is not None}
    known = f" of {len(subjects)} known subject{'s' * (len(subjects) != 1)}" if subjects else ""
    names = ", ".join(case.name for case in cases)
    return f"{len(cases)} tuning case{'s' * (len(cases) != 1)} of {modality}{known} ({names})"


_STATES = {
    "learned": "Learned, not tuned",
    "by a rule": "With a parameter that a rule chose on each case",
    "by a record": "Tuned before, on cases of a record",
}


def _settings(settings: Mapping[str, Any]) -> str:
    return ", ".join(_setting(name, value) for name, value in settings.items()) or "as it is"


def _setting(name: str, value: Any) -> str:
    shown = f"{value:.4g}" if isinstance(value, float | int) else str(value)
    return (
        f"{name.removesuffix(TIMES)} {shown} times its automatic value" if name.endswith(TIMES) else f"{name} {shown}"
    )


def _cases(summary: Summary) -> str:
    subjects = "not all of known subjects" if summary.subjects is None else (
        f"{summary.subjects} subject{'s' * (summary.subjects != 1)}"
    )  # fmt: skip
    return f"{summary.cases} test cases, {subjects}"


def tuning_notes(protocol: Protocol | None) -> list[str]:
    """What was chosen, and what a reader must know of the tuning before believing the table."""
    if protocol is None:
        return []
    chosen = [
        f"{method} on {modality} was tuned: {_settings(_found(record))}, the best of {len(record.trials)} settings on "
        f"{len(record.cases)} tuning case{'s' * (len(record.cases) != 1)}"
        for (modality, method), record in protocol.records.items()
    ]
    return chosen + list(warnings_of(protocol))


def _found(record: Chosen) -> dict[str, Any]:
    return {name: record.settings[name] for name in record.ranges if name in record.settings}


def summary_table(summary: Sequence[Summary]) -> Table:
    """Means with their intervals, worst cases and paired differences."""
    shown = Table(box=None, pad_edge=False, title="mean over the cases, 95 % interval", title_justify="left")
    for name in ("modality", "method"):
        shown.add_column(name)
    for name in ("cases", "subjects", "PSNR dB", "interval", "worst", "SSIM", "NMSE", "difference dB", "interval",
                 "better on"):  # fmt: skip
        shown.add_column(name, justify="right")
    for s in summary:
        shown.add_row(
            s.modality, s.method, str(s.cases), "–" if s.subjects is None else str(s.subjects),
            f"{s.mean['psnr']:.2f}", _interval(s.low["psnr"], s.high["psnr"]), f"{s.worst['psnr']:.2f}",
            f"{s.mean['ssim']:.4f}", f"{s.mean['nmse']:.5f}", *_difference(s.difference),
        )  # fmt: skip
    return shown


def _interval(low: float, high: float) -> str:
    return f"{low:.2f} to {high:.2f}"


def _difference(paired: Paired | None) -> tuple[str, str, str]:
    if paired is None:
        return "reference", "", ""
    return f"{paired.mean:+.2f}", f"{paired.low:+.2f} to {paired.high:+.2f}", f"{paired.wins} of {paired.cases}"


__all__ = ["check_reference", "in_words", "run_protocol", "summary_table", "tuning_notes"]
