"""Plug-and-play with trained denoisers against tuned total variation, on heads that no training saw.

CT: 60 parallel views, 1e5 photons, 128 x 128, invesalius-cranium. MRI: R = 4, 8 simulated coils, variable-density lines
and Poisson-disc points, pyradiomics brain1; and the measured espirit-brain (und2x2). The weight of TV is the best of
`LAMS` for the mean PSNR over slices of the *training* subjects in the same geometry; the plug-and-play methods run with
their default rules, whose constants were set on slices of the training subjects too. The figures of the held-out heads
are those of ``priorloom compare``, run as a command.

    python benchmarks/plug_and_play.py [--data FOLDER] [--out FOLDER] [--slices N]
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
from learned_ct import LAMS as CT_LAMS
from learned_ct import PIXEL
from learned_mri import TEST
from learned_mri import TUNING as MRI_TUNING

from priorloom import Case, Registry
from priorloom.reconstruction import Method, reconstruct
from priorloom.train.images import read_slices
from priorloom_mri.bart import read
from priorloom_mri.coils import root_sum_of_squares
from priorloom_mri.operators import ifftc

MRI_LAMS = (2e-4, 5e-4, 1e-3, 2e-3, 4e-3)
"""Weights of TV in normalised units."""
CT_TUNING = {"ct-images/lidc-idri-0314": 3, "ct-images/totalseg-dicom": 2}
METHODS = {
    "ct": ("fbp", "tv-pdhg", "pnp-admm", "pnp-hqs", "red-accelerated", "learned-primal-dual"),
    "mri": ("zero-filled", "tv-pdhg", "pnp-admm", "pnp-hqs", "red-accelerated", "memory-modl"),
}
HEAD = 0.05


def main() -> None:
    """Tune TV, compare, print the means; then the measured brain."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("PRIORLOOM_DATA", default)))
    parser.add_argument("--out", type=Path, default=Path("plug-and-play-out"))
    parser.add_argument("--slices", type=int, default=10, help="of each held-out head")
    arguments = parser.parse_args()
    data, out = arguments.data, arguments.out
    slices = out / "slices"
    slices.mkdir(parents=True, exist_ok=True)
    registry = Registry.discover()

    files = _files(data, CT_TUNING, slices)
    cases = registry.modality("ct").cases(registry, {}, seed=1, files=files, pixel_size=PIXEL)
    lam = _tuned(registry, cases, CT_LAMS, out / "tuning-ct.json", "ct")
    volume = np.fromfile(data / "ct-images/invesalius-cranium/matrix.dat", "<i2").reshape(108, 256, 256)
    heads = []
    for i in np.linspace(8, 96, arguments.slices).round().astype(int):
        heads.append(slices / f"head-{i:03d}.npy")
        np.save(heads[-1], volume[i].astype(np.float32))
    _compare("ct", heads, out / "ct", lam, f"case.pixel_size={PIXEL}")

    files = _files(data, {name: max(1, n // 2) for name, n in MRI_TUNING.items()}, slices)
    heads = list(_files(data, {TEST: arguments.slices}, slices))
    for mask in ("variable-density", "poisson-disc"):
        cases = registry.modality("mri").cases(registry, {}, seed=1, files=files, mask=mask)
        lam = _tuned(registry, cases, MRI_LAMS, out / f"tuning-{mask}.json", f"mri, {mask}")
        _compare("mri", heads, out / mask, lam, f"case.mask={mask}")
    _measured(data / "mri-raw" / "espirit-brain", registry, lam)


def _files(data: Path, sources: dict[str, int], folder: Path) -> tuple[Path, ...]:
    """Slices from the middle 70 % of every subject, as .npy files."""
    files = []
    for name, count in sources.items():
        found = read_slices(data / name)
        for i in np.linspace(0.15 * len(found), 0.85 * len(found) - 1, count).round().astype(int):
            files.append(folder / f"{Path(name).name.partition('.')[0]}-{i:03d}.npy")
            np.save(files[-1], found[i].numpy())
    return tuple(files)


def _tuned(registry: Registry, cases: list[Case], lams: tuple[float, ...], kept: Path, what: str) -> float:
    """The best weight on the training subjects; the figures are kept in a file, and read from it when there is one."""
    if kept.exists():
        means = {float(lam): psnr for lam, psnr in json.loads(kept.read_text()).items()}
    else:
        means = {lam: mean(_psnr(registry, case, lam) for case in cases) for lam in lams}
        kept.write_text(json.dumps(means))
    lam = max(means, key=means.__getitem__)
    shown = ", ".join(f"{k:g}: {v:.2f}" for k, v in means.items())
    print(f"{what}: TV on {len(cases)} slices of the training subjects: {shown}; chosen {lam:g}", flush=True)
    return lam


def _psnr(registry: Registry, case: Case, lam: float) -> float:
    result = reconstruct(case, Method("tv-pdhg", {"prior.lam": lam}), registry=registry)
    assert result.metrics is not None
    return result.metrics["psnr"]


def _compare(modality: str, files: list[Path], out: Path, lam: float, setting: str) -> None:
    command = [
        sys.executable, "-m", "priorloom_apps.cli", "compare", "--modality", modality, "--out", str(out),
        "--set", f"case.files=[{', '.join(map(str, files))}]", "--set", setting, "--set", f"tv-pdhg.prior.lam={lam}",
    ]  # fmt: skip
    names = METHODS[modality]
    subprocess.run([*command, *(part for name in names for part in ("--method", name))], check=True)
    rows = json.loads((out / "results.json").read_text())["rows"]
    print(f"{'method':22} {'PSNR dB':>8} {'SSIM':>7} {'s':>7} {'converged':>10}  certificate")
    for name in names:
        mine = [r for r in rows if r["method"] == name]
        psnr, ssim, seconds = (mean(float(r[k]) for r in mine) for k in ("psnr", "ssim", "seconds"))
        done = [r["converged"] for r in mine]
        converged = "-" if done[0] is None else f"{sum(map(bool, done))}/{len(done)}"
        verdicts = [r["certificate"] for r in mine]
        said = ", ".join(f"{v} {verdicts.count(v)}" for v in dict.fromkeys(verdicts))
        print(f"{name:22} {psnr:8.2f} {ssim:7.4f} {seconds:7.2f} {converged:>10}  {said}", flush=True)


def _measured(folder: Path, registry: Registry, lam: float) -> None:
    reference = root_sum_of_squares(ifftc(torch.from_numpy(read(folder / "full.cfl").measurement)))
    head = reference > HEAD * reference.max()
    scan = read(folder / "und2x2.cfl")
    operator = registry.operator(scan.operator, **scan.parameters)
    case = Case("brain", "mri", operator, torch.from_numpy(scan.measurement), metadata=scan.metadata)
    print("measured brain, und2x2: error in the head, seconds, certificate")
    for name in METHODS["mri"]:
        method = Method(name, {"prior.lam": lam} if name == "tv-pdhg" else {})
        result = reconstruct(case, method, registry=registry)
        error = float(((result.image.abs() - reference)[head]).norm() / reference[head].norm())
        print(f"{name:22} {error:.4f} {result.seconds:7.2f} {result.certificate}", *result.warnings, flush=True)


if __name__ == "__main__":
    main()
