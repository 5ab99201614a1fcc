"""MethodMap: a method as the map from measurements to images that it is, with the transposed derivative of its run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..binding import bind
from ..errors import DivergenceError, InputError, PriorloomError
from ..functional import LeastSquares
from ..modality import Case
from ..multiples import resolve_multiples
from ..problem import Problem, Term
from ..reconstruction import Method, Prepared, monitor_for, prepare
from ..registry import Registry
from ..solve import run
from ..steps.base import State, Step
from .implicit_solve import implicit_solves
from .states import mapped, tensors_of

SEGMENT = 16
"""Iterations between two states that are kept of a run; what lies between is computed again."""
LAYERS = 500
"""The most iterations that are differentiated, counted from the end of a run."""
TAIL = 1e-2
"""Earlier iterations are left out where two segments in a row add less than this to the derivative, relative to its
norm."""

Pull = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Point:
    """A map at one measurement.

    Parameters
    ----------
    image
        ``F(y)``.
    pull
        ``u -> J^H u``, J the derivative of F at y; may be asked again and again.
    """

    image: Tensor
    pull: Pull


class MethodMap:
    """``x = F(y)``: a method on the operator of a case, run exactly as `reconstruct` runs it, in the user's units.

    The derivative is that of the run: a direct method's and a network's own; for an iteration, that of its iterations,
    the same Steps listed as layers, from the end of the run backwards, at most `LAYERS` of them and fewer where earlier
    ones no longer matter (`TAIL`). Near a fixed point this is the Neumann series of implicit differentiation, truncated
    (Bolte, Pauwels and Vaiter, 2022). What is read off the measurement beforehand is held: the scale, an estimated
    noise level, and for an iteration its weights and its starting image. The images that the map gives do depend on all
    of that, as they do for the user.

    Parameters
    ----------
    case, method
        The operator, the noise level and the first measurement; and what to run.
    registry, seed
        As for `reconstruct`.

    Attributes
    ----------
    runs, pulls, seconds
        What was spent.
    derivative
        Which one it is, in words; empty before the first.
    """

    def __init__(self, case: Case, method: Method, *, registry: Registry | None = None, seed: int = 0) -> None:
        self.case, self.method, self.seed = case, method, seed
        self.registry = registry or Registry.discover()
        self.pipeline = self.registry.pipeline(method.pipeline)
        self.runs = self.pulls = 0
        self.seconds = 0.0
        self.derivative = ""

    def __call__(self, y: Tensor) -> Tensor:
        """The image, ``[*A.domain.shape]``."""
        return self._run(y, keep=False).image

    def at(self, y: Tensor) -> Point:
        """The image, and the derivative there.

        Raises
        ------
        InputError
            From its `pull`: a method that cannot be differentiated.
        """
        return self._run(y, keep=True)

    def _run(self, y: Tensor, keep: bool) -> Point:
        began = time.perf_counter()
        y = y.detach()
        with torch.no_grad():
            prepared = prepare(replace(self.case, measurement=y), self.method, self.registry, self.seed)
            assembly = prepared.assembly
            tape = _Tape(assembly.steps) if keep and isinstance(assembly.steps, Step) else None
            try:
                solution = run(
                    assembly.steps, assembly.problem, n=assembly.solver.max_iterations, tol=assembly.solver.tolerance,
                    x0=assembly.start, monitor=monitor_for(self.pipeline, assembly),
                )  # fmt: skip
            finally:
                if tape is not None:
                    tape.stop()
        image = solution.x * prepared.scale
        if not bool(image.isfinite().all()):
            raise DivergenceError(f"method '{self.method.name}'", expected="a finite image", got="NaN or infinite")
        self.runs += 1
        self.seconds += time.perf_counter() - began

        def pull(u: Tensor) -> Tensor:
            start = time.perf_counter()
            try:
                pulled = self._pull_layers(prepared, u) if tape is None else self._pull_implicit(prepared, tape, u)
            except (PriorloomError, RuntimeError) as error:
                # Of torch's own errors only those of the derivative are the method's.
                if isinstance(error, RuntimeError) and "grad" not in str(error):
                    raise
                raise self._no_derivative(str(error).split(";")[0]) from error
            self.pulls += 1
            self.seconds += time.perf_counter() - start
            return pulled

        return Point(image, pull)

    def _pull_layers(self, prepared: Prepared, u: Tensor) -> Tensor:
        """Through the layers of a network or a direct method, and what makes its starting image."""
        settings, _ = resolve_multiples(prepared.case, self.pipeline, self.method.settings, self.registry)
        arguments, _ = bind(self.registry, self.pipeline, settings)
        torch.manual_seed(self.seed)
        with torch.enable_grad():
            leaf = prepared.case.measurement.clone().requires_grad_()
            assembly = self.pipeline.assemble(replace(prepared.case, measurement=leaf), **arguments)
            for module in (assembly.problem, assembly.steps):
                module.to(leaf.device)
            image = run(assembly.steps, assembly.problem, x0=assembly.start).x
            if not image.requires_grad:
                raise self._no_derivative("its image is cut off from the measurement")
            # The scale divides the measurement and multiplies the image.
            (pulled,) = torch.autograd.grad(image, leaf, u)
        layers = len(assembly.steps) if isinstance(assembly.steps, nn.ModuleList) else 0
        self.derivative = f"exact, through {layers} layers" if layers else "exact, of the direct method"
        return pulled.detach()

    def _pull_implicit(self, prepared: Prepared, tape: _Tape, u: Tensor) -> Tensor:
        with implicit_solves(prepared.assembly.steps):
            return self._pull_run(prepared, tape, u)

    def _pull_run(self, prepared: Prepared, tape: _Tape, u: Tensor) -> Tensor:
        """Through the iterations of a run, segment by segment from its end."""
        assembly, y = prepared.assembly, prepared.case.measurement
        assert isinstance(assembly.steps, Step)
        step, problem = assembly.steps, assembly.problem
        total = torch.zeros_like(y)
        pulled: dict[str, Tensor] = {"x": u.to(y.device)}
        small = covered = 0
        moved = False
        for begin in range((tape.count - 1) // SEGMENT * SEGMENT, -1, -SEGMENT):
            end = min(begin + SEGMENT, tape.count)
            before = tape.states[begin]
            with torch.enable_grad():
                leaf = y.clone().requires_grad_()
                leaves = {n: t.detach().clone().requires_grad_() for n, t in tensors_of(before) if _is_continuous(t)}
                state = mapped(before, lambda name, t, known=leaves: known.get(name, t))  # type: ignore[misc]
                own = with_measurement(problem, leaf)
                for i in range(begin, end):
                    if i in tape.refreshed and i > begin:
                        state = step.refresh(own, state)
                    state = step(own, state)
                if end in tape.refreshed:
                    state = step.refresh(own, state)
                part, pulled = _pulled(state, pulled, leaf, leaves)
            total += part
            covered += end - begin
            moved = moved or float(_norm(part)) > 0
            small = small + 1 if moved and _norm(part) <= TAIL * _norm(total) else 0
            if covered >= LAYERS or small == 2 or not pulled:
                break
        total += self._pull_start(step, problem, assembly.start, tape, y, pulled, whole=covered == tape.count)
        if not bool((total != 0).any()):
            raise self._no_derivative("its image is cut off from the measurement")
        which = "all" if covered == tape.count else "the last"
        self.derivative = f"of the run, through {which} {covered} of {tape.count} iterations"
        return total

    def _pull_start(
        self, step: Step[Any], problem: Problem, start: Tensor | None, tape: _Tape, y: Tensor,
        pulled: dict[str, Tensor], *, whole: bool,
    ) -> Tensor:  # fmt: skip
        """Through the initial state; of a run that was not followed to its start, through what it only hands on, such
        as ``A^H y``."""
        first, last = dict(tensors_of(tape.states[0])), dict(tensors_of(tape.last))
        kept = {n: t for n, t in pulled.items() if whole or (n in first and last.get(n) is first[n])}
        with torch.enable_grad():
            leaf = y.clone().requires_grad_()
            state = step.init(with_measurement(problem, leaf), start)
            return _pulled(state, kept, leaf, {})[0]

    def _no_derivative(self, why: str) -> InputError:
        return InputError(
            f"derivative of method '{self.method.name}'", expected="a method that can be differentiated", got=why,
            cure="put a network into the place of what has no gradient, such as denoiser.name=drunet",
        )  # fmt: skip


class _Tape:
    """The states of a run, every `SEGMENT` iterations, taken by a hook while it runs."""

    def __init__(self, step: Step[Any]) -> None:
        self.count = 0
        self.states: dict[int, State] = {}
        self.refreshed: set[int] = set()
        self._hook = step.register_forward_hook(self._take)

    def _take(self, step: nn.Module, inputs: tuple[Any, ...], output: State) -> None:
        before = inputs[1]
        if self.count and before is not self.last:
            self.refreshed.add(self.count)
        if self.count % SEGMENT == 0:
            self.states[self.count] = before
        self.last: State = output
        self.count += 1

    def stop(self) -> None:
        """Take no more."""
        self._hook.remove()


def with_measurement(problem: Problem, y: Tensor) -> Problem:
    """The same problem for another measurement.

    Raises
    ------
    InputError
        A data term that is not least squares.
    """
    data = problem.data
    if not isinstance(data.f, LeastSquares):
        raise InputError("data term of a method that is differentiated", expected="LeastSquares",
                         got=type(data.f).__name__)  # fmt: skip
    term = Term(LeastSquares(data.f.space, y), data.K, data.backprojector)
    return Problem(term, problem.prior, problem.terms, problem.noise_std)


def _pulled(
    after: State, pulled: dict[str, Tensor], y: Tensor, leaves: dict[str, Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    """The share of y, and what is pulled back to the leaves."""
    outputs = [(t, pulled[n]) for n, t in tensors_of(after) if n in pulled and t.requires_grad]
    if not outputs:
        return torch.zeros_like(y), {}
    names = list(leaves)
    found = torch.autograd.grad(
        [t for t, _ in outputs], [y, *leaves.values()], [u for _, u in outputs], allow_unused=True
    )
    share = torch.zeros_like(y) if found[0] is None else found[0]
    return share.detach(), {n: g.detach() for n, g in zip(names, found[1:], strict=True) if g is not None}


def _is_continuous(t: Tensor) -> bool:
    return t.is_floating_point() or t.is_complex()


def _norm(t: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(t)
    return norm


__all__ = ["LAYERS", "SEGMENT", "TAIL", "MethodMap", "Point", "Pull", "with_measurement"]
