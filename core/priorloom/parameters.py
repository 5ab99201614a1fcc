"""Parameters of a component, read from its signature: schema, help, validation and "did you mean" from one source."""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
import re
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .errors import InputError, PluginError, did_you_mean


class _Absent:
    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


REQUIRED: Any = _Absent("required")
AUTOMATIC: Any = _Absent("automatic")
"""In the place of a default: the user must give a value, or the method chooses one."""
TIMES = ".times"
"""After the name of a parameter: the setting that is a multiple of what the method chooses by itself."""


@dataclass(frozen=True)
class Parameter:
    """One setting of a component.

    Parameters
    ----------
    name
        Its dotted name, as in ``--set``.
    annotation
        The type that pydantic checks it against.
    default
        Its default, REQUIRED or AUTOMATIC.
    help
        What the docstring says.
    """

    name: str
    annotation: Any
    default: Any = REQUIRED
    help: str = ""

    @property
    def type_name(self) -> str:
        """The annotation as a person writes it."""
        return re.sub(r"'[^']*'|\b(?:[A-Za-z_]\w*\.)+", _without_modules, inspect.formatannotation(self.annotation))

    @property
    def is_real(self) -> bool:
        """Whether it takes a real number, so that it can be searched."""
        return self.annotation is float or float in typing.get_args(self.annotation)

    def validate(self, value: Any, owner: str) -> Any:
        """`value` converted to the annotation; raises InputError with expected and got."""
        import pydantic  # costs a tenth of a second, which listing components should not pay

        adapter: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(
            self.annotation, config=pydantic.ConfigDict(arbitrary_types_allowed=True)
        )
        problem = ""
        # pydantic takes true for 1, which is never what a weight or a count means.
        numbers_only = isinstance(value, bool) and "bool" not in self.type_name
        for candidate in () if numbers_only else _forms(value):
            try:
                return adapter.validate_python(candidate)
            except pydantic.ValidationError as error:
                problem = problem or error.errors()[0]["msg"].lower()
        shown = repr(value) if isinstance(value, str | int | float | bool | None) else type(value).__name__
        raise InputError(f"parameter '{self.name}' of {owner}", expected=self.type_name, got=shown, cure=problem)


def _without_modules(found: re.Match[str]) -> str:
    return found[0] if found[0].startswith("'") else ""


def _forms(value: Any) -> Iterator[Any]:
    """`value`, and for an array from a file also the tensor or the list that a signature may ask for."""
    yield value
    if hasattr(value, "__array__") and hasattr(value, "tolist"):
        import torch

        with contextlib.suppress(TypeError, ValueError):  # texts, and numbers that torch does not have
            yield torch.as_tensor(value)
        if math.prod(value.shape) <= 100_000:
            yield value.tolist()


def signature_parameters(factory: Callable[..., Any], skip: int, owner: str, prefix: str = "") -> tuple[Parameter, ...]:
    """The parameters of `factory` after its first `skip` positional ones.

    Raises
    ------
    PluginError
        When a parameter has no annotation (or one that cannot be resolved), ``*args`` / ``**kwargs`` would swallow a
        typo, or the positional ones are missing.
    """
    try:
        items = list(inspect.signature(factory).parameters.values())
    except (TypeError, ValueError) as error:
        raise PluginError(f"signature of {owner} cannot be read: {error}") from error
    texts = docstring_parameters(inspect.getdoc(factory) or "")
    positional = [p for p in items if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(positional) < skip:
        raise PluginError(
            f"{owner} takes ({', '.join(p.name for p in items)})", expected=f"{skip} positional before the keyword-only"
        )
    found = []
    for position, item in enumerate(items):
        if item.kind in (item.VAR_POSITIONAL, item.VAR_KEYWORD):
            raise PluginError(
                f"{owner} takes '{item}'", cure="name every parameter, so that a misspelt one is an error"
            )
        if position < skip and item.kind is not item.KEYWORD_ONLY:
            continue
        if item.annotation is item.empty:
            raise PluginError(f"parameter '{item.name}' of {owner} has no type annotation", cure="annotate it")
        default = REQUIRED if item.default is item.empty else item.default
        found.append(
            Parameter(prefix + item.name, _annotation(factory, item, owner), default, texts.get(item.name, ""))
        )
    return tuple(found)


def _annotation(factory: Callable[..., Any], item: inspect.Parameter, owner: str) -> Any:
    """One annotation, evaluated: those of the skipped parameters may exist for type checkers only."""

    def probe() -> None: ...

    target: Any = factory
    while isinstance(target, functools.partial):
        target = target.func
    target = inspect.unwrap(target.__init__ if isinstance(target, type) else target)  # type: ignore[misc]
    probe.__annotations__ = {item.name: item.annotation}
    try:
        hints = typing.get_type_hints(probe, globalns=getattr(target, "__globals__", {}), include_extras=True)
    except (NameError, AttributeError, SyntaxError, TypeError) as error:
        raise PluginError(
            f"annotation of parameter '{item.name}' of {owner} cannot be read: {error}",
            cure="import at run time what it names",
        ) from error
    return hints[item.name]


def docstring_parameters(text: str) -> dict[str, str]:
    """What a NumPy docstring says of each parameter, on one line each."""
    section = re.search(r"^Parameters\n-+\n(.*?)(?=^\w[^\n]*\n-+\n|\Z)", text, re.S | re.M)
    found: dict[str, str] = {}
    if section:
        for names, body in re.findall(r"^(\S[^\n]*)\n((?:[ \t]+[^\n]*\n?|\n)+)", section[1] + "\n", re.M):
            for name in re.split(r"\s*,\s*", names):
                found[name.partition(" :")[0].strip()] = " ".join(body.split())
    return found


def validate(parameters: Iterable[Parameter], given: Mapping[str, Any], owner: str) -> dict[str, Any]:
    """`given` checked against `parameters`: unknown names, wrong types and missing values are InputErrors."""
    known = {p.name: p for p in parameters}
    for name in given:
        if name not in known:
            raise InputError(f"unknown parameter '{name}' of {owner}", cure=did_you_mean(name, known))
    for name, parameter in known.items():
        if parameter.default is REQUIRED and name not in given:
            raise InputError(f"{owner} needs parameter '{name}'", expected=parameter.type_name, got="nothing")
    return {name: known[name].validate(value, owner) for name, value in given.items()}
