"""Train a network: what ``priorloom train`` runs."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from priorloom.errors import InputError
from priorloom.files import check_writable, write_atomic
from priorloom.registry import Registry
from priorloom.train.config import TrainingPlan
from priorloom.train.record import Point, read
from priorloom.train.run import Trained, train

from .present import console

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def run_training(
    plan: TrainingPlan,
    registry: Registry,
    out: Path,
    *,
    resume: bool = False,
    budget: str | None = None,
    device: str = "cpu",
) -> Trained:
    """Train `plan` into `out`: ``checkpoints/``, ``log.csv``, ``curve.png`` and the model ``NAME/VERSION``."""
    seconds = None if budget is None else parse_budget(budget)
    check_writable(out)
    try:
        with progress(plan.steps) as watch:
            done = train(plan, registry, out, resume=resume, budget=seconds, device=device, watch=watch)
    finally:
        _draw(out)
    shell = console()
    for metric in done.card.metrics:
        shell.print(f"{metric.name} {metric.value:.4g} over {metric.cases} images: {metric.on}", highlight=False)
    shell.print(
        f"wrote {done.folder}: {done.card.parameters} parameters, {done.card.bytes} bytes, "
        f"step {done.chosen} of {done.step}",
        highlight=False,
    )
    return done


def parse_budget(text: str) -> float:
    """``20m``, ``90s``, ``1.5h`` or ``1h30m`` in seconds.

    Raises
    ------
    InputError
        Anything else, or nothing.
    """
    parts = re.findall(r"(\d+(?:\.\d+)?)([smh])", text)
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if "".join(number + unit for number, unit in parts) != text or not seconds > 0:
        raise InputError("--budget", expected="a time such as 20m, 90s or 1h30m", got=text)
    return seconds


@contextmanager
def progress(steps: int) -> Iterator[Callable[[Point], None]]:
    """A progress bar on a terminal, plain lines in a log; told of every point of the training log."""
    if sys.stderr.isatty() and os.environ.get("LOCAL_RANK", "0") == "0":
        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TimeRemainingColumn(),
        )  # fmt: skip
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task("training", total=steps)

            def advance(point: Point) -> None:
                bar.update(task, completed=point.step, description=f"loss {point.loss:.4g}")
                if point.validation_loss is not None:
                    bar.console.print(line(point, steps), highlight=False)

            yield advance
        return

    shown = {"seconds": -10.0}

    def log(point: Point) -> None:
        # A log wants every validation, and in between a sign of life every ten seconds.
        if point.validation_loss is not None or point.seconds >= shown["seconds"] + 10:
            shown["seconds"] = point.seconds
            print(line(point, steps), file=sys.stderr, flush=True)

    yield log


def line(point: Point, steps: int) -> str:
    """A point of the log in one line."""
    text = f"[{point.step}/{steps}] {point.seconds:.0f} s, loss {point.loss:.5g}"
    if point.validation_loss is not None:
        text += f", validation {point.validation_loss:.5g}"
    if point.psnr is not None:
        text += f", {point.psnr:.2f} dB, SSIM {point.ssim:.4f}"
    return text


def _draw(out: Path) -> None:
    """``curve.png`` where there is a log and matplotlib; the figures are complete in ``log.csv`` without it."""
    path = out / "log.csv"
    points = read(path) if path.exists() else []
    if not points:
        return
    try:
        write_atomic(out / "curve.png", curve_png(points))
    except ImportError:
        print("note: no curve.png: it needs matplotlib; pip install 'priorloom[report]'", file=sys.stderr)


def curve_png(points: list[Point]) -> bytes:
    """Loss and validation loss against the step, logarithmic, and below the PSNR where it is known."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    validated = [p for p in points if p.validation_loss is not None]
    measured = [p for p in validated if p.psnr is not None]
    figure = Figure(figsize=(6.4, 6.0 if measured else 3.6), layout="constrained")
    axes = figure.subplots(2 if measured else 1, 1, sharex=True, squeeze=False)[:, 0]
    axes[0].semilogy([p.step for p in points], [p.loss for p in points], color="0.6", label="training")
    if validated:
        axes[0].semilogy([p.step for p in validated], [p.validation_loss for p in validated], "o-", label="validation")
    axes[0].set_ylabel("loss")
    axes[0].legend()
    if measured:
        axes[1].plot([p.step for p in measured], [p.psnr for p in measured], "o-")
        axes[1].set_ylabel("PSNR [dB]")
    axes[-1].set_xlabel("step")
    for each in axes:
        each.grid(alpha=0.3)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
