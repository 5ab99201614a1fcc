"""The report in a browser: its canvases and readings show what the arrays hold, and it asks nothing of anybody."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from priorloom.modality import Case, Reading
from priorloom.operator import Identity
from priorloom.pipeline import Learned
from priorloom.space import Space
from priorloom_apps.pictures import ERROR_COLOURS
from priorloom_apps.report import render

from .pages import FACTS, MODALITIES, pixels, result, row

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ROWS, COLUMNS = 24, 32
METHODS = ("fbp", "tv", "</script><b id=x onclick=alert(1)>&amp;")
TRUTH, FBP, TV, HOSTILE = range(4)
READING = Reading("HU", 50_000.0, -1000.0, {"lung": (-1350.0, 150.0)})
Array = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def planes() -> Array:
    """Truth and the three methods, float32 ``[4, rows, columns]``, in 1/mm."""
    draw = np.random.default_rng(4)
    truth = draw.uniform(0, 0.04, (ROWS, COLUMNS))
    others = [truth + draw.normal(0, 0.004, truth.shape) for _ in METHODS]
    return np.stack([truth, *others]).astype(np.float32)


@pytest.fixture(scope="module")
def file(planes: Array, tmp_path_factory: pytest.TempPathFactory) -> Path:
    images = torch.from_numpy(planes)
    operator = Identity(Space((ROWS, COLUMNS), images.dtype))
    disc = Case("disc", "ct", operator, images[0], images[0])
    figures = [20.0, float("inf"), 3.5]
    results = [
        replace(
            result(disc, "x", metrics={"psnr": psnr, "ssim": 0.9, "nmse": 0.1, "data_range": 0.04}),
            method=method, image=image,
        )
        for method, image, psnr in zip(METHODS, images[1:], figures, strict=True)
    ]  # fmt: skip
    results[1] = replace(results[1], model=Learned("net", "1", 5000, "data", "none"))
    scan = Case("scan", "ct", operator, images[1], None)
    results.append(result(scan, "only", 0.0, metrics=None))
    modalities = {"ct": replace(MODALITIES["ct"], reading=READING)}
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render([disc, scan], results, [row(r) for r in results], modalities, FACTS), encoding="utf-8")
    return path


@dataclass(frozen=True)
class Viewer:
    """The page and its first viewer."""

    page: Page

    def find(self, selector: str) -> Any:
        return self.page.locator(".viewer").first.locator(selector)

    def settle(self) -> None:
        """Until what was asked for is drawn."""
        self.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def frame(self, selector: str = ".split canvas") -> tuple[float, float, float]:
        """Left, top and the CSS pixels per pixel of the image."""
        box = centred(self.find(selector))
        return box["x"], box["y"], box["width"] / COLUMNS

    def shown(self, selector: str = ".split canvas") -> Array:
        """The pixels of a canvas, ``[height, width, 3]``."""
        self.settle()
        png = self.find(selector).evaluate("(canvas) => canvas.toDataURL()")
        return pixels(base64.b64decode(png.removeprefix("data:image/png;base64,")))[..., :3].astype(float)

    def sampled(self, view: tuple[float, float, float], selector: str = ".split canvas") -> tuple[Array, Array, Array]:
        """Colours on a grid of the canvas, and which row and column of the image stands there, when the image is seen
        from (left, top) at a zoom; places near the border of two pixels are left out."""
        left, top, zoom = view
        colours = self.shown(selector)
        scale = colours.shape[1] * zoom / COLUMNS
        y, x = (a.ravel() for a in np.mgrid[2 : colours.shape[0] : 7, 2 : colours.shape[1] : 7])
        row, column = top + (y + 0.5) / scale, left + (x + 0.5) / scale
        inside = (np.abs(row % 1 - 0.5) < 0.5 - 1.5 / scale) & (np.abs(column % 1 - 0.5) < 0.5 - 1.5 / scale)
        return colours[y, x][inside], row[inside].astype(int), column[inside].astype(int)

    def drag(self, selector: str, begin: tuple[float, float], end: tuple[float, float], button: Any = "left") -> None:
        """From and to these rows and columns (in pixels of the unzoomed image) of a canvas."""
        left, top, scale = self.frame(selector)
        mouse = self.page.mouse
        mouse.move(left + begin[1] * scale, top + begin[0] * scale)
        mouse.down(button=button)
        mouse.move(left + (begin[1] + end[1]) / 2 * scale, top + (begin[0] + end[0]) / 2 * scale)
        mouse.move(left + end[1] * scale, top + end[0] * scale)
        mouse.up(button=button)
        self.settle()

    def choose(self, tool: str) -> None:
        self.find(f".tool[value={tool}]").check(force=True)

    def cells(self, name: str) -> list[str]:
        """A column of the readings, truth first."""
        self.settle()
        texts: list[str] = self.find(f".readings tbody .{name}").all_inner_texts()
        return [text.strip() for text in texts]


def centred(canvas: Any) -> dict[str, float]:
    """Where a canvas is, once it is scrolled to where nothing covers it."""
    canvas.evaluate("(canvas) => canvas.scrollIntoView({ block: 'center', behavior: 'instant' })")
    box: dict[str, float] = canvas.bounding_box()
    return box


def agree(text: str, value: float) -> bool:
    """Whether the text is the value, rounded to the digits that it shows."""
    digits = re.fullmatch(r"(-?\d+(?:\.(\d+))?)(?:e(-?\d+))?", text.replace("−", "-"))
    assert digits, text
    unit = 10.0 ** (int(digits[3] or 0) - len(digits[2] or ""))
    return abs(float(text.replace("−", "-")) - value) <= 0.5000001 * unit


def wrong(sampled: tuple[Array, Array, Array], plane: Array, low: float, high: float) -> float:
    """The share of the samples of a canvas that are not, to one level, the grey of their value in a window."""
    colours, rows, columns = sampled
    assert len(colours) > 100
    levels = np.rint(255 * np.clip((plane[rows, columns].astype(float) - low) / (high - low), 0, 1))
    return float((np.abs(colours - levels[:, None]).max(axis=1) > 1).mean())


CROSS = 0.06
"""The share of a canvas that the cross of the probe may cover."""


Open = Callable[..., Viewer]


@pytest.fixture
def open_page(browser: Browser, file: Path) -> Iterator[Open]:
    """Opens the report; at the end nothing was complained of, and nothing but the file was asked for."""
    heard: list[str] = []
    contexts = []

    def call(script: str = "", ready: str = ".viewer.ready .tools", **settings: Any) -> Viewer:
        context = browser.new_context(**{"viewport": {"width": 1300, "height": 1000}, **settings})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(8000)
        page.on("console", lambda message: heard.append(message.text))
        page.on("pageerror", lambda error: heard.append(str(error)))
        page.on("dialog", lambda dialog: heard.append(dialog.message))
        page.on("request", lambda request: None if request.url.startswith("data:") else heard.append(request.url))
        if script:
            page.add_init_script(script)
        page.goto(file.as_uri())
        if ready:
            page.wait_for_selector(ready)
        viewer = Viewer(page)
        viewer.settle() if settings.get("java_script_enabled", True) else None
        return viewer

    yield call
    for context in contexts:
        context.close()
    assert heard == [file.as_uri()] * len(contexts)


@pytest.fixture
def viewer(open_page: Open) -> Viewer:
    return open_page()


def test_the_first_window_is_that_of_the_report(viewer: Viewer, planes: Array) -> None:
    low, high = np.percentile(planes[TRUTH], (0.5, 99.5))
    for tile, plane in ((0, TRUTH), (1, FBP), (3, TV)):  # a tile of each image, and one of each error
        selector = f".tiles canvas >> nth={tile}"
        assert wrong(viewer.sampled((0, 0, 1), selector), planes[plane], low, high) == 0


def test_level_and_width_change_the_greys(viewer: Viewer, planes: Array) -> None:
    viewer.find(".right").select_option("0")  # truth beside truth: the whole canvas
    viewer.find(".level").fill("0.015")
    viewer.find(".width").fill("0.01")
    assert wrong(viewer.sampled((0, 0, 1)), planes[TRUTH], 0.01, 0.02) == 0  # the handle is no part of the canvas
    viewer.find(".preset").select_option("lung")  # -1350 to 150 HU
    assert wrong(viewer.sampled((0, 0, 1)), planes[TRUTH], -0.007, 0.023) == 0
    viewer.find(".units").focus()
    viewer.find(".units").select_option("HU")
    viewer.settle()
    assert float(viewer.find(".level").input_value()) == pytest.approx(-600)
    assert float(viewer.find(".width").input_value()) == pytest.approx(1500)
    viewer.find(".width").fill("500")  # -850 to -350 HU
    assert wrong(viewer.sampled((0, 0, 1)), planes[TRUTH], 0.003, 0.013) == 0
    assert viewer.find(".split .end-high").inner_text() == "−350"
    for selector, text, shown in ((".width", "", 500), (".width", "-1", 500), (".level", "1e999", -600)):
        viewer.find(selector).fill(text)
        viewer.find(".units").focus()
        viewer.settle()
        assert float(viewer.find(selector).input_value()) == pytest.approx(shown)
    assert viewer.find(".split .end-high").inner_text() == "−350"


@pytest.mark.parametrize("button", ["left", "right"])
def test_a_drag_sets_the_window(viewer: Viewer, planes: Array, button: str) -> None:
    low, high = (float(v) for v in np.percentile(planes[TRUTH].astype(float), (0.5, 99.5)))
    if button == "left":
        viewer.choose("window")
    scale = viewer.frame()[2]
    viewer.drag(".split canvas", (10, 5), (10 - 45 / scale, 5 + 90 / scale), button)
    level, width = (low + high) / 2 - 0.15 * (high - low), 1.3 * (high - low)  # 300 CSS pixels are one width
    assert float(viewer.find(".level").input_value()) == pytest.approx(level, rel=1e-3)
    assert float(viewer.find(".width").input_value()) == pytest.approx(width, rel=1e-3)
    sampled = viewer.sampled((0, 0, 1), ".tiles canvas >> nth=0")
    assert wrong(sampled, planes[TRUTH], level - width / 2, level + width / 2) < CROSS
    assert viewer.find(".zoom").inner_text() == "1.00×"


def test_the_handle_parts_two_methods(viewer: Viewer, planes: Array) -> None:
    low, high = np.percentile(planes[TRUTH], (0.5, 99.5))
    viewer.find(".left").select_option(str(TV))
    viewer.find(".right").select_option(str(FBP))

    def check(share: float) -> None:
        colours, rows, columns = viewer.sampled((0, 0, 1))
        border = share * COLUMNS
        for plane, side in ((TV, columns + 1 < border), (FBP, columns > border)):
            assert wrong((colours[side], rows[side], columns[side]), planes[plane], low, high) == 0

    check(0.5)
    left, top, scale = viewer.frame()
    viewer.page.mouse.move(left + 0.5 * COLUMNS * scale, top + 40)
    viewer.page.mouse.down()
    viewer.page.mouse.move(left + 0.25 * COLUMNS * scale, top + 60)
    viewer.page.mouse.up()
    check(0.25)
    viewer.find(".handle").focus()
    for _ in range(10):
        viewer.page.keyboard.press("ArrowRight")
    viewer.settle()
    assert viewer.find(".handle").get_attribute("aria-valuenow") == "45"
    check(0.45)


def test_errors_have_one_signed_scale(viewer: Viewer, planes: Array) -> None:
    errors = planes.astype(float) - planes[TRUTH].astype(float)
    limit = float(np.percentile(np.abs(errors[1:]), 99))

    def check(limit: float) -> None:
        stops = np.linspace(-1, 1, len(ERROR_COLOURS))
        for tile, plane in ((2, FBP), (4, TV)):
            colours, rows, columns = viewer.sampled((0, 0, 1), f".tiles canvas >> nth={tile}")
            shares = np.clip(errors[plane, rows, columns] / limit, -1, 1)
            expected = np.stack([np.interp(shares, stops, c) for c in zip(*ERROR_COLOURS, strict=True)], axis=-1)
            assert np.abs(colours - expected).max() <= 1

    check(limit)
    viewer.find(".limit").fill("0.008")
    viewer.settle()
    assert viewer.find(".end-plus").inner_text() == "0.00800"
    check(0.008)
    viewer.find(".shown").select_option("images")
    assert not viewer.find(".error").first.is_visible()


def test_wheel_zooms_about_the_pointer_in_every_image(viewer: Viewer, planes: Array) -> None:
    low, high = np.percentile(planes[TRUTH], (0.5, 99.5))
    viewer.find(".right").select_option("0")
    left, top, scale = viewer.frame()
    row, column = 6.0, 20.0
    viewer.page.mouse.move(left + column * scale, top + row * scale)
    viewer.page.mouse.wheel(0, -200)
    viewer.page.wait_for_function("document.querySelector('.zoom').textContent !== '1.00×'")
    zoom = float(np.exp(0.5))
    view = (column - column / zoom, row - row / zoom, zoom)
    for selector, plane in ((".split canvas", TRUTH), (".tiles canvas >> nth=1", FBP)):
        assert wrong(viewer.sampled(view, selector), planes[plane], low, high) < CROSS
    viewer.page.mouse.dblclick(left + 50, top + 50)
    viewer.settle()
    assert viewer.find(".zoom").inner_text() == "1.00×"


def test_a_drag_in_one_image_moves_all(viewer: Viewer, planes: Array) -> None:
    low, high = np.percentile(planes[TRUTH], (0.5, 99.5))
    viewer.find(".right").select_option("0")
    viewer.find(".closer").click()
    view = (COLUMNS / 4, ROWS / 4, 2.0)
    viewer.drag(".tiles canvas >> nth=3", (12, 12), (15, 6))  # 3 rows down, 6 columns to the left, at zoom 2
    view = (view[0] + 3, view[1] - 1.5, 2.0)
    for selector, plane in ((".split canvas", TRUTH), (".tiles canvas >> nth=1", FBP)):
        assert wrong(viewer.sampled(view, selector), planes[plane], low, high) < CROSS
    viewer.drag(".split canvas", (2, 2), (22, 30))  # beyond the corner: the image stays in its frame
    assert wrong(viewer.sampled((0, 0, 2)), planes[TRUTH], low, high) < CROSS


def test_a_wheel_that_scrolls_the_page_goes_on_scrolling_it(viewer: Viewer) -> None:
    viewer.page.mouse.move(650, 300)
    for _ in range(12):
        viewer.page.mouse.wheel(0, -60)
        viewer.page.mouse.wheel(0, 100)
    viewer.settle()
    assert viewer.find(".zoom").inner_text() == "1.00×"
    assert viewer.page.evaluate("scrollY") > 0


def test_probe_reads_the_values(viewer: Viewer, planes: Array) -> None:
    row, column = 17, 9
    left, top, scale = viewer.frame(".tiles canvas >> nth=1")
    viewer.page.mouse.move(left + (column + 0.5) * scale, top + (row + 0.5) * scale)
    values = planes[:, row, column].astype(float)
    viewer.settle()
    assert viewer.find(".where").inner_text() == f"row {row}, column {column}"
    assert all(map(agree, viewer.cells("value"), values))
    assert all(map(agree, viewer.cells("other"), 50_000 * values - 1000))
    assert viewer.cells("difference")[0] == "–"
    assert all(map(agree, viewer.cells("difference")[1:], values[1:] - values[0]))
    viewer.find(".units").select_option("HU")
    assert all(map(agree, viewer.cells("value"), 50_000 * values - 1000))
    assert all(map(agree, viewer.cells("other"), values))
    assert all(map(agree, viewer.cells("difference")[1:], 50_000 * (values[1:] - values[0])))


def test_region_is_measured_on_the_values(viewer: Viewer, planes: Array) -> None:
    viewer.choose("region")
    viewer.drag(".split canvas", (18.5, 25.5), (4.5, 20.5))  # upwards and to the left
    inside = planes[:, 4:19, 20:26].astype(float)
    assert "rows 4 to 18, columns 20 to 25, 90 pixels" in viewer.find(".where").inner_text()
    rmse = np.sqrt(((inside - inside[0]) ** 2).mean(axis=(1, 2)))[1:]
    assert all(map(agree, viewer.cells("mean"), inside.mean(axis=(1, 2))))
    assert all(map(agree, viewer.cells("deviation"), inside.std(axis=(1, 2))))
    assert all(map(agree, viewer.cells("rmse")[1:], rmse))
    assert all(map(agree, viewer.cells("psnr")[1:], 20 * np.log10(0.04 / rmse)))
    viewer.find(".reset").click()
    viewer.settle()
    assert not viewer.find(".mean").first.is_visible()


def profile(viewer: Viewer) -> dict[str, Array]:
    """Distance and value of every point of the curves, read back through the ticks of the plot."""
    drawn = viewer.find(".profile").evaluate(
        """(svg) => {
          const read = (anchor, at) => [...svg.querySelectorAll(`.tick[text-anchor=${anchor}]`)]
            .map((t) => [Number(t.textContent.replace("−", "-")), Number(t.getAttribute(at))])
            .filter(([value]) => !Number.isNaN(value));
          const curves = [...svg.querySelectorAll("g")]
            .map((g) => [g.firstChild.textContent, g.lastChild.getAttribute("points")]);
          return { x: read("middle", "x"), y: read("end", "y"), curves };
        }"""
    )
    (x0, px0), (x1, px1) = drawn["x"][0], drawn["x"][-1]
    (y0, py0), (y1, py1) = drawn["y"][0], drawn["y"][-1]
    found = {}
    for name, text in drawn["curves"]:
        points = np.array([[float(v) for v in p.split(",")] for p in text.split()])
        points[:, 0] = x0 + (points[:, 0] - px0) * (x1 - x0) / (px1 - px0)
        points[:, 1] = y0 + (points[:, 1] - py0 + 4) * (y1 - y0) / (py1 - py0)
        found[name] = points
    return found


def test_profile_is_made_of_the_nearest_pixels(viewer: Viewer, planes: Array) -> None:
    viewer.choose("line")
    viewer.drag(".tiles canvas >> nth=2", (20.5, 3.5), (10.5, 28.5))
    steps = np.arange(26)
    rows, columns = np.floor(20 - 10 * steps / 25 + 0.5).astype(int), 3 + steps
    curves = profile(viewer)
    assert sorted(curves) == sorted(["truth", *METHODS])
    for plane, name in enumerate(("truth", *METHODS)):
        assert np.abs(curves[name][:, 0] - steps * np.hypot(10, 25) / 25).max() < 0.02
        assert np.abs(curves[name][:, 1] - planes[plane, rows, columns]).max() < 2e-5  # a tenth of a pixel of the plot
    viewer.find(".readings tbody button").nth(TV).click()
    viewer.settle()
    assert sorted(profile(viewer)) == sorted(["truth", "fbp", METHODS[2]])


def test_keyboard_probes_zooms_and_draws(viewer: Viewer, planes: Array) -> None:
    viewer.choose("line")
    viewer.find(".split canvas").focus()
    press = viewer.page.keyboard.press
    press("ArrowDown")  # from the middle, row 12 and column 16
    press("Shift+ArrowLeft")
    viewer.settle()
    assert viewer.find(".where").inner_text() == "row 13, column 6"
    press("Enter")
    for _ in range(5):
        press("ArrowRight")
    press("Enter")
    press("ArrowUp")  # the line has ended
    viewer.settle()
    values = profile(viewer)["fbp"]
    assert np.abs(values[:, 1] - planes[FBP, 13, 6:12]).max() < 2e-5
    press("+")
    viewer.settle()
    assert viewer.find(".zoom").inner_text() == "2.00×"
    press("0")
    viewer.settle()
    assert viewer.find(".zoom").inner_text() == "1.00×"


def test_images_are_no_taller_than_the_window(viewer: Viewer) -> None:
    viewer.page.set_viewport_size({"width": 1000, "height": 150})
    viewer.settle()
    for selector in (".split canvas", ".tiles canvas >> nth=0"):
        box = viewer.find(selector).bounding_box()
        assert box["height"] <= 150
        assert box["width"] / box["height"] == pytest.approx(COLUMNS / ROWS, rel=0.02)


def test_table_sorts_by_the_column_that_is_clicked(viewer: Viewer) -> None:
    table = viewer.page.locator("table.sortable").first
    head = table.locator("th", has_text="PSNR")

    def order() -> list[str]:
        names: list[str] = table.locator("tbody th").all_inner_texts()
        return [n.strip() for n in names]

    assert order() == list(METHODS)
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert order() == [METHODS[2], "fbp", "tv"]  # 3.5, 20 and infinite: as numbers, not as text
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert order() == ["tv", "fbp", METHODS[2]]
    table.locator("th button").first.focus()
    viewer.page.keyboard.press("Enter")
    assert order() == [METHODS[2], "fbp", "tv"]
    assert head.get_attribute("aria-sort") is None
    learned = table.locator("th button", has_text="learned").last
    for _ in range(2):  # upwards and downwards: what has no value stays last
        learned.click()
        assert order()[0] == "tv"


def test_names_are_text_wherever_they_stand(viewer: Viewer) -> None:
    assert viewer.page.locator("#x").count() == 0
    assert viewer.find(".right option").all_inner_texts() == ["truth", *METHODS]
    assert viewer.find(".readings tbody th").all_inner_texts()[-1].strip() == METHODS[2]


def test_curves_switch_from_iterations_to_seconds(viewer: Viewer) -> None:
    case = viewer.page.locator("section.case").first
    seen = case.locator(".curves svg:visible[aria-label^='Error against']")
    assert (seen.first.text_content() or "").startswith("Error against iterations")
    case.locator(".against [value=seconds]").check(force=True)
    assert seen.count() == 1
    assert (seen.first.text_content() or "").startswith("Error against seconds")


def test_without_a_truth_there_are_greys_and_readings(viewer: Viewer, planes: Array) -> None:
    other = viewer.page.locator(".viewer").nth(1)
    other.scroll_into_view_if_needed()
    viewer.page.wait_for_selector(".viewer.ready >> nth=1")
    box = centred(other.locator(".tiles canvas").first)
    viewer.page.mouse.move(box["x"] + 0.5 * box["width"] / COLUMNS, box["y"] + 0.5 * box["height"] / ROWS)
    viewer.settle()
    assert agree(other.locator(".value").inner_text(), float(planes[FBP, 0, 0]))
    assert other.locator(".difference").count() == 0


PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


def test_on_a_phone_fingers_probe_pinch_and_pan(open_page: Open, planes: Array) -> None:
    low, high = np.percentile(planes[TRUTH], (0.5, 99.5))
    viewer = open_page(device_scale_factor=2, **PHONE)
    assert viewer.page.evaluate("document.documentElement.scrollWidth") == 390
    viewer.find(".right").select_option("0")
    left, top, scale = viewer.frame()
    viewer.page.touchscreen.tap(left + 10.5 * scale, top + 5.5 * scale)
    viewer.settle()
    assert viewer.find(".where").inner_text().startswith("row 5, column 10")
    assert all(map(agree, viewer.cells("value"), planes[:, 5, 10].astype(float)))

    session = viewer.page.context.new_cdp_session(viewer.page)

    def touch(kind: str, *fingers: tuple[float, float]) -> None:
        points = [{"x": left + c * scale, "y": top + r * scale, "id": i} for i, (r, c) in enumerate(fingers)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", (12, 14))
    touch("touchStart", (12, 14), (12, 18))
    for k in range(1, 5):
        touch("touchMove", (12, 14 - k), (12, 18 + k))  # from 4 to 12 columns apart, about (12, 16)
    touch("touchEnd")
    viewer.settle()
    assert viewer.find(".zoom").inner_text() == "3.00×"
    touch("touchStart", (12, 14))
    for k in range(1, 7):
        touch("touchMove", (12 - k, 14 + 1.5 * k))
    touch("touchEnd")
    assert wrong(viewer.sampled((16 - 16 / 3 - 3, 12 - 4 + 2, 3)), planes[TRUTH], low, high) < CROSS


@pytest.mark.parametrize(
    ("script", "settings"),
    [("delete globalThis.DecompressionStream", {}), ("", {"java_script_enabled": False})],
    ids=["no DecompressionStream", "no script"],
)
def test_what_cannot_unpack_shows_the_pictures_and_says_why(
    open_page: Open, script: str, settings: dict[str, Any]
) -> None:
    page = open_page(script, ready=".failed:visible" if script else "noscript", **settings).page
    images = page.locator(".tiles img")
    assert images.count() == 8
    assert all(images.nth(i).is_visible() for i in range(8))
    assert not page.locator(".tools").first.is_visible()
    assert not page.locator(".stage").first.is_visible()
