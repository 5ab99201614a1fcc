"""Shipped learned methods against tuned l1-wavelet: a head that no training saw, and the measured espirit-brain.

R = 4, 8 simulated coils, 128 x 128, noise 0.5 % of the brightest pixel; variable-density lines and Poisson-disc points,
both exactly a quarter of the positions. The weight of l1-wavelet is the best of `LAMS` for the mean PSNR over slices of
the *training* subjects under the same masks; the figures of the held-out head (pyradiomics brain1) are those of
``priorloom compare`` with the shipped weights, run as a command. On the measured brain (und2x2, 25.7 %) l1-wavelet
keeps the best of all weights against the reference itself, the learned methods have nothing to choose; the error is
that of benchmarks/mri_espirit_brain.py.

    python benchmarks/learned_mri.py [--data FOLDER] [--out FOLDER]
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
import torch
from learned_ct import table
from torch import Tensor

from priorloom import Case, Registry
from priorloom.reconstruction import Method, reconstruct
from priorloom.train.images import read_slices
from priorloom_mri.bart import read
from priorloom_mri.coils import root_sum_of_squares
from priorloom_mri.operators import ifftc

LAMS = (2e-4, 5e-4, 1e-3, 2e-3, 5e-3)
TUNING = {"mri-images/vs-seg-001": 4, "mri-images/stroke/T1.nii.gz": 3, "mri-images/stroke/T2.nii.gz": 3}
TEST = "mri-images/pyradiomics/brain1_image.nrrd"
MASKS = ("variable-density", "poisson-disc")
METHODS = ("zero-filled", "cg-sense", "l1-wavelet", "tv-pdhg", "zero-filled-unet", "memory-modl")
HEAD = 0.05


def main() -> None:
    """Tune, compare, print the means; then the measured brain."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("PRIORLOOM_DATA", default)))
    parser.add_argument("--out", type=Path, default=Path("learned-mri-out"))
    arguments = parser.parse_args()
    slices = arguments.out / "slices"
    slices.mkdir(parents=True, exist_ok=True)
    registry = Registry.discover()
    tuning = tuple(f for name, count in TUNING.items() for f in _middle(arguments.data / name, slices, count, "tune"))
    heads = _middle(arguments.data / TEST, slices, 10, "head")
    chosen = {mask: _tune(registry, mask, tuning, arguments.out / f"tuning-{mask}.json") for mask in MASKS}
    for mask, lam in chosen.items():
        out = arguments.out / mask
        command = [
            sys.executable, "-m", "priorloom_apps.cli", "compare", "--modality", "mri", "--out", str(out),
            "--set", f"case.files=[{', '.join(map(str, heads))}]", "--set", f"case.mask={mask}",
            "--set", f"l1-wavelet.prior.lam={lam}",
        ]  # fmt: skip
        subprocess.run([*command, *(part for name in METHODS for part in ("--method", name))], check=True)
        table(json.loads((out / "results.json").read_text())["rows"], METHODS)
    _measured(arguments.data / "mri-raw" / "espirit-brain", registry, chosen["poisson-disc"])


def _tune(registry: Registry, mask: str, files: tuple[Path, ...], kept: Path) -> float:
    """The best weight on the training subjects; the figures are kept in a file, and read from it when there is one."""
    if kept.exists():
        means = {float(lam): psnr for lam, psnr in json.loads(kept.read_text()).items()}
    else:
        cases = registry.modality("mri").cases(registry, {}, seed=1, files=files, mask=mask)
        means = {lam: mean(_psnr(registry, case, lam) for case in cases) for lam in LAMS}
        kept.write_text(json.dumps(means))
    lam = max(means, key=means.__getitem__)
    shown = ", ".join(f"{k:.5f}: {v:.2f}" for k, v in means.items())
    print(f"{mask}: l1-wavelet on {len(files)} slices of the training subjects: {shown}; chosen {lam:.5f}", flush=True)
    return lam


def _middle(source: Path, folder: Path, count: int, what: str) -> list[Path]:
    """Slices from the middle 70 % of a subject, as .npy files."""
    found = read_slices(source)
    chosen = np.linspace(0.15 * len(found), 0.85 * len(found) - 1, count).round().astype(int)
    files = [folder / f"{what}-{source.name.partition('.')[0]}-{i:03d}.npy" for i in chosen]
    for i, file in zip(chosen, files, strict=True):
        np.save(file, found[i].numpy())
    return files


def _psnr(registry: Registry, case: Case, lam: float) -> float:
    result = reconstruct(case, Method("l1-wavelet", {"prior.lam": lam}), registry=registry)
    assert result.metrics is not None
    return result.metrics["psnr"]


def _measured(folder: Path, registry: Registry, tuned: float) -> None:
    reference = root_sum_of_squares(ifftc(torch.from_numpy(read(folder / "full.cfl").measurement)))
    head = reference > HEAD * reference.max()
    scan = read(folder / "und2x2.cfl")
    operator = registry.operator(scan.operator, **scan.parameters)
    case = Case("brain", "mri", operator, torch.from_numpy(scan.measurement), metadata=scan.metadata)

    def error(image: Tensor) -> float:
        return float(((image.abs() - reference)[head]).norm() / reference[head].norm())

    print("measured brain, und2x2: error in the head")
    for name in METHODS:
        if name == "l1-wavelet":
            found = {lam: error(reconstruct(case, Method(name, {"prior.lam": lam}), registry=registry).image)
                     for lam in np.geomspace(1e-4, 1e-1, 7).tolist()}  # fmt: skip
            lam = min(found, key=found.__getitem__)
            print(f"{name:22} {found[lam]:.4f} (best of 7 weights for this very image, {lam:.5f})")
            image = reconstruct(case, Method(name, {"prior.lam": tuned}), registry=registry).image
            print(f"{name:22} {error(image):.4f} (the weight tuned on points above, {tuned:.5f})")
        result = reconstruct(case, name, registry=registry)
        print(f"{name:22} {error(result.image):.4f} {result.seconds:7.2f} s", *result.warnings)


if __name__ == "__main__":
    main()
