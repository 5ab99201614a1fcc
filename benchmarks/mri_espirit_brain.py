"""The 8-channel brain und2x2 (25.7 % sampled): our methods and sigpy's against the full scan's root sum of squares.

Everything is given the same ESPIRiT maps (ours, from und2x2 itself) and the same seven weights, and keeps its best one.
The error is |x - rss| / |rss| over the pixels where the reference exceeds 5 % of its maximum, with no rescaling.

    python benchmarks/mri_espirit_brain.py [--data FOLDER] [--iterations 500]
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import sigpy.mri.app
import torch
from torch import Tensor

from priorloom import Case, Registry
from priorloom.reconstruction import Method, reconstruct
from priorloom_mri.bart import read
from priorloom_mri.coils import root_sum_of_squares
from priorloom_mri.operators import ifftc

LAMS = tuple(float(lam) for lam in np.geomspace(1e-4, 1e-1, 7))
HEAD = 0.05
"""The head is where the reference exceeds this fraction of its maximum."""


def main() -> None:
    """Run everything and print the table."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("PRIORLOOM_DATA", default)))
    parser.add_argument("--iterations", type=int, default=500, help="of sigpy's solvers (default 500)")
    arguments = parser.parse_args()
    folder = arguments.data / "mri-raw" / "espirit-brain"

    reference = root_sum_of_squares(ifftc(torch.from_numpy(read(folder / "full.cfl").measurement)))
    head = reference > HEAD * reference.max()
    scan = read(folder / "und2x2.cfl")
    registry = Registry.discover()
    operator = registry.operator(scan.operator, **scan.parameters)
    case = Case("brain", "mri", operator, torch.from_numpy(scan.measurement), metadata=scan.metadata)
    scale = registry.modality("mri").scale(case)
    y = scan.measurement / scale
    maps = scan.parameters["maps"]

    def error(image: Tensor) -> float:
        return float(((image.abs() - reference)[head]).norm() / reference[head].norm())

    def ours(name: str) -> Callable[[float], tuple[Tensor, str]]:
        def solve(lam: float) -> tuple[Tensor, str]:
            result = reconstruct(case, Method(name, {"prior.lam": lam}), registry=registry)
            return result.image, f"{result.iterations}{'' if result.converged else ' (not converged)'}"

        return solve

    def theirs(app: type) -> Callable[[float], tuple[Tensor, str]]:
        def solve(lam: float) -> tuple[Tensor, str]:
            image = app(y, maps, lam, max_iter=arguments.iterations, show_pbar=False).run()
            return torch.from_numpy(image) * scale, str(arguments.iterations)

        return solve

    sampled, inside = float(scan.parameters["mask"].mean()), float(head.float().mean())
    print(f"{sampled:.1%} sampled, {scan.metadata['maps']}, head {inside:.0%} of the image")
    print(f"{'method':28} {'error':>7} {'best lam':>9} {'iterations':>10} {'s / solve':>9}")
    for name in ("zero-filled", "cg-sense", "l1-wavelet", "tv-pdhg"):
        result = reconstruct(case, name, registry=registry)
        lam = result.parameters.get("prior.lam")
        shown = "" if lam is None else f"{lam:9.5f}"
        label, value = f"{name} (default)", error(result.image)
        print(f"{label:28} {value:7.4f} {shown:>9} {result.iterations:10} {result.seconds:9.2f}")
    best = {}
    solvers = {
        "l1-wavelet": ours("l1-wavelet"),
        "sigpy L1WaveletRecon": theirs(sigpy.mri.app.L1WaveletRecon),
        "tv-pdhg": ours("tv-pdhg"),
        "sigpy TotalVariationRecon": theirs(sigpy.mri.app.TotalVariationRecon),
    }
    for name, solve in solvers.items():
        began = time.perf_counter()
        rows = []
        for lam in LAMS:
            image, iterations = solve(lam)
            rows.append((error(image), lam, iterations))
        seconds = (time.perf_counter() - began) / len(LAMS)
        best[name], lam, iterations = min(rows)
        print(f"{name:28} {best[name]:7.4f} {lam:9.5f} {iterations:>10} {seconds:9.2f}")
        print("    " + "  ".join(f"{lam:.5f}: {e:.4f}" for e, lam, _ in rows))
    print(f"l1-wavelet / sigpy  {best['l1-wavelet'] / best['sigpy L1WaveletRecon']:.3f}")
    print(f"tv-pdhg / sigpy     {best['tv-pdhg'] / best['sigpy TotalVariationRecon']:.3f}")


if __name__ == "__main__":
    main()
