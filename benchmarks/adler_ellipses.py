"""Adler and Oktem's evaluation (IEEE Trans. Med. Imaging 37, 2018): the Shepp-Logan head in 30 views with 5 % noise.

Run: ``python benchmarks/adler_ellipses.py --model FOLDER/ct.learned-primal-dual/1 [--json FILE]`` after
``priorloom train examples/train/adler-ellipses.yaml --out FOLDER``; without a model the classical methods only. FBP has
the paper's Hann window; the weight of total variation is that with the best mean PSNR on random ellipses. PSNR with a
data range of 1 (water), mean and standard deviation over noise seeds. Published: FBP 19.75, total variation 28.06,
learned primal-dual 38.28 dB.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from priorloom import Case, Registry
from priorloom.models import load_model
from priorloom.noise import backprojected_std
from priorloom.reconstruction import Method, reconstruct
from priorloom_ct.simulate import MU_WATER
from priorloom_ct.training import PHANTOMS, simulator

CONFIG = Path(__file__).parent.parent / "examples/train/adler-ellipses.yaml"
SHAPE = (128, 128)
GRID = (0.2, 0.4, 0.8, 1.2, 1.6)
"""Weights of total variation in units of the backprojected noise."""


def cases(registry: Registry, phantom: str, seeds: Sequence[int]) -> list[Case]:
    """Scans of `phantom`, each with an image and noise of its own seed."""
    plan = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    simulate = simulator(registry, plan["operator"], SHAPE, seed=0, **plan["simulation"])
    made = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        batch = simulate(PHANTOMS[phantom](SHAPE, generator)[None], generator)
        assert batch.truth is not None
        # Cases are in 1/mm, batches normalised.
        y, truth = batch.measurement[0] * MU_WATER, batch.truth[0] * MU_WATER
        made.append(Case(f"seed-{seed}", "ct", batch.operator, y, truth, float(batch.noise_std) * MU_WATER))
    return made


def classical(registry: Registry, made: Sequence[Case], pipeline: str, settings: Mapping[str, Any]) -> list[float]:
    """PSNR of a pipeline on every case."""
    method = Method(pipeline, settings)
    images = [reconstruct(case, method, registry=registry).image / MU_WATER for case in made]
    return [psnr(image, case) for image, case in zip(images, made, strict=True)]


def learned(registry: Registry, made: Sequence[Case], folder: Path) -> list[float]:
    """PSNR of a trained model on every case."""
    model = load_model(folder, registry, made[0].operator)
    values = []
    for case in made:
        assert case.noise_std is not None
        values.append(psnr(model(case.operator, case.measurement / MU_WATER, case.noise_std / MU_WATER), case))
    return values


def psnr(image: torch.Tensor, case: Case) -> float:
    """Against the truth, both with water as 1, data range 1."""
    assert case.truth is not None
    return -10 * float(torch.log10((image - case.truth / MU_WATER).square().mean()))


def total_variation(case: Case, weight: float) -> dict[str, Any]:
    """Settings of tv-pdhg for a weight in units of the backprojected noise; the ellipses have negative parts."""
    assert case.noise_std is not None
    lam = weight * backprojected_std(case.operator) * case.noise_std / MU_WATER
    return {"prior.lam": lam, "nonnegative": False, "solver.max_iterations": 1000, "solver.tolerance": 1e-4}


def main() -> None:
    """Tune, evaluate, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of a trained model's version")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    parser.add_argument("--seeds", type=int, default=5, help="noise seeds of the head")
    arguments = parser.parse_args()
    registry = Registry.discover()
    head = cases(registry, "adler-shepp-logan", range(arguments.seeds))
    figures: dict[str, Any] = {"fbp, hann": classical(registry, head, "fbp", {"filter": "hann"})}
    if arguments.model is not None:
        figures["learned-primal-dual"] = learned(registry, head, arguments.model)
    tuning = cases(registry, "adler-ellipses", range(100, 103))
    means = {
        weight: statistics.mean(classical(registry, [c], "tv-pdhg", total_variation(c, weight))[0] for c in tuning)
        for weight in GRID
    }
    best = max(means, key=lambda weight: means[weight])
    figures["tv-pdhg"] = [classical(registry, [c], "tv-pdhg", total_variation(c, best))[0] for c in head]
    print(f"total variation: mean PSNR on ellipses {means}; weight {best}")
    for name, values in figures.items():
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        print(f"{name:24s} {statistics.mean(values):6.2f} +- {spread:.2f} dB over {len(values)} noise seeds")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"psnr": figures, "tv weights": means}, indent=1) + "\n")


if __name__ == "__main__":
    main()
