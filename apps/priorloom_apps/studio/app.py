"""The application that the server serves: a `Page` for each window, behind the key that only the terminal told."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import panel as pn
from bokeh.document import Document
from bokeh.settings import settings
from panel.io.server import get_server
from panel.theme import DarkTheme
from tornado.web import ErrorHandler

from priorloom.registry import Registry

from ..complaint import complaint
from .files import Root
from .look import PAGE, STYLE, StudioDesign, policy, say, text
from .page import Page


def application(
    registry: Registry, root: Root, file: Path | None, modality: str | None, *, host: str, port: int, key: str
) -> Any:
    """A server that is bound and not started.

    Web sockets are taken from pages of this very address only, so that no other site that is open in the browser
    reaches the studio; and a page is filled only for the key, so that no other user of the machine does.
    """
    pn.config.theme = "dark"
    origin = f"{host}:{port}"
    # Variables of the environment would come before what is said below.
    settings.allowed_ws_origin = [origin]
    settings.resources = "server"

    def window() -> pn.Template:
        given = pn.state.session_args.get("key", [b""])[0]
        page = pn.Template(PAGE, theme=DarkTheme, design=StudioDesign)
        page.add_variable("policy", policy(origin))
        page.add_variable("style", STYLE)
        if not secrets.compare_digest(given, key.encode()):
            page.add_panel("side", text(""))
            page.add_panel("stage", text(say("Open the address that the terminal printed.", "warn")))
            return page
        try:
            studio = Page(registry, root, _later(pn.state.curdoc), file, modality)
        except Exception as error:
            page.add_panel("side", text(""))
            page.add_panel("stage", text(say(complaint(error), "warn")))
            return page
        pn.state.onload(studio.begin)  # not before: what changes while a browser loads the page is lost on it
        pn.state.on_session_destroyed(lambda _: studio.stop.set())
        page.add_panel("side", studio.side)
        page.add_panel("stage", studio.stage)
        return page

    return get_server(
        {"/": window}, port=port, address=host, websocket_origin=[origin], show=False, start=False, verbose=False,
        title="Priorloom studio", location=False,
        # Panel serves files of any installed module's components under this name, importing the module it is asked
        # for; nothing here has any.
        extra_patterns=[(r"/components/.*", ErrorHandler, {"status_code": 404})],
    )  # fmt: skip


def _later(document: Document) -> Callable[[Callable[[], None]], None]:
    """Calls go to the document's thread; after the window is closed they go nowhere."""

    def later(call: Callable[[], None]) -> None:
        if document.session_context is not None and not document.session_context.destroyed:
            document.add_next_tick_callback(call)

    return later
