"""The picture of a method's stability as PNG bytes."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from priorloom.diagnose.stability import Errors
from priorloom.modality import Case, Modality

from ..pictures import error_limit, plane, report_extra, window
from .stability import CaseStability


def picture(one: CaseStability, case: Case, modality: Modality) -> bytes:
    """For both methods: the image, the worst perturbation, the image under it, and the difference.

    Images share one window, differences one scale; complex perturbations are shown by their modulus.

    Raises
    ------
    InputError
        matplotlib is not installed.
    """
    with report_extra():
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

    def shown(image: Tensor) -> NDArray[np.float64]:
        return plane(modality.display(case.operator.combined(image)))

    searches = (one.method, one.against)
    pairs = [(shown(s.image), shown(s.worst.image)) for s in searches]
    low, high = window([pairs[0][0]] if case.truth is None else [shown(case.truth)])
    limit = error_limit([after - before for before, after in pairs])
    figure = Figure(figsize=(12.4, 6.6), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 4, squeeze=False)
    figure.suptitle(f"{one.case}: perturbations of {one.level:g} times the norm of the noise", fontsize=10)
    for row, s, (before, after) in zip(axes, searches, pairs, strict=True):
        d = s.worst.d
        pattern = plane(d.abs() if d.is_complex() else d)
        top = float(np.abs(pattern).max()) or 1.0
        signed = not d.is_complex()
        row[0].imshow(before, cmap="gray", vmin=low, vmax=high)
        row[0].set_ylabel(s.method, fontsize=9, parse_math=False)
        row[0].set_title("as it is" + _error(s.errors, "plain"), fontsize=9)
        row[1].imshow(pattern, cmap="RdBu_r" if signed else "magma", vmin=-top if signed else 0, vmax=top,
                      aspect="auto", interpolation="nearest")  # fmt: skip
        row[1].set_title("worst perturbation found" + ("" if signed else ", modulus"), fontsize=9)
        row[2].imshow(after, cmap="gray", vmin=low, vmax=high)
        row[2].set_title("under it" + _error(s.errors, "worst"), fontsize=9)
        last = row[3].imshow(after - before, cmap="RdBu_r", vmin=-limit, vmax=limit)
        row[3].set_title(f"difference, amplification {s.worst.amplification:.3g}", fontsize=9)
        figure.colorbar(last, ax=row[3], label=modality.units, shrink=0.85)
        for axis in row:
            axis.set(xticks=[], yticks=[])
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


def _error(errors: Errors | None, which: str) -> str:
    return "" if errors is None else f", error {100 * getattr(errors, which):.1f} %"
