"""What the machine is and what it can do, measured in this process: the two roofs of a roofline."""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

SMALLEST, LARGEST = 4 * 2**20, 512 * 2**20
"""Bytes of the arrays on which bandwidth is measured, both ends; below, starting the threads is what takes time."""

RUNS = 200
"""Of what measures a rate, as far as 0.6 s suffice."""


class Machine:
    """The device, and its measured rates.

    Parameters
    ----------
    device
        ``cpu`` or ``cuda``.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.load = os.getloadavg()[0]
        """Processes that wanted to run in the minute before: other people's work."""
        self._bandwidths: dict[int, float] = {}
        self._rates: dict[torch.dtype, float] = {}

    def bandwidth(self, bytes_moved: float) -> float:
        """Bytes per second of ``a = b + 2 c`` on three arrays that together have about `bytes_moved`.

        So what fits in a cache is held against that cache. The best of many runs, as a bound should be; the size is
        rounded up to a power of two from `SMALLEST` to `LARGEST`.
        """
        size = 2 ** math.ceil(math.log2(min(max(bytes_moved, SMALLEST), LARGEST)))
        if size not in self._bandwidths:
            a, b, c = (torch.ones(size // 12, device=self.device) for _ in range(3))
            seconds = self._best(lambda: torch.add(b, c, alpha=2.0, out=a))
            self._bandwidths[size] = 3 * a.numel() * a.element_size() / seconds
        return self._bandwidths[size]

    def rate(self, dtype: torch.dtype) -> float:
        """Floating-point operations per second of a matrix product of this real dtype."""
        if dtype not in self._rates:
            n = 1024 if self.device.type == "cpu" else 4096
            a, b = (torch.ones(n, n, dtype=dtype, device=self.device) for _ in range(2))
            self._rates[dtype] = 2 * n**3 / self._best(lambda: torch.mm(a, b))
        return self._rates[dtype]

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _best(self, work: Callable[[], Any]) -> float:
        work()
        times: list[float] = []
        began = time.perf_counter()
        # On a busy machine few runs find all of their threads awake.
        while (spent := time.perf_counter() - began) < 0.15 or (len(times) < RUNS and spent < 0.6):
            self.synchronize()
            start = time.perf_counter()
            work()
            self.synchronize()
            times.append(time.perf_counter() - start)
        return min(times)

    def describe(self) -> dict[str, Any]:
        """Processor, cores, memory, threads, load and device, with the measured rates."""
        threads = {name: os.environ[name] for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS") if name in os.environ}
        return {
            "processor": processor(),
            "cores": os.cpu_count(),
            "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "system": platform.platform(terse=True),
            "threads": torch.get_num_threads(),
            "environment": threads,
            "load": self.load,
            "device": "cpu" if self.device.type == "cpu" else torch.cuda.get_device_name(self.device),
            "bandwidth": {str(size): rate for size, rate in sorted(self._bandwidths.items())},
            "flops": {str(dtype).removeprefix("torch."): rate for dtype, rate in self._rates.items()},
        }


def processor() -> str:
    """The processor's name, as the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
