"""What stands beside the report for papers: the figures as SVG and PNG, the tables as CSV."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Any

from priorloom.modality import Case, Modality
from priorloom.pipeline import Result
from priorloom.protocol.statistics import MEASURES, Summary

from .curves import HEIGHT, WIDTH, convergence_svgs, series_class
from .pictures import overview_png
from .tradeoff import HEIGHT as TRADEOFF_HEIGHT
from .tradeoff import WIDTH as TRADEOFF_WIDTH
from .tradeoff import tradeoff_svg

COLUMNS = (
    "modality", "case", "method", "kind", "psnr", "ssim", "nmse", "data_range", "seconds", "iterations", "residual",
    "gap", "objective", "converged", "criterion", "tuned", "certificate", "theorem", "damped", "seed", "parameters",
)  # fmt: skip
"""Of ``tables/results.csv``: fields of ``results.json``; parameters are JSON."""

Size = tuple[float, float]


def tables(rows: Sequence[Mapping[str, Any]], summary: Sequence[Summary] = ()) -> dict[str, bytes]:
    """``tables/results.csv``, and ``tables/summary.csv`` where there is a summary: path -> content.

    Parameters
    ----------
    rows, summary
        As for `report.render`.
    """
    made = {"tables/results.csv": results_csv(rows)}
    return {**made, "tables/summary.csv": summary_csv(summary)} if summary else made


def figures(cases: Sequence[Case], results: Sequence[Result], modalities: Mapping[str, Modality]) -> dict[str, bytes]:
    """``figures/convergence-CASE.svg``, ``figures/tradeoff-CASE.svg`` and ``figures/overview.png``: path -> content,
    the same bytes for the same results. What there is nothing to draw for has no file.

    Parameters
    ----------
    cases, results, modalities
        As for `report.render`; at least one result.

    Raises
    ------
    InputError
        A missing optional package.
    """
    made = {"figures/overview.png": overview_png(cases, results, modalities)}
    for case in cases:
        of_case = [r for r in results if r.case == case.name]
        curves = convergence_svgs(of_case)
        if panels := [panel for axis in curves.values() for panel in axis]:
            legend = [(r.method, series_class(i)) for i, r in enumerate(of_case) if r.history]
            across = len(curves["iterations"])
            made[f"figures/convergence-{case.name}.svg"] = drawing(panels, (WIDTH, HEIGHT), across, legend)
        if tradeoff := tradeoff_svg(of_case):
            made[f"figures/tradeoff-{case.name}.svg"] = drawing([tradeoff], (TRADEOFF_WIDTH, TRADEOFF_HEIGHT), 1)
    return made


def results_csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """One line for each result; what is not known is empty, booleans are true and false."""
    lines = [[_cell(row.get(name)) for name in COLUMNS] for row in rows]
    return _csv([COLUMNS, *lines])


def summary_csv(summary: Sequence[Summary]) -> bytes:
    """One line for each modality and method: means over the cases, the ends of their intervals, the worst figures, and
    the paired difference of PSNR to the reference method."""
    figures = [f"{name}_{what}" for name in MEASURES for what in ("mean", "low", "high", "worst")]
    paired = ("reference", "mean", "low", "high", "wins", "cases")
    head = ["modality", "method", "cases", "subjects", *figures, "worst_case", *(f"difference_{p}" for p in paired)]
    lines = [
        [
            s.modality, s.method, s.cases, _cell(s.subjects),
            *(values[name] for name in MEASURES for values in (s.mean, s.low, s.high, s.worst)),
            s.worst_case, *(_cell(getattr(s.difference, name, None)) for name in paired),
        ]
        for s in summary
    ]  # fmt: skip
    return _csv([head, *lines])


def drawing(panels: Sequence[str], size: Size, across: int, legend: Sequence[tuple[str, str]] = ()) -> bytes:
    """Inline pictures of the report as one SVG file without a style sheet, as paper tools want it.

    Parameters
    ----------
    panels
        ``<svg>`` elements of one `size`, set in rows of `across`.
    legend
        Names and their style classes, above the panels.
    """
    width = size[0] * across
    items, top = _legend(legend, width)
    root = ElementTree.Element("svg", xmlns="http://www.w3.org/2000/svg")
    root.set("font-family", "Helvetica, Arial, sans-serif")
    root.extend(items)
    for place, panel in enumerate(panels):
        row, column = divmod(place, across)
        group = ElementTree.SubElement(root, "g", transform=f"translate({column * size[0]:g} {top + row * size[1]:g})")
        group.extend(ElementTree.fromstring(panel))
    height = top + size[1] * math.ceil(len(panels) / across)
    root.set("viewBox", f"0 0 {width:g} {height:g}")
    root.set("width", f"{width:g}")
    root.set("height", f"{height:g}")
    _dress(root, _colours(), "")
    return ElementTree.tostring(root) + b"\n"


def _legend(names: Sequence[tuple[str, str]], width: float) -> tuple[list[ElementTree.Element], float]:
    """The entries from left to right, line by line, and the height that they take."""
    items, x, y = [], 54.0, 16.0
    for name, style in names:
        needed = 34 + 7 * len(name)
        if x + needed > width and x > 54:
            x, y = 54.0, y + 20
        group = ElementTree.Element("g", {"class": f"curve {style}"})
        ElementTree.SubElement(group, "polyline", points=f"{x:g},{y - 4:g} {x + 18:g},{y - 4:g}")
        text = ElementTree.SubElement(group, "text", {"class": "name", "x": f"{x + 24:g}", "y": f"{y:g}"})
        text.text = name
        items.append(group)
        x += needed
    return items, y + 14 if names else 0.0


def _colours() -> dict[str, str]:
    """The light colours of the report's style sheet, by name."""
    style = (files("priorloom_apps") / "templates" / "report.css").read_text(encoding="utf-8")
    found: dict[str, str] = {}
    for name, colour in re.findall(r"--(\w+): (#\w+)", style):
        found.setdefault(name, colour)
    return found


def _dress(element: ElementTree.Element, colours: Mapping[str, str], series: str, dashed: bool = False) -> None:
    """Attributes in the place of classes, as the style sheet has them; `series` is the colour of the curve around."""
    classes = element.attrib.pop("class", "").split()
    dashed = dashed or "dashed" in classes
    for name in classes:
        if re.fullmatch(r"s\d", name):
            series = colours[f"c{name[1]}"]
    series = colours["quiet"] if "shape" in classes else series
    looks: dict[str, dict[str, str]] = {
        "grid": {"stroke": colours["line"], "stroke-width": "1"},
        "axis": {"stroke": colours["quiet"], "stroke-width": "1", "fill": "none"},
        "rule": {"stroke": colours["ink"], "stroke-width": "1", "stroke-dasharray": "3 4"},
        "tick": {"fill": colours["quiet"], "font-size": "12"},
        "name": {"fill": colours["ink"], "font-size": "12"},
        "heading": {"fill": colours["ink"], "font-size": "13"},
        "power": {"font-size": "9"},
        "full": {"fill": series},
        "open": {"fill": "#fff", "stroke": series, "stroke-width": "2"},
    }
    for name in classes:
        element.attrib.update(looks.get(name, {}))
    if element.tag == "polyline" and "rule" not in classes:
        element.attrib.update({"fill": "none", "stroke": series, "stroke-width": "2", "stroke-linejoin": "round"})
        if dashed:
            element.set("stroke-dasharray", "6 4")
    for child in element:
        _dress(child, colours, series, dashed)


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return json.dumps(value, default=str)
    return value


def _csv(lines: Iterable[Iterable[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue().encode()


__all__ = ["drawing", "figures", "results_csv", "summary_csv", "tables"]
