"""``priorloom reproduce``: the same figures again, and what it refuses."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from priorloom import Registry

from .conftest import Cli, Run

SMALL = ["--set", "case.images=[foam]", "--set", "case.image_shape=[32,32]", "--set", "operator.views=20"]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """On one thread, and without reports and pictures, which are no part of a capsule."""
    monkeypatch.setattr("priorloom_apps.compare._publish", lambda *_, **__: None)
    own = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(own)


@pytest.fixture(scope="module")
def made() -> Iterator[dict[str, Path]]:
    """Where a comparison is kept for the tests that begin with one."""
    with TemporaryDirectory() as folder:
        yield {"folder": Path(folder)}


@pytest.fixture
def simulated(cli: Cli, tmp_path: Path, made: dict[str, Path]) -> Path:
    """A comparison of simulated data."""
    kept = made["folder"] / "out"
    if not kept.exists():
        run = cli("compare", "-m", "ct", "--method", "fbp", "--method", "tikhonov", *SMALL, "--seed", 4, "--out", kept)
        assert run.code == 0, run.err
    return shutil.copytree(kept, tmp_path / "out")


@pytest.fixture
def measured(cli: Cli, scan_file: Path, tmp_path: Path) -> Path:
    """A comparison of ``data/disc.npz``."""
    (tmp_path / "data").mkdir()
    path = scan_file.rename(tmp_path / "data" / scan_file.name)
    run = cli("compare", "--input", path, "--method", "fbp", "--out", tmp_path / "out")
    assert run.code == 0, run.err
    return tmp_path / "out"


def _refused(run: Run, said: str) -> None:
    assert run.code == 2, (run.out, run.err)
    assert run.err.count("\n") == 1, run.err
    assert said in run.err


def _change(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads((folder / "capsule.json").read_text())
    change(document)
    (folder / "capsule.json").write_text(json.dumps(document))


def test_the_same_machine_gives_the_same_bytes(cli: Cli, simulated: Path) -> None:
    again = cli("reproduce", simulated)
    assert again.code == 0, again.err
    assert "2 rows: 2 identical; as expected" in again.out
    report = json.loads((simulated / "reproduced" / "reproduce.json").read_text())
    assert report["as_expected"] is True
    assert report["expected"] == report["verdict"] == "identical"
    assert [row["method"] for row in report["rows"]] == ["fbp", "tikhonov"]
    for row in report["rows"]:
        image = Path("images") / row["case"] / f"{row['method']}.npy"
        first, second = (folder / image for folder in (simulated, simulated / "reproduced"))
        assert first.read_bytes() == second.read_bytes()
        assert [hashlib.sha256(first.read_bytes()).hexdigest()] * 2 == row["sha256"]
        assert row["psnr"][0] == row["psnr"][1] > 10


def test_the_config_of_the_folder_is_all_that_was_said(cli: Cli, simulated: Path, tmp_path: Path) -> None:
    assert yaml.safe_load((simulated / "config.yaml").read_text()) == {
        "modality": "ct",
        "operator": {"views": 20},
        "case": {"images": ["foam"], "image_shape": [32, 32]},
        "methods": ["fbp", "tikhonov"],
        "seed": 4,
    }
    run = cli("compare", simulated / "config.yaml", "--out", tmp_path / "b")
    assert run.code == 0, run.err
    capsules = [json.loads((folder / "capsule.json").read_text()) for folder in (simulated, tmp_path / "b")]
    assert capsules[0]["rows"] == capsules[1]["rows"]
    assert capsules[0]["cases"] == capsules[1]["cases"]


def test_the_recorded_number_of_threads_computes(cli: Cli, simulated: Path) -> None:
    torch.set_num_threads(2)
    again = cli("reproduce", simulated)
    assert torch.get_num_threads() == 2
    assert again.code == 0, again.out
    written = json.loads((simulated / "reproduced" / "capsule.json").read_text())
    assert written["environment"]["threads"] == 1


def test_figures_that_do_not_hold_are_named_and_exit_1(cli: Cli, simulated: Path, tmp_path: Path) -> None:
    _change(simulated, lambda c: c["rows"][1].update(psnr=c["rows"][1]["psnr"] + 1.0))
    again = cli("reproduce", simulated, "--out", tmp_path / "b")
    assert again.code == 1
    assert "DIFFERS" in again.out
    assert "differs: tikhonov on foam: psnr" in again.out
    assert "NOT AS EXPECTED" in again.out
    assert json.loads((tmp_path / "b" / "reproduce.json").read_text())["as_expected"] is False


@pytest.mark.parametrize(("size", "code"), [(1e-3, 0), (3e-2, 1)])
def test_another_version_is_held_to_the_tolerance(cli: Cli, simulated: Path, size: float, code: int) -> None:
    stored = simulated / "images" / "foam" / "tikhonov.npy"
    np.save(stored, np.load(stored) * np.float32(1 + size))
    digest = hashlib.sha256(stored.read_bytes()).hexdigest()
    _change(simulated, lambda c: (c["rows"][1].update(sha256=digest), c["environment"]["versions"].update(torch="2.0")))
    again = cli("reproduce", simulated)
    assert again.code == code, again.out
    assert f"note: torch 2.0 -> {torch.__version__}" in again.out
    assert "the image of tikhonov on foam differs most" in again.out
    report = json.loads((simulated / "reproduced" / "reproduce.json").read_text())
    assert report["rows"][1]["image"] == pytest.approx(size, rel=0.05)


def test_a_plan_that_timing_chooses_is_told(cli: Cli, scan_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    # Of a file: simulated photons would be other ones for a projection that differs in its last digit.
    timed = ["--method", "tikhonov", "--set", "operator.plan=measured"]
    assert cli("compare", "--input", scan_file, *timed, "--out", out).code == 0
    again = cli("reproduce", out)
    assert "note: the operator of case 'disc' chooses by timing how it computes" in again.out
    assert again.code == 0, again.out


def test_methods_that_came_later_are_not_run(cli: Cli, simulated: Path) -> None:
    _change(simulated, lambda c: (c["rows"].pop(), c.update(planned=1)))
    again = cli("reproduce", simulated)
    assert again.code == 0, again.err
    assert "1 rows: 1 identical" in again.out


def test_data_are_found_where_they_were_or_where_they_are_now(cli: Cli, measured: Path, tmp_path: Path) -> None:
    (item,) = json.loads((measured / "capsule.json").read_text())["sources"]
    scan = tmp_path / "data" / "disc.npz"
    assert (item["setting"], item["path"]) == ("input", str(scan))
    digest = hashlib.sha256(scan.read_bytes()).hexdigest()
    assert item["files"] == [{"name": "disc.npz", "bytes": scan.stat().st_size, "sha256": digest}]
    assert cli("reproduce", measured).code == 0

    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    scan.rename(tmp_path / "elsewhere" / "deep" / "disc.npz")
    _refused(cli("reproduce", measured), "got nothing there; name the folder where it is now with --data")
    _refused(cli("reproduce", measured, "--data", tmp_path / "nowhere"), "--data")
    found = cli("reproduce", measured, "--data", tmp_path / "elsewhere")
    assert found.code == 0, found.err
    assert "1 identical" in found.out


def test_changed_data_are_refused_in_one_line(cli: Cli, measured: Path, tmp_path: Path) -> None:
    scan = tmp_path / "data" / "disc.npz"
    before = hashlib.sha256(scan.read_bytes()).hexdigest()
    content = bytearray(scan.read_bytes())
    content[-1] ^= 1
    scan.write_bytes(content)
    after = hashlib.sha256(content).hexdigest()
    said = f"priorloom: changed data: input {scan}: expected sha256 {before[:12]}, got {after[:12]}; restore the file"
    _refused(cli("reproduce", measured), said)
    assert not (measured / "reproduced").exists()


def test_tuned_records_and_models_of_ones_own_are_sources(cli: Cli, tmp_path: Path) -> None:
    record, out = tmp_path / "tuned.json", tmp_path / "out"
    tune = ["tune", "tikhonov", "-m", "ct", "--over", "prior.lam=0.1:10", "--budget", 3, *SMALL, "--seed", 1]
    assert cli(*tune, "--out", record).code == 0
    model = Registry.discover().model("ct.learned-primal-dual")
    shutil.copytree(model, tmp_path / "mine" / "1")
    names = ["--method", "tikhonov", "--method", "learned", "--set", f"model.path={tmp_path / 'mine'}"]
    run = cli("compare", "-m", "ct", *names, *SMALL, "--seed", 2, "--tuned", record, "--out", out)
    assert run.code == 0, run.err
    capsule = json.loads((out / "capsule.json").read_text())
    weights = hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest()
    mine, tuned = sorted(capsule["sources"], key=lambda s: s["setting"])
    assert (mine["setting"], tuned["setting"]) == ("model.path", "tuned")
    assert (mine["files"][0]["name"], mine["files"][0]["sha256"]) == ("mine/1/model.safetensors", weights)
    assert tuned["files"][0]["name"] == "tuned.json"
    assert capsule["models"] == []  # only those that plugins offer
    assert cli("reproduce", out).code == 0

    record.write_text(record.read_text() + " ")
    _refused(cli("reproduce", out), "changed data: tuned")


def test_a_shipped_model_that_changed_is_refused(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert cli("compare", "-m", "ct", "--method", "fbp-unet", *SMALL, "--out", out).code == 0
    card = json.loads((Registry.discover().model("ct.fbp-unet") / "card.json").read_text())
    (recorded,) = json.loads((out / "capsule.json").read_text())["models"]
    assert recorded == {key: card[key] for key in ("name", "version", "sha256")}
    _change(out, lambda c: c["models"][0].update(sha256="0" * 64))
    _refused(cli("reproduce", out), "changed data: model 'ct.fbp-unet': expected version 1, sha256 000000000000, got")
    _change(out, lambda c: c["models"][0].update(name="ct.gone"))
    _refused(cli("reproduce", out), "changed data: model 'ct.gone'")


def test_an_interrupted_comparison_is_no_capsule(
    cli: Cli, simulated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from priorloom_apps import compare as app

    real = app.compare

    def stop_after_one(cases, methods, *, on_result, **keywords):  # the user presses Ctrl-C when the first is done
        def once(case, result) -> None:
            on_result(case, result)
            raise KeyboardInterrupt

        return real(cases, methods, on_result=once, **keywords)

    monkeypatch.setattr(app, "compare", stop_after_one)
    # Into a folder with a complete capsule, which must not survive as that of the new images.
    assert cli("compare", "-m", "ct", *SMALL, "--out", simulated).code == 1
    _refused(cli("reproduce", simulated), "expected a comparison that ended, got 1 of")


@pytest.mark.parametrize("name", ["reproduced", "reproduced/config.yaml", "reproduced/images"])
def test_a_capsule_does_not_lead_the_second_run_elsewhere(cli: Cli, simulated: Path, tmp_path: Path, name: str) -> None:
    target = tmp_path / "elsewhere"
    target.mkdir()
    link = simulated / name
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(target)
    _refused(cli("reproduce", simulated), "expected no link in the folder of the second run")
    assert list(target.iterdir()) == []


def test_a_plugin_or_a_method_that_is_gone(cli: Cli, simulated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRIORLOOM_PLUGINS", "core,priors,mri,learned")
    _refused(cli("reproduce", simulated), "unknown modality 'ct'")
    monkeypatch.delenv("PRIORLOOM_PLUGINS")
    _change(simulated, lambda c: c["rows"][1].update(method="nonlocal"))
    _refused(cli("reproduce", simulated), "method 'nonlocal' on ct: expected the recorded one")


def test_what_is_no_capsule_is_refused(cli: Cli, simulated: Path, tmp_path: Path) -> None:
    _refused(cli("reproduce", tmp_path / "nowhere"), "expected a folder that priorloom compare wrote")
    (tmp_path / "empty").mkdir()
    _refused(cli("reproduce", tmp_path / "empty"), "expected the capsule of a comparison")
    _refused(cli("reproduce", simulated, "--out", simulated), "expected another folder")
    _refused(cli("reproduce", simulated, "--device", "tpu"), "cpu or cuda")
    (simulated / "config.yaml").write_text("modality: mri\n")
    _refused(cli("reproduce", simulated), "changed config")
    for text, said in (
        ("{", "expected a capsule in JSON"),
        ("[" * 100_000, "expected a capsule"),
        ("[]", "expected a capsule"),
        ('{"schema": 7}', "expected at most 1, got 7; install a newer priorloom"),
        ("\x80\x04\x95", "expected a capsule"),
    ):
        (simulated / "capsule.json").write_text(text)
        _refused(cli("reproduce", simulated), said)
    with (simulated / "capsule.json").open("wb") as file:
        file.truncate(2**30)
    _refused(cli("reproduce", simulated), "bytes")
