"""``priorloom diagnose operator`` as a user runs it, on small problems."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .conftest import Cli

SMALL = ("--set", "case.images=[foam]", "--set", "case.image_shape=[16, 16]", "--set", "operator.views=32")
FEW = ("--samples", 8, "--values", 5)


def read(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "operator.json").read_text())
    return found


def test_ct_in_words_numbers_and_a_picture(cli: Cli, tmp_path: Path) -> None:
    run = cli("diagnose", "operator", "-m", "ct", "--out", tmp_path, *SMALL, *FEW, "--seed", 3)
    assert run.code == 0, run.err
    for text in ("mildly ill-posed", "It has no null space", "condition number", "noise of the direct method"):
        assert text in run.out
    found = read(tmp_path)
    assert found["seed"] == 3
    (case,) = found["cases"]
    spectrum = case["spectrum"]
    assert (spectrum["method"], spectrum["rank"], spectrum["unknowns"]) == ("dense", 256, 256)
    assert spectrum["condition"] == pytest.approx(spectrum["leading"][0]["value"] / spectrum["trailing"][-1]["value"])
    assert len(spectrum["leading"]) == len(spectrum["trailing"]) == 5
    assert len(case["picard"]["values"]) == len(case["picard"]["coefficients"]) == 256
    assert case["null_space"] == pytest.approx(
        {"image": "the truth", "share": 0.0, "standing": "exact", "iterations": 0, "residual": 0.0}
    )
    noise = np.load(tmp_path / case["noise"]["map"])
    assert noise.shape == (16, 16)
    assert case["noise"]["rms"] == pytest.approx(float(np.sqrt(np.mean(noise.astype(float) ** 2))))
    assert case["direction"] is None
    assert (tmp_path / "operator-foam.png").read_bytes().startswith(b"\x89PNG")


def test_mri_by_a_config_with_a_perturbation_as_json(cli: Cli, tmp_path: Path) -> None:
    config = tmp_path / "plan.yaml"
    config.write_text("modality: mri\ncase: {image_shape: [12, 12], coils: 1}\nseed: 2\n")
    change = np.zeros((12, 12), dtype=np.float32)
    change[4:6, 4:6] = 1
    np.save(tmp_path / "change.npy", change)
    run = cli(
        "diagnose", "operator", config, "--out", tmp_path / "out", "--perturbation", tmp_path / "change.npy",
        "--image", tmp_path / "change.npy", *FEW, "--json",
    )  # fmt: skip
    assert run.code == 0, run.err
    printed = json.loads(run.out)
    assert printed == read(tmp_path / "out")
    (case,) = printed["cases"]
    assert case["spectrum"]["rank"] < 144
    assert 0 < case["null_space"]["share"] < 1
    # The share of the perturbation is that of the image: they are the same here.
    assert case["direction"]["null_space"]["share"] == case["null_space"]["share"]
    assert case["null_space"]["image"] == "the given image"
    assert 0 < case["direction"]["relative_gain"] <= 1
    assert case["direction"]["amplification"] == pytest.approx(1 / case["direction"]["relative_gain"])
    assert "The perturbation is amplified" in case["words"]


def test_measured_data_without_a_truth(cli: Cli, scan_file: Path, tmp_path: Path) -> None:
    run = cli("diagnose", "operator", "--input", scan_file, "--out", tmp_path / "out", *FEW)
    assert run.code == 0, run.err
    (case,) = read(tmp_path / "out")["cases"]
    assert case["noise_source"] == "estimated"
    assert case["null_space"]["image"] == "the direct method's image"


def test_bad_input_is_one_line_and_exit_2(cli: Cli, tmp_path: Path) -> None:
    small, wrong, text, zero = (tmp_path / f"{name}.npy" for name in ("small", "wrong", "text", "zero"))
    np.save(small, np.ones((3, 3)))
    np.save(wrong, np.full((16, 16), 1j))
    text.write_text("no array")
    np.save(zero, np.zeros((16, 16)))
    start = ("diagnose", "operator", "-m", "ct", "--out", tmp_path / "out", *SMALL)
    for arguments, message in (
        (("--values", 0), "--values: expected at least 1"),
        (("--samples", 1), "--samples: expected at least 2"),
        (("--image", small), "the shape [16, 16]"),
        (("--perturbation", wrong), "real numbers"),
        (("--image", text), "a .npy file with an image"),
        (("--image", tmp_path / "none.npy"), "a .npy file with an image"),
        (("--perturbation", zero), "not all zero"),
        (("--set", "prior.lam=1"), "operator.KEY"),
        (("--set", "operator.name=ct.nothing"), "ct.nothing"),
        (("--device", "tpu"), "--device"),
    ):
        run = cli(*start, *arguments)
        assert run.code == 2, arguments
        assert message in run.err
        assert run.err.count("\n") == 1
    assert not (tmp_path / "out").exists()
