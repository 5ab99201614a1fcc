"""One-dimensional searches on a logarithmic scale, within a number of evaluations."""

from __future__ import annotations

import math
from collections.abc import Callable

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


def refined_grid(low: float, high: float, count: int, score: Callable[[float], float]) -> None:
    """Score `count` values: a logarithmic grid, then the middle of the wider gap beside the best, again and again."""
    first = max(LEAST, (count + 1) // 2)
    grid = [rounded(low * (high / low) ** (k / (first - 1)), low, high) for k in range(first)]
    scores: dict[float, float] = {}
    for value in dict.fromkeys(grid):
        scores[value] = score(value)
    while len(scores) < count:
        best = max(scores, key=lambda v: scores[v])
        below = max((v for v in scores if v < best), default=best)
        above = min((v for v in scores if v > best), default=best)
        other = above if above / best >= best / below else below
        value = rounded(math.sqrt(best * other), low, high)
        if value in scores:
            return
        scores[value] = score(value)


def rounded(value: float, low: float, high: float) -> float:
    """To four significant digits, which a person can paste and no method notices; the ends stay as they are."""
    return min(max(float(f"{value:.4g}"), low), high)
