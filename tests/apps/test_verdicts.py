"""Verdicts of plug-and-play: in the report, under the table, in results.json and on the command line."""

from __future__ import annotations

import json
from importlib.metadata import entry_points
from pathlib import Path
from types import SimpleNamespace

import pytest

from priorloom import Case, Pipeline, PnP, Problem, hookimpl
from priorloom.judgement import Judgement
from priorloom.pipeline import Assembly, Result, Solver, least_squares
from priorloom.steps import ISTA
from priorloom_apps.output import row as output_row
from priorloom_apps.present import notes, summary, table

from .conftest import Cli
from .pages import Page, case, document, result

THEOREM = Judgement(
    True, "Krasnoselskii-Mann", "D is 0.5-averaged, t = 1 < 2 / L = 2", "Some & Author (2017)", "a <point>"
)
NONE = Judgement(False, reason="D is <b>1.3</b>-Lipschitz")
STORY = "diverged at iteration 40: the residual has grown; the image of iteration 3 is returned; damp <it>"


def results(of: Case) -> list[Result]:
    return [
        result(of, "good", kind="pnp", judgement=THEOREM, damped=True, outcome="converged", story="converged <at> 8"),
        result(of, "seen", kind="pnp", certificate="empirical", judgement=NONE, outcome="converged"),
        result(of, "bad", kind="pnp", certificate="none", converged=False, outcome="diverged", story=STORY,
               warnings=(STORY,)),
        result(of, "tv-pdhg"),
    ]  # fmt: skip


def test_the_report_gives_theorem_condition_and_story_beside_the_curve() -> None:
    disc = case()
    html = document([disc], results(disc))
    page = Page(html)
    text = " ".join(page.text.split())
    assert "Krasnoselskii-Mann: D is 0.5-averaged, t = 1 < 2 / L = 2; a <point>. Some & Author (2017)." in text
    assert "No theorem applies: D is <b>1.3</b>-Lipschitz." in text
    assert f"It {STORY}." in text
    assert f"bad: {STORY}." in text
    assert "<point>" not in html
    assert "<b>1.3" not in html
    assert "damp <it>" not in html
    chips = [a["class"] for tag, a in page.tags if tag == "span" and (a.get("class") or "").startswith("chip ")]
    assert [c for c in chips if c in ("chip certified", "chip empirical", "chip warn")] == [
        "chip certified", "chip empirical", "chip warn", "chip certified"
    ]  # fmt: skip
    legend = text[text.index("Convergence good") :][:60]
    assert "good certified" in legend
    assert "seen empirical" in legend
    assert "bad none" in legend
    assert "tv-pdhg certified" not in legend  # classical ones say it in the list


def test_a_method_without_iterations_is_not_in_the_list() -> None:
    disc = case()
    page = Page(document([disc], [result(disc, "fbp", kind="direct", history=()), result(disc, "tv")]))
    assert [a.get("class") for tag, a in page.tags if tag == "ul"].count("verdicts") == 1
    assert "fbp certified" not in " ".join(page.text.split()).split("Convergence")[1].split("Parameters and")[0]


def test_notes_under_the_table_name_theorems_once_and_trouble_as_it_is() -> None:
    disc, other = case(), case("other")
    said = notes([*results(disc), *results(other)])
    assert [n for n in said if "Krasnoselskii" in n] == [
        "good certified: Krasnoselskii-Mann: D is 0.5-averaged, t = 1 < 2 / L = 2 (Some & Author (2017)); damped"
    ]
    assert "seen empirical: no theorem applies: D is <b>1.3</b>-Lipschitz" in said
    assert f"bad on disc: {STORY}" in said
    assert not any("raise solver.max_iterations" in n for n in said)
    assert summary(results(disc)[2]).endswith("DIVERGED, the best iterate is kept")
    names = [str(c.header) for c in table(results(disc)).columns]
    assert names[-2:] == ["certificate", "learned"]
    assert "theorem" not in names


def test_rows_carry_outcome_and_theorem() -> None:
    good, seen, bad, plain = (output_row(r, None) for r in results(case()))
    assert (good["outcome"], good["theorem"], good["condition"]) == ("converged", THEOREM.theorem, THEOREM.condition)
    assert (good["reference"], good["damped"]) == (THEOREM.reference, True)
    assert (seen["theorem"], seen["reason"], seen["damped"]) == (None, NONE.reason, False)
    assert (bad["outcome"], bad["story"]) == ("diverged", STORY)
    assert all(plain[name] is None for name in ("outcome", "theorem", "condition", "reference", "reason"))


def expanding(case: Case, *, solver: Solver = Solver(max_iterations=200)) -> Assembly:
    """PnP-PGD with the identity times 1.3 for a denoiser, which what A does not see cannot hold."""
    prior = PnP(case.operator.domain, lambda x, sigma: 1.3 * x, 0.1)
    return Assembly(Problem(least_squares(case), prior), ISTA(), None, solver, certificate="empirical", judgement=NONE)


def test_the_command_line_keeps_the_best_iterate_and_says_so_in_one_line(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, scan_file: Path, tmp_path: Path
) -> None:
    made = hookimpl(lambda: {"expanding": lambda: Pipeline("expanding", "pnp", "", expanding)})
    plugin = SimpleNamespace(
        name="toy", load=lambda: SimpleNamespace(priorloom_pipelines=made),
        dist=SimpleNamespace(name="toy-dist", version="1.0"),
    )  # fmt: skip
    every = [*entry_points(group="priorloom"), plugin]
    monkeypatch.setattr("priorloom.registry.entry_points", lambda group: every if group == "priorloom" else [])
    out = tmp_path / "out"
    run = cli("compare", "--input", scan_file, "--method", "expanding", "--out", out)
    assert run.code == 0, run.err
    (row,) = json.loads((out / "results.json").read_text())["rows"]
    assert (row["outcome"], row["certificate"], row["converged"]) == ("diverged", "none", False)
    assert row["iterations"] < 200
    lines = [line for line in run.out.splitlines() if "diverged at iteration" in line]
    assert len(lines) == 1
    assert "is returned" in lines[0]
    assert "DIVERGED" in run.err
    assert "diverged at iteration" in (out / "report.html").read_text()
