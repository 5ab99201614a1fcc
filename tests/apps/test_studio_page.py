"""The studio in a browser: it opens, runs, shows images as they converge, and saves what reproduces them."""

from __future__ import annotations

import base64
import json
import os
import re
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from priorloom import Registry, Scan
from priorloom.bundle import write
from priorloom.comparison import compare
from priorloom.config import load, make_cases

from .conftest import GEOMETRY, Cli

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytest.importorskip("panel", reason='no panel: pip install "priorloom[studio]"')

PATIENCE = 30_000  # ms; a wait ends as soon as what it waits for is there
HOSTILE = "<img src=x onerror=alert(1)>.npz"
IMAGES = """(name) => {
    const data = Bokeh.documents[0].get_model_by_name(name).data
    return [...data.image].map(image => [image.shape[0], image.shape[1], [...image]])
}"""
LEVEL = """() => {
    const mappers = [...Bokeh.documents[0]._all_models.values()].filter(model => model.palette?.length == 256)
    return mappers.map(mapper => [mapper.low, mapper.high])[0]
}"""
LISTEN = """(name) => {
    const source = Bokeh.documents[0].get_model_by_name(name)
    window.seen = []
    source.properties.data.change.connect(() => {
        for (const image of source.data.image) window.seen.push([...image].reduce((a, b) => a + b, 0))
    })
}"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a scan that has a truth, one without, and one beside the folder."""
    rows, columns = np.mgrid[:32, :32] - 15.5
    truth = np.where(rows**2 + columns**2 <= 100, 0.02, 0).astype(np.float32)
    chords = 2 * np.sqrt(np.clip(100.0 - (np.arange(47) - 23.0) ** 2, 0, None))
    sinogram = np.tile(0.02 * chords, (24, 1)).astype(np.float32)
    folder = tmp_path_factory.mktemp("studio") / "scans"
    (folder / "more").mkdir(parents=True)
    write(folder / "disc.npz", Scan("ct", "ct.parallel2d", GEOMETRY, sinogram, truth=truth))
    write(folder / HOSTILE, Scan("ct", "ct.parallel2d", GEOMETRY, sinogram))
    write(folder.parent / "outside.npz", Scan("ct", "ct.parallel2d", GEOMETRY, sinogram))
    (folder / "outside.npz").symlink_to(folder.parent / "outside.npz")
    return folder


@contextmanager
def serving(root: Path, *arguments: str) -> Iterator[str]:
    """The address of a studio on `root`, while it runs."""
    command = [sys.executable, "-m", "priorloom_apps.cli", "studio", *arguments, "--root", str(root), "--no-browser"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=root,
        # Notebook servers set such variables for all that their users start; the studio stays closed.
        env={**os.environ, "OMP_NUM_THREADS": "1", "BOKEH_ALLOW_WS_ORIGIN": "*:*", "BOKEH_RESOURCES": "cdn"},
    )  # fmt: skip
    assert process.stdout is not None
    watchdog = threading.Timer(PATIENCE / 1000, process.kill)
    watchdog.start()
    try:
        line = process.stdout.readline()
        watchdog.cancel()
        found = re.search(r"http://127\.0\.0\.1:\d+/\?key=\S+", line)
        assert found, line + (process.stdout.read() if process.poll() is not None else "")
        yield found[0]
    finally:
        watchdog.cancel()
        process.terminate()
        process.communicate(timeout=PATIENCE / 1000)


@pytest.fixture(scope="module")
def studio(root: Path) -> Iterator[str]:
    """The address of one that the tests share, on a scan; each test opens a window of its own."""
    with serving(root, "disc.npz") as address:
        yield address


class Watched:
    """A page, with what it asked for and what it complained of."""

    def __init__(self, browser: Browser) -> None:
        self.page: Page = browser.new_page(viewport={"width": 1000, "height": 700})
        self.page.set_default_timeout(PATIENCE)
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda m: self.errors.append(m.text) if m.type in ("error", "warning") else None)

    def set(self, name: str, value: str, shown: str = "") -> None:
        box = self.page.get_by_label(name)
        box.fill(value)
        box.press("Tab")
        self.page.get_by_text(f"{name}: {shown or value}").wait_for()  # in the config

    def run(self) -> None:
        self.page.get_by_role("button", name="Run", exact=True).click()  # waits until it is enabled
        self.page.get_by_text("Done.").wait_for()

    def table(self) -> dict[str, list[str]]:
        rows = self.page.locator("tbody tr").all()
        cells = [row.locator("td").all_inner_texts() for row in rows]
        return {row[0].strip(): row[1:] for row in cells}

    def image(self, name: str) -> np.ndarray:
        ((rows, columns, values),) = self.page.evaluate(IMAGES, name)
        return np.array(values, dtype=np.float32).reshape(rows, columns)


@pytest.fixture
def watched(browser: Browser) -> Iterator[Watched]:
    found = Watched(browser)
    yield found
    found.page.close()
    hosts = {re.sub(r"^(\w+://[^/]*|data:|blob:).*", r"\1", url, flags=re.S) for url in found.requests}
    outside = {host for host in hosts if not re.match(r"(http|ws)://127\.0\.0\.1:|data:|blob:", host)}
    assert len(found.requests) > 3
    assert not outside
    assert not found.errors


def compared(cli: Cli, config: Path, out: Path) -> dict[str, Any]:
    """What ``priorloom compare`` makes of a config: the rows by method."""
    run = cli("compare", config, "--out", out)
    assert run.code == 0, run.err
    return {row["method"]: row for row in json.loads((out / "results.json").read_text())["rows"]}


def test_the_default_converges_in_view_and_its_config_reproduces_it(
    studio: str, watched: Watched, root: Path, cli: Cli, tmp_path: Path
) -> None:
    page = watched.page
    page.goto(studio)
    page.get_by_text("disc is open").wait_for()
    page.get_by_role("button", name="Simulated").click()
    page.get_by_text("ct-small is open").wait_for()
    page.get_by_text("More parameters").last.click()
    watched.set("solver.max_iterations", "40")
    page.evaluate(LISTEN, "image s1")
    watched.run()
    sums = page.evaluate("window.seen")
    assert len(set(sums)) >= 3  # it changed while it ran
    table = watched.table()
    assert list(table) == ["fbp", "tv-pdhg"]

    page.get_by_role("button", name="Save config").click()
    page.get_by_text("Saved studio.yaml").wait_for()
    rows = compared(cli, root / "studio.yaml", tmp_path / "out")
    modality = Registry.discover().modality("ct")
    assert modality.reading is not None
    for place, name in enumerate(table):
        assert table[name][0] == f"{rows[name]['psnr']:.2f}"
        image = np.load(tmp_path / "out" / rows[name]["image"])
        shown = modality.reading.factor * image + modality.reading.offset
        np.testing.assert_allclose(watched.image(f"image s{place}"), shown, atol=0.5)  # of some 1500 HU
        np.testing.assert_allclose(
            watched.image(f"error s{place}"), watched.image(f"image s{place}") - watched.image("image truth"), atol=1e-2
        )

    # What is moved after a run is not what its images show.
    other = page.get_by_text("The images are of other parameters than these")
    assert other.count() == 0
    watched.set("solver.max_iterations", "41")
    other.wait_for()
    watched.set("solver.max_iterations", "40")
    other.wait_for(state="detached")

    # An existing config is replaced only when that is said.
    (root / "studio.yaml").write_text("mine")
    page.get_by_role("button", name="Save config").click()
    page.get_by_text("studio.yaml exists").wait_for()
    assert (root / "studio.yaml").read_text() == "mine"
    page.get_by_role("button", name="Replace it").click()
    page.get_by_text("Saved studio.yaml").wait_for()
    assert "solver.max_iterations: 40" in (root / "studio.yaml").read_text()

    # Window and level, in Hounsfield units.
    page.get_by_role("button", name="soft tissue").click()
    page.wait_for_function(f"JSON.stringify(({LEVEL})()) == '[-160,240]'")


def test_a_scan_under_the_root_is_chosen_run_and_reproduced(studio: str, watched: Watched, root: Path) -> None:
    page = watched.page
    page.goto(studio)
    page.get_by_text("disc is open").wait_for()
    chooser = page.locator("select[size]")
    names = chooser.locator("option").all_inner_texts()
    assert [n.strip() for n in names] == ["more/", HOSTILE, "disc.npz"]  # as they are, and not what leads out
    chooser.select_option(label="more/")
    page.get_by_text("scans/more").wait_for()
    chooser.select_option(label="../")
    chooser.locator("option", has_text="disc.npz").wait_for(state="attached")
    chooser.select_option(label=HOSTILE)
    page.get_by_text("img-src-x-onerror-alert-1 is open").wait_for()
    chooser.select_option(label="disc.npz")
    page.get_by_text("disc is open").wait_for()
    page.get_by_text("More parameters").last.click()
    watched.set("solver.max_iterations", "90")
    watched.run()
    table = watched.table()
    assert list(table) == ["fbp", "tv-pdhg"]
    page.get_by_label("Save under the root as").fill("../stolen.yaml")
    page.get_by_role("button", name="Save config").click()
    page.get_by_text("a path that leads out of it").wait_for()
    assert not (root.parent / "stolen.yaml").exists()
    page.get_by_label("Save under the root as").fill("more/disc.yaml")
    page.get_by_role("button", name="Save config").click()
    page.get_by_text("Saved more/disc.yaml").wait_for()
    plan = load(root / "more" / "disc.yaml")
    assert plan.methods is not None
    results = compare(make_cases(plan, Registry.discover()), plan.methods, seed=plan.seed)
    assert {name: cells[:2] for name, cells in table.items()} == {
        r.method: [f"{r.metrics['psnr']:.2f}", f"{r.metrics['ssim']:.4f}"] for r in results if r.metrics is not None
    }


def test_a_run_is_stopped_and_an_error_is_one_line(studio: str, watched: Watched) -> None:
    page = watched.page
    page.goto(studio)
    page.get_by_text("disc is open").wait_for()
    page.get_by_text("More parameters").last.click()
    watched.set("solver.tolerance", "0.0000000001", "1.0e-10")
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_text(re.compile(r"iteration \d+, error")).wait_for()
    page.get_by_role("button", name="Stop").click()
    page.get_by_text("Stopped.").wait_for()
    watched.set("solver.tolerance", "-1")
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_text("tv-pdhg: solver.tolerance: expected a positive number, got -1.0").wait_for()
    assert list(watched.table()) == ["fbp"]


def _handshake(port: int, origin: str) -> str:
    """The first line of the answer to a web socket from a page of `origin`."""
    key = base64.b64encode(b"0123456789abcdef").decode()
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(
            f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\nOrigin: {origin}\r\n\r\n".encode()
        )
        return connection.recv(200).decode("latin-1").splitlines()[0]


def test_only_this_machine_this_origin_and_the_key_are_served(studio: str, watched: Watched) -> None:
    port = int(re.findall(r":(\d+)/", studio)[0])
    assert "403" in _handshake(port, "http://evil.example")
    assert "403" in _handshake(port, f"http://localhost:{port}")
    assert "403" not in _handshake(port, f"http://127.0.0.1:{port}")
    with pytest.raises(OSError, match="refused"):  # loopback has more addresses; one of them is bound
        socket.create_connection(("127.0.0.2", port), timeout=30)
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/components/this/s/css/x", timeout=30)
    page = watched.page
    page.goto(studio.partition("?")[0])
    page.get_by_text("Open the address that the terminal printed.").wait_for()
    assert page.get_by_role("button", name="Run").count() == 0


def test_bad_input_is_one_line(cli: Cli, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for arguments, problem in (
            (["--root", root / "nothing"], "--root"),
            (["--root", root, root.parent / "outside.npz"], "leads out"),
            (["--root", root, root / "nothing.npz"], "nothing there"),
            (["--root", root, "--modality", "cx"], "known: ct, mri"),
            (["--root", root, "--port", port], "expected a free port"),
            (["--root", root, "--port", 70000], "1 to 65535"),
        ):
            run = cli("studio", "--no-browser", *arguments)
            assert run.code == 2
            assert problem in run.err
            assert run.err.count("\n") == 1
    monkeypatch.setitem(sys.modules, "panel", None)
    run = cli("studio", "--no-browser", "--root", root)
    assert run.code == 2
    assert run.err.endswith('pip install "priorloom[studio]"\n')
    assert run.err.count("\n") == 1
