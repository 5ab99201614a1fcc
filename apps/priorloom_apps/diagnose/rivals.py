"""The classical methods that an unrolled network is compared with, and their curves."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from priorloom.binding import bind
from priorloom.config import Plan, make_methods
from priorloom.diagnose.crossover import Curve, Rival, iteration_seconds, rival_errors, seconds_of
from priorloom.errors import InputError
from priorloom.modality import Batch, Case
from priorloom.multiples import resolve_multiples
from priorloom.pipeline import Solver
from priorloom.problem import Problem
from priorloom.registry import Registry
from priorloom.solve import run
from priorloom.steps import FISTA, ISTA, PDHG
from priorloom.unrolled import Unrolled

REFERENCE = Solver(max_iterations=50_000, tolerance=1e-6)
"""Of FISTA for the minimiser that an unrolled solver is measured against."""
ITERATIONS = 1000
"""The most iterations of ISTA, and of the methods that run towards a minimiser that is known."""


class Rivals:
    """The classical methods of a modality that have the steps FISTA and PDHG, and ISTA on the problem of the former."""

    def __init__(self, plan: Plan, registry: Registry, modality: str) -> None:
        self.registry = registry
        self.methods = [
            m
            for m in make_methods(plan, registry, [modality])[modality]
            if registry.pipeline(m.pipeline).kind == "classical"
        ]

    def on(self, case: Case) -> list[Rival]:
        """The methods on a normalised case, with the weights that they choose themselves where none is set."""
        rivals: list[Rival] = []
        for method in self.methods:
            pipeline = self.registry.pipeline(method.pipeline)
            with torch.no_grad():
                settings, _ = resolve_multiples(case, pipeline, method.settings, self.registry)
                arguments, _ = bind(self.registry, pipeline, settings)
                assembly = pipeline.assemble(case, **arguments)
            if not isinstance(assembly.steps, FISTA | PDHG):
                continue
            assembly.problem.to(case.measurement.device)
            begin = _direct_start(case) if assembly.start is not None else _no_start
            n, tolerance = assembly.solver.max_iterations, assembly.solver.tolerance
            if isinstance(assembly.steps, FISTA):
                by_ista = f"{method.name} by ista"
                rivals.append(Rival(by_ista, ISTA(), assembly.problem, begin, min(n, ITERATIONS), tolerance))
            rivals.append(Rival(method.name, assembly.steps, assembly.problem, begin, n, tolerance))
        return rivals


def _direct_start(case: Case) -> Callable[[], Tensor | None]:
    return lambda: case.operator.pseudo_inverse(case.measurement)


def _no_start() -> Tensor | None:
    return None


def own_rivals(network: Unrolled, batch: Batch, problem: Problem) -> list[Rival]:
    """ISTA, FISTA and PDHG on the objective of the network itself, from its own starting image."""

    def begin() -> Tensor | None:
        return network.starting_image(batch.operator, batch.measurement)

    return [
        Rival(step.__class__.__name__.lower(), step, problem, begin, ITERATIONS, REFERENCE.tolerance)
        for step in (ISTA(), FISTA(), PDHG())
    ]


def minimiser(problem: Problem, start: Tensor | None) -> Tensor:
    """The minimiser by FISTA, to `REFERENCE`."""
    solution = run(FISTA(), problem, n=REFERENCE.max_iterations, tol=REFERENCE.tolerance, x0=start)
    if not solution.converged:
        raise InputError(
            "minimiser of the network's objective", expected=solution.criterion, got=f"residual {solution.residual:.1e}"
        )
    return solution.x


def curves(
    network: Unrolled, batch: Batch, rivals: Sequence[Rival], reference: Tensor, *, minimised: bool
) -> tuple[list[float], tuple[Curve, ...]]:
    """Seconds until each layer of the network is done, and the rivals' errors and seconds.

    Methods that solve one problem have one limit, known as soon as one of them has converged.

    Parameters
    ----------
    network, batch, rivals
        What is timed, in turns.
    reference
        The image that the errors are against.
    minimised
        Whether that is the minimiser of every rival's problem, so that their limit is no error at all.
    """
    limits: dict[int, float] = {}
    errors: dict[str, tuple[float, ...]] = {}
    for rival in rivals:
        errors[rival.name], converged = rival_errors(rival, reference)
        if minimised or converged:
            limits.setdefault(id(rival.problem), 0.0 if minimised else errors[rival.name][-1])
    seconds = seconds_of(network, batch, rivals)
    made = []
    for rival in rivals:
        mine = errors[rival.name]
        start, iteration = seconds[rival.name]
        marks = iteration_seconds(start, iteration, len(mine) - 1)
        made.append(Curve(rival.name, mine, marks, limits.get(id(rival.problem))))
    return seconds["network"], tuple(made)
