"""Chosen: which settings a rule chose, on which cases and at what cost; as a file, and applied to a comparison."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import pydantic
from torch import Tensor

from .errors import InputError
from .files import json_value
from .modality import Case
from .multiples import check_settings
from .pipeline import Choice
from .reconstruction import TROUBLE, Method
from .registry import Registry

_LOG = logging.getLogger(__name__)

ChosenBy = Literal["cases", "discrepancy", "lcurve", "gcv", "sure", "oracle"]
"""On tuning cases, or on one case by a rule (`priorloom.rule`)."""
RECORDS: tuple[ChosenBy, ...] = get_args(ChosenBy)
Searched = tuple[float, float] | tuple[str, ...]
"""What is tried of one parameter: the ends of a range, or words."""
SCHEMA = 1
"""Version of the file."""


@dataclass(frozen=True)
class Trial:
    """One setting, run on every case.

    Parameters
    ----------
    settings
        The values of the parameters that were searched, by dotted names: numbers or words.
    figures
        The measure for each case; None where the iteration left no image.
    remarks
        By case: "diverged", "cycling", "growing", "refused" or "not converged"; absent where there is nothing to say.
    facts
        What the figure is made of, for rules that look at one case; in the file those that are finite.
    """

    settings: Mapping[str, Any]
    figures: Mapping[str, float | None]
    remarks: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, float] = field(default_factory=dict)

    @property
    def mean(self) -> float | None:
        """Mean of the figures; None where one is absent."""
        found = [f for f in self.figures.values() if f is not None]
        return math.fsum(found) / len(found) if len(found) == len(self.figures) else None

    @property
    def sound(self) -> bool:
        """Every run left an image and none was stopped by the monitor."""
        return self.mean is not None and not any(r in TROUBLE for r in self.remarks.values())


@dataclass(frozen=True)
class TuningCase:
    """A case that settings were chosen on, so that it can be recognised.

    Parameters
    ----------
    name, modality
        Those of the case.
    measurement, truth
        SHA-256 of the values with their type and shape, hexadecimal; the truth's is None where there is none.
    subject
        Whom the case shows; None where that is not known.
    """

    name: str
    modality: str
    measurement: str
    truth: str | None
    subject: str | None = None

    @classmethod
    def of(cls, case: Case) -> TuningCase:
        """What identifies `case`."""
        truth = None if case.truth is None else digest(case.truth)
        return cls(case.name, case.modality, digest(case.measurement), truth, case.subject)


@dataclass(frozen=True)
class Chosen:
    """Settings that a rule chose, and the evidence.

    Parameters
    ----------
    pipeline, label
        The method; see `Method`.
    settings
        All its settings: those it had before, and the chosen ones.
    ranges
        Which parameters were searched, each from its lowest to its highest value, or which words were tried.
    rule, measure
        "cases", or the name of a `priorloom.rule.Rule`; what the figures of the trials are.
    budget, used
        How many runs of the method were allowed, and done.
    trials
        Every setting that was tried, in order.
    cases
        What it was tried on; all of one modality.
    seed
        The seed of every run.
    warnings
        Why the choice may be worse than the rule promises, one sentence each.
    seconds
        What the search took; not in the file, which is the same for the same seed.
    """

    pipeline: str
    label: str | None
    settings: Mapping[str, Any]
    ranges: Mapping[str, Searched]
    rule: ChosenBy
    measure: str
    budget: int
    used: int
    trials: tuple[Trial, ...]
    cases: tuple[TuningCase, ...]
    seed: int = 0
    warnings: tuple[str, ...] = ()
    seconds: float = field(default=0.0, compare=False)

    @property
    def method(self) -> Method:
        """The method with the chosen settings, marked by how they were chosen."""
        return Method(self.pipeline, dict(self.settings), self.label, self.tuned)

    @property
    def tuned(self) -> Choice:
        """Only what was chosen on tuning cases is called tuned."""
        marks: dict[str, Choice] = {"cases": "tuned", "oracle": "oracle"}
        return marks.get(self.rule, "rule")

    @property
    def loss_db(self) -> float | None:
        """How far the PSNR at the chosen setting is below the best of the trials; None where a PSNR was not seen."""
        seen = [(t.settings, t.facts["psnr"]) for t in self.trials if "psnr" in t.facts]
        at = [psnr for settings, psnr in seen if all(self.settings[k] == v for k, v in settings.items())]
        return max(psnr for _, psnr in seen) - at[0] if at else None

    def is_choice(self, trial: Trial) -> bool:
        """Whether the settings of `trial` are the chosen ones."""
        return all(self.settings.get(name) == trial.settings.get(name) for name in self.ranges)

    @property
    def modality(self) -> str:
        """The modality of the cases."""
        return self.cases[0].modality

    @property
    def facts(self) -> dict[str, Any]:
        """Rule, budget and cases as parameters of a result."""
        names = ", ".join(c.name for c in self.cases)
        return {"tuned.rule": self.rule, "tuned.budget": self.budget, "tuned.cases": names}

    def to_json(self) -> dict[str, Any]:
        """The record as plain values; numbers that are not finite become None, since JSON has none."""
        return {
            "schema": SCHEMA,
            "pipeline": self.pipeline,
            "label": self.label,
            "settings": json_value(self.settings),
            "ranges": {name: list(ends) for name, ends in self.ranges.items()},
            "rule": self.rule,
            "measure": self.measure,
            "budget": self.budget,
            "used": self.used,
            "seed": self.seed,
            "cases": [dict(vars(c)) for c in self.cases],
            "trials": [
                {
                    "settings": dict(t.settings),
                    "figures": json_value(t.figures),
                    "remarks": dict(t.remarks),
                    "facts": {name: value for name, value in t.facts.items() if math.isfinite(value)},
                }
                for t in self.trials
            ],
            "warnings": list(self.warnings),
        }


def digest(values: Tensor) -> str:
    """SHA-256 of the values of a tensor with their type and shape."""
    array = values.detach().cpu().resolve_conj().contiguous().numpy()
    head = f"{array.dtype} {array.shape} ".encode()
    return hashlib.sha256(head + array.tobytes()).hexdigest()


def read_chosen(path: Path) -> Chosen:
    """The record in a file that ``Chosen.to_json`` filled.

    Raises
    ------
    InputError
        Not readable, not JSON, or not such a record.
    """
    try:
        content = path.read_bytes()
        schema = json.loads(content)["schema"]
        if schema != SCHEMA:
            raise ValueError(f"schema {schema}")
        record = pydantic.TypeAdapter(Chosen).validate_json(content, strict=True)
        if not record.cases:
            raise ValueError("no cases")
    except (OSError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise InputError(f"tuned settings {path}", expected="a file that priorloom tune wrote",
                         got=_reason(error)) from error  # fmt: skip
    return record


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if isinstance(error, pydantic.ValidationError):
        first = error.errors(include_url=False, include_context=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"[:300]
    return f"{type(error).__name__} {error}"


def apply_chosen(
    records: Sequence[Chosen], rows: Mapping[str, Sequence[Method]], cases: Iterable[Case], registry: Registry
) -> dict[str, list[Method]]:
    """The rows of a comparison by modality, those that have a record with its settings and marked by how it chose.

    A record applies to the row of its name in the modality of its cases. The rule "cases" has seen truths, so none of
    its cases may be compared. The oracle is for reference on the very case that it saw, and on no other. The other
    rules have seen no truth.

    Raises
    ------
    InputError
        A record of a method that is not run, two for one row, a row with settings other than those that were tuned,
        or a compared case that the settings were tuned on.
    """
    changed = {modality: list(methods) for modality, methods in rows.items()}
    compared = [TuningCase.of(case) for case in cases]
    done: set[tuple[str, str]] = set()
    for record in records:
        name, modality = record.method.name, record.modality
        here = changed.get(modality, [])
        places = [i for i, m in enumerate(here) if m.name == name and m.pipeline == record.pipeline]
        if not places:
            run = ", ".join(m.name for m in here) or f"no method on {modality}"
            raise InputError(f"tuned settings of method '{name}' on {modality}", expected="a method that is run",
                             got=run, cure="name it, or leave its --tuned out")  # fmt: skip
        if (name, modality) in done:
            raise InputError(f"tuned settings of method '{name}'", expected=f"one record for {modality}", got="two")
        done.add((name, modality))
        _check_cases(record, compared)
        for i in places:
            changed[modality][i] = _tuned(here[i], record, registry)
    return changed


def _tuned(row: Method, record: Chosen, registry: Registry) -> Method:
    if row.rule is not None and row.rule.name != "tuned":
        raise InputError(f"'{row.rule.parameter}' of method '{row.name}'", expected="a record or a rule", got="both",
                         cure="leave one out")  # fmt: skip
    for key, value in row.settings.items():
        if key.startswith("solver."):  # when to stop is the comparison's matter
            continue
        if key not in record.settings or record.settings[key] != value:
            was = record.settings.get(key, "not set")
            raise InputError(f"setting '{key}' of method '{row.name}'", expected=f"as it was tuned with ({was})",
                             got=value, cure="tune again with it, or leave it out")  # fmt: skip
    settings = {**record.settings, **row.settings}
    check_settings(registry, registry.pipeline(row.pipeline), settings)
    return Method(row.pipeline, settings, row.label, record.tuned)


def _check_cases(record: Chosen, compared: Sequence[TuningCase]) -> None:
    method = record.method.name
    if record.rule == "oracle":
        (of,) = record.cases
        for case in compared:
            if case.modality == of.modality and (case.measurement, case.truth) != (of.measurement, of.truth):
                raise InputError(f"case '{case.name}'", expected=f"the case that the oracle of '{method}' saw",
                                 got="other data", cure="choose by a rule that sees no truth")  # fmt: skip
    if record.rule != "cases":
        return
    for case in compared:
        for seen in record.cases:
            same = case.measurement == seen.measurement or (case.truth is not None and case.truth == seen.truth)
            if same or (case.subject is not None and case.subject == seen.subject):
                got = f"tuning case '{seen.name}'" + ("" if same else f", which shows the same subject {case.subject}")
                raise InputError(f"case '{case.name}'", expected=f"one that '{method}' was not tuned on",
                                 got=got, cure="tune on other cases")  # fmt: skip
            unknown = None in (case.subject, seen.subject)
            if unknown and (case.name, case.modality) == (seen.name, seen.modality):
                _LOG.warning("priorloom: case '%s' has the name of a tuning case of '%s' and other data; whether it "
                             "shows the same subject is not known", case.name, method)  # fmt: skip
