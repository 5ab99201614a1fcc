"""Operators beside other implementations, as a table, as Markdown and as JSON: what ``priorloom bench`` runs."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from priorloom.bench.machine import Machine
from priorloom.bench.report import Report, Row, Skipped
from priorloom.bench.run import find_jobs, run_jobs
from priorloom.errors import InputError
from priorloom.files import check_writable, write_atomic
from priorloom.reconstruction import versions
from priorloom.registry import Registry

from .device import require_device
from .present import console

SCHEMA = 1

PEERS = ("sigpy", "finufft", "scipy", "pylops")
"""Packages whose versions matter here, beside those that every result states."""

BUSY = 0.3
"""Load per core before the run, beyond which the reader is warned."""

COLUMNS = (
    "batch", "operation", "ms/image", "of bound", "MiB", "peer", "its ms/image", "times faster", "difference",
    "its MiB",
)  # fmt: skip


def run_bench(
    registry: Registry, operators: Sequence[str], *, quick: bool, repeats: int | None, device: str, as_json: bool,
    out: Path | None, command: str,
) -> None:  # fmt: skip
    """Run, show and write; what is finished at Ctrl-C is shown and written too."""
    if repeats is not None and repeats < 1:
        raise InputError("--repeats", expected="at least 1", got=repeats)
    if out is not None:
        if out.suffix not in (".json", ".md"):
            raise InputError(f"--out {out}", expected="a name that ends in .json or .md", got=out.suffix or "no suffix")
        if out.is_dir():
            raise InputError(f"--out {out}", expected="the name of a file", got="a folder")
        check_writable(out.parent)
    report = Report(Machine(require_device(device)))
    jobs = find_jobs(registry, operators, quick, report)
    if not jobs and not report.skipped:
        raise InputError("operators to benchmark", expected="a plugin that offers some", got="none")
    settings = {"operators": list(operators), "quick": quick, "repeats": repeats, "command": command}
    began = time.perf_counter()
    try:
        with _progress(began) as tell:
            run_jobs(registry, jobs, report, quick=quick, repeats=repeats, on_case=tell)
    finally:
        made = document(report, settings, time.perf_counter() - began)
        try:
            if as_json:
                print(json.dumps(made, indent=1))
            else:
                _show(report, made)
        finally:  # neither a closed pipe nor a full disk takes the other one with it
            if out is not None:
                content = json.dumps(made, indent=1) + "\n" if out.suffix == ".json" else markdown(report, made)
                write_atomic(out, content.encode())


def document(report: Report, settings: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """The content of the JSON file; times are seconds per image, memory and cost of the whole batch in bytes."""
    packages = dict(versions())
    for package in PEERS:
        try:
            packages[package] = version(package)
        except PackageNotFoundError:
            continue
    made = {
        "schema": SCHEMA, "machine": report.machine.describe(), "versions": packages, "settings": dict(settings),
        "seconds": seconds, "rows": [asdict(r) for r in report.rows],
        "not_compared": [asdict(s) for s in _skipped(report)],
    }  # fmt: skip
    plain: dict[str, Any] = _plain(made)
    return plain


def _skipped(report: Report) -> list[Skipped]:
    found = list(report.skipped)
    if not torch.cuda.is_available():
        found.append(Skipped("all", "all", "no GPU: torch sees no CUDA device", peer="CUDA"))
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _show(report: Report, made: Mapping[str, Any]) -> None:
    shell = console()
    shell.print(_machine_line(made), highlight=False, markup=False, soft_wrap=True)
    for title, lines in _tables(report.rows).items():
        shell.print()
        shell.print(title, style="bold", highlight=False, markup=False, soft_wrap=True)
        shown = Table(box=None, pad_edge=False)
        for name in COLUMNS:
            is_text = name in ("operation", "peer")
            shown.add_column(name, justify="left" if is_text else "right", min_width=12 if is_text else 5)
        for cells in lines:
            shown.add_row(*map(escape, cells))
        shell.print(shown)
    shell.print()
    for line in _notes(report):
        shell.print(line, highlight=False, markup=False, soft_wrap=True)


def markdown(report: Report, made: Mapping[str, Any]) -> str:
    """The table for a page, with the machine above and what could not be compared below."""
    lines = [_machine_line(made)]
    for title, cells in _tables(report.rows).items():
        lines += ["", f"**{title}**", "", _line(COLUMNS), "|" + "---|" * len(COLUMNS), *map(_line, cells)]
    return "\n".join([*lines, "", *(f"* {line}" for line in _notes(report))]) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _tables(rows: Sequence[Row]) -> dict[str, list[list[str]]]:
    """The cells of each line by title: a peer a line, ours stated on the first one."""
    tables: dict[str, list[list[str]]] = {}
    for row in rows:
        title = f"{row.operator}, {row.case}" + (f" (plan: {row.plan})" if row.plan else "")
        own = [
            str(row.batch), row.operation, _milliseconds(row.seconds), _percent(row.bound_fraction),
            _mebibytes(row.memory.held, row.memory.peak),
        ]  # fmt: skip
        theirs = [
            [
                peer.name, _milliseconds(peer.seconds), f"{peer.ratio:.1f}",
                "–" if peer.difference is None else f"{peer.difference:.0e}",
                _mebibytes(peer.memory.held, peer.memory.peak),
            ]
            for peer in row.peers
        ]  # fmt: skip
        lines = [[*(own if k == 0 else [""] * 5), *cells] for k, cells in enumerate(theirs or [["–"] * 5])]
        tables.setdefault(title, []).extend(lines)
    return tables


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.3g}" if seconds < 1 else f"{1e3 * seconds:.0f}"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2g} %" if fraction < 0.995 else f"{100 * fraction:.0f} %"


def _mebibytes(held: int | None, peak: int | None) -> str:
    return "–" if held is None or peak is None else f"{held / 2**20:.0f} + {peak / 2**20:.0f}"


def _machine_line(made: Mapping[str, Any]) -> str:
    machine = made["machine"]
    bands = [f"{rate / 1e9:.0f} GB/s on {int(size) >> 20} MiB" for size, rate in machine["bandwidth"].items()]
    rates = [f"{rate / 1e9:.0f} GFLOP/s {name}" for name, rate in machine["flops"].items()]
    facts = [
        machine["processor"], f"{machine['cores']} cores", f"{machine['threads']} threads",
        f"{machine['memory_bytes'] / 2**30:.0f} GiB",
    ]  # fmt: skip
    if machine["device"] != "cpu":
        facts.append(machine["device"])
    measured = ", ".join([*bands, *rates]) or "nothing"
    return (
        f"{', '.join(facts)}; torch {made['versions']['torch']}; load {machine['load']:.1f}; "
        f"measured: {measured}; {made['seconds']:.0f} s"
    )


def _notes(report: Report) -> list[str]:
    """What the reader must know before believing the table."""
    notes = [
        "medians, contenders in turns in one process; 'times faster' is the peer's time over ours; MiB: held by the "
        "operator + peak of one application; difference: |ours - peer| / |peer| on a smooth picture"
    ]
    if report.machine.load > BUSY * (os.cpu_count() or 1):
        load = f"load {report.machine.load:.1f} before the run"
        notes.append(f"the machine was busy ({load}): times are too high, most of all those of several threads")
    if any(not row.cost_stated for row in report.rows):
        guessed = sorted({row.operator for row in report.rows if not row.cost_stated})
        notes.append(
            f"bound of {', '.join(guessed)}: input, output and stored tensors moved once, no arithmetic counted"
        )
    notes += sorted(
        {f"{peer.name} on {row.operator}: {peer.note}" for row in report.rows for peer in row.peers if peer.note}
    )
    reasons: dict[str, list[str]] = {}
    for s in _skipped(report):
        where = "" if s.case == "all" else f" on {s.operator}, {s.case}" + (f", batch {s.batch}" if s.batch else "")
        what = f"{s.peer}{where}" if s.peer else f"{s.operator}, {s.case}" + (f", batch {s.batch}" if s.batch else "")
        reasons.setdefault(s.reason, []).append(what)
    return notes + [f"not compared: {'; '.join(dict.fromkeys(what))}: {reason}" for reason, what in reasons.items()]


@contextmanager
def _progress(began: float) -> Iterator[Callable[[str], None]]:
    """What runs now: one changing line on a terminal, plain lines in a log; on standard error."""
    if sys.stderr.isatty():
        with Console(stderr=True).status("benchmarking") as status:
            yield lambda label: status.update(escape(label))
        return

    def line(label: str) -> None:
        print(f"[{time.perf_counter() - began:.0f} s] {label}", file=sys.stderr, flush=True)

    yield line
