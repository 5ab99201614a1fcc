"""``priorloom diagnose stability`` as a user runs it, on small problems."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .conftest import Cli

SMALL = (
    "--set",
    "case.images=[ellipses]",
    "--set",
    "case.image_shape=[12, 12]",
    "--set",
    "operator.views=16",
    "--set",
    "case.photons=2000",
)
QUICK = ("--quick", "--iterations", 2)


def read(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "stability.json").read_text())
    return found


def test_a_direct_method_beside_a_tuned_one(cli: Cli, tmp_path: Path) -> None:
    run = cli(
        "diagnose",
        "stability",
        "fbp",
        "--against",
        "tikhonov",
        *SMALL,
        "--out",
        tmp_path,
        *QUICK,
        "--seed",
        3,
        "--level",
        2,
    )
    assert run.code == 0, run.err
    for text in (
        "worst amplification found",
        "lower bounds",
        "tuned",
        "less dose",
        "other anatomy",
        "2 times the norm",
    ):
        assert text in run.out
    found = read(tmp_path)
    assert found["seed"] == 3
    (case,) = found["cases"]
    assert (case["case"], case["modality"], case["level"]) == ("ellipses", "ct", 2.0)
    mine, against = case["method"], case["against"]
    assert (mine["method"], against["method"]) == ("fbp", "tikhonov")
    assert against["chosen"].startswith("tuned: the best PSNR of 3 weights on the same image, seed 4")
    assert set(against["settings"]) == {"prior.lam.times"}
    assert against["record"]["used"] == 3
    for one in (mine, against):
        assert one["worst"]["radius"] == pytest.approx(2 * case["noise_norm"])
        assert one["worst"]["norm"] <= one["worst"]["radius"] * (1 + 1e-6)
        assert one["worst"]["amplification"] == pytest.approx(one["worst"]["change"] / one["worst"]["norm"])
        assert one["worst"]["amplification"] > one["random"]["amplification"]
        assert one["errors"]["worst"] > one["errors"]["random"] > 0
        d = np.load(tmp_path / one["worst"]["perturbation"])
        assert np.linalg.norm(d) == pytest.approx(one["worst"]["norm"], rel=1e-5)
    largest = [max(one["worst"]["amplification"], one["under_the_other's"]) for one in (mine, against)]
    assert case["ratio_of_largest_amplifications"] == pytest.approx(largest[0] / largest[1])
    shifts = {s["name"]: s for s in case["shifts"]}
    assert list(shifts) == [
        "as it is", "less dose", "more dose", "fewer views", "shorter arc", "other anatomy"
    ]  # fmt: skip
    assert shifts["other anatomy"]["case"] == "shepp-logan"
    assert all(s["method"] is not None and s["against"] is not None for s in case["shifts"])
    assert shifts["less dose"]["method"] < shifts["more dose"]["method"]
    assert (tmp_path / "stability-ellipses.png").read_bytes().startswith(b"\x89PNG")


def test_a_network_on_mri_as_json_with_a_record_and_another_anatomy(cli: Cli, tmp_path: Path) -> None:
    small = ("--set", "case.image_shape=[16, 16]", "--set", "case.coils=2", "-m", "mri")
    record, image = tmp_path / "tv.json", tmp_path / "image.npy"
    np.save(image, np.random.default_rng(0).random((16, 16), dtype=np.float32))
    tuned = cli(
        "tune", "cg-sense", *small, "--seed", 8, "--over", "prior.lam=0.001:0.1", "--budget", 3, "--out", record
    )
    assert tuned.code == 0, tuned.err
    run = cli(
        "diagnose", "stability", "zero-filled-unet", *small, "--against", "cg-sense", "--tuned", record, *QUICK,
        "--anatomy", image, "--out", tmp_path / "out", "--json",
    )  # fmt: skip
    assert run.code == 0, run.err
    printed = json.loads(run.out)
    assert printed == read(tmp_path / "out")
    (case,) = printed["cases"]
    assert case["method"]["derivative"] == "exact, through 1 layers"
    assert case["against"]["chosen"] == "cases on phantom, 3 runs (record)"
    assert "worst that was found" in case["words"]
    assert [s["name"] for s in case["shifts"]][-2:] == ["fewer coils", "given anatomy"]
    assert case["shifts"][-1]["case"] == "image"
    assert all(s["method"] is not None and s["against"] is not None for s in case["shifts"])
    d = np.load(tmp_path / "out" / case["method"]["worst"]["perturbation"])
    assert bool((d == 0).any())


def test_measured_data_have_no_shifts_and_no_tuned_baseline(cli: Cli, scan_file: Path, tmp_path: Path) -> None:
    run = cli(
        "diagnose", "stability", "fbp", "--input", scan_file, "--against", "tikhonov", "--out", tmp_path / "out", *QUICK
    )
    assert run.code == 0, run.err
    assert "no shifts" in run.out
    (case,) = read(tmp_path / "out")["cases"]
    assert case["noise_source"] == "estimated"
    assert case["against"]["chosen"].startswith("NOT tuned")
    assert case["shifts"] == []
    assert case["method"]["errors"] is None


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("fbp", "--level", 0), "level of a perturbation: expected a positive multiple of the noise, got 0.0"),
        (("fbp", "--iterations", 0), "--iterations: expected at least 1, got 0"),
        (("fbp", "--restarts", -1), "--restarts: expected at least 0, got -1"),
        (("fbq",), "unknown pipeline 'fbq'"),
        (("fbp", "--against", "tv"), "unknown pipeline 'tv'"),
        (("fbp", "--set", "lam=1"), "unknown setting 'lam'"),
        (("fbp", "--set", "operator.name=mri.sense2d"), "operator.name: expected an operator of ct"),
        (("fbp", "--tuned", "none.json"), "tuned settings none.json"),
        (("pnp-pgd", "--against", "fbp", "--set", "solver.max_iterations=3"), "derivative of method 'pnp-pgd'"),
        (("zero-filled", "--modality", "ct"), "method 'zero-filled'"),
    ],
)
def test_what_cannot_be_done_is_one_line(cli: Cli, tmp_path: Path, arguments: tuple[object, ...], text: str) -> None:
    modality = () if "--modality" in arguments else ("-m", "ct")
    run = cli("diagnose", "stability", *arguments, *modality, *SMALL, "--quick", "--out", tmp_path)
    assert run.code == 2, run.err
    complaints = [line for line in run.err.splitlines() if line.startswith("priorloom: ")]
    assert text in complaints[-1]
    assert "Traceback" not in run.err
