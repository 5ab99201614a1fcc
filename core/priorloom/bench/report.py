"""What a run of benchmarks found: rows, the peers in them, and what could not be compared."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..cost import Cost, Operation
from .machine import Machine


@dataclass(frozen=True)
class Memory:
    """Bytes: what stays after the first applications (weights, plans), and the peak of one application beyond that."""

    held: int | None
    peak: int | None


@dataclass(frozen=True)
class PeerFigures:
    """A peer in one row; seconds are per image, `ratio` is its median time over ours."""

    name: str
    seconds: float
    quartiles: tuple[float, float]
    rounds: int
    ratio: float
    difference: float | None
    memory: Memory
    note: str


@dataclass(frozen=True)
class Row:
    """One operation of one case and batch; seconds are per image, `cost` and `memory` of the whole batch."""

    operator: str
    case: str
    batch: int
    operation: Operation
    plan: str
    seconds: float
    quartiles: tuple[float, float]
    rounds: int
    memory: Memory
    cost: Cost
    cost_stated: bool
    bound_seconds: float
    bound_by: str
    bound_fraction: float
    peers: tuple[PeerFigures, ...]


@dataclass(frozen=True)
class Skipped:
    """What could not be run or compared, and why."""

    operator: str
    case: str
    reason: str
    batch: int | None = None
    peer: str | None = None
    operation: Operation | None = None


@dataclass
class Report:
    """What a run found; complete up to where it was stopped."""

    machine: Machine
    rows: list[Row] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
