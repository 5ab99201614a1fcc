"""Cone beams on the CPU, and on CUDA where there is one: median times, rates, peak memory and how near the adjoint is.

Run: ``python benchmarks/ct_cone.py [--large]``. A voxel update is one voxel seen in one view; the rate is their number
per second. On a machine that is shared, the processors' time says more than the clock's. There is no peer to compare
with on a CPU: ASTRA projects cones on CUDA only. On CUDA the time is ASTRA's own plus what it takes to hand tensors
over and to turn the axes of the views.
"""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Callable

import torch

from priorloom_ct.operators3d import ConeTransform, conebeam3d, helical3d

ROUNDS = 7


def scans(large: bool) -> dict[str, ConeTransform]:
    """Scans by name."""
    beam = {"source_to_axis": 200.0, "axis_to_detector": 100.0}
    made = {
        "circle, 64^3, 90 views of 96 x 96": conebeam3d(
            image_shape=(64, 64, 64), views=90, detector_shape=(96, 96), detector_pitch=1.5, **beam
        ),
        "helix, 64^3, 340 views of 44 x 96": helical3d(
            image_shape=(64, 64, 64), views=340, pitch=24.0, detector_shape=(44, 96), detector_pitch=1.5, **beam
        ),
    }
    if large:
        made["circle, 256^3, 360 views of 384 x 384"] = conebeam3d(
            image_shape=(256, 256, 256), pixel_size=0.25, views=360, detector_shape=(384, 384), detector_pitch=0.375,
            **beam,
        )  # fmt: skip
    return made


def medians(A: ConeTransform, rounds: int) -> dict[str, tuple[float, float]]:
    """Seconds of forward, adjoint and FDK, by the clock and of all processors; the three take turns."""
    x, y = torch.rand(A.domain.shape, device=A.device), torch.rand(A.range.shape, device=A.device)
    work: dict[str, Callable[[], object]] = {
        "forward": lambda: A(x),
        "adjoint": lambda: A.adjoint(y),
        "FDK": lambda: A.pseudo_inverse(y),
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in work}
    for k in range(rounds + 1):
        for name, function in work.items():
            began, used = time.perf_counter(), time.process_time()
            function()
            if x.is_cuda:
                torch.cuda.synchronize()
            if k:  # the first round compiles
                times[name].append((time.perf_counter() - began, time.process_time() - used))
    return {
        name: (statistics.median(v[0] for v in values), statistics.median(v[1] for v in values))
        for name, values in times.items()
    }


def dot_gap(A: ConeTransform) -> float:
    """``|<Ax, y> - <x, A^H y>| / (|Ax| |y|)`` for ``y = Ax``."""
    x = torch.rand(A.domain.shape, device=A.device)
    y = A(x).double()
    return float(((y * y).sum() - (x * A.adjoint(y.float())).double().sum()).abs() / (y * y).sum())


def main() -> None:
    """Print the table."""
    large = "--large" in sys.argv[1:]
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    heads = ("ms", 9), ("CPU ms", 9), ("voxel updates/s", 16), ("dot gap", 8), ("peak MiB", 9)
    print(f"{'scan':40s} {'plan':12s} {'':8s}", *(f"{name:>{width}s}" for name, width in heads))
    with torch.no_grad():
        for name, A in scans(large).items():
            for device in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
                A.to(device)
                updates = A.domain.size * A.range.shape[0]
                if device == "cuda":
                    torch.cuda.reset_peak_memory_stats()
                found = medians(A, ROUNDS if A.domain.size < 10**7 else 1)
                if device == "cuda":
                    peak = torch.cuda.max_memory_allocated() / 2**20
                else:
                    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
                for what, (seconds, used) in found.items():
                    print(f"{name:40s} {A.plan.name:12s} {what:8s} {1e3 * seconds:9.1f} {1e3 * used:9.1f} "
                          f"{updates / seconds:16.3g} {dot_gap(A):8.1e} {peak:9.0f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
