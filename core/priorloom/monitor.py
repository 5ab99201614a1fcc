"""Monitor: watches an iteration that no theorem covers, keeps its best iterate, and says in words what goes wrong."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from .problem import Problem
from .steps.base import State

Kind = Literal["diverged", "cycling", "growing"]

EARLY = 10
"""The size of the images in the first so many iterations is the scale: a later image that is larger does not make its
own change look small."""
DIVERGED, LASTING = 1e3, 10
"""Divergence: the smallest of the last `LASTING` residuals (a quarter of all, if that is more) is `DIVERGED` times the
lowest that the largest of `LASTING` in a row ever was. Both sides must last, because the residual of a momentum method
dips whenever it passes the solution; no transient takes three orders of magnitude, and single precision has 38."""
BLOCK, STRETCH = 50, 1.25
"""The residuals are judged in blocks of at least `BLOCK` iterations, which is several periods of a fast ripple, each
ending at `STRETCH` times the end of the one before: a slow ripple is as long as the iteration before it."""
LEVEL = 1e-3
"""A block whose mean is not lower than the lowest before it by this fraction does not fall. Fifty iterations of a
contraction by 1 - 2e-5 fall by as much: slower than that nothing is reached in any budget."""
LEVEL_BLOCKS, RETURN = 2, 0.1
"""Cycling: so many blocks in a row do not fall, and the images are within `RETURN` times the way that they went since
then. A slow approach goes straight on and the ratio is near 1; after n rounds of a cycle it is below 1 / (2 n)."""
BUILDING = 0.7
"""While an image builds up from nothing (as a power of k, with short steps) its changes grow too, but relative to
itself they fall, by a factor of 3 over `RISES` blocks. True growth is exponential: there that ratio tends to a
constant."""
RISE, RISES = 1.01, 5
"""Slow growth: the smallest residual of a block exceeds that of the block before by the factor `RISE`, `RISES` times in
a row. The upswing of a decaying ripple doubles the count of iterations at the most: three blocks, and two at its
ends. A growth of 1.001 an iteration makes 1.05 in the shortest block."""
ROUNDING = 100
"""No verdict on residuals below this multiple of the precision, where rounding is left; and images that move by less
while the residual is large are held by a hidden variable that is still on its way, which is no cycle."""

_CURES = {
    "diverged": "damp it, or lower sigma or the step, or change the denoiser",
    "cycling": "damp it, or lower the step, or take a denoiser that is deterministic and more accurate",
    "growing": "damp it, or lower sigma or the step, or change the denoiser",
}


@dataclass(frozen=True)
class Trouble:
    """What went wrong.

    Parameters
    ----------
    kind, iteration
        "diverged", "cycling" or "growing", and when it was seen.
    best
        The iteration that made the best iterate; 0 is the start.
    story
        One sentence: what happened, what is returned, what to do.
    """

    kind: Kind
    iteration: int
    best: int
    story: str


class Monitor:
    """Detects divergence, cycling and slow growth of a fixed-point iteration; for one run.

    It watches the residual of every iteration, ``Step.residual`` or ``|x+ - x| / |x+|``, weighted by ``max(1, |x+| /
    S)`` with S the size of the first images: in the plain ratio an image that runs away hides its own change. A batch
    is judged by its worst element. It never sees the truth, and proves nothing: an iteration that it lets pass has not
    been found wrong, which is all.

    It holds one state (the best), one image, and one number an iteration.

    Parameters
    ----------
    begin
        The iteration after which it judges, such as the end of a schedule; before, only what is not finite counts, and
        the last finite state is the best.
    """

    def __init__(self, begin: int = 0) -> None:
        self.begin = begin
        self.best: State | None = None
        """The state with the smallest weighted residual, that iteration, and its plain residual."""
        self.best_iteration = 0
        self.best_residual = math.inf
        self._best_weighted = math.inf
        self._plain: list[float] = []
        self._weighted: list[float] = []
        self._scale = 0.0
        self._floor = 0.0
        # The blocks: the smallest weighted, the mean weighted and the smallest plain residual of each.
        self._low: list[float] = []
        self._mean: list[float] = []
        self._plain_low: list[float] = []
        self._last = 0
        # Since the last block that fell: the image then, the way from it, the sum of the images' sizes, blocks.
        self._anchor: Tensor | None = None
        self._far = self._sum = 0.0
        self._lowest = math.inf
        self._level_blocks = 0

    def observe(self, k: int, problem: Problem, before: State, after: State, residual: Tensor) -> Trouble | None:
        """Judge iteration k from `before` to `after`, of the given residual per batch element.

        Returns
        -------
        Trouble or None
            None as long as nothing is wrong.
        """
        change = float(torch.linalg.vector_norm(after.x - before.x))
        plain = float(residual.max())
        if self.best is None:
            self.best, self.best_iteration = before, k - 1
        if not (math.isfinite(change) and math.isfinite(plain)):
            return self._trouble("diverged", k, "the image or the residual is not finite")
        if k <= self.begin:
            self.best, self.best_iteration, self.best_residual = after, k, plain
            return None
        weighted = self._weigh(problem, after, residual)
        if weighted < self._best_weighted:
            self.best, self.best_iteration, self.best_residual = after, k, plain
            self._best_weighted = weighted
        if self._anchor is None:
            self._anchor = before.x
        self._plain.append(plain)
        self._weighted.append(weighted)
        self._far += change
        self._sum += float(torch.linalg.vector_norm(after.x))
        if weighted <= self._floor:
            return None
        return self._diverged(k) or self._judge_block(k, after.x)

    def _weigh(self, problem: Problem, after: State, residual: Tensor) -> float:
        size = problem.space.norm(after.x)
        if len(self._plain) < EARLY:
            self._scale = max(self._scale, float(size.max()))
            self._floor = ROUNDING * torch.finfo(problem.space.real_dtype).eps
        if self._scale == 0:
            return float(residual.max())
        return float((residual * (size / self._scale).clamp_min(1)).max())

    def _diverged(self, k: int) -> Trouble | None:
        window = max(LASTING, len(self._weighted) // 4)
        if len(self._weighted) < 2 * window:
            return None
        now = min(self._weighted[-window:])
        if now <= DIVERGED * self._best_weighted:
            return None
        # The lowest level that lasted: the smallest over the past of the largest of `LASTING` in a row.
        past = self._weighted[:-window]
        level = min(max(past[i : i + LASTING]) for i in range(max(1, len(past) - LASTING + 1)))
        building = min(self._plain[-window:]) < BUILDING * min(self._plain[-2 * window : -window])
        if building or now <= DIVERGED * level:
            return None
        return self._trouble("diverged", k, f"residual from {level:.1e} to {self._weighted[-1]:.1e}")

    def _judge_block(self, k: int, x: Tensor) -> Trouble | None:
        done = len(self._weighted)
        if done < max(self._last + BLOCK, math.ceil(self._last * STRETCH)):
            return None
        block = self._weighted[self._last :]
        self._low.append(min(block))
        self._mean.append(math.sqrt(sum(r * r for r in block) / len(block)))
        self._plain_low.append(min(self._plain[self._last :]))
        self._last = done
        return self._growing(k) or self._cycling(k, x)

    def _growing(self, k: int) -> Trouble | None:
        low, plain = self._low[-RISES - 1 :], self._plain_low[-RISES - 1 :]
        if len(low) <= RISES or not all(b > RISE * a for a, b in pairwise(low)) or plain[-1] < BUILDING * plain[0]:
            return None
        return self._trouble("growing", k, f"residual slowly but steadily from {low[0]:.1e} to "
                             f"{low[-1]:.1e}")  # fmt: skip

    def _cycling(self, k: int, x: Tensor) -> Trouble | None:
        assert self._anchor is not None
        mean = self._mean[-1]
        if mean < (1 - LEVEL) * self._lowest:
            self._lowest = mean
            self._anchor, self._far, self._sum, self._level_blocks = x, 0.0, 0.0, 0
            return None
        self._level_blocks += 1
        apart = float(torch.linalg.vector_norm(x - self._anchor))
        moving = self._far > self._floor * self._sum
        if self._level_blocks < LEVEL_BLOCKS or not moving or apart > RETURN * self._far:
            return None
        return self._trouble("cycling", k, f"residual no longer falls below {mean:.1e} and the images return to "
                             "where they were")  # fmt: skip

    def _trouble(self, kind: Kind, k: int, what: str) -> Trouble:
        kept = f"iteration {self.best_iteration}" if self.best_iteration else "the start"
        named = {"diverged": "diverged", "cycling": "cycles", "growing": "drifts away"}[kind]
        size = f" (residual {self.best_residual:.1e})" if math.isfinite(self.best_residual) else ""
        story = f"{named} at iteration {k}: {what}; the image of {kept}{size} is returned; {_CURES[kind]}"
        return Trouble(kind, k, self.best_iteration, story)
