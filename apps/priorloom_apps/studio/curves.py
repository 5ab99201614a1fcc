"""Convergence curves that grow while the methods run: residual, objective and error against iterations or seconds."""

from __future__ import annotations

import math
from collections.abc import Callable

import panel as pn
from bokeh.models import ColumnDataSource, Range1d
from bokeh.plotting import figure

from priorloom.solve import Record

from .look import LINE, QUIET, SERIES, bare, text

Value = Callable[[Record, float], float | None]


def _excess(record: Record, best: float) -> float | None:
    """Above the lowest value of the method itself, relative to it: methods minimise different objectives."""
    return None if record.objective is None else (record.objective - best) / (abs(best) or 1.0)


PANELS: tuple[tuple[str, Value], ...] = (
    ("Residual", lambda record, _: record.residual),
    ("Objective above its best", _excess),
    ("Error against the truth", lambda record, _: record.error),
)


class Curves:
    """Up to three plots, logarithmic both ways; one is there when a method has something to say in it."""

    def __init__(self) -> None:
        self.axis = pn.widgets.RadioButtonGroup(options=["iterations", "seconds"], value="iterations", margin=0)
        self.histories: dict[int, tuple[Record, ...]] = {}
        self.sources = [[ColumnDataSource({"x": [], "y": []}) for _ in SERIES] for _ in PANELS]
        self.plots = [_plot(sources) for sources in self.sources]
        self.panes = [
            pn.Column(
                text(f"<h3>{title}</h3>"),
                pn.pane.Bokeh(plot, sizing_mode="stretch_width", margin=0),
                margin=0,
                visible=False,
            )
            for (title, _), plot in zip(PANELS, self.plots, strict=True)
        ]
        head = pn.Row(text("<h2>Convergence</h2>"), self.axis, margin=(0, 0, 8, 0), sizing_mode="stretch_width")
        grid = pn.Column(*self.panes, css_classes=["tile-grid"], sizing_mode="stretch_width", margin=0)
        self.view = pn.Column(
            head, grid, css_classes=["box"], margin=(0, 0, 12, 0), sizing_mode="stretch_width", visible=False
        )
        self.axis.param.watch(lambda _: self._redraw(), "value")

    def clear(self) -> None:
        """Forget every curve."""
        self.histories = {}
        self._redraw()

    def show(self, place: int, history: tuple[Record, ...]) -> None:
        """The curve of the method at `place`, as far as it is known."""
        self.histories[place] = history
        self._draw(place)
        self.view.visible = any(pane.visible for pane in self.panes)

    def _redraw(self) -> None:
        for place in range(len(SERIES)):
            self._draw(place)
        self.view.visible = any(pane.visible for pane in self.panes)

    def _draw(self, place: int) -> None:
        history = self.histories.get(place, ())
        best = min((r.objective for r in history if r.objective is not None), default=0.0)
        for (_, value), sources, plot, pane in zip(PANELS, self.sources, self.plots, self.panes, strict=True):
            points = [
                (r.iteration if self.axis.value == "iterations" else r.seconds, y)
                for r in history
                if (y := value(r, best)) is not None and 0 < y < math.inf and r.seconds > 0
            ]
            sources[place].data = {"x": [x for x, _ in points], "y": [y for _, y in points]}
            pane.visible = any(len(source.data["x"]) for source in sources)
            _fit(plot, sources)


def _fit(plot: figure, sources: list[ColumnDataSource]) -> None:
    """The axes hold every point; logarithmic ones cannot find their ends while there is none."""
    for span, name, pad in ((plot.x_range, "x", 1.1), (plot.y_range, "y", 1.5)):
        values = [v for source in sources for v in source.data[name]]
        if values:
            span.update(start=min(values) / pad, end=max(values) * pad)


def _plot(sources: list[ColumnDataSource]) -> figure:
    plot = bare(figure(
        x_axis_type="log", y_axis_type="log", height=220, sizing_mode="stretch_width", tools="", min_border=4,
        min_border_left=46,
        x_range=Range1d(start=1, end=10), y_range=Range1d(start=1, end=10),
    ))  # fmt: skip
    for source, colour in zip(sources, SERIES, strict=True):
        plot.line("x", "y", source=source, color=colour, line_width=2)
        plot.scatter("x", "y", source=source, color=colour, size=4)
    plot.axis.axis_line_color = plot.axis.major_tick_line_color = LINE
    plot.axis.minor_tick_line_color = None
    plot.axis.major_label_text_color = QUIET
    plot.axis.major_label_text_font_size = "11px"
    plot.grid.grid_line_color = LINE
    return plot
