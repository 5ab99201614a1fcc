"""Sources: which files a comparison reads, so that they can be recognised, and found again in another place."""

from __future__ import annotations

import hashlib
import os
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

import pydantic
from pydantic import Field
from pydantic.dataclasses import dataclass

from ..binding import pipeline_parameters
from ..card import WEIGHTS_FILE, Text
from ..config import Plan
from ..errors import InputError
from ..loading import find_reader
from ..models import newest_version
from ..parameters import Parameter, signature_parameters
from ..protocol.tuning import Tuning
from ..reconstruction import Method
from ..registry import Registry

FILE_LIMIT = 10_000
"""Files of one source."""
SEARCH_LIMIT = 1_000_000
"""Files that are looked at in the search for one."""
SHOWN = 12
"""Digits of a hash in messages."""

_Measured = TypeVar("_Measured", Plan, Tuning)
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def _inside(name: str) -> str:
    if any(part in ("", ".", "..") for part in name.split("/")):
        raise ValueError("no name of a file inside a folder")
    return name


_CONFIG = pydantic.ConfigDict(extra="forbid")


@dataclass(frozen=True, config=_CONFIG)
class SourceFile:
    """A file: its name relative to the folder that the path of its source lies in, its size, and its content."""

    name: Annotated[Text, pydantic.AfterValidator(_inside)]
    bytes: Annotated[int, Field(ge=0)]
    sha256: Sha256


@dataclass(frozen=True, config=_CONFIG)
class Source:
    """What one setting reads.

    Parameters
    ----------
    setting
        "input", "input.maps", "case.files", "tuned" or "METHOD.model.path".
    path
        Absolute, as the config has it: a file, or a folder of images or of a model.
    files
        Every file behind it.
    """

    setting: Text
    path: Text
    files: Annotated[tuple[SourceFile, ...], Field(min_length=1, max_length=FILE_LIMIT)]


def absolute(
    plan: Plan, rows: Mapping[str, Sequence[Method]], registry: Registry
) -> tuple[Plan, dict[str, tuple[str, ...]]]:
    """`plan` with absolute paths, and the paths that it reads, by setting.

    Which settings are paths, their components say: readers, modalities, and the methods of `rows` (``make_methods``).
    """
    found: dict[str, list[str]] = {}

    def made(setting: str, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [made(setting, item) for item in value]
        if not isinstance(value, str | Path):
            return value
        path = str(Path(value).absolute())
        if path not in found.setdefault(setting, []):
            found[setting].append(path)
        return path

    def changed(settings: Mapping[str, Any], paths: Iterable[str], prefix: str) -> dict[str, Any]:
        return {**settings, **{k: made(f"{prefix}{k}", settings[k]) for k in paths if k in settings}}

    def measured(part: _Measured, prefix: str) -> _Measured:
        """Of a plan or its section ``tuning``: the file and its options, or the simulated cases."""
        if part.input is not None:
            made(f"{prefix}input", part.input)
            reader = find_reader(part.input, registry, part.options.get("reader"))
            names = _paths(signature_parameters(reader.read, 1, reader.name))
            options = changed(part.options, names, f"{prefix}input.")
            return replace(part, input=part.input.absolute(), options=options)
        for modality in rows:
            names = [n.removeprefix("case.") for n in _paths(registry.parameters("modality", modality))]
            part = replace(part, case=changed(part.case, names, f"{prefix}case."))
        return part

    settings, methods = plan.settings, plan.methods
    for modality in rows:
        for row in rows[modality]:
            pipeline = registry.pipeline(row.pipeline)
            names = _paths(pipeline_parameters(registry, pipeline, row.settings))
            settings = changed(settings, [*names, *(f"{row.name}.{name}" for name in names)], "")
            if methods is not None:
                methods = tuple(
                    replace(m, settings=changed(m.settings, names, f"{m.name}.")) if m.name == row.name else m
                    for m in methods
                )
    tuning = None if plan.tuning is None else measured(plan.tuning, "tuning.")
    resolved = replace(measured(plan, ""), settings=settings, methods=methods, tuning=tuning)
    return resolved, {setting: tuple(paths) for setting, paths in found.items()}


def _paths(parameters: Iterable[Parameter]) -> list[str]:
    return [p.name for p in parameters if _is_path(p.annotation)]


def _is_path(annotation: Any) -> bool:
    return annotation is Path or any(_is_path(part) for part in typing.get_args(annotation))


def source(setting: str, path: Path, companions: Sequence[str] = ()) -> Source:
    """The files behind an absolute path, hashed.

    Parameters
    ----------
    setting, path
        See `Source`.
    companions
        ``Reader.companions`` of the reader that reads it.

    Raises
    ------
    InputError
        Nothing there, or too many files.
    """
    files = [describe(file, path.parent) for file in _files(path, companions)]
    if not files:
        raise InputError(f"{setting} {path}", expected="a file", got="nothing there")
    try:
        return Source(setting, str(path), tuple(files))
    except pydantic.ValidationError as error:
        raise InputError(f"{setting} {path!r}", expected="a path without control characters", got="some") from error


def _files(path: Path, companions: Sequence[str]) -> list[Path]:
    if path.is_dir():
        if (path / WEIGHTS_FILE).is_file():
            return [path / WEIGHTS_FILE]
        found = sorted(f for f in path.iterdir() if f.is_file() and not f.name.startswith("."))
        if not found:  # a model's folder of versions
            return [newest_version(path) / WEIGHTS_FILE]
        if len(found) > FILE_LIMIT:
            raise InputError(str(path), expected=f"at most {FILE_LIMIT} files", got=len(found))
        return found
    endings = companions if path.suffix.lower() in companions else ()
    return [f for f in dict.fromkeys([path, *(path.with_suffix(ending) for ending in endings)]) if f.is_file()]


def describe(file: Path, folder: Path) -> SourceFile:
    """Size and hash of a file, with its name relative to `folder`.

    Raises
    ------
    InputError
        It cannot be read.
    """
    try:
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        return SourceFile(file.relative_to(folder).as_posix(), file.stat().st_size, digest)
    except (OSError, pydantic.ValidationError) as error:
        got = error.strerror if isinstance(error, OSError) else repr(file.name)
        raise InputError(f"{file}", expected="a readable file with a plain name", got=got) from error


def find_again(wanted: Sequence[Source], data: Path | None) -> dict[str, str]:
    """Where the files of every source are now: new paths by old ones.

    A source is where it was, or else anywhere below `data`, recognised by the names and the content of its files.

    Raises
    ------
    InputError
        A file is not there, or has changed.
    """
    if data is not None and not data.is_dir():
        raise InputError(f"--data {data}", expected="a folder", got="none there")
    listing: dict[str, list[Path]] | None = None
    places: dict[str, str] = {}
    for item in wanted:
        home = Path(item.path).parent
        trouble = _differs(item, home)
        if trouble is not None and data is not None:
            listing = _listing(data) if listing is None else listing
            for folder in _candidates(item, listing):
                if _differs(item, folder) is None:
                    home, trouble = folder, None
                    break
        if trouble is not None:
            raise trouble
        places[item.path] = str(home / Path(item.path).name)
    return places


def _differs(item: Source, folder: Path) -> InputError | None:
    """What is wrong with the files of a source in `folder`."""
    for wanted in item.files:
        path = folder / wanted.name
        what = f"{item.setting} {path}"
        if not path.is_file():
            return InputError(what, expected=f"the file with sha256 {wanted.sha256[:SHOWN]}", got="nothing there",
                              cure="name the folder where it is now with --data")  # fmt: skip
        if path.stat().st_size != wanted.bytes:
            got = f"{path.stat().st_size} bytes"
            return InputError(f"changed data: {what}", expected=f"{wanted.bytes} bytes, sha256 {wanted.sha256[:SHOWN]}",
                              got=got, cure=_RESTORE)  # fmt: skip
        found = describe(path, folder)
        if found != wanted:
            return InputError(f"changed data: {what}", expected=f"sha256 {wanted.sha256[:SHOWN]}",
                              got=found.sha256[:SHOWN], cure=_RESTORE)  # fmt: skip
    place = folder / Path(item.path).name
    if place.is_dir():
        known = {folder / wanted.name for wanted in item.files}
        for other in _files(place, ()):
            if other not in known:
                return InputError(f"changed data: {item.setting} {place}", expected=f"{len(known)} files",
                                  got=f"{other.name} too", cure="take it out")  # fmt: skip
    return None


_RESTORE = "restore the file, or name the folder of an unchanged copy with --data"


def _listing(data: Path) -> dict[str, list[Path]]:
    """The files below a folder by their names; links to folders are not followed."""
    found: dict[str, list[Path]] = {}
    count = 0
    for folder, _, names in os.walk(data):
        count += len(names)
        if count > SEARCH_LIMIT:
            raise InputError(f"--data {data}", expected=f"at most {SEARCH_LIMIT} files", got="more")
        for name in sorted(names):
            found.setdefault(name, []).append(Path(folder) / name)
    return found


def _candidates(item: Source, listing: Mapping[str, list[Path]]) -> Iterator[Path]:
    """Folders that have a file where the first one of the source would be."""
    parts = Path(item.files[0].name).parts
    for path in listing.get(parts[-1], []):
        if path.parts[-len(parts) :] == parts:
            yield path.parents[len(parts) - 1]


def moved(plan: Plan, places: Mapping[str, str]) -> Plan:
    """`plan` with every path of `places` replaced."""

    def new(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {k: new(v) for k, v in value.items()}
        if isinstance(value, list):
            return [new(v) for v in value]
        return places.get(value, value) if isinstance(value, str) else value

    methods = plan.methods
    if methods is not None:
        methods = tuple(replace(m, settings=new(m.settings)) for m in methods)

    def measured(part: _Measured) -> _Measured:
        file = None if part.input is None else Path(new(str(part.input)))
        return replace(part, input=file, options=new(part.options), case=new(part.case))

    tuning = None if plan.tuning is None else measured(plan.tuning)
    return replace(measured(plan), settings=new(plan.settings), methods=methods, tuning=tuning)


__all__ = ["Source", "SourceFile", "absolute", "describe", "find_again", "moved", "source"]
