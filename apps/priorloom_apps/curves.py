"""Convergence curves as inline SVG, coloured by the style sheet of the page they stand in."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from priorloom.pipeline import Result

SERIES = 8
"""Colours in the style sheet, classes ``s0`` to ``s7``; the ninth curve starts again, dashed."""

WIDTH, HEIGHT = 420, 270
LEFT, RIGHT, TOP, BOTTOM = 54, 14, 30, 44
DECADES = 8  # at most so many are shown below the largest value

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class _Curve:
    style: str
    name: str
    converged: bool | None
    points: Points


def series_class(index: int) -> str:
    """The style class of the curve (and legend entry) of the method at place `index` of its case."""
    return f"s{index % SERIES}" + (" dashed" if index >= SERIES else "")


def convergence_svgs(results: Sequence[Result]) -> dict[str, list[str]]:
    """Up to three ``<svg>`` elements against iterations and the same against seconds, all logarithmic: the relative
    residual, the objective above its best value, and the error. ``{"iterations": [...], "seconds": [...]}``, empty
    lists when no result has a history.

    The objective is shown relative to the lowest value that the same method reached, ``(F_k - F_best) / |F_best|``:
    different methods minimise different objectives. The error is ``|x_k - truth| / |truth|``. A curve ends in a full
    dot when it converged, in a ring when it did not; the dashed line is the tolerance where all methods share one.

    Parameters
    ----------
    results
        The results of one case; the place in the sequence is the colour.
    """
    tolerances = {
        float(r.parameters["solver.tolerance"]) for r in results if r.history and "solver.tolerance" in r.parameters
    }
    tolerance = tolerances.pop() if len(tolerances) == 1 else None
    drawn = {}
    for axis, along in (("iterations", _iterations), ("seconds", _seconds)):
        panels = [
            (f"Residual against {axis}", _curves(results, along, lambda r: [h.residual for h in r.history]), tolerance),
            (f"Objective above its best, against {axis}", _curves(results, along, _excess), None),
            (f"Error against {axis}", _curves(results, along, lambda r: [h.error for h in r.history]), None),
        ]
        drawn[axis] = [_panel(title, axis, curves, rule) for title, curves, rule in panels if curves]
    return drawn


def _iterations(result: Result) -> list[float]:
    return [record.iteration for record in result.history]


def _seconds(result: Result) -> list[float]:
    return [record.seconds for record in result.history]


def _curves(
    results: Sequence[Result], along: Callable[[Result], list[float]], of: Callable[[Result], list[float | None]]
) -> list[_Curve]:
    """The curves that have a point on a logarithmic axis, as deep as `DECADES` below the largest of all."""
    every: list[Points] = []
    for result in results:
        points = zip(along(result), of(result), strict=True)
        every.append([(x, y) for x, y in points if y is not None and 0 < x < math.inf and 0 < y < math.inf])
    floor = max((y for curve in every for _, y in curve), default=0.0) / 10**DECADES
    deep = [[(x, y) for x, y in curve if y >= floor] for curve in every]
    return [_Curve(series_class(i), r.method, r.converged, deep[i]) for i, r in enumerate(results) if deep[i]]


def _excess(result: Result) -> list[float | None]:
    values = [record.objective for record in result.history]
    best = min((value for value in values if value is not None), default=0.0)
    return [None if value is None else (value - best) / (abs(best) or 1.0) for value in values]


class Axis:
    """A logarithmic axis: `values` and a factor of `pad` beyond them on the pixels from `begin` to `end`."""

    def __init__(self, values: Sequence[float], begin: float, end: float, pad: float) -> None:
        self.low, self.high = math.log10(min(values) / pad), math.log10(max(values) * pad)
        self.begin, self.end = begin, end

    def __call__(self, value: float) -> float:
        share = (math.log10(value) - self.low) / (self.high - self.low)
        return self.begin + (self.end - self.begin) * share

    def ticks(self) -> list[float]:
        """At most seven round values."""
        exponents = range(math.floor(self.low), math.ceil(self.high) + 1)
        ticks: list[float] = []
        for digits in ((1, 2, 5), (1,)):
            ticks = [d * 10.0**e for e in exponents for d in digits if self.low <= math.log10(d * 10.0**e) <= self.high]
            if len(ticks) <= 7:
                return ticks
        return ticks[:: math.ceil(len(ticks) / 7)]


def _panel(title: str, axis: str, curves: Sequence[_Curve], rule: float | None) -> str:
    """One plot; `rule` is a value to mark by a dashed line."""
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    x_axis = Axis([x for c in curves for x, _ in c.points], LEFT, right, 1.05)
    y_axis = Axis([y for c in curves for _, y in c.points] + ([rule] if rule else []), bottom, TOP, 1.4)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">',
        f'<text class="heading" x="{LEFT}" y="16">{escape(title)}</text>',
    ]
    for tick in x_axis.ticks():
        x = x_axis(tick)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{tick_label(tick)}</text>')
    for tick in y_axis.ticks():
        y = y_axis(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{tick_label(tick)}</text>')
    parts.append(f'<path class="axis" d="M{LEFT} {TOP}V{bottom}H{right}"/>')
    parts.append(f'<text class="tick" x="{(LEFT + right) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{axis}</text>')
    if rule is not None:
        parts.append(f'<line class="rule" x1="{LEFT}" x2="{right}" y1="{y_axis(rule):.1f}" y2="{y_axis(rule):.1f}"/>')
    for curve in curves:
        places = [(x_axis(x), y_axis(y)) for x, y in curve.points]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        end = "open" if curve.converged is False else "full"
        parts.append(
            f'<g class="curve {curve.style}"><title>{escape(curve.name)}</title><polyline points="{line}"/>'
            f'<circle class="{end}" cx="{places[-1][0]:.1f}" cy="{places[-1][1]:.1f}" r="3.5"/></g>'
        )
    return "".join([*parts, "</svg>"])


def tick_label(value: float) -> str:
    """A tick in plain digits where they are short, else as a power of ten."""
    if 0.01 <= value <= 10_000:
        return f"{value:g}"
    exponent = math.floor(math.log10(value) + 1e-9)
    digit = round(value / 10**exponent)
    power = f'10<tspan class="power" dy="-4">{str(exponent).replace("-", "−")}</tspan>'
    return power if digit == 1 else f"{digit}·{power}"


__all__ = ["Axis", "convergence_svgs", "series_class", "tick_label"]
