"""From a file to a Case: find the reader, read the scan, build its operator through the registry."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .errors import InputError, PluginError, ReaderError, did_you_mean
from .modality import Case, Reader, Scan, slug
from .operator import LinearOperator
from .parameters import signature_parameters, validate
from .registry import Registry, guarded


def read_case(
    path: Path,
    registry: Registry,
    *,
    modality: str | None = None,
    options: Mapping[str, Any] | None = None,
    operator: Mapping[str, Any] | None = None,
) -> Case:
    """Read a measurement as a Case.

    Parameters
    ----------
    path
        The file.
    registry
        Where readers and operators come from.
    modality
        Refuse a file of another modality.
    options
        The reader's options (``input.*``); ``reader`` forces a reader by name.
    operator
        Corrections of what the file says of the operator (``operator.*``); ``name`` replaces the operator.

    Raises
    ------
    ReaderError
        No reader recognises the file, or its reader refuses it.
    InputError
        An unknown option, or an operator that does not fit the measurement.
    """
    if not path.exists():
        raise ReaderError(f"input {path}", expected="a file", got="nothing there", cure="check the path")
    if not path.is_file():
        raise ReaderError(f"input {path}", expected="a file", got="a directory or a device")
    chosen = dict(options or {})
    reader = find_reader(path, registry, chosen.pop("reader", None))
    owner = f"reader '{reader.name}'"
    prefixed = {f"input.{name}": value for name, value in chosen.items()}
    arguments = validate(signature_parameters(reader.read, 1, owner, "input."), prefixed, owner)
    with guarded(f"{owner} on {path.name}"):  # a reader promises to raise ReaderError only
        scan = reader.read(path, **{name.removeprefix("input."): value for name, value in arguments.items()})
    if modality is not None and scan.modality != modality:
        raise ReaderError(f"modality of {path.name}", expected=modality, got=scan.modality)
    return case_from_scan(registry, scan, slug(path.stem), operator or {})


def case_from_scan(registry: Registry, scan: Scan, name: str, operator: Mapping[str, Any]) -> Case:
    """The Case of a Scan, with corrections of its operator.

    Raises
    ------
    InputError
        The operator refuses its parameters, or the measurement does not fit its range.
    """
    overrides = dict(operator)
    facts = dict(scan.metadata)
    A = registry.operator(overrides.pop("name", scan.operator), **{**scan.parameters, **overrides})
    y = _tensor(scan.measurement, A.range.dtype, f"measurement of '{name}'")
    if tuple(y.shape) != A.range.shape:
        raise InputError(
            f"measurement of '{name}'",
            expected=f"shape {list(A.range.shape)} (the range of {scan.operator})",
            got=list(y.shape),
            cure="correct the geometry with operator.KEY=VALUE",
        )
    truth = None if scan.truth is None else _tensor(scan.truth, A.domain.dtype, f"truth of '{name}'")
    if truth is not None and operator:
        truth, facts["truth"] = None, "left out, since operator.* was changed and it may lie on another grid"
    return Case(name, scan.modality, A, y, truth, scan.noise_std, {**facts, "operator": describe(A)})


def describe(operator: LinearOperator) -> str:
    """An operator in a few words: its type, domain and range."""
    a, b = (" x ".join(map(str, s.shape)) for s in (operator.domain, operator.range))
    return f"{type(operator).__name__}: {a} -> {b}"


def find_reader(path: Path, registry: Registry, forced: object) -> Reader:
    """The reader that recognises a file, or the one that is named.

    Raises
    ------
    ReaderError
        No reader recognises it.
    """
    if forced is not None:
        if not isinstance(forced, str):
            raise InputError("input.reader", expected="the name of a reader", got=repr(forced))
        return registry.reader(forced)
    readers, broken = [], ""
    for name in registry.names("reader"):
        try:
            readers.append(registry.reader(name))
        except PluginError as error:  # it must not keep the others from their files
            broken += f"; not loaded: {error}"
    suffix = path.suffix.lower()
    claiming = [r for r in readers if suffix in r.suffixes]
    for reader in claiming:
        try:
            with guarded(f"reader '{reader.name}' on {path.name}"):
                if reader.recognises(path):
                    return reader
        except PluginError as error:
            broken += f"; {error}"
    if claiming:
        names = ", ".join(r.name for r in claiming)
        size = path.stat().st_size
        raise ReaderError(
            f"input {path}",
            expected=f"content that a reader of {suffix} files recognises ({names})",
            got=f"{size} bytes that none does" if size else "an empty file",
            cure=broken.removeprefix("; "),
        )
    known = sorted({s for r in readers for s in r.suffixes})
    raise ReaderError(
        f"input {path}",
        expected=f"one of {', '.join(known)}",
        got=suffix or "no suffix",
        cure=_hint(suffix, known) + broken,
    )


def _hint(suffix: str, known: list[str]) -> str:
    hint = did_you_mean(suffix, known)
    return hint if hint.startswith("did") else "install a plugin that reads it"


def _tensor(array: np.ndarray[Any, Any], dtype: torch.dtype, what: str) -> torch.Tensor:
    if np.iscomplexobj(array) and not dtype.is_complex:
        raise InputError(what, expected="real numbers", got=array.dtype)
    with np.errstate(over="ignore"):  # what overflows is infinite, and refused as such
        return torch.from_numpy(np.ascontiguousarray(array, dtype=torch.empty(0, dtype=dtype).numpy().dtype))
