"""Curves and quality against time: what is drawn where."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from priorloom.pipeline import Learned
from priorloom.solve import Record
from priorloom_apps.curves import SERIES, convergence_svgs
from priorloom_apps.tradeoff import tradeoff_svg

from .pages import case, result, timed

AXES = ("iterations", "seconds")


def test_curves_have_a_panel_for_each_question_and_a_ring_when_unconverged() -> None:
    disc = case()
    drawn = convergence_svgs([result(disc, "fast"), result(disc, "<slow>", converged=False)])
    assert tuple(drawn) == AXES
    for axis, panels in drawn.items():
        assert [ElementTree.fromstring(panel).attrib["aria-label"] for panel in panels] == [
            f"Residual against {axis}", f"Objective above its best, against {axis}", f"Error against {axis}",
        ]  # fmt: skip
        svg = "".join(panels)
        assert svg.count("&lt;slow&gt;") == 3
        assert [len(re.findall(f'class="{end}"', svg)) for end in ("full", "open")] == [3, 3]
        assert svg.count('class="rule"') == 1  # both have one tolerance of the residual


def points(panel: str) -> np.ndarray:
    """The places of the one curve of a panel."""
    (line,) = re.findall(r'<polyline points="([^"]+)"', panel)
    return np.array([[float(v) for v in p.split(",")] for p in line.split()])


def test_geometric_curves_are_straight_lines_between_the_axes() -> None:
    history = tuple(Record(10**k, 0.1**k, None, 0.1 * 10**k, 0.5**k) for k in range(5))
    drawn = convergence_svgs([result(case(), "m", history=history, parameters={})])
    for axis in AXES:
        assert len(drawn[axis]) == 2  # no objective, no third panel
        for panel in drawn[axis]:
            steps = np.diff(points(panel), axis=0)
            assert np.abs(steps - steps[0]).max() <= 0.11
            assert np.all(steps > 0)  # to the right, and down


def grid(panel: str, anchor: str) -> dict[str | None, float]:
    """Where the ticks of the axis are: "end" for the left one, "middle" for the lower one."""
    texts = ElementTree.fromstring(panel).findall(f"text[@text-anchor='{anchor}']")
    return {t.text: float(t.attrib["y"]) - 4 if anchor == "end" else float(t.attrib["x"]) for t in texts}


def test_objective_curve_is_relative_to_its_own_best() -> None:
    history = tuple(Record(k, 1.0, value, k) for k, value in ((1, 30.0), (10, 11.0), (100, 10.0)))
    panel = convergence_svgs([result(case(), "m", history=history)])["iterations"][1]
    heights = points(panel)[:, 1]
    assert len(heights) == 2  # the best itself is zero
    assert heights[0] == pytest.approx(grid(panel, "end")["2"], abs=0.1)  # (30 - 10) / 10
    assert heights[1] == pytest.approx(grid(panel, "end")["0.1"], abs=0.1)  # (11 - 10) / 10


def test_error_curve_stands_at_its_values_against_its_seconds() -> None:
    history = (Record(1, 1.0, None, 0.5, 1.0), Record(2, 1.0, None, 2.0, None), Record(3, 1.0, None, 5.0, 0.1))
    panel = convergence_svgs([result(case(), "m", history=history)])["seconds"][1]
    across, up = grid(panel, "middle"), grid(panel, "end")
    expected = [(across["0.5"], up["1"]), (across["5"], up["0.1"])]  # what has no error has no point
    assert np.abs(points(panel) - expected).max() <= 0.1


def test_without_a_history_there_is_no_curve_and_zero_values_are_left_out() -> None:
    nothing = {"iterations": [], "seconds": []}
    assert convergence_svgs([result(case(), "direct", history=())]) == nothing
    history = (Record(1, 0.0, 0.0, 0.0), Record(2, 0.0, 0.0, 0.0))
    assert convergence_svgs([result(case(), "exact", history=history)]) == nothing
    single = convergence_svgs([result(case(), "one", history=(Record(1, 0.5, None, 0.2),), parameters={})])
    assert "nan" not in str(single)


def test_the_ninth_curve_is_dashed() -> None:
    svg = "".join(convergence_svgs([result(case(), f"m{i}") for i in range(SERIES + 1)])["iterations"])
    assert svg.count('class="curve s0"') == svg.count('class="curve s0 dashed"') == 3


def marks(svg: str) -> dict[str, tuple[float, float, str, str]]:
    """For each method the place of its mark, its class and its outline."""
    found = {}
    for group in ElementTree.fromstring(svg).findall("g"):
        title, path = group.find("title"), group.find("path")
        if title is None or path is None:
            continue
        place = re.match(r"translate\(([\d.]+) ([\d.]+)\)", path.attrib["transform"])
        assert place is not None
        assert title.text is not None
        found[title.text.partition(" ")[0]] = (
            float(place[1]), float(place[2]), path.attrib["class"], path.attrib["d"]
        )  # fmt: skip
    return found


def test_quality_against_time_is_logarithmic_in_time_linear_in_dB_and_shaped_by_kind() -> None:
    disc = case()
    results = [
        timed(disc, "a", "direct", 0.01, 20.0), timed(disc, "b", "classical", 0.1, 25.0),
        timed(disc, "c", "pnp", 1.0, 30.0, converged=False), timed(disc, "d", "learned", 10.0, 35.0),
    ]  # fmt: skip
    found = marks(tradeoff_svg(results))
    x, y = (np.array([found[name][i] for name in "abcd"]) for i in (0, 1))
    assert np.ptp(np.diff(x)) < 0.3
    assert np.all(np.diff(x) > 20)
    assert np.ptp(np.diff(y)) < 0.3
    assert np.all(np.diff(y) < -20)
    assert [found[name][2] for name in "abcd"] == ["full", "full", "open", "full"]
    assert len({found[name][3] for name in "abcd"}) == 4


def test_the_line_of_quality_against_time_leaves_out_what_is_beaten_and_what_has_not_converged() -> None:
    disc = case()
    results = [
        timed(disc, "fast", "direct", 0.01, 20.0), timed(disc, "beaten", "classical", 1.0, 25.0),
        timed(disc, "loose", "pnp", 0.02, 50.0, converged=False), timed(disc, "good", "learned", 0.1, 35.0),
    ]  # fmt: skip
    svg = tradeoff_svg(results)
    found = marks(svg)
    line = ElementTree.fromstring(svg).find("polyline")
    assert line is not None
    points = [tuple(float(v) for v in p.split(",")) for p in line.attrib["points"].split()]
    assert points == [found["fast"][:2], found["good"][:2]]


def test_labels_do_not_lie_on_each_other_and_are_escaped() -> None:
    disc = case()
    svg = tradeoff_svg([timed(disc, f"<method-{i}>", "classical", 1.0, 30 + 0.001 * i) for i in range(9)])
    labels = [t for t in ElementTree.fromstring(svg).iter("text") if t.attrib["class"] == "name"]
    assert [t.text for t in labels] == [f"<method-{i}>" for i in range(9)]
    heights = sorted(float(t.attrib["y"]) for t in labels)
    assert np.diff(heights).min() >= 12


def test_a_learned_method_says_how_many_numbers_it_learned() -> None:
    disc = case()
    models = [Learned("ct.net", "1", count, "data", "none") for count in (74_721, 2_500_000)]
    svg = tradeoff_svg([timed(disc, f"net{i}", "learned", 1.0 + i, 30, model=model) for i, model in enumerate(models)])
    texts = ["".join(t.itertext()) for t in ElementTree.fromstring(svg).iter("text") if t.attrib["class"] == "name"]
    assert texts == ["net0 · 74.7k", "net1 · 2.5M"]


def test_without_two_figures_there_is_no_quality_against_time() -> None:
    disc, scan = case(), case("scan", truth=False)
    assert tradeoff_svg([timed(disc, "a", "direct", 0.01, 20.0)]) == ""
    assert tradeoff_svg([result(scan, "a"), result(scan, "b")]) == ""
    assert tradeoff_svg([timed(disc, "a", "direct", 0.01, 20.0), timed(disc, "b", "direct", 0.1, float("inf"))]) == ""
