"""The comparison report: one HTML file that needs nothing else, neither a server nor a network."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorloom.chosen import Chosen
from priorloom.errors import InputError
from priorloom.modality import Case, Modality
from priorloom.pipeline import Result
from priorloom.protocol.statistics import Summary
from priorloom.reconstruction import TROUBLE

from .curves import convergence_svgs, series_class
from .pack import pack
from .pictures import ERROR_COLOURS, error_limit, error_png, grey_png, planes, report_extra
from .present import warned
from .tradeoff import tradeoff_svg

BUDGET = 40 * 2**20
"""Characters of packed values that a page carries; the cases beyond have static pictures."""
SCRIPTS = ("values.js", "picture.js", "gestures.js", "readings.js", "controls.js", "viewer.js", "tables.js")
STYLES = ("report.css", "viewer.css")


@dataclass(frozen=True)
class _Panel:
    """A method on a case, as the template shows it; pictures are data URIs."""

    row: Mapping[str, Any]
    result: Result
    plane: int
    style: str
    image: str
    error: str | None
    best: frozenset[str]


@dataclass(frozen=True)
class _Section:
    """A case, as the template shows it; `shown` is the place of the method that stands beside the truth at first."""

    case: Case
    modality: Modality
    facts: Mapping[str, str]
    shape: tuple[int, ...]
    window: tuple[float, float]
    presets: Sequence[tuple[str, float, float, str]]
    limit: float | None
    range: float | None
    values: str | None
    truth: str | None
    panels: Sequence[_Panel]
    curves: Mapping[str, Sequence[str]]
    tradeoff: str
    leader: _Panel | None
    shown: int
    unfinished: Sequence[str]
    untuned: Sequence[str]
    oracle: Sequence[str]
    warnings: Sequence[tuple[str, str]]


def render(
    cases: Sequence[Case],
    results: Sequence[Result],
    rows: Sequence[Mapping[str, Any]],
    modalities: Mapping[str, Modality],
    facts: Mapping[str, str],
    *,
    summary: Sequence[Summary] = (),
    protocol: str = "",
    records: Sequence[Chosen] = (),
) -> str:
    """The report as one HTML document.

    Parameters
    ----------
    cases, results
        What ``compare`` was given and what it returned; a case without results yet is named as such.
    rows
        The rows of ``results.json``, one for each result.
    modalities
        The modality of every case, by name.
    facts
        Said about the run, in this order: label -> text (seed, versions, device ...). Two labels are special: "title"
        is the heading, and "command" is shown as the line that reproduces the run.
    summary
        Means over the cases, their intervals and paired differences, one for each modality and method.
    protocol
        The protocol of the comparison in words.
    records
        How settings were chosen on tuning cases; every trial is shown, as are those of rules (``Result.chosen``).

    Raises
    ------
    InputError
        A result without its row, or a missing optional package.
    """
    with report_extra():
        from jinja2 import Environment, PackageLoader, StrictUndefined

    by_name = {(row["case"], row["method"]): row for row in rows}
    for result in results:
        if (result.case, result.method) not in by_name:
            raise InputError(f"row of '{result.method}' on '{result.case}'", expected="one row a result", got="none")
    sections: list[_Section] = []
    for case in cases:
        outcomes = [(r, by_name[r.case, r.method]) for r in results if r.case == case.name]
        room = BUDGET - sum(len(s.values or "") for s in sections)
        sections.append(_section(case, outcomes, modalities[case.modality], room))
    environment = Environment(
        loader=PackageLoader("priorloom_apps"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(number=number, plain=plain, fixed=fixed, key=key)
    script = '"use strict";\n' + "\n".join(map(_template, SCRIPTS))
    return environment.get_template("report.html.j2").render(
        title=facts.get("title", "Reconstruction comparison"),
        command=facts.get("command"),
        facts={label: text for label, text in facts.items() if label not in ("title", "command")},
        sections=sections,
        modalities=modalities,
        summary=list(summary),
        protocol=protocol,
        searches=_searches(results, records),
        trouble=TROUBLE,
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        style="\n".join(map(_template, STYLES)),
        error_colours=ERROR_COLOURS,
    )


def _section(
    case: Case, outcomes: Sequence[tuple[Result, Mapping[str, Any]]], modality: Modality, room: int
) -> _Section:
    results = [result for result, _ in outcomes]
    shown = planes(case, results, modality)
    everything = [*([] if shown.truth is None else [shown.truth]), *shown.images]
    # Deflation halves noisy values at best: what cannot fit is not tried.
    fits = bool(results) and 4 * sum(plane.size for plane in everything) <= 2 * room
    values = pack(everything) if fits else None
    errors = [] if shown.truth is None else [image - shown.truth for image in shown.images]
    limit = error_limit(errors) if errors else None
    best = _best([row for _, row in outcomes])
    panels = [
        _Panel(
            row=row,
            result=result,
            plane=index + len(everything) - len(shown.images),
            style=series_class(index),
            image=_uri(grey_png(shown.images[index], *shown.window)),
            error=None if limit is None else _uri(error_png(errors[index], limit)),
            best=frozenset(
                name for name, value in best.items() if row[name] == value and row["converged"] is not False
            ),
        )
        for index, (result, row) in enumerate(outcomes)
    ]
    leader = next((p for p in panels if "psnr" in p.best), None)
    return _Section(
        case=case,
        modality=modality,
        facts=_facts(case, modality),
        shape=everything[0].shape if everything else (0, 0),
        window=shown.window,
        presets=_presets(everything, modality),
        limit=limit,
        range=next((row["data_range"] for _, row in outcomes if row["data_range"] is not None), None),
        values=values if values is not None and len(values) <= room else None,
        truth=None if shown.truth is None else _uri(grey_png(shown.truth, *shown.window)),
        panels=panels,
        curves=convergence_svgs(results),
        tradeoff=tradeoff_svg(results),
        leader=leader,
        shown=panels.index(leader) if leader else len(panels) - 1,
        unfinished=[p.result.method for p in panels if p.row["converged"] is False],
        untuned=[p.result.method for p in panels if p.row["tuned"] == "default" and p.row["parameters"]],
        oracle=[p.result.method for p in panels if p.row["tuned"] == "oracle"],
        warnings=[(", ".join(methods), text) for (_, text), methods in warned(results).items()],
    )


def _searches(results: Sequence[Result], records: Sequence[Chosen]) -> list[tuple[str, Chosen]]:
    """Every search for settings, with what it was for."""
    on_cases = [(f"{r.method.name} ({r.modality})", r) for r in records]
    return on_cases + [(f"{r.method} on {r.case}", r.chosen) for r in results if r.chosen is not None]


def _presets(planes: Sequence[NDArray[np.float64]], modality: Modality) -> list[tuple[str, float, float, str]]:
    """Name, low, high in the modality's units, and an explanation: everything, and the windows that the field uses."""
    if not planes:
        return []
    low, high = min(float(p.min()) for p in planes), max(float(p.max()) for p in planes)
    presets = [("full range", low, high, "from the smallest to the largest value of all images")] if low < high else []
    if (reading := modality.reading) is not None:
        presets += [
            (name, (below - reading.offset) / reading.factor, (above - reading.offset) / reading.factor,
             f"{plain(below)} to {plain(above)} {reading.units}")
            for name, (below, above) in reading.windows.items()
        ]  # fmt: skip
    return presets


def number(value: float | None, digits: int = 3) -> str:
    """`value` to `digits` significant digits, without an exponent where that is short; "–" for None."""
    if value is None or value == 0:
        return "–" if value is None else "0"
    if not math.isfinite(value):
        return "∞" if value > 0 else "−∞" if value < 0 else "not a number"
    if not 1e-3 <= abs(value) < 1e5:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        return f"{mantissa}e{int(exponent)}".replace("-", "−")
    before = math.floor(math.log10(abs(value))) + 1
    return f"{value:.{max(digits - before, 0)}f}".replace("-", "−")


def fixed(value: float, digits: int, sign: str = "") -> str:
    """`value` to `digits` decimals, with the sign of what is positive where `sign` is "+"; "–" for NaN."""
    if math.isnan(value):
        return "–"
    return f"{value:{sign}.{digits}f}".replace("-", "−") if math.isfinite(value) else number(value)


def key(value: float | None) -> str:
    """`value` as the script that sorts reads it; empty for None."""
    return "" if value is None else repr(float(value)).replace("inf", "Infinity")


def plain(value: Any) -> str:
    """A parameter or a fact as text of at most 200 characters; floats to six digits."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        value = ", ".join(plain(v) for v in value)
    text = " ".join(str(value).split())
    return text if len(text) <= 200 else text[:199] + "…"


def _best(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The best value of each metric among rows that are not unconverged, where at least two have one."""
    best = {}
    for name, choose in (("psnr", max), ("ssim", max), ("nmse", min)):
        values = [row[name] for row in rows if row[name] is not None and row["converged"] is not False]
        if len(values) > 1:
            best[name] = choose(values)
    return best


def _facts(case: Case, modality: Modality) -> dict[str, str]:
    """What is known about a case before any method runs."""
    return {
        "modality": modality.title,
        "operator": type(case.operator).__name__,
        "image": " × ".join(map(str, case.operator.domain.shape)),
        "measurement": " × ".join(map(str, case.operator.range.shape)),
        "truth": "none: metrics and error maps need one" if case.truth is None else "known",
        "noise": "level not stated" if case.noise_std is None else f"standard deviation {number(case.noise_std)}",
        **{str(key).replace("_", " "): plain(value) for key, value in case.metadata.items()},
    }


def _uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _template(name: str) -> str:
    return (files("priorloom_apps") / "templates" / name).read_text(encoding="utf-8")


__all__ = ["number", "plain", "render"]
