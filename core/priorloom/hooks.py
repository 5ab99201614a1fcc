"""The whole contract between Priorloom and a plugin: nine hooks, each a mapping name -> factory.

A factory is a callable, or a string ``"package.module:attribute"`` that is imported when it is first used, so that
discovery imports nothing heavy. A component's parameters are its factory's typed keyword-only arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import pluggy

hookspec = pluggy.HookspecMarker("priorloom")
hookimpl = pluggy.HookimplMarker("priorloom")

Factory = Callable[..., Any] | str

F = TypeVar("F", bound=Callable[..., Any])
_EXAMPLE = "__priorloom_example__"


def example(**parameters: Any) -> Callable[[F], F]:
    """Decorates a factory with parameters for a small component, on which ``priorloom check`` can run the kit.

    A value that is costly to make (coil maps, a mask) may be a function without arguments that makes it. Needed only
    where the defaults of the signature do not suffice, or are too large to check quickly.
    """

    def mark(factory: F) -> F:
        setattr(factory, _EXAMPLE, parameters)
        return factory

    return mark


def example_parameters(factory: Callable[..., Any]) -> dict[str, Any]:
    """The parameters that ``example`` gave a factory; none without it."""
    given: Mapping[str, Any] = getattr(factory, _EXAMPLE, {})
    return {name: value() if callable(value) else value for name, value in given.items()}


@hookspec
def priorloom_operators() -> Mapping[str, Factory]:  # type: ignore[empty-body]
    """Forward operators by ``modality.name``: ``factory(*, ...) -> LinearOperator``."""


@hookspec
def priorloom_priors() -> Mapping[str, Factory]:  # type: ignore[empty-body]
    """Priors by plain name: ``factory(space, *, lam, ...) -> Functional`` (prox slot) ``or Term`` (operator term)."""


@hookspec
def priorloom_denoisers() -> Mapping[str, Factory]:  # type: ignore[empty-body]
    """Denoisers by plain name: ``factory(space, *, ...) -> Denoiser``."""


@hookspec
def priorloom_pipelines() -> Mapping[str, Factory]:  # type: ignore[empty-body]
    """Reconstruction methods by plain name: ``factory() -> Pipeline``."""


@hookspec
def priorloom_modalities() -> Mapping[str, Factory]:  # type: ignore[empty-body]
    """Modalities by plain name: ``factory() -> Modality``."""


@hookspec
def priorloom_readers() -> Mapping[str, Factory]:  # type: ignore[empty-body]
    """File readers by plain name: ``factory() -> Reader``."""


@hookspec
def priorloom_architectures() -> Mapping[str, Factory]:  # type: ignore[empty-body]
    """Unrolled networks by plain name: ``factory(operator, *, ...) -> Unrolled``, untrained.

    The operator says what is reconstructed (real or complex, its norm); the shapes of the parameters must not depend on
    its sizes where one model shall serve several.
    """


@hookspec
def priorloom_models() -> Mapping[str, Factory]:  # type: ignore[empty-body]
    """Trained models by ``modality.name``: ``factory() -> Path`` of a folder with one folder per version in it, each of
    which holds ``model.safetensors`` and ``card.json``."""


@hookspec
def priorloom_benchmarks() -> Mapping[str, Factory]:  # type: ignore[empty-body]
    """Benchmarks by ``modality.name``: ``factory() -> OperatorBenchmark``, cases of an operator and its peers."""
