"""Quality against time as inline SVG: one mark for each method, its shape the kind of method."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import count

from priorloom.pipeline import Kind, Result

from .curves import Axis, series_class, tick_label

WIDTH, HEIGHT = 860, 340
LEFT, RIGHT, TOP, BOTTOM = 54, 14, 46, 44
SIZE = 5.5
LINE, LETTER = 14, 6.7
"""Height of a label, and a generous width of its letters, in pixels of the picture."""

MARKS: dict[Kind, tuple[str, str]] = {
    "direct": ("direct", "M-1 0A1 1 0 1 0 1 0A1 1 0 1 0-1 0Z"),
    "classical": ("classical", "M-.9-.9H.9V.9H-.9Z"),
    "pnp": ("plug-and-play", "M0-1.15L1.1.85H-1.1Z"),
    "learned": ("learned", "M0-1.3L1.3 0L0 1.3L-1.3 0Z"),
}
"""What the legend says, and the outline of radius 1: circle, square, triangle, diamond."""

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class _Mark:
    style: str
    result: Result
    x: float
    y: float


def tradeoff_svg(results: Sequence[Result]) -> str:
    """PSNR against seconds (logarithmic); empty unless two results have both.

    Beside the name of a learned method stands how many numbers it learned. A full mark is a result to be compared, a
    hollow one has not converged. The dashed line joins the methods that no other one beats in both, among those that
    count.

    Parameters
    ----------
    results
        The results of one case; the place in the sequence is the colour.
    """
    shown = [
        (i, r, r.seconds, r.metrics["psnr"])
        for i, r in enumerate(results)
        if r.metrics is not None and math.isfinite(r.metrics["psnr"]) and 0 < r.seconds < math.inf
    ]
    if len(shown) < 2:
        return ""
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    x_axis = Axis([s for _, _, s, _ in shown], LEFT, right, 2.0)
    low, high = min(q for *_, q in shown), max(q for *_, q in shown)
    room = max(0.08 * (high - low), 0.5)
    low, high = low - room, high + room
    marks = [
        _Mark(series_class(i), r, x_axis(s), bottom + (TOP - bottom) * (q - low) / (high - low)) for i, r, s, q in shown
    ]
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="PSNR against seconds">',
        f'<text class="heading" x="{LEFT}" y="16">PSNR in dB against seconds</text>',
        _legend([kind for kind in MARKS if any(r.kind == kind for _, r, _, _ in shown)]),
    ]
    for tick in x_axis.ticks():
        x = x_axis(tick)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{tick_label(tick)}</text>')
    for tick in _round_values(low, high):
        y = bottom + (TOP - bottom) * (tick - low) / (high - low)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    parts.append(f'<path class="axis" d="M{LEFT} {TOP}V{bottom}H{right}"/>')
    parts.append(f'<text class="tick" x="{(LEFT + right) / 2}" y="{HEIGHT - 8}" text-anchor="middle">seconds</text>')
    front = " ".join(f"{m.x:.1f},{m.y:.1f}" for m in _unbeaten(marks))
    parts.append(f'<polyline class="rule" fill="none" points="{front}"/>')
    return "".join([*parts, *_drawn(marks), "</svg>"])


def _unbeaten(marks: Sequence[_Mark]) -> list[_Mark]:
    """Converged or without a criterion, and no such other is at once faster and better; from left to right."""
    found: list[_Mark] = []
    for mark in sorted(marks, key=lambda m: (m.x, m.y)):
        if mark.result.converged is not False and (not found or mark.y < found[-1].y):
            found.append(mark)
    return found


def _drawn(marks: Sequence[_Mark]) -> list[str]:
    """Marks with their labels beside them, none over another."""
    taken: list[Box] = [(m.x - SIZE, m.y - SIZE, m.x + SIZE, m.y + SIZE) for m in marks]
    parts = []
    for mark in marks:
        name, learned = mark.result.method, _learned(mark.result)
        width = LETTER * len(name + learned)
        # To the right where there is room.
        left = mark.x + 11 if mark.x + 11 + width < WIDTH - RIGHT else mark.x - 11 - width
        middle = next(y for y in _nearby(mark.y) if not any(_overlap(_box(left, y, width), t) for t in taken))
        taken.append(_box(left, middle, width))
        anchor, x = ("start", left) if left > mark.x else ("end", left + width)
        end = "open" if mark.result.converged is False else "full"
        leader = ""
        if abs(middle - mark.y) > LINE:
            leader = f'<line class="grid" x1="{mark.x:.1f}" y1="{mark.y:.1f}" x2="{x:.1f}" y2="{middle:.1f}"/>'
        psnr = (mark.result.metrics or {}).get("psnr", math.nan)
        parts.append(
            f'<g class="curve {mark.style}"><title>{escape(name)} ({MARKS[mark.result.kind][0]}): {psnr:.2f} dB, '
            f"{mark.result.seconds:.3g} s</title>{leader}{_outline(mark.result.kind, mark.x, mark.y, end)}"
            f'<text class="name" x="{x:.1f}" y="{middle + 4:.1f}" text-anchor="{anchor}">{escape(name)}'
            f'<tspan class="tick">{learned}</tspan></text></g>'
        )
    return parts


def _learned(result: Result) -> str:
    """How many numbers were learned, to three digits."""
    if result.model is None:
        return ""
    count = result.model.parameters
    return f" · {count / 1e6:.3g}M" if count >= 1e6 else f" · {count / 1e3:.3g}k"


def _nearby(y: float) -> list[float]:
    """Places for the middle of a label, the nearest first; the last ones are beyond every other label."""
    offsets = [0.0]
    for k in range(1, 4 * HEIGHT // LINE):
        offsets += [k * LINE / 2, -k * LINE / 2]
    return [y + o for o in offsets]


def _box(left: float, middle: float, width: float) -> Box:
    return left, middle - LINE / 2 + 1, left + width, middle + LINE / 2 - 1


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _outline(kind: Kind, x: float, y: float, end: str) -> str:
    return (
        f'<path class="{end}" vector-effect="non-scaling-stroke" '
        f'transform="translate({x:.1f} {y:.1f}) scale({SIZE})" d="{MARKS[kind][1]}"/>'
    )


def _legend(kinds: Sequence[Kind]) -> str:
    parts, x = [], float(LEFT + SIZE)
    for kind in kinds:
        parts.append(f'<g class="shape">{_outline(kind, x, 30, "full")}</g>')
        parts.append(f'<text class="tick" x="{x + 11:.1f}" y="34">{MARKS[kind][0]}</text>')
        x += 30 + LETTER * len(MARKS[kind][0])
    return "".join(parts)


def _round_values(low: float, high: float) -> list[float]:
    """At most seven round values from low to high."""
    for exponent in count(-3):
        for digit in (1, 2, 5):
            step = digit * 10.0**exponent
            first, last = math.ceil(low / step), math.floor(high / step)
            if last - first < 7:
                return [k * step for k in range(first, last + 1)]
    raise AssertionError("count() does not end")


__all__ = ["tradeoff_svg"]
