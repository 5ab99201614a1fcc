"""Controls: what a page offers for a parameter, derived from its type, its default and where it is searched."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from priorloom.binding import pipeline_parameters
from priorloom.parameters import AUTOMATIC, REQUIRED, Parameter
from priorloom.pipeline import Pipeline, Range
from priorloom.registry import ComponentKind, Registry

Widget = Literal["number", "integer", "words", "switch", "text"]
OF_FILES = ("case.files", "case.slices", "case.subject")
"""Settings of simulated cases that say something of image files, which the page does not take."""


@dataclass(frozen=True)
class Control:
    """One parameter on the page.

    Parameters
    ----------
    name, help
        Dotted, as in a config; and what it means.
    widget
        "number" and "integer" are boxes, "words" a choice of `words`, "switch" is on or off, "text" a word of any kind.
    default
        What holds while nothing is set; None where that is chosen automatically.
    words
        The words to choose from.
    range
        Where a number has a slider on a logarithmic scale.
    listed
        Whether the setting is a list of one word.
    """

    name: str
    help: str
    widget: Widget
    default: Any
    words: tuple[str, ...] = ()
    range: Range | None = None
    listed: bool = False

    @property
    def automatic(self) -> bool:
        """Whether no value means one that the method chooses."""
        return self.default is None

    def ends(self, centre: float | None) -> tuple[float, float] | None:
        """The ends of the slider; a relative range needs its `centre`, the automatic value."""
        if self.range is None:
            return None
        if not self.range.relative:
            return self.range.low, self.range.high
        if centre is None or not 0 < centre < math.inf:
            return None
        return self.range.low * centre, self.range.high * centre

    def setting(self, value: Any) -> Any:
        """What a config says for `value` of the widget; None for nothing, which leaves the default."""
        if value is None or value == "":
            return None
        value = [value] if self.listed else value
        return None if value == self.default else value


def controls_of(registry: Registry, pipeline: Pipeline, settings: Mapping[str, Any], modality: str) -> list[Control]:
    """The controls of a method: first what is searched, in its order, then the rest.

    The parameters of a slot are those of the component that `settings` put there.
    """
    found = []
    for parameter in pipeline_parameters(registry, pipeline, settings):
        names = _names(registry, parameter, modality)
        control = control_of(parameter, pipeline.search.get(parameter.name), names)
        if control is not None:
            found.append(control)
    order = {name: place for place, name in enumerate(pipeline.search)}
    return sorted(found, key=lambda c: order.get(c.name, len(order)))


def case_controls(parameters: Iterable[Parameter]) -> list[Control]:
    """The controls of simulated cases, or of a reader's options."""
    return [control for p in parameters if p.name not in OF_FILES and (control := control_of(p)) is not None]


def control_of(
    parameter: Parameter, search: Range | tuple[str, ...] | None = None, words: Sequence[str] = ()
) -> Control | None:
    """The control of a parameter; None for what a page does not offer: paths, which could name any file of the
    machine, and tuples of numbers.

    Parameters
    ----------
    parameter
        Name, type, default and help.
    search
        Where it is searched (``Pipeline.search``): a range gives a slider.
    words
        The words of a text that is one of a few names.
    """
    default = None if parameter.default in (AUTOMATIC, REQUIRED) else parameter.default
    members = _members(parameter.annotation)
    chosen = [w for m in members for w in _words(m)]
    listed = [w for m in members for w in _listed_words(m)]
    about: dict[str, Any] = {"name": parameter.name, "help": parameter.help, "default": default}
    if chosen:
        return Control(**about, widget="words", words=tuple(chosen))
    if listed:
        return Control(**about, widget="words", words=tuple(listed), listed=True)
    if bool in members:
        return Control(**about, widget="switch") if isinstance(default, bool) else None
    ranged = search if isinstance(search, Range) else None
    if float in members:
        return Control(**about, widget="number", range=ranged)
    if int in members:
        return Control(**about, widget="integer", range=ranged)
    if str in members:
        return Control(**about, widget="words" if words else "text", words=tuple(words))
    return None


def _members(annotation: Any) -> tuple[Any, ...]:
    """The types of a union, or the one type."""
    if typing.get_origin(annotation) is typing.Annotated:
        return _members(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return tuple(m for part in typing.get_args(annotation) for m in _members(part))
    return (annotation,)


def _words(annotation: Any) -> tuple[str, ...]:
    words = typing.get_args(annotation) if typing.get_origin(annotation) is Literal else ()
    return words if all(isinstance(w, str) for w in words) else ()


def _listed_words(annotation: Any) -> tuple[str, ...]:
    inside = typing.get_args(annotation)
    return _words(inside[0]) if typing.get_origin(annotation) is tuple and inside[-1:] == (...,) else ()


def _names(registry: Registry, parameter: Parameter, modality: str) -> tuple[str, ...]:
    """The names that a text parameter may take: components for a slot, models of the modality, modalities."""
    head, _, tail = parameter.name.partition(".")
    if tail == "modality":
        return registry.names("modality")
    if tail == "name" and head == "model":
        return tuple(n for n in registry.names("model") if n.startswith(f"{modality}."))
    kinds: dict[str, ComponentKind] = {"prior": "prior", "denoiser": "denoiser"}
    return registry.names(kinds[head]) if tail == "name" and head in kinds else ()


__all__ = ["Control", "case_controls", "control_of", "controls_of"]
