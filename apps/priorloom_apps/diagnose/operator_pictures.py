"""The picture of an operator's diagnosis as PNG bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from priorloom.diagnose.picard import ABOVE
from priorloom.modality import Case, Modality

from ..pictures import plane
from .operator import OperatorDiagnosis
from .unrolled_pictures import COLOURS, _figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def picture(one: OperatorDiagnosis, case: Case, modality: Modality) -> bytes:
    """Spectrum, Picard plot and, where there is a direct method, the noise map.

    Raises
    ------
    InputError
        matplotlib is not installed.
    """
    made: list[bytes] = []
    s, p = one.spectrum, one.picard
    # Frames and map sets have more than one plane, a line of numbers none: the middle one is shown.
    drawn = one.noise is not None and one.noise.std.ndim >= 2
    with _figure(3 if drawn else 2, made) as (figure, axes):
        figure.suptitle(f"{one.case}: {s.decay.kind}")
        axes[0].plot(s.index, s.curve, color=COLOURS[0], lw=1.4, label="all" if s.method == "dense" else "distribution")
        top = range(1, len(s.leading) + 1)
        axes[0].errorbar(top, [v.value for v in s.leading], [v.error for v in s.leading], fmt=".", ms=4,
                         color=COLOURS[1], label="leading")  # fmt: skip
        least = [(s.unknowns - len(s.trailing) + i + 1, v) for i, v in enumerate(s.trailing) if v.value > 0]
        if least:
            marker = "." if least[0][1].standing == "exact" else "v"
            axes[0].plot([i for i, _ in least], [v.value for _, v in least], marker, ms=4, color=COLOURS[2],
                         label=f"trailing ({least[0][1].standing})")  # fmt: skip
        axes[0].set(yscale="log", xlabel="index", title="singular values")
        _legend_below(axes[0])
        index = range(1, len(p.values) + 1)
        axes[1].plot(index, p.coefficients, ".", ms=3, color=COLOURS[1], label="|u_i^H y|")
        axes[1].plot(index, p.values, color=COLOURS[0], lw=1.4, label="sigma_i")
        axes[1].plot(index, p.coefficients / p.values, "x", ms=2.5, color=COLOURS[4], label="|u_i^H y| / sigma_i")
        if p.noise_std is not None:
            axes[1].axhline(ABOVE * p.noise_std, color="0.4", ls="--", lw=0.9, label=f"{ABOVE:g} x noise")
        axes[1].set(yscale="log", xlabel="index", title="Picard plot" + ("" if p.complete else ", leading values"))
        _legend_below(axes[1])
        if drawn and one.noise is not None:
            shown = axes[2].imshow(plane(case.operator.combined(one.noise.std)), cmap="viridis")
            axes[2].set(title="noise of the direct method", xticks=[], yticks=[])
            axes[2].grid(False)
            figure.colorbar(shown, ax=axes[2], label=modality.units, shrink=0.85)
    return made[0]


def _legend_below(axes: Axes) -> None:
    """The legend under the axis, where it hides no point."""
    axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, frameon=False)
