"""The studio without a page: opening, methods, controls, runs that are watched and stopped, configs that reproduce."""

from __future__ import annotations

import itertools
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from priorloom import Registry, Scan
from priorloom.bundle import write
from priorloom.config import load, make_cases, make_methods
from priorloom.errors import InputError
from priorloom.parameters import AUTOMATIC, Parameter
from priorloom.pipeline import AROUND, Range
from priorloom.reconstruction import Method, reconstruct
from priorloom_apps.studio import session
from priorloom_apps.studio.controls import case_controls, control_of, controls_of
from priorloom_apps.studio.session import (
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
)  # fmt: skip

from .conftest import GEOMETRY

LIMITED = {"solver.max_iterations": 15}


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.discover()


@pytest.fixture
def disc(tmp_path: Path, sinogram: np.ndarray, registry: Registry) -> Opened:
    """The disc from a file, with its truth."""
    rows, columns = np.mgrid[:32, :32] - 15.5
    truth = np.where(rows**2 + columns**2 <= 100, 0.02, 0).astype(np.float32)
    write(tmp_path / "disc.npz", Scan("ct", "ct.parallel2d", GEOMETRY, sinogram, truth=truth))
    return open_case(registry, Source(file=tmp_path / "disc.npz"))


def run(registry: Registry, opened: Opened, *rows: Row) -> tuple[list[Frame], list[Any]]:
    frames: list[Frame] = []
    return frames, run_methods(registry, opened, methods_of(rows), frames.append, threading.Event())


def test_ct_is_shown_in_hounsfield_units_and_mri_as_a_magnitude(registry: Registry, disc: Opened) -> None:
    assert disc.units == "HU"
    assert disc.truth is not None
    assert disc.truth[0, 0] == pytest.approx(-1000, abs=1e-3)  # HU = 1000 (mu / mu_water - 1)
    water = disc.modality.scale(disc.case)
    assert disc.truth[16, 16] == pytest.approx(1000 * (0.02 / water - 1), abs=1e-3)
    mri = open_case(registry, Source("mri", seed=3))
    assert mri.truth is not None
    np.testing.assert_allclose(mri.truth, np.abs(mri.case.truth.numpy()), rtol=1e-6)


def test_what_is_too_large_is_refused(registry: Registry, disc: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "PLANE_LIMIT", 1000)
    with pytest.raises(InputError, match=r"expected at most .* got 32 x 32"):
        open_case(registry, disc.source)
    monkeypatch.setattr(session, "FILE_LIMIT", 100)
    with pytest.raises(InputError, match="at most 100 bytes"):
        open_case(registry, disc.source)


@pytest.mark.parametrize("modality", ["ct", "mri"])
def test_methods_that_fit_are_offered_the_direct_one_first(registry: Registry, modality: str) -> None:
    names = fitting_methods(registry, modality)
    assert names[0] == {"ct": "fbp", "mri": "zero-filled"}[modality]
    assert len(set(names)) == len(names)
    for name in names:
        assert modality in (registry.pipeline(name).modalities or (modality,))
    assert "tv-pdhg" in names
    assert {"ct": "cg-sense", "mri": "fbp"}[modality] not in names
    assert "learned-ista" not in names  # no model of it is shipped


def test_a_run_tells_of_every_point_and_ends_as_reconstruct_does(registry: Registry, disc: Opened) -> None:
    frames, results = run(registry, disc, Row("fbp"), Row("tv-pdhg", LIMITED))
    assert [r.method for r in results] == ["fbp", "tv-pdhg"]
    assert [f.place for f in frames] == [0] + [1] * (len(frames) - 1)
    watched = frames[1:]
    assert [len(f.history) for f in watched[:-1]] == list(range(1, len(watched)))
    images = [f.image for f in watched if f.image is not None]
    assert all(np.abs(a - b).max() > 0 for a, b in itertools.pairwise(images[:-1]))
    expected = reconstruct(disc.case, Method("tv-pdhg", LIMITED), registry=registry)
    assert results[1].metrics == expected.metrics
    np.testing.assert_array_equal(images[-1], disc.shown(expected.image))
    assert watched[-1].result is results[1]
    assert watched[-1].history[-1].error is not None


def test_a_stop_ends_the_run_at_the_next_point(registry: Registry, disc: Opened) -> None:
    stop, frames = threading.Event(), []

    def tell(frame: Frame) -> None:
        frames.append(frame)
        if len(frames) == 3:
            stop.set()

    with pytest.raises(Stopped):
        run_methods(registry, disc, methods_of([Row("tv-pdhg"), Row("fbp")]), tell, stop)
    assert len(frames) == 3
    assert not session._TURN.locked()


def test_a_method_that_fails_is_told_of_and_the_next_one_runs(registry: Registry, disc: Opened) -> None:
    frames, results = run(registry, disc, Row("tv-pdhg", {"solver.max_iterations": 0}), Row("fbp"))
    assert frames[0].image is None
    assert frames[0].error.startswith("solver.max_iterations: expected at least 1")
    assert [r.method for r in results] == ["fbp"]
    with pytest.raises(InputError, match=r"did you mean 'prior\.lam'"):
        run(registry, disc, Row("tv-pdhg", {"lam": 1.0}))


def test_two_runs_at_a_time_wait_for_each_other(registry: Registry, disc: Opened) -> None:
    stop, ends = threading.Event(), []

    def wait() -> None:
        try:
            ends.append(run_methods(registry, disc, methods_of([Row("fbp")]), ends.append, stop))
        except Stopped as error:
            ends.append(error)

    with session._TURN:
        thread = threading.Thread(target=wait)
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
        assert not ends
        stop.set()
        thread.join(10)
    assert [str(end) for end in ends] == ["stopped"]


def test_the_automatic_weight_is_the_one_that_a_run_uses(registry: Registry, disc: Opened) -> None:
    found = automatic_values(registry, disc, Row("tv-pdhg", {"prior.lam": 7.0}))
    _, (result,) = run(registry, disc, Row("tv-pdhg", LIMITED))
    assert found == {"prior.lam": result.parameters["prior.lam"]}
    assert automatic_values(registry, disc, Row("fbp")) == {}


def test_one_to_four_methods_the_second_of_a_name_is_labelled() -> None:
    made = methods_of([Row("tv-pdhg"), Row("fbp"), Row("tv-pdhg", {"prior.lam": 1.0})])
    assert [m.name for m in made] == ["tv-pdhg", "fbp", "tv-pdhg-2"]
    for rows in ([], [Row("fbp")] * 5):
        with pytest.raises(InputError, match="one to 4"):
            methods_of(rows)


def test_the_config_reads_back_as_what_ran(registry: Registry, disc: Opened, tmp_path: Path) -> None:
    rows = methods_of([Row("fbp", {"filter": "hann"}), Row("tv-pdhg"), Row("tv-pdhg", {"prior.lam": 1.25e-05})])
    folder = tmp_path / "configs"
    folder.mkdir()
    for source in (disc.source, Source("mri", settings={"acceleration": 3.0}, seed=5)):
        methods = rows if source.file is not None else rows[1:]
        (folder / "a.yaml").write_text(config_text(source, methods, folder))
        plan = load(folder / "a.yaml")
        assert plan.seed == source.seed
        (case,), (expected,) = make_cases(plan, registry), make_cases(source.plan(), registry)
        assert case.name == expected.name
        assert bool((case.measurement == expected.measurement).all())
        made = make_methods(plan, registry, [case.modality])[case.modality]
        assert [(m.name, dict(m.settings)) for m in made] == [(m.name, dict(m.settings)) for m in methods]


def test_a_file_is_named_relative_to_the_config(disc: Opened, tmp_path: Path) -> None:
    source = replace(disc.source, settings={"every": 2})
    assert "file: ../disc.npz, every: 2" in config_text(source, methods_of([Row("fbp")]), tmp_path / "configs")


@pytest.mark.parametrize(
    ("annotation", "default", "widget"),
    [
        (float, 0.5, "number"), (float | None, None, "number"), (int, 3, "integer"), (bool, True, "switch"),
        (Literal["a", "b"], "a", "words"), (str, AUTOMATIC, "text"),
    ],
)  # fmt: skip
def test_a_control_follows_from_the_type(annotation: Any, default: Any, widget: str) -> None:
    found = control_of(Parameter("p", annotation, default, "what it is"))
    assert found is not None
    assert (found.widget, found.help) == (widget, "what it is")
    assert found.automatic is (default in (None, AUTOMATIC))
    assert found.setting(found.default) is None
    assert found.setting(None) is None


@pytest.mark.parametrize("annotation", [Path, Path | None, tuple[int, int], tuple[Path, ...], bool | None])
def test_what_could_name_a_file_or_has_no_widget_is_left_out(annotation: Any) -> None:
    assert control_of(Parameter("p", annotation, None)) is None


def test_a_slider_is_where_the_search_is(registry: Registry) -> None:
    weight, *rest = controls_of(registry, registry.pipeline("tv-pdhg"), {}, "ct")
    assert (weight.name, weight.range, weight.automatic) == ("prior.lam", AROUND, True)
    assert weight.ends(0.5) == (0.005, 50.0)
    assert weight.ends(None) is None
    assert {c.name for c in rest} >= {"solver.max_iterations", "solver.tolerance", "nonnegative", "prior.name"}
    cutoff = next(c for c in controls_of(registry, registry.pipeline("fbp"), {}, "ct") if c.name == "cutoff")
    assert isinstance(cutoff.range, Range)
    assert cutoff.ends(None) == (cutoff.range.low, cutoff.range.high)


def test_controls_of_a_slot_are_those_of_what_fills_it(registry: Registry) -> None:
    admm = registry.pipeline("pnp-admm")
    slot = next(c for c in controls_of(registry, admm, {}, "ct") if c.name == "denoiser.name")
    assert slot.words == registry.names("denoiser")
    names = {c.name for c in controls_of(registry, admm, {"denoiser.name": "drunet"}, "ct")}
    assert "denoiser.modality" in names
    assert "denoiser.strength" not in names
    assert not any(name.endswith(".path") for name in names)


def test_the_embedded_case_is_named_in_the_settings(registry: Registry) -> None:
    controls = {c.name: c for c in case_controls(registry.parameters("modality", "ct"))}
    images = controls["case.images"]
    assert images.listed
    assert images.setting("ct-small") == ["ct-small"]
    assert "case.files" not in controls
