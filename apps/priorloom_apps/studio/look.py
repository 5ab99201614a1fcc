"""How the page looks, and what it may load: its template, its styles, and the colours that drawings share."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

import panel as pn
from bokeh.plotting import figure
from panel.theme.base import DarkTheme, Design, Inherit
from panel.viewable import Viewable

_HERE = Path(__file__).parent
PAGE = (_HERE / "page.html.j2").read_text(encoding="utf-8")
STYLE = (_HERE / "page.css").read_text(encoding="utf-8")
WIDGETS = (_HERE / "widgets.css").read_text(encoding="utf-8")

INK, QUIET, LINE, CARD = "#e5e8ea", "#97a1aa", "#2c3238", "#1a1e22"
SERIES = ("#7fb2ee", "#f2905f", "#67c797", "#c09ae3")
"""The colour of each method, in order; the style sheets say them too."""


class StudioDesign(Design):  # type: ignore[misc]
    """The style sheet of every component: each has a shadow root, into which the page's own does not reach."""

    modifiers = {Viewable: {"stylesheets": [Inherit, WIDGETS]}}  # noqa: RUF012
    _themes = {"dark": DarkTheme, "default": DarkTheme}  # noqa: RUF012


def policy(host: str) -> str:
    """The content security policy of the page: nothing but this server, by HTTP and by web socket."""
    return (
        "default-src 'none'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
        f"img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' ws://{host}; "
        "base-uri 'none'; form-action 'none'"
    )


def text(markup: str, **about: Any) -> Any:
    """A pane of markup; whatever comes from outside is escaped by its maker."""
    wide = {} if "width" in about else {"sizing_mode": "stretch_width"}
    return pn.pane.HTML(markup, **{"margin": 0, **wide, **about})


def say(message: str, kind: str = "") -> str:
    """A line of the page, escaped; kind "warn" or "good"."""
    return f'<div class="say {kind}" role="status">{escape(message)}</div>' if message else ""


def bare(plot: figure) -> figure:
    """Dark, without frame, logo and toolbar."""
    plot.background_fill_color = plot.border_fill_color = CARD
    plot.outline_line_color = None
    plot.toolbar.logo = None
    plot.toolbar_location = None
    return plot
