"""``priorloom train`` as a user runs it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from priorloom import Registry, Scan
from priorloom.bundle import write
from priorloom.errors import InputError
from priorloom.train.record import COLUMNS, Point
from priorloom_apps.train import line, parse_budget

from .conftest import GEOMETRY, Cli

TINY: dict[str, Any] = {
    "modality": "ct",
    "architecture": {"name": "learned-proximal-gradient", "layers": 1, "width": 4, "depth": 2},
    "operator": {"views": 12},
    "image_shape": [16, 16],
    "simulation": {"pixel_sizes": [4.0]},
    "data": {
        "train": [{"subject": "ellipses", "phantom": "ellipses"}],
        "validation": [{"subject": "foam", "phantom": "foam"}],
    },
    "batch_size": 2,
    "steps": 4,
    "validate_every": 2,
    "validation_batches": 1,
    "log_every": 1,
}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY))
    return path


def test_it_trains_and_says_what_it_wrote(cli: Cli, config: Path, tmp_path: Path) -> None:
    done = cli("train", config, "--out", tmp_path / "out", "--seed", 3)
    assert done.code == 0, done.err
    folder = tmp_path / "out/ct.learned-proximal-gradient/1"
    assert re.search(rf"wrote {re.escape(str(folder))}: \d+ parameters", done.out.replace("\n", ""))
    assert "psnr" in done.out
    assert re.search(r"^\[4/4\] \d+ s, loss \S+, validation \S+, \S+ dB", done.err, re.M)
    card = json.loads((folder / "card.json").read_text())
    assert card["learning"]["seed"] == 3
    assert (folder / "model.safetensors").stat().st_size == card["bytes"]
    assert (tmp_path / "out/curve.png").read_bytes().startswith(b"\x89PNG")
    lines = (tmp_path / "out/log.csv").read_text().splitlines()
    assert lines[0] == ",".join(COLUMNS)
    assert len(lines) == 5


def test_resume_with_more_steps(cli: Cli, config: Path, tmp_path: Path) -> None:
    assert cli("train", config, "--out", tmp_path / "out", "--set", "steps=2").code == 0
    again = cli("train", config, "--out", tmp_path / "out", "--resume", "--budget", "1h")
    assert again.code == 0, again.err
    assert (tmp_path / "out/ct.learned-proximal-gradient/2").is_dir()


def test_a_measured_scan_without_a_truth(cli: Cli, config: Path, scan_file: Path, tmp_path: Path) -> None:
    """Noise2Inverse on a file: nothing but the measurement is known."""
    source = f"data={{train: [{{subject: disc, scan: {scan_file.name}, licence: CC0}}]}}"
    scans = ["--set", source, "--set", "operator={}"]
    refused = cli("train", config, "--out", tmp_path / "a", *scans)
    assert refused.code == 2
    assert "noise2inverse" in refused.err
    done = cli("train", config, "--out", tmp_path / "b", *scans, "--set", "loss={noise2inverse: {parts: 3}}")
    assert done.code == 0, done.err
    card = json.loads((tmp_path / "b/ct.learned-proximal-gradient/1/card.json").read_text())
    assert card["scope"]["ranges"]["views"] == [GEOMETRY["views"]] * 2
    assert card["metrics"] == []


def test_a_measured_scan_with_a_truth(cli: Cli, config: Path, sinogram: np.ndarray, tmp_path: Path) -> None:
    truth = np.zeros((32, 32), np.float32)
    truth[8:24, 8:24] = 0.02
    write(tmp_path / "known.npz", Scan("ct", "ct.parallel2d", GEOMETRY, sinogram, truth=truth))
    source = "data={train: [{subject: disc, scan: known.npz}]}"
    done = cli("train", config, "--out", tmp_path / "out", "--set", source, "--set", "operator={}")
    assert done.code == 0, done.err
    card = json.loads((tmp_path / "out/ct.learned-proximal-gradient/1/card.json").read_text())
    assert card["scope"]["operator"] == "ct.parallel2d"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--set", "stpes=3"], "did you mean 'steps'"),
        (["--set", "architecture.name=learned-primal-dul"], "did you mean 'learned-primal-dual'"),
        (["--set", "architecture.layer=3"], "did you mean 'layers'"),
        (["--set", "operator.view=3"], "did you mean 'views'"),
        (["--set", "simulation.photon=[1, 2]"], "did you mean 'photons'"),
        (["--set", "modality=cat"], "did you mean"),
        (["--set", "loss={mes: 1}"], "did you mean 'mse'"),
        (["--set", "data.train=[]"], "at least one subject"),
        (["--set", "data.train=[{subject: foam, phantom: foam}]"], "one side of the split"),
        (["--set", "data.train=[{subject: a, phantom: ellipse}]"], "did you mean 'ellipses'"),
        (["--set", "data.train=[{subject: a, files: nowhere}]"], "nothing there"),
        (["--set", "data.train=[{subject: a, files: empty}]"], "an empty folder"),
        (["--set", "data.train=[{subject: a, files: damaged.nrrd}]"], "damaged.nrrd"),
        (["--set", "data.train=[{subject: a, scan: damaged.nrrd}]"], "damaged.nrrd"),
        (["--budget", "soon"], "20m, 90s or 1h30m"),
        (["--device", "toaster"], "--device"),
        (["--resume"], "train without --resume"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], text: str, cli: Cli, config: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "damaged.nrrd").write_bytes(b"NRRD0004\nbroken")
    done = cli("train", config, "--out", tmp_path / "out", *arguments)
    assert done.code == 2, done.err
    assert text in done.err
    assert done.err.count("\n") == 1


def test_divergence_is_one_line_and_exit_1(cli: Cli, config: Path, tmp_path: Path) -> None:
    wild = ["--set", "optimiser={learning_rate: 1.0e+30, gradient_clip: null, ema: null}", "--set", "steps=50",
            "--set", "checkpoint_every=1", "--set", "validate_every=50"]  # fmt: skip
    done = cli("train", config, "--out", tmp_path / "out", *wild)
    assert done.code == 1
    last = done.err.splitlines()[-1]
    assert re.search(r"training diverged at batch \d+: .*layer 1 of 1.*lower optimiser.learning_rate", last)
    assert (tmp_path / "out/checkpoints/last.pt").exists()
    assert not (tmp_path / "out/ct.learned-proximal-gradient").exists()


def test_the_commands_help_imports_nothing_heavy() -> None:
    probe = (
        "import sys; sys.argv = ['priorloom', 'train', '--help']\n"
        "from priorloom_apps.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'pytorch_lightning', 'matplotlib', 'pydicom'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(("text", "seconds"), [("20m", 1200), ("90s", 90), ("1h30m", 5400), ("0.5m", 30)])
def test_budgets(text: str, seconds: float) -> None:
    assert parse_budget(text) == seconds


@pytest.mark.parametrize("text", ["", "20", "m", "20 m", "-5m", "0s", "5d"])
def test_budgets_that_are_none(text: str) -> None:
    with pytest.raises(InputError, match="--budget"):
        parse_budget(text)


def test_a_line_of_the_log() -> None:
    assert line(Point(10, 3.2, 1e-3, 0.25, 1.0), 100) == "[10/100] 3 s, loss 0.25"
    shown = line(Point(10, 3.2, 1e-3, 0.25, 1.0, 0.5, 30.123, 0.9), 100)
    assert shown == "[10/100] 3 s, loss 0.25, validation 0.5, 30.12 dB, SSIM 0.9000"


def test_the_configs_in_the_repository_fit_what_is_installed() -> None:
    from priorloom.train.config import load
    from priorloom.train.losses import make_loss

    registry = Registry.discover()
    folder = Path(__file__).parents[2] / "examples" / "train"
    found = sorted(folder.glob("*.yaml"))
    assert found
    for path in found:
        plan = load(path)
        make_loss(plan.loss, registry.modality(plan.modality))
        known = {p.name for p in registry.parameters("architecture", plan.architecture["name"])}
        assert set(plan.architecture_settings) <= known, path.name
        assert all(s.licence for s in (*plan.train, *plan.validation) if s.phantom is None), path.name
