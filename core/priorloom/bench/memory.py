"""Peak memory of one call in this process.

On the CPU the kernel's own high-water mark is used (``VmHWM``, reset through ``/proc/self/clear_refs``), because an
allocator's hooks see neither ASTRA's nor a library's memory. It counts whole pages that were touched, to about a MiB.
On CUDA it is the peak of torch's allocator, which sees torch's memory only.
"""

from __future__ import annotations

import ctypes
import gc
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Measured:
    """A call's result, its time, and its peak memory above what was there before (None: cannot be measured)."""

    result: Any
    seconds: float
    peak: int | None


def measured(call: Callable[[], Any], device: torch.device) -> Measured:
    """Run `call` once and measure it."""
    on_cuda = device.type == "cuda"
    before = _reset_cuda(device) if on_cuda else _reset_resident()
    began = time.perf_counter()
    result = call()
    if on_cuda:
        torch.cuda.synchronize(device)
    seconds = time.perf_counter() - began
    if before is None:
        return Measured(result, seconds, None)
    after = torch.cuda.max_memory_allocated(device) if on_cuda else _status("VmHWM")
    return Measured(result, seconds, None if after is None else max(0, after - before))


def resident(device: torch.device) -> int | None:
    """Bytes in use now, after everything that can be given back was."""
    gc.collect()
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    _give_back()
    return _status("VmRSS")


def _reset_cuda(device: torch.device) -> int:
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def _reset_resident() -> int | None:
    _give_back()
    try:
        _CLEAR.write_text("5")
    except OSError:
        return None
    return _status("VmRSS")


def _give_back() -> None:
    # Freed memory that the allocator keeps would hide what the next call takes.
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _status(name: str) -> int | None:
    try:
        lines = _STATUS.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), None)
