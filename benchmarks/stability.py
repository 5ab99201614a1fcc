"""Is a network that was trained on low noise less stable than tuned total variation? Worst perturbations of both.

Two small networks of one architecture (learned primal-dual, 5 layers, 39,255 numbers) learn phantoms of 64 x 64 pixels
in 30 parallel views, one at 1e7 photons (low noise), one at 1e5, with the same seed and number of steps. Their worst
perturbations, of the norm of the noise of the test case, are searched at both doses beside those of TV, whose weight is
tuned at the dose at hand on other ellipses, and of FBP. Nothing of it is shipped.

    python benchmarks/stability.py [--steps 1500] [--cases 2] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from statistics import mean

from priorloom import Registry
from priorloom.choice import on_cases
from priorloom.diagnose.method_map import MethodMap
from priorloom.diagnose.stability import Budget, Stability, stability
from priorloom.modality import Case
from priorloom.reconstruction import Method

DOSES = {"low-noise": 1e7, "usual": 1e5}
SIZE, VIEWS, TUNING = (64, 64), 30, (100, 101, 102)
"""Seeds of the ellipses on which TV is tuned; those of the test cases are 0, 1, ..."""
CONFIG = """\
modality: ct
architecture: {{name: learned-primal-dual, layers: 5, memory: 4, width: 16, back: pseudo-inverse}}
operator: {{views: {views}}}
image_shape: [{size[0]}, {size[1]}]
simulation: {{photons: [{photons:e}, {photons:e}], pixel_sizes: [2.0]}}
data:
  train:
    - {{subject: ellipses, phantom: ellipses, weight: 0.7}}
    - {{subject: foam, phantom: foam, weight: 0.3}}
  validation:
    - {{subject: ellipses-held-out, phantom: ellipses}}
loss: {{mse: 1.0}}
optimiser: {{learning_rate: 2.0e-3, gradient_clip: 1.0, ema: 0.99}}
batch_size: 4
steps: {steps}
validate_every: 500
validation_batches: 3
seed: 0
"""


def main() -> None:
    """Train, search, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--cases", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("stability-out"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    registry = Registry.discover()
    models = {name: _trained(name, photons, arguments.steps, arguments.out) for name, photons in DOSES.items()}
    rows = []
    print(
        f"{'photons':>8} {'method':24} {'worst':>8} {'random':>8} {'local':>8} {'error':>8} {'worst':>8} {'random':>8}"
    )
    for photons in DOSES.values():
        tuning = [replace(_case(registry, seed, photons), name=f"ellipses-{seed}") for seed in TUNING]
        tuned = on_cases(tuning, Method("tv-pdhg"), {"prior.lam.times": (0.03, 10.0)}, budget=9 * len(tuning))
        methods = [
            *(Method("learned", {"model.path": str(path)}, f"network-{name}") for name, path in models.items()),
            tuned.method, Method("fbp"),
        ]  # fmt: skip
        print(f"TV at {photons:g} photons: {dict(tuned.settings)}", flush=True)
        for method in methods:
            found = []
            for seed in range(arguments.cases):
                case = _case(registry, seed, photons)
                assert case.noise_std is not None
                F = MethodMap(case, method, registry=registry)
                found.append(stability(F, case, case.noise_std, budget=Budget(iterations=10, restarts=1)))
            rows.append({"photons": photons, "method": method.name, "cases": [_figures(one) for one in found]})
            _print(photons, method.name, found)
            (arguments.out / "stability.json").write_text(json.dumps(rows, indent=1))


def _trained(name: str, photons: float, steps: int, out: Path) -> Path:
    """The folder of a network; trained where it is not there yet."""
    folder = out / name
    if not list(folder.glob("*/1/card.json")):
        config = out / f"{name}.yaml"
        config.write_text(CONFIG.format(photons=photons, steps=steps, size=SIZE, views=VIEWS))
        command = [sys.executable, "-m", "priorloom_apps.cli", "train", str(config), "--out", str(folder)]
        subprocess.run(command, check=True)
    return next(folder.glob("*/1/card.json")).parent.resolve()


def _case(registry: Registry, seed: int, photons: float) -> Case:
    (case,) = registry.modality("ct").cases(
        registry, {"views": VIEWS}, seed=seed, photons=photons, images=("ellipses",), image_shape=SIZE
    )
    return case


def _figures(one: Stability) -> dict[str, object]:
    assert one.errors is not None
    return {
        "worst": one.worst.amplification, "random": one.draws.amplification, "local": one.local.value,
        "history": one.worst.history, "error": one.errors.plain, "error_worst": one.errors.worst,
        "error_random": one.errors.random,
    }  # fmt: skip


def _print(photons: float, name: str, found: list[Stability]) -> None:
    errors = [one.errors for one in found if one.errors is not None]
    figures = [mean(one.worst.amplification for one in found), mean(one.draws.amplification for one in found),
               mean(one.local.value for one in found), *(100 * mean(getattr(e, part) for e in errors)
               for part in ("plain", "worst", "random"))]  # fmt: skip
    print(f"{photons:8g} {name:24} " + " ".join(f"{v:8.3f}" for v in figures[:3])
          + " " + " ".join(f"{v:6.2f} %" for v in figures[3:]), flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
