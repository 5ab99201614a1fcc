"""Reproduction: a second run of a comparison, held against the capsule of the first."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..errors import InputError
from ..files import read_bounded
from .contents import Capsule, Row, Tolerance
from .environment import changes

Verdict = Literal["identical", "within tolerance", "differs"]
_HEADER = 2**14
"""More bytes than the header of a ``.npy`` file has."""


@dataclass(frozen=True)
class Judged:
    """One row of both runs.

    Parameters
    ----------
    before, after
        As recorded, and again.
    verdict
        "identical": every byte of the image and every figure but the seconds.
    image
        ``|x - x'| / |x|``; None where the recorded image is gone.
    exceeded
        What is beyond the tolerances, in words.
    """

    before: Row
    after: Row
    verdict: Verdict
    image: float | None
    exceeded: tuple[str, ...]

    @property
    def psnr(self) -> float | None:
        """How much higher the PSNR is, in dB."""
        return None if self.before.psnr is None or self.after.psnr is None else self.after.psnr - self.before.psnr


@dataclass(frozen=True)
class Reproduction:
    """Two runs of one plan.

    Parameters
    ----------
    rows
        In the order in which they were recorded.
    reasons
        Why the last digits may differ, such as "torch 2.13.0 -> 2.14.0"; empty where identical results are expected.
    changed
        Cases whose measurement or truth is not the same to the last bit.
    """

    rows: tuple[Judged, ...]
    reasons: tuple[str, ...]
    changed: tuple[str, ...]

    @property
    def expected(self) -> Verdict:
        """What is expected at least."""
        return "within tolerance" if self.reasons else "identical"

    @property
    def verdict(self) -> Verdict:
        """The worst of the rows."""
        found = {row.verdict for row in self.rows}
        for verdict in _WORST:
            if verdict in found:
                return verdict
        return "identical"

    @property
    def as_expected(self) -> bool:
        """Whether the figures hold."""
        return self.verdict == "identical" or (self.verdict == "within tolerance" and bool(self.reasons))

    @property
    def largest(self) -> Judged | None:
        """The row whose image differs most; None where all are identical."""
        return max((r for r in self.rows if r.verdict != "identical"),
                   key=lambda r: math.inf if r.image is None else r.image, default=None)  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "schema": 1,
            "expected": self.expected,
            "reasons": list(self.reasons),
            "verdict": self.verdict,
            "as_expected": self.as_expected,
            "changed_cases": list(self.changed),
            "rows": [_row_json(row) for row in self.rows],
        }


_WORST: tuple[Verdict, ...] = ("differs", "within tolerance")


def hold_against(before: Capsule, folder: Path, after: Capsule, again: Path) -> Reproduction:
    """Compare two runs.

    Parameters
    ----------
    before, folder
        The capsule, and where it and its images are.
    after, again
        Those of the second run, which has the rows of the first.
    """
    found = {(row.case, row.method): row for row in after.rows}
    data = {c.name: c for c in after.cases}
    rows = tuple(
        _judged(row, found[row.case, row.method], before, _difference(row, folder, found[row.case, row.method], again))
        for row in before.rows
    )
    return Reproduction(rows, tuple(_reasons(before, after)), tuple(c.name for c in before.cases if data[c.name] != c))


def _reasons(before: Capsule, after: Capsule) -> list[str]:
    reasons = changes(before.environment, after.environment)
    if "cpu" not in (before.environment.device, after.environment.device):
        reasons.append("on a GPU the order of sums changes from run to run")
    timed = dict.fromkeys((*before.timed, *after.timed))
    return reasons + [f"the operator of case '{name}' chooses by timing how it computes" for name in timed]


def _judged(before: Row, after: Row, capsule: Capsule, image: float | None) -> Judged:
    fixed = before.outcome == "" == after.outcome
    exceeded = _exceeded(before, after, capsule.fixed if fixed else capsule.iterated, image, 0 if fixed else 2)
    if before == after:
        return Judged(before, after, "identical", 0.0, ())
    return Judged(before, after, "differs" if exceeded else "within tolerance", image, tuple(exceeded))


def _exceeded(before: Row, after: Row, allowed: Tolerance, image: float | None, steps: int) -> list[str]:
    """What is beyond the tolerances; `steps` more or fewer iterations are always allowed."""
    found = []
    if before.sha256 != after.sha256:
        if image is None:
            found.append("image: the recorded one is gone or was changed")
        elif not image <= allowed.image:
            found.append(f"image {image:.1e} > {allowed.image:g}")
    for name, relative in (("psnr", False), ("ssim", False), ("nmse", True)):
        old, new, limit = getattr(before, name), getattr(after, name), getattr(allowed, name)
        if old is None or new is None:
            if old != new:
                found.append(f"{name} {_shown(old)} -> {_shown(new)}")
            continue
        if abs(new - old) > (limit * abs(old) if relative else limit):
            found.append(f"{name} {old:.4g} -> {new:.4g}")
    if abs(after.iterations - before.iterations) > allowed.iterations * before.iterations + steps:
        found.append(f"iterations {before.iterations} -> {after.iterations}")
    if before.outcome != after.outcome:
        found.append(f"outcome {before.outcome or 'none'} -> {after.outcome or 'none'}")
    return found


def _difference(before: Row, folder: Path, after: Row, again: Path) -> float | None:
    """``|x - x'| / |x|`` of two images; None where the recorded file is gone, or not the one that was written."""
    if before.sha256 == after.sha256:
        return 0.0
    new = np.load(again / after.image, allow_pickle=False)
    old = _recorded(folder / before.image, before.sha256, new)
    if old is None:
        return None
    if old.shape != new.shape:
        return math.inf
    wide = np.complex128 if np.iscomplexobj(old) else np.float64
    size = float(np.linalg.norm(old.astype(wide).ravel()))
    change = float(np.linalg.norm((new.astype(wide) - old).ravel()))
    return change / size if size else (0.0 if change == 0 else math.inf)


def _recorded(path: Path, sha256: str, like: np.ndarray[Any, Any]) -> np.ndarray[Any, Any] | None:
    """The array in a ``.npy`` file that nobody vouches for: of the size and type of `like`, and with that hash."""
    try:
        content = read_bounded(path, like.nbytes + _HEADER, "an image")
        if hashlib.sha256(content).hexdigest() != sha256:
            return None
        stream = io.BytesIO(content)
        if np.lib.format.read_magic(stream) != (1, 0):
            return None
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
        if dtype != like.dtype or fortran or math.prod(shape) * dtype.itemsize != len(content) - stream.tell():
            return None
        return np.frombuffer(content, dtype, offset=stream.tell()).reshape(shape)
    except (InputError, ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return None


def _row_json(row: Judged) -> dict[str, Any]:
    figures: dict[str, Sequence[Any]] = {
        name: [getattr(row.before, name), getattr(row.after, name)]
        for name in ("psnr", "ssim", "nmse", "iterations", "outcome", "sha256")
    }
    image = row.image if row.image is not None and math.isfinite(row.image) else None
    where: Mapping[str, Any] = {"case": row.before.case, "method": row.before.method, "verdict": row.verdict}
    return {**where, "image": image, "exceeded": list(row.exceeded), **figures}


def _shown(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"


__all__ = ["Judged", "Reproduction", "Verdict", "hold_against"]
