"""``priorloom compare`` with tuning cases: one budget for every method, and what was not tuned is not called so."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from priorloom.chosen import TuningCase
from priorloom.protocol.run import Protocol
from priorloom.protocol.tuning import Tuning
from priorloom_apps.protocol import in_words

from .conftest import Cli, Run

CT: dict[str, Any] = {
    "modality": "ct",
    "operator": {"views": 12},
    "case": {"images": ["foam", "ellipses", "shepp-logan"], "image_shape": [24, 24], "photons": 3000},
    "methods": ["fbp", "tikhonov", {"method": "tikhonov", "label": "fixed", "prior": {"lam": 5.0}}],
    "tuning": {"case": {"images": ["foam", "ellipses"]}, "seed": 7, "budget": 8},
}


def config(path: Path, plan: dict[str, Any], **changes: Any) -> Path:
    path.write_text(yaml.safe_dump({**plan, **changes}))
    return path


def volume(path: Path, seed: int, slices: int = 6) -> Path:
    """Discs of random place and brightness."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:24, :24]
    planes = np.zeros((slices, 24, 24), np.float32)
    for plane in planes:
        for _ in range(4):
            top, left, radius = rng.uniform(6, 18), rng.uniform(6, 18), rng.uniform(2, 6)
            plane[(rows - top) ** 2 + (columns - left) ** 2 < radius**2] += rng.uniform(50, 200)
    np.save(path, planes)
    return path


RUNS: list[tuple[Path, Run]] = []


@pytest.fixture
def run_ct(tmp_path_factory: pytest.TempPathFactory, cli: Cli) -> tuple[Path, Run]:
    """The comparison of CT, run once."""
    if not RUNS:
        folder = tmp_path_factory.mktemp("protocol")
        RUNS.append((folder / "out", cli("compare", config(folder / "c.yaml", CT), "--out", folder / "out")))
    assert RUNS[0][1].code == 0, RUNS[0][1].err
    return RUNS[0]


def test_every_method_is_tuned_within_the_same_budget(run_ct: tuple[Path, Run]) -> None:
    out, run = run_ct
    document = json.loads((out / "results.json").read_text())
    marks = {(r["method"], r["tuned"]) for r in document["rows"]}
    assert marks == {("fbp", "tuned"), ("tikhonov", "tuned"), ("fixed", "given")}
    tuning = document["tuning"]
    assert (tuning["budget"], tuning["measure"]) == (8, "psnr")
    assert [c["name"] for c in tuning["cases"]] == ["foam", "ellipses"]
    told = {m["method"]: m for m in tuning["methods"]}
    assert {name: m["state"] for name, m in told.items()} == {"fbp": "tuned", "tikhonov": "tuned", "fixed": "given"}
    assert set(told["fbp"]["chosen"]) <= {"filter", "cutoff"}
    assert told["fbp"]["runs"] <= 16
    assert "[1/16] tuning fbp on ct: filter ram-lak: " in run.err
    assert "fixed on ct was not tuned: given" in run.out
    assert "fbp on ct was tuned: filter " in run.out


def test_every_trial_is_recorded_and_the_best_one_chosen(run_ct: tuple[Path, Run]) -> None:
    out, _ = run_ct
    record = json.loads((out / "tuning" / "ct-tikhonov.json").read_text())
    assert record["used"] == 2 * len(record["trials"]) <= 16
    means = [sum(t["figures"].values()) for t in record["trials"]]
    best = record["trials"][means.index(max(means))]["settings"]
    assert best == {"prior.lam.times": record["settings"]["prior.lam.times"]}
    rows = json.loads((out / "results.json").read_text())["rows"]
    lams = {r["case"]: r["parameters"] for r in rows if r["method"] == "tikhonov"}
    assert all(p["prior.lam.times"] == best["prior.lam.times"] for p in lams.values())
    assert len({p["prior.lam"] for p in lams.values()}) == 3  # a multiple of what each case asks for


def test_the_chosen_settings_reproduce_the_rows(run_ct: tuple[Path, Run], cli: Cli, tmp_path: Path) -> None:
    out, _ = run_ct
    document = json.loads((out / "results.json").read_text())
    chosen = {m["method"]: m["chosen"] for m in document["tuning"]["methods"] if m["state"] == "tuned"}
    settings = [f"{method}.{k}={v}" for method, found in chosen.items() for k, v in found.items()]
    plain = {k: v for k, v in CT.items() if k != "tuning"}
    path = config(tmp_path / "c.yaml", plain, methods=["fbp", "tikhonov"])
    run = cli("compare", path, *[x for s in settings for x in ("--set", s)], "--out", tmp_path / "out")
    assert run.code == 0, run.err
    again = json.loads((tmp_path / "out" / "results.json").read_text())
    wanted = {(r["case"], r["method"]): r["psnr"] for r in document["rows"] if r["method"] != "fixed"}
    assert {(r["case"], r["method"]): r["psnr"] for r in again["rows"]} == wanted
    assert {r["tuned"] for r in again["rows"]} == {"given"}
    assert again["tuning"] is None


def test_the_table_and_the_report_have_means_with_intervals(run_ct: tuple[Path, Run]) -> None:
    out, run = run_ct
    document = json.loads((out / "results.json").read_text())
    means = {s["method"]: s for s in document["summary"]}
    of_fbp = [r["psnr"] for r in document["rows"] if r["method"] == "fbp"]
    assert means["fbp"]["mean"]["psnr"] == pytest.approx(sum(of_fbp) / 3)
    assert means["fbp"]["low"]["psnr"] == pytest.approx(min(of_fbp))  # three cases: all that the bootstrap can say
    tuned = max(("fbp", "tikhonov"), key=lambda m: means[m]["mean"]["psnr"])
    assert means["fixed"]["difference"]["reference"] == tuned
    assert "mean over the cases, 95 % interval" in run.out
    page = (out / "report.html").read_text()
    assert "up to 8 settings on the same 2 tuning cases" in page
    assert "Not tuned (given): fixed." in page
    assert f"against {tuned}, the baseline that is best on these very cases, which favours it." in page
    assert (out / "tables" / "summary.csv").read_text().count("\n") == 4


def test_mri_follows_the_same_protocol(cli: Cli, tmp_path: Path) -> None:
    plan = {
        "modality": "mri",
        "case": {"files": [str(volume(tmp_path / "head.npy", 1))], "slices": 3, "image_shape": [24, 24], "coils": 4},
        "methods": ["zero-filled", {"method": "l1-wavelet", "solver": {"max_iterations": 20}}],
        "tuning": {"case": {"files": [str(volume(tmp_path / "other.npy", 2))], "slices": 2}, "budget": 4},
        "reference": "zero-filled",
    }
    run = cli("compare", config(tmp_path / "m.yaml", plan), "--out", tmp_path / "out")
    assert run.code == 0, run.err
    document = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {(r["method"], r["tuned"]) for r in document["rows"]} == {
        ("zero-filled", "default"),
        ("l1-wavelet", "tuned"),
    }
    assert "zero-filled on mri was not tuned: nothing to tune" in run.out
    subjects = {c["subject"] for c in document["tuning"]["cases"]}
    assert len(subjects) == 1
    (zero, wavelet) = document["summary"]
    assert (zero["subjects"], zero["difference"]) == (1, None)
    assert wavelet["difference"]["reference"] == "zero-filled"
    assert "Not tuned (nothing to tune): zero-filled." in (tmp_path / "out" / "report.html").read_text()


def test_only_the_row_that_asks_is_tuned(cli: Cli, tmp_path: Path) -> None:
    asks = {"method": "tikhonov", "label": "asks", "prior": {"lam": {"rule": "tuned", "low": 0.01, "high": 10}}}
    path = config(tmp_path / "c.yaml", CT, methods=["fbp", "tikhonov", asks])
    run = cli("compare", path, "--set", "tuning.budget=3", "--out", tmp_path / "out")
    assert run.code == 0, run.err
    document = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {(r["method"], r["tuned"]) for r in document["rows"]} == {
        ("fbp", "default"), ("tikhonov", "default"), ("asks", "tuned"),
    }  # fmt: skip
    (record,) = (tmp_path / "out" / "tuning").iterdir()
    assert json.loads(record.read_text())["ranges"] == {"prior.lam": [0.01, 10.0]}


def test_what_is_searched_can_be_said(cli: Cli, tmp_path: Path) -> None:
    over = {"fbp": {"filter": ["hann", "cosine"]}, "tikhonov": {"prior": {"lam": [0.1, 10]}}}
    path = config(tmp_path / "c.yaml", CT, tuning={**CT["tuning"], "budget": 3, "over": over})
    run = cli("compare", path, "--out", tmp_path / "out")
    assert run.code == 0, run.err
    record = json.loads((tmp_path / "out" / "tuning" / "ct-fbp.json").read_text())
    assert record["ranges"] == {"filter": ["hann", "cosine"]}
    assert [t["settings"] for t in record["trials"]] == [{"filter": "hann"}, {"filter": "cosine"}]


def test_overlaps_are_refused_in_one_line(cli: Cli, tmp_path: Path) -> None:
    head = str(volume(tmp_path / "head.npy", 1))
    files = {"files": [head], "slices": 2, "image_shape": [24, 24]}
    copy = tmp_path / "copy.npy"
    copy.write_bytes(Path(head).read_bytes())
    other = str(volume(tmp_path / "other.npy", 2))
    for case, tuning, words in (
        (files, {"seed": 3, "case": {"files": [str(copy)]}}, "tuning case 'copy' and test case 'head-s03': .*subject"),
        (CT["case"], {"seed": 0}, "tuning case 'foam' and test case 'foam': .*the same measurement"),
        (CT["case"], {"seed": 1, "case": {"images": ["shepp-logan"]}}, "'shepp-logan': .*both show the same image"),
        ({**files, "subject": "p1"}, {"case": {"files": [other], "subject": "P1 "}}, "both show subject p1"),
        ({**files, "subject": "p1"}, {"case": {"files": [head], "slices": 3}}, "expected none of case.files"),
    ):
        path = config(tmp_path / "c.yaml", CT, case=case, tuning={**tuning, "budget": 8})
        run = cli("compare", path, "--out", tmp_path / "out")
        assert run.code == 2
        assert len(run.err.splitlines()) == 1
        assert re.search(words, run.err), run.err
        assert not (tmp_path / "out" / "tuning").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tuning": {"cases": {}}}, "unknown key 'tuning.cases' in the config; did you mean 'case'"),
        ({"tuning": {"budget": 2}}, "tuning.budget: expected at least 8 settings for 'fbp', got 2"),
        ({"tuning": {"budget": 10**9}}, "tuning.budget: expected 1 to 10000 settings, got 1000000000"),
        ({"tuning": {"budget": "many"}}, "tuning.budget: expected a whole number, got 'many'"),
        ({"tuning": {"measure": "snr"}}, "tuning.measure 'snr'"),
        ({"tuning": {"over": {"tv": {"prior.lam": [1, 2]}}}}, "tuning.over: method 'tv': expected one that is run"),
        ({"tuning": {"over": {"fbp": {"cutoff": [1, 2, 3]}}}}, "tuning.over.fbp.cutoff: expected [LOW, HIGH]"),
        ({"tuning": {"over": {"fbp": {"cutof": [0.1, 1]}}}}, "did you mean 'cutoff'"),
        ({"tuning": {"over": {"fixed": {"prior.lam": [1, 2]}}}}, "expected a range or a value, got both"),
        ({"tuning": {"over": {"fbp": {"filter": ["hann"]}}}}, "expected different ones, at least two"),
        ({"methods": ["fbp", "fbp"]}, "method name: expected unique names, got 'fbp' twice"),
        ({"tuning": {"case": "foam"}}, "tuning.case in the config: expected a mapping of names to values, got 'foam'"),
        ({"tuning": {"over": {"fbp": 3}}}, "tuning.over.fbp: expected PARAMETER: [LOW, HIGH], got 3"),
        ({"tuning": {"case": {"photon": 3}}}, "did you mean 'case.photons'"),
        ({"tuning": {"seed": -1}}, "tuning.seed: expected 0 to 2147483647, got -1"),
        ({"reference": "tv"}, "reference 'tv': expected a method that is run, got fbp, tikhonov, fixed"),
        ({"methods": [{"method": "tikhonov", "prior": {"lam": 1}}]}, "expected a method with something to tune"),
        (
            {"methods": [{"method": "tikhonov", "prior": {"lam": {"rule": "tuned", "budget": 5}}}]},
            "expected no budget of its own, got 5; set tuning.budget",
        ),
    ],
)
def test_bad_input_is_one_line(cli: Cli, tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    tuning = {**CT["tuning"], **changes.get("tuning", {})}
    path = config(tmp_path / "c.yaml", CT, **{**changes, "tuning": tuning})
    run = cli("compare", path, "--out", tmp_path / "out")
    assert run.code == 2, run.out
    assert len(run.err.splitlines()) == 1, run.err
    assert words in run.err


def test_the_words_tell_the_cases_of_each_modality() -> None:
    cases = (TuningCase("a", "ct", "1", None), TuningCase("b", "ct", "2", None, "s"), TuningCase("c", "mri", "3", None))
    words = in_words(Protocol(Tuning(budget=9), cases, (), {}), ())
    assert "the same 2 tuning cases of ct of 1 known subject (a, b) and 1 tuning case of mri (c), for" in words


def test_a_rule_that_needs_tuning_cases_says_so(cli: Cli, tmp_path: Path) -> None:
    plan = {k: v for k, v in CT.items() if k != "tuning"}
    path = config(tmp_path / "c.yaml", plan, methods=[{"method": "tikhonov", "prior": {"lam": {"rule": "tuned"}}}])
    run = cli("compare", path, "--out", tmp_path / "out")
    assert run.code == 2
    assert "expected tuning cases, got none" in run.err
    assert len(run.err.splitlines()) == 1


def test_a_model_is_not_judged_on_whom_it_learned_from(cli: Cli, tmp_path: Path) -> None:
    files = {"files": [str(volume(tmp_path / "lidc.npy", 1))], "subject": "lidc-idri-0314", "image_shape": [24, 24]}
    tuning = {"case": {"files": [str(volume(tmp_path / "other.npy", 2))], "subject": "someone"}, "budget": 8}
    path = config(tmp_path / "c.yaml", CT, case=files, tuning=tuning, methods=["tikhonov", "learned-primal-dual"])
    run = cli("compare", path, "--out", tmp_path / "out")
    assert run.code == 2
    assert (
        "expected a subject that 'learned-primal-dual' has not learned from, got 'lidc-0314' on the card of" in run.err
    )
    path = config(tmp_path / "c.yaml", CT, case=files, tuning=tuning, methods=["tikhonov", "pnp-hqs"])
    run = cli("compare", path, "--out", tmp_path / "out")
    assert run.code == 2
    assert "'pnp-hqs' has not learned from, got 'lidc-0314' on the card of ct.drunet" in run.err


def test_a_truth_of_another_shape_is_one_line(cli: Cli, tmp_path: Path) -> None:
    entries: dict[str, Any] = {
        "operator": "ct.parallel2d", "operator.image_shape": [16, 16], "operator.pixel_size": 1.0, "operator.views": 6,
        "measurement": np.zeros((6, 25), np.float32), "truth": np.zeros((16, 15), np.float32),
    }  # fmt: skip
    np.savez(tmp_path / "scan.npz", **entries)
    run = cli("compare", "--input", tmp_path / "scan.npz", "--out", tmp_path / "out")
    assert run.code == 2
    assert len(run.err.splitlines()) == 1
    assert "truth of case 'scan': expected shape [..., 16, 16], got [16, 15]" in run.err
