"""Images side by side in one window and level, with one zoom, a probe of values, and error maps on one scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
import panel as pn
from bokeh.models import ColumnDataSource, HoverTool, LinearColorMapper, Range1d
from bokeh.plotting import figure

from ..pictures import ERROR_COLOURS, error_limit, window
from .look import bare, text
from .session import METHODS, Frame, Opened, Plane

WHOLE = "whole"


class Tile:
    """One image with its title and, under it, its error map; not seen until it has a name."""

    def __init__(self, series: str, ranges: tuple[Range1d, Range1d], grey: Any, error: Any) -> None:
        self.series, self.name = series, ""
        self.title = text("")
        self.source, self.error_source = (_source(f"{what} {series or 'truth'}") for what in ("image", "error"))
        self.plots = (_plot(self.source, ranges, grey), _plot(self.error_source, ranges, error))
        panes = [pn.pane.Bokeh(plot, sizing_mode="scale_width", margin=0) for plot in self.plots]
        self.map = pn.Column(panes[1], sizing_mode="stretch_width", margin=(6, 0, 0, 0), visible=False)
        self.view = pn.Column(
            self.title, panes[0], self.map, margin=0, sizing_mode="stretch_width", min_width=0, visible=False
        )
        self.plane: Plane | None = None

    def begin(self, name: str, aspect: float, unit: str) -> None:
        """An empty tile of that name, or none for an empty name."""
        self.name, self.plane = name, None
        self.source.data = self.error_source.data = {"image": [], "dw": [], "dh": []}
        for plot in self.plots:
            plot.aspect_ratio = aspect
            plot.select_one(HoverTool).tooltips = f"@image{{%.4g}} {escape(unit)}"
        self.view.visible = bool(name)
        self.say("")

    def say(self, note: str) -> None:
        """The title: the name, and `note` at the right."""
        dot = f'<i class="dot {self.series}"></i>' if self.series else ""
        self.title.object = f'<div class="line"><b>{dot}{escape(self.name)}</b><span>{escape(note)}</span></div>'

    def show(self, plane: Plane, truth: Plane | None) -> None:
        """Draw an image, and its error where the truth is known."""
        self.plane = plane
        self.source.data = _data(plane)
        if truth is not None:
            self.error_source.data = _data(plane - truth)


class Viewer:
    """The images of a case: the truth first, where there is one, then the methods.

    The window is the same for all, and so is the scale of the errors; zoom and pan are linked.
    """

    def __init__(self) -> None:
        self.grey = LinearColorMapper(palette="Greys256", low=0.0, high=1.0)
        self.signed = LinearColorMapper(palette=_palette(), low=-1.0, high=1.0)
        self.ranges = (Range1d(start=0, end=1), Range1d(start=1, end=0))
        self.presets: Mapping[str, tuple[float, float]] = {}
        self.preset = pn.widgets.RadioButtonGroup(options=[WHOLE], value=WHOLE, margin=(2, 12, 2, 0))
        self.level = pn.widgets.RangeSlider(
            label="Window", start=0.0, end=1.0, value=(0.0, 1.0), step=0.01, margin=(0, 12, 0, 4), width=280
        )
        self.errors = pn.widgets.Toggle(label="Error maps", value=False, margin=(2, 12, 2, 0), width=110)
        self.scale = text("", width=270)
        # Made once: models that come and go while others refer to them are lost on their way to the browser.
        self.first = Tile("", self.ranges, self.grey, self.signed)
        self.tiles = [Tile(f"s{place}", self.ranges, self.grey, self.signed) for place in range(METHODS)]
        views = [tile.view for tile in (self.first, *self.tiles)]
        self.grid = pn.Column(*views, css_classes=["tile-grid"], sizing_mode="stretch_width", margin=0)
        self.bar = pn.FlexBox(
            self.preset, self.level, self.errors, self.scale, align_items="center", margin=(0, 0, 8, 0)
        )
        self.view = pn.Column(
            self.bar, self.grid, css_classes=["box"], sizing_mode="stretch_width", margin=(0, 0, 12, 0), visible=False
        )
        self.opened: Opened | None = None
        self.level.param.watch(lambda _: self._apply(), "value")
        self.preset.param.watch(lambda _: self._choose(), "value")
        self.errors.param.watch(lambda _: self._toggle(), "value")

    def lay_out(self, opened: Opened, names: Sequence[str]) -> None:
        """Empty tiles for the truth and for methods."""
        new, self.opened = self.opened is not opened, opened
        rows, columns = (opened.case.operator.image_space.shape if opened.truth is None else opened.truth.shape)[-2:]
        self.ranges[0].update(start=0, end=columns, reset_start=0, reset_end=columns)
        self.ranges[1].update(start=rows, end=0, reset_start=rows, reset_end=0)
        self.first.begin("" if opened.truth is None else "truth", columns / rows, opened.units)
        if opened.truth is not None:
            self.first.show(opened.truth, None)
        for place, tile in enumerate(self.tiles):
            tile.begin(names[place] if place < len(names) else "", columns / rows, opened.units)
        self.errors.visible = opened.truth is not None
        self.view.visible = any(view.visible for view in self.grid)
        if new:
            self._rewindow([] if opened.truth is None else [opened.truth])
        self._toggle()

    def show(self, frame: Frame) -> None:
        """Draw a method's image."""
        if frame.image is None or self.opened is None:
            return
        tile = self.tiles[frame.place]
        first = self.opened.truth is None and all(t.plane is None for t in self.tiles)
        tile.show(frame.image, self.opened.truth)
        if first or (self.opened.truth is None and frame.result is not None):
            self._rewindow([t.plane for t in self.tiles if t.plane is not None])
        if self.opened.truth is not None:
            shown = [t.plane - self.opened.truth for t in self.tiles if t.plane is not None]
            limit = error_limit([np.asarray(error, dtype=np.float64) for error in shown])
            self.signed.update(low=-limit, high=limit)
            self.scale.object = (
                f'<span class="quiet">errors from −{limit:.3g} to {limit:.3g} {escape(self.unit)}</span>'
            )

    @property
    def unit(self) -> str:
        """Of the values that are shown."""
        return "" if self.opened is None else self.opened.units

    def _rewindow(self, planes: Sequence[Plane]) -> None:
        """The window and its choices for new images; a clinical window that is chosen stays."""
        assert self.opened is not None
        reading = self.opened.modality.reading
        values = [np.asarray(p, dtype=np.float64) for p in planes] or [np.zeros((1, 1))]
        low, high = window(values)
        self.presets = {WHOLE: (low, high), **({} if reading is None else reading.windows)}
        ends = [(float(min(v.min() for v in values)), float(max(v.max() for v in values))), *self.presets.values()]
        start, end = min(e[0] for e in ends), max(e[1] for e in ends)
        kept = self.preset.value if self.preset.value in self.presets else WHOLE
        self.level.label = f"Window [{self.unit}]"
        self.level.param.update(start=start, end=end, step=(end - start) / 500, value=self.presets[kept])
        self.preset.param.update(options=list(self.presets), value=kept, visible=len(self.presets) > 1)
        self._apply()

    def _choose(self) -> None:
        self.level.value = self.presets[self.preset.value]

    def _apply(self) -> None:
        low, high = self.level.value
        if low < high:
            self.grey.update(low=low, high=high)

    def _toggle(self) -> None:
        self.scale.visible = self.errors.value and self.errors.visible
        for tile in self.tiles:
            tile.map.visible = self.scale.visible


def _source(name: str) -> ColumnDataSource:
    return ColumnDataSource({"image": [], "dw": [], "dh": []}, name=name)


def _data(plane: Plane) -> dict[str, list[Any]]:
    return {"image": [np.ascontiguousarray(plane)], "dw": [plane.shape[1]], "dh": [plane.shape[0]]}


def _plot(source: ColumnDataSource, ranges: tuple[Range1d, Range1d], mapper: LinearColorMapper) -> Any:
    """Row 0 on top, one pixel of the image per unit."""
    plot: Any = bare(figure(
        x_range=ranges[0], y_range=ranges[1], tools="pan,wheel_zoom,reset", active_scroll="wheel_zoom",
        sizing_mode="scale_width", min_border=0, width=300, height=300, aspect_ratio=1.0,
        x_axis_type=None, y_axis_type=None,
    ))  # fmt: skip
    plot.background_fill_color = "#000000"
    drawn = plot.image("image", x=0, y=0, dw="dw", dh="dh", color_mapper=mapper, source=source)
    plot.add_tools(HoverTool(renderers=[drawn], tooltips="@image{%.4g}", formatters={"@image": "printf"}))
    return plot


def _palette() -> list[str]:
    stops = np.linspace(-1, 1, len(ERROR_COLOURS))
    levels = [np.interp(np.linspace(-1, 1, 255), stops, c) for c in zip(*ERROR_COLOURS, strict=True)]
    return ["#" + "".join(f"{round(v):02x}" for v in colour) for colour in zip(*levels, strict=True)]
