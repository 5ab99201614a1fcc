"""LISTA on the synthetic problem of Chen, Liu, Wang and Yin (NeurIPS 2018), against ISTA and FISTA with tuned weights.

A is Gaussian, 250 x 500, with columns of norm 1; an entry of x is nonzero with probability 0.1, and then standard
normal; y = A x without noise. NMSE is ``10 log10(E |x_k - x|^2 / E |x|^2)`` in dB. The weight lam of ISTA and FISTA is
the best of a grid on validation vectors for the NMSE at iteration 160.

Every variant has 16 layers and is trained layer by layer as in the paper: for k = 1 .. 16 (1) the parameters of layer k
alone, (2) all parameters up to layer k at 0.2 times the rate, (3) the same at 0.02 times the rate; Adam on the squared
error of x_k, fresh vectors in every batch. Unlike the paper the stages have a fixed length, a new layer starts from
the values of the one before it, and a last stage trains all parameters at 0.5 times the rate, which falls to nothing
along a cosine. The weights of a stage with the lowest error on the validation vectors are kept. Figures are of 2000
vectors that nothing else has seen.

    python benchmarks/lista_chen.py --out FOLDER [--variants lista-cpss ...] [--steps N] [--finish N] [--seed 0]

A variant whose weights lie in FOLDER from a run with the same settings is not trained again. Writes NAME.safetensors
and NAME.json for every variant, lista-chen.json, lista-chen.png and lista-error-split.png.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from safetensors.torch import load_model, save_model
from torch import Tensor, nn

from priorloom import Problem, Registry, Term, run
from priorloom.dense import DenseOperator
from priorloom.diagnose.error_split import ErrorSplit, crossover, error_split, errors_of_iterations, one_step
from priorloom.functional import LeastSquares
from priorloom.steps import FISTA, ISTA
from priorloom.unrolled import Unrolled

ROWS, COLUMNS, SUPPORT = 250, 500, 0.1
LAYERS, ITERATIONS = 16, 160
GRID = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.1, 0.15, 0.2, 0.3)
VALIDATION, TUNING, TEST, SPLIT = 500, 250, 2000, 1000
RATES, LAST_RATE = (1.0, 0.2, 0.02), 0.5
DEPARTURE_RATE = 0.05
"""The rate of LISTA's D relative to that of W."""
WATCH = 50
"""Steps between two looks at the validation vectors."""


@dataclass(frozen=True)
class Training:
    """What a variant is trained with, enough to train it again.

    Parameters
    ----------
    variant
        The architecture.
    matrix_rate, scalar_rate
        Adam's first rate for the matrices, and for thresholds and step sizes.
    steps, finish
        Steps per layer and stage, and in the last stage.
    batch, seed
        Vectors per step, and the seed of everything.
    """

    variant: str
    matrix_rate: float
    scalar_rate: float = 1e-2
    steps: int = 60
    finish: int = 500
    batch: int = 64
    seed: int = 0


# A coupled matrix stands behind a step size of about 1 / L = 0.18: then the rate of their product is nearly the same.
VARIANTS = (
    Training("lista", 2e-3, steps=40),
    Training("lista-tied", 2e-3, steps=40),
    Training("lista-cp", 1e-2),
    Training("lista-cpss", 1e-2),
)


def dictionary(seed: int) -> DenseOperator:
    """A."""
    M = torch.randn(ROWS, COLUMNS, generator=torch.Generator().manual_seed(seed))
    return DenseOperator(M / M.norm(dim=0))


def sparse(count: int, generator: torch.Generator) -> Tensor:
    """`count` Bernoulli-Gaussian vectors."""
    x = torch.randn(count, COLUMNS, generator=generator)
    return x * (torch.rand(count, COLUMNS, generator=generator) < SUPPORT)


def held_out(seed: int, which: int, count: int) -> Tensor:
    """Vectors of a stream of their own: 1 for validation, 2 for the test; training draws from stream 3."""
    return sparse(count, stream(seed, which))


def stream(seed: int, which: int) -> torch.Generator:
    """A generator for one purpose."""
    return torch.Generator().manual_seed(1000 * (seed + 1) + which)


def square(p: Tensor) -> bool:
    """Whether p is the D of a LISTA: how far the inhibition departs from coupling."""
    return p.ndim == 2 and p.shape[0] == p.shape[1]


def nmse(errors: Tensor, truth: Tensor) -> list[float]:
    """NMSE in dB from ``|x_k - x|``, ``[k, batch]``."""
    return [round(float(10 * torch.log10(e.square().sum() / truth.square().sum())), 3) for e in errors]


def after(network: Unrolled, layers: int, A: DenseOperator, x: Tensor) -> Tensor:
    """x_k for the measurements of x."""
    return run(nn.ModuleList(list(network.layers)[:layers]), network.problem(A, A(x), 0.0)).x


def parameters(layers: Iterable[nn.Module]) -> list[nn.Parameter]:
    """Every parameter once."""
    return list({id(p): p for layer in layers for p in layer.parameters()}.values())


def train(training: Training, A: DenseOperator) -> tuple[Unrolled, dict[str, Any]]:
    """A trained network and the record of its training."""
    network = Registry.discover().architecture(training.variant, A, {"layers": LAYERS})
    validation = held_out(training.seed, 1, VALIDATION)
    draw = stream(training.seed, 3)
    layers = list(network.layers)
    began, processor, curve, seen = time.perf_counter(), time.process_time(), [], 0

    def error(k: int) -> float:
        with torch.no_grad():
            return float((after(network, k, A, validation) - validation).square().sum())

    def stage(k: int, chosen: list[nn.Parameter], rate: float, steps: int, falling: bool = False) -> float:
        nonlocal seen
        groups = [
            {"params": [p for p in chosen if p.ndim == 2 and not square(p)], "lr": rate * training.matrix_rate},
            {"params": [p for p in chosen if square(p)], "lr": rate * DEPARTURE_RATE * training.matrix_rate},
            {"params": [p for p in chosen if p.ndim < 2], "lr": rate * training.scalar_rate},
        ]
        optimiser = torch.optim.Adam([g for g in groups if g["params"]], fused=True)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        alone = len(chosen) < len(parameters(layers[:k]))  # what comes before needs no gradients then
        best, kept = error(k), [p.detach().clone() for p in chosen]
        for i in range(1, steps + 1):
            x = sparse(training.batch, draw)
            problem = network.problem(A, A(x), 0.0)
            with torch.set_grad_enabled(not alone):
                state = layers[0].init(problem)
                for layer in layers[: k - 1]:
                    state = layer(problem, state)
            loss = (layers[k - 1](problem, state).x - x).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            if falling:
                cosine.step()
            seen += len(x)
            if i % WATCH == 0 or i == steps:
                now = error(k)
                if now < best:
                    best, kept = now, [p.detach().clone() for p in chosen]
                if falling and i % (10 * WATCH) == 0:
                    print(f"{training.variant} step {i}: {decibel(best):.3f} dB, {clock():.0f} s", flush=True)
        with torch.no_grad():
            for p, value in zip(chosen, kept, strict=True):
                p.copy_(value)
        return decibel(best)

    def decibel(error: float) -> float:
        return round(10 * math.log10(error / float(validation.square().sum())), 3)

    def clock() -> float:
        return time.perf_counter() - began

    for k in range(1, LAYERS + 1):
        known = {id(p) for p in parameters(layers[: k - 1])}
        if k > 1:
            with torch.no_grad():
                for new, old in zip(layers[k - 1].parameters(), layers[k - 2].parameters(), strict=True):
                    new.copy_(old)
        own = [p for p in parameters(layers[:k]) if id(p) not in known]
        every = parameters(layers[:k])
        reached = [stage(k, p, rate, training.steps) for p, rate in zip((own, every, every), RATES, strict=True)]
        curve.append(reached)
        print(f"{training.variant} layer {k}: {reached} dB, {clock():.0f} s", flush=True)
    last = stage(LAYERS, parameters(layers), LAST_RATE, training.finish, falling=True)
    record = {
        "seconds": round(clock(), 1), "processor_seconds": round(time.process_time() - processor, 1), "vectors": seen,
        "validation_db_of_stages": curve, "validation_db": last,
    }  # fmt: skip
    return network, record


def trained(training: Training, A: DenseOperator, folder: Path) -> tuple[Unrolled, dict[str, Any]]:
    """The network from `folder` where it was trained with the same settings, else trained now."""
    weights, card = folder / f"{training.variant}.safetensors", folder / f"{training.variant}.json"
    if weights.exists() and card.exists():
        record = json.loads(card.read_text())
        if record["training"] == asdict(training):
            network = Registry.discover().architecture(training.variant, A, {"layers": LAYERS})
            load_model(network, weights)
            return network, record
    network, record = train(training, A)
    record = {"training": asdict(training), **record}
    save_model(network, str(weights))
    card.write_text(json.dumps(record, indent=1))
    return network, record


def classical(A: DenseOperator, y: Tensor, lam: float) -> Problem:
    """The lasso that ISTA and FISTA solve."""
    return Problem(Term(LeastSquares(A.range, y), A), Registry.discover().prior("l1", A.domain, lam=lam))


def tuned(step: ISTA | FISTA, A: DenseOperator, seed: int) -> dict[str, Any]:
    """The weight of the grid with the lowest NMSE at iteration 160 on validation vectors."""
    x = held_out(seed, 1, VALIDATION)[:TUNING]
    grid = {}
    for lam in GRID:
        solution = run(step, classical(A, A(x), lam), n=ITERATIONS, tol=1e-30).x
        grid[round(lam, 5)] = nmse((solution - x).norm(dim=-1)[None], x)[0]
    return {"lam": min(grid, key=lambda lam: grid[lam]), "grid_db": grid}


class Splits:
    """Error splits in double precision against ISTA, around its fixed point and around the truth."""

    def __init__(self, A: DenseOperator, x: Tensor, lam: float) -> None:
        self.A, x = DenseOperator(A.matrix.double()), x.double()
        self.y = self.A(x)
        self.lasso = classical(self.A, self.y, lam)
        self.points = {"truth": x, "fixed_point": run(FISTA(), self.lasso, n=5000, tol=1e-11).x}

    def of(self, network: Unrolled) -> dict[str, Any]:
        """The split around either point, in numbers."""
        network.double()
        T, problem = one_step(ISTA(), self.lasso), network.problem(self.A, self.y, 0.0)
        found = {f"split_around_{k}": told(error_split(network.layers, problem, T, p)) for k, p in self.points.items()}
        network.float()
        return found


def told(found: ErrorSplit) -> dict[str, Any]:
    """The split in numbers: means over the vectors, and whether the bound holds for every layer and vector."""
    return {
        "holds_for_every_layer_and_vector": bool(found.holds.all()),
        "vectors": found.errors.shape[1],
        "rho_max": round(float(found.rho.max()), 6),
        "rho_mean": round(float(found.rho.mean()), 6),
        **{
            name: [float(f"{v:.4g}") for v in values.mean(1)]
            for name, values in {
                "error": found.errors, "bound": found.bound, "contraction": found.contraction,
                "unfolding": found.unfolding, "remainder": found.remainders,
            }.items()
        },
    }  # fmt: skip


def seconds_of(call: Any) -> float:
    """The shortest of five calls."""
    times = []
    with torch.no_grad():
        for _ in range(5):
            began = time.perf_counter()
            call()
            times.append(time.perf_counter() - began)
    return min(times)


def draw_curves(results: dict[str, Any], path: Path) -> None:
    """NMSE against layers or iterations."""
    figure = Figure(figsize=(7, 4.6), layout="constrained")
    axes = figure.subplots()
    for name, entry in results["classical"].items():
        axes.plot(entry["nmse_db"], label=f"{name}, lam = {entry['lam']:.3g}", linestyle="--")
    for name, entry in results["variants"].items():
        axes.plot(entry["nmse_db"], label=name, marker="o", markersize=3)
    axes.set_xscale("symlog", linthresh=16, linscale=1.5)
    axes.set_xticks([0, 4, 8, 12, 16, 40, 80, 160], ["0", "4", "8", "12", "16", "40", "80", "160"])
    axes.set_xlim(0, ITERATIONS)
    axes.set_xlabel("layers or iterations")
    axes.set_ylabel("NMSE in dB")
    axes.set_title(f"A {ROWS} x {COLUMNS}, 10 % support, no noise; {TEST} test vectors", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def draw_splits(results: dict[str, Any], path: Path) -> None:
    """The split of every variant around the truth."""
    chosen = list(results["variants"].items())
    figure = Figure(figsize=(3.4 * len(chosen), 3.4), layout="constrained")
    for axes, (name, entry) in zip(figure.subplots(1, len(chosen), sharey=True, squeeze=False)[0], chosen, strict=True):
        parts = entry["split_around_truth"]
        for part, style in [("error", "k-"), ("bound", "C3-"), ("contraction", "C0--"), ("unfolding", "C1--")]:
            axes.plot(parts[part], style, label=part)
        axes.set_yscale("log")
        axes.set_title(f"{name}: max rho {parts['rho_max']:.3f}", fontsize=9)
        axes.set_xlabel("layer")
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("mean over the vectors")
    figure.axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def main() -> None:
    """Train what is not trained yet, measure everything, write figures and numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    names = [t.variant for t in VARIANTS]
    parser.add_argument("--variants", nargs="+", default=names, choices=names)
    parser.add_argument("--steps", type=int, help="per layer and stage")
    parser.add_argument("--finish", type=int, help="in the last stage")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folder: Path = arguments.out
    folder.mkdir(parents=True, exist_ok=True)

    A = dictionary(arguments.seed)
    networks = {}
    for training in VARIANTS:
        if training.variant in arguments.variants:
            training = replace(
                training, seed=arguments.seed, steps=arguments.steps or training.steps,
                finish=arguments.finish or training.finish,
            )  # fmt: skip
            networks[training.variant] = trained(training, A, folder)
    x = held_out(arguments.seed, 2, TEST)
    y = A(x)
    results: dict[str, Any] = {
        "setup": {"rows": ROWS, "columns": COLUMNS, "support": SUPPORT, "test_vectors": TEST, "seed": arguments.seed,
                  "norm": A.norm(), "lipschitz": A.norm() ** 2},
        "classical": {}, "variants": {},
    }  # fmt: skip
    curves = {}
    for step in (ISTA(), FISTA()):
        chosen = tuned(step, A, arguments.seed)
        problem = classical(A, y, chosen["lam"])
        curves[type(step).__name__] = nmse(errors_of_iterations(step, problem, x, ITERATIONS), x)
        seconds = seconds_of(lambda s=step, p=problem: errors_of_iterations(s, p, x, LAYERS))
        results["classical"][type(step).__name__] = {
            **chosen, "nmse_db": curves[type(step).__name__], "milliseconds_for_16": round(1e3 * seconds, 1),
        }  # fmt: skip
    splits = Splits(A, x[:SPLIT], results["classical"]["ISTA"]["lam"])
    for name, (network, record) in networks.items():
        with torch.no_grad():
            errors = torch.stack([x.norm(dim=-1)] + [(after(network, k, A, x) - x).norm(dim=-1) for k in range(1, 17)])
        found = nmse(errors, x)
        seconds = seconds_of(lambda n=network: n(A, y, 0.0))
        results["variants"][name] = {
            "nmse_db": found,
            "milliseconds_for_16": round(1e3 * seconds, 1),
            "parameters": sum(p.numel() for p in network.parameters()),
            "iterations_to_the_same": {
                method: crossover(found[-1], torch.tensor(curve)) for method, curve in curves.items()
            },
            **splits.of(network),
            **record,
        }
    (folder / "lista-chen.json").write_text(json.dumps(results, indent=1))
    draw_curves(results, folder / "lista-chen.png")
    draw_splits(results, folder / "lista-error-split.png")
    for name, entry in [*results["classical"].items(), *results["variants"].items()]:
        print(f"{name:12} {entry['nmse_db'][LAYERS]:8.2f} dB after 16, {entry['nmse_db'][-1]:8.2f} dB at the end")


if __name__ == "__main__":
    main()
