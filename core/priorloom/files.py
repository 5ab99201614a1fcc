"""Writing files: each appears whole or not at all, and an older one is never destroyed by a kill."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from .errors import OutputError


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


def _refused(path: Path, error: OSError) -> OutputError:
    reason = error.strerror or str(error)
    return OutputError(
        f"output {path}", expected="a place that can be written", got=reason, cure="choose another --out"
    )


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
