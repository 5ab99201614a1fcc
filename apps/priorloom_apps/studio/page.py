"""The page of one window: panels at the side, images, curves and the config on the stage, and a thread that runs."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Callable, Sequence
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import panel as pn

from priorloom.pipeline import Result
from priorloom.registry import Registry

from ..complaint import complaint
from .curves import Curves
from .files import Root
from .look import say, text
from .panels import MethodPanel, SourcePanel
from .session import (
    METHODS,
    Frame,
    Opened,
    Row,
    Source,
    Stopped,
    automatic_values,
    config_text,
    fitting_methods,
    methods_of,
    open_case,
    run_methods,
)
from .tables import results_table, verdict
from .viewer import Viewer

SECOND = "tv-pdhg"
"""What stands beside the direct method at first, where it fits."""


class Page:
    """Everything that one window holds. Its callbacks run in the server's thread, work runs in one of its own.

    Parameters
    ----------
    registry, root
        Components, and the folder under which files are read and written.
    later
        ``later(call)`` runs `call` in the server's thread.
    file, modality
        A scan to begin with, or a modality.
    """

    def __init__(
        self, registry: Registry, root: Root, later: Callable[[Callable[[], None]], None], file: Path | None = None,
        modality: str | None = None,
    ) -> None:  # fmt: skip
        self.registry, self.root, self.later = registry, root, later
        self.opened: Opened | None = None
        self.modality = ""
        self.fitting: tuple[str, ...] = ()
        self.panels: list[MethodPanel] = []
        self.stop = threading.Event()
        self.worker: threading.Thread | None = None
        self.waiting: dict[int, Frame] = {}
        self.lock = threading.Lock()
        self.again = False
        self.results: dict[int, Result] = {}
        self.errors: list[str] = []
        self.source = SourcePanel(registry, root, file, modality, self._source_changed)
        self.viewer, self.curves = Viewer(), Curves()
        self.status, self.table = text("", margin=(0, 0, 12, 0)), text("")
        self.methods = pn.Column(margin=0, sizing_mode="stretch_width")
        self.add = pn.widgets.Button(label="Add a method", margin=0, sizing_mode="stretch_width")
        self.run = pn.widgets.Button(
            label="Run", button_type="primary", margin=(0, 8, 0, 0), sizing_mode="stretch_width"
        )
        self.halt = pn.widgets.Button(label="Stop", disabled=True, margin=0, width=90)
        self.name = pn.widgets.TextInput(value="studio.yaml", label="Save under the root as", margin=0, width=220)
        self.save = pn.widgets.Button(label="Save config", margin=(19, 0, 0, 8), width=120)
        self.replace = pn.widgets.Button(label="Replace it", margin=(19, 0, 0, 8), width=110, visible=False)
        self.saved, self.config, self.stale = text(""), text(""), text("")
        self.ran = ""  # the config of the images, once there are some
        self.side, self.stage = self._lay_out()
        self.add.on_click(lambda _: self._add(None))
        self.run.on_click(lambda _: self.start())
        self.halt.on_click(lambda _: self.stop.set())
        self.save.on_click(lambda _: self._save(replace=False))
        self.replace.on_click(lambda _: self._save(replace=True))
        self.name.param.watch(lambda _: self._unsaved(), "value")

    def _lay_out(self) -> tuple[Any, Any]:
        wide = {"sizing_mode": "stretch_width", "margin": (0, 0, 12, 0), "css_classes": ["box"]}
        buttons = pn.Row(self.run, self.halt, sizing_mode="stretch_width", margin=0)
        side = pn.Column(
            self.source.view,
            pn.Column(text("<h2>Methods</h2>"), self.methods, self.add, **wide),
            pn.Column(buttons, **{**wide, "css_classes": ["box", "foot"]}),
            sizing_mode="stretch_width", margin=0,
        )  # fmt: skip
        self.tabled = pn.Column(text("<h2>Results</h2>"), self.table, visible=False, **wide)
        config = pn.Column(
            text("<h2>Config</h2>"),
            text('<p class="quiet">What reproduces this, with <code>priorloom compare</code>.</p>'),
            self.stale, self.config,
            pn.FlexBox(self.name, self.save, self.replace, margin=(10, 0, 0, 0)), self.saved, **wide,
        )  # fmt: skip
        stage = pn.Column(
            self.status, self.viewer.view, self.tabled, self.curves.view, config, sizing_mode="stretch_width", margin=0
        )
        return side, stage

    # The case.

    def begin(self) -> None:
        """Open the first case, once the page is there."""
        self._source_changed()

    def _source_changed(self) -> None:
        source = self.source.source
        if self._busy():
            self.again = True
            self.stop.set()
            return
        self.opened = None  # nothing runs on a case that is no longer chosen
        self.viewer.view.visible = False
        self._forget()
        self._preview()
        if source is None:
            self.run.disabled = True
            self.status.object = say("Choose a scan.")
            return
        self.status.object = say("Opening the case …")
        self._work(partial(self._open, source))

    def _open(self, source: Source) -> None:
        opened = open_case(self.registry, source)
        fitting = fitting_methods(self.registry, opened.case.modality)
        self.later(partial(self._show_case, opened, fitting))

    def _show_case(self, opened: Opened, fitting: tuple[str, ...]) -> None:
        other = self.modality != opened.case.modality
        self.opened, self.modality, self.fitting = opened, opened.case.modality, fitting
        facts = {k: v for k, v in opened.case.metadata.items() if not isinstance(v, list | tuple | dict)}
        listed = "; ".join(f"{k}: {v:g}" if isinstance(v, float) else f"{k}: {v}" for k, v in list(facts.items())[:12])
        self.source.facts.object = f'<p class="quiet"><b>{escape(opened.case.name)}</b> {escape(listed)}</p>'
        self.viewer.lay_out(opened, [])
        for panel in self.panels:
            panel.known = False
        if other:
            self.panels = []
            self._add(Row(fitting[0]))
            self._add(Row(SECOND if SECOND in fitting else fitting[-1]))
        self.status.object = say(f"{opened.case.name} is open: press Run.")
        self._preview()
        self._learn()

    # The methods.

    def _add(self, row: Row | None) -> None:
        if self.opened is None or len(self.panels) >= METHODS:
            return
        row = row or Row(
            next((m for m in self.fitting if m not in [p.row.pipeline for p in self.panels]), self.fitting[0])
        )
        panel = MethodPanel(
            self.registry, self.opened.case.modality, self.fitting, row, len(self.panels), self._changed, self._remove
        )
        self.panels.append(panel)
        self._show_methods()

    def _remove(self, panel: MethodPanel) -> None:
        if len(self.panels) > 1:
            self.panels.remove(panel)
            self._show_methods()

    def _show_methods(self) -> None:
        for place, panel in enumerate(self.panels):
            panel.place(place)
            panel.away.visible = len(self.panels) > 1
        self.methods.objects = [panel.view for panel in self.panels]
        self.add.visible = len(self.panels) < METHODS
        self._changed()

    def _changed(self) -> None:
        self._preview()
        self._learn()

    def _learn(self) -> None:
        """Find what methods choose by themselves, which the sliders are centred on."""
        unknown = [panel for panel in self.panels if not panel.known]
        if not unknown or self.opened is None or self._busy():
            return
        for panel in unknown:
            panel.known = True
        self._work(partial(self._centre, self.opened, [(panel, panel.row) for panel in unknown]))

    def _centre(self, opened: Opened, rows: Sequence[tuple[MethodPanel, Row]]) -> None:
        for panel, row in rows:
            self.later(partial(panel.centre, automatic_values(self.registry, opened, row)))

    # The run.

    def start(self) -> None:
        """Run the methods on the case that is open; nothing where a run is on."""
        if self.opened is None or self._busy():
            return
        methods = methods_of([panel.row for panel in self.panels])
        self._forget()
        self.ran = self._config(self.root.path)
        self._preview()
        self.viewer.lay_out(self.opened, [m.name for m in methods])
        self.status.object = say("Running …")
        self._work(partial(self._run, self.opened, methods))

    def _run(self, opened: Opened, methods: Sequence[Any]) -> None:
        run_methods(self.registry, opened, methods, self._tell, self.stop, complaint)
        self.later(self._finish)

    def _tell(self, frame: Frame) -> None:
        """Keep the newest frame of each method; the page takes it when it is ready."""
        with self.lock:
            first = not self.waiting
            self.waiting[frame.place] = frame
        if first:
            self.later(self._draw)

    def _draw(self) -> None:
        with self.lock:
            frames, self.waiting = list(self.waiting.values()), {}
        for frame in frames:
            tile = self.viewer.tiles[frame.place]
            self.viewer.show(frame)
            self.curves.show(frame.place, frame.history)
            if frame.error:
                tile.say("failed")
                self.errors.append(f"{frame.method}: {frame.error}")
                self.status.object = say(self.errors[-1], "warn")
            elif frame.result is not None:
                tile.say(verdict(frame.result))
                self.results[frame.place] = frame.result
                self._tabulate()
            else:
                last = frame.history[-1]
                error = "" if last.error is None else f", error {100 * last.error:.1f} %"
                tile.say(f"iteration {last.iteration}{error}")

    def _finish(self) -> None:
        self._draw()
        done = say("Done.", "good")
        self.status.object = say("; ".join(self.errors), "warn") if self.errors else done

    def _forget(self) -> None:
        with self.lock:
            self.waiting = {}
        self.results, self.errors, self.ran = {}, [], ""
        self.curves.clear()
        self._tabulate()

    def _tabulate(self) -> None:
        self.tabled.visible = bool(self.results)
        self.table.object = results_table(self.results)

    # Work beside the page.

    def _busy(self) -> bool:
        return self.worker is not None

    def _work(self, job: Callable[[], None]) -> None:
        """Run `job` in a thread; one at a time, and its error is a line of the page."""
        self.stop.clear()
        self.run.disabled, self.halt.disabled = True, False

        def work() -> None:
            try:
                job()
            except Stopped:
                self.later(partial(self._complain, "Stopped."))
            except Exception as error:
                self.later(partial(self._complain, complaint(error)))
            self.later(self._rest)

        self.worker = threading.Thread(target=work, daemon=True)
        self.worker.start()

    def _rest(self) -> None:
        self.worker = None
        self.run.disabled, self.halt.disabled = self.opened is None, True
        if self.again:
            self.again = False
            self._source_changed()
        else:
            self._learn()

    def _complain(self, message: str) -> None:
        self._draw()
        self.status.object = say(message, "warn")

    # The config.

    def _preview(self) -> None:
        self._unsaved()
        shown = self._config(self.root.path)
        self.config.object = f"<pre>{escape(shown)}</pre>" if shown else ""
        changed = self.ran not in ("", shown)
        self.stale.object = say("The images are of other parameters than these: press Run.", "warn") if changed else ""
        self.save.disabled = not shown

    def _config(self, folder: Path) -> str:
        if self.opened is None or not self.panels:
            return ""
        return config_text(self.opened.source, methods_of([panel.row for panel in self.panels]), folder)

    def _unsaved(self) -> None:
        self.replace.visible = False
        self.saved.object = ""

    def _save(self, *, replace: bool) -> None:
        self._unsaved()
        name = self.name.value_input or self.name.value
        try:
            target = self.root.target(name)
            if target.exists() and not replace:
                self.replace.visible = True
                self.saved.object = say(f"{name} exists: replace it, or choose another name.", "warn")
                return
            self.root.save(name, self._config(target.parent), replace=replace)
        except Exception as error:
            self.saved.object = say(complaint(error), "warn")
            return
        command = f"priorloom compare {shlex.quote(str(target))}"
        self.saved.object = f"{say(f'Saved {name}. Run it again with:', 'good')}<pre>{escape(command)}</pre>"
