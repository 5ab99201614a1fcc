"""Compare methods on the same data: cases, methods, results, files. This is what ``priorloom compare`` runs.

As a library example: ``python -m priorloom_apps.compare OUT`` runs the embedded default.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from priorloom.capsule.recording import Recorder
from priorloom.choice import check_rule
from priorloom.chosen import Chosen, apply_chosen, read_chosen
from priorloom.comparison import compare
from priorloom.config import Plan, make_cases, make_methods
from priorloom.errors import InputError, OutputError
from priorloom.files import check_writable, write_atomic
from priorloom.modality import Case
from priorloom.pipeline import Result
from priorloom.protocol.run import Protocol
from priorloom.protocol.statistics import Summary, summaries
from priorloom.reconstruction import Method, versions
from priorloom.registry import Registry

from . import papers
from .device import on_device, require_device
from .leftovers import files_in, leftover
from .output import npy_bytes, results_json, row
from .present import console, notes, progress, table
from .protocol import in_words, run_protocol, summary_table, tuning_notes

Rows = dict[str, list[Method]]
"""The methods of a comparison by modality."""


def run_comparison(
    plan: Plan,
    registry: Registry,
    out: Path,
    device: str = "cpu",
    command: str = "",
    tuned: Sequence[Path] = (),
    choose: Callable[[Sequence[Case], Rows], Rows] | None = None,
) -> list[Result]:
    """Run a plan; write its files in `out` (docs/report.md); print the table.

    Every image and the JSON are written as soon as a method is done, so that an interrupted run keeps what it finished.
    The rows of `tuned` have the settings of these records, and their rule, budget and cases as parameters ``tuned.*``;
    where the plan says so, the others are tuned first, and every trial is in ``tuning/MODALITY-METHOD.json``.
    ``config.yaml`` and ``capsule.json`` record the run (`Recorder`). `choose` is told the cases and all rows before
    anything runs, and returns those to run. What an older run left in `out` and this one did not replace is told.
    """
    cases = [on_device(case, device) for case in make_cases(plan, registry)]
    methods = make_methods(plan, registry, list(dict.fromkeys(c.modality for c in cases)))
    records = [read_chosen(path) for path in tuned]
    methods = apply_chosen(records, methods, cases, registry)
    if choose is not None:
        methods = choose(cases, methods)
    for case in cases:
        for method in methods[case.modality]:
            if plan.tuning is None or method.rule is None or method.rule.name != "tuned":
                check_rule(case, method, registry)  # before the first run
    check_writable(out)
    older = files_in(out)
    protocol = run_protocol(plan, methods, cases, registry, out, device)
    if protocol is not None:
        methods = protocol.methods()
        records += protocol.records.values()
    facts = {(t.modality, t.method.name): t.facts for t in records}
    recorder = Recorder(
        out, plan, cases, methods, registry, device=require_device(device), command=command, tuned=tuned
    )
    results: list[Result] = []
    rows: list[dict[str, Any]] = []

    def keep(case: Case, result: Result) -> None:
        chosen = facts.get((case.modality, result.method), {})
        result = replace(result, parameters={**result.parameters, **chosen})
        path = Path("images") / case.name / f"{result.method}.npy"
        content = npy_bytes(result.image.cpu().numpy())
        write_atomic(out / path, content)
        recorder.add(result, content)
        results.append(result)
        rows.append(row(result, str(path)))
        write_atomic(out / "results.json", results_json(rows, plan.seed, protocol))
        tick(case, result)

    try:
        with progress(sum(len(methods[c.modality]) for c in cases)) as tick:
            for case in cases:
                compare([case], methods[case.modality], registry=registry, seed=plan.seed, on_result=keep)
    finally:
        recorder.write()
        if results:
            summary = summaries(results, cases, plan.reference)
            write_atomic(out / "results.json", results_json(rows, plan.seed, protocol, summary))
            facts_of_run = {"command": command, "seed": str(plan.seed), **versions()}
            _publish(out, cases, results, rows, registry, facts_of_run, summary, protocol, records, plan.reference)
            if text := leftover(older, out):
                console().print(f"note: {text}", highlight=False, markup=False)
    return results


def _publish(
    out: Path,
    cases: Sequence[Case],
    results: Sequence[Result],
    rows: Sequence[dict[str, Any]],
    registry: Registry,
    facts: dict[str, str],
    summary: Sequence[Summary],
    protocol: Protocol | None,
    records: Sequence[Chosen],
    reference: str | None,
) -> None:
    modalities = {name: registry.modality(name) for name in dict.fromkeys(c.modality for c in cases)}
    shell = console()
    shell.print(table(results))
    if summary:
        shell.print(summary_table(summary))
    for note in [*notes(results), *tuning_notes(protocol)]:
        shell.print(f"note: {note}", highlight=False, markup=False)
    for name, content in papers.tables(rows, summary).items():
        write_atomic(out / name, content)
    try:
        from . import pictures, report

        made = papers.figures(cases, results, modalities)
        for name, content in pictures.case_pictures(cases, results, modalities).items():
            made[f"images/{name}"] = content
        words = in_words(protocol, summary, reference)
        page = report.render(cases, results, rows, modalities, facts, summary=summary, protocol=words,
                             records=records)  # fmt: skip
        made["report.html"] = page.encode(errors="replace")  # of a command with a path that is no text
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
