"""Arrays that are costly to compute, kept on disk between runs.

One ``.npz`` file for each key, in the user's cache folder (``PRIORLOOM_CACHE`` names another). Files appear whole or
not at all, so that processes may share the folder; when it grows beyond its cap (``PRIORLOOM_CACHE_GIB``, 0 for no
cache) the files that were not used for longest go first. A file that cannot be read is made anew: the cache is never
the reason that something fails.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import time
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import platformdirs

from .errors import InputError, OutputError
from .files import write_atomic

DEFAULT_CAP_GIB = 4.0

Arrays = dict[str, npt.NDArray[Any]]

_ABOUT = "about"

_NAME = re.compile("[0-9a-f]{64}")
"""Of our files, without their ending: whoever puts the cache beside other arrays keeps those."""


@dataclass(frozen=True)
class Entry:
    """One file of the cache.

    Parameters
    ----------
    path
        Where it is.
    about
        What it holds, in words.
    size
        Bytes.
    used
        When it was last used, in seconds since the epoch.
    """

    path: Path
    about: str
    size: int
    used: float


def cache_folder() -> Path:
    """The folder of the cache; it need not exist."""
    given = os.environ.get("PRIORLOOM_CACHE")
    return Path(given) if given else Path(platformdirs.user_cache_dir("priorloom", appauthor=False)) / "arrays"


def cache_cap() -> int:
    """Bytes that the cache may take.

    Raises
    ------
    InputError
        When ``PRIORLOOM_CACHE_GIB`` is no number of at least 0.
    """
    given = os.environ.get("PRIORLOOM_CACHE_GIB")
    try:
        gib = float(given) if given else DEFAULT_CAP_GIB
    except ValueError:
        gib = -1.0
    if not 0 <= gib < 1e9:
        raise InputError("PRIORLOOM_CACHE_GIB", expected="a number of GiB, 0 for no cache", got=repr(given))
    return int(gib * 2**30)


def cached(key: Mapping[str, Any], about: str, make: Callable[[], Arrays], fits: Callable[[Arrays], bool]) -> Arrays:
    """The arrays of `key`: from the cache, or made and put there.

    Parameters
    ----------
    key
        All that determines the arrays, the versions of what computes them included: plain values.
    about
        What they are, in words, for ``priorloom cache list``.
    make
        Computes them.
    fits
        Whether arrays from a file can be what was asked for; the file may have been tampered with.
    """
    cap = cache_cap()
    if not cap:
        return make()
    name = hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()
    path = cache_folder() / f"{name}.npz"
    found = _read(path)
    if found is not None and fits(found):
        return found
    arrays = make()
    _store(path, about, arrays, cap)
    return arrays


def cache_entries() -> list[Entry]:
    """What the cache holds, the last used first; other files in the folder are left alone."""
    entries = []
    for path in cache_folder().glob("*.npz"):
        if not _NAME.fullmatch(path.stem):
            continue
        with contextlib.suppress(OSError):
            facts = path.stat()
            entries.append(Entry(path, _about(path), facts.st_size, facts.st_mtime))
    return sorted(entries, key=lambda entry: -entry.used)


def clear_cache() -> tuple[int, int]:
    """Deletes every file of the cache; their number and bytes."""
    entries = [entry for entry in cache_entries() if _deleted(entry.path)]
    return len(entries), sum(entry.size for entry in entries)


def _read(path: Path) -> Arrays | None:
    arrays = _load(path, lambda name: name != _ABOUT)
    with contextlib.suppress(OSError):
        os.utime(path)
    return arrays


def _about(path: Path) -> str:
    text = (_load(path, lambda name: name == _ABOUT) or {}).get(_ABOUT, "cannot be read")
    return "".join(c for c in str(text)[:200] if c.isprintable())


def _load(path: Path, wanted: Callable[[str], bool]) -> Arrays | None:
    try:
        with path.open("rb") as stored:
            # zipfile checks a CRC for every array. Nothing is compressed, so nothing may unpack to more than the file.
            with zipfile.ZipFile(stored) as archive:
                if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
                    return None
            stored.seek(0)
            with np.load(stored, allow_pickle=False) as file:
                return {name: file[name] for name in file.files if wanted(name)}
    except Exception:  # zipfile, zlib and NumPy raise what they like where bytes are damaged
        return None


def _store(path: Path, about: str, arrays: Arrays, cap: int) -> None:
    if sum(array.nbytes for array in arrays.values()) > cap:
        return
    content = io.BytesIO()
    np.savez(content, **{_ABOUT: np.array(about)}, **arrays)  # type: ignore[arg-type]
    with contextlib.suppress(OutputError):
        write_atomic(path, content.getvalue())
    _shrink(cap, path)


def _shrink(cap: int, newest: Path) -> None:
    kept = 0
    for entry in cache_entries():
        kept += entry.size
        if kept > cap and entry.path != newest:
            _deleted(entry.path)
    # What a killed process left half written.
    for path in cache_folder().glob(".*.npz.*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > 3600:
                path.unlink()


def _deleted(path: Path) -> bool:
    try:
        path.unlink()
    except OSError:
        return False
    return True
