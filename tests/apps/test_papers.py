"""Files for papers: tables that read back to their figures, drawings that stand without the page."""

from __future__ import annotations

import csv
import io
import json
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from priorloom.protocol.statistics import Paired, Summary
from priorloom_apps.curves import SERIES
from priorloom_apps.papers import figures, tables

from .conftest import Cli
from .pages import MODALITIES, case, pixels, result, row

SVG = "{http://www.w3.org/2000/svg}"


def table(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode())))


@pytest.fixture(scope="module")
def made() -> dict[str, bytes]:
    disc, scan = case("disc"), case("scan", "mri", truth=False)
    results = [
        result(disc, "fbp", kind="direct", history=(), residual=None, converged=None, seconds=0.1),
        result(disc, "tv,weak", converged=False),
        *(result(disc, f"m{i}") for i in range(SERIES)),
        result(scan, "zero-filled", history=()),
    ]
    rows: list[dict[str, Any]] = [{**row(r), "objective": r.objective} for r in results]
    means = {"psnr": 30.0, "ssim": 0.9, "nmse": 0.01}
    low, high, worst = ({k: f * v for k, v in means.items()} for f in (0.9, 1.1, 0.5))
    summary = [
        Summary("ct", "fbp", 20, 4, means, low, high, worst, "disc"),
        Summary("ct", "tv", 20, None, means, low, high, worst, "disc", Paired("fbp", -1.5, -2.0, -1.0, 3, 20)),
    ]
    return tables(rows, summary) | figures([disc, scan], results, MODALITIES)


def test_there_is_a_file_for_what_there_is_to_show(made: dict[str, bytes]) -> None:
    assert sorted(made) == [
        "figures/convergence-disc.svg", "figures/overview.png", "figures/tradeoff-disc.svg",
        "tables/results.csv", "tables/summary.csv",
    ]  # fmt: skip
    assert pixels(made["figures/overview.png"]).ndim == 3
    assert list(tables([])) == ["tables/results.csv"]


def test_results_read_back(made: dict[str, bytes]) -> None:
    rows = table(made["tables/results.csv"])
    assert [r["method"] for r in rows[:2]] == ["fbp", "tv,weak"]
    assert (rows[0]["psnr"], rows[0]["residual"], rows[0]["converged"]) == ("20.125", "", "")
    assert (rows[1]["residual"], rows[1]["converged"], rows[1]["objective"]) == ("0.00390625", "false", "2.5")
    assert json.loads(rows[1]["parameters"]) == {"prior.lam": 0.0125, "solver.tolerance": 0.004}
    assert rows[-1]["psnr"] == ""


def test_summary_reads_back(made: dict[str, bytes]) -> None:
    first, second = table(made["tables/summary.csv"])
    assert (float(first["psnr_mean"]), float(first["psnr_low"]), float(first["nmse_worst"])) == (30.0, 27.0, 0.005)
    assert (first["cases"], first["subjects"], first["worst_case"]) == ("20", "4", "disc")
    assert first["difference_mean"] == first["difference_reference"] == second["subjects"] == ""
    assert (second["difference_reference"], float(second["difference_mean"])) == ("fbp", -1.5)
    assert (second["difference_wins"], second["difference_cases"]) == ("3", "20")


def test_drawings_need_no_style_sheet(made: dict[str, bytes]) -> None:
    for name in ("convergence-disc", "tradeoff-disc"):
        root = ElementTree.fromstring(made[f"figures/{name}.svg"])
        assert all("class" not in element.attrib for element in root.iter())
        assert b"var(" not in made[f"figures/{name}.svg"]
        assert b"style" not in made[f"figures/{name}.svg"]
        width, height = (float(root.attrib[side]) for side in ("width", "height"))
        assert root.attrib["viewBox"] == f"0 0 {width:g} {height:g}"
        for line in root.iter(f"{SVG}polyline"):
            assert line.attrib["fill"] == "none"
            assert line.attrib["stroke"].startswith("#")


def test_a_drawing_of_curves_has_both_axes_a_legend_and_a_colour_for_each_method(made: dict[str, bytes]) -> None:
    root = ElementTree.fromstring(made["figures/convergence-disc.svg"])
    texts = [t.text for t in root.iter(f"{SVG}text")]
    for axis in ("iterations", "seconds"):
        assert f"Residual against {axis}" in texts
        assert f"Error against {axis}" in texts
    assert texts.count("tv,weak") == 1
    assert "fbp" not in texts  # it has no curve
    lines = list(root.iter(f"{SVG}polyline"))
    looks = {(line.attrib["stroke"], line.attrib.get("stroke-dasharray")) for line in lines}
    assert len(looks) == SERIES + 1  # the tenth method of the case has the colour of the second, dashed
    assert len(lines) == 7 * (SERIES + 1)  # three questions on two axes, and the legend
    hollow = [c for c in root.iter(f"{SVG}circle") if c.attrib["fill"] == "#fff"]
    assert len(hollow) == 6


@pytest.mark.parametrize("extra", [True, False], ids=["with the extra", "without it"])
def test_compare_writes_them(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extra: bool) -> None:
    if not extra:
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)  # importing it fails
    small = ["--set", "case.images=[foam]", "--set", "case.image_shape=[24,24]"]
    run = cli("compare", "-m", "ct", "--method", "fbp", *small, "--out", tmp_path)
    assert run.code == 0, run.err
    (written,) = table((tmp_path / "tables" / "results.csv").read_bytes())
    (row_of_json,) = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert float(written["psnr"]) == row_of_json["psnr"]
    assert (tmp_path / "report.html").exists() is (tmp_path / "figures" / "overview.png").exists() is extra
    assert ("no report.html" in run.out) is not extra
