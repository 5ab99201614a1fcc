"""Interleaved timing: contenders take turns, so that a busy machine slows all of them alike."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..cost import Operation

LEAST, MOST = 3, 50
"""Rounds of every contender."""

SHORT = 0.1
"""Seconds of a turn below which an untimed one precedes it: an iteration finds its data in the cache, so this does."""

SLOW = 1.0
"""Seconds of a turn beyond which the first one counts, because nothing warms up any more."""


@dataclass
class Times:
    """Seconds of every run of one operation."""

    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """A quarter of the runs is below the first, a quarter above the second."""
        if len(self.seconds) < 2:
            return self.median, self.median
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return low, high


Turn = Mapping[Operation, Callable[[], Any]]
"""The operations of one contender, in the order in which a solver runs them."""


def take_turns(
    contenders: Mapping[str, Turn], budget: float, repeats: int | None = None, wait: Callable[[], None] = lambda: None
) -> dict[str, dict[Operation, Times]]:
    """Times of every operation of every contender.

    Parameters
    ----------
    contenders
        Their operations by name.
    budget
        Seconds, shared evenly; each gets as many rounds as fit, `LEAST` at least, `MOST` at most, spread evenly over
        the whole run.
    repeats
        Rounds of each instead.
    wait
        Waits until what was called has happened.
    """
    times: dict[str, dict[Operation, Times]] = {
        name: {operation: Times() for operation in turn} for name, turn in contenders.items()
    }
    rounds: dict[str, int] = {}
    short: set[str] = set()
    for name, turn in contenders.items():
        first = {operation: Times() for operation in turn}
        _run(turn, first, wait)
        seconds = sum(t.median for t in first.values())
        if seconds > SLOW:
            times[name] = first
        if seconds < SHORT:
            short.add(name)
            seconds *= 2
        fitting = math.floor(budget / len(contenders) / max(seconds, 1e-9))
        rounds[name] = min(max(fitting, LEAST), MOST) if repeats is None else repeats
        rounds[name] -= seconds > SLOW
    most = max(rounds.values(), default=0)
    for k in range(most):
        for name, turn in contenders.items():
            if (k + 1) * rounds[name] // most > k * rounds[name] // most:
                if name in short:
                    _run(turn, {operation: Times() for operation in turn}, wait)
                _run(turn, times[name], wait)
    return times


def _run(turn: Turn, times: Mapping[Operation, Times], wait: Callable[[], None]) -> None:
    for operation, call in turn.items():
        wait()
        began = time.perf_counter()
        call()
        wait()
        times[operation].seconds.append(time.perf_counter() - began)
