"""One training step of learned primal-dual on our ray transform and on ODL's OperatorModule, in one process.

Run: ``python benchmarks/odl_training_step.py [--json FILE]``. The setup is that of Adler and Oktem (2018): 128 x 128
pixels, 30 views, 183 detectors, 10 iterations, 5 primal and 5 dual images, 32 channels, batch 5, Adam on the squared
error. Both contenders are the same network object, so the same modules and parameters, called with another operator:
``ct.parallel2d``, or ODL's ray transform with ASTRA on the CPU behind ``odl.contrib.torch.OperatorModule``, whose
autograd is ODL's own. They take turns, so that a busy machine slows all of them alike. Reported are medians.
Beside other work use one thread: two that wait for each other on a busy core measure the waiting.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from priorloom import LinearOperator, Registry
from priorloom.unrolled import Unrolled
from priorloom_ct.backends import backend
from priorloom_ct.operators import RayTransform, parallel2d
from priorloom_ct.phantoms import adler_ellipses
from priorloom_ct.simulate import MU_WATER, gaussian_noise

SIZE, VIEWS, DETECTORS, BATCH = 128, 30, 183, 5
WIDTH = SIZE * math.sqrt(2)
"""Of the detector in mm, as ``odl.tomo.parallel_beam_geometry`` chooses it; all are as wide as the image's diagonal."""

Precision = Callable[[], AbstractContextManager[Any]]
PRECISIONS: Mapping[str, Precision] = {
    "float32": nullcontext,
    "bfloat16 networks": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
}


class OdlTransform(LinearOperator):
    """ODL's ray transform of the same scan; values and derivatives are those of its OperatorModules.

    Parameters
    ----------
    like
        The scan.
    """

    def __init__(self, like: RayTransform) -> None:
        super().__init__(like.domain, like.range)
        odl, tomo = backend("odl", "the benchmark"), backend("odl.applications.tomo", "the benchmark")
        module = backend("odl.contrib.torch", "the benchmark").OperatorModule
        space = odl.uniform_discr([-SIZE / 2] * 2, [SIZE / 2] * 2, [SIZE] * 2, dtype="float32")
        # ODL's first axis is x; turned by a quarter, our [rows, columns] are its arrays as they stand.
        half = math.pi / VIEWS / 2
        angles = np.deg2rad(like.geometry.angles_deg) + math.pi / 2
        geometry = tomo.Parallel2dGeometry(
            odl.uniform_partition(angles[0] - half, angles[-1] + half, VIEWS),
            odl.uniform_partition(-WIDTH / 2, WIDTH / 2, DETECTORS),
        )
        transform = tomo.RayTransform(space, geometry, impl="astra_cpu")
        self.ray, self.back, self.size = module(transform), module(transform.adjoint), like.norm()

    def forward(self, x: Tensor) -> Tensor:
        """The ray transform; the derivative is ODL's."""
        result: Tensor = self.ray(x)
        return result

    def adjoint(self, y: Tensor) -> Tensor:
        """Its adjoint; the derivative is ODL's."""
        result: Tensor = self.back(y)
        return result

    def _norm(self) -> float:
        return self.size


def scan() -> RayTransform:
    """Adler and Oktem's."""
    angles = tuple(180.0 * (k + 0.5) / VIEWS for k in range(VIEWS))
    return parallel2d(
        image_shape=(SIZE, SIZE), angles_deg=angles, detectors=DETECTORS, detector_pitch=WIDTH / DETECTORS
    )


def training_step(
    model: Unrolled, A: LinearOperator, y: Tensor, truth: Tensor, std: Tensor, precision: Precision
) -> Callable[[], float]:
    """Forward, squared error, backward, Adam; gives the loss. Every contender has its own Adam, at rate zero.

    So all of them keep computing the same thing, while Adam does all of its work.
    """
    optimiser = torch.optim.Adam(model.parameters(), lr=0.0, betas=(0.9, 0.99))

    def step() -> float:
        optimiser.zero_grad()
        with precision():
            image = model(A, y, std)
        loss = (image.float() - truth).square().mean()
        loss.backward()
        optimiser.step()
        return float(loss.detach())

    return step


def applications(A: LinearOperator, x: Tensor, y: Tensor) -> Callable[[], float]:
    """One forward and one adjoint on the batch; a training step does 20 of each, half of them in the backward pass."""

    def pair() -> float:
        A(x)
        A.adjoint(y)
        return 0.0

    return pair


def contenders() -> tuple[dict[str, Callable[[], float]], dict[str, Callable[[], float]]]:
    """Training steps by name, and the operators alone."""
    generator = torch.Generator().manual_seed(0)
    own = scan()
    truth = torch.stack([adler_ellipses((SIZE, SIZE), generator) for _ in range(BATCH)]) / MU_WATER
    clean = own(truth)
    std = 0.05 * clean.abs().mean(dim=(-2, -1))
    y = torch.stack([gaussian_noise(p, float(s), generator) for p, s in zip(clean, std, strict=True)])
    torch.manual_seed(0)
    settings = {"layers": 10, "memory": 4, "width": 32, "depth": 3, "back": "adjoint", "start": "zero"}
    model = Registry.discover().architecture("learned-primal-dual", own, settings)
    # As initialised the last convolutions are zero and most gradients with them.
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.01 * torch.randn(weight.shape, generator=generator)
    operators = {"ODL OperatorModule": OdlTransform(own), "priorloom": own}
    steps = {
        f"{name}, {kind}": training_step(model, A, y, truth, std, precision)
        for kind, precision in PRECISIONS.items()
        for name, A in operators.items()
    }
    return steps, {name: applications(A, truth, y) for name, A in operators.items()}


def main() -> None:
    """Print and write milliseconds per step, those of the operators in it, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    parser.add_argument("--rounds", type=int, default=9, help="steps of every contender")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of torch")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    steps, pairs = contenders()
    times: dict[str, list[float]] = {name: [] for name in (*steps, *pairs)}
    losses: dict[str, float] = {}
    for k in range(arguments.rounds + 1):
        for name, call in (*steps.items(), *pairs.items()):
            began = time.perf_counter()
            losses[name] = call()
            if k:  # the first round computes weights and warms caches
                times[name].append(time.perf_counter() - began)
    reference = next(iter(steps))
    rows = {}
    for name in steps:
        if not abs(losses[name] / losses[reference] - 1) < 1e-2:
            raise SystemExit(f"{name}: loss {losses[name]:.6g} is not that of ODL, {losses[reference]:.6g}")
        ratios = [a / b for a, b in zip(times[reference], times[name], strict=True)]
        rows[name] = {
            "step_ms": 1e3 * statistics.median(times[name]),
            "operators_ms": 20e3 * statistics.median(times[name.split(",")[0]]),
            "times_faster_than_odl_float32": statistics.median(ratios),
            "loss": losses[name],
        }
    print(f"{SIZE} x {SIZE}, {VIEWS} views, batch {BATCH}, {arguments.threads} threads, torch {torch.__version__}")
    for name, row in rows.items():
        print(
            f"{name:38s} {row['step_ms']:7.0f} ms a step, {row['operators_ms']:6.0f} ms of it in operators,"
            f" {row['times_faster_than_odl_float32']:5.2f} x, loss {row['loss']:.6g}"
        )
    if arguments.json is not None:
        facts = {"threads": arguments.threads, "rounds": arguments.rounds, "torch": torch.__version__, "rows": rows}
        arguments.json.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
