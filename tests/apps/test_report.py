"""The report: self-contained, escaped, complete, and its pictures show the numbers that they claim to show."""

from __future__ import annotations

import base64
import builtins
import hashlib
import io
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from priorloom.errors import InputError
from priorloom.modality import Case, Modality
from priorloom.operator import Identity
from priorloom.pipeline import Learned, Result
from priorloom.solve import Record
from priorloom.space import Space
from priorloom_apps.curves import SERIES, convergence_svg
from priorloom_apps.output import row as output_row
from priorloom_apps.pictures import (
    ERROR_COLOURS,
    case_pictures,
    error_limit,
    error_png,
    grey_png,
    overview_png,
    plane,
    window,
)
from priorloom_apps.present import notes
from priorloom_apps.report import number, plain, render
from priorloom_apps.tradeoff import tradeoff_svg

FACTS = {"title": "Two & two", "command": "priorloom compare --seed 3", "seed": "3", "versions": "torch 2.13.0"}
HISTORY = tuple(Record(k, 0.5**k, 2.0 + 0.3**k, 0.01 * k) for k in range(1, 9))


def modality(name: str = "ct", units: str = "1/mm") -> Modality:
    def display(image: torch.Tensor) -> torch.Tensor:
        return image.abs() if image.is_complex() else image

    return Modality(
        name=name, title=f"{name.upper()} test", units=units, methods=("direct",), scale=lambda case: 1.0,
        noise_std=lambda case: 1.0, data_range=lambda truth: float(truth.max()), display=display,
        cases=lambda *args, **settings: [],
    )  # fmt: skip


MODALITIES = {"ct": modality(), "mri": modality("mri", "a.u.")}


def case(name: str = "disc", kind: str = "ct", truth: bool = True) -> Case:
    image = torch.linspace(0, 1, 48).reshape(6, 8)
    if kind == "mri":
        image = image * torch.exp(0.5j * image)
    operator = Identity(Space((6, 8), image.dtype))
    return Case(name, kind, operator, image, image if truth else None, metadata={"photon_count": 10000, "source": "x"})


def result(of: Case, method: str, shift: float = 0.1, **changes: Any) -> Result:
    figures = {"psnr": 20.125, "ssim": 0.98765, "nmse": 0.03125, "data_range": 1.0} if of.truth is not None else None
    made = Result(
        method=method, kind="classical", case=of.name, modality=of.modality, image=of.measurement + shift,
        metrics=figures, seconds=1.25, iterations=8, residual=0.00390625, gap=None, objective=2.5, converged=True,
        criterion="residual <= 0.004", history=HISTORY, parameters={"prior.lam": 0.0125, "solver.tolerance": 0.004},
        tuned="default", certificate="certified", seed=3, scale=1.0, versions={},
    )  # fmt: skip
    return replace(made, **changes)


def row(of: Result) -> dict[str, Any]:
    names = (
        "modality",
        "case",
        "method",
        "kind",
        "seconds",
        "iterations",
        "residual",
        "converged",
        "tuned",
        "certificate",
    )
    figures = {name: (of.metrics or {}).get(name) for name in ("psnr", "ssim", "nmse", "data_range")}
    return {**{name: getattr(of, name) for name in names}, **figures, "parameters": dict(of.parameters), "image": None}


def document(cases: Sequence[Case], results: Sequence[Result]) -> str:
    return render(cases, results, [row(r) for r in results], MODALITIES, FACTS)


class Page(HTMLParser):
    """What the tests ask about a page: tags with attributes, text, the cells of tables, scripts and styles."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.raw: dict[str, str] = {"script": "", "style": ""}
        self.rows: list[list[str]] = []
        self._inside = ""
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        self._inside = tag
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""
        if tag == "table":
            self.rows.append([])  # what follows is in no cell

    def handle_data(self, data: str) -> None:
        if self._inside in self.raw:
            self.raw[self._inside] += data
            return
        self.text += data
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data.strip()

    def cells(self, method: str) -> list[str]:
        return next(cells for cells in self.rows if cells and cells[0] == method)

    def images(self) -> dict[str, np.ndarray[Any, Any]]:
        found = {}
        for tag, attributes in self.tags:
            if tag == "img":
                source, alt = attributes["src"], attributes["alt"]
                assert source is not None
                assert alt is not None
                found[alt] = pixels(base64.b64decode(source.removeprefix("data:image/png;base64,"), validate=True))
        return found


def pixels(png: bytes) -> np.ndarray[Any, Any]:
    with Image.open(io.BytesIO(png)) as image:
        assert image.format == "PNG"
        return np.asarray(image)


# ---- pictures


def test_grey_png_maps_the_window_linearly_with_row_0_on_top() -> None:
    shown = pixels(grey_png(torch.tensor([[-9.0, 1.0, 2.0], [2.5, 3.0, 9.0]]), low=1.0, high=3.0))
    assert shown.dtype == np.uint8
    assert shown.tolist() == [[0, 0, 128], [191, 255, 255]]


def test_error_png_is_signed_and_common_in_scale() -> None:
    shown = pixels(error_png(torch.tensor([[-4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0]]), limit=2.0))
    blue, half_blue, zero, half_orange, orange = (list(c) for c in ERROR_COLOURS)
    assert shown[0].tolist() == [blue, blue, half_blue, zero, half_orange, orange, orange]


def test_larger_errors_are_lighter_on_both_sides() -> None:
    shown = pixels(error_png(torch.linspace(-1, 1, 201)[None], limit=1.0)).astype(float)
    lightness = shown[0] @ np.array([0.2126, 0.7152, 0.0722])
    assert np.all(np.diff(lightness[100:]) >= 0)
    assert np.all(np.diff(lightness[:101]) <= 0)


@pytest.mark.parametrize(("low", "high"), [(1.0, 1.0), (2.0, 1.0), (float("nan"), 1.0)])
def test_an_empty_window_is_refused(low: float, high: float) -> None:
    with pytest.raises(InputError, match="grey window: expected low < high"):
        grey_png(torch.zeros(2, 2), low, high)


@pytest.mark.parametrize("limit", [0.0, -1.0, float("nan"), float("inf")])
def test_a_limit_that_is_no_scale_is_refused(limit: float) -> None:
    with pytest.raises(InputError, match="limit of an error map"):
        error_png(torch.zeros(2, 2), limit)


def test_a_complex_image_or_a_stack_is_no_picture() -> None:
    with pytest.raises(InputError, match="expected real"):
        grey_png(torch.zeros(2, 2, dtype=torch.complex64), 0, 1)
    with pytest.raises(InputError, match=r"expected \[rows, columns\]"):
        grey_png(torch.zeros(3, 2, 2), 0, 1)


def test_plane_is_the_middle_of_leading_dimensions() -> None:
    volume = torch.arange(5.0)[:, None, None].expand(5, 2, 3)
    assert plane(volume).tolist() == [[2.0] * 3] * 2


def test_window_is_robust_and_never_empty() -> None:
    ramp = np.linspace(0, 1, 10_001)
    ramp[-1] = 1e6  # one hot pixel
    assert window([ramp]) == pytest.approx((0.005, 0.995))
    spike = np.zeros(10_000)
    spike[0] = 7.0
    assert window([spike]) == (0.0, 7.0)
    assert window([np.full(4, 3.0)]) == (2.5, 3.5)


def test_error_limit_is_common_to_all_maps_and_positive() -> None:
    small, large = np.full(100, 0.1), np.full(100, -0.7)
    assert error_limit([small, large]) == pytest.approx(0.7)
    spike = np.zeros(1000)
    spike[3] = -5.0
    assert error_limit([spike]) == 5.0
    assert error_limit([np.zeros(4)]) == 1.0


def test_case_pictures_share_the_window_of_the_truth() -> None:
    disc, scan = case("disc"), case("scan", truth=False)
    made = case_pictures(
        [disc, scan], [result(disc, "a", 0.0), result(disc, "b", -5.0), result(scan, "a", 7.0)], MODALITIES
    )
    assert sorted(made) == ["disc/a.png", "disc/b.png", "scan/a.png"]
    ramp = np.linspace(0, 1, 48).reshape(6, 8)
    low, high = np.percentile(ramp, (0.5, 99.5))
    expected = np.rint(255 * np.clip((ramp - low) / (high - low), 0, 1))
    assert np.abs(pixels(made["disc/a.png"]) - expected).max() <= 1
    assert pixels(made["disc/b.png"]).max() == 0  # far below the truth
    assert np.abs(pixels(made["scan/a.png"]) - expected).max() <= 1  # without a truth: its own window


def test_overview_has_a_row_a_case_and_the_same_bytes_twice() -> None:
    with_truth, without = case("disc", "mri"), case("scan", truth=False)
    results = [result(with_truth, "$x$"), result(with_truth, "b"), result(without, "a")]
    png = overview_png([with_truth, without], results, MODALITIES)
    assert png == overview_png([with_truth, without], results, MODALITIES)
    shown = pixels(png)[..., :3]
    height, width = shown.shape[:2]
    assert width > height / 1.5
    assert (shown[:, -20:].mean(axis=(1, 2)) < 250).sum() < 0.6 * height  # the last column: one case only
    with pytest.raises(InputError, match="at least one case"):
        overview_png([], [], MODALITIES)


# ---- curves


def test_curves_have_a_panel_for_each_question_and_a_ring_when_unconverged() -> None:
    disc = case()
    svg = convergence_svg([result(disc, "fast"), result(disc, "<slow>", converged=False)])
    panels = list(ElementTree.fromstring(f"<p>{svg}</p>"))
    assert [p.attrib["aria-label"] for p in panels] == [
        "Residual against iterations", "Residual against time", "Objective above its best",
    ]  # fmt: skip
    assert svg.count("&lt;slow&gt;") == 3
    assert [len(re.findall(f'class="{end}"', svg)) for end in ("full", "open")] == [3, 3]
    assert svg.count('class="rule"') == 2  # both have one tolerance


def test_a_geometric_residual_is_a_straight_line_between_the_axes() -> None:
    history = tuple(Record(10**k, 0.1**k, None, 0.1 * 10**k) for k in range(5))
    svg = convergence_svg([result(case(), "m", history=history, parameters={})])
    lines = re.findall(r'<polyline points="([^"]+)"', svg)
    assert len(lines) == 2  # no objective, no third panel
    points = np.array([[float(v) for v in p.split(",")] for p in lines[0].split()])
    steps = np.diff(points, axis=0)
    assert np.abs(steps - steps[0]).max() <= 0.11
    assert np.all(steps > 0)  # to the right, and down


def test_objective_curve_is_relative_to_its_own_best() -> None:
    history = tuple(Record(k, 1.0, value, k) for k, value in ((1, 30.0), (10, 11.0), (100, 10.0)))
    svg = convergence_svg([result(case(), "m", history=history)])
    panel = list(ElementTree.fromstring(f"<p>{svg}</p>"))[2]
    line = panel.find(".//polyline")
    assert line is not None
    heights = [float(p.split(",")[1]) for p in line.attrib["points"].split()]
    grid = {t.text: float(t.attrib["y"]) - 4 for t in panel.findall("text[@text-anchor='end']")}
    assert len(heights) == 2  # the best itself is zero
    assert heights[0] == pytest.approx(grid["2"], abs=0.1)  # (30 - 10) / 10
    assert heights[1] == pytest.approx(grid["0.1"], abs=0.1)  # (11 - 10) / 10


def test_without_a_history_there_is_no_curve_and_zero_values_are_left_out() -> None:
    assert convergence_svg([result(case(), "direct", history=())]) == ""
    history = (Record(1, 0.0, 0.0, 0.0), Record(2, 0.0, 0.0, 0.0))
    assert convergence_svg([result(case(), "exact", history=history)]) == ""
    single = convergence_svg([result(case(), "one", history=(Record(1, 0.5, None, 0.2),), parameters={})])
    assert "nan" not in single


def test_the_ninth_curve_is_dashed() -> None:
    svg = convergence_svg([result(case(), f"m{i}") for i in range(SERIES + 1)])
    assert svg.count('class="curve s0"') == svg.count('class="curve s0 dashed"') == 3


# ---- report


@pytest.fixture(scope="module")
def page() -> Page:
    disc, brain = case("disc"), case("brain", "mri")
    better = {"psnr": 31.5, "ssim": 0.99, "nmse": 0.01, "data_range": 1.0}
    results = [
        result(disc, "fbp", kind="direct", history=(), residual=None, converged=None, iterations=0, parameters={}),
        result(disc, "tv-pdhg", 0.05, tuned="tuned"),
        result(disc, "wavelet", -0.2, converged=False, metrics=better),
        result(brain, "zero-filled", certificate="none"),
    ]  # fmt: skip
    return Page(document([disc, brain], results))


def test_report_asks_nothing_of_the_network(page: Page) -> None:
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form")
        for name in ("src", "href", "srcset", "poster", "action", "xlink:href"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:image/png;base64,", "#")), (tag, name)
        assert not any(name.startswith("on") for name in attributes)
        assert all(
            u.startswith("data:image/png;base64,") for u in re.findall(r"url\(([^)]*)\)", attributes.get("style") or "")
        )
    assert "@import" not in page.raw["style"]
    assert "url(" not in page.raw["style"]
    assert not re.search(r"https?:|fetch|XMLHttpRequest|import", page.raw["script"])


def test_policy_forbids_everything_but_the_page_itself(page: Page) -> None:
    policy = next(
        a["content"] for t, a in page.tags if t == "meta" and a.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    assert rules["style-src"] == "'unsafe-inline'"
    digest = base64.b64encode(hashlib.sha256(page.raw["script"].encode()).digest()).decode()
    assert rules["script-src"] == f"'sha256-{digest}'"


def test_table_says_every_figure(page: Page) -> None:
    assert page.cells("tv-pdhg") == [
        "tv-pdhg", "classical", "20.12", "0.9877", "0.0312", "1.25", "8", "0.0039", "yes", "tuned", "certified", "–",
    ]  # fmt: skip
    assert page.cells("fbp")[6:9] == ["–", "–", "–"]
    assert page.cells("zero-filled")[-2] == "none"


def test_unconverged_and_untuned_rows_are_marked_and_never_best(page: Page) -> None:
    assert page.cells("wavelet")[8] == "no: not converged"
    assert "Not converged: wavelet." in page.text
    assert "Not tuned: wavelet ran" in page.text  # fbp has nothing to tune
    best = [a["data-value"] for t, a in page.tags if t == "td" and "best" in (a.get("class") or "")]
    assert "31.5" not in best
    assert best.count("20.125") == 2


def test_report_names_what_reproduces_it(page: Page) -> None:
    for text in ("Two & two", "priorloom compare --seed 3", "torch 2.13.0", "prior.lam", "0.0125", "residual <= 0.004",
                 "photon count", "10000", "Identity", "6 × 8", "CT test", "1/mm", "a.u."):  # fmt: skip
        assert text in page.text


def test_pictures_show_one_window_and_one_error_scale(page: Page) -> None:
    images = page.images()
    truth = torch.linspace(0, 1, 48).reshape(6, 8).double().numpy()
    low, high = np.percentile(truth, (0.5, 99.5))

    def grey(image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        levels: np.ndarray[Any, Any] = np.rint(255 * np.clip((image - low) / (high - low), 0, 1))
        return levels

    assert np.abs(images["truth of disc"] - grey(truth)).max() <= 1  # float32 in, float64 here
    assert np.abs(images["tv-pdhg on disc"] - grey(truth + 0.05)).max() <= 1
    assert images["zero-filled on brain"].shape == (6, 8)  # the magnitude of a complex image
    # |errors| are 0.1, 0.05 and 0.2 everywhere: the common scale is 0.2, so half of it is 0.1
    errors = {alt: image for alt, image in images.items() if alt.startswith("error")}
    assert len(errors) == 4
    by_method = {alt.split()[2]: image[2, 3].tolist() for alt, image in errors.items()}
    assert np.abs(np.array(by_method["fbp"]) - ERROR_COLOURS[3]).max() <= 1
    assert np.abs(np.array(by_method["wavelet"]) - ERROR_COLOURS[0]).max() <= 1
    assert "±0.200 1/mm" in page.text


def test_names_and_values_are_escaped() -> None:
    hostile = "<script>alert(1)</script>"
    disc = replace(case(), metadata={hostile: hostile})
    object.__setattr__(disc, "name", hostile)  # Case refuses it; the report does not rely on that
    made = result(disc, f'"{hostile}', parameters={hostile: hostile}, criterion=hostile)
    html = render(
        [disc], [made], [row(made)], MODALITIES, {**FACTS, "title": hostile, "command": hostile, hostile: hostile}
    )
    page = Page(html)
    assert hostile not in html
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert "alert" not in page.raw["script"]
    assert hostile in page.text


def test_without_a_truth_there_are_images_but_no_metrics_and_no_errors() -> None:
    scan = case("scan", truth=False)
    page = Page(document([scan], [result(scan, "fbp"), result(scan, "tv")]))
    assert page.cells("fbp")[2:5] == ["no truth"] * 3
    assert sorted(page.images()) == ["fbp on scan", "tv on scan"]
    assert "none: metrics and error maps need one" in page.text
    assert "from all the results" in " ".join(page.text.split())


def test_an_interrupted_run_still_has_a_report() -> None:
    disc, later = case("disc"), case("later")
    page = Page(document([disc, later], [result(disc, "fbp")]))
    assert "No method has finished on this case." in page.text
    assert "fbp on disc" in page.images()


def test_a_perfect_image_has_infinite_psnr_and_a_black_error_map() -> None:
    disc = case()
    exact = result(disc, "exact", 0.0, metrics={"psnr": float("inf"), "ssim": 1.0, "nmse": 0.0, "data_range": 1.0})
    page = Page(document([disc], [exact]))
    assert page.cells("exact")[2:5] == ["∞", "1.0000", "0"]
    assert np.all(next(v for k, v in page.images().items() if k.startswith("error")) == ERROR_COLOURS[2])


def test_a_result_without_its_row_is_refused() -> None:
    disc = case()
    with pytest.raises(InputError, match="row of 'fbp' on 'disc'"):
        render([disc], [result(disc, "fbp")], [], MODALITIES, FACTS)


@pytest.mark.parametrize("missing", ["jinja2", "PIL", "matplotlib"])
def test_a_missing_package_is_one_line_with_the_cure(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".")[0] == missing:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    disc = case()
    with pytest.raises(InputError, match=r'no module \'\S+\'; pip install "priorloom\[report\]"'):
        (overview_png([disc], [], MODALITIES) if missing == "matplotlib" else document([disc], [result(disc, "fbp")]))


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0.0, "0"), (float("inf"), "∞"), (12.345, "12.3"), (1234.5, "1234"), (0.00123, "0.00123"),
     (0.000123, "1.23e−4"), (-2.5, "−2.50"), (1.5e6, "1.50e6"), (float("nan"), "not a number")],
)  # fmt: skip
def test_numbers_are_short(value: float | None, text: str) -> None:
    assert number(value) == text


def test_parameters_are_plain_and_short() -> None:
    assert plain(True) == "yes"
    assert plain((1.0, None, "x")) == "1, None, x"
    assert plain(torch.zeros(100, 100)).endswith("]])")
    assert len(plain("a" * 999)) == 200


# ---- learned beside classical


LEARNED = Learned("ct.net", "2", 74721, "LIDC (CC BY 3.0; 4 subjects)", "no Lipschitz bound: networks")


def timed(of: Case, method: str, kind: str, seconds: float, psnr: float, **changes: Any) -> Result:
    figures = {"psnr": psnr, "ssim": 0.9, "nmse": 0.1, "data_range": 1.0}
    return result(of, method, kind=kind, seconds=seconds, metrics=figures, history=(), **changes)


def test_learned_rows_say_what_was_learned_from_what_and_where_it_does_not_fit() -> None:
    disc = case()
    warned = timed(disc, "net", "learned", 0.1, 40, model=LEARNED, warnings=("views 30: trained with 60",))
    page = Page(document([disc], [result(disc, "tv-pdhg"), warned]))
    assert page.cells("net")[-1] == "74,721"
    assert page.cells("tv-pdhg")[-1] == "–"
    for text in ("net: views 30: trained with 60.", "LIDC (CC BY 3.0; 4 subjects)", "no Lipschitz bound: networks"):
        assert text in page.text
    json_row = output_row(warned, None)
    assert json_row["model"] == {
        "name": "ct.net", "version": "2", "parameters": 74721, "data": LEARNED.data, "stability": LEARNED.stability
    }  # fmt: skip
    assert json_row["warnings"] == ["views 30: trained with 60"]
    said = "\n".join(notes([warned]))
    assert "net: model ct.net 2, 74,721 numbers learned" in said
    assert "not for diagnosis" in said
    assert "net on disc: views 30: trained with 60" in said


def marks(svg: str) -> dict[str, tuple[float, float, str, str]]:
    """For each method the place of its mark, its class and its outline."""
    found = {}
    for group in ElementTree.fromstring(svg).findall("g"):
        title, path = group.find("title"), group.find("path")
        if title is None or path is None:
            continue
        place = re.match(r"translate\(([\d.]+) ([\d.]+)\)", path.attrib["transform"])
        assert place is not None
        assert title.text is not None
        found[title.text.partition(" ")[0]] = (
            float(place[1]), float(place[2]), path.attrib["class"], path.attrib["d"]
        )  # fmt: skip
    return found


def test_quality_against_time_is_logarithmic_in_time_linear_in_dB_and_shaped_by_kind() -> None:
    disc = case()
    results = [
        timed(disc, "a", "direct", 0.01, 20.0), timed(disc, "b", "classical", 0.1, 25.0),
        timed(disc, "c", "pnp", 1.0, 30.0, converged=False), timed(disc, "d", "learned", 10.0, 35.0),
    ]  # fmt: skip
    found = marks(tradeoff_svg(results))
    x, y = (np.array([found[name][i] for name in "abcd"]) for i in (0, 1))
    assert np.ptp(np.diff(x)) < 0.3
    assert np.all(np.diff(x) > 20)
    assert np.ptp(np.diff(y)) < 0.3
    assert np.all(np.diff(y) < -20)
    assert [found[name][2] for name in "abcd"] == ["full", "full", "open", "full"]
    assert len({found[name][3] for name in "abcd"}) == 4


def test_the_line_of_quality_against_time_leaves_out_what_is_beaten_and_what_has_not_converged() -> None:
    disc = case()
    results = [
        timed(disc, "fast", "direct", 0.01, 20.0), timed(disc, "beaten", "classical", 1.0, 25.0),
        timed(disc, "loose", "pnp", 0.02, 50.0, converged=False), timed(disc, "good", "learned", 0.1, 35.0),
    ]  # fmt: skip
    svg = tradeoff_svg(results)
    found = marks(svg)
    line = ElementTree.fromstring(svg).find("polyline")
    assert line is not None
    points = [tuple(float(v) for v in p.split(",")) for p in line.attrib["points"].split()]
    assert points == [found["fast"][:2], found["good"][:2]]


def test_labels_do_not_lie_on_each_other_and_are_escaped() -> None:
    disc = case()
    svg = tradeoff_svg([timed(disc, f"<method-{i}>", "classical", 1.0, 30 + 0.001 * i) for i in range(9)])
    labels = [t for t in ElementTree.fromstring(svg).iter("text") if t.attrib["class"] == "name"]
    assert [t.text for t in labels] == [f"<method-{i}>" for i in range(9)]
    heights = sorted(float(t.attrib["y"]) for t in labels)
    assert np.diff(heights).min() >= 12


def test_without_two_figures_there_is_no_quality_against_time() -> None:
    disc, scan = case(), case("scan", truth=False)
    assert tradeoff_svg([timed(disc, "a", "direct", 0.01, 20.0)]) == ""
    assert tradeoff_svg([result(scan, "a"), result(scan, "b")]) == ""
    assert tradeoff_svg([timed(disc, "a", "direct", 0.01, 20.0), timed(disc, "b", "direct", 0.1, float("inf"))]) == ""
