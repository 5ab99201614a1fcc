"""Compare methods on the same data: cases, methods, results, files. This is what ``priorloom compare`` runs.

As a library example: ``python -m priorloom_apps.compare OUT`` runs the embedded default.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from priorloom.chosen import Chosen, apply_chosen
from priorloom.comparison import compare
from priorloom.config import Plan, make_cases, make_methods
from priorloom.errors import InputError, OutputError
from priorloom.files import check_writable, write_atomic
from priorloom.modality import Case
from priorloom.pipeline import Result
from priorloom.reconstruction import versions
from priorloom.registry import Registry
from priorloom.statistics import summaries

from .device import on_device
from .output import npy_bytes, results_json, row
from .present import console, notes, progress, table


def run_comparison(
    plan: Plan,
    registry: Registry,
    out: Path,
    device: str = "cpu",
    command: str = "",
    tuned: Sequence[Chosen] = (),
) -> list[Result]:
    """Run a plan; write its files in `out` (docs/report.md); print the table.

    Every image and the JSON are written as soon as a method is done, so that an interrupted run keeps what it finished.
    The rows of `tuned` have the settings of these records, and their rule, budget and cases as parameters ``tuned.*``.
    """
    cases = [on_device(case, device) for case in make_cases(plan, registry)]
    methods = make_methods(plan, registry, list(dict.fromkeys(c.modality for c in cases)))
    methods = apply_chosen(tuned, methods, cases, registry)
    facts = {(t.modality, t.method.name): t.facts for t in tuned}
    check_writable(out)
    results: list[Result] = []
    rows: list[dict[str, Any]] = []

    def keep(case: Case, result: Result) -> None:
        chosen = facts.get((case.modality, result.method), {})
        result = replace(result, parameters={**result.parameters, **chosen})
        path = Path("images") / case.name / f"{result.method}.npy"
        write_atomic(out / path, npy_bytes(result.image.cpu().numpy()))
        results.append(result)
        rows.append(row(result, str(path)))
        write_atomic(out / "results.json", results_json(rows, plan.seed))
        tick(case, result)

    try:
        with progress(sum(len(methods[c.modality]) for c in cases)) as tick:
            for case in cases:
                compare([case], methods[case.modality], registry=registry, seed=plan.seed, on_result=keep)
    finally:
        if results:
            _publish(out, cases, results, rows, registry, {"command": command, "seed": str(plan.seed), **versions()})
    return results


def _publish(
    out: Path,
    cases: Sequence[Case],
    results: Sequence[Result],
    rows: Sequence[dict[str, Any]],
    registry: Registry,
    facts: dict[str, str],
) -> None:
    modalities = {name: registry.modality(name) for name in dict.fromkeys(c.modality for c in cases)}
    shell = console()
    shell.print(table(results))
    for note in notes(results):
        shell.print(f"note: {note}", highlight=False, markup=False)
    try:
        from . import papers, pictures, report

        summary = summaries(results, cases)
        made = papers.tables(rows, summary) | papers.figures(cases, results, modalities)
        for name, content in pictures.case_pictures(cases, results, modalities).items():
            made[f"images/{name}"] = content
        made["report.html"] = report.render(cases, results, rows, modalities, facts, summary=summary).encode()
        for name, content in made.items():
            write_atomic(out / name, content)
    except OutputError:
        raise
    except InputError as error:  # the extra [report] is not installed; the figures are complete without it
        shell.print(f"note: no report.html: {error}", highlight=False)
        return
    shell.print(f"wrote {out}/results.json, report.html, tables/, figures/ and {len(results)} images", highlight=False)


if __name__ == "__main__":
    run_comparison(Plan(), Registry.discover(), Path(sys.argv[1] if len(sys.argv) > 1 else "priorloom-out"))
