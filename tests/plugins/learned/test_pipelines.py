"""Methods that run trained models: on which cases, with which evidence, and when they refuse."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import priorloom_learned
from priorloom import Case, Registry
from priorloom.card import Architecture, Facts, Learning, Scope, Stability, SubjectFacts, ranges, read_card
from priorloom.checking import check_component
from priorloom.comparison import default_methods
from priorloom.config import Plan, make_methods
from priorloom.errors import InputError
from priorloom.lipschitz import certificate
from priorloom.models import load_model, number_type, save_model
from priorloom.reconstruction import Method, reconstruct

REGISTRY = Registry.discover()
Train = Callable[..., Path]


def ct_case(views: int = 12) -> Case:
    settings: dict[str, Any] = {"images": ("ellipses",), "image_shape": (24, 24)}
    return REGISTRY.modality("ct").cases(REGISTRY, {"views": views}, seed=0, **settings)[0]


def mri_case() -> Case:
    return REGISTRY.modality("mri").cases(REGISTRY, {}, seed=0, image_shape=(24, 24), coils=3)[0]


@pytest.fixture
def train(tmp_path: Path) -> Train:
    """Random weights, with a card that says they were made for a case."""

    def make(name: str, case: Case, architecture: str, **settings: Any) -> Path:
        torch.manual_seed(0)
        A = case.operator
        network = REGISTRY.architecture(architecture, A, settings)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn(parameter.shape), alpha=0.01)
        assert case.noise_std is not None
        noise = case.noise_std / REGISTRY.modality(case.modality).scale(case)
        facts = Facts(
            name=name, version="1", modality=case.modality, architecture=Architecture(architecture, settings),
            scope=Scope(
                f"{case.modality}.x", number_type(A.domain), number_type(A.range),
                ranges([REGISTRY.modality(case.modality).describe(A)]), (noise / 2, noise * 2),
            ),
            learning=Learning((SubjectFacts("a", "phantoms", "none needed"),), (), "mse", 0, 1, 0.1),
            metrics=(), certificate=Stability(None, "none is known"),
        )  # fmt: skip
        folder = tmp_path / name / "1"
        save_model(folder, network, facts)
        return folder

    return make


def run(case: Case, method: str, folder: Path) -> Any:
    return reconstruct(case, Method(method, {"model.path": str(folder)}), registry=REGISTRY)


@pytest.mark.parametrize(
    ("case", "method", "architecture", "settings"),
    [
        (ct_case, "learned-primal-dual", "learned-primal-dual", {"layers": 2, "width": 4}),
        (ct_case, "fbp-unet", "unet", {"width": 4, "levels": 1}),
        (mri_case, "learned-proximal-gradient", "learned-proximal-gradient", {"layers": 2, "width": 4}),
        (mri_case, "modl", "modl", {"layers": 2, "width": 4, "depth": 2}),
        (mri_case, "zero-filled-unet", "unet", {"width": 4, "levels": 1}),
    ],
)
def test_a_method_is_its_trained_network_on_the_normalised_case(train, case, method, architecture, settings):
    case = case()
    folder = train(f"{case.modality}.{method}", case, architecture, **settings)
    got = run(case, method, folder)
    inner = case.scaled(got.scale)
    network = load_model(folder, REGISTRY, case.operator)
    torch.testing.assert_close(got.image, network(inner.operator, inner.measurement, inner.noise_std) * got.scale)
    assert (got.kind, got.tuned, got.certificate, got.converged) == ("learned", "learned", "none", None)
    assert got.iterations == len(network.layers)
    assert got.warnings == ()
    card = read_card(folder)
    assert (got.model.name, got.model.version, got.model.parameters) == (card.name, "1", card.parameters)
    assert got.model.data == "a (none needed)"
    assert "none is known" in got.model.stability
    assert got.parameters["model.name"] == card.name
    any_architecture = run(case, "learned", folder.parent)  # the folder of versions will do
    torch.testing.assert_close(any_architecture.image, got.image, rtol=0, atol=0)


def test_outside_its_range_a_model_warns(train, caplog):
    folder = train("ct.learned-ista", ct_case(), "learned-ista", layers=1)
    with caplog.at_level(logging.WARNING):
        got = run(ct_case(views=8), "learned-ista", folder)
    assert got.warnings == ("views 8: the model was trained with 12; expect less",)
    assert "learned-ista on ellipses: views 8: the model was trained with 12" in caplog.text
    case = ct_case()
    loud = replace(case, noise_std=10 * case.noise_std)
    (warning,) = run(loud, "learned-ista", folder).warnings
    assert warning.startswith("noise ")


def edit(folder: Path, **changes: Any) -> None:
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps({**card, **changes}))


def test_the_bound_that_is_shown_is_that_on_the_operator_at_hand(train):
    """With the direct method in the place of the adjoint it depends on the operator, and the card's is of another."""
    case = ct_case()
    folder = train("ct.mine", case, "learned-proximal-gradient", layers=1, width=2, depth=2)
    edit(folder, certificate={"lipschitz": 12345.0, "reason": "on an operator of training"})
    shown = []
    for views in (12, 3):
        case = ct_case(views)
        inner = case.scaled(REGISTRY.modality("ct").scale(case))
        network = load_model(folder, REGISTRY, case.operator)
        problem = network.problem(inner.operator, inner.measurement, inner.noise_std)
        bound = certificate(network.layers, problem).bound
        shown.append(run(case, "learned", folder).model.stability)
        assert shown[-1].startswith(f"Lipschitz bound {bound:.3g} (from the starting image to the last: ")
    assert shown[0] != shown[1]


def test_the_safeguard_has_no_bound(train):
    folder = train("ct.learned-ista", ct_case(), "learned-ista", layers=1)
    edit(folder, certificate={"lipschitz": 1.0, "reason": "proven"})
    assert run(ct_case(), "learned-ista", folder).model.stability.startswith("Lipschitz bound 1 ")
    edit(folder, safeguarded=True)
    assert run(ct_case(), "learned-ista", folder).model.stability.startswith("no Lipschitz bound: the safeguard")


def test_models_that_do_not_fit_are_refused(train):
    folder = train("ct.learned-ista", ct_case(), "learned-ista", layers=1)
    with pytest.raises(InputError, match=r"model 'ct.learned-ista' on a case of mri: expected a case of ct, got mri"):
        run(mri_case(), "learned-ista", folder)
    with pytest.raises(InputError, match="expected architecture 'modl', got 'learned-ista'; use method 'learned'"):
        run(ct_case(), "modl", folder)
    with pytest.raises(InputError, match="method 'fbp-unet': expected a case of ct, got mri"):
        run(mri_case(), "fbp-unet", folder)
    both = Method("learned", {"model.path": str(folder), "model.name": "ct.learned-ista"})
    with pytest.raises(InputError, match=r"model.name and model.path: expected one of them, got both"):
        reconstruct(ct_case(), both, registry=REGISTRY)


def test_without_a_model_there_is_one_line_before_anything_runs():
    with pytest.raises(InputError, match=r"method 'variational-network' on ct: expected a trained model, got none"):
        make_methods(Plan(methods=(Method("fbp"), Method("variational-network"))), REGISTRY, ["ct"])
    with pytest.raises(InputError, match=r"unknown model 'ct.nothing'"):
        reconstruct(ct_case(), Method("learned", {"model.name": "ct.nothing"}), registry=REGISTRY)


@pytest.fixture
def shipped(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """The registry when a model of learned-ista is in the package, and none else."""
    train("ct.learned-ista", ct_case(), "learned-ista", layers=1)
    monkeypatch.setattr(priorloom_learned, "__file__", str(tmp_path / "__init__.py"))
    (tmp_path / "models").mkdir()
    (tmp_path / "ct.learned-ista").rename(tmp_path / "models" / "ct.learned-ista")
    return Registry.discover()


def test_a_shipped_model_joins_the_default_comparison_of_its_modality(shipped):
    assert "ct.learned-ista" in shipped.names("model")
    assert default_methods(shipped, "ct")[-1] == "learned-ista"
    assert "learned-ista" not in default_methods(shipped, "mri")
    got = reconstruct(ct_case(), "learned-ista", registry=shipped)
    assert got.model.name == "ct.learned-ista"
    named = reconstruct(ct_case(), Method("learned", {"model.name": "ct.learned-ista"}), registry=shipped)
    torch.testing.assert_close(named.image, got.image, rtol=0, atol=0)
    with pytest.raises(InputError, match=r"registered for ct: ct.learned-ista"):
        reconstruct(ct_case(), "modl", registry=shipped)


def test_weights_of_another_model_under_a_registered_name_are_refused(shipped, tmp_path):
    card = tmp_path / "models" / "ct.learned-ista" / "1" / "card.json"
    card.write_text(card.read_text().replace("ct.learned-ista", "ct.other"))
    with pytest.raises(InputError, match=r"expected model 'ct.learned-ista', got 'ct.other'"):
        reconstruct(ct_case(), "learned-ista", registry=shipped)


def no_card(folder: Path) -> None:
    (folder / "card.json").write_text("{}")


def damaged(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")


def not_finite(folder: Path) -> None:
    weights = folder / "model.safetensors"
    content = weights.read_bytes()[:-4] + b"\x00\x00\xc0\x7f"
    weights.write_bytes(content)
    edit(folder, sha256=hashlib.sha256(content).hexdigest())


def of_another_architecture(folder: Path) -> None:
    edit(folder, architecture={"name": "modl", "settings": {}})


def gone(folder: Path) -> None:
    folder.rename(folder.with_name("old"))


@pytest.mark.parametrize("spoil", [no_card, damaged, not_finite, of_another_architecture, gone])
def test_a_broken_model_is_left_out_of_the_default_comparison_alone(shipped, tmp_path, spoil, caplog):
    spoil(tmp_path / "models" / "ct.learned-ista" / "1")
    with caplog.at_level(logging.WARNING):
        rows = make_methods(Plan(), shipped, ["ct"])["ct"]
    assert [r.pipeline for r in rows] == list(shipped.modality("ct").methods)
    assert "left out: method 'learned-ista' on ct: " in caplog.text
    with pytest.raises(InputError) as caught:
        reconstruct(ct_case(), "learned-ista", registry=shipped)
    assert "\n" not in str(caught.value)


def test_a_method_without_a_model_passes_the_kit_and_says_that_nothing_ran():
    (check,) = check_component(REGISTRY, "pipeline", "learned-admm-exact", {})[:1]
    assert "no trained model" in check.name


@pytest.mark.parametrize("modality", ["ct", "mri"])
def test_cases_of_files(modality, tmp_path):
    stored = np.random.default_rng(0).uniform(0, 100, (40, 50))
    np.save(tmp_path / "my slice.npy", stored)
    files = (tmp_path / "my slice.npy",)
    made = REGISTRY.modality(modality).cases(REGISTRY, {}, seed=1, files=files, image_shape=(20, 20))
    again = REGISTRY.modality(modality).cases(REGISTRY, {}, seed=1, files=files, image_shape=(20, 20))
    (case,) = made
    assert case.name == "my-slice"
    assert torch.equal(case.measurement, again[0].measurement)
    averaged = torch.from_numpy(stored[:, 5:45].reshape(20, 2, 20, 2).mean((1, 3))).float()
    if modality == "ct":
        torch.testing.assert_close(case.truth, 0.0206 * (1 + averaged / 1000))
        assert case.metadata["pixel size [mm]"] == 1.0
    else:
        torch.testing.assert_close(case.truth.abs(), averaged / averaged.max())
    assert "40 x 40 pixels averaged to 20 x 20" in case.metadata["source"]
    small = REGISTRY.modality(modality).cases(REGISTRY, {}, seed=1, files=files, image_shape=(64, 64))
    assert small[0].truth.shape == (40, 50)
    with pytest.raises(InputError, match=r"case.files: .*none.npy: expected an image file, got none there"):
        REGISTRY.modality(modality).cases(REGISTRY, {}, seed=1, files=(tmp_path / "none.npy",))
