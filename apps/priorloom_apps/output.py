"""Writing results: every file appears whole or not at all, and an older one is never destroyed by a kill."""

from __future__ import annotations

import io
import json
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from priorloom.comparison import versions
from priorloom.errors import OutputError
from priorloom.pipeline import Result

SCHEMA = 1


def write_atomic(path: Path, content: bytes) -> None:
    """Write `content` to a temporary name beside `path`, fsync, and rename.

    Raises
    ------
    OutputError
        The folder cannot be written.
    """
    try:
        path = Path(os.path.realpath(path))  # a link goes on pointing to what it names
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise _refused(path, error) from error


def check_writable(folder: Path) -> None:
    """Make `folder` and try a file in it, so that a long run does not fail at its end.

    Raises
    ------
    OutputError
        It cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _refused(folder, error) from error


def npy_bytes(image: np.ndarray[Any, Any]) -> bytes:
    """An array as the content of a ``.npy`` file."""
    buffer = io.BytesIO()
    np.save(buffer, image, allow_pickle=False)
    return buffer.getvalue()


def row(result: Result, image: str | None) -> dict[str, Any]:
    """A result as one row of ``results.json``; metric fields are None without a truth."""
    figures = result.metrics or {}
    return {
        "modality": result.modality,
        "case": result.case,
        "method": result.method,
        "kind": result.kind,
        **{name: figures.get(name) for name in ("psnr", "ssim", "nmse", "data_range")},
        "seconds": result.seconds,
        "iterations": result.iterations,
        "residual": result.residual,
        "gap": result.gap,
        "objective": result.objective,
        "converged": result.converged,
        "criterion": result.criterion,
        "parameters": dict(result.parameters),
        "tuned": result.tuned,
        "certificate": result.certificate,
        "model": None if result.model is None else asdict(result.model),
        "warnings": list(result.warnings),
        "scale": result.scale,
        "image": image,
    }


def results_json(rows: Sequence[Mapping[str, Any]], seed: int) -> bytes:
    """The content of ``results.json``; not-finite numbers become null, since JSON has none."""
    document = {"schema": SCHEMA, "seed": seed, "versions": dict(versions()), "rows": [_plain(r) for r in rows]}
    return (json.dumps(document, indent=1, allow_nan=False) + "\n").encode()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, str | int | bool | None) else str(value)


def _refused(path: Path, error: OSError) -> OutputError:
    reason = error.strerror or str(error)
    return OutputError(
        f"output {path}", expected="a place that can be written", got=reason, cure="choose another --out"
    )


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
