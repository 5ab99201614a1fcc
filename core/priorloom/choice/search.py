"""One-dimensional searches on a logarithmic scale, within a number of evaluations."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

LEAST = 3
"""Values that a search needs: the ends of the range, and one between them."""


def regula_falsi(
    low: float,
    high: float,
    gap_low: float,
    gap_high: float,
    excess: Callable[[float], float],
    close: Callable[[float], bool],
    budget: int,
) -> None:
    """Shrink the bracket until the gap is close to zero, the budget is spent, or its ends are neighbours."""
    a, b = math.log(low), math.log(high)
    tried = {low, high}
    kept = 0
    for _ in range(budget - 2):
        middle = (a * gap_high - b * gap_low) / (gap_high - gap_low)
        margin = 0.1 * (b - a)
        value = rounded(math.exp(min(max(middle, a + margin), b - margin)), low, high)
        if value in tried:
            return
        tried.add(value)
        gap = excess(value)
        if close(gap):
            return
        if (gap < 0) == (gap_low < 0):
            a, gap_low = math.log(value), gap
            gap_high = gap_high / 2 if kept > 0 else gap_high  # the end that stays a second time: Illinois
            kept = 1
        else:
            b, gap_high = math.log(value), gap
            gap_low = gap_low / 2 if kept < 0 else gap_low
            kept = -1


def rounded(value: float, low: float = 0.0, high: float = math.inf) -> float:
    """To four significant digits, which a person can paste and no method notices; the ends stay as they are."""
    return min(max(float(f"{value:.4g}"), low), high)


NEAR = 0.004
"""Values whose logarithms are closer than this are the same: a weight is not known better, and no image shows it."""


def spread(low: float, high: float, count: int) -> list[float]:
    """`count` values from `low` to `high` at equal ratios, without repetition."""
    values = (rounded(low * (high / low) ** (k / (count - 1)), low, high) for k in range(count))
    return list(dict.fromkeys(values))


def minimise(low: float, high: float, count: int, score: Callable[[float], float]) -> None:
    """Score up to `count` values: half of them a logarithmic grid, then towards the minimum beside its best.

    The next value is the vertex of the parabola through the best one and its neighbours, in the logarithm, or, where
    that is not between them, a score is infinite, or the value before has not brought the neighbours half as near
    again, the golden section of the wider gap (Brent 1973, Algorithms for Minimization without Derivatives, chapter 5).
    It ends early once both neighbours are `NEAR`.
    """
    before = math.inf
    scores = {math.log(v): score(v) for v in spread(low, high, max(LEAST, (count + 1) // 2))}
    while len(scores) < count:
        best = min(scores, key=lambda t: scores[t])
        below = max((t for t in scores if t < best), default=best)
        above = min((t for t in scores if t > best), default=best)
        if max(best - below, above - best) <= 2 * NEAR:
            return
        t = _vertex(below, best, above, scores) if above - below <= 0.5 * before else None
        before = above - below if t is not None else math.inf
        if t is None:
            wider = above if above - best >= best - below else below
            t = best + (3 - math.sqrt(5)) / 2 * (wider - best)
        elif abs(t - best) < NEAR:  # a step to the side that is less well known
            t = best + math.copysign(NEAR, (above - best) - (best - below))
        value = rounded(math.exp(t), low, high)
        if math.log(value) in scores:
            return
        scores[math.log(value)] = score(value)


def _vertex(a: float, b: float, c: float, scores: Mapping[float, float]) -> float | None:
    """Where the parabola through three points with the lowest in the middle is lowest; None where there is none."""
    fa, fb, fc = scores[a], scores[b], scores[c]
    if not (a < b < c and math.isfinite(fa) and math.isfinite(fb) and math.isfinite(fc)):
        return None
    left, right = (fa - fb) * (c - b), (fc - fb) * (b - a)
    if not left + right > 0:
        return None
    t = b + 0.5 * (left * (c - b) - right * (b - a)) / (left + right)
    return t if a < t < c else None
