"""Registry: finds plugins through entry points, isolates the broken ones, and builds components by name."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import pluggy

from . import hooks
from .errors import InputError, PluginError, PriorloomError, did_you_mean
from .parameters import Parameter, signature_parameters, validate

if TYPE_CHECKING:
    from .bench import OperatorBenchmark
    from .functional import Functional
    from .modality import Modality, Reader
    from .operator import LinearOperator
    from .pipeline import Pipeline
    from .plug_and_play import Denoiser
    from .problem import Term
    from .space import Space
    from .unrolled import Unrolled

ComponentKind = Literal[
    "operator", "prior", "denoiser", "pipeline", "modality", "reader", "architecture", "model", "benchmark"
]
KINDS: tuple[ComponentKind, ...] = get_args(ComponentKind)
_HOOKS: dict[ComponentKind, str] = {
    "operator": "priorloom_operators",
    "prior": "priorloom_priors",
    "denoiser": "priorloom_denoisers",
    "pipeline": "priorloom_pipelines",
    "modality": "priorloom_modalities",
    "reader": "priorloom_readers",
    "architecture": "priorloom_architectures",
    "model": "priorloom_models",
    "benchmark": "priorloom_benchmarks",
}
_POSITIONAL: dict[ComponentKind, int] = {"prior": 1, "denoiser": 1, "architecture": 1}  # the space, the operator
_DOTTED = ("operator", "model", "benchmark")  # named modality.name


@dataclass(frozen=True)
class Plugin:
    """A plugin as found: its entry point, distribution and version, what it offers, or why it could not be loaded."""

    name: str
    distribution: str
    version: str
    components: Mapping[ComponentKind, tuple[str, ...]] = field(default_factory=dict)
    error: str | None = None


@dataclass(frozen=True)
class _Entry:
    plugin: str
    distribution: str
    factory: hooks.Factory


class Registry:
    """Every component that the installed plugins offer, by kind and name.

    Make one with ``Registry.discover()``. Nothing heavy is imported until a component is used.
    """

    def __init__(self) -> None:
        self._entries: dict[tuple[ComponentKind, str], list[_Entry]] = {}
        self._plugins: list[Plugin] = []

    @classmethod
    def discover(cls) -> Registry:
        """Load the entry points of group ``priorloom``, each inside its own guard.

        ``PRIORLOOM_PLUGINS=a,b`` loads only those; ``PRIORLOOM_DEBUG=1`` lets a plugin's exception through.
        """
        found = sorted(entry_points(group="priorloom"), key=lambda e: e.name)
        chosen = os.environ.get("PRIORLOOM_PLUGINS")
        if chosen is not None:
            wanted = [name.strip() for name in chosen.split(",") if name.strip()]
            known = {e.name for e in found}
            for name in wanted:
                if name not in known:
                    raise InputError(f"unknown plugin '{name}' in PRIORLOOM_PLUGINS", cure=did_you_mean(name, known))
            found = [e for e in found if e.name in wanted]
        registry = cls()
        for entry in found:
            registry._load(entry)
        return registry

    def _load(self, entry: EntryPoint) -> None:
        dist = entry.dist
        name, version = (dist.name, dist.version) if dist else ("unknown", "unknown")
        try:
            offered = _offered(entry.name, entry.load())
        except (Exception, SystemExit) as error:
            if os.environ.get("PRIORLOOM_DEBUG") == "1":
                raise
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            self._plugins.append(Plugin(entry.name, name, version, error=reason))
            return
        for kind, factories in offered.items():
            for component, factory in factories.items():
                self._entries.setdefault((kind, component), []).append(_Entry(entry.name, name, factory))
        self._plugins.append(Plugin(entry.name, name, version, {k: tuple(f) for k, f in offered.items() if f}))

    @property
    def plugins(self) -> tuple[Plugin, ...]:
        """Every plugin found, the broken ones with their error."""
        return tuple(self._plugins)

    def names(self, kind: ComponentKind) -> tuple[str, ...]:
        """The names of one kind of component, sorted."""
        return tuple(sorted(name for k, name in self._entries if k == kind))

    def source(self, kind: ComponentKind, name: str) -> str:
        """The plugin (or plugins, where two claim the name) that offers a component."""
        return ", ".join(e.plugin for e in self._entries.get((kind, name), []))

    def factory(self, kind: ComponentKind, name: str) -> Callable[..., Any]:
        """The factory of a component, imported now when it was named by a string.

        Raises
        ------
        InputError
            Unknown name, with the closest one and with the broken plugins that might have had it.
        PluginError
            Two plugins claim the name, or the factory cannot be imported.
        """
        entries = self._entries.get((kind, name))
        if not entries:
            cure = did_you_mean(name, self.names(kind))
            broken = [f"{p.name} ({p.distribution} {p.version}): {p.error}" for p in self._plugins if p.error]
            raise InputError(
                f"unknown {kind} '{name}'", cure=cure + (f"; not loaded: {'; '.join(broken)}" if broken else "")
            )
        if len(entries) > 1:
            owners = " and ".join(f"'{e.plugin}' ({e.distribution})" for e in entries)
            raise PluginError(
                f"{kind} '{name}' is claimed by plugins {owners}",
                cure="uninstall one, or choose with PRIORLOOM_PLUGINS=NAME,...",
            )
        entry = entries[0]
        if not isinstance(entry.factory, str):
            return entry.factory
        module, _, attribute = entry.factory.partition(":")
        try:
            factory = getattr(import_module(module), attribute)
        except PriorloomError:
            raise
        except (Exception, SystemExit) as error:
            if os.environ.get("PRIORLOOM_DEBUG") == "1":
                raise
            raise PluginError(
                f"{kind} '{name}' of plugin '{entry.plugin}' ({entry.distribution}) cannot be loaded: "
                f"{type(error).__name__}: {error}"
            ) from error
        if not callable(factory):
            raise PluginError(
                f"factory of {kind} '{name}' ({entry.factory})", expected="a callable", got=type(factory).__name__
            )
        return factory  # type: ignore[no-any-return]

    def parameters(self, kind: ComponentKind, name: str) -> tuple[Parameter, ...]:
        """The settings of a component by their dotted names, those of a pipeline's slots at their defaults included."""
        if kind == "pipeline":
            from .binding import pipeline_parameters

            return pipeline_parameters(self, self.pipeline(name), {})
        if kind == "architecture":
            from .binding import factory_parameters

            return factory_parameters(self, self.factory(kind, name), f"architecture '{name}'", {})
        if kind == "reader":
            reader = self.reader(name)
            return signature_parameters(reader.read, 1, f"reader '{name}'", "input.")
        if kind == "modality":
            found = signature_parameters(self.modality(name).cases, 2, f"modality '{name}'", "case.")
            return tuple(p for p in found if p.name != "case.seed")  # the run's seed, which the host gives
        return signature_parameters(self.factory(kind, name), _POSITIONAL.get(kind, 0), f"{kind} '{name}'")

    def bind(self, kind: ComponentKind, name: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """`given` validated against the signature of a component."""
        factory = self.factory(kind, name)
        owner = f"{kind} '{name}'"
        return validate(signature_parameters(factory, _POSITIONAL.get(kind, 0), owner), given, owner)

    def _make(self, kind: ComponentKind, name: str, *space: Space, **parameters: Any) -> Any:
        """A component from its factory; what a foreign factory raises by mistake is told with the plugin's name."""
        factory = self.factory(kind, name)
        with guarded(f"{kind} '{name}' of plugin '{self.source(kind, name)}'"):
            return factory(*space, **parameters)

    def operator(self, name: str, **parameters: Any) -> LinearOperator:
        """A forward operator: ``registry.operator("ct.parallel2d", image_shape=(256, 256), views=180)``."""
        made: LinearOperator = self._make("operator", name, **self.bind("operator", name, parameters))
        return made

    def prior(self, name: str, space: Space, **parameters: Any) -> Functional | Term:
        """A prior on `space`: a Functional for the prox slot, or a Term behind an operator."""
        made: Functional | Term = self._make("prior", name, space, **self.bind("prior", name, parameters))
        return made

    def denoiser(self, name: str, space: Space, **parameters: Any) -> Denoiser:
        """A denoiser on `space`."""
        made: Denoiser = self._make("denoiser", name, space, **self.bind("denoiser", name, parameters))
        return made

    def architecture(self, name: str, operator: LinearOperator, settings: Mapping[str, Any] | None = None) -> Unrolled:
        """An untrained network for `operator`; `settings` by their dotted names, such as ``{"layers": 8}``."""
        from .binding import bind_factory

        factory = self.factory("architecture", name)
        arguments, _ = bind_factory(self, factory, f"architecture '{name}'", settings or {})
        with guarded(f"architecture '{name}' of plugin '{self.source('architecture', name)}'"):
            made: Unrolled = factory(operator, **arguments)
        return made

    def model(self, name: str) -> Path:
        """The folder of the newest version of a trained model, with ``model.safetensors`` and ``card.json``."""
        from .models import newest_version

        return newest_version(Path(self._make("model", name)))

    def pipeline(self, name: str) -> Pipeline:
        """A reconstruction method."""
        made: Pipeline = self._make("pipeline", name)
        return made

    def modality(self, name: str) -> Modality:
        """A modality."""
        made: Modality = self._make("modality", name)
        return made

    def reader(self, name: str) -> Reader:
        """A file reader."""
        made: Reader = self._make("reader", name)
        return made

    def benchmark(self, name: str) -> OperatorBenchmark:
        """Cases of an operator, and the implementations that it is compared with."""
        made: OperatorBenchmark = self._make("benchmark", name)
        return made


@contextmanager
def guarded(owner: str) -> Iterator[None]:
    """Around code of a plugin: what it raises by mistake becomes a PluginError that names `owner`.

    ``PRIORLOOM_DEBUG=1`` lets it through.
    """
    try:
        yield
    except PriorloomError:
        raise
    except (Exception, SystemExit) as error:
        if os.environ.get("PRIORLOOM_DEBUG") == "1":
            raise
        raise PluginError(f"{owner} failed: {type(error).__name__}: {error}") from error


def _offered(name: str, module: object) -> dict[ComponentKind, dict[str, hooks.Factory]]:
    """What a plugin's hooks return, checked."""
    manager = pluggy.PluginManager("priorloom")
    manager.add_hookspecs(hooks)
    manager.register(module, name)
    callers = manager.get_hookcallers(module) or []
    for caller in callers:
        if not caller.has_spec():
            raise PluginError(f"unknown hook '{caller.name}'", cure=did_you_mean(caller.name, _HOOKS.values()))
    kinds = {hook: kind for kind, hook in _HOOKS.items()}
    if not callers:
        raise PluginError("no hook found", cure="decorate the hook functions with @priorloom.hookimpl")
    return {kinds[c.name]: _checked(c.name, kinds[c.name], c()) for c in callers}


def _checked(hook: str, kind: ComponentKind, results: Sequence[object]) -> dict[str, hooks.Factory]:
    returned = results[0] if results else None  # pluggy leaves out a None
    if not isinstance(returned, Mapping):
        raise PluginError(f"{hook} returned {type(returned).__name__}", expected="a mapping name -> factory")
    for name, factory in returned.items():
        if not isinstance(name, str) or not (callable(factory) or isinstance(factory, str)):
            raise PluginError(
                f"{hook}", expected="names with a callable or 'module:attribute'", got=f"{name!r}: {factory!r}"
            )
        if name.count(".") != (kind in _DOTTED) or not all(re.fullmatch(r"[\w-]+", part) for part in name.split(".")):
            expected = "a name like 'modality.name'" if kind in _DOTTED else "a plain name (letters, digits, - and _)"
            raise PluginError(f"{hook}", expected=expected, got=repr(name))
        if isinstance(factory, str) and not all(factory.partition(":")):
            raise PluginError(
                f"factory of '{name}' in {hook}", expected="'package.module:attribute'", got=repr(factory)
            )
    return dict(returned)
