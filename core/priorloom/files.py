"""Files: written whole or not at all, so that a kill never destroys an older one; and read with a bound."""

from __future__ import annotations

import math
import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import InputError, OutputError


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


def read_bounded(path: Path, limit: int, expected: str) -> bytes:
    """The content of a regular file that is no link, of at most `limit` bytes; its size is looked at first.

    Raises
    ------
    InputError
        It is not there, cannot be read, or is something else; `expected` says what it should be, in words.
    """
    try:
        # O_NONBLOCK: a named pipe must not be waited for.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(handle, "rb") as file:
            facts = os.fstat(file.fileno())
            if not stat.S_ISREG(facts.st_mode):
                raise InputError(str(path), expected="a file", got="a directory or a device")
            if facts.st_size > limit:
                raise InputError(str(path), expected=f"at most {limit} bytes", got=facts.st_size)
            return file.read(limit)
    except OSError as error:
        got = "a link" if path.is_symlink() else error.strerror
        raise InputError(str(path), expected=expected, got=got) from error


def _refused(path: Path, error: OSError) -> OutputError:
    reason = error.strerror or str(error)
    return OutputError(
        f"output {path}", expected="a place that can be written", got=reason, cure="choose another --out"
    )


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def json_value(value: Any) -> Any:
    """`value` as JSON can hold it: numbers that are not finite become None, and what it does not know its text."""
    if isinstance(value, Mapping):
        return {str(k): json_value(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, str | int | bool | None) else str(value)
