"""``priorloom tune`` and ``priorloom compare --tuned`` from the outside."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import Cli

FOAM = ("-m", "ct", "--set", "case.images=[foam]", "--set", "case.image_shape=[24,24]", "--set", "operator.views=12")
OVER = ("--over", "prior.lam=1e-4:1")


@pytest.fixture
def record(cli: Cli, tmp_path: Path) -> Path:
    """Tikhonov's weight, tuned on the foam of seed 1."""
    path = tmp_path / "tuned.json"
    run = cli("tune", "tikhonov", *FOAM, *OVER, "--budget", 5, "--seed", 1, "--out", path)
    assert run.code == 0, run.err
    return path


def test_tune_prints_the_trials_and_the_line_to_paste(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "new" / "tuned.json"
    run = cli("tune", "tikhonov", *FOAM, *OVER, "--budget", 5, "--seed", 1, "--out", out)
    assert run.code == 0, run.err
    record = json.loads(out.read_text())
    assert (record["rule"], record["measure"], record["budget"], record["used"]) == ("cases", "psnr", 5, 5)
    assert [c["name"] for c in record["cases"]] == ["foam"]
    assert len(record["trials"]) == 5
    assert "[5/5] prior.lam=" in run.err
    best = max(record["trials"], key=lambda t: t["figures"]["foam"])
    line = run.out.splitlines()[-1]
    assert line == f"--set tikhonov.prior.lam={best['settings']['prior.lam']!r}"
    assert not list(out.parent.glob("*.tmp"))
    # The pasted line gives the figure of the trial.
    pasted = cli("compare", *FOAM, "--seed", 1, "--method", "tikhonov", *line.split(), "--out", tmp_path / "pasted")
    assert pasted.code == 0, pasted.err
    (row,) = json.loads((tmp_path / "pasted" / "results.json").read_text())["rows"]
    assert row["psnr"] == pytest.approx(best["figures"]["foam"])
    assert row["tuned"] == "given"


def test_the_same_seed_writes_the_same_bytes(cli: Cli, record: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.json"
    cli("tune", "tikhonov", *FOAM, *OVER, "--budget", 5, "--seed", 1, "--out", again)
    assert again.read_bytes() == record.read_bytes()


def test_compare_applies_a_record_and_says_where_it_is_from(cli: Cli, record: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    methods = ("--method", "tikhonov", "--method", "fbp")
    run = cli("compare", *FOAM, "--seed", 2, *methods, "--tuned", record, "--out", out)
    assert run.code == 0, run.err
    tikhonov, fbp = json.loads((out / "results.json").read_text())["rows"]
    assert tikhonov["tuned"] == "tuned"
    assert tikhonov["parameters"]["prior.lam"] == json.loads(record.read_text())["settings"]["prior.lam"]
    facts = {k: v for k, v in tikhonov["parameters"].items() if k.startswith("tuned.")}
    assert facts == {"tuned.rule": "cases", "tuned.budget": 5, "tuned.cases": "foam"}
    assert fbp["tuned"] == "default"
    assert not any(k.startswith("tuned.") for k in fbp["parameters"])


def test_compare_refuses_what_was_tuned_on_and_what_is_not_run(cli: Cli, record: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for arguments, words in (
        (("--seed", 1, "--method", "tikhonov"), "was not tuned on"),
        (("--seed", 2, "--method", "fbp"), "expected a method that is run"),
        (("--seed", 2, "--method", "tikhonov", "--set", "prior.lam=0.5"), "as it was tuned with"),
    ):
        run = cli("compare", *FOAM, *arguments, "--tuned", record, "--out", out)
        assert run.code == 2
        assert words in run.err
        assert run.err.count("\n") == 1
    run = cli("compare", *FOAM, "--tuned", tmp_path / "absent.json", "--out", out)
    assert (run.code, run.err.count("\n")) == (2, 1)
    assert not out.exists()


def test_discrepancy_needs_no_truth_and_serves_the_very_file(cli: Cli, scan_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "tuned.json"
    run = cli("tune", "tikhonov", "--input", scan_file, *OVER, "--rule", "discrepancy", "--budget", 6, "--out", path)
    assert run.code == 0, run.err
    record = json.loads(path.read_text())
    assert record["rule"] == record["measure"] == "discrepancy"
    assert record["cases"][0]["truth"] is None
    assert record["used"] == len(record["trials"]) <= 6
    assert "estimate" in run.out  # of the noise level: the file states none
    out = tmp_path / "out"
    run = cli("compare", "--input", scan_file, "--method", "tikhonov", "--tuned", path, "--out", out)
    assert run.code == 0, run.err
    assert json.loads((out / "results.json").read_text())["rows"][0]["parameters"]["tuned.rule"] == "discrepancy"


def test_a_row_of_the_config_is_tuned_with_its_settings(cli: Cli, tmp_path: Path) -> None:
    config = tmp_path / "plan.yaml"
    config.write_text(
        "modality: ct\ncase: {images: [foam], image_shape: [24, 24]}\noperator: {views: 12}\n"
        "methods:\n- fbp\n- {method: tikhonov, label: loose, solver: {tolerance: 0.01}}\n"
    )
    path = tmp_path / "tuned.json"
    run = cli("tune", "loose", config, *OVER, "--budget", 3, "--seed", 1, "--out", path)
    assert run.code == 0, run.err
    record = json.loads(path.read_text())
    assert (record["pipeline"], record["label"]) == ("tikhonov", "loose")
    assert record["settings"]["solver.tolerance"] == 0.01
    assert run.out.splitlines()[-1].startswith("--set loose.prior.lam=")
    run = cli("compare", config, "--seed", 2, "--tuned", path, "--out", tmp_path / "out")
    assert run.code == 0, run.err
    rows = json.loads((tmp_path / "out" / "results.json").read_text())["rows"]
    assert {r["method"]: r["tuned"] for r in rows} == {"fbp": "default", "loose": "tuned"}


@pytest.mark.parametrize(
    ("method", "arguments", "words"),
    [
        ("tikhonof", OVER, "did you mean 'tikhonov'"),
        ("tikhonov", (), "--over PARAMETER=LOW:HIGH"),
        ("tikhonov", ("--over", "prior.la=1:2"), "did you mean 'prior.lam'"),
        ("tikhonov", ("--over", "prior.lam=2:1"), "0 < LOW < HIGH"),
        ("tikhonov", ("--over", "prior.lam=0:1"), "0 < LOW < HIGH"),
        ("tikhonov", ("--over", "prior.lam=1"), "PARAMETER=LOW:HIGH"),
        ("tikhonov", ("--over", "prior.lam=a:b"), "PARAMETER=LOW:HIGH"),
        ("tikhonov", ("--over", "prior.lam=1:inf"), "PARAMETER=LOW:HIGH"),
        ("tikhonov", (*OVER, *OVER), "one range for each parameter"),
        ("tikhonov", (*OVER, "--budget", 2), "at least 3 runs"),
        ("tikhonov", (*OVER, "--rule", "discrepency"), "did you mean 'discrepancy'"),
        ("tikhonov", (*OVER, "--measure", "psnrr"), "did you mean 'psnr'"),
        ("tikhonov", (*OVER, "--rule", "discrepancy", "--measure", "psnr"), "--measure"),
        ("tikhonov", (*OVER, "--set", "case.images=[foam,ellipses]", "--rule", "discrepancy"), "one case"),
        ("tikhonov", (*OVER, "--set", "case.images=[foam,ellipses]", "--budget", 5), "at least 6 runs"),
        ("tikhonov", (*OVER, "--out", "tuned.txt"), ".json"),
    ],
)
def test_bad_input_is_one_line(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, arguments: tuple[object, ...], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    run = cli("tune", method, *FOAM, *arguments)
    assert run.code == 2
    assert words in run.err
    assert run.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_the_rule_cases_needs_a_truth(cli: Cli, scan_file: Path, tmp_path: Path) -> None:
    run = cli("tune", "tikhonov", "--input", scan_file, *OVER, "--out", tmp_path / "tuned.json")
    assert (run.code, run.err.count("\n")) == (2, 1)
    assert "expected a truth" in run.err
    assert not (tmp_path / "tuned.json").exists()


def test_cases_of_two_modalities_are_refused(cli: Cli, tmp_path: Path) -> None:
    run = cli("tune", "tikhonov", *OVER, "--out", tmp_path / "tuned.json")
    assert (run.code, run.err.count("\n")) == (2, 1)
    assert "add --modality NAME" in run.err
