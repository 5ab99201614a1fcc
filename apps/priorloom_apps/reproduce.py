"""Run the comparison of a folder again, and hold the results against the recorded ones: ``priorloom reproduce``."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from rich.table import Table

from priorloom.capsule.contents import Capsule, read_capsule, recorded_plan
from priorloom.capsule.recording import check_models
from priorloom.capsule.reproduction import Judged, Reproduction, hold_against
from priorloom.capsule.sources import find_again, moved
from priorloom.errors import InputError, OutputError
from priorloom.files import write_atomic
from priorloom.modality import Case
from priorloom.reconstruction import Method
from priorloom.registry import Registry

from .compare import run_comparison
from .present import console

THREADS_PER_CORE = 4
"""More threads than that are not started because a capsule says so."""


def run_reproduce(
    folder: Path,
    registry: Registry,
    out: Path | None = None,
    data: Path | None = None,
    device: str | None = None,
    command: str = "",
) -> int:
    """Run the plan of a capsule again; print how the results compare, and write ``reproduce.json``.

    Parameters
    ----------
    folder
        What ``priorloom compare`` wrote.
    registry
        Where components come from.
    out
        Where the second run goes; ``reproduced`` in `folder` when absent.
    data
        Where the files are now, if they are not where they were.
    device
        "cpu" or "cuda"; the recorded one when absent.
    command
        What was typed.

    Returns
    -------
    0 where the results are as expected, 1 where they are not.

    Raises
    ------
    InputError
        No capsule, one that cannot be used, or data, models or methods that are not there or have changed.
    """
    capsule = read_capsule(folder)
    out = _beside(folder) if out is None else out
    if os.path.realpath(out) == os.path.realpath(folder):
        raise OutputError(f"--out {out}", expected="another folder than the recorded one", got="the same")
    places = find_again(capsule.sources, data)
    plan = moved(recorded_plan(folder, capsule), places)
    tuned = [Path(places[source.path]) for source in capsule.sources if source.setting == "tuned"]

    check_models(capsule, registry)
    recorded = partial(_recorded_rows, capsule)
    with _threads(capsule.environment.threads):
        run_comparison(plan, registry, out, device or capsule.device, command, tuned, recorded)
    found = hold_against(capsule, folder, read_capsule(out), out)
    document = {"capsule": str(folder.absolute()), **found.to_json()}
    write_atomic(out / "reproduce.json", (json.dumps(document, indent=1, allow_nan=False) + "\n").encode())
    _print(found, folder, out)
    return 0 if found.as_expected else 1


def _beside(folder: Path) -> Path:
    """Where the second run goes by itself; a capsule of somebody else may have links there that lead out of it."""
    out = folder / "reproduced"
    for path in (out, *out.rglob("*")):
        if path.is_symlink():
            raise OutputError(str(path), expected="no link in the folder of the second run", got=os.readlink(path),
                              cure="name another folder with --out")  # fmt: skip
    return out


def _recorded_rows(
    capsule: Capsule, cases: Sequence[Case], rows: Mapping[str, list[Method]]
) -> dict[str, list[Method]]:
    """Of the rows that would run, those that were recorded: there may be more default methods than there were."""
    of_case = {case.name: case.modality for case in capsule.cases}
    here = {case.name: case.modality for case in cases}
    if of_case != here:
        raise InputError("cases of the capsule", expected=", ".join(of_case), got=", ".join(here), cure=_INSTALL)
    chosen: dict[str, list[Method]] = {modality: [] for modality in rows}
    for modality, name in dict.fromkeys((of_case.get(row.case, ""), row.method) for row in capsule.rows):
        found = [method for method in rows.get(modality, ()) if method.name == name]
        if not found:
            raise InputError(
                f"method '{name}' on {modality}", expected="the recorded one", got="none that could run",
                cure=_INSTALL,
            )  # fmt: skip
        chosen[modality] += found
    return {modality: methods for modality, methods in chosen.items() if methods}


_INSTALL = "install the recorded versions and plugins (environment in capsule.json)"


@contextmanager
def _threads(recorded: int) -> Iterator[None]:
    """With the recorded number of threads, on which the order of sums depends."""
    own = torch.get_num_threads()
    if recorded <= THREADS_PER_CORE * (os.cpu_count() or 1):
        torch.set_num_threads(recorded)
    try:
        yield
    finally:
        torch.set_num_threads(own)


def _print(found: Reproduction, folder: Path, out: Path) -> None:
    shell = console()
    shell.print(f"reproduction of {folder}:", highlight=False, markup=False)
    shell.print(_table(found))
    for reason in found.reasons:
        shell.print(f"note: {reason}", highlight=False, markup=False)
    if found.changed:
        shell.print(f"note: the data of {', '.join(found.changed)} are not the same to the last digit",
                    highlight=False, markup=False)  # fmt: skip
    for row in found.rows:
        if row.exceeded:
            shell.print(f"differs: {row.before.method} on {row.before.case}: {'; '.join(row.exceeded)}",
                        highlight=False, markup=False)  # fmt: skip
    shell.print(f"{summary(found)}; wrote {out}/reproduce.json", highlight=False, markup=False)


def summary(found: Reproduction) -> str:
    """The verdict in one line."""
    counts = {verdict: sum(row.verdict == verdict for row in found.rows) for verdict in _COLOURS}
    text = f"{len(found.rows)} rows: " + ", ".join(f"{n} {verdict}" for verdict, n in counts.items() if n)
    if found.largest is not None:
        row = found.largest
        size = "by an unknown amount" if row.image is None else f"by {row.image:.1e} of its norm"
        text += f"; the image of {row.before.method} on {row.before.case} differs most, {size}"
    if found.reasons:
        return f"{text}; " + ("as expected" if found.as_expected else "NOT AS EXPECTED (within the tolerances)")
    same = "the same versions, processor and threads"
    return f"{text}; " + (f"as expected of {same}" if found.as_expected else f"NOT AS EXPECTED (identical, of {same})")


_COLOURS = {"identical": "identical", "within tolerance": "within tolerance", "differs": "[bold red]DIFFERS[/]"}


def _table(found: Reproduction) -> Table:
    shown = Table(box=None, pad_edge=False)
    for name in ("case", "method", "image |x-x'|/|x|", "PSNR dB", "again", "iterations", "again", "verdict"):
        shown.add_column(name, justify="left" if name in ("case", "method", "verdict") else "right")
    previous = None
    for row in found.rows:
        case = row.before.case
        shown.add_row("" if case == previous else case, *_cells(row))
        previous = case
    return shown


def _cells(row: Judged) -> list[str]:
    before, after = row.before, row.after
    image = "–" if row.image is None else "0" if row.image == 0 else f"{row.image:.1e}"
    figures = ["–" if p is None else f"{p:.4f}" for p in (before.psnr, after.psnr)]
    return [before.method, image, *figures, str(before.iterations), str(after.iterations), _COLOURS[row.verdict]]


__all__ = ["run_reproduce", "summary"]
