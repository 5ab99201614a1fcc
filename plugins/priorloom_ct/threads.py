"""Compiled kernels that release the interpreter's lock, on as many threads as torch computes with."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

_POOLS: dict[tuple[int, int], ThreadPoolExecutor] = {}
_LOCK = threading.Lock()


def spread(work: Callable[[int, int], None], count: int, parts_per_thread: int = 4) -> None:
    """``work(first, last)`` for consecutive pieces of ``range(count)``; raises what the work raises.

    The pieces run at the same time, so each must write to memory of its own. There are a few more pieces than threads,
    because they are not equally long.
    """
    threads = torch.get_num_threads()
    parts = min(count, threads * parts_per_thread) if threads > 1 else 1
    bounds = [count * k // max(parts, 1) for k in range(parts + 1)]
    if parts <= 1:
        work(0, count)
        return
    for done in _pool(threads).map(work, bounds[:-1], bounds[1:]):
        assert done is None


def _pool(threads: int) -> ThreadPoolExecutor:
    # A forked process inherits the pool without its threads, so the process is part of the key.
    key = os.getpid(), threads
    with _LOCK:
        if key not in _POOLS:
            _POOLS[key] = ThreadPoolExecutor(threads, thread_name_prefix="priorloom-ct")
        return _POOLS[key]
