"""The diagnosis of an operator in words and as tables."""

from __future__ import annotations

import math

from rich.markup import escape
from rich.table import Table

from priorloom.diagnose.decay import SHARE, Decay
from priorloom.diagnose.picard import ABOVE, NullShare
from priorloom.diagnose.spectrum import SingularValue
from priorloom.modality import Modality

from ..present import console
from .operator import OperatorDiagnosis, noise_figures

SHOWN = 5
"""Singular values at either end in the table; all of them are in the file."""


def paragraph(one: OperatorDiagnosis) -> str:
    """The diagnosis as one paragraph."""
    s, p = one.spectrum, one.picard
    estimated = "" if s.condition_is_exact else "by an estimate "
    texts = [f"The operator takes {s.unknowns} unknowns to {s.data} data and is {estimated}{s.decay.kind}"]
    texts[0] += f" ({_laws(s.decay)})." if s.decay.kind != "unknown" else " in its decay: it has too few values."
    least = max(s.unknowns - s.data, 0) if s.method != "dense" else s.null_space
    if s.method == "dense":
        texts.append(f"Its null space has the dimension {s.null_space:.0f}." if least else "It has no null space.")
    elif least:
        texts.append(f"Its null space has a dimension of at least {least:.0f}.")
    bound = "" if s.condition_is_exact else "at least "
    texts.append(f"The condition number on the rest is {bound}{s.condition:.4g}." if least
                 else f"The condition number is {bound}{s.condition:.4g}.")  # fmt: skip
    if one.hidden is not None:
        texts.append(f"Of the energy of {one.hidden.image} {_share(one.hidden.null)} lies where the data say nothing.")
    if p.above_noise is not None:
        which = "values that are not zero" if p.complete else "leading values"
        texts.append(
            f"Of the {len(p.values)} {which} {p.above_noise} have a coefficient of the data more than {ABOVE:g} times "
            f"the noise ({one.noise_source})."
        )
    if one.noise is not None:
        n = noise_figures(one.noise)
        texts.append(
            f"The direct method's image has noise of {n['rms']:.3g} (root mean square), {n['largest'] / n['rms']:.2g} "
            f"times that where it is worst, each pixel known to {100 * one.noise.relative_error:.2g} %."
        )
    if one.direction is not None and one.direction_null is not None:
        d = one.direction
        seen = (
            "is not seen at all" if math.isinf(d.amplification) else
            f"is amplified {d.amplification:.3g} times as much as the best seen one"
        )  # fmt: skip
        apart = "" if d.distance is None else f", moves the data by {d.distance:.3g} standard deviations of the noise"
        texts.append(f"The perturbation {seen}{apart}, and has {_share(one.direction_null)} in the null space.")
    return " ".join(texts)


def show(one: OperatorDiagnosis, modality: Modality) -> None:
    """Print the paragraph and the tables."""
    shell = console()
    shell.print(f"[bold]{escape(one.case)}[/] ({escape(modality.title)}, {escape(one.operator)})", highlight=False)
    shell.print(paragraph(one), highlight=False, markup=False)
    shell.print(_values(one))
    shell.print(_figures(one, modality))
    for note in one.notes:
        shell.print(f"note: {note}", highlight=False, markup=False)


def _laws(decay: Decay) -> str:
    return (
        f"over the leading {100 * SHARE:.0f} % of the values a power law, exponent {decay.exponent:.2f}, is "
        f"{decay.power_rms:.2f} off in the logarithm, an exponential one, factor {decay.factor:.3g}, "
        f"{decay.exponential_rms:.2f}"
    )


def _share(null: NullShare) -> str:
    return f"{'' if null.standing == 'exact' else 'at most '}{100 * null.share:.3g} %"


def _values(one: OperatorDiagnosis) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("singular value", "sigma", "error bar", "standing"):
        table.add_column(name, justify="left" if name == "standing" else "right")
    s = one.spectrum
    first = s.unknowns - len(s.trailing)
    rows = [(i + 1, v) for i, v in enumerate(s.leading[:SHOWN])]
    rows += [
        (first + i + 1, v) for i, v in enumerate(s.trailing) if i >= len(s.trailing) - SHOWN and first + i >= SHOWN
    ]
    for index, value in rows:
        table.add_row(str(index), f"{value.value:.8g}", f"{value.error:.1e}", _standing(value, s.method))
    return table


def _standing(value: SingularValue, method: str) -> str:
    return f"{value.standing} ({method})"


def _figures(one: OperatorDiagnosis, modality: Modality) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    s = one.spectrum
    spread = f" +- {s.rank_error:.1f}" if s.rank_error else ""
    # Estimated, values that are crowded at zero cannot be told from a null space.
    known = s.condition_is_exact or s.rank < s.unknowns - 0.5
    about = "" if s.condition_is_exact else "about "
    table.add_row("rank", f"{about}{s.rank:.0f}{spread} of {s.unknowns}" if known else f"not known, up to {s.unknowns}")
    table.add_row("condition number", ("" if s.condition_is_exact else "at least ") + f"{s.condition:.6g}")
    table.add_row("decay", s.decay.kind)
    if one.hidden is not None:
        null = one.hidden.null
        how = f", CG: {null.iterations} iterations, residual {null.residual:.1e}" if null.iterations else ""
        table.add_row(f"null space of {one.hidden.image}", _share(null) + " of its energy" + how)
    if one.noise is not None:
        n = noise_figures(one.noise)
        table.add_row(
            "noise of the direct method",
            f"rms {n['rms']:.4g}, median {n['median']:.4g}, largest {n['largest']:.4g} {modality.units}, each pixel +- "
            f"{100 * one.noise.relative_error:.1f} % ({one.noise.samples} samples, seed {one.noise.seed})",
        )
    if one.direction is not None:
        d = one.direction
        apart = "" if d.distance is None else f", {d.distance:.4g} standard deviations of the noise"
        table.add_row("perturbation", f"|A d| / |d| {d.gain:.4g}, amplification {d.amplification:.4g}{apart}")
    return table
