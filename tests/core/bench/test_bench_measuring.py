"""Turns, peaks of memory, and the machine's rates, on calls whose course is known."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch

from priorloom.bench import memory
from priorloom.bench.machine import LARGEST, Machine
from priorloom.bench.memory import measured, resident
from priorloom.bench.timing import LEAST, MOST, SHORT, SLOW, Times, take_turns

CPU = torch.device("cpu")
MIB = 2**20


class Log:
    """Contenders that write down who was called."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def call(self, name: str) -> Callable[[], None]:
        return lambda: self.calls.append(name)


def test_contenders_take_turns_and_the_first_pass_of_a_short_one_is_not_timed() -> None:
    log = Log()
    turns = {"a": {"forward": log.call("a"), "adjoint": log.call("A")}, "b": {"forward": log.call("b")}}
    tried = {"a": {"forward": SHORT, "adjoint": SHORT}, "b": {"forward": SHORT / 2}}
    times = take_turns(turns, tried, budget=100.0, repeats=4)
    assert "".join(log.calls) == "aAbb" * 4
    assert {len(t.seconds) for turn in times.values() for t in turn.values()} == {4}


@pytest.mark.parametrize(
    ("seconds", "budget", "rounds", "calls"),
    [(0.2, 2.0, 5, 5), (0.2, 0.0, LEAST, LEAST), (1e-4, 10.0, MOST, 2 * MOST), (9.0, 1.0, LEAST, LEAST - 1)],
)
def test_rounds_follow_what_a_turn_took(seconds: float, budget: float, rounds: int, calls: int) -> None:
    log = Log()
    turns = {name: {"forward": log.call(name)} for name in "xy"}
    times = take_turns(turns, {name: {"forward": seconds} for name in "xy"}, budget)
    assert log.calls.count("x") == log.calls.count("y") == calls
    assert len(times["x"]["forward"].seconds) == rounds
    # What a slow one took when it was tried is its first round.
    assert (times["x"]["forward"].seconds[0] == seconds) == (seconds > SLOW)


def test_rounds_of_a_slow_contender_are_spread_over_the_run() -> None:
    log = Log()
    turns = {"f": {"forward": log.call("f")}, "s": {"forward": log.call("s")}}
    take_turns(turns, {"f": {"forward": 0.11}, "s": {"forward": 0.8}}, budget=2 * 0.11 * 9.5)
    assert "".join(log.calls) == "fff" + "s" + "fff" + "s" + "fff" + "s"


class Clock:
    """Time that passes only where it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def takes(self, *seconds: float) -> Callable[[], None]:
        following = iter(seconds)

        def pass_by() -> None:
            self.now += next(following)

        return pass_by


def test_the_clock_measures_the_call_and_the_wait_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    turn = {"forward": clock.takes(0.2, 0.6, 0.3), "adjoint": clock.takes(2.0, 2.0, 2.0)}
    times = take_turns({"a": turn}, {"a": {"forward": 0.2, "adjoint": 0.2}}, 0.0, 3, wait=clock.takes(*[0.5, 0.25] * 6))
    assert times["a"]["forward"].median == pytest.approx(0.3 + 0.25)
    assert times["a"]["adjoint"].seconds == pytest.approx([2.25] * 3)
    assert Times([3.0, 1.0, 2.0, 4.0, 5.0]).quartiles == (2.0, 4.0)
    assert Times([2.0]).quartiles == (2.0, 2.0)


def _needs_high_water_mark() -> None:
    if measured(lambda: None, CPU).peak is None:
        pytest.skip("the kernel's high-water mark cannot be reset here")


def test_peak_memory_is_what_one_call_takes_and_gives_back() -> None:
    _needs_high_water_mark()

    def call() -> float:
        passing = np.ones(64 * MIB, dtype=np.uint8)  # outside of torch, and gone at the end
        return float(passing[-1]) + float(torch.ones(16 * MIB).sum())

    found = measured(call, CPU)
    assert found.result == 1.0 + 16 * MIB
    assert 120 * MIB < found.peak < 144 * MIB
    assert measured(lambda: None, CPU).peak < 4 * MIB  # the mark was reset


def test_peak_memory_of_another_thread_counts() -> None:
    _needs_high_water_mark()

    def call() -> None:
        thread = threading.Thread(target=lambda: np.ones(64 * MIB, dtype=np.uint8).sum())
        thread.start()
        thread.join()

    assert 60 * MIB < measured(call, CPU).peak < 80 * MIB


def test_resident_memory_falls_when_memory_is_given_back() -> None:
    # In a process of its own: what other tests have left behind may be given back in between.
    code = (
        "import numpy, torch\n"
        "from priorloom.bench.memory import resident\n"
        "cpu = torch.device('cpu')\n"
        "before = resident(cpu)\n"
        "kept = [numpy.ones(2**20, dtype=numpy.uint8) for _ in range(64)]\n"
        "full = resident(cpu)\n"
        "del kept\n"
        "print(before, full, resident(cpu))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    if "None" in done.stdout:
        pytest.skip("the kernel does not tell resident memory here")
    before, full, after = (int(part) for part in done.stdout.split())
    assert full - before > 60 * MIB
    assert after - before < 8 * MIB


def test_without_the_kernels_help_a_peak_is_unknown(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(memory, "_CLEAR", tmp_path / "no" / "clear_refs")
    found = measured(lambda: 7, CPU)
    assert (found.result, found.peak) == (7, None)
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "status")
    assert resident(CPU) is None


def test_bandwidth_and_rate_are_those_of_what_was_run(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(CPU)
    ran: list[tuple[int, int]] = []

    def best(work: Callable[[], torch.Tensor]) -> float:
        result = work()
        ran.append((result.numel(), result.element_size()))
        return 2.0

    monkeypatch.setattr(machine, "_best", best)
    assert machine.bandwidth(5e6) == pytest.approx(8 * MIB / 2, rel=1e-5)  # three arrays, rounded up to 8 MiB in all
    assert ran[-1][0] * ran[-1][1] * 3 == pytest.approx(8 * MIB, rel=1e-5)
    assert machine.bandwidth(6e6) == machine.bandwidth(5e6)
    assert len(ran) == 1
    assert machine.bandwidth(1e12) == pytest.approx(LARGEST / 2, rel=1e-5)
    assert machine.rate(torch.float64) == 1024**3
    described = machine.describe()
    assert set(described["bandwidth"]) == {str(8 * MIB), str(LARGEST)}
    assert described["flops"] == {"float64": 1024**3}
    assert described["threads"] == torch.get_num_threads()
    assert described["processor"]


def test_a_bound_is_the_best_run_and_the_first_one_warms_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    assert Machine(CPU)._best(clock.takes(0.001, *[0.05] * 4, 0.02, *[0.04] * 20)) == pytest.approx(0.02)
