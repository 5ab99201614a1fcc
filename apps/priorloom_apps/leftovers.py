"""Files in the folder of a comparison that are not of its last run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

FOLDERS = ("images", "tables", "figures", "tuning")


def files_in(out: Path) -> dict[str, int]:
    """When each file in the folders that a comparison fills was written, in nanoseconds, by its path in `out`."""
    found = {}
    for name in FOLDERS:
        for folder, _, names in os.walk(out / name):
            for file in names:
                path = Path(folder, file)
                found[path.relative_to(out).as_posix()] = path.lstat().st_mtime_ns
    return found


def leftover(before: Mapping[str, int], out: Path) -> str:
    """In words, which of the files of `before` are as they were; empty where none is."""
    after = files_in(out)
    kept = sorted(name for name, written in before.items() if after.get(name) == written)
    if not kept:
        return ""
    more = f" and {len(kept) - 3} more" if len(kept) > 3 else ""
    return f"{out} holds what is not of this run: {', '.join(kept[:3])}{more}"


__all__ = ["files_in", "leftover"]
