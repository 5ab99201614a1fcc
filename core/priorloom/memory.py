"""How much memory there is, asked before it is taken, so that a problem that is too large ends in one line."""

from __future__ import annotations

import os
from pathlib import Path

from .errors import InputError

SHARE = 0.8
"""Of the memory that is available, what one operator may plan to take."""

_VARIABLE = "PRIORLOOM_MEMORY_GIB"

_CONTROL_GROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat", "inactive_file "),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        "/sys/fs/cgroup/memory/memory.stat", "total_inactive_file ",
    ),
)  # fmt: skip
"""Of the second and the first version: a group's limit, its use, and the part of it that the kernel takes back."""


def available_memory() -> int:
    """Bytes that this process can still take: what the kernel calls available, within its control group's limit."""
    amounts = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    lines = _read("/proc/meminfo").splitlines()
    amounts += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    for limit, used, facts, reclaimable in _CONTROL_GROUPS:
        if _read(limit).strip().isdigit() and _read(used).strip().isdigit():
            # What the group read from files counts as used, and is given up when somebody asks for memory.
            cached = sum(int(line.split()[1]) for line in _read(facts).splitlines() if line.startswith(reclaimable))
            amounts.append(max(0, int(_read(limit)) - max(0, int(_read(used)) - cached)))
    return min(amounts)


def memory_budget() -> int:
    """Bytes that one operator may plan to take: `SHARE` of what is available, or ``PRIORLOOM_MEMORY_GIB``.

    Raises
    ------
    InputError
        When the variable is no positive number.
    """
    given = os.environ.get(_VARIABLE)
    if not given:
        return int(SHARE * available_memory())
    try:
        amount = float(given)
    except ValueError:
        amount = -1.0
    if not 0 < amount < 1e9:
        raise InputError(_VARIABLE, expected="a positive number of GiB", got=repr(given))
    return int(amount * 2**30)


def require_memory(what: str, bytes_needed: float, cure: str) -> None:
    """Refuses what would not fit.

    Parameters
    ----------
    what
        What takes the memory: the subject of the message.
    bytes_needed
        An estimate from sizes, made before anything is allocated.
    cure
        The alternative.

    Raises
    ------
    InputError
        When the estimate exceeds `memory_budget`.
    """
    budget = memory_budget()
    if bytes_needed > budget:
        raise InputError(
            f"memory of {what}", expected=f"at most {readable_bytes(budget)}",
            got=f"about {readable_bytes(bytes_needed)}", cure=f"{cure}, or raise {_VARIABLE}",
        )  # fmt: skip


def readable_bytes(count: float) -> str:
    """`count` as a short text with a binary unit."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.3g} TiB"


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return ""
