"""A Plan as the YAML file that reads back to the equal Plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from .config import Plan
from .errors import InputError
from .protocol.tuning import Tuning
from .reconstruction import Method


def to_yaml(plan: Plan) -> bytes:
    """The content of a config file that ``config.load`` reads as `plan`.

    Tuples become lists, the input's path becomes absolute, and the rule of a method the settings that state it.

    Raises
    ------
    InputError
        A value that no config file can hold, such as a tensor or a method that is marked as tuned.
    """
    document: dict[str, Any] = {}
    for name in _in_order(plan, _WRITERS):
        document |= _WRITERS[name](plan)
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110).encode()


def _input(plan: Plan) -> dict[str, Any]:
    if plan.input is None:
        if plan.options:
            raise InputError(f"input.{next(iter(plan.options))}", expected="an input file", got="none")
        return {}
    return {"input": {"file": str(plan.input.absolute()), **_plain(plan.options, "input")}}


def _tuning(tuning: Tuning) -> dict[str, Any]:
    parts = {
        **_unless_empty("case", tuning.case),
        **_unless_empty("over", tuning.over),
        **({} if tuning.seed is None else {"seed": tuning.seed}),
    }
    if tuning.input is not None:
        parts["input"] = {"file": str(tuning.input.absolute()), **_plain(tuning.options, "tuning.input")}
    return {**parts, "budget": tuning.budget, "measure": tuning.measure}


def _methods(plan: Plan) -> dict[str, Any]:
    return {} if plan.methods is None else {"methods": [_method(m) for m in plan.methods]}


def _method(method: Method) -> Any:
    parts: dict[str, Any] = {}
    for name in _in_order(method, _METHOD_WRITERS):
        parts |= _METHOD_WRITERS[name](method)
    return parts["method"] if len(parts) == 1 else parts


def _in_order(of: Plan | Method, writers: Mapping[str, Any]) -> list[str]:
    """Every field, in the order of the writers; a field without one is an error."""
    return sorted((field.name for field in fields(of)), key=list(writers).index)


def _not_tuned(method: Method) -> dict[str, Any]:
    if method.tuned is not None:
        raise InputError(
            f"method '{method.name}' in a config file", expected="settings", got=f"the mark {method.tuned!r}"
        )
    return {}


def _rule(method: Method) -> dict[str, Any]:
    rule = method.rule
    if rule is None:
        return {}
    parts = {"rule": rule.name, "low": rule.low, "high": rule.high, "budget": rule.budget}
    return {f"{rule.parameter}.{part}": value for part, value in parts.items() if value is not None}


def _unless_empty(key: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _plain(values, key)} if values else {}


# What a field adds to the file. A new field of Plan or Method needs a line here, which a test enforces: it must not be
# lost without notice.
_WRITERS: Mapping[str, Callable[[Plan], dict[str, Any]]] = {
    "modality": lambda p: {} if p.modality is None else {"modality": p.modality},
    "input": _input,
    "options": lambda p: {},  # with the input
    "operator": lambda p: _unless_empty("operator", p.operator),
    "case": lambda p: _unless_empty("case", p.case),
    "methods": _methods,
    "settings": lambda p: _unless_empty("settings", p.settings),
    "seed": lambda p: {"seed": p.seed},
    "tuning": lambda p: {} if p.tuning is None else {"tuning": _tuning(p.tuning)},
    "reference": lambda p: {} if p.reference is None else {"reference": p.reference},
}
_METHOD_WRITERS: Mapping[str, Callable[[Method], dict[str, Any]]] = {
    "pipeline": lambda m: {"method": m.pipeline},
    "label": lambda m: {} if m.label is None else {"label": m.label},
    "settings": lambda m: _plain(m.settings, m.name),
    "tuned": _not_tuned,
    "rule": _rule,
}


def _plain(value: Any, where: str) -> Any:
    """`value` with lists for tuples and texts for paths."""
    if isinstance(value, Mapping):
        return {key: _plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, where) for item in value]
    if isinstance(value, Path):
        return str(value)
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise InputError(where, expected="a number, a text or a list of them", got=type(value).__name__,
                     cure="put arrays into a file")  # fmt: skip


class _Dumper(yaml.SafeDumper):
    """Without anchors, which hide that two settings have one value."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def text(self, data: str) -> yaml.ScalarNode:
        """Unicode's own line breaks are escaped, which PyYAML does between double quotes only."""
        return self.represent_scalar("tag:yaml.org,2002:str", data, style='"' if set(data) & set(_BREAKS) else None)


_BREAKS = "\x85\u2028\u2029"
_Dumper.add_representer(str, _Dumper.text)


__all__ = ["to_yaml"]
