"""How often unsupervised unrolled solvers end above ISTA's objective, without the safeguard and with it.

Run: ``python benchmarks/unsupervised_safeguard.py [--json FILE]``; some minutes on one core. Learned ISTA (wavelets)
and learned proximal gradient (a network in each layer), ten layers each, are trained on random ellipses (32 x 32
pixels, 20 views, 1e5 photons) with the objective ``J(x) = 0.5 |Ax - y|^2 + lam |W x|_1`` as the loss: no truth is used.
Then 1,000 inputs, one part like those of training and seven parts unlike them, are reconstructed; each J is compared
with that of ten steps of ISTA (t = 1 / L) from the same start.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from priorloom import LinearOperator, Problem, Registry, Term, run
from priorloom.modality import Batch
from priorloom.steps import ISTA
from priorloom.steps.safeguard import Guarded, safeguarded
from priorloom.train.data import Examples, Subject
from priorloom.train.losses import Objective
from priorloom.unrolled import Unrolled
from priorloom_ct.training import PHANTOMS, simulator

SHAPE, VIEWS, PHOTONS, LAYERS = (32, 32), 20, 1e5, 10
SUBJECT = Subject("ellipses", PHANTOMS["ellipses"])
PER_BATCH, BATCHES = 25, 5
"""1,000 inputs: 8 kinds of 5 batches of 25, each batch with an operator (and settings) of its own."""

Draw = Callable[[int], Batch]


def inputs(registry: Registry) -> Mapping[str, Draw]:
    """Batch number i of every kind."""

    def scanned(
        i: int, phantom: str = "ellipses", photons: float = PHOTONS, seed: int = 1000, **operator: Any
    ) -> Batch:
        simulate = simulator(registry, {"views": VIEWS, **operator}, SHAPE, seed=seed, photons=(photons, photons))
        subject = Subject(phantom, PHANTOMS[phantom])
        return Examples([subject], simulate, image_shape=SHAPE, batch_size=PER_BATCH, count=BATCHES, seed=seed)[i]

    def random_images(i: int) -> Batch:
        batch = scanned(i)
        x = torch.rand(PER_BATCH, *SHAPE, generator=torch.Generator().manual_seed(2000 + i))
        return measured(batch.operator, x, batch.noise_std, i)

    def pure_noise(i: int) -> Batch:
        batch = scanned(i)
        y = batch.operator.range.random(torch.Generator().manual_seed(3000 + i), (PER_BATCH,))
        return Batch(batch.operator, y * batch.measurement.std(), None, batch.noise_std)

    def scaled(i: int) -> Batch:
        batch = scanned(i)
        return Batch(batch.operator, batch.measurement * 10.0 ** (i - 2), None, batch.noise_std)

    fan = {"source_to_axis": 100.0, "axis_to_detector": 60.0}
    others: tuple[dict[str, Any], ...] = (
        {"name": "ct.fanbeam2d", **fan}, {"pixel_size": 3.0}, {"pixel_size": 0.3}, {"arc_deg": 90.0}, {"detectors": 16},
    )  # fmt: skip
    return {
        "as in training": scanned,
        "random images": random_images,
        "pure noise": pure_noise,
        "foam": lambda i: scanned(i, "foam"),
        "photons 1e1 to 1e7": lambda i: scanned(i, photons=(1e1, 1e2, 1e3, 1e4, 1e7)[i]),
        "views 4 to 180": lambda i: scanned(i, views=(4, 9, 15, 60, 180)[i]),
        "scaled by 1e-2 to 1e2": scaled,
        "other operators": lambda i: scanned(i, **others[i]),
    }


def measured(A: LinearOperator, x: Tensor, noise_std: Tensor, seed: int) -> Batch:
    """A scan of `x` with white noise."""
    e = A.range.random(torch.Generator().manual_seed(seed), (x.shape[0],))
    return Batch(A, A(x) + A.range.expand(noise_std) * e, x, noise_std)


def models(registry: Registry, A: LinearOperator) -> Iterator[tuple[str, Unrolled]]:
    """The two solvers, untrained."""
    ista = registry.architecture("learned-ista", A, {"layers": LAYERS})
    yield "learned-ista", ista
    proximal = registry.architecture("learned-proximal-gradient", A, {"layers": LAYERS, "width": 8})
    proximal.prior = ista.prior
    yield "learned-proximal-gradient", proximal


def train(model: Unrolled, examples: Examples, rate: float) -> float:
    """Adam on J(x) / J(0) with a falling rate; gives the mean loss of the last tenth."""
    optimiser = torch.optim.Adam(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, len(examples))
    loss, generator, last = Objective(), torch.Generator().manual_seed(0), []
    for i in range(len(examples)):
        value = loss(model, examples[i], generator)
        optimiser.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        last.append(float(value.detach()))
    tail = last[-max(1, len(last) // 10) :]
    return sum(tail) / len(tail)


@dataclass
class Count:
    """What happened to the inputs of one kind."""

    inputs: int = 0
    above_without: int = 0
    above_with: int = 0
    fallbacks: float = 0.0
    gain: float = 0.0

    def add(self, model: Unrolled, batch: Batch) -> None:
        """Reconstruct a batch three ways."""
        A, y, std = batch.operator, batch.measurement, batch.noise_std
        problem, x0 = model.problem(A, y, std), model.starting_image(A, y)
        plain = Problem(Term(problem.data.f, problem.data.K), problem.prior)
        with torch.no_grad():
            classical = plain.objective(run(nn.ModuleList([ISTA()] * LAYERS), plain, x0=x0).x)
            bare = plain.objective(model(A, y, std))
            state = run(safeguarded(model).layers, problem, x0=x0).state
            assert isinstance(state, Guarded)
            guarded = plain.objective(state.x)
        self.inputs += len(y)
        # Not "above": NaN is worse than any number.
        self.above_without += int((~(bare <= classical)).sum())
        self.above_with += int((~(guarded <= classical)).sum())
        self.fallbacks += float(state.fallbacks.float().mean(0).sum())
        self.gain += float((1 - guarded / classical).sum())

    def row(self) -> dict[str, float]:
        """Counts, and means over the inputs."""
        return {
            "inputs": self.inputs,
            "above_without": self.above_without,
            "above_with": self.above_with,
            "fallbacks_per_layer": self.fallbacks / self.inputs,
            "objective_below_ista": self.gain / self.inputs,
        }


def main() -> None:
    """Train, count, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    parser.add_argument("--steps", type=int, default=100, help="training steps of each solver")
    arguments = parser.parse_args()
    registry = Registry.discover()
    simulate = simulator(registry, {"views": VIEWS}, SHAPE, seed=0, photons=(PHOTONS, PHOTONS))
    examples = Examples([SUBJECT], simulate, image_shape=SHAPE, batch_size=8, count=arguments.steps, seed=0)
    kinds = {kind: [draw(i) for i in range(BATCHES)] for kind, draw in inputs(registry).items()}
    figures = {}
    torch.manual_seed(0)
    for name, model in models(registry, examples[0].operator):
        began = time.perf_counter()
        loss = train(model, examples, 3e-2 if name == "learned-ista" else 2e-3)
        seconds = time.perf_counter() - began
        counts = {kind: Count() for kind in kinds}
        for kind, batches in kinds.items():
            for batch in batches:
                counts[kind].add(model, batch)
        rows = {kind: count.row() for kind, count in counts.items()}
        figures[name] = {"steps": arguments.steps, "seconds": seconds, "loss": loss, "kinds": rows}
        print(f"\n{name}: {arguments.steps} steps in {seconds:.0f} s, J(x) / J(0) {loss:.5f}\n")
        print("| inputs | count | J above ISTA's, without | with | fallbacks per layer | J below ISTA's, with |")
        print("|---|---|---|---|---|---|")
        for kind, row in rows.items():
            print(
                f"| {kind} | {row['inputs']} | {row['above_without']} | {row['above_with']} |"
                f" {row['fallbacks_per_layer']:.2f} | {100 * row['objective_below_ista']:.1f} % |"
            )
        total = {key: sum(row[key] for row in rows.values()) for key in ("inputs", "above_without", "above_with")}
        figures[name]["total"] = total
        print(f"| all | {total['inputs']} | {total['above_without']} | {total['above_with']} | | |", flush=True)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
