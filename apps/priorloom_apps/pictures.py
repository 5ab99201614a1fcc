"""Pictures as PNG bytes: grey images in a stated window, signed error maps on a common scale, and one overview."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from priorloom.errors import InputError
from priorloom.modality import Case, Modality
from priorloom.pipeline import Result

ERROR_COLOURS = ((120, 205, 255), (24, 104, 190), (12, 13, 16), (196, 84, 20), (255, 205, 130))
"""Red, green, blue at -limit, -limit/2, 0, limit/2, limit: lightness grows with the size of the error, blue and orange
are told apart with any colour vision, and zero is as dark as the background of most images."""


@contextmanager
def report_extra() -> Iterator[None]:
    """Guard of imports of jinja2, matplotlib and pillow: a missing one is an InputError with its cure."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise InputError(
            "comparison report", expected="jinja2, matplotlib and pillow", got=f"no module '{error.name}'",
            cure='pip install "priorloom[report]"',
        ) from error  # fmt: skip


def plane(image: Tensor) -> NDArray[np.float64]:
    """The one plane of a real image that is shown, ``[..., rows, columns] -> [rows, columns]``: the middle of each
    leading dimension."""
    if image.is_complex() or image.ndim < 2:
        raise InputError(
            "image to show", expected="real [..., rows, columns]", got=f"{image.dtype} {list(image.shape)}"
        )
    while image.ndim > 2:
        image = image[image.shape[0] // 2]
    return np.asarray(image.detach().cpu(), dtype=np.float64)


def window(planes: Sequence[NDArray[np.float64]]) -> tuple[float, float]:
    """The grey window of a case: the 0.5 and 99.5 percentiles of all `planes` together, their extremes where these
    coincide."""
    values = np.concatenate([p.ravel() for p in planes])
    low, high = (float(v) for v in np.percentile(values, (0.5, 99.5)))
    if not high > low:
        low, high = float(values.min()), float(values.max())
    return (low, high) if high > low else (low - 0.5, low + 0.5)


@dataclass(frozen=True)
class Planes:
    """The planes of a case that are shown, in the case's units, and their one window."""

    truth: NDArray[np.float64] | None
    images: Sequence[NDArray[np.float64]]
    window: tuple[float, float]


def planes(case: Case, results: Sequence[Result], modality: Modality) -> Planes:
    """The planes of a case: the window comes from the truth, else from all `results` together."""
    truth = None if case.truth is None else plane(modality.display(case.operator.combined(case.truth)))
    images = [plane(modality.display(case.operator.combined(result.image))) for result in results]
    judged = images if truth is None else [truth]
    return Planes(truth, images, window(judged) if judged else (0.0, 1.0))


def case_pictures(
    cases: Sequence[Case], results: Sequence[Result], modalities: Mapping[str, Modality]
) -> dict[str, bytes]:
    """A grey PNG of every result, ``CASE/METHOD.png`` -> content, all of a case in its one window."""
    pictures = {}
    for case in cases:
        of_case = [r for r in results if r.case == case.name]
        shown = planes(case, of_case, modalities[case.modality])
        for result, image in zip(of_case, shown.images, strict=True):
            pictures[f"{case.name}/{result.method}.png"] = grey_png(image, *shown.window)
    return pictures


def error_limit(errors: Sequence[NDArray[np.float64]]) -> float:
    """The common scale of a case's error maps: the 99 percentile of all absolute errors, their maximum where that is
    zero."""
    sizes = np.abs(np.concatenate([e.ravel() for e in errors]))
    return float(np.percentile(sizes, 99)) or float(sizes.max()) or 1.0


def grey_png(image: Tensor | NDArray[np.float64], low: float, high: float) -> bytes:
    """An 8-bit PNG, row 0 on top: `low` and below is black, `high` and above is white, linear and rounded between.

    Parameters
    ----------
    image
        Real, ``[rows, columns]``.
    low, high
        The window, in the units of the image; ``low < high``.

    Raises
    ------
    InputError
        An empty window, or an image that is not one real plane.
    """
    if not low < high:
        raise InputError("grey window", expected="low < high", got=f"{low:g} to {high:g}")
    shown = np.clip((_array(image) - low) / (high - low), 0, 1)
    return _png(np.rint(255 * shown).astype(np.uint8))


def error_png(error: Tensor | NDArray[np.float64], limit: float) -> bytes:
    """An 8-bit RGB PNG of a signed error, row 0 on top: the colours of `ERROR_COLOURS`, linear between, clipped beyond.

    Parameters
    ----------
    error
        Reconstruction minus truth, real ``[rows, columns]``.
    limit
        The error of the outermost colours, in the units of the image; positive.

    Raises
    ------
    InputError
        A limit that is not positive, or an error that is not one real plane.
    """
    if not 0 < limit < float("inf"):
        raise InputError("limit of an error map", expected="a positive number", got=limit)
    shown = np.clip(_array(error) / limit, -1, 1)
    stops = np.linspace(-1, 1, len(ERROR_COLOURS))
    channels = [np.interp(shown, stops, levels) for levels in zip(*ERROR_COLOURS, strict=True)]
    return _png(np.rint(np.stack(channels, axis=-1)).astype(np.uint8))


def overview_png(cases: Sequence[Case], results: Sequence[Result], modalities: Mapping[str, Modality]) -> bytes:
    """One picture of a comparison: a row per case, the truth and every method in columns.

    Each case has one window, and every reconstruction its PSNR where there is a truth.

    Parameters
    ----------
    cases, results
        What ``compare`` was given and what it returned.
    modalities
        The modality of every case, by name.
    """
    with report_extra():
        from matplotlib.figure import Figure

    panels = []
    for case in cases:
        of_case = [r for r in results if r.case == case.name]
        shown = planes(case, of_case, modalities[case.modality])
        titled = [] if shown.truth is None else [("truth", shown.truth)]
        for result, image in zip(of_case, shown.images, strict=True):
            figure_of_merit = "" if result.metrics is None else f"\n{result.metrics['psnr']:.1f} dB"
            titled.append((result.method + figure_of_merit, image))
        if titled:
            panels.append((case.name, titled, shown.window))
    if not panels:
        raise InputError("overview picture", expected="at least one case with an image", got="none")

    columns = max(len(titled) for _, titled, _ in panels)
    heights = [titled[0][1].shape[0] / titled[0][1].shape[1] for _, titled, _ in panels]  # of a panel of width 1
    title = 0.27  # room for two lines, in panel widths
    figure = Figure(
        figsize=(1.7 * columns + 0.35, 1.7 * (sum(heights) + title * len(panels))), dpi=150, facecolor="white"
    )
    grid = figure.add_gridspec(
        len(panels), columns, height_ratios=heights, left=0.35 / (1.7 * columns + 0.35), right=0.998, bottom=0.004,
        top=1 - title / (sum(heights) + title * len(panels)), wspace=0.02, hspace=title / (sum(heights) / len(panels)),
    )  # fmt: skip
    for row, (name, titled, (low, high)) in enumerate(panels):
        for column, (text, picture) in enumerate(titled):
            axes = figure.add_subplot(grid[row, column])
            axes.imshow(picture, cmap="gray", vmin=low, vmax=high)
            axes.set_title(text, fontsize=8, pad=3, linespacing=1.1, parse_math=False)
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
            if column == 0:
                axes.set_ylabel(name, fontsize=9, parse_math=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})  # the same bytes from every matplotlib
    return buffer.getvalue()


def _array(image: Tensor | NDArray[np.float64]) -> NDArray[np.float64]:
    if isinstance(image, Tensor):
        if image.ndim != 2:
            raise InputError("image to show", expected="[rows, columns]", got=list(image.shape))
        return plane(image)
    return image


def _png(pixels: NDArray[np.uint8]) -> bytes:
    with report_extra():
        from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


__all__ = [
    "ERROR_COLOURS", "Planes", "case_pictures", "error_limit", "error_png", "grey_png", "overview_png", "plane",
    "planes", "report_extra", "window",
]  # fmt: skip
