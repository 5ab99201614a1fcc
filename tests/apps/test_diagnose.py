"""``priorloom diagnose unrolled`` as a user runs it, on small random models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from priorloom.card import Architecture, Facts, Learning, Scope, Stability, SubjectFacts
from priorloom.models import save_model
from priorloom.pipeline import Solver
from priorloom.registry import Registry
from priorloom_apps.diagnose import rivals as comparing

from .conftest import Cli

BRIEF = ("--set", "solver.max_iterations=60")
SMALL = (*BRIEF, "--set", "case.images=[foam]", "--set", "case.image_shape=[16, 16]", "--set", "operator.views=10")


@pytest.fixture(scope="session")
def registry() -> Registry:
    return Registry.discover()


def save(registry: Registry, folder: Path, architecture: str, settings: dict[str, Any], modality: str = "ct") -> Path:
    """A model with random weights, for a scan of 16 x 16 pixels."""
    if modality == "ct":
        A = registry.operator("ct.parallel2d", image_shape=(16, 16), pixel_size=8.0, views=10)
        scope = Scope("ct.parallel2d", "real", "real", {}, (1e-6, 10.0))
    else:
        mask = torch.ones(16, dtype=torch.bool)
        maps = torch.ones(2, 16, 16, dtype=torch.complex64)
        A = registry.operator("mri.sense2d", maps=maps, mask=mask)
        scope = Scope("mri.sense2d", "complex", "complex", {}, (1e-6, 10.0))
    torch.manual_seed(0)
    model = registry.architecture(architecture, A, settings)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.02 * torch.randn(p.shape))
    phantom = SubjectFacts("phantom", "generator", "CC0-1.0")
    facts = Facts(
        name=f"{modality}.{architecture}", version="1", modality=modality,
        architecture=Architecture(architecture, settings), scope=scope,
        learning=Learning((phantom,), (), "mse", 0, 0, 0.0), metrics=(), certificate=Stability(None, "a test"),
    )  # fmt: skip
    save_model(folder / "1", model, facts)
    return folder


def read(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "diagnose.json").read_text())
    return found


def test_network_against_the_truth(cli: Cli, registry: Registry, tmp_path: Path) -> None:
    folder = save(registry, tmp_path / "model", "learned-proximal-gradient", {"layers": 3, "width": 8})
    out = tmp_path / "out"
    run = cli("diagnose", "unrolled", folder, "--out", out, *SMALL)
    assert run.code == 0, run.err
    found = read(out)
    assert found["reference"] == "truth"
    (case,) = found["cases"]
    assert [layer["layer"] for layer in case["layers"]] == [0, 1, 2, 3]
    assert np.all(np.diff([layer["seconds"] for layer in case["layers"]]) > 0)
    methods = [rival["method"] for rival in case["rivals"]]
    assert methods == ["tv-pdhg", "wavelet-fista by ista", "wavelet-fista"]
    for rival in case["rivals"]:
        needs = [n for layer in case["layers"][1:] for n in layer["needs"] if n["method"] == rival["method"]]
        for layer, n in zip(case["layers"][1:], needs, strict=True):
            errors = np.array(rival["errors"])
            if n["outcome"] == "reached":
                assert errors[n["iterations"]] <= layer["error"]
                assert np.all(errors[: n["iterations"]] > layer["error"])
            else:
                assert np.all(errors > layer["error"])
                assert (n["outcome"] == "never") == (rival["limit"] is not None and rival["limit"] > layer["error"])
    split = case["split"]
    assert np.all(split["holds"])
    assert np.all(np.array(split["errors"]) <= 1.0001 * np.array(split["bound"]))
    flows = {f["network"]: f for f in found["gradient_flow"]}
    assert list(flows) == ["trained", "untrained, with skips", "untrained, without skips"]
    assert [f["skip"] for f in flows.values()] == [True, True, False]
    assert flows["untrained, with skips"]["verdict"] == "passes"
    assert all(e["method"] == "dense" for f in flows.values() for e in f["jacobian"])
    assert {n["quantity"] for n in found["schedule"]["numbers"]} == {"step size"}
    assert found["schedule"]["lipschitz"] > 0
    for name in ("errors-foam.png", "gradient-flow.png", "schedule.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    for text in ("relative error against the truth", "tv-pdhg needs", "Gradient flow", "Learned schedule"):
        assert text in run.out


def test_solver_against_its_minimiser_and_registered_name(
    cli: Cli, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save(registry, tmp_path / "model", "learned-ista", {"layers": 3})
    shipped = Registry.model
    monkeypatch.setattr(
        Registry, "model", lambda self, name: folder / "1" if name == "ct.learned-ista" else shipped(self, name)
    )
    monkeypatch.setattr(comparing, "REFERENCE", Solver(max_iterations=20_000, tolerance=1e-4))
    monkeypatch.setattr(comparing, "ITERATIONS", 100)
    out = tmp_path / "out"
    run = cli("diagnose", "unrolled", "ct.learned-ista", "--out", out, *SMALL[2:], "--seed", 3)
    assert run.code == 0, run.err
    found = read(out)
    assert (found["reference"], found["seed"]) == ("minimiser", 3)
    (case,) = found["cases"]
    rivals = {r["method"]: r for r in case["rivals"]}
    assert list(rivals) == ["ista", "fista", "pdhg"]
    errors = [layer["error"] for layer in case["layers"]]
    # Random weights close to the classical ones: the layers are nearly ISTA's iterations.
    assert errors == pytest.approx(rivals["ista"]["errors"][:4], rel=0.1)
    assert errors[-1] < errors[0]
    # The minimiser is a fixed point of the classical step, up to the tolerance.
    assert case["split"]["bias"] < 1e-2 * case["split"]["errors"][0]
    assert rivals["fista"]["errors"][-1] < 0.5 * rivals["fista"]["errors"][0]
    assert {n["quantity"] for n in found["schedule"]["numbers"]} == {"step size", "weight", "threshold"}
    assert [f["skip"] for f in found["gradient_flow"]] == [None]


def test_other_modality_and_several_cases(cli: Cli, registry: Registry, tmp_path: Path) -> None:
    folder = save(registry, tmp_path / "model", "modl", {"layers": 2, "width": 8, "depth": 2}, "mri")
    out = tmp_path / "out"
    small = (*BRIEF, "--set", "case.image_shape=[16, 16]", "--set", "case.coils=2", "--cases", 2)
    run = cli("diagnose", "unrolled", folder, "--out", out, *small)
    assert run.code == 0, run.err
    found = read(out)
    assert [c["case"] for c in found["cases"]] == ["phantom", "phantom-1"]
    assert all({r["method"] for r in c["rivals"]} >= {"l1-wavelet", "tv-pdhg"} for c in found["cases"])
    assert {n["quantity"] for n in found["schedule"]["numbers"]} == {"penalty"}


def test_bad_input_is_one_line_and_exit_2(cli: Cli, registry: Registry, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    file = tmp_path / "weights.safetensors"
    file.write_bytes(b"")
    folder = save(registry, tmp_path / "model", "learned-proximal-gradient", {"layers": 2, "width": 8})
    out = ("--out", tmp_path / "out")
    for arguments, said in (
        (("ct.no-such-model", *out), "unknown model 'ct.no-such-model'"),
        ((empty, *out), "a folder of versions"),
        ((file, *out), "a registered model or a folder"),
        ((tmp_path / "nowhere" / "else", *out), "a registered model or a folder"),
        ((folder, *out, "--cases", 0), "--cases: expected at least 1"),
        ((folder, *out, "--set", "operator.viewz=10"), "did you mean"),
        ((folder, *out, "--set", "tv-pdhg.prior.lamm=10"), "did you mean"),
        ((folder, *out, "--device", "abacus"), "--device"),
        ((folder, "--out", file), "a place that can be written"),
    ):
        run = cli("diagnose", "unrolled", *arguments)
        assert run.code == 2, (arguments, run.err)
        assert len(run.err.splitlines()) == 1, run.err
        assert said in run.err


def test_damaged_model_is_refused(cli: Cli, registry: Registry, tmp_path: Path) -> None:
    folder = save(registry, tmp_path / "model", "learned-proximal-gradient", {"layers": 2, "width": 8})
    weights = folder / "1" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    weights.write_bytes(bytes(content))
    run = cli("diagnose", "unrolled", folder, "--out", tmp_path / "out", *SMALL)
    assert run.code == 2
    assert "sha256" in run.err
