"""The stability of a method in words and as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from priorloom.diagnose.stability import Stability
from priorloom.modality import Modality

from ..present import console
from .shifts import Shift

if TYPE_CHECKING:
    from .stability import CaseStability

ALIKE = 1.1
"""Two amplifications within this ratio are called about the same: the searches are not more exact."""
POOR = (0.5, 2.0)
"""Where the derivative explains a change by less or more than this, it is called poor."""


def paragraph(one: CaseStability) -> str:
    """The diagnosis as one paragraph."""
    m, b = one.method, one.against
    mine, theirs = one.largest
    ratio = mine / theirs if theirs else float("inf")
    texts = [
        f"A perturbation of {one.level:g} times the norm of the noise ({one.noise_source}), the worst that was found, "
        f"moves the image of {m.method} {mine:.3g} times as far as the data, and that of {b.method} ({_how(one)}) "
        f"{theirs:.3g} times: {_verdict(ratio)}. Both are lower bounds."
    ]
    texts.append(
        f"Random noise of that norm moves them {m.draws.amplification:.3g} and {b.draws.amplification:.3g} times, so "
        f"that the worst direction is {m.over_random:.3g} and {b.over_random:.3g} times worse than noise."
    )
    texts.append(
        f"At a tenth of the noise the local Lipschitz constant is about {m.local.value:.3g} and {b.local.value:.3g}."
    )
    if m.errors is not None and b.errors is not None:
        texts.append(
            f"The relative error of {m.method} goes from {_percent(m.errors.plain)} to {_percent(m.errors.worst)} in "
            f"the worst case and {_percent(m.errors.random)} under noise, that of {b.method} from "
            f"{_percent(b.errors.plain)} to {_percent(b.errors.worst)} and {_percent(b.errors.random)}."
        )
    texts += _of_shifts(one)
    return " ".join(texts)


def show(one: CaseStability, modality: Modality) -> None:
    """Print the paragraph and the tables."""
    shell = console()
    shell.print(f"[bold]{escape(one.case)}[/] ({escape(modality.title)})", highlight=False)
    shell.print(paragraph(one), highlight=False, markup=False)
    shell.print(_figures(one, modality))
    if one.shifts:
        shell.print(_shifts(one))
    for s in (one.method, one.against):
        shell.print(
            f"{s.method}: {s.runs} runs and {s.pulls} derivatives ({s.derivative}), {s.seconds:.0f} s; ascent from "
            f"{len(s.worst.seeds)} starts, seed {one.seed}", highlight=False, markup=False,
        )  # fmt: skip
        if not POOR[0] <= s.local.agreement <= POOR[1]:
            shell.print(
                f"note: {s.method}: the derivative explains {s.local.agreement:.2g} of the change that was seen; "
                "directions that are worse are likely to be missed", highlight=False, markup=False,
            )  # fmt: skip
    for note in (*one.notes, *(one.baseline.record.warnings if one.baseline.record else ())):
        shell.print(f"note: {note}", highlight=False, markup=False)


def _how(one: CaseStability) -> str:
    return one.baseline.standing.partition(":")[0]


def _verdict(ratio: float) -> str:
    if ratio > ALIKE:
        return f"{ratio:.2g} times as much"
    return "about as much" if ratio * ALIKE >= 1 else f"{1 / ratio:.2g} times less"


def _percent(value: float) -> str:
    return f"{100 * value:.3g} %"


def _of_shifts(one: CaseStability) -> list[str]:
    known = [s for s in one.shifts if s.method is not None and s.against is not None]
    if len(known) < 2:
        return []
    reference, others = known[0], known[1:]
    ahead = sum(_lead(s) > 0 for s in others)
    least = min(others, key=_lead)
    return [
        f"Of {len(others)} shifts {one.method.method} has the higher PSNR under {ahead} ({_lead(reference):+.1f} dB as "
        f"it is); it does worst beside {one.against.method} under '{least.name}' ({_lead(least):+.1f} dB)."
    ]


def _lead(shift: Shift) -> float:
    assert shift.method is not None
    assert shift.against is not None
    return shift.method - shift.against


def _figures(one: CaseStability, modality: Modality) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    searches = (one.method, one.against)
    for s in searches:
        table.add_column(s.method, justify="right")
    table.add_column("unit")
    for name, unit, cells in _rows(one, searches, modality):
        table.add_row(name, *cells, unit)
    return table


def _rows(
    one: CaseStability, searches: tuple[Stability, Stability], modality: Modality
) -> list[tuple[str, str, list[str]]]:
    per = f"({modality.units}) / unit of the data"
    crossed = (one.on_method, one.on_against)
    rows = [
        ("local Lipschitz constant", per, [f"{s.local.value:.4g} +- {s.local.error:.2g}" for s in searches]),
        ("worst amplification found", per, [f"{s.worst.amplification:.4g}" for s in searches]),
        ("  under the other's worst", per, [f"{c:.4g}" for c in crossed]),
        ("random noise of that norm", per, [f"{s.draws.amplification:.4g}" for s in searches]),
        ("worst, relative", "(|dx|/|x|) / (|dy|/|y|)", [f"{s.relative(s.worst.amplification):.4g}" for s in searches]),
        ("worst, change of the image", "noise in the image", [f"{s.in_noise_units:.4g}" for s in searches]),
    ]
    errors = [s.errors for s in searches]
    for name, part in (("error as it is", "plain"), ("error, worst found", "worst"), ("error, random", "random")):
        cells = [_percent(getattr(e, part)) for e in errors if e is not None]
        if len(cells) == len(errors):
            rows.append((name, "|x - truth| / |truth|", cells))
    return rows


def _shifts(one: CaseStability) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("shift", "settings", one.method.method, one.against.method, "difference", "remarks"):
        table.add_column(name, justify="right" if name not in ("shift", "settings", "remarks") else "left")
    for s in one.shifts:
        settings = ", ".join(f"{k}={v}" for k, v in s.settings.items() if v != [])
        lead = "" if s.method is None or s.against is None else f"{_lead(s):+.2f} dB"
        table.add_row(s.name, escape(settings), _psnr(s.method), _psnr(s.against), lead, escape(s.remark))
    return table


def _psnr(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f} dB"
