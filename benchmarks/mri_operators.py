"""The SENSE operator beside sigpy's, its FFTs alone, and the memory it takes; medians in milliseconds per image.

OMP_NUM_THREADS=1 python benchmarks/mri_operators.py [--size 256] [--coils 8] [--batches 1 8 32] [--repeats 11]

All calls take turns in one process; a ratio or share is the median of those of the rounds, so that a burst of other
load does not decide it. "FFT" is two FFTs of the coil images of each chunk of the normal operator, over the same axes
and in the same chunks, and nothing else. "extra memory" is the most that torch held during a call of the normal
operator beyond input and output, in stacks of coil images of one chunk.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import sigpy.mri
import torch
from torch import Tensor

from priorloom_mri.coils import birdcage_maps
from priorloom_mri.masks import make_mask
from priorloom_mri.operators import CHUNK_BYTES, Sense, sense2d


def interleaved(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Milliseconds of every call, taking turns so that a busy machine slows all of them alike."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(repeats):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            times[name].append(1e3 * (time.perf_counter() - began))
    return times


def ffts_alone(A: Sense, batch: int, axes: tuple[int, ...]) -> Callable[[], None]:
    """The two FFTs of every chunk of the normal operator."""
    coils = A.coils
    images = max(1, CHUNK_BYTES["cpu"] // (8 * A.domain.size))
    stack = torch.randn(max(1, images // coils), min(images, coils), *A.domain.shape, dtype=A.domain.dtype)
    count = -(-batch // stack.shape[0]) * -(-coils // stack.shape[1])

    def run() -> None:
        for _ in range(count):
            torch.fft.fftn(torch.fft.fftn(stack, dim=axes), dim=axes)

    return run


def extra_bytes(call: Callable[[], Tensor]) -> int:
    """The most that torch's CPU allocator held during `call`, beyond what it held before and the result."""
    call()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        result = call()
    with tempfile.TemporaryDirectory() as folder:
        profile.export_chrome_trace(f"{folder}/trace.json")
        events = json.loads(Path(folder, "trace.json").read_text())["traceEvents"]
    changes = sorted((e["ts"], e["args"]["Bytes"]) for e in events if e.get("name") == "[memory]")
    held = np.cumsum([0, *(change for _, change in changes)])
    return int(held.max()) - result.nbytes


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--coils", type=int, default=8)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--repeats", type=int, default=11)
    arguments = parser.parse_args()
    shape = (arguments.size, arguments.size)
    maps = birdcage_maps(arguments.coils, shape)
    print(f"{arguments.coils} coils of {shape[0]} x {shape[1]}, {torch.get_num_threads()} thread(s)")
    print("mask              batch |  sigpy   pair  ratio | normal    FFT  share | extra memory")
    for name in ("poisson-disc", "variable-density"):
        generator = torch.Generator().manual_seed(0)
        mask = make_mask(name, shape, acceleration=4.0, generator=generator)  # type: ignore[arg-type]
        A = sense2d(maps=maps, mask=mask)
        assert isinstance(A, Sense)
        S = sigpy.mri.linop.Sense(maps.numpy(), weights=np.broadcast_to(mask.numpy(), shape).astype(np.float32))
        axes = (-2, -1) if mask.ndim == 2 else (-1,)
        for batch in arguments.batches:
            x = A.domain.random(generator, (batch,))
            images = x.numpy()
            ms = interleaved(
                {
                    "sigpy": lambda S=S, v=images: [S.H(S(one)) for one in v],
                    "pair": lambda A=A, v=x: A.adjoint(A(v)),
                    "normal": lambda A=A, v=x: A.normal(v),
                    "fft": ffts_alone(A, batch, axes),
                },
                arguments.repeats,
            )
            stack = min(CHUNK_BYTES["cpu"], 8 * A.range.size * batch)
            stacks = extra_bytes(lambda A=A, v=x: A.normal(v)) / stack
            per = {key: statistics.median(values) / batch for key, values in ms.items()}
            ratio, share = (
                statistics.median(a / b for a, b in zip(ms[one], ms[other], strict=True))
                for one, other in (("sigpy", "pair"), ("fft", "normal"))
            )
            print(
                f"{name:17} {batch:5} | {per['sigpy']:6.2f} {per['pair']:6.2f} {ratio:6.2f} |"
                f" {per['normal']:6.2f} {per['fft']:6.2f} {share:6.0%} | {stacks:.2f} stacks"
            )


if __name__ == "__main__":
    main()
