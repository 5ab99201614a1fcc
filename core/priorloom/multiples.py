"""Settings in multiples of what a method chooses by itself: ``PARAMETER.times``.

A weight that is right for one noise level, operator or scale is wrong for another, and the automatic one follows them.
A multiple of it, such as one found on tuning cases, keeps following: ``prior.lam.times: 2`` is twice the automatic
``prior.lam`` of every case.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from .binding import bind, pipeline_parameters
from .errors import InputError, did_you_mean
from .modality import Case
from .parameters import TIMES, Parameter
from .pipeline import Pipeline
from .registry import Registry


def multiple_settings(parameters: Iterable[Parameter]) -> set[str]:
    """The settings that multiples add to those of a method."""
    return {f"{p.name}{TIMES}" for p in parameters if p.is_real}


def split_multiples(settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The other settings, and the multiples by the names of the parameters that they belong to."""
    plain = {name: value for name, value in settings.items() if not name.endswith(TIMES)}
    return plain, {n.removesuffix(TIMES): value for n, value in settings.items() if n.endswith(TIMES)}


def check_settings(registry: Registry, pipeline: Pipeline, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of ``pipeline.assemble`` without the multiples, which are checked too.

    Raises
    ------
    InputError
        As `binding.bind`; a multiple of something that is no real number, beside its value, or not positive.
    """
    plain, multiples = split_multiples(settings)
    arguments, _ = bind(registry, pipeline, plain)
    known = {p.name: p for p in pipeline_parameters(registry, pipeline, plain)}
    owner = f"method '{pipeline.name}'"
    for name, value in multiples.items():
        if name not in known or not known[name].is_real:
            real = [f"{n}{TIMES}" for n, p in known.items() if p.is_real]
            raise InputError(f"unknown parameter '{name}{TIMES}' of {owner}", cure=did_you_mean(f"{name}{TIMES}", real))
        if name in plain:
            raise InputError(f"'{name}' of {owner}", expected=f"a value or '{name}{TIMES}'", got="both",
                             cure="leave one out")  # fmt: skip
        factor = Parameter(f"{name}{TIMES}", float).validate(value, owner)
        if not 0 < factor < math.inf:
            raise InputError(f"'{name}{TIMES}' of {owner}", expected="a positive number", got=factor)
    return arguments


def resolve_multiples(
    case: Case, pipeline: Pipeline, settings: Mapping[str, Any], registry: Registry
) -> tuple[dict[str, Any], dict[str, float]]:
    """The settings with values for this case in the place of multiples, and these.

    A parameter's automatic value may follow from another parameter: each multiple, in the order of the method's
    parameters, is taken of the value that the method chooses with those before it.

    Parameters
    ----------
    case
        Normalised, with a noise_std, as ``pipeline.assemble`` takes it.
    pipeline, settings, registry
        The method.

    Raises
    ------
    InputError
        As `check_settings`, or a parameter that the method does not choose by itself.
    """
    plain, multiples = split_multiples(settings)
    if not multiples:
        return plain, {}
    check_settings(registry, pipeline, settings)
    used: dict[str, float] = {}
    for name in (p.name for p in pipeline_parameters(registry, pipeline, plain) if p.name in multiples):
        arguments, _ = bind(registry, pipeline, plain)
        automatic = pipeline.assemble(case, **arguments).parameters.get(name)
        if not isinstance(automatic, int | float) or not 0 < automatic < math.inf:
            raise InputError(
                f"'{name}{TIMES}' of method '{pipeline.name}'", expected="a parameter that it chooses by itself",
                got="none" if automatic is None else automatic, cure=f"set {name}",
            )  # fmt: skip
        used[f"{name}{TIMES}"] = float(multiples[name])
        plain[name] = used[f"{name}{TIMES}"] * automatic
    return plain, used
