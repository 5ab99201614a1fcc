"""What the page does, without a page: open a case, say which methods fit it, run them, write the config.

opened = open_case(registry, Source(modality="ct", settings={"images": ["ct-small"]}))
results = run_methods(registry, opened, methods_of([Row("fbp")]), tell, Event())
text = config_text(opened.source, methods, folder)
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from torch import Tensor

from priorloom.comparison import default_methods
from priorloom.config import Plan, make_cases, make_methods
from priorloom.errors import InputError, PriorloomError
from priorloom.modality import Case, Modality
from priorloom.pipeline import Range, Result
from priorloom.reconstruction import Method, reconstruct
from priorloom.registry import Registry
from priorloom.solve import Record

from ..pictures import plane

METHODS = 4
"""The most methods side by side."""
FILE_LIMIT, VALUE_LIMIT, PLANE_LIMIT = 2**31, 2**25, 2**22
"""Bytes of a scan file, values of an image, and pixels of the plane of it that is shown."""

_TURN = threading.Lock()
"""Methods draw from one generator, which two runs at a time would share: one run at a time, whatever the window."""

Plane = NDArray[np.float32]


class Stopped(PriorloomError):
    """The user stopped the run."""


@dataclass(frozen=True)
class Source:
    """Where a case comes from: a file, or the simulated cases of a modality.

    Parameters
    ----------
    modality
        "ct", "mri" or a plugin's; None leaves it to the file.
    file
        A scan; None for a simulated case.
    settings
        The reader's options or the settings of the simulated cases, without ``input.`` or ``case.``.
    seed
        Of noise, phantoms and methods.
    """

    modality: str | None = None
    file: Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0

    def plan(self, methods: Sequence[Method] | None = None) -> Plan:
        """The comparison of `methods` on this case."""
        simulated = self.file is None
        return Plan(
            modality=self.modality,
            input=self.file,
            options={} if simulated else self.settings,
            case=self.settings if simulated else {},
            methods=None if methods is None else tuple(methods),
            seed=self.seed,
        )


@dataclass(frozen=True)
class Opened:
    """A case that is ready: its source, its modality, and the plane of the truth, in units that are read."""

    source: Source
    case: Case
    modality: Modality
    truth: Plane | None

    @property
    def units(self) -> str:
        """Of every value that is shown: those of the modality's second scale where it has one."""
        reading = self.modality.reading
        return self.modality.units if reading is None else reading.units

    def shown(self, image: Tensor) -> Plane:
        """The plane of an image that is shown, ``[rows, columns]``, in `units`."""
        values = plane(self.modality.display(self.case.operator.combined(image)))
        reading = self.modality.reading
        return np.asarray(values if reading is None else reading.factor * values + reading.offset, dtype=np.float32)


def open_case(registry: Registry, source: Source) -> Opened:
    """Read or simulate the case; the first one where a modality makes several.

    Raises
    ------
    InputError
        What cannot be read, or is too large to be watched.
    """
    if source.file is not None and source.file.is_file() and source.file.stat().st_size > FILE_LIMIT:
        raise InputError(f"file {source.file.name}", expected=f"at most {FILE_LIMIT} bytes",
                         got=source.file.stat().st_size, cure="use priorloom reconstruct")  # fmt: skip
    case = make_cases(source.plan(), registry)[0]
    space = case.operator.domain
    pixels = int(np.prod(space.shape[-2:]))
    if space.size > VALUE_LIMIT or pixels > PLANE_LIMIT:
        raise InputError(f"image of case '{case.name}'", expected=f"at most {VALUE_LIMIT} values, {PLANE_LIMIT} shown",
                         got=" x ".join(map(str, space.shape)), cure="use priorloom reconstruct")  # fmt: skip
    opened = Opened(source, case, registry.modality(case.modality), None)
    return opened if case.truth is None else replace(opened, truth=opened.shown(case.truth))


def fitting_methods(registry: Registry, modality: str) -> tuple[str, ...]:
    """Every method that can run on a modality: those that ``compare`` runs first, then the rest by name. Learned ones
    are among the former where a model is installed, and have nothing to run where none is."""
    first = default_methods(registry, modality)
    rest = []
    for name in registry.names("pipeline"):
        try:
            pipeline = registry.pipeline(name)
        except PriorloomError:  # a broken plugin, which `priorloom plugins` describes
            continue
        if pipeline.kind != "learned" and modality in (pipeline.modalities or (modality,)):
            rest.append(name)
    return tuple(dict.fromkeys((*first, *rest)))


@dataclass(frozen=True)
class Row:
    """A method with its settings by dotted names."""

    pipeline: str
    settings: Mapping[str, Any] = field(default_factory=dict)


def methods_of(rows: Sequence[Row]) -> list[Method]:
    """The methods of a comparison; the second one of a name is labelled NAME-2.

    Raises
    ------
    InputError
        None, or more than `METHODS`.
    """
    if not 1 <= len(rows) <= METHODS:
        raise InputError("methods", expected=f"one to {METHODS}", got=len(rows) or "none")
    seen: dict[str, int] = {}
    methods = []
    for row in rows:
        seen[row.pipeline] = seen.get(row.pipeline, 0) + 1
        count = seen[row.pipeline]
        methods.append(Method(row.pipeline, dict(row.settings), f"{row.pipeline}-{count}" if count > 1 else None))
    return methods


def automatic_values(registry: Registry, opened: Opened, row: Row) -> dict[str, float]:
    """The values that a method chooses by itself for the case, of parameters that are searched around them.

    One iteration is made to learn them.
    """
    search = registry.pipeline(row.pipeline).search
    relative = [name for name, where in search.items() if isinstance(where, Range) and where.relative]
    if not relative:
        return {}
    settings = {k: v for k, v in row.settings.items() if k not in relative}
    with _TURN:
        method = Method(row.pipeline, {**settings, "solver.max_iterations": 1})
        result = reconstruct(opened.case, method, registry=registry, seed=opened.source.seed)
    found = {name: result.parameters.get(name) for name in relative}
    return {name: float(value) for name, value in found.items() if isinstance(value, int | float)}


@dataclass(frozen=True)
class Frame:
    """A method at one moment: its image in the units that are read, its curve so far, and its result at the end.

    A method that failed has an error and no image.
    """

    method: str
    place: int
    image: Plane | None
    history: tuple[Record, ...]
    result: Result | None = None
    error: str = ""


def run_methods(
    registry: Registry,
    opened: Opened,
    methods: Sequence[Method],
    tell: Callable[[Frame], None],
    stop: threading.Event,
    explain: Callable[[Exception], str] = str,
) -> list[Result]:
    """Run the methods one after the other, and tell of every point of their curves and of their ends.

    A method that fails is told of, and the next one runs.

    Parameters
    ----------
    registry, opened, methods
        What to run on what.
    tell
        Called in this thread, often; it must be quick.
    stop
        Set from another thread: the run ends at the next point of a curve, or before the next method.
    explain
        The text of an error.

    Raises
    ------
    Stopped
        When `stop` was set.
    InputError
        Settings that do not fit, before anything runs.
    """
    rows = make_methods(opened.source.plan(methods), registry, [opened.case.modality])[opened.case.modality]
    results = []
    while not _TURN.acquire(timeout=0.1):  # another window runs
        _check(stop)
    try:
        for place, method in enumerate(rows):
            _check(stop)
            history: list[Record] = []

            def watch(
                record: Record, image: Tensor, method: Method = method, place: int = place, history: Any = history
            ) -> None:
                history.append(record)
                tell(Frame(method.name, place, opened.shown(image), tuple(history)))
                _check(stop)

            try:
                result = reconstruct(opened.case, method, registry=registry, seed=opened.source.seed, watch=watch)
            except Stopped:
                raise
            except Exception as error:
                tell(Frame(method.name, place, None, tuple(history), error=explain(error)))
                continue
            results.append(result)
            tell(Frame(method.name, place, opened.shown(result.image), result.history, result))
    finally:
        _TURN.release()
    return results


def _check(stop: threading.Event) -> None:
    if stop.is_set():
        raise Stopped("stopped")


def config_text(source: Source, methods: Sequence[Method], folder: Path) -> str:
    """The YAML that ``priorloom compare`` reproduces, for a config in `folder`: a file is named relative to it."""
    document: dict[str, Any] = {}
    if source.modality is not None:
        document["modality"] = source.modality
    if source.file is not None:
        document["input"] = {"file": Path(os.path.relpath(source.file, folder)).as_posix(), **source.settings}
    elif source.settings:
        document["case"] = dict(source.settings)
    document["methods"] = [_entry(method) for method in methods]
    document["seed"] = source.seed
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, default_flow_style=None, width=110)


def _entry(method: Method) -> str | dict[str, Any]:
    label = {} if method.label is None else {"label": method.label}
    return {"method": method.pipeline, **label, **method.settings} if label or method.settings else method.pipeline


__all__ = [
    "METHODS", "Frame", "Opened", "Row", "Source", "Stopped", "automatic_values", "config_text", "fitting_methods",
    "methods_of", "open_case", "run_methods",
]  # fmt: skip
