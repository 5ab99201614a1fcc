"""Radial MRI: the Toeplitz normal operator beside the pair of nonuniform FFTs, FINUFFT's default grid, and sigpy.

OMP_NUM_THREADS=1 python benchmarks/mri_nufft.py [--size 256] [--coils 8] [--spokes 64] [--repeats 11]

Times are medians of calls that take turns in one process, so that a busy machine slows all of them alike. Then the same
regularised problem is solved by conjugate gradients with both normal operators: to convergence in single precision, and
for a fixed number of iterations in double.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable

import finufft
import numpy as np
import sigpy.mri
import torch
from torch import Tensor

from priorloom import LinearOperator, Problem, Registry, Term, run
from priorloom.functional import LeastSquares
from priorloom.solve import Solution
from priorloom.steps import CG
from priorloom_mri.coils import birdcage_maps
from priorloom_mri.nufft import NonCartesian, radial2d
from priorloom_mri.phantoms import phantom


class Pair(LinearOperator):
    """The operator with the pair of nonuniform FFTs as its normal operator."""

    def __init__(self, A: LinearOperator) -> None:
        super().__init__(A.domain, A.range)
        self.A = A

    def _forward(self, x: Tensor) -> Tensor:
        return self.A._forward(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.A._adjoint(y)


def interleaved(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median milliseconds of every call, taking turns."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(repeats):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            times[name].append(1e3 * (time.perf_counter() - began))
    return {name: statistics.median(values) for name, values in times.items()}


def default_grid(A: NonCartesian, maps: Tensor, x: Tensor) -> Callable[[], object]:
    """``A^H A x`` by FINUFFT with its own choice of the grid."""
    plan = finufft.Plan(
        2, A.domain.shape, len(maps), 1e-6, -1, "complex64", nthreads=torch.get_num_threads(), showwarn=0
    )
    points = (2 * np.pi * A.trajectory.reshape(-1, 2).numpy()).astype(np.float32)
    plan.setpts(*(np.ascontiguousarray(axis) for axis in points.T))
    return lambda: torch.linalg.vecdot(
        maps, torch.from_numpy(plan.execute_adjoint(plan.execute((maps * x).numpy()))), dim=0
    )


def solve(A: LinearOperator, y: Tensor, lam: float, n: int, tol: float) -> Solution:
    """``min 0.5 |Ax - y|^2 + 0.5 lam |x|^2`` by CG."""
    prior = Registry.discover().prior("tikhonov", A.domain, lam=lam)
    return run(CG(), Problem(Term(LeastSquares(A.range, y), A), prior), n=n, tol=tol)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--coils", type=int, default=8)
    parser.add_argument("--spokes", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--lam", type=float, default=0.05)
    arguments = parser.parse_args()
    shape = (arguments.size, arguments.size)
    generator = torch.Generator().manual_seed(0)
    maps, truth = birdcage_maps(arguments.coils, shape), phantom(shape, generator)
    A = radial2d(maps=maps, spokes=arguments.spokes)
    pair, x = Pair(A), A.domain.random(generator)
    S = sigpy.mri.linop.Sense(maps.numpy(), coord=(A.trajectory.numpy() * np.array(shape)).astype(np.float32))
    began = time.perf_counter()
    ready = A.toeplitz
    print(
        f"{arguments.coils} coils of {shape[0]} x {shape[1]}, {arguments.spokes} spokes of {A.range.shape[-1]}, "
        f"{torch.get_num_threads()} thread(s); {ready._weights.nbytes / 2**20:.0f} MiB of transfer functions "
        f"in {time.perf_counter() - began:.2f} s"
    )
    ms = interleaved(
        {
            "Toeplitz normal": lambda: A.normal(x),
            "pair": lambda: pair.normal(x),
            "pair, FINUFFT's default grid": default_grid(A, maps, x),
            "pair, sigpy Sense": lambda: S.H(S(x.numpy())),
        },
        arguments.repeats,
    )
    for name, value in ms.items():
        print(f"  {name:32} {value:8.1f} ms   {value / ms['Toeplitz normal']:6.2f} x Toeplitz")
    difference = (A.normal(x) - pair.normal(x)).norm() / pair.normal(x).norm()
    print(f"  relative difference of the two normal operators {float(difference):.1e}\n")

    y = A(truth) + 0.01 * A.range.random(generator)
    found: dict[str, Solution] = {}
    for name, operator in (("Toeplitz", A), ("pair", pair)):
        found[name] = solve(operator, y, arguments.lam, 1000, 1e-5)
        s = found[name]
        print(f"CG with {name:10} {s.iterations:4} iterations, {s.seconds:6.2f} s, converged {s.converged}")
    print(f"  factor {found['pair'].seconds / found['Toeplitz'].seconds:.2f}, images differ by {_gap(found):.1e}")
    D = copy.deepcopy(A).double()
    z = y.to(torch.complex128)
    double = {n: solve(B, z, arguments.lam, 10, 1e-14) for n, B in (("Toeplitz", D), ("pair", Pair(D)))}
    print(f"  in double precision, after 10 iterations, they differ by {_gap(double):.1e}")


def _gap(found: dict[str, Solution]) -> float:
    return float((found["Toeplitz"].x - found["pair"].x).norm() / found["pair"].x.norm())


if __name__ == "__main__":
    main()
