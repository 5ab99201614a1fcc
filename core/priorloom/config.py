"""The comparison config: one YAML file and ``--set KEY=VALUE`` become a Plan, and a Plan becomes cases and methods."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from .binding import pipeline_parameters
from .comparison import default_methods
from .errors import InputError, PluginError, did_you_mean, unique
from .loading import read_case
from .modality import Case
from .multiples import check_settings, multiple_settings
from .parameters import validate
from .protocol.tuning import KEYS as TUNING_KEYS
from .protocol.tuning import Tuning, over_ranges
from .reconstruction import Method
from .registry import Registry, guarded
from .rule import rule_settings, split_rule
from .trained import ModelSlot
from .yaml_files import read_mapping

_LOG = logging.getLogger(__name__)
_KEYS = ("modality", "input", "operator", "case", "methods", "settings", "seed", "tuning", "reference")
_SHOWN = ("images", "files", "slices", "subject")
"""What of ``case.*`` says whom or what the cases show."""
_KINDS = {str: "a text", int: "a whole number", list: "a list", dict: "a mapping of names to values"}


@dataclass(frozen=True)
class Plan:
    """What to compare.

    Parameters
    ----------
    modality
        One modality; every installed one when absent.
    input, options
        A file to read and its reader's options (``input.*``); simulated cases when absent.
    operator, case
        ``operator.*`` and ``case.*`` settings.
    methods
        Rows of the comparison; the modality's default methods when absent.
    settings
        Settings for every method that has them.
    seed
        The run's seed.
    tuning
        On what every method is tuned before it runs (`protocol.tune`); not at all when absent.
    reference
        The row to which differences are summarised; see `statistics.summaries`.
    """

    modality: str | None = None
    input: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    operator: Mapping[str, Any] = field(default_factory=dict)
    case: Mapping[str, Any] = field(default_factory=dict)
    methods: tuple[Method, ...] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    tuning: Tuning | None = None
    reference: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**31:
            raise InputError("seed", expected="0 to 2147483647", got=self.seed)
        name = self.operator.get("name", "")
        if not isinstance(name, str):
            raise InputError("operator.name", expected="the name of an operator", got=repr(name))


def load(path: Path) -> Plan:
    """Read a config file.

    Raises
    ------
    InputError
        Not readable, not YAML, or an unknown key.
    """
    raw = read_mapping(path)
    for key in raw:
        if key not in _KEYS:
            raise InputError(f"unknown key '{key}' in {path.name}", cure=did_you_mean(str(key), _KEYS))
    file, options = _input(raw.get("input"), path.parent)
    return Plan(
        modality=_typed(raw, "modality", str, None),
        input=file,
        options=options,
        operator=_typed(raw, "operator", dict, {}),
        case=_case(_typed(raw, "case", dict, {}), path.parent),
        methods=_methods(_typed(raw, "methods", list, None)),
        settings=flatten(_typed(raw, "settings", dict, {})),
        seed=_typed(raw, "seed", int, 0),
        tuning=_tuning(_typed(raw, "tuning", dict, None), path.parent),
        reference=_typed(raw, "reference", str, None),
    )


def override(plan: Plan, assignments: Iterable[str]) -> Plan:
    """`plan` changed by ``KEY=VALUE`` texts; values are YAML.

    ``input.*``, ``operator.*`` and ``case.*`` change the cases, ``tuning.*`` what is tuned on; ``METHOD.KEY`` changes
    one method; anything else every method that has it.
    """
    for text in assignments:
        key, equals, value_text = text.partition("=")
        key = key.strip()
        if not equals or not key:
            raise InputError(f"--set {text}", expected="KEY=VALUE", got=text)
        try:
            value = yaml.safe_load(value_text)
        except yaml.YAMLError as error:
            raise InputError(f"--set {text}", expected="a YAML value", got=str(error)) from error
        head, _, tail = key.partition(".")
        if head == "input" and tail:
            plan = replace(plan, options={**plan.options, tail: value})
        elif head == "operator" and tail:
            plan = replace(plan, operator={**plan.operator, tail: value})
        elif head == "case" and tail:
            plan = replace(plan, case={**plan.case, tail: value})
        elif head == "tuning" and tail:
            plan = replace(plan, tuning=(plan.tuning or Tuning()).changed(tail, value))
        else:
            plan = replace(plan, settings={**plan.settings, key: value})
    return plan


def make_cases(plan: Plan, registry: Registry) -> list[Case]:
    """The cases of a plan: the file read, or the simulated cases of its modality or modalities.

    Raises
    ------
    InputError
        Settings that nothing takes, or an input that cannot be used.
    """
    if plan.modality is not None:
        registry.modality(plan.modality)
    if plan.input is not None:
        if plan.case:
            raise InputError(
                f"case.{next(iter(plan.case))}", expected="simulated cases", got=f"the file {plan.input.name}"
            )
        return [read_case(plan.input, registry, modality=plan.modality, options=plan.options, operator=plan.operator)]
    if plan.options:
        raise InputError(
            f"input.{next(iter(plan.options))}", expected="an input file", got="none", cure="add --input FILE"
        )
    names = _modalities(plan, registry)
    taken: set[str] = set()
    cases: list[Case] = []
    for name in names:
        try:
            given = {f"case.{k}": v for k, v in plan.case.items()}
            if len(names) > 1:
                known = {p.name for p in registry.parameters("modality", name)}
                given = {k: v for k, v in given.items() if k in known}
            taken |= set(given)
            cases += _simulated(plan, registry, name, given)
        except PluginError as error:
            if name == names[-1] and not cases:
                raise
            # A broken plugin, or an extra that is not installed, must not stop the others.
            _LOG.warning("priorloom: left out: %s", error)
    for key in plan.case:
        if f"case.{key}" not in taken:
            raise InputError(f"unknown parameter 'case.{key}'", expected="a setting of the simulated cases", got=key)
    unique("case", [c.name for c in cases])
    return cases


def tuning_plan(plan: Plan) -> Plan:
    """The plan of the cases that methods are tuned on: the comparison's, with what its section ``tuning`` changes.

    Raises
    ------
    InputError
        No such section, or files of it that are those of the comparison, whatever subject is stated of them.
    """
    tuning = plan.tuning
    if tuning is None:
        raise InputError("tuning cases", expected="a section 'tuning' in the config", got="none")
    for mine in _paths(tuning.case):
        for theirs in _paths(plan.case):
            if mine == theirs or mine in theirs.parents or theirs in mine.parents:
                raise InputError("tuning.case.files", expected="none of case.files", got=mine, cure="tune on others")
    shown = _SHOWN if {"images", "files"} & set(tuning.case) else ()
    case = {name: value for name, value in plan.case.items() if name not in shown}
    return replace(
        plan,
        input=tuning.input,
        options=tuning.options,
        case={**case, **tuning.case} if tuning.input is None else {},
        seed=(plan.seed + 1) % 2**31 if tuning.seed is None else tuning.seed,
        tuning=None,
    )


def _simulated(plan: Plan, registry: Registry, name: str, given: Mapping[str, Any]) -> list[Case]:
    modality = registry.modality(name)
    arguments = validate(registry.parameters("modality", name), given, f"the simulated cases of '{name}'")
    keywords = {k.removeprefix("case."): v for k, v in arguments.items()}
    with guarded(f"modality '{name}' of plugin '{registry.source('modality', name)}'"):
        return modality.cases(registry, plan.operator, seed=plan.seed, **keywords)


def make_methods(plan: Plan, registry: Registry, modalities: Sequence[str]) -> dict[str, list[Method]]:
    """The rows of the comparison for each modality, with the plan's settings applied where they fit.

    Raises
    ------
    InputError
        A method that is unknown or fits none of the modalities, or a setting that no method has.
    """
    rows: dict[str, list[Method]] = {}
    used: set[str] = set()
    known: set[str] = set()
    placed: set[str] = set()
    for modality in modalities:
        chosen = plan.methods
        if chosen is None:
            chosen = tuple(Method(name) for name in default_methods(registry, modality))
        rows[modality] = []
        for method in chosen:
            pipeline = registry.pipeline(method.pipeline)
            if pipeline.modalities and modality not in pipeline.modalities:
                continue
            placed.add(method.name)
            mine = {
                k.removeprefix(f"{method.name}."): v
                for k, v in plan.settings.items()
                if k.startswith(f"{method.name}.")
            }
            used |= {f"{method.name}.{k}" for k in mine}
            merged = {**method.settings, **mine}
            parameters = pipeline_parameters(registry, pipeline, {**plan.settings, **merged})
            names = {p.name for p in parameters} | rule_settings(parameters) | multiple_settings(parameters)
            known |= names
            shared = {k: v for k, v in plan.settings.items() if k in names and k not in mine}
            used |= set(shared)
            everything = {**method.settings, **shared, **mine}
            chosen_settings, rule = split_rule(everything, parameters, f"method '{method.name}'")
            # Every row is checked before the first one runs.
            arguments = check_settings(registry, pipeline, chosen_settings)
            for slot in arguments.values():
                if isinstance(slot, ModelSlot):
                    slot.card(modality)
            rows[modality].append(replace(method, settings=chosen_settings, rule=rule or method.rule))
    for method in plan.methods or ():
        if method.name not in placed:
            fits = ", ".join(registry.pipeline(method.pipeline).modalities)
            raise InputError(f"method '{method.name}'", expected=f"a case of {fits}", got=", ".join(modalities))
    for key in plan.settings:
        if key not in used:
            raise InputError(f"unknown setting '{key}'", cure=did_you_mean(key, known | {f"{h}." for h in _KEYS[1:4]}))
    return rows


def _modalities(plan: Plan, registry: Registry) -> tuple[str, ...]:
    """One modality when it or an operator is named, else every installed one."""
    operator = plan.operator.get("name")
    implied = operator.partition(".")[0] if isinstance(operator, str) else None
    if plan.modality and implied and plan.modality != implied:
        raise InputError("operator.name", expected=f"an operator of {plan.modality}", got=operator)
    one = plan.modality or implied
    if one:
        return (one,)
    if plan.operator:
        raise InputError(
            f"operator.{next(iter(plan.operator))}",
            expected="one modality",
            got="all of them",
            cure="add --modality NAME",
        )
    return registry.names("modality")


def _input(raw: object, folder: Path) -> tuple[Path | None, dict[str, Any]]:
    if raw is None:
        return None, {}
    options = {"file": raw} if isinstance(raw, str) else raw
    if not isinstance(options, dict) or not isinstance(options.get("file"), str):
        raise InputError("input in the config", expected="a file name, or a mapping with 'file'", got=repr(raw))
    rest = {str(k): v for k, v in options.items() if k != "file"}
    # A companion file, like the file itself, is named relative to the config.
    near = {k: str(folder / v) for k, v in rest.items() if isinstance(v, str) and (folder / v).is_file()}
    return folder / options["file"], {**rest, **near}


def _tuning(raw: dict[str, Any] | None, folder: Path) -> Tuning | None:
    if raw is None:
        return None
    for key in raw:
        if key not in TUNING_KEYS:
            raise InputError(f"unknown key 'tuning.{key}' in the config", cure=did_you_mean(str(key), TUNING_KEYS))
    file, options = _input(raw.get("input"), folder)
    stated = {key: raw[key] for key in ("seed", "budget", "measure") if raw.get(key) is not None}
    case, over = (_typed(raw, key, dict, {}, "tuning.") for key in ("case", "over"))
    tuning = Tuning(_case(case, folder), file, options, over=over_ranges(over))
    for key, value in stated.items():
        tuning = tuning.changed(key, value)
    return tuning


def _case(settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Settings of cases; the files that are there relative to the config are taken from there, as the input is."""
    files = settings.get("files")
    if not isinstance(files, list):
        return settings
    near = [str(folder / f) if isinstance(f, str) and (folder / f).exists() else f for f in files]
    return {**settings, "files": near}


def _paths(case: Mapping[str, Any]) -> list[Path]:
    files = case.get("files")
    return [Path(f).resolve() for f in files if isinstance(f, str | Path)] if isinstance(files, list | tuple) else []


def _methods(raw: list[Any] | None) -> tuple[Method, ...] | None:
    """``name``, or a mapping with ``method``, optionally ``label``, and settings (nested or dotted)."""
    if raw is None:
        return None
    methods = []
    for item in raw:
        if isinstance(item, str):
            methods.append(Method(item))
        elif isinstance(item, dict) and isinstance(item.get("method"), str):
            label = item.get("label")
            if label is not None and not (isinstance(label, str) and label):
                raise InputError("label of a method", expected="a text", got=repr(label))
            settings = flatten({k: v for k, v in item.items() if k not in ("method", "label")})
            methods.append(Method(item["method"], settings, label))
        else:
            raise InputError("methods in the config", expected="a name, or a mapping with 'method'", got=repr(item))
    if not methods:
        raise InputError("methods in the config", expected="at least one", got="none")
    return tuple(methods)


def flatten(nested: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """``{"prior": {"lam": 1}}`` as ``{"prior.lam": 1}``."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        new = flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
        for name in new:
            if name in flat:
                raise InputError(f"setting '{name}' in the config", expected="one value", got="two")
        flat |= new
    return flat


def _typed(raw: Mapping[str, Any], key: str, kind: type, default: Any, section: str = "") -> Any:
    value = raw.get(key)
    if value is None:
        return default
    if not isinstance(value, kind) or isinstance(value, bool):
        raise InputError(f"{section}{key} in the config", expected=_KINDS[kind], got=repr(value))
    return value
