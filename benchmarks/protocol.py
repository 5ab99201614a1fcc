"""What tuning does to classical baselines: ``examples/protocol-ct.yaml`` and ``protocol-mri.yaml`` on real images.

CT is like LoDoPaB-CT (Leuschner et al., Scientific Data 8, 2021): parallel beam, 4,096 photons, human slices; but 128 x
128 pixels and 120 views. Tuning and test subjects are different people; see `SUBJECTS`.

    python benchmarks/protocol.py [ct] [mri] [--data FOLDER] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from priorloom import Registry
from priorloom.config import Plan, load
from priorloom_apps.compare import run_comparison

ROOT = Path(__file__).resolve().parents[1]
CRANIUM = "ct-images/invesalius-cranium/matrix.dat"
SUBJECTS = {
    "ct": (
        ("ct-images/lidc-idri-0314", "ct-images/totalseg-dicom"),
        (CRANIUM, "ct-images/totalseg-nii/example_ct.nii.gz"),
    ),
    "mri": (
        ("mri-images/vs-seg-001", "mri-images/stroke/T1.nii.gz"),
        ("mri-images/pyradiomics/brain1_image.nrrd", "mri-images/papaya-fse"),
    ),
}
"""Tuning subjects and test subjects; to those of CT the slice ct-small of pydicom is added."""


def main() -> None:
    """Tune, compare, print what tuning changed."""
    default = ROOT.parent / "shared" / "data"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modalities", nargs="*", default=list(SUBJECTS), help="ct, mri")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("PRIORLOOM_DATA", default)))
    parser.add_argument("--out", type=Path, default=Path("protocol-out"))
    arguments = parser.parse_args()
    for modality in arguments.modalities:
        out = arguments.out / modality
        run_comparison(_plan(modality, arguments.data, out), Registry.discover(), out)
        table(json.loads((out / "results.json").read_text()))


def _plan(modality: str, data: Path, out: Path) -> Plan:
    plan = load(ROOT / "examples" / f"protocol-{modality}.yaml")
    tuning, test = (tuple(_readable(data / name, out) for name in names) for names in SUBJECTS[modality])
    images = {"images": ("ct-small",)} if modality == "ct" else {}
    assert plan.tuning is not None, "the examples tune"
    return replace(
        plan,
        case={**plan.case, **images, "files": test},
        tuning=replace(plan.tuning, case={**plan.tuning.case, "files": tuning}),
    )


def _readable(path: Path, out: Path) -> Path:
    """The path; of raw voxels a copy that ``case.files`` can read."""
    if path.name != "matrix.dat":
        return path
    out.mkdir(parents=True, exist_ok=True)
    np.save(out / "cranium.npy", np.fromfile(path, "<i2").reshape(108, 256, 256).astype(np.float32))
    return out / "cranium.npy"


def table(document: dict[str, Any]) -> None:
    """Each method as it comes and tuned: mean PSNR, interval, worst case; and the mean difference."""
    means = {s["method"]: s for s in document["summary"]}
    cases = {name: {r["case"]: r["psnr"] for r in document["rows"] if r["method"] == name} for name in means}
    chosen = {m["method"]: m.get("chosen", {}) for m in document["tuning"]["methods"]}
    for default in (name for name in means if name.endswith("-default")):
        tuned = next(m for m in means if m.startswith(default.removesuffix("-default")) and m != default)
        gains = [cases[tuned][case] - cases[default][case] for case in cases[tuned]]
        print(f"{tuned}: {chosen[tuned]}")
        for name in (default, tuned):
            s = means[name]
            print(f"  {name:20} {s['mean']['psnr']:6.2f} dB, {s['low']['psnr']:.2f} to {s['high']['psnr']:.2f}, "
                  f"worst {s['worst']['psnr']:.2f} ({s['worst_case']}), SSIM {s['mean']['ssim']:.3f}")  # fmt: skip
        print(f"  tuning: {np.mean(gains):+.2f} dB, from {min(gains):+.2f} to {max(gains):+.2f}")


if __name__ == "__main__":
    main()
