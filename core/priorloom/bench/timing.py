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
    contenders: Mapping[str, Turn],
    tried: Mapping[str, Mapping[Operation, float]],
    budget: float,
    repeats: int | None = None,
    wait: Callable[[], None] = lambda: None,
) -> dict[str, dict[Operation, Times]]:
    """Times of every operation of every contender.

    Parameters
    ----------
    contenders
        Their operations by name.
    tried
        What each operation took when it was tried, which decides the number of rounds; for a slow contender that was
        the first of them.
    budget
        Seconds, shared evenly; each contender gets as many rounds as fit, `LEAST` at least, `MOST` at most, spread
        evenly over the whole run.
    repeats
        Rounds of each instead.
    wait
        Waits until what was called has happened.
    """
    times: dict[str, dict[Operation, Times]] = {}
    rounds: dict[str, int] = {}
    for name, turn in contenders.items():
        seconds = sum(tried[name].values())
        passes = 2 if seconds < SHORT else 1
        fitting = math.floor(budget / len(contenders) / max(passes * seconds, 1e-9))
        rounds[name] = min(max(fitting, LEAST), MOST) if repeats is None else repeats
        is_slow = seconds > SLOW
        rounds[name] -= is_slow
        times[name] = {operation: Times([tried[name][operation]] if is_slow else []) for operation in turn}
    most = max(rounds.values(), default=0)
    for k in range(most):
        for name, turn in contenders.items():
            if (k + 1) * rounds[name] // most > k * rounds[name] // most:
                if sum(tried[name].values()) < SHORT:
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
