"""Shipped learned methods against tuned total variation on real CT slices of a subject that no training saw.

60 parallel views, 1e5 photons, 128 x 128, pixels of 1.914 mm (heads, invesalius-cranium). The weight of TV is the best
of `LAMS` for the mean PSNR over slices of the *training* subjects in the same geometry and dose; the figures of the
held-out slices are those of ``priorloom compare`` with the shipped weights, run as a command.

    python benchmarks/learned_ct.py [--data FOLDER] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import mean

import numpy as np

from priorloom import Registry
from priorloom.reconstruction import Method, reconstruct
from priorloom.train.images import read_slices

PIXEL = 1.914
LAMS = (0.7, 1.0, 1.5, 2.2, 3.2, 4.5, 6.5)
"""Weights of TV in normalised units (water is 1, lengths in mm)."""
TUNING = {"ct-images/lidc-idri-0314": 6, "ct-images/totalseg-dicom": 4}
"""Slices of the training subjects for tuning."""
SLICES = range(8, 104, 8)
"""Slices of the held-out head."""
METHODS = ("fbp", "tikhonov", "tv-pdhg", "wavelet-fista", "fbp-unet", "learned-primal-dual")


def main() -> None:
    """Tune, compare, print the means."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("PRIORLOOM_DATA", default)))
    parser.add_argument("--out", type=Path, default=Path("learned-ct-out"))
    arguments = parser.parse_args()
    slices = arguments.out / "slices"
    slices.mkdir(parents=True, exist_ok=True)

    tuning = []
    for name, count in TUNING.items():
        found = read_slices(arguments.data / name)
        for i in np.linspace(0, len(found) - 1, count).round().astype(int):
            tuning.append(slices / f"tune-{Path(name).name}-{i}.npy")
            np.save(tuning[-1], found[i].numpy())
    registry = Registry.discover()
    cases = registry.modality("ct").cases(registry, {}, seed=1, files=tuple(tuning), pixel_size=PIXEL)
    means = {lam: mean(_psnr(registry, case, lam) for case in cases) for lam in LAMS}
    lam = max(means, key=means.__getitem__)
    print(
        f"TV on {len(cases)} slices of the training subjects: " + ", ".join(f"{k:g}: {v:.2f}" for k, v in means.items())
    )
    print(f"chosen lam {lam:g} ({len(LAMS)} weights x {len(cases)} slices)")

    volume = np.fromfile(arguments.data / "ct-images/invesalius-cranium/matrix.dat", "<i2").reshape(108, 256, 256)
    files = []
    for i in SLICES:
        files.append(slices / f"head-{i:03d}.npy")
        np.save(files[-1], volume[i].astype(np.float32))
    command = [
        sys.executable, "-m", "priorloom_apps.cli", "compare", "--modality", "ct", "--out", str(arguments.out),
        "--set", f"case.files=[{', '.join(map(str, files))}]", "--set", f"case.pixel_size={PIXEL}",
        "--set", f"tv-pdhg.prior.lam={lam}",
    ]  # fmt: skip
    subprocess.run([*command, *(part for name in METHODS for part in ("--method", name))], check=True)
    rows = json.loads((arguments.out / "results.json").read_text())["rows"]
    table(rows, METHODS)


def table(rows: list[dict[str, object]], methods: tuple[str, ...]) -> None:
    """The mean of each method over the cases."""
    print(f"{'method':22} {'PSNR dB':>8} {'SSIM':>7} {'s':>7} {'converged':>10}")
    for name in methods:
        mine = [r for r in rows if r["method"] == name]
        psnr, ssim, seconds = (mean(float(str(r[k])) for r in mine) for k in ("psnr", "ssim", "seconds"))
        done = [r["converged"] for r in mine]
        converged = "-" if done[0] is None else f"{sum(map(bool, done))}/{len(done)}"
        print(f"{name:22} {psnr:8.2f} {ssim:7.4f} {seconds:7.2f} {converged:>10}")


def _psnr(registry: Registry, case: object, lam: float) -> float:
    result = reconstruct(case, Method("tv-pdhg", {"prior.lam": lam}), registry=registry)  # type: ignore[arg-type]
    assert result.metrics is not None
    return result.metrics["psnr"]


if __name__ == "__main__":
    main()
