"""A run of benchmarks: what is compared, how figures follow from times, and what cannot be compared is said."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from priorloom import LinearOperator, Space
from priorloom.bench import BenchmarkCase, OperatorBenchmark, Peer, Timed
from priorloom.bench import run as running
from priorloom.bench.machine import Machine
from priorloom.bench.report import Report
from priorloom.bench.run import find_jobs, run_jobs
from priorloom.checking import check_component
from priorloom.cost import Cost, Costed, compulsory_traffic
from priorloom.errors import InputError, PluginError
from priorloom.hooks import example
from priorloom.registry import Registry, _Entry
from priorloom.testing import ConformanceError


class Times(LinearOperator):
    """``y = a x``, with a normal operator of its own."""

    def __init__(self, *, size: int, factor: float = 2.0) -> None:
        super().__init__(Space((size, size)), Space((size, size)))
        self.register_buffer("factor", torch.tensor(factor))
        self.plan = "in one go"

    def _forward(self, x: Tensor) -> Tensor:
        return x * self.factor

    _adjoint = _forward

    def _normal(self, x: Tensor) -> Tensor:
        return x * self.factor**2


class Counted(Times):
    def cost(self, operation: str, batch: int) -> Cost:
        return Cost(1e9 * batch, 10.0) if operation == "normal" else Cost(1.0, 4e6 * batch)


@example(size=4)
def times(*, size: int = 4, factor: float = 2.0) -> LinearOperator:
    return Times(size=size, factor=factor)


@example(size=4)
def counted(*, size: int = 4) -> LinearOperator:
    return Counted(size=size)


def exact(A: LinearOperator) -> Peer:
    def apply(x: Tensor) -> Timed:
        assert x.ndim == 2  # one image
        return Timed(lambda: x.numpy() * 2.0)

    return Peer(apply, apply, note="half as clever")


def batched(A: LinearOperator) -> Peer:
    def apply(x: Tensor) -> Timed:
        assert x.ndim == 3
        return Timed(lambda: x * 2.02)

    return Peer(apply, None, lambda x: Timed(lambda: x * 4, lambda y: y[..., :2]), batched=True)


def registry(**benchmarks: OperatorBenchmark) -> Registry:
    made = Registry()
    for name, factory in (("test.times", times), ("test.counted", counted)):
        made._entries["operator", name] = [_Entry("test", "test", factory)]
    for name, benchmark in benchmarks.items():
        made._entries["benchmark", f"test.{name}"] = [_Entry("test", "test", lambda benchmark=benchmark: benchmark)]
    return made


def run(found: Registry, *names: str, **options: Any) -> Report:
    report = Report(Machine(torch.device("cpu")))
    run_jobs(found, find_jobs(found, names), report, **{"repeats": 1, **options})
    return report


CASE = BenchmarkCase("8x8", {"size": lambda: 8}, (1, 3))


def test_rows_state_what_was_measured() -> None:
    found = registry(times=OperatorBenchmark("test.times", (CASE,), {"exact": exact, "batched": batched}))
    labels: list[str] = []
    report = run(found, on_case=labels.append, repeats=2)
    assert labels == ["test.times 8x8: preparing", "test.times 8x8, batch 1", "test.times 8x8, batch 3"]
    assert [(r.batch, r.operation) for r in report.rows] == [
        (batch, operation) for batch in (1, 3) for operation in ("forward", "adjoint", "normal")
    ]
    for row in report.rows:
        assert (row.operator, row.case, row.plan, row.rounds) == ("test.times", "8x8", "in one go", 2)
        assert row.cost == Cost(0.0, 4.0 * (2 * 64 * row.batch + 1))  # input, output and the factor
        assert not row.cost_stated
        assert row.bound_by == "memory"
        assert row.bound_fraction == pytest.approx(row.bound_seconds / row.seconds)
        assert row.quartiles[0] <= row.seconds <= row.quartiles[1]
        for peer in row.peers:
            assert peer.ratio == pytest.approx(peer.seconds / row.seconds)
            assert peer.rounds == 2
    forward, adjoint, normal = (r.peers for r in report.rows[3:])
    assert [p.name for p in forward] == ["exact", "batched"]
    assert [p.note for p in forward] == ["half as clever", ""]
    assert forward[0].difference == pytest.approx(0.0, abs=1e-7)
    assert forward[1].difference == pytest.approx(0.02 / 2.02, rel=1e-4)
    assert [p.name for p in adjoint] == ["exact"]
    assert [(p.name, p.difference) for p in normal] == [("batched", None)]  # another shape
    missing = {(s.peer, s.operation, s.reason) for s in report.skipped}
    assert missing == {("exact", "normal", "has no normal operator"), ("batched", "adjoint", "has no adjoint operator")}


def test_a_stated_cost_gives_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Machine, "bandwidth", lambda self, size: 2e9)
    monkeypatch.setattr(Machine, "rate", lambda self, dtype: 1e11)
    found = registry(counted=OperatorBenchmark("test.counted", (CASE,)))
    forward, _, normal = run(found).rows[3:]
    assert isinstance(Counted(size=2), Costed)
    assert not isinstance(Times(size=2), Costed)
    assert forward.cost == Cost(1.0, 1.2e7)
    assert (forward.cost_stated, forward.bound_by) == (True, "memory")
    assert forward.bound_seconds == pytest.approx(4e6 / 2e9)  # per image
    assert (normal.bound_by, normal.bound_seconds) == ("arithmetic", pytest.approx(1e9 / 1e11))
    assert compulsory_traffic(Counted(size=2), 3) == Cost(0.0, 4.0 * (24 + 1))
    assert Cost(1, 2) + Cost(3, 4) == Cost(4, 6)


def test_memory_that_is_held_and_that_one_application_takes() -> None:
    def greedy(A: LinearOperator) -> Peer:
        held = torch.ones(4096, 4096)

        def apply(x: Tensor) -> Timed:
            return Timed(lambda: x + float(torch.cat([held, held]).mean() - 1))

        return Peer(apply)

    found = registry(times=OperatorBenchmark("test.times", (BenchmarkCase("8x8", {"size": 8}),), {"greedy": greedy}))
    (peer,) = run(found).rows[0].peers
    if peer.memory.peak is None:
        pytest.skip("the kernel's high-water mark cannot be reset here")
    assert peer.memory.held == pytest.approx(64 * 2**20, rel=0.1)
    assert peer.memory.peak == pytest.approx(128 * 2**20, rel=0.1)


class Prepares(Times):
    """Its normal operator makes 64 MiB when it is first used."""

    def _normal(self, x: Tensor) -> Tensor:
        if not hasattr(self, "kept"):
            self.kept = torch.ones(4096, 4096)
        return super()._normal(x)


def test_what_the_normal_operator_prepares_is_held() -> None:
    case = BenchmarkCase("8x8", {"size": 8})
    found = registry(prepares=OperatorBenchmark("test.prepares", (case,)))
    found._entries["operator", "test.prepares"] = [_Entry("test", "test", Prepares)]
    rows = run(found).rows
    if rows[0].memory.held is None:
        pytest.skip("the kernel does not tell what is resident")
    assert {row.memory.held for row in rows} == {rows[0].memory.held}
    assert rows[0].memory.held == pytest.approx(64 * 2**20, rel=0.1)


def test_what_fails_is_said_and_the_rest_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(A: LinearOperator) -> Peer:
        raise PluginError("this peer needs the package other", cure="install it")

    def breaks(A: LinearOperator) -> Peer:
        return Peer(lambda x: Timed(lambda: 1 / 0))

    wrong = BenchmarkCase("wrong", {"extent": 8})
    peers = {"absent": absent, "breaks": breaks, "exact": exact}
    found = registry(times=OperatorBenchmark("test.times", (wrong, CASE), peers))
    report = run(found)
    assert [p.name for p in report.rows[0].peers] == ["exact"]
    reasons = {(s.case, s.peer): s.reason for s in report.skipped if s.operation is None}
    assert reasons["wrong", None].startswith("unknown parameter 'extent'")
    assert reasons["8x8", "absent"] == "this peer needs the package other; install it"
    assert reasons["8x8", "breaks"] == "failed: ZeroDivisionError: division by zero"
    monkeypatch.setenv("PRIORLOOM_MEMORY_GIB", "1e-6")
    report = run(found)
    assert report.rows == []
    assert any("memory of a batch of 3" in s.reason and s.batch == 3 for s in report.skipped)


def test_an_interruption_keeps_what_is_finished() -> None:
    def stop(label: str) -> None:
        if label.endswith("batch 3"):
            raise KeyboardInterrupt

    more = BenchmarkCase("more", {"size": 8}, (2,))
    found = registry(times=OperatorBenchmark("test.times", (CASE, more)))
    report = Report(Machine(torch.device("cpu")))
    with pytest.raises(KeyboardInterrupt):
        run_jobs(found, find_jobs(found), report, repeats=1, on_case=stop)
    assert {r.batch for r in report.rows} == {1}
    assert [(s.case, s.batch, s.reason) for s in report.skipped] == [
        ("8x8", 3, "interrupted"),
        ("more", 2, "interrupted"),
    ]


def test_a_plugin_adds_a_peer_to_somebody_elses_operator() -> None:
    found = registry(
        times=OperatorBenchmark("test.times", (CASE,), {"exact": exact}),
        other=OperatorBenchmark("test.times", (), {"batched": batched}),
        counted=OperatorBenchmark("test.counted", (CASE, CASE)),
    )
    jobs = find_jobs(found, ["test.times"])
    assert [sorted(job.peers) for job in jobs] == [["batched", "exact"]]
    assert [job.operator for job in find_jobs(found)] == ["test.counted", "test.counted", "test.times"]
    assert [(job.operator, job.case.batches) for job in find_jobs(found, quick=True)] == [
        ("test.counted", (1,)),
        ("test.times", (1,)),
    ]
    with pytest.raises(InputError, match=r"operator 'test.time' to benchmark: .*did you mean 'test.times'"):
        find_jobs(found, ["test.time"])


def test_a_benchmark_that_cannot_be_loaded_is_said_and_takes_no_other_down() -> None:
    found = registry(times=OperatorBenchmark("test.times", (CASE,)))
    found._entries["benchmark", "test.absent"] = [_Entry("other", "other", "nowhere.at_all:benchmark")]
    found._entries["benchmark", "test.wrong"] = [_Entry("other", "other", lambda: 5)]
    report = Report(Machine(torch.device("cpu")))
    assert [job.operator for job in find_jobs(found, report=report)] == ["test.times"]
    assert [(s.operator, s.case) for s in report.skipped] == [("test.absent", "all cases"), ("test.wrong", "all cases")]
    assert "benchmark 'test.absent' of plugin 'other'" in report.skipped[0].reason
    assert "expected an OperatorBenchmark, got int" in report.skipped[1].reason
    with pytest.raises(InputError, match=r"operator 'test.counted' to benchmark.*got benchmark 'test.absent'"):
        find_jobs(found, ["test.counted"], report=report)


def test_two_peers_of_one_name_are_both_compared() -> None:
    found = registry(
        times=OperatorBenchmark("test.times", (CASE,), {"exact": exact}),
        zealous=OperatorBenchmark("test.times", (), {"exact": batched}),
    )
    (job,) = find_jobs(found)
    assert dict(job.peers) == {"exact": exact, "exact (test.zealous)": batched}


def test_a_peer_that_exits_is_said() -> None:
    def leaves(A: LinearOperator) -> Peer:
        raise SystemExit(3)

    report = run(registry(times=OperatorBenchmark("test.times", (CASE,), {"leaves": leaves})))
    assert {(s.peer, s.reason) for s in report.skipped} == {("leaves", "failed: SystemExit: 3")}


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_the_picture_is_smooth_inside_a_ball_and_differs_in_weight(dtype: torch.dtype) -> None:
    picture = running._picture(Space((32, 32), dtype), 3)
    assert picture.dtype == dtype
    assert torch.isfinite(torch.view_as_real(picture) if dtype.is_complex else picture).all()
    edge = torch.cat([picture[:, 0].flatten(), picture[:, :, 0].flatten()])
    assert float(edge.abs().max()) == 0.0
    assert float(picture.diff(dim=1).abs().max()) < 0.25 * float(picture.abs().max())
    torch.testing.assert_close(picture[1], picture[0] * (4 / 3))
    assert torch.equal(picture[0], running._picture(Space((32, 32), dtype), 1)[0])


def test_the_kit_checks_a_benchmark() -> None:
    good = OperatorBenchmark("test.times", (CASE,), {"exact": exact, "batched": batched_peer_on_the_example})
    assert [c.name for c in check_component(registry(times=good), "benchmark", "test.times")] == [
        "case '8x8': largest batch", "peer exact: forward runs", "peer exact: adjoint runs",
        "peer batched: not compared here",
    ]  # fmt: skip
    seen: list[int] = []
    sized = OperatorBenchmark("test.times", (CASE,), {"exact": lambda A: seen.append(A.domain.size) or exact(A)})
    assert check_component(registry(times=sized), "benchmark", "test.times", {"size": 6})
    assert seen == [36]
    misspelt = OperatorBenchmark("test.times", (BenchmarkCase("8x8", {"extent": 8}),))
    with pytest.raises(ConformanceError, match=r"case '8x8' of 'test.times'.*got extent"):
        check_component(registry(times=misspelt), "benchmark", "test.times")
    with pytest.raises(ConformanceError, match="batches of case"):
        check_component(
            registry(times=OperatorBenchmark("test.times", (BenchmarkCase("8x8", {"size": 8}, ()),))),
            "benchmark", "test.times",
        )  # fmt: skip
    cut = OperatorBenchmark("test.times", (CASE,), {"cut": lambda A: Peer(lambda x: Timed(lambda: x[:1]))})
    with pytest.raises(ConformanceError, match=r"forward of peer cut: expected \[4, 4\]"):
        check_component(registry(times=cut), "benchmark", "test.times")


def batched_peer_on_the_example(A: LinearOperator) -> Peer:
    raise InputError("size for this peer", expected="at least 8", got=A.domain.shape[0])
