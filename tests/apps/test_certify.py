"""priorloom certify: tables, the JSON file, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from priorloom import Registry, Space
from priorloom.card import read_card
from priorloom.networks import AveragedNetwork
from priorloom_apps.certify import judgements, run_certify

SMALL = ("--set", "case.image_shape=[32,32]")


def test_a_denoiser_without_a_proof_is_none_for_every_algorithm(cli: Callable[..., Any], tmp_path: Path) -> None:
    out = tmp_path / "certificate.json"
    run = cli("certify", "tv-chambolle", "-m", "ct", "--sigma", 0.1, "--out", out, *SMALL)
    assert run.code == 0, run.err
    assert "difference quotients" in run.out
    assert "nothing is proven of ImageDenoiser" in run.out
    document = json.loads(out.read_bytes())
    assert (document["schema"], document["denoiser"]) == (1, "tv-chambolle")
    (modality,) = document["modalities"]
    (report,) = modality["reports"]
    assert (report["class"], report["verdict"], report["upper"]) == ("none", "none", None)
    assert report["lower"] > 0.5
    assert {a["certified"] for a in modality["algorithms"]} == {False}


def test_complex_denoisers_are_certified_for_mri(
    cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An untrained averaged network in the place of a registered one: certified without an inner solve in CT too."""
    made: list[Space] = []

    def averaged(space: Space, *, average: float = 0.5) -> AveragedNetwork:
        """An averaged network.

        Parameters
        ----------
        average
            a.
        """
        made.append(space)
        torch.manual_seed(0)
        return AveragedNetwork(space.is_complex, width=2, depth=2, average=average)

    factory = Registry.factory
    monkeypatch.setattr(
        Registry, "factory", lambda self, kind, name: averaged if name == "drunet" else factory(self, kind, name)
    )
    out = tmp_path / "certificate.json"
    run = cli("certify", "drunet", "--out", out, "--set", "denoiser.average=0.4", *SMALL)
    assert run.code == 0, run.err
    assert {s.is_complex for s in made} == {False, True}
    assert "averaged (0.4)" in run.out
    document = json.loads(out.read_bytes())
    assert {m["modality"] for m in document["modalities"]} == {"ct", "mri"}
    for modality in document["modalities"]:
        assert [r["verdict"] for r in modality["reports"]] == ["certified", "certified"]
        assert all(r["lower"] <= 1.001 for r in modality["reports"])
        certified = {a["algorithm"] for a in modality["algorithms"] if a["certified"]}
        assert {"pnp-pgd", "pnp-pgd, damped", "pnp-pdhg", "red-gradient"} <= certified
        assert "pnp-fista" not in certified
        assert all(a["reference"] for a in modality["algorithms"] if a["certified"])
        exact = {a["algorithm"] for a in modality["algorithms"] if a["remedy"] == "solve exactly"}
        assert {"pnp-admm", "pnp-drs"} <= exact  # neither sinograms nor several coils have a closed form


def test_a_false_claim_certifies_no_algorithm(monkeypatch: pytest.MonkeyPatch) -> None:
    class Boasting(AveragedNetwork):
        def _denoise(self, x: Tensor, level: Tensor) -> Tensor:
            return 1.3 * x

    factory = Registry.factory

    def boasting(space: Space) -> Boasting:
        return Boasting(space.is_complex, width=2, depth=2)

    monkeypatch.setattr(
        Registry, "factory", lambda self, kind, name: boasting if name == "drunet" else factory(self, kind, name)
    )
    (found,) = run_certify(
        "drunet", Registry.discover(), modality="ct", sigma=0.1, settings=SMALL[1:], seed=0, out=None
    )
    assert "claimed to be at most 1" in found.reports[0].contradiction
    assert found.reports[0].verdict == "none"
    assert not any(a.judgement.certified for a in found.algorithms)


def test_mistakes_are_one_line(cli: Callable[..., Any], tmp_path: Path) -> None:
    for arguments, told in [
        (("tv-chambole",), "did you mean 'tv-chambolle'"),
        (("tv-chambolle", "--sigma", -1), "--sigma"),
        (("tv-chambolle", "-m", "pet"), "unknown modality"),
        (("tv-chambolle", "-m", "ct", "--set", "prior.lam=1"), "denoiser.KEY"),
        (("tv-chambolle", "-m", "ct", "--set", "denoiser.strenght=1", *SMALL), "strength"),
        (("trained", "-m", "ct", "--set", f"denoiser.path={tmp_path}", *SMALL), str(tmp_path)),
    ]:
        run = cli("certify", *arguments)
        assert run.code == 2, arguments
        assert len(run.err.strip().splitlines()) == 1
        assert told in run.err, run.err
        assert run.out == ""


def test_judgements_name_the_methods_that_run_them() -> None:
    registry = Registry.discover()
    (case, *_) = registry.modality("ct").cases(registry, {}, seed=0, image_shape=(32, 32))
    names = [name for name, _ in judgements(case, AveragedNetwork(False, 2, 2), 0.1)]
    assert set(names) - {"pnp-pgd, damped"} <= set(registry.names("pipeline"))


def test_one_coil_has_an_exact_x_update() -> None:
    registry = Registry.discover()
    (case, *_) = registry.modality("mri").cases(registry, {"name": "mri.fourier2d"}, seed=0, image_shape=(32, 32))
    found = dict(judgements(case, AveragedNetwork(True, 2, 2), 0.1))
    assert {name for name, j in found.items() if not j.certified} == {"pnp-fista", "red-accelerated"}


def test_the_certificate_goes_on_the_card(cli: Callable[..., Any], tmp_path: Path) -> None:
    shipped = Registry.discover().model("ct.ridge")
    folder = tmp_path / "ct.ridge" / "1"
    shutil.copytree(shipped, folder)
    before = replace(read_card(folder), denoiser=())
    run = cli("certify", "ridge", "-m", "ct", "--set", f"denoiser.path={folder}", "--card", "--sigma", 0.05, *SMALL)
    assert run.code == 0, run.err
    after = read_card(folder)
    assert replace(after, denoiser=()) == before
    (found,) = after.denoiser
    assert (found.sigma, found.verdict, found.kind) == (0.05, "certified", "gradient of a function")
    assert found.upper is not None
    assert found.lower <= found.upper
    assert found.algorithms["red-accelerated"].startswith("monotone accelerated gradient descent: ")
    assert found.algorithms["pnp-fista"].startswith("not certified: ")
    assert cli("certify", "tv-chambolle", "-m", "ct", "--card", "--sigma", 0.1, *SMALL).code == 2


def test_levels_stay_in_the_trained_range(cli: Callable[..., Any], tmp_path: Path) -> None:
    """The ridge denoiser for MRI has not seen the higher of the two levels."""
    out = tmp_path / "certificate.json"
    run = cli("certify", "ridge", "-m", "mri", "--out", out, *SMALL)
    assert run.code == 0, run.err
    (modality,) = json.loads(out.read_bytes())["modalities"]
    highest = read_card(Registry.discover().model("mri.ridge")).scope.noise_std[1]
    assert [r["sigma"] for r in modality["reports"]] == [0.02, pytest.approx(min(0.1, highest))]
