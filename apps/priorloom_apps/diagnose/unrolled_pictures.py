"""The pictures of a diagnosis as PNG bytes."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from priorloom.diagnose.gradient_flow import EXPLODING, VANISHING

from ..pictures import report_extra
from .unrolled import Diagnosis, Flow, OnCase

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#1b1b1b", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00")
"""Okabe and Ito's, told apart with any colour vision; the network is black."""


def pictures(found: Diagnosis) -> dict[str, bytes]:
    """``errors-CASE.png`` for every case, ``gradient-flow.png``, and ``schedule.png`` where numbers were learned.

    Raises
    ------
    InputError
        matplotlib is not installed.
    """
    made = {f"errors-{case.case}.png": _errors(case, found.reference) for case in found.cases}
    made["gradient-flow.png"] = _flow(found.flows)
    if found.schedule:
        made["schedule.png"] = _schedule(found)
    return made


@contextmanager
def _figure(columns: int, made: list[bytes]) -> Iterator[tuple[Figure, Any]]:
    with report_extra():
        import matplotlib as mpl
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    with mpl.rc_context({"font.size": 9, "axes.grid": True, "grid.alpha": 0.3, "axes.axisbelow": True}):
        figure = Figure(figsize=(4.2 * columns, 3.4), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(1, columns, squeeze=False)[0]
        yield figure, axes
        for axis in axes:
            if axis.get_xlabel().startswith("layer") and axis.get_xscale() == "linear":
                axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=130)
        made.append(buffer.getvalue())


def _errors(case: OnCase, reference: str) -> bytes:
    made: list[bytes] = []
    with _figure(2 if case.split is None else 3, made) as (figure, axes):
        figure.suptitle(f"{case.case}: relative error against the {reference}")
        curves = [case.network, *case.rivals]
        for axis, what in zip(axes, ("layers or iterations", "seconds"), strict=False):
            for curve, colour in zip(curves, COLOURS, strict=False):
                across = range(len(curve.errors)) if what != "seconds" else curve.seconds
                marker = "o" if curve is case.network else ""
                # The start has no place on a logarithmic axis of iterations.
                keep = 1 if what != "seconds" else 0
                axis.plot(list(across)[keep:], curve.errors[keep:], color=colour, marker=marker, ms=3, lw=1.4,
                          label=curve.name)  # fmt: skip
            axis.set(xscale="log", yscale="log", xlabel=what)
        axes[0].set_ylabel("relative error")
        axes[0].legend(fontsize=7)
        if case.split is not None:
            size = float(case.split.errors[0, 0]) / case.network.errors[0] if case.network.errors[0] else 1.0
            parts = (
                ("error", case.split.errors, "-", "o"),
                ("bound", case.split.bound, "-", ""),
                ("contraction rho^L e_0", case.split.contraction, "--", ""),
                ("unfolding term", case.split.unfolding, ":", ""),
            )
            for (name, values, style, marker), colour in zip(parts, COLOURS, strict=False):
                shown = _shown((values[:, 0] / size).tolist())
                axes[2].plot(range(len(shown)), shown, color=colour, ls=style, marker=marker, ms=3, label=name)
            axes[2].set(yscale="log", xlabel="layers", title=f"measured rho = {float(case.split.rho[0]):.3f}")
            axes[2].legend(fontsize=7)
    return made[0]


def _flow(flows: Sequence[Flow]) -> bytes:
    made: list[bytes] = []
    with _figure(3, made) as (_, axes):
        for one, colour in zip(flows, COLOURS, strict=False):
            flow = one.flow
            label = f"{one.network}: {flow.verdict}"
            layers = range(1, flow.layers + 1)
            axes[0].plot(layers, _shown(flow.relative), color=colour, marker=".", label=label)
            axes[1].plot(layers, _shown(flow.parameters), color=colour, marker=".")
            axes[2].plot(layers, _shown([e.largest for e in one.jacobian]), color=colour, marker="^", ms=3)
            axes[2].plot(layers, _shown([e.smallest for e in one.jacobian]), color=colour, marker="v", ms=3, ls=":")
        for limit in (VANISHING, EXPLODING):
            axes[0].axhline(limit, color="0.5", ls="--", lw=0.8)
        axes[0].set(yscale="log", xlabel="layer", title="|d loss / d state|, relative to the last")
        axes[0].legend(fontsize=7)
        axes[1].set(yscale="log", xlabel="layer", title="|d loss / d parameters|")
        estimated = any(e.method == "lanczos" for one in flows for e in one.jacobian)
        title = "singular values of the Jacobian" + (" (estimates)" if estimated else "")
        axes[2].set(yscale="log", xlabel="layer", title=title)
    return made[0]


def _schedule(found: Diagnosis) -> bytes:
    names = list(dict.fromkeys((n.name, n.quantity, n.unit) for n in found.schedule))
    made: list[bytes] = []
    shown = names[:4]
    with _figure(len(shown), made) as (_, axes):
        for axis, (name, quantity, unit) in zip(axes, shown, strict=True):
            mine = [n for n in found.schedule if (n.name, n.quantity, n.unit) == (name, quantity, unit)]
            axis.plot([n.layer for n in mine], [n.value for n in mine], color=COLOURS[1], marker="o", ms=4)
            classical = [n.classical for n in mine]
            if None not in classical:
                axis.plot([n.layer for n in mine], classical, color="0.4", ls="--", label="classical")
                axis.legend(fontsize=7)
            unit_text = "" if unit == "1" else f" in {unit}"
            axis.set(xlabel="layer", title=f"{quantity}{unit_text}: {name}")
            low, high = axis.get_ylim()
            axis.set_ylim(min(low, 0), high * 1.05)
    return made[0]


def _shown(values: Sequence[float]) -> list[float]:
    """Zeros, which a logarithmic axis cannot show, left out."""
    return [v if v > 0 else float("nan") for v in values]
