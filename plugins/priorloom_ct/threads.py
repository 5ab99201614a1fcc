"""Compiled kernels that release the interpreter's lock, on the threads that torch computes with.

Threads of our own would compete with torch's: after each of its parallel loops these go on spinning for milliseconds,
waiting for the next one, and take the cores from anybody else. So the work is handed to the same OpenMP team, through
the entry point that compilers call for ``#pragma omp parallel``.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

_Region = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def spread(work: Callable[[int, int], None], count: int, parts_per_thread: int = 4) -> None:
    """``work(first, last)`` for consecutive pieces of ``range(count)``; raises what the work raises.

    The pieces run at the same time on ``torch.get_num_threads()`` threads, so each must write to memory of its own.
    There are a few more pieces than threads, because they are not equally long; a thread that is free takes the next.
    """
    threads = torch.get_num_threads()
    parts = min(count, threads * parts_per_thread)
    if threads == 1 or parts <= 1:
        work(0, count)
        return
    bounds = [count * k // parts for k in range(parts + 1)]
    pieces = itertools.pairwise(bounds)
    failures: list[BaseException] = []

    def take(_: Any = None) -> None:
        try:
            for first, last in pieces:  # one iterator for all: advancing it is atomic
                work(first, last)
        except BaseException as failure:
            failures.append(failure)

    _team()(take, min(threads, parts))
    if failures:
        raise failures[0]


@functools.cache
def _team() -> Callable[[Callable[[Any], None], int], None]:
    """Calls a function once on each of so many threads, and waits for them."""
    # torch makes the symbols of its OpenMP runtime (GNU's, or Intel's and LLVM's, which offer the same entry) global.
    region = getattr(ctypes.CDLL(None), "GOMP_parallel", None)
    if region is None or "OpenMP" not in torch.__config__.parallel_info():
        return _pool
    # A forked process inherits the team's number but none of its threads, and would wait for them for ever; so would
    # torch itself.
    os.register_at_fork(after_in_child=functools.partial(torch.set_num_threads, 1))
    region.argtypes, region.restype = (_Region, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint), None

    def team(function: Callable[[Any], None], threads: int) -> None:
        region(_Region(function), None, threads, 0)

    return team


def _pool(function: Callable[[Any], None], threads: int) -> None:
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(function, itertools.repeat(None, threads)))
