"""Times of the SENSE operator beside sigpy's, interleaved in one process; medians in milliseconds per image.

OMP_NUM_THREADS=1 python benchmarks/mri_operators.py [--size 256] [--coils 8] [--repeats 21]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import sigpy.mri
import torch

from priorloom_mri.coils import birdcage_maps
from priorloom_mri.masks import make_mask
from priorloom_mri.operators import sense2d


def interleaved(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median milliseconds of every call, taking turns so that a busy machine slows all of them alike."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(repeats):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            times[name].append(1e3 * (time.perf_counter() - began))
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--coils", type=int, default=8)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=21)
    arguments = parser.parse_args()
    shape, batch = (arguments.size, arguments.size), arguments.batch
    maps = birdcage_maps(arguments.coils, shape)
    print(f"{arguments.coils} coils of {shape[0]} x {shape[1]}, {torch.get_num_threads()} thread(s)")
    for name in ("poisson-disc", "variable-density"):
        generator = torch.Generator().manual_seed(0)
        mask = make_mask(name, shape, acceleration=4.0, generator=generator)  # type: ignore[arg-type]
        A = sense2d(maps=maps, mask=mask)
        S = sigpy.mri.linop.Sense(maps.numpy(), weights=np.broadcast_to(mask.numpy(), shape).astype(np.float32))
        x = A.domain.random(generator, (batch,))
        one, one_numpy = x[0], x[0].numpy()
        difference = np.abs(A.adjoint(A(one)).numpy() - S.H(S(one_numpy))).max()
        ms = interleaved(
            {
                "sigpy": lambda S=S, v=one_numpy: S.H(S(v)),
                "pair": lambda A=A, v=one: A.adjoint(A(v)),
                "normal": lambda A=A, v=one: A.normal(v),
                "pairs": lambda A=A, v=x: A.adjoint(A(v)),
                "normals": lambda A=A, v=x: A.normal(v),
            },
            arguments.repeats,
        )
        print(f"\n{name} mask, largest difference from sigpy {difference:.1e}")
        for label, value in (
            ("sigpy Sense, S.H(S(x))", ms["sigpy"]),
            ("mri.sense2d, A.adjoint(A(x))", ms["pair"]),
            ("mri.sense2d, A.normal(x)", ms["normal"]),
            (f"the pair, batch of {batch}", ms["pairs"] / batch),
            (f"the normal, batch of {batch}", ms["normals"] / batch),
        ):
            print(f"  {label:32} {value:8.2f} ms   {ms['sigpy'] / value:5.2f} x sigpy")


if __name__ == "__main__":
    main()
