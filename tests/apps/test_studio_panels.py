"""The panels at the side, without a browser: what a hand on a widget makes of the settings."""

from __future__ import annotations

import pytest

pytest.importorskip("panel", reason='no panel: pip install "priorloom[studio]"')

from priorloom import Registry
from priorloom_apps.studio.panels import AUTOMATIC, Field, MethodPanel
from priorloom_apps.studio.session import Row


class Made:
    """A method's panel, and how often it told of a change."""

    def __init__(self, name: str, **settings: object) -> None:
        self.changes = 0
        methods = ("fbp", "tv-pdhg", "pnp-admm")
        self.panel = MethodPanel(
            Registry.discover(), "ct", methods, Row(name, settings), 0, self.changed, lambda panel: None
        )

    def changed(self) -> None:
        self.changes += 1

    def field(self, name: str) -> Field:
        return next(field for field in self.panel.fields if field.control.name == name)


def test_untouched_widgets_set_nothing() -> None:
    for name in ("fbp", "tv-pdhg", "pnp-admm"):
        assert Made(name).panel.row == Row(name, {})


def test_a_slider_is_automatic_until_it_is_moved() -> None:
    made = Made("tv-pdhg")
    weight = made.field("prior.lam")
    assert weight.slider.disabled
    assert not made.panel.known
    made.panel.centre({"prior.lam": 0.5})
    assert (weight.slider.start, weight.slider.value, weight.slider.end) == pytest.approx((-2.30103, -0.30103, 1.69897))
    assert weight.box.value is None
    assert weight.box.placeholder == f"{AUTOMATIC} (0.5)"
    assert made.changes == 0
    assert made.panel.row.settings == {}
    weight.slider.value = -1.0
    assert made.panel.row.settings == {"prior.lam": 0.1}
    assert made.changes == 1
    made.panel.centre({"prior.lam": 5.0})  # another case: the setting stays
    assert made.panel.row.settings == {"prior.lam": 0.1}
    weight.box.value = None
    assert made.panel.row.settings == {}


def test_words_switches_and_boxes_set_what_differs_from_the_default() -> None:
    made = Made("tv-pdhg")
    made.field("nonnegative").box.value = False
    made.field("solver.max_iterations").box.value = 7
    assert made.panel.row.settings == {"nonnegative": False, "solver.max_iterations": 7}
    made.field("solver.max_iterations").box.value = 5000
    assert made.panel.row.settings == {"nonnegative": False}
    made = Made("fbp", filter="hann")
    assert made.field("filter").box.value == "hann"
    assert made.panel.row.settings == {"filter": "hann"}
    made.field("filter").box.value = "ram-lak"
    assert made.panel.row.settings == {}


def test_another_component_in_a_slot_brings_its_own_parameters_and_drops_the_old_ones() -> None:
    made = Made("pnp-admm")
    made.field("denoiser.max_iterations").box.value = 30
    made.field("rho").box.value = 2.0
    made.field("denoiser.name").box.value = "non-local-means"
    assert made.panel.row.settings == {"denoiser.name": "non-local-means", "rho": 2.0}
    assert "denoiser.max_iterations" not in [field.control.name for field in made.panel.fields]


def test_another_method_starts_at_its_defaults() -> None:
    made = Made("tv-pdhg", **{"prior.lam": 3.0})
    made.panel.choice.value = "fbp"
    assert made.panel.row == Row("fbp", {})
    assert made.panel.known  # nothing to ask for
    assert made.changes == 1
