"""``priorloom cache``: what is kept on disk between runs, and its removal."""

from __future__ import annotations

import datetime
import json

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from priorloom.cache import cache_cap, cache_entries, cache_folder, clear_cache
from priorloom.memory import readable_bytes


def list_cache(console: Console, as_json: bool) -> None:
    """Prints every entry, the last used first, with its size, and the folder and cap of the cache."""
    entries = cache_entries()
    if as_json:
        rows = [{"about": e.about, "bytes": e.size, "used": _date(e.used), "file": e.path.name} for e in entries]
        print(json.dumps({"folder": str(cache_folder()), "cap": cache_cap(), "entries": rows}, indent=2))
        return
    if entries:
        table = Table(box=None)
        table.add_column("what")
        table.add_column("size", justify="right")
        table.add_column("last used")
        for entry in entries:
            table.add_row(escape(entry.about), readable_bytes(entry.size), _date(entry.used))
        console.print(table)
    held = sum(entry.size for entry in entries)
    summary = f"{len(entries)} entries, {readable_bytes(held)} of at most {readable_bytes(cache_cap())}"
    console.print(f"{summary}, in {cache_folder()}", markup=False, soft_wrap=True)


def empty_cache(console: Console) -> None:
    """Deletes every entry, and says how much that was."""
    count, freed = clear_cache()
    console.print(f"{count} entries deleted, {readable_bytes(freed)}")


def _date(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds).isoformat(" ", "minutes")
