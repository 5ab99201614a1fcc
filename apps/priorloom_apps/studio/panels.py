"""The side of the page: where the case comes from, and a box for every method with its parameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import Any

import panel as pn

from priorloom.errors import InputError
from priorloom.parameters import signature_parameters
from priorloom.registry import Registry

from .controls import Control, case_controls, controls_of
from .files import Root
from .look import text
from .session import Row, Source

AUTOMATIC = "auto"
SIMULATED, FILE = "Simulated", "Scan file"
ABOVE = "../"


class Field:
    """The widget of a control, and what it says: None while its default holds."""

    def __init__(self, control: Control, value: Any, changed: Callable[[], None]) -> None:
        self.control, self.changed = control, changed
        self.slider: Any = None
        self.moved = False
        self.box = self._widget(value)
        parts = [self.box]
        if control.widget == "switch":
            title = f'<span class="quiet" title="{escape(control.help)}">{escape(control.name)}</span>'
            parts = [pn.Row(text(title), self.box, margin=(4, 0), sizing_mode="stretch_width")]
        if control.range is not None:
            self.slider = pn.widgets.FloatSlider(
                show_value=False, start=0.0, end=1.0, value=0.5, step=0.01, disabled=True, margin=(0, 8, 8, 8),
                sizing_mode="stretch_width",
            )  # fmt: skip
            parts.append(self.slider)
            self.centre(None)
            self.slider.param.watch(self._slid, "value")
        self.view = pn.Column(*parts, margin=0, sizing_mode="stretch_width")
        self.box.param.watch(lambda _: self.changed(), "value")

    @property
    def setting(self) -> Any:
        """What a config says, or None for the default."""
        value = self.box.value
        if self.control.widget == "words" and value == AUTOMATIC:
            value = None
        return self.control.setting(value)

    def centre(self, value: float | None) -> None:
        """The slider gets its ends: `value` is what the method chooses by itself."""
        if value is not None and self.control.automatic:
            self.box.placeholder = f"{AUTOMATIC} ({value:.3g})"
        ends = self.control.ends(value)
        if self.slider is None or ends is None:
            return
        low, high = (math.log10(end) for end in ends)
        at = self.box.value or value or self.control.default or 10 ** ((low + high) / 2)
        place = min(max(math.log10(at), low), high)
        self.moved = True  # by us: no setting
        self.slider.param.update(start=low, end=high, step=(high - low) / 200, value=place, disabled=False)
        self.moved = False

    def _slid(self, event: Any) -> None:
        if not self.moved:
            self.box.value = float(f"{10**event.new:.3g}")

    def _widget(self, value: Any) -> Any:
        control = self.control
        shown = control.default if value is None else value
        about = {"label": control.name, "margin": (4, 0), "sizing_mode": "stretch_width", "min_width": 0}
        if control.widget == "switch":
            return pn.widgets.Switch(value=bool(shown), margin=(4, 0), align="end")
        about["description"] = control.help or None
        if control.widget == "words":
            shown = shown[0] if isinstance(shown, list | tuple) else shown
            if control.listed:
                return pn.widgets.Select(options=list(control.words), value=shown or control.words[0], **about)
            options = [*([AUTOMATIC] if control.automatic else []), *control.words]
            return pn.widgets.Select(options=options, value=AUTOMATIC if shown is None else shown, **about)
        if control.widget == "text":
            return pn.widgets.TextInput(value=shown or "", placeholder=AUTOMATIC, **about)
        kind = pn.widgets.FloatInput if control.widget == "number" else pn.widgets.IntInput
        return kind(value=shown, placeholder=AUTOMATIC if control.automatic else str(control.default), **about)


def settings_of(fields: list[Field]) -> dict[str, Any]:
    """What differs from the defaults, by dotted names."""
    return {f.control.name: f.setting for f in fields if f.setting is not None}


class MethodPanel:
    """One method: which, and its parameters; what is searched first, the rest behind a fold."""

    def __init__(
        self, registry: Registry, modality: str, methods: tuple[str, ...], row: Row, place: int,
        changed: Callable[[], None], remove: Callable[[MethodPanel], None],
    ) -> None:  # fmt: skip
        self.registry, self.modality, self.changed = registry, modality, changed
        self.fields: list[Field] = []
        self.known = False  # whether what the method chooses by itself has been asked for
        self.choice = pn.widgets.Select(
            options=list(methods), value=row.pipeline, margin=(0, 6, 0, 0), sizing_mode="stretch_width", min_width=0
        )
        self.away = pn.widgets.Button(label="Remove", margin=0, width=72)
        self.dot = text("", width=20)
        self.summary = text("", styles={"margin": "4px 0"})
        self.first = pn.Column(margin=0, sizing_mode="stretch_width")
        self.rest = pn.Column(margin=0, sizing_mode="stretch_width")
        self.fold = pn.Card(self.rest, title="More parameters", collapsed=True, margin=0, sizing_mode="stretch_width")
        self.view = pn.Column(
            pn.Row(self.dot, self.choice, self.away, margin=(0, 7, 0, 0), align="center", sizing_mode="stretch_width"),
            self.summary, self.first, self.fold, css_classes=["method"], margin=(0, 0, 8, 0),
            sizing_mode="stretch_width",
        )  # fmt: skip
        self.place(place)
        self._fill(dict(row.settings))
        self.choice.param.watch(lambda _: self._choose(), "value")
        self.away.on_click(lambda _: remove(self))

    @property
    def row(self) -> Row:
        """The method as it is set."""
        return Row(self.choice.value, settings_of(self.fields))

    def place(self, place: int) -> None:
        """Its colour."""
        self.dot.object = f'<i class="dot s{place}" style="margin-top:11px"></i>'

    def centre(self, values: Mapping[str, float]) -> None:
        """What the method chooses by itself on the case."""
        for field in self.fields:
            field.centre(values.get(field.control.name))

    def _choose(self) -> None:
        self._fill({})
        self.changed()

    def _edited(self) -> None:
        """Another component in a slot brings its own parameters."""
        row = self.row
        slots = {n: v for n, v in row.settings.items() if n.endswith(".name")}
        if slots != self.slots:
            self._fill({n: v for n, v in row.settings.items() if not _inside_changed(n, slots, self.slots)})
        self.changed()

    def _fill(self, settings: dict[str, Any]) -> None:
        pipeline = self.registry.pipeline(self.choice.value)
        controls = controls_of(self.registry, pipeline, settings, self.modality)
        self.fields = [Field(c, settings.get(c.name), self._edited) for c in controls]
        self.slots = {n: v for n, v in settings_of(self.fields).items() if n.endswith(".name")}
        self.known = not any(f.control.range is not None and f.control.range.relative for f in self.fields)
        self.summary.object = f'<span class="quiet">{escape(pipeline.kind)}: {escape(pipeline.summary)}</span>'
        self.first.objects = [f.view for f in self.fields if f.control.name in pipeline.search]
        self.rest.objects = [f.view for f in self.fields if f.control.name not in pipeline.search]
        self.fold.visible = bool(self.rest.objects)


def _inside_changed(name: str, new: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
    """Whether a setting belongs to the component that was in a slot before."""
    slot = name.partition(".")[0] + ".name"
    return name != slot and new.get(slot) != old.get(slot)


class SourcePanel:
    """Where the case comes from: simulated, or a file under the root."""

    def __init__(
        self, registry: Registry, root: Root, file: Path | None, modality: str | None, changed: Callable[[], None]
    ) -> None:
        self.registry, self.root, self.changed = registry, root, changed
        self.suffixes = _suffixes(registry)
        titles = {registry.modality(n).title: n for n in registry.names("modality")}
        self.kind = pn.widgets.RadioButtonGroup(
            options=[SIMULATED, FILE], value=FILE if file else SIMULATED, margin=(6, 0), sizing_mode="stretch_width"
        )
        self.modality = pn.widgets.Select(
            label="Modality", options=titles, value=modality or next(iter(titles.values())), margin=(4, 0),
            sizing_mode="stretch_width",
        )  # fmt: skip
        self.given = modality
        self.file = file
        self.folder = "." if file is None else root.name(file.parent)
        # A list of one choice: the one of Panel that may hold none.
        self.chooser = pn.widgets.MultiSelect(size=9, options=[], margin=(4, 0), sizing_mode="stretch_width")
        self.where = text("")
        self.seed = pn.widgets.IntInput(
            label="seed", value=0, start=0, end=2**31 - 1, margin=(4, 0), sizing_mode="stretch_width", min_width=0,
            description="Of noise, phantoms and whatever a method draws.",
        )  # fmt: skip
        self.fields: list[Field] = []
        self.box = pn.Column(margin=0, sizing_mode="stretch_width")
        self.fold = pn.Card(self.box, title="Settings", collapsed=True, margin=0, sizing_mode="stretch_width")
        self.facts = text("", styles={"margin-top": "6px"})
        self.view = pn.Column(
            text("<h2>Data</h2>"), self.kind, self.modality, self.where, self.chooser, self.fold, self.facts,
            css_classes=["box"], margin=(0, 0, 12, 0), sizing_mode="stretch_width",
        )  # fmt: skip
        self._list()
        self._fill()
        self.kind.param.watch(lambda _: self._reset(), "value")
        self.modality.param.watch(lambda _: self._reset(), "value")
        self.chooser.param.watch(lambda event: self._pick(event.new), "value")
        self.seed.param.watch(lambda _: changed(), "value")

    @property
    def source(self) -> Source | None:
        """The source, or None while no file is chosen."""
        seed = int(self.seed.value or 0)
        settings = {name.partition(".")[2]: value for name, value in settings_of(self.fields).items()}
        if self.kind.value == SIMULATED:
            return Source(self.modality.value, None, settings, seed)
        return None if self.file is None else Source(self.given, self.file, settings, seed)

    def _reset(self) -> None:
        self._list()
        self._fill()
        self.changed()

    def _fill(self) -> None:
        """The settings that go with the choice."""
        simulated = self.kind.value == SIMULATED
        self.modality.visible = simulated
        self.chooser.visible = self.where.visible = not simulated
        if simulated:
            controls = case_controls(self.registry.parameters("modality", self.modality.value))
        else:
            controls = self._options()
        self.fields = [Field(control, None, self.changed) for control in controls]
        self.box.objects = [*(f.view for f in self.fields), self.seed]

    def _options(self) -> list[Control]:
        """The options of the readers that claim the file's suffix, where there is one such reader."""
        if self.file is None:
            return []
        readers = [self.registry.reader(n) for n in self.suffixes.get(self.file.suffix.lower(), ())]
        if len(readers) != 1:
            return []
        return case_controls(signature_parameters(readers[0].read, 1, f"reader '{readers[0].name}'", "input."))

    def _list(self) -> None:
        listing = self.root.list(self.folder, self.suffixes)
        up = [] if self.folder == "." else [ABOVE]
        options = [*up, *(f"{name}/" for name in listing.folders), *listing.files]
        here = self.file is not None and self.root.name(self.file.parent) == self.folder
        shown = [self.file.name] if self.file is not None and here and self.file.name in options else []
        self.chooser.param.update(options=options, value=shown)
        place = self.root.path.name if self.folder == "." else f"{self.root.path.name}/{self.folder}"
        what = "" if listing.files else f"; no scan here ({', '.join(self.suffixes)})"
        more = "; more than are listed" if listing.more else ""
        self.where.object = f'<span class="quiet">{escape(place)}{escape(what + more)}</span>'

    def _pick(self, chosen: list[str]) -> None:
        if not chosen or (self.file is not None and self.file == self.root.path / self.folder / chosen[-1]):
            return
        picked = chosen[-1]
        try:
            name = Path(self.folder) / picked
            if picked.endswith("/"):  # no file's name does
                self.folder = self.root.name(name)
                self._list()
                return
            self.file = self.root.scan(name)
        except InputError as error:  # it went away, or points elsewhere by now
            self.where.object = f'<span class="warn-ink">{escape(str(error))}</span>'
            return
        self._fill()
        self.changed()


def _suffixes(registry: Registry) -> dict[str, tuple[str, ...]]:
    """Which readers claim a suffix."""
    found: dict[str, tuple[str, ...]] = {}
    for name in registry.names("reader"):
        for suffix in registry.reader(name).suffixes:
            found[suffix] = (*found.get(suffix, ()), name)
    return found
