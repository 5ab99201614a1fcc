"""``priorloom bench`` from the outside: the table, the JSON, the files, and how it refuses."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from priorloom.bench import BenchmarkCase, OperatorBenchmark
from priorloom.errors import OutputError
from priorloom.registry import Registry

from .conftest import Cli


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a small scan of the installed benchmark of parallel beams, with its peers."""
    pytest.importorskip("odl", reason="ODL is the peer")
    kept = Registry.benchmark

    def cut(self: Registry, name: str) -> OperatorBenchmark:
        found = kept(self, name)
        parameters: Mapping[str, object] = {"image_shape": (16, 16), "views": 12, "detectors": 25}
        cases = (BenchmarkCase("16x16", parameters, (1, 2)),) if name == "ct.parallel2d" else ()
        return OperatorBenchmark(found.operator, cases, found.peers)

    monkeypatch.setattr(Registry, "benchmark", cut)


def test_json_is_all_that_goes_to_standard_output(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "new" / "bench.json"
    run = cli("bench", "--json", "--repeats", 3, "--out", out)
    assert run.code == 0, run.err
    document = json.loads(run.out)
    assert document == json.loads(out.read_text())
    assert (document["schema"], document["settings"]["repeats"], document["settings"]["quick"]) == (1, 3, False)
    machine = document["machine"]
    assert machine["processor"]
    assert machine["threads"] == torch.get_num_threads()
    assert all(rate > 1e8 for rate in machine["bandwidth"].values())
    assert document["versions"]["torch"]
    assert document["versions"]["odl"]
    rows = document["rows"]
    assert [(r["case"], r["batch"], r["operation"]) for r in rows] == [
        ("16x16", batch, operation) for batch in (1, 2) for operation in ("forward", "adjoint")
    ]
    for row in rows:
        assert row["operator"] == "ct.parallel2d"
        assert row["rounds"] == 3
        assert row["cost"]["bytes"] >= row["batch"] * 4 * (16 * 16 + 12 * 25)
        assert row["bound_fraction"] == pytest.approx(row["bound_seconds"] / row["seconds"])
        odl, skimage = row["peers"]
        assert (odl["name"], skimage["name"]) == ("odl-astra", "scikit-image")
        assert odl["ratio"] == pytest.approx(odl["seconds"] / row["seconds"])
        assert odl["difference"] < 1e-4  # the same discretisation
        assert 1e-4 < skimage["difference"] < 0.2  # another one
    if not torch.cuda.is_available():
        assert document["not_compared"] == [
            {
                "operator": "all", "case": "all", "reason": "no GPU: torch sees no CUDA device", "batch": None,
                "peer": "CUDA", "operation": None,
            }
        ]  # fmt: skip
    assert "ct.parallel2d 16x16, batch 2" in run.err
    assert not list(out.parent.glob("*.tmp"))


def test_the_table_on_the_terminal_and_in_markdown_says_the_same(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "table.md"
    run = cli("bench", "--quick", "--repeats", 1, "--operator", "ct.parallel2d", "--out", out)
    assert run.code == 0, run.err
    page = out.read_text()
    assert "**ct.parallel2d, 16x16" in page
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("|")]
    header, rule, *cells = lines
    assert header[:3] == ["batch", "operation", "ms/image"]
    assert set(rule) == {"---"}
    assert len({len(line) for line in lines}) == 1
    assert [line[:2] for line in cells] == [["1", "forward"], ["", ""], ["1", "adjoint"], ["", ""]]
    assert [line[5] for line in cells] == ["odl-astra", "scikit-image"] * 2
    for line in cells[::2]:
        faster = float(line[6]) / float(line[2])
        assert float(line[7]) == pytest.approx(faster, rel=0.05, abs=0.06)
        assert math.isfinite(float(line[3].removesuffix(" %")))
    for words in ("ct.parallel2d, 16x16", "odl-astra", "times faster", "not compared", "threads", "GiB"):
        assert words in run.out
        assert words in page


@pytest.mark.parametrize("load", [0.0, 99.0])
def test_a_busy_machine_is_said(cli: Cli, monkeypatch: pytest.MonkeyPatch, load: float) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (load, 0.0, 0.0))
    run = cli("bench", "--quick", "--repeats", 1)
    assert ("the machine was busy (load 99.0 before the run)" in run.out) == (load > 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--operator", "ct.paralel2d"], "did you mean 'ct.parallel2d'?"),
        (["--operator", "ct.fanbeam2d"], "expected one with a case"),
        (["--repeats", "0"], "--repeats: expected at least 1, got 0"),
        (["--device", "abacus"], "--device: expected cpu or cuda, got abacus"),
        (["--device", "cuda:x"], "--device: expected cpu or cuda, got cuda:x"),
        (["--out", "figures.csv"], "expected a name that ends in .json or .md, got .csv"),
        (["--out", "/proc/no/bench.json"], "expected a place that can be written"),
        (["--out", "folder.json"], "--out folder.json: expected the name of a file, got a folder"),
        (["--bogus"], "--bogus"),
    ],
)
def test_refusals_are_one_line(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.json").mkdir()
    run = cli("bench", *arguments)
    assert (run.code, run.out) == (2, "")
    (line,) = run.err.strip().splitlines()
    assert message in line


def test_an_interruption_shows_and_writes_what_is_finished(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*arguments: object, on_case: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("priorloom_apps.bench.run_jobs", stopped)
    run = cli("bench", "--out", tmp_path / "bench.json")
    assert run.code == 1
    assert "interrupted" in run.err
    assert json.loads((tmp_path / "bench.json").read_text())["rows"] == []


def test_a_file_that_cannot_be_written_at_the_end_leaves_the_table(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OutputError(f"output {path.name}", expected="a place that can be written", got="no space")

    monkeypatch.setattr("priorloom_apps.bench.write_atomic", full)
    run = cli("bench", "--quick", "--repeats", 1, "--out", tmp_path / "bench.json")
    assert run.code == 2
    assert "ct.parallel2d, 16x16" in run.out
    assert "got no space" in run.err


def test_nothing_to_benchmark_is_an_error(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRIORLOOM_PLUGINS", "priors")
    run = cli("bench")
    assert (run.code, run.out) == (2, "")
    assert "operators to benchmark: expected a plugin that offers some, got none" in run.err
