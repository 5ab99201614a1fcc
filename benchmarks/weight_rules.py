"""Rules for the weight of a prior against the oracle, on 20 CT and 20 MRI cases: a markdown table.

Slices of several subjects, averaged to 64 x 64 pixels, each in one of four settings in turn (`SETTINGS`). Every rule
has the range that the method states (two decades either way of its own weight) and eight values of the weight; the
solvers stop early (`TOLERANCE`), and what several rules run alike is computed once, while each counts it. The loss is
the best PSNR that any rule met on a case less that of the rule. Nothing in the project was chosen on these figures.

    python benchmarks/weight_rules.py [--data FOLDER] [--cases N] [--method NAME]... [--out FILE.json]
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch

import priorloom.choice.one_case as one_case
from priorloom import Case, Registry
from priorloom.choice import ON_ONE_CASE, RUNS, choose
from priorloom.chosen import digest
from priorloom.config import Plan, make_cases
from priorloom.pipeline import Result
from priorloom.reconstruction import Method, reconstruct
from priorloom.rule import RULES, Rule

SIDE, VALUES = 64, 8
TOLERANCE: dict[str, dict[str, Any]] = {
    "tikhonov": {"solver.tolerance": 1e-4, "solver.max_iterations": 300},
    "cg-sense": {"solver.tolerance": 1e-4, "solver.max_iterations": 300},
    "tv-pdhg": {"solver.tolerance": 1e-3, "solver.max_iterations": 300},
    "wavelet-fista": {"solver.tolerance": 1e-3, "solver.max_iterations": 300},
    "l1-wavelet": {"solver.tolerance": 1e-3, "solver.max_iterations": 300},
}
SUBJECTS = {
    "ct": ("ct-images/lidc-idri-0314", "ct-images/totalseg-dicom", "ct-images/totalseg-nii/example_ct.nii.gz"),
    "mri": ("mri-images/vs-seg-001", "mri-images/papaya-fse", "mri-images/pyradiomics/brain1_image.nrrd",
            "mri-images/stroke/T1.nii.gz"),
}  # fmt: skip
SETTINGS: dict[str, tuple[tuple[dict[str, Any], dict[str, Any]], ...]] = {
    "ct": (
        ({"views": 60}, {"photons": 1e5}),
        ({"views": 60}, {"photons": 5e3}),
        ({"views": 24}, {"photons": 1e5}),
        ({"views": 120}, {"photons": 1e3}),
    ),
    "mri": (
        ({}, {"mask": "variable-density", "acceleration": 4.0, "noise": 0.005, "coils": 4}),
        ({}, {"mask": "variable-density", "acceleration": 3.0, "noise": 0.03, "coils": 4}),
        ({}, {"mask": "random", "acceleration": 3.0, "noise": 0.01, "coils": 4}),
        ({}, {"mask": "poisson-disc", "acceleration": 6.0, "noise": 0.005, "coils": 4}),
    ),
}
METHODS = {"ct": ("tikhonov", "tv-pdhg", "wavelet-fista"), "mri": ("cg-sense", "tv-pdhg", "l1-wavelet")}
Row = dict[str, Any]


def main() -> None:
    """Run every rule on every case, and print what it costs and loses."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("PRIORLOOM_DATA", default)))
    parser.add_argument("--cases", type=int, default=20, help="cases of each modality")
    parser.add_argument("--method", action="append", help="one method; repeat for several; all without it")
    parser.add_argument("--out", type=Path, help="every figure as JSON")
    given = parser.parse_args()
    torch.set_num_threads(1)
    registry = Registry.discover()
    rows: list[Row] = []
    for modality in METHODS:
        cases = list(_cases(registry, modality, given.data, given.cases))
        for name in METHODS[modality]:
            if given.method and name not in given.method:
                continue
            began = time.perf_counter()
            for case in cases:
                rows += _on(case, name, registry)
                if given.out:
                    given.out.write_text(json.dumps(rows, indent=1))
            seconds = time.perf_counter() - began
            _print(modality, name, [r for r in rows if (r["modality"], r["method"]) == (modality, name)], seconds)


def _cases(registry: Registry, modality: str, data: Path, count: int) -> Iterator[Case]:
    """`count` slices, as many of each subject; the settings take turns."""
    folders = SUBJECTS[modality]
    shares = [count // len(folders) + (k < count % len(folders)) for k in range(len(folders))]
    number = 0
    for folder, share in zip(folders, shares, strict=True):
        made = []
        for operator, options in SETTINGS[modality]:
            case = {"files": (str(data / folder),), "slices": share, "image_shape": (SIDE, SIDE), **options}
            made.append(make_cases(Plan(modality=modality, case=case, operator=operator, seed=7), registry))
        for place in range(share):
            yield made[number % len(made)][place]
            number += 1


def _on(case: Case, name: str, registry: Registry) -> list[Row]:
    settings = TOLERANCE[name]
    seen: dict[object, Result] = {}

    def once(case: Case, method: Method, *, registry: Registry, seed: int) -> Result:
        key = (digest(case.measurement), tuple(method.settings.items()), seed)
        if key not in seen:
            seen[key] = reconstruct(case, method, registry=registry, seed=seed)
        return seen[key]

    one_case.reconstruct = once  # type: ignore[assignment]
    rows: list[Row] = []
    by_itself = reconstruct(case, Method(name, settings), registry=registry)
    about = {"modality": case.modality, "method": name, "case": case.name, "subject": case.subject}
    lam = by_itself.parameters["prior.lam"]
    rows.append({**about, "rule": "default", "runs": 1, "psnr": _psnr(by_itself), "lam": lam})
    best = _psnr(by_itself)
    for rule in RULES:
        if rule not in ON_ONE_CASE:
            continue
        asked = Rule(rule, "prior.lam", budget=VALUES * RUNS.get(rule, 1))
        found = choose(case, Method(name, settings, rule=asked), registry=registry)
        lam = found.settings["prior.lam"]
        at = next(t.facts["psnr"] for t in found.trials if t.settings["prior.lam"] == lam)
        best = max([best, *(t.facts["psnr"] for t in found.trials)])
        rows.append({**about, "rule": rule, "runs": found.used, "psnr": at, "lam": lam,
                     "loose": sum("not converged" in t.remarks.values() for t in found.trials)})  # fmt: skip
    return [{**row, "loss": best - row["psnr"]} for row in rows]


def _psnr(result: Result) -> float:
    assert result.metrics is not None
    return result.metrics["psnr"]


def _print(modality: str, name: str, rows: Sequence[Mapping[str, Any]], seconds: float) -> None:
    cases = len({r["case"] for r in rows})
    oracle = median(r["psnr"] for r in rows if r["rule"] == "oracle")
    print(f"\n{modality} {name}: {cases} cases, oracle at {oracle:.2f} dB in the median, {seconds:.0f} s\n")
    print("| rule | median loss dB | worst loss dB | median runs |\n|---|---|---|---|")
    for rule in dict.fromkeys(r["rule"] for r in rows):
        mine = [r for r in rows if r["rule"] == rule]
        losses = [r["loss"] for r in mine]
        print(
            f"| {rule} | {median(losses):.2f} | {max(losses):.2f} | {median(r['runs'] for r in mine):g} |", flush=True
        )


if __name__ == "__main__":
    main()
