"""The fair-baseline protocol: every method of a comparison tuned on the same cases, within the same budget.

Tuning cases and test cases are disjoint, which is checked; every setting that was tried is recorded; and a method is
called tuned only on what it was tuned on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from ..binding import pipeline_parameters
from ..choice import OnTrial, on_cases
from ..choice.cases import least_settings
from ..chosen import Chosen, Searched, TuningCase
from ..errors import InputError, did_you_mean, unique
from ..modality import Case
from ..multiples import split_multiples
from ..parameters import TIMES
from ..pipeline import Range
from ..reconstruction import Method
from ..registry import Registry
from .tuning import Tuning

State = Literal["tuned", "nothing to tune", "learned", "given", "by a rule", "by a record", "left alone"]


@dataclass(frozen=True)
class Prepared:
    """One row of a comparison before its tuning.

    Parameters
    ----------
    modality, method
        The row; a rule "tuned" is taken off it.
    state
        "tuned": what the ranges say will be; "nothing to tune": its pipeline searches nothing; "learned"; "given":
        everything that is searched has a value; "by a rule": a parameter is chosen on every case; "by a record" of
        another tuning; "left alone": other rows ask for tuning, and this one does not.
    ranges
        What is searched.
    """

    modality: str
    method: Method
    state: State
    ranges: Mapping[str, Searched]


@dataclass(frozen=True)
class Protocol:
    """What was tuned, on what, and how.

    Parameters
    ----------
    tuning
        The budget, the measure, and what was asked for.
    cases
        The tuning cases of all modalities.
    rows
        Every row of the comparison, as it was before.
    records
        By modality and row: every setting that was tried, and what was chosen.
    """

    tuning: Tuning
    cases: tuple[TuningCase, ...]
    rows: tuple[Prepared, ...]
    records: Mapping[tuple[str, str], Chosen]

    def methods(self) -> dict[str, list[Method]]:
        """The rows by modality, with what was chosen for them."""
        found: dict[str, list[Method]] = {}
        for row in self.rows:
            record = self.records.get((row.modality, row.method.name))
            found.setdefault(row.modality, []).append(row.method if record is None else record.method)
        return found

    def to_json(self) -> dict[str, Any]:
        """As plain values; the trials are in the records."""
        rows = []
        for row in self.rows:
            record = self.records.get((row.modality, row.method.name))
            told: dict[str, Any] = {"modality": row.modality, "method": row.method.name, "state": row.state}
            if record is not None:
                told |= {
                    "chosen": {name: record.settings[name] for name in record.ranges if name in record.settings},
                    "runs": record.used,
                    "record": record_path(row.modality, row.method.name),
                    "warnings": list(record.warnings),
                }
            rows.append(told)
        return {
            "budget": self.tuning.budget,
            "measure": self.tuning.measure,
            "cases": [dict(vars(case)) for case in self.cases],
            "methods": rows,
        }


def record_path(modality: str, method: str) -> str:
    """Where the record of a row is, in the folder of the comparison."""
    return f"tuning/{modality}-{method}.json"


def prepare_rows(tuning: Tuning, methods: Mapping[str, Sequence[Method]], registry: Registry) -> tuple[Prepared, ...]:
    """What is to be tuned of every row: what ``tuning.over`` says, else ``Pipeline.search`` without what has a value.

    Where rows have the rule "tuned", only these are tuned, and only on its parameter.

    Raises
    ------
    InputError
        Two rows of one name, a row of ``tuning.over`` that is not run, a budget that is too small, a range that cannot
        be searched, or no row with something to tune.
    """
    for found in methods.values():
        unique("method", [m.name for m in found])  # records are by name
    names = {m.name for rows in methods.values() for m in rows}
    for name in tuning.over:
        if name not in names:
            raise InputError(f"tuning.over: method '{name}'", expected="one that is run",
                             got=", ".join(sorted(names)), cure=did_you_mean(name, names))  # fmt: skip
    asked = any(_asks(m) for rows in methods.values() for m in rows)
    rows = tuple(_row(tuning, of, m, registry, asked) for of, found in methods.items() for m in found)
    for row in rows:
        if row.state == "tuned":
            least = least_settings(registry, row.method, row.ranges)
            if tuning.budget < least:
                raise InputError("tuning.budget", expected=f"at least {least} settings for '{row.method.name}'",
                                 got=tuning.budget, cure="raise it: every method has the same")  # fmt: skip
    if not any(row.state == "tuned" for row in rows):
        raise InputError("tuning", expected="a method with something to tune",
                         got=", ".join(f"{r.method.name}: {r.state}" for r in rows))  # fmt: skip
    return rows


def tune(
    tuning: Tuning,
    rows: Sequence[Prepared],
    cases: Sequence[Case],
    *,
    registry: Registry,
    seed: int = 0,
    on_trial: Callable[[Prepared], OnTrial] | None = None,
    on_record: Callable[[Chosen], None] | None = None,
) -> Protocol:
    """Every row with something to tune, at ``tuning.budget`` settings on the tuning cases of its modality (`on_cases`).

    Parameters
    ----------
    tuning, rows
        What is wanted, and what `prepare_rows` made of it.
    cases
        The tuning cases; see `disjoint.check_disjoint`.
    registry, seed
        As for `reconstruction.reconstruct`.
    on_trial, on_record
        Called before each row for what to call after each of its trials, and after each row with its record.

    Raises
    ------
    InputError
        No tuning case of a modality, one without a truth, or a row that works at none of its settings.
    """
    records: dict[tuple[str, str], Chosen] = {}
    to_tune = [row for row in rows if row.state == "tuned"]
    for modality in dict.fromkeys(row.modality for row in to_tune):
        if not any(case.modality == modality for case in cases):
            raise InputError("tuning cases", expected=f"some of {modality}", got=", ".join(c.name for c in cases),
                             cure="name a modality")  # fmt: skip
    for row in to_tune:
        mine = [case for case in cases if case.modality == row.modality]
        record = on_cases(
            mine, row.method, row.ranges, budget=tuning.budget * len(mine), measure=tuning.measure, registry=registry,
            seed=seed, on_trial=None if on_trial is None else on_trial(row),
        )  # fmt: skip
        records[row.modality, row.method.name] = record
        if on_record is not None:
            on_record(record)
    used = {row.modality for row in to_tune}
    return Protocol(tuning, tuple(TuningCase.of(c) for c in cases if c.modality in used), tuple(rows), records)


def searched(method: Method, registry: Registry) -> dict[str, Searched]:
    """What ``Pipeline.search`` says of a method, without the parameters that it does not have or that have a value; a
    relative range is one of multiples."""
    pipeline = registry.pipeline(method.pipeline)
    plain, multiples = split_multiples(method.settings)
    known = {p.name for p in pipeline_parameters(registry, pipeline, plain)}
    found: dict[str, Searched] = {}
    for name, range_ in pipeline.search.items():
        if name not in known or name in plain or name in multiples:
            continue
        if isinstance(range_, Range):
            found[f"{name}{TIMES}" if range_.relative else name] = (range_.low, range_.high)
        else:
            found[name] = range_
    return found


def _row(tuning: Tuning, modality: str, method: Method, registry: Registry, asked: bool) -> Prepared:
    pipeline = registry.pipeline(method.pipeline)
    if _asks(method):
        plain, ranges = _asked(method, registry)
        return Prepared(modality, plain, "tuned", ranges)
    state: State = "tuned"
    over = _over(tuning, method)
    ranges = searched(method, registry) if over is None else over
    if pipeline.kind == "learned":
        state = "learned"
    elif method.tuned is not None:
        state = "by a record"
    elif method.rule is not None:
        state = "by a rule"
    elif asked:
        state = "left alone"
    elif not ranges:
        state = "given" if pipeline.search else "nothing to tune"
    if over is not None and state != "tuned":
        raise InputError(f"tuning.over: method '{method.name}'", expected="a row that is tuned", got=state)
    return Prepared(modality, method, state, ranges if state == "tuned" else {})


def _asks(method: Method) -> bool:
    return method.rule is not None and method.rule.name == "tuned"


def _asked(method: Method, registry: Registry) -> tuple[Method, dict[str, Searched]]:
    """The method without its rule "tuned", and what that asks for."""
    rule = method.rule
    assert rule is not None, "asked for by a rule"
    where = f"rule tuned of '{rule.parameter}' of method '{method.name}'"
    if rule.budget is not None:
        raise InputError(where, expected="no budget of its own", got=rule.budget,
                         cure="set tuning.budget: every method has the same")  # fmt: skip
    plain = replace(method, rule=None)
    if rule.low is not None and rule.high is not None:
        return plain, {rule.parameter: (rule.low, rule.high)}
    if rule.low is not None or rule.high is not None:
        raise InputError(where, expected="both ends of its range, or none", got="one")
    stated = searched(plain, registry)
    mine = {name: ends for name, ends in stated.items() if name.removesuffix(TIMES) == rule.parameter}
    if not mine:
        raise InputError(where, expected="a range", got="none, and the method has no default",
                         cure=f"set {rule.parameter}.low and {rule.parameter}.high")  # fmt: skip
    return plain, mine


def _over(tuning: Tuning, method: Method) -> dict[str, Searched] | None:
    """What ``tuning.over`` says of a row; None where it says nothing."""
    if method.name not in tuning.over:
        return None
    ranges = dict(tuning.over[method.name])
    for name in ranges:
        base = name.removesuffix(TIMES)
        if base in method.settings or f"{base}{TIMES}" in method.settings:
            raise InputError(f"tuning.over: '{name}' of method '{method.name}'", expected="a range or a value",
                             got="both", cure="leave one out")  # fmt: skip
    return ranges


def warnings_of(protocol: Protocol) -> Iterable[str]:
    """What a reader must know of the tuning, one line each."""
    for (modality, method), record in protocol.records.items():
        for warning in record.warnings:
            yield f"tuning of {method} on {modality}: {warning}"
    for row in protocol.rows:
        if row.state in ("nothing to tune", "given", "left alone"):
            yield f"{row.method.name} on {row.modality} was not tuned: {row.state}"
