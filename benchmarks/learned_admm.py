"""Learned ADMM with three x-updates: exact, conjugate gradients, and a network that replaces the solve.

Single-coil Cartesian MRI at R = 4 (variable density, noise 1 % of the brightest pixel), where the x-update has a closed
form. Trained on two heads (papaya-fse; stroke, T1 and T2), tested on a third (pyradiomics brain1) that no training and
no tuning saw. The weight of l1-wavelet is the best of nine on images of the training heads. Times are CPU
seconds of one core.

    OMP_NUM_THREADS=1 python benchmarks/learned_admm.py [--data FOLDER] [--budget 60] [--size 64] [--out TABLE.md]
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from torch import Tensor

from priorloom import Case, Registry
from priorloom.metrics import metrics
from priorloom.modality import Batch, Simulate
from priorloom.reconstruction import Method, reconstruct
from priorloom.train.data import Examples, Subject, cropped
from priorloom.train.images import read_slices
from priorloom.unrolled import Unrolled

ARCHITECTURES = {
    "learned-admm-exact": "exact",
    "learned-admm": "conjugate gradients, 4 iterations",
    "learned-admm-network": "network, 1 learned step",
}
TRAIN = {"papaya-fse": ["papaya-fse"], "stroke": ["stroke/T1.nii.gz", "stroke/T2.nii.gz"]}
TEST = "pyradiomics/brain1_image.nrrd"
LAMS = tuple(float(lam) for lam in np.geomspace(3e-6, 3e-2, 9))
TUNING, TESTING = 4, 12
"""How many images."""


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    method: str
    x_update: str
    psnr: float
    ssim: float
    seconds: float
    parameters: int
    steps: int


def main() -> None:
    """Train the three, run everything on the held-out head, and print the table."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("PRIORLOOM_DATA", default)))
    parser.add_argument("--budget", type=float, default=60.0, help="CPU seconds of training for each (default 60)")
    parser.add_argument("--size", type=int, default=64, help="pixels per side (default 64)")
    parser.add_argument("--out", type=Path, help="file for the table")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    registry = Registry.discover()
    shape = (arguments.size, arguments.size)
    folder = arguments.data / "mri-images"

    def simulate(seed: int) -> Simulate:
        training = registry.modality("mri").training
        assert training is not None
        return training.simulator(
            registry, {"name": "mri.fourier2d"}, shape, seed=seed, acceleration=(4.0, 4.0), noise=(0.01, 0.01)
        )

    from_stored = registry.modality("mri").training.from_stored  # type: ignore[union-attr]
    stored = {name: [s for file in files for s in read_slices(folder / file)] for name, files in TRAIN.items()}
    subjects = [Subject(name, cropped(_busy(slices), from_stored, 0.7, True)) for name, slices in stored.items()]
    examples = Examples(subjects, simulate(1), image_shape=shape, batch_size=4, count=10**9, seed=1)
    plain = [Subject(name, cropped(_busy(slices), from_stored, 1.0, False)) for name, slices in stored.items()]
    tuning = Examples(plain, simulate(2), image_shape=shape, batch_size=1, count=TUNING, seed=2)

    slices = _busy(read_slices(folder / TEST))
    chosen = [slices[round(i)] for i in np.linspace(0, len(slices) - 1, TESTING)]
    measured = simulate(3)
    generator = torch.Generator().manual_seed(3)
    tests = [measured(cropped([s], from_stored, 1.0, False)(shape, generator)[None], generator) for s in chosen]

    rows = [_classical("zero-filled", "", {}, registry, tests)]
    best = max(LAMS, key=lambda lam: _l1(lam, registry, [tuning[i] for i in range(TUNING)]).psnr)
    rows.append(_l1(best, registry, tests))
    print(rows, flush=True)
    for name, words in ARCHITECTURES.items():
        torch.manual_seed(0)
        model = registry.architecture(name, tests[0].operator, {})
        steps = _train(model, examples, arguments.budget)
        rows.append(_learned(name, words, model, steps, tests))
        print(rows[-1], flush=True)
    table = _table(rows, best, arguments.budget)
    print(table)
    if arguments.out is not None:
        arguments.out.write_text(table + "\n")


def _busy(slices: list[Tensor]) -> list[Tensor]:
    """The slices that show enough of a head: their mean is at least half of the largest one's."""
    means = [float(s.mean()) for s in slices]
    return [s for s, m in zip(slices, means, strict=True) if m >= 0.5 * max(means)]


def _train(model: Unrolled, examples: Examples, budget: float) -> int:
    """Adam on the mean squared error with a learning rate that falls to zero with the budget; how many steps."""
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    began = time.process_time()
    for number in count():
        share = (time.process_time() - began) / budget
        if share >= 1:
            break
        optimiser.param_groups[0]["lr"] = 1e-3 * 0.5 * (1 + np.cos(np.pi * share))
        batch = examples[number]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            image = model(batch.operator, batch.measurement, batch.noise_std)
        loss = (image - batch.truth).abs().square().mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if number % 200 == 0:
            print(f"  step {number}, loss {float(loss.detach()):.5f}, {share:.0%} of the budget", flush=True)
    return number


def _learned(name: str, words: str, model: Unrolled, steps: int, tests: list[Batch]) -> Row:
    psnr, ssim, seconds = [], [], []
    with torch.no_grad():
        model(tests[0].operator, tests[0].measurement, tests[0].noise_std)  # what is built once is not timed
        for batch in tests:
            began = time.process_time()
            image = model(batch.operator, batch.measurement, batch.noise_std)
            seconds.append(time.process_time() - began)
            assert batch.truth is not None
            truth = batch.truth[0].abs()
            figures = metrics(image[0].abs(), truth, float(truth.max()))
            psnr.append(figures["psnr"])
            ssim.append(figures["ssim"])
    parameters = sum(p.numel() for p in model.parameters())
    return Row(name, words, mean(psnr), mean(ssim), mean(seconds), parameters, steps)


def _classical(name: str, words: str, settings: dict[str, float], registry: Registry, tests: list[Batch]) -> Row:
    results = []
    began = time.process_time()
    for i, batch in enumerate(tests):
        assert batch.truth is not None
        std = float(batch.noise_std[0])
        case = Case(f"head-{i}", "mri", batch.operator, batch.measurement[0], batch.truth[0], std)
        results.append(reconstruct(case, Method(name, settings), registry=registry))
    seconds = (time.process_time() - began) / len(tests)
    figures = [r.metrics for r in results if r.metrics is not None]
    psnr, ssim = mean(f["psnr"] for f in figures), mean(f["ssim"] for f in figures)
    return Row(name, words, psnr, ssim, seconds, len(settings), 0)


def _l1(lam: float, registry: Registry, tests: list[Batch]) -> Row:
    return _classical("l1-wavelet", "", {"prior.lam": lam}, registry, tests)


def _table(rows: list[Row], lam: float, budget: float) -> str:
    head = (
        "| method | x-update | PSNR (dB) | SSIM | CPU seconds per image | parameters | training steps |\n"
        + "|---" * 7
        + "|"
    )
    lines = [
        f"| {r.method} | {r.x_update} | {r.psnr:.2f} | {r.ssim:.3f} | {r.seconds:.3f} | {r.parameters:,} "
        f"| {r.steps:,} |"
        for r in rows
    ]
    note = f"l1-wavelet with the best of {len(LAMS)} weights on {TUNING} training images, {lam:.2g}; training of "
    return "\n".join([head, *lines, "", note + f"{budget:.0f} CPU seconds each; {TESTING} test images."])


if __name__ == "__main__":
    main()
