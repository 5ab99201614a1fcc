"""Rules for a weight, from the command line and from a config."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from priorloom import Scan
from priorloom.bundle import write

from .conftest import GEOMETRY, Cli

FOAM = ("-m", "ct", "--set", "case.images=[foam]", "--set", "case.image_shape=[16,16]", "--set", "operator.views=10",
        "--set", "solver.tolerance=1e-3")  # fmt: skip
RULES = ("discrepancy", "lcurve", "gcv", "sure", "oracle")


def test_a_config_leaves_the_weight_to_rules(cli: Cli, tmp_path: Path) -> None:
    config, out = tmp_path / "plan.yaml", tmp_path / "out"
    rows = "".join(f"- {{method: tikhonov, label: {r}, prior: {{lam: {{rule: {r}, budget: 8}}}}}}\n" for r in RULES)
    config.write_text(f"modality: ct\nmethods:\n- tikhonov\n{rows}")
    run = cli("compare", config, *FOAM[2:], "--out", out)
    assert run.code == 0, run.err
    plain, *ruled = json.loads((out / "results.json").read_text())["rows"]
    assert plain["trials"] is None
    oracle = next(r for r in ruled if r["method"] == "oracle")
    for row in ruled:
        assert row["tuned"] == ("oracle" if row["method"] == "oracle" else "rule")
        said, trials = row["parameters"], row["trials"]
        assert said["prior.lam.rule"] == row["method"]
        runs = len(trials) * (2 if row["method"] in ("gcv", "sure") else 1)
        assert said["prior.lam.runs"] == runs <= 8
        assert said["prior.lam.high"] / said["prior.lam.low"] == pytest.approx(1e4, rel=1e-2)
        best = max([oracle["psnr"], *(t["facts"]["psnr"] for t in trials)])
        assert said["prior.lam.loss_db"] == pytest.approx(best - row["psnr"], abs=1e-9)
        at = next(t for t in trials if t["settings"]["prior.lam"] == said["prior.lam"])
        assert at["facts"]["psnr"] == pytest.approx(row["psnr"])
        assert f"{row['method']} on foam: prior.lam" in run.out
    assert "from the truth: for reference only" in run.out
    page = (out / "report.html").read_text()
    assert "prior.lam.rule" in page
    assert "prior.lam.loss_db" in page


def test_a_file_is_reconstructed_by_a_rule(cli: Cli, scan_file: Path, tmp_path: Path) -> None:
    image = tmp_path / "disc.npy"
    asked = ("--set", "prior.lam.rule=gcv", "--set", "prior.lam.low=0.01", "--set", "prior.lam.high=100",
             "--set", "prior.lam.budget=6")  # fmt: skip
    run = cli("reconstruct", scan_file, "--method", "tikhonov", *asked, "--out", image)
    assert run.code == 0, run.err
    assert image.is_file()
    assert "by gcv from 0.01 to 100, 6 runs" in run.out
    assert "lost against" not in run.out  # no truth
    nested = cli("reconstruct", scan_file, "--method", "tikhonov", "--set", "prior.lam={rule: gcv, budget: 6}",
                 "--out", image)  # fmt: skip
    assert nested.code == 0, nested.err
    assert "by gcv from " in nested.out


@pytest.mark.parametrize("rule", RULES)
def test_tune_offers_every_rule_and_compare_takes_its_record(cli: Cli, tmp_path: Path, rule: str) -> None:
    path, out = tmp_path / "tuned.json", tmp_path / "out"
    run = cli("tune", "tikhonov", *FOAM, "--over", "prior.lam=0.01:100", "--rule", rule, "--budget", 8, "--out", path)
    assert run.code == 0, run.err
    record = json.loads(path.read_text())
    assert (record["rule"], record["budget"]) == (rule, 8)
    assert record["used"] <= 8
    assert run.out.splitlines()[-1] == f"--set tikhonov.prior.lam={record['settings']['prior.lam']!r}"
    run = cli("compare", *FOAM, "--method", "tikhonov", "--tuned", path, "--out", out)
    assert run.code == 0, run.err
    (row,) = json.loads((out / "results.json").read_text())["rows"]
    assert row["tuned"] == ("oracle" if rule == "oracle" else "rule")
    assert row["parameters"]["tuned.rule"] == rule


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--method", "tikhonov", "--set", "prior.lam.rule=gvc"), "did you mean 'gcv'"),
        (("--method", "tikhonov", "--set", "prior.lam.rul=gcv"), "did you mean 'prior.lam.rule'"),
        (("--method", "tikhonov", "--set", "prior.lam.low=1"), "expected a rule"),
        (("--method", "tikhonov", "--set", "prior.lam.rule=gcv", "--set", "prior.lam=1"), "a value or a rule"),
        (("--method", "tikhonov", "--set", "prior.lam.rule=gcv", "--set", "prior.lam.budget=5"), "at least 6 runs"),
        (("--method", "tikhonov", "--set", "prior.lam.rule=gcv", "--set", "prior.lam.low=-1"), "a positive number"),
        (("--method", "tikhonov", "--set", "prior.lam.rule=tuned"), "tuning"),
        (("--method", "fbp", "--set", "cutoff.rule=lcurve"), "the weight of an objective"),
        (("--method", "pnp-admm", "--set", "sigma.rule=lcurve"), "the weight of an objective"),
    ],
)
def test_a_rule_that_cannot_be_is_one_line(cli: Cli, tmp_path: Path, arguments: tuple[object, ...], words: str) -> None:
    run = cli("compare", *FOAM[:-2], *arguments, "--out", tmp_path / "out")
    assert run.code == 2
    assert words in run.err
    assert run.err.count("\n") == 1
    assert not (tmp_path / "out" / "results.json").exists()


def test_a_rule_that_needs_noise_or_a_truth_is_refused_before_the_first_run(
    cli: Cli, sinogram: np.ndarray, tmp_path: Path
) -> None:
    path = tmp_path / "clean.npz"
    write(path, Scan("ct", "ct.parallel2d", GEOMETRY, sinogram, noise_std=0.0))
    for rule, words in (
        ("oracle", "expected a truth, got none"),
        ("sure", "noise level"),
        ("discrepancy", "noise level"),
    ):
        run = cli("compare", "--input", path, "--method", "fbp", "--method", "tikhonov",
                  "--set", f"tikhonov.prior.lam.rule={rule}", "--out", tmp_path / "out")  # fmt: skip
        assert (run.code, run.err.count("\n")) == (2, 1)
        assert words in run.err
    assert not (tmp_path / "out").exists()
    # Nothing is stated here, and the modality estimates a level: then the result says so.
    guess = cli("compare", "-m", "mri", "--set", "case.image_shape=[16,16]", "--set", "case.noise=0", "--method",
                "cg-sense", "--set", "prior.lam.rule=sure", "--out", tmp_path / "out")  # fmt: skip
    assert guess.code == 0, guess.err
    assert "is an estimate from the measurement" in guess.out
    tune = cli("tune", "tikhonov", *FOAM, "--set", "prior.lam.rule=gcv", "--over", "prior.lam=1:2", "--out",
               tmp_path / "tuned.json")  # fmt: skip
    assert (tune.code, tune.err.count("\n")) == (2, 1)
    assert "no rule, since --rule names it" in tune.err
