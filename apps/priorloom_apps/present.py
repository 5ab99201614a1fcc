"""What a comparison shows while it runs and when it is done: progress, then the table."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from priorloom.modality import Case
from priorloom.pipeline import Result
from priorloom.reconstruction import TROUBLE

Tick = Callable[[Case, Result], None]


def console() -> Console:
    """Standard output: as wide as the terminal, or wide enough for the table in a log."""
    return Console(width=None if sys.stdout.isatty() else 160)


def tell(text: str) -> None:
    """One line on standard error, at once."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def progress(total: int) -> Iterator[Tick]:
    """A progress bar on a terminal, plain lines in a log; told of each finished result."""
    if sys.stderr.isatty():
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("comparing", total=total)

            def advance(case: Case, result: Result) -> None:
                bar.update(task, description=escape(f"{case.name}: {result.method} done"), advance=1)

            yield advance
        return
    numbers = count(1)

    def line(case: Case, result: Result) -> None:
        print(f"[{next(numbers)}/{total}] {case.name} {summary(result)}", file=sys.stderr, flush=True)

    yield line


def summary(result: Result) -> str:
    """A result in one line."""
    quality = f"{result.metrics['psnr']:.2f} dB, " if result.metrics else ""
    ending = "" if result.converged is None else ", converged" if result.converged else ", NOT CONVERGED"
    if result.outcome in TROUBLE:
        ending = f", {result.outcome.upper()}, the best iterate is kept"
    return f"{result.method}: {quality}{result.iterations} iterations, {result.seconds:.2f} s{ending}"


_TEXT = ("case", "method", "kind", "tuned", "certificate")
_COLUMNS = ("case", "method", "kind", "PSNR dB", "SSIM", "NMSE", "seconds", "iterations", "residual", "converged")


def table(results: Sequence[Result]) -> Table:
    """The comparison as a table; cases in order, methods as they ran."""
    shown = Table(box=None, pad_edge=False)
    for name in (*_COLUMNS, "tuned", "certificate", "learned"):
        shown.add_column(name, justify="left" if name in _TEXT else "right")
    previous = None
    for r in results:
        if r.metrics is None:
            quality = ["no truth"] * 3
        else:
            quality = [f"{r.metrics['psnr']:.2f}", f"{r.metrics['ssim']:.4f}", f"{r.metrics['nmse']:.5f}"]
        shown.add_row(
            "" if r.case == previous else r.case,
            r.method,
            r.kind,
            *quality,
            f"{r.seconds:.2f}",
            str(r.iterations),
            "–" if r.residual is None else f"{r.residual:.1e}",
            "–" if r.converged is None else "yes" if r.converged else "[bold red]NO[/]",
            r.tuned,
            r.certificate,
            "–" if r.model is None else f"{r.model.parameters:,}",
        )
        previous = r.case
    return shown


def notes(results: Sequence[Result]) -> list[str]:
    """What a reader must know before believing the table."""
    found = []
    loose = sorted({f"{r.method} on {r.case}" for r in results if r.converged is False and r.outcome not in TROUBLE})
    if loose:
        found.append(f"not converged, so not a baseline: {', '.join(loose)}; raise solver.max_iterations")
    if any(r.tuned in ("default", "given") and r.kind != "direct" for r in results):
        found.append("parameters marked 'default' or 'given' were not tuned on these data")
    models = {r.model.name: (r.method, r.model) for r in results if r.model is not None}
    for method, model in models.values():
        found.append(
            f"{method}: model {model.name} {model.version}, {model.parameters:,} numbers learned from {model.data}; "
            "not for diagnosis"
        )
    found += choices(results)
    found += verdicts(results)
    return found + [f"{', '.join(methods)} on {case}: {text}" for (case, text), methods in warned(results).items()]


def warned(results: Sequence[Result]) -> dict[tuple[str, str], list[str]]:
    """The methods that warn, by case and warning: many say the same."""
    methods: dict[tuple[str, str], list[str]] = {}
    for r in results:
        for warning in r.warnings:
            methods.setdefault((r.case, warning), []).append(r.method)
    return methods


def choices(results: Sequence[Result]) -> list[str]:
    """Which rule chose which parameter of which row, at what cost, and how far the PSNR is from the oracle's."""
    found = []
    for r in results:
        if r.chosen is None:
            continue
        ((parameter, (low, high)),) = r.chosen.ranges.items()
        loss = r.parameters.get(f"{parameter}.loss_db")
        distance = "" if loss is None else f", {loss:.2f} dB lost against the best that was seen"
        reference = " (from the truth: for reference only)" if r.tuned == "oracle" else ""
        found.append(
            f"{r.method} on {r.case}: {parameter} = {r.parameters[parameter]:.4g} by {r.chosen.rule}{reference} from "
            f"{low:.3g} to {high:.3g}, {r.chosen.used} runs, {r.chosen.seconds:.1f} s{distance}"
        )
    return found


def verdicts(results: Sequence[Result]) -> list[str]:
    """The theorem behind each certificate, or why there is none; one line for all methods that share it."""
    lines: dict[str, list[str]] = {}
    for r in results:
        judged = r.judgement
        if judged is None:
            continue
        if r.certificate == "certified" and judged.theorem:
            source = f" ({judged.reference})" if judged.reference else ""
            line = "certified: " + ": ".join(t for t in (judged.theorem, judged.condition) if t) + source
        elif r.certificate != "certified" and judged.reason and not any(judged.reason in w for w in r.warnings):
            line = f"{r.certificate}: no theorem applies: {judged.reason}"
        else:
            continue
        methods = lines.setdefault(line + ("; damped" if r.damped else ""), [])
        if r.method not in methods:
            methods.append(r.method)
    return [f"{', '.join(methods)} {line}" for line, methods in lines.items()]
