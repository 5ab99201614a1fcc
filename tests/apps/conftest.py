"""Running the command line in this process, as a user would."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from priorloom import Scan
from priorloom.bundle import write
from priorloom_apps.cli import main

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@dataclass(frozen=True)
class Run:
    """What a command left: exit code, standard output, standard error."""

    code: int
    out: str
    err: str


Cli = Callable[..., Run]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """``cli("compare", "--seed", 1)`` runs ``priorloom compare --seed 1``."""

    def call(*arguments: object) -> Run:
        monkeypatch.setattr(sys, "argv", ["priorloom", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main()
        printed = capsys.readouterr()
        code = stopped.value.code
        return Run(code if isinstance(code, int) else 0, printed.out, printed.err)

    return call


GEOMETRY = {"image_shape": (32, 32), "pixel_size": 1.0, "views": 24, "detectors": 47, "detector_pitch": 1.0}


@pytest.fixture
def sinogram() -> np.ndarray:
    """The exact line integrals of a centred disc of radius 10 mm and 0.02/mm, for GEOMETRY: chords times value."""
    s = np.arange(47) - 23.0
    chord = 2 * np.sqrt(np.clip(100.0 - s**2, 0, None))
    return np.tile(0.02 * chord, (24, 1)).astype(np.float32)


@pytest.fixture
def scan_file(tmp_path: Path, sinogram: np.ndarray) -> Path:
    """A CT bundle without a truth."""
    path = tmp_path / "disc.npz"
    write(path, Scan("ct", "ct.parallel2d", GEOMETRY, sinogram))
    return path


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless Chromium of the system; the first use starts it, one in each worker."""
    api = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install playwright")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("no browser: apt-get install chromium")
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        started.close()
