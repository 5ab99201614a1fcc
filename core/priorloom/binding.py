"""Binding settings such as ``{"prior.lam": 0.1}`` to the arguments of a pipeline's assemble."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .errors import InputError, PluginError, did_you_mean
from .parameters import AUTOMATIC, REQUIRED, Parameter, docstring_parameters, signature_parameters
from .pipeline import Pipeline, Slot
from .registry import Registry
from .trained import ModelSlot


def pipeline_parameters(registry: Registry, pipeline: Pipeline, settings: Mapping[str, Any]) -> tuple[Parameter, ...]:
    """Every setting of a pipeline; the parameters of a slot are those of the component that `settings` put there."""
    return factory_parameters(registry, pipeline.assemble, f"method '{pipeline.name}'", settings)


def factory_parameters(
    registry: Registry, factory: Callable[..., Any], owner: str, settings: Mapping[str, Any]
) -> tuple[Parameter, ...]:
    """The same of any factory that takes one positional argument (a case, an operator) and settings."""
    found: list[Parameter] = []
    for item in signature_parameters(factory, 1, owner):
        if isinstance(item.default, Slot):
            found += _slot_parameters(registry, item, settings)
        elif isinstance(item.default, ModelSlot):
            found += _model_parameters(item)
        elif dataclasses.is_dataclass(item.default):
            found += _group_parameters(item)
        else:
            found.append(item)
    return tuple(found)


def bind(registry: Registry, pipeline: Pipeline, settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arguments for ``pipeline.assemble``, and every parameter as used by its dotted name.

    A slot's parameter that is neither set nor has a default is left to the pipeline (an automatic weight).

    Raises
    ------
    InputError
        An unknown setting ("did you mean"), or a value of the wrong type.
    """
    return bind_factory(registry, pipeline.assemble, f"method '{pipeline.name}'", settings)


def bind_factory(
    registry: Registry, factory: Callable[..., Any], owner: str, settings: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The same for any factory that takes one positional argument (a case, an operator) and settings."""
    known = {p.name: p for p in factory_parameters(registry, factory, owner, settings)}
    for name in settings:
        if name not in known:
            raise InputError(f"unknown parameter '{name}' of {owner}", cure=did_you_mean(name, known))
    values = {name: known[name].validate(value, owner) for name, value in settings.items()}
    flat = {name: values.get(name, p.default) for name, p in known.items()}
    flat = {name: value for name, value in flat.items() if value is not REQUIRED and value is not AUTOMATIC}
    arguments: dict[str, Any] = {}
    for item in signature_parameters(factory, 1, owner):
        prefix = item.name + "."
        inside = {name.removeprefix(prefix): v for name, v in flat.items() if name.startswith(prefix)}
        if isinstance(item.default, Slot):
            component = inside.pop("name")
            fills = registry.factory(item.default.kind, component)
            arguments[item.name] = Slot(item.default.kind, component, inside, fills)
        elif isinstance(item.default, ModelSlot):
            arguments[item.name] = dataclasses.replace(item.default, registry=registry, **inside)
        elif dataclasses.is_dataclass(item.default) and not isinstance(item.default, type):
            arguments[item.name] = dataclasses.replace(item.default, **inside)
        elif item.name in flat:
            arguments[item.name] = flat[item.name]
    return arguments, flat


def _group_parameters(item: Parameter) -> list[Parameter]:
    hints = typing.get_type_hints(type(item.default))
    texts: dict[str, str] = {}
    for base in reversed(type(item.default).__mro__):  # a group that extends Solver keeps its help
        texts |= docstring_parameters(inspect.cleandoc(base.__doc__ or ""))
    return [
        Parameter(f"{item.name}.{f.name}", hints[f.name], getattr(item.default, f.name), texts.get(f.name, ""))
        for f in dataclasses.fields(item.default)
    ]


def _model_parameters(item: Parameter) -> list[Parameter]:
    texts = docstring_parameters(inspect.cleandoc(ModelSlot.__doc__ or ""))
    types = {"name": str, "path": Path}
    return [Parameter(f"{item.name}.{field}", kind, AUTOMATIC, texts[field]) for field, kind in types.items()]


def _slot_parameters(registry: Registry, item: Parameter, settings: Mapping[str, Any]) -> list[Parameter]:
    slot: Slot = item.default
    name = settings.get(f"{item.name}.name", slot.name)
    if not isinstance(name, str):
        raise InputError(f"parameter '{item.name}.name'", expected=f"the name of a {slot.kind}", got=repr(name))
    inside = signature_parameters(registry.factory(slot.kind, name), 1, f"{slot.kind} '{name}'", prefix=f"{item.name}.")
    preset = slot.parameters if name == slot.name else {}
    known = {p.name.removeprefix(f"{item.name}.") for p in inside}
    for key in preset:
        if key not in known:
            raise PluginError(
                f"unknown parameter '{key}' preset for {slot.kind} '{name}'", cure=did_you_mean(key, known)
            )
    chosen = Parameter(f"{item.name}.name", str, slot.name, f"the {slot.kind} in this slot")
    return [chosen] + [
        dataclasses.replace(p, default=preset.get(p.name.removeprefix(item.name + "."), _left_open(p))) for p in inside
    ]


def _left_open(parameter: Parameter) -> Any:
    return AUTOMATIC if parameter.default is REQUIRED else parameter.default
