"""The influence map ``y -> A x(y)`` of a method: how many degrees of freedom its image takes from the measurement."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property

import torch
from torch import Tensor

from ..errors import InputError
from ..pipeline import Result
from ..reconstruction import prepare
from ..steps.base import Step
from .one_case import OneCase
from .trials import measured_mask, noise_level

STEP = 0.1
"""Length of the difference of a nonlinear method, in units of the noise level."""


class Influence:
    """The divergence of the influence map ``h(y) = A x(y)`` over the real coordinates of what was measured.

    y has n real coordinates: one for each measured entry, two (its real and its imaginary part) where it is complex.
    Entries that were not measured are none. ``div h = sum_i dh_i / dy_i`` is the trace of h where it is linear, and
    ``2 Re trace`` where it is complex linear. With probes b of independent coordinates, 1 or -1,

    - a linear method (quadratic functionals, and no stopping rule of its own) is run on b in the place of y:
      ``E Re <b, h(b)> = div h`` (Girard 1989, Hutchinson 1990);
    - any other is run on ``y + d b``, with d `STEP` times the noise level: ``E Re <b, h(y + d b) - h(y)> / d`` is div h
      up to terms in ``d^2`` (Ramani, Blu and Unser 2008).

    Where there are as many probes as coordinates they are the unit vectors, and the trace of a linear method is exact.

    Parameters
    ----------
    runs
        The method and the case; every probe is a run.
    probes
        How many, at least 1. Their seed is fixed, so that the divergence is as smooth in a parameter as the method.
    """

    def __init__(self, runs: OneCase, probes: int) -> None:
        if probes < 1:
            raise InputError("probes", expected="at least 1", got=probes)
        self.runs = runs
        self.mask = measured_mask(runs.case)
        self.entries = int(self.mask.sum())
        self.freedom = self.entries * (2 if runs.case.measurement.is_complex() else 1)
        self.exact = probes >= self.freedom
        self.probes = self.freedom if self.exact else probes

    @property
    def cost(self) -> int:
        """Runs for one value of the parameter: the image, and its probes."""
        return 1 + self.probes

    def divergence(self, value: float, result: Result) -> float:
        """``div h`` at a value of the parameter, `result` being the run on the measurement itself."""
        runs, A = self.runs, self.runs.case.operator
        y = runs.case.measurement
        linear = self._linear
        d = 1.0 if linear else STEP * self._unit()
        with torch.no_grad():
            at = None if linear else A(result.image)
            total = 0.0
            for b in self._directions():
                moved = A(runs.run(value, b if linear else y + d * b).image)
                total += _real_inner(b, moved if at is None else moved - at) / d
        return total if self.exact else total / self.probes

    @cached_property
    def _linear(self) -> bool:
        runs = self.runs
        assembly = prepare(runs.case, runs.at(runs.low), runs.registry, runs.seed).assembly
        problem, steps = assembly.problem, assembly.steps
        functionals = (problem.data.f, problem.prior, *(t.f for t in problem.terms))
        return isinstance(steps, Step) and not steps.rule and all(f.is_quadratic for f in functionals)

    def _unit(self) -> float:
        """The noise level, or a hundredth of the root mean square of y where it is not known."""
        try:
            return noise_level(self.runs.case, self.runs.registry)[0]
        except InputError:
            y = self.runs.case.measurement[self.mask]
            return 0.01 * math.sqrt(float(y.abs().double().square().mean()))

    def _directions(self) -> Iterator[Tensor]:
        """Probes: unit vectors of the measured coordinates, or random signs in all of them; zero elsewhere."""
        y = self.runs.case.measurement
        units = (1.0, 1.0j) if y.is_complex() else (1.0,)
        if self.exact:
            for place in self.mask.nonzero():
                for unit in units:
                    b = torch.zeros_like(y)
                    b[tuple(place)] = torch.as_tensor(unit, dtype=y.dtype)
                    yield b
            return
        generator = torch.Generator().manual_seed(_SEED)
        for _ in range(self.probes):
            signs = [torch.randint(0, 2, y.shape, generator=generator).to(y.device) * 2 - 1 for _ in units]
            b = torch.complex(*(s.to(y.real.dtype) for s in signs)) if y.is_complex() else signs[0].to(y.dtype)
            yield b * self.mask


_SEED = 20


def _real_inner(a: Tensor, b: Tensor) -> float:
    return float((a.conj() * b).real.double().sum())
