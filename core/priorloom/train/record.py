"""The log of a training: points told to whoever watches, and kept as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..files import write_atomic

COLUMNS = ("step", "seconds", "learning_rate", "loss", "gradient_norm", "validation_loss", "psnr", "ssim")


@dataclass(frozen=True)
class Point:
    """One line of the log.

    Parameters
    ----------
    step, seconds
        Steps done, and time spent in all runs.
    learning_rate, loss, gradient_norm
        Of the last step, the gradient before clipping; the loss is the mean since the line before.
    validation_loss, psnr, ssim
        None where this step was not validated, or no truth is known.
    """

    step: int
    seconds: float
    learning_rate: float
    loss: float
    gradient_norm: float
    validation_loss: float | None = None
    psnr: float | None = None
    ssim: float | None = None


Watch = Callable[[Point], None]


class Log:
    """``log.csv``: appended line by line; a resumed run goes on where its checkpoint was made.

    Parameters
    ----------
    path
        The file.
    step
        Lines after this step are dropped; 0 starts anew.
    """

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        kept = [p for p in read(path) if p.step <= step] if step and path.exists() else []
        write_atomic(path, (",".join(COLUMNS) + "\n" + "".join(map(_line, kept))).encode())

    def add(self, point: Point) -> None:
        """Append one line."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_line(point))


def read(path: Path) -> list[Point]:
    """The points of a log; a last line that a kill cut off is left out."""
    points = []
    for row in csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))):
        try:
            values = {name: float(row[name]) if row[name] else None for name in COLUMNS}
            points.append(Point(**{**values, "step": int(row["step"])}))  # type: ignore[arg-type]
        except (TypeError, ValueError, KeyError):
            break
    return points


def _line(point: Point) -> str:
    values = (getattr(point, name) for name in COLUMNS)
    return ",".join("" if v is None else f"{v:.9g}" for v in values) + "\n"
