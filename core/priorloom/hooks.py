"""The whole contract between Priorloom and a plugin: six hooks, each a mapping name -> factory.

A factory is a callable, or a string ``"package.module:attribute"`` that is imported when it is first used, so that
discovery imports nothing heavy. A component's parameters are its factory's typed keyword-only arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pluggy

hookspec = pluggy.HookspecMarker("priorloom")
hookimpl = pluggy.HookimplMarker("priorloom")

Factory = Callable[..., Any] | str


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
