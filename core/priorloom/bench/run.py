"""Runs benchmarks of operators: ours and every peer in one process, taking turns, with memory and the bound."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import get_args

import torch
from torch import Tensor

from ..cost import Cost, Costed, Operation, compulsory_traffic
from ..errors import InputError, PluginError, PriorloomError, did_you_mean
from ..hooks import example_parameters
from ..memory import require_memory
from ..operator import LinearOperator
from ..registry import Registry
from ..space import Space
from . import BenchmarkCase, MakePeer, OperatorBenchmark, Peer, Timed
from .machine import Machine
from .memory import measured, resident
from .report import Memory, PeerFigures, Report, Row, Skipped
from .timing import SLOW, Times, take_turns

OPERATIONS: tuple[Operation, ...] = get_args(Operation)

SECONDS, QUICK_SECONDS = 8.0, 1.0
"""Of timing for one case and batch, at most."""

ALL_SECONDS = 75.0
"""Of timing in all; what prepares the cases comes on top."""


@dataclass(frozen=True)
class Job:
    """One operator with one of its cases and all of its peers."""

    operator: str
    case: BenchmarkCase
    peers: Mapping[str, MakePeer]


@dataclass
class _Contender:
    """A contender's operations on one input, what each gave and took when it was tried, and what it holds."""

    name: str
    timed: dict[Operation, Timed] = field(default_factory=dict)
    results: dict[Operation, Tensor] = field(default_factory=dict)
    seconds: dict[Operation, float] = field(default_factory=dict)
    peaks: dict[Operation, int | None] = field(default_factory=dict)
    held: int | None = None
    note: str = ""
    images: int = 1


def find_jobs(
    registry: Registry, operators: Sequence[str] = (), quick: bool = False, report: Report | None = None
) -> list[Job]:
    """The cases of `operators` (of all that have some, when empty); `quick`: the first case and batch of each.

    A benchmark that cannot be loaded goes to `report`, and is raised where there is none. Of two peers of one name the
    second is called ``name (benchmark)``.

    Raises
    ------
    InputError
        For an operator without a case.
    """
    found: dict[str, OperatorBenchmark] = {}
    broken = []
    for name in registry.names("benchmark"):
        try:
            made = registry.benchmark(name)
            if not isinstance(made, OperatorBenchmark):
                raise PluginError(f"benchmark '{name}'", expected="an OperatorBenchmark", got=type(made).__name__)
            found[name] = made
        except PriorloomError as error:
            if report is None:
                raise
            broken.append(Skipped(name, "all cases", str(error)))
    known = sorted({b.operator for b in found.values() if b.cases})
    for name in operators:
        if name not in known:
            raise InputError(
                f"operator '{name}' to benchmark", expected="one with a case", cure=did_you_mean(name, known),
                got="; ".join(b.reason for b in broken) or None,
            )  # fmt: skip
    if report is not None:
        report.skipped += broken
    jobs = []
    for operator in dict.fromkeys(operators) if operators else known:
        own = {name: b for name, b in found.items() if b.operator == operator}
        peers: dict[str, MakePeer] = {}
        for benchmark, b in own.items():
            for name, make in b.peers.items():
                peers[f"{name} ({benchmark})" if name in peers else name] = make
        cases = [case for b in own.values() for case in b.cases]
        if quick:
            cases = [BenchmarkCase(cases[0].label, cases[0].parameters, cases[0].batches[:1])]
        jobs += [Job(operator, case, peers) for case in cases]
    return jobs


def run_jobs(
    registry: Registry,
    jobs: Sequence[Job],
    report: Report,
    *,
    quick: bool = False,
    repeats: int | None = None,
    on_case: Callable[[str], None] = lambda label: None,
) -> None:
    """Run `jobs` and add to `report`; whatever fails or is not reached before Ctrl-C becomes a Skipped.

    Parameters
    ----------
    quick
        A second of timing for each case, instead of up to eight.
    repeats
        Rounds of every contender, instead of as many as fit.
    on_case
        Told what begins.
    """
    count = sum(len(job.case.batches) for job in jobs)
    budget = min(QUICK_SECONDS if quick else SECONDS, ALL_SECONDS / max(count, 1))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peers warn, such as ODL of large volumes; what matters is in their notes
        try:
            for operator in dict.fromkeys(job.operator for job in jobs):
                _warm_up(registry, next(job for job in jobs if job.operator == operator), report.machine.device)
            for job in jobs:
                with _noted(report, job):
                    _run_job(registry, job, report, budget, repeats, on_case)
        except KeyboardInterrupt:
            report.skipped += _unreached(jobs, report)
            raise


def _unreached(jobs: Sequence[Job], report: Report) -> list[Skipped]:
    """The batches of which nothing is known yet."""
    ended: set[tuple[str, str, int | None]] = {(r.operator, r.case, r.batch) for r in report.rows}
    ended |= {(s.operator, s.case, s.batch) for s in report.skipped if s.peer is None}
    return [
        Skipped(job.operator, job.case.label, "interrupted", batch)
        for job in jobs
        for batch in job.case.batches
        if not {(job.operator, job.case.label, batch), (job.operator, job.case.label, None)} & ended
    ]


def _run_job(
    registry: Registry, job: Job, report: Report, budget: float, repeats: int | None, on_case: Callable[[str], None]
) -> None:
    on_case(f"{job.operator} {job.case.label}: preparing")
    device = report.machine.device
    parameters = {name: value() if callable(value) else value for name, value in job.case.parameters.items()}
    before = resident(device)
    A = registry.operator(job.operator, **parameters)
    if device.type != "cpu":
        A = A.to(device)
    x = _picture(A.domain, 1).to(device)
    A.adjoint(A(x))
    if _has_normal(A):
        A.normal(x)
    held = _grown(before, device)
    made: dict[str, tuple[Peer, _Contender]] = {}
    for name, make in job.peers.items():
        with _noted(report, job, peer=name):
            before = resident(device)
            peer = make(A)
            contender = _ready(name, peer, x, A)
            _try_out(contender, report.machine)
            kept = sum(result.numel() * result.element_size() for result in contender.results.values())
            contender.held = _grown(before, device, kept)
            made[name] = peer, contender
    for batch in job.case.batches:
        with _noted(report, job, batch=batch):
            on_case(f"{job.operator} {job.case.label}, batch {batch}")
            spaces = (A.domain, A.range)
            bytes_needed = 4 * batch * sum(s.size * s.dtype.itemsize for s in spaces)
            require_memory(f"a batch of {batch}", bytes_needed, "benchmark it on a larger machine")
            _run_batch(job, A, held, made, batch, report, budget, repeats)


def _run_batch(
    job: Job, A: LinearOperator, held: int | None, made: Mapping[str, tuple[Peer, _Contender]], batch: int,
    report: Report, budget: float, repeats: int | None,
) -> None:  # fmt: skip
    machine = report.machine
    x = _picture(A.domain, batch).to(machine.device)
    y = A(x)
    calls: dict[Operation, Callable[[], Tensor]] = {"forward": lambda: A(x), "adjoint": lambda: A.adjoint(y)}
    if _has_normal(A):
        calls["normal"] = lambda: A.normal(x)
    timed = {operation: Timed(call, lambda result: result) for operation, call in calls.items()}
    ours = _Contender("", timed, images=batch, held=held)
    _try_out(ours, machine)
    contenders = [ours]
    for name, (peer, tried) in made.items():
        with _noted(report, job, batch=batch, peer=name):
            contender = tried
            if peer.batched and batch > 1:
                contender = _ready(name, peer, x, A)
                contender.held = tried.held
                _try_out(contender, machine)
            contenders.append(contender)
    turns = {c.name: {k: c.timed[k].call for k in ours.timed if k in c.timed} for c in contenders}
    seconds = {c.name: {k: c.seconds[k] for k in turns[c.name]} for c in contenders}
    times = take_turns(turns, seconds, budget, repeats, machine.synchronize)
    for operation in ours.timed:
        for c in contenders[1:]:
            if operation not in c.timed:
                reason = f"has no {operation} operator"
                report.skipped.append(Skipped(job.operator, job.case.label, reason, batch, c.name, operation))
        report.rows.append(_row(job, A, operation, contenders, times, machine))


def _row(
    job: Job, A: LinearOperator, operation: Operation, contenders: Sequence[_Contender],
    times: Mapping[str, Mapping[Operation, Times]], machine: Machine,
) -> Row:  # fmt: skip
    ours = contenders[0]
    own, batch = times[""][operation], ours.images
    cost, stated = _cost(A, operation, batch)
    by_memory = cost.bytes / machine.bandwidth(cost.bytes)
    by_arithmetic = cost.flops / machine.rate(A.domain.real_dtype) if cost.flops else 0.0
    bound = max(by_memory, by_arithmetic)
    figures = []
    for c in contenders[1:]:
        if operation in c.timed:
            t = times[c.name][operation]
            seconds = t.median / c.images
            figures.append(
                PeerFigures(
                    c.name, seconds, _each(t.quartiles, c.images), len(t.seconds), seconds * batch / own.median,
                    _difference(ours.results[operation], c.results[operation]),
                    Memory(c.held, c.peaks[operation]), c.note,
                )
            )  # fmt: skip
    return Row(
        job.operator, job.case.label, batch, operation, str(getattr(A, "plan", "") or ""), own.median / batch,
        _each(own.quartiles, batch), len(own.seconds), Memory(ours.held, ours.peaks[operation]), cost, stated,
        bound / batch, "memory" if by_memory >= by_arithmetic else "arithmetic", bound / own.median, tuple(figures),
    )  # fmt: skip


def _has_normal(A: LinearOperator) -> bool:
    """Whether it has one of its own, faster than the pair."""
    return type(A)._normal is not LinearOperator._normal


def _cost(A: LinearOperator, operation: Operation, batch: int) -> tuple[Cost, bool]:
    """What the operator says of itself, else the least that any implementation moves."""
    if isinstance(A, Costed):
        return A.cost(operation, batch), True
    return compulsory_traffic(A, batch), False


def _ready(name: str, peer: Peer, x: Tensor, A: LinearOperator) -> _Contender:
    """A peer's operations on our input, or on its first image."""
    given = x if peer.batched else x[0]
    makers = {"forward": (peer.forward, given), "adjoint": (peer.adjoint, None), "normal": (peer.normal, given)}
    contender = _Contender(name, note=peer.note, images=len(x) if peer.batched else 1)
    for operation in OPERATIONS:
        make, value = makers[operation]
        if make is not None:
            contender.timed[operation] = make(A(given) if value is None else value)
    return contender


def _try_out(contender: _Contender, machine: Machine) -> None:
    """One application of each operation, two where they are not slow: its result, time and peak memory."""
    for operation, timed in contender.timed.items():
        tried = measured(timed.call, machine.device)
        if tried.seconds < SLOW:  # what is allocated once is there by now
            tried = measured(timed.call, machine.device)
        contender.results[operation] = timed.to_tensor(tried.result).cpu()
        contender.seconds[operation], contender.peaks[operation] = tried.seconds, tried.peak


def _difference(ours: Tensor, theirs: Tensor) -> float | None:
    """``|ours - theirs| / |theirs|``; a peer's one image is the first of our batch."""
    if theirs.ndim < ours.ndim:
        ours = ours[0]
    if ours.shape != theirs.shape:
        return None
    dtype = torch.complex128 if ours.is_complex() or theirs.is_complex() else torch.float64
    wide = theirs.to(dtype)
    return float(torch.linalg.vector_norm(ours.to(dtype) - wide) / torch.linalg.vector_norm(wide).clamp_min(1e-300))


def _picture(space: Space, batch: int) -> Tensor:
    """A smooth picture inside the ball that fits into the image, ``[batch, *shape]``; other weights for every image.

    Smooth, because implementations that discretise differently agree on what the grid resolves.
    """
    axes = [torch.linspace(-1, 1, n, dtype=torch.float64) for n in space.shape]
    grid = torch.meshgrid(*axes, indexing="ij")
    radius = torch.stack([u.square() for u in grid]).sum(0)
    waves = torch.stack([torch.cos((3 + k) * u + 0.3 * k) for k, u in enumerate(grid)]).sum(0)
    picture = (1 - radius / 0.81).clamp_min(0).square() * (1 + 0.3 * waves)
    shown = picture * torch.exp(0.7j * waves) if space.is_complex else picture
    weights = 1 + torch.arange(batch, dtype=torch.float64).reshape(-1, *[1] * space.ndim) / batch
    return (weights * shown).to(space.dtype)


def _warm_up(registry: Registry, job: Job, device: torch.device) -> None:
    """Ours and every peer on the operator's small example: imports and compilation happen before memory is measured."""
    with suppress(Exception, SystemExit):
        A = registry.operator(job.operator, **example_parameters(registry.factory("operator", job.operator))).to(device)
        x = _picture(A.domain, 1).to(device)
        A.adjoint(A(x))
        A.normal(x)
        for name, make in job.peers.items():
            with suppress(Exception, SystemExit):
                _try_out(_ready(name, make(A), x, A), Machine(device))


def _grown(before: int | None, device: torch.device, kept: int = 0) -> int | None:
    """Bytes in use more than `before`, without `kept`, which is ours."""
    now = resident(device)
    return None if now is None or before is None else max(0, now - before - kept)


def _each(quartiles: tuple[float, float], images: int) -> tuple[float, float]:
    return quartiles[0] / images, quartiles[1] / images


@contextmanager
def _noted(report: Report, job: Job, batch: int | None = None, peer: str | None = None) -> Iterator[None]:
    """Around what may fail: the failure goes to the report, with whose it was and why."""
    try:
        yield
    except (Exception, SystemExit) as error:
        reason = str(error) if isinstance(error, PriorloomError) else f"failed: {type(error).__name__}: {error}"
        line = " ".join(reason.split())[:300]
        report.skipped.append(Skipped(job.operator, job.case.label, line, batch, peer))
