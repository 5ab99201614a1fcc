"""Trained models on disk: what is written, and everything that must not be loaded."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import struct
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from priorloom.card import (
    Architecture,
    Card,
    Facts,
    Learning,
    Metric,
    Scope,
    Stability,
    SubjectFacts,
    outside,
    ranges,
    read_card,
)  # fmt: skip
from priorloom.constraints import StepSize
from priorloom.dense import DenseOperator
from priorloom.errors import InputError, OutputError
from priorloom.models import load_model, newest_version, save_model
from priorloom.operator import LinearOperator
from priorloom.registry import Registry
from priorloom.steps import ISTA
from priorloom.unrolled import Unrolled, repeat

OPERATOR = DenseOperator(torch.randn(6, 4, generator=torch.Generator().manual_seed(0)))


def landweber(operator: LinearOperator, *, layers: int = 2, shared: bool = False) -> Unrolled:
    """Gradient steps, and a buffer that is stored beside one that is not."""
    made = Unrolled(repeat(lambda: ISTA(StepSize()), layers, shared=shared), start="zero", back="adjoint")
    made.register_buffer("mean", torch.zeros(3))
    made.register_buffer("scratch", torch.zeros(5), persistent=False)
    return made


@pytest.fixture
def registry(discover: Callable[..., Registry]) -> Registry:
    return discover(toy={"architectures": {"landweber": landweber}})


def facts(**changes: Any) -> Facts:
    made = Facts(
        name="toy.landweber",
        version="1",
        modality="toy",
        architecture=Architecture("landweber", {"layers": 2}),
        scope=Scope("toy.dense", "real", "real", {"rows": (64.0, 64.0), "beam": ("fan", "parallel")}, (0.01, 0.1)),
        learning=Learning(
            (SubjectFacts("a", "src", "CC0"), SubjectFacts("b", "src", "CC0")), (SubjectFacts("c", "other", "MIT"),),
            "mse", 7, 100, 3.5,
        ),
        metrics=(Metric("psnr", 31.5, 12, "subject c"),),
        certificate=Stability(1.0, "gradient steps do not expand"),
    )  # fmt: skip
    return replace(made, **changes)


def trained(**settings: Any) -> Unrolled:
    model = landweber(OPERATOR, **settings)
    with torch.no_grad():
        for i, tensor in enumerate([*model.parameters(), model.mean]):
            tensor.fill_(0.25 + i)
    return model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "toy.landweber" / "1"
    save_model(path, trained(), facts())
    return path


def rewrite(folder: Path, tensors: dict[str, Tensor] | bytes, **changes: Any) -> None:
    """Other weights, with a card that vouches for the file."""
    content = tensors if isinstance(tensors, bytes) else save(tensors)
    (folder / "model.safetensors").write_bytes(content)
    edit(folder, sha256=hashlib.sha256(content).hexdigest(), bytes=len(content), **changes)


def edit(folder: Path, **changes: Any) -> None:
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps({**card, **changes}))


def test_a_model_comes_back_as_it_was(folder, registry):
    model = load_model(folder, registry, OPERATOR)
    y = OPERATOR(torch.ones(2, 4))
    torch.testing.assert_close(model(OPERATOR, y, 0.1), trained()(OPERATOR, y, 0.1).detach(), rtol=0, atol=0)
    torch.testing.assert_close(model.mean, torch.full((3,), 2.25))
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())


def test_the_card_says_what_is_in_the_file(folder):
    card = read_card(folder)
    content = (folder / "model.safetensors").read_bytes()
    assert (card.bytes, card.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert {n: (t.shape, t.dtype) for n, t in card.tensors.items()} == {
        "layers.0.step_size.free": ((), "float32"),
        "layers.1.step_size.free": ((), "float32"),
        "mean": ((3,), "float32"),
    }
    assert load_file(folder / "model.safetensors").keys() == card.tensors.keys()
    assert card.parameters == 2
    assert card.versions["torch"] == torch.__version__.partition("+")[0] or card.versions["torch"] == torch.__version__
    assert "not for diagnosis" in card.notice
    assert card.data == "a (CC0), b (CC0)"


def test_shared_layers_are_stored_once(tmp_path, registry):
    shared = facts(architecture=Architecture("landweber", {"layers": 3, "shared": True}))
    card = save_model(tmp_path / "1", trained(layers=3, shared=True), shared)
    assert set(card.tensors) == {"layers.0.step_size.free", "mean"}
    model = load_model(tmp_path / "1", registry, OPERATOR)
    assert model.layers[0] is model.layers[2]
    assert float(model.layers[2].step_size.free) == 0.25


def test_a_model_follows_the_precision_of_the_operator(folder, registry):
    A = DenseOperator(OPERATOR.matrix.double())
    assert load_model(folder, registry, A)(A, A(torch.ones(4, dtype=torch.float64)), 0.1).dtype == torch.float64


def test_what_cannot_be_kept_is_not_written(tmp_path):
    model = trained()
    model.mean[1] = torch.inf
    with pytest.raises(InputError, match="tensor 'mean' of the model: expected finite numbers"):
        save_model(tmp_path / "1", model, facts())
    assert not list(tmp_path.iterdir())


def test_a_version_never_changes(folder):
    before = (folder / "model.safetensors").read_bytes()
    with pytest.raises(OutputError, match=r"expected a new or empty folder.*choose another version"):
        save_model(folder, landweber(OPERATOR), facts())
    assert (folder / "model.safetensors").read_bytes() == before
    assert [p.name for p in folder.parent.iterdir()] == ["1"]


def refused(folder: Path, registry: Registry, message: str, operator: LinearOperator = OPERATOR) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_model(folder, registry, operator)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("place", [0, 5, 30, -1])
def test_a_flipped_byte(folder, registry, place):
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[place] ^= 0x40
    path.write_bytes(content)
    refused(folder, registry, "expected sha256|expected the header of a safetensors file")


def test_a_file_that_is_cut_off_or_longer(folder, registry):
    path = folder / "model.safetensors"
    content = path.read_bytes()
    for wrong in (content[:-1], content + b"\0"):
        path.write_bytes(wrong)
        refused(folder, registry, rf"expected {len(content)} bytes, got {len(wrong)}; the file is damaged")
    path.write_bytes(b"")
    refused(folder, registry, "expected the header of a safetensors file")


class Bomb:
    """What unpickling would run."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.abort, ())


@pytest.mark.parametrize("protocol", [2, 4, "torch"])
def test_a_pickle_under_another_name(folder, registry, protocol, tmp_path):
    if protocol == "torch":
        torch.save({"mean": Bomb()}, tmp_path / "x")
        content = (tmp_path / "x").read_bytes()
    else:
        content = pickle.dumps(Bomb(), protocol=protocol)
    rewrite(folder, content)
    refused(folder, registry, "got a pickle or an archive, which may run code")


def test_a_header_whose_length_looks_like_a_pickle_is_none(folder, registry):
    # 0x80 is the first byte of a pickle, and of every header whose length is 128 modulo 256.
    content = (folder / "model.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    wanted = length + (0x80 - length) % 0x100
    padded = struct.pack("<Q", wanted) + content[8 : 8 + length].ljust(wanted) + content[8 + length :]
    rewrite(folder, padded)
    assert padded[0] == 0x80
    assert float(load_model(folder, registry, OPERATOR).mean[0]) == 2.25


def test_a_header_beyond_the_file(folder, registry):
    content = (folder / "model.safetensors").read_bytes()
    rewrite(folder, struct.pack("<Q", 2**40) + content[8:])
    refused(folder, registry, "expected the header of a safetensors file")
    header = b'{"mean":{"dtype":"F32","shape":[1000000,1000000],"data_offsets":[0,4]}}'
    rewrite(folder, struct.pack("<Q", len(header)) + header + b"\0\0\0\0")
    refused(folder, registry, r"expected tensors within \d+ bytes, got 1000000000000 numbers declared")


@pytest.mark.parametrize(
    "shape",
    ['["a", "b"]', '"aaaa"', "[[0], 1000000]", "null", "7", "{}", "[true]", "[-1, -4]", "[1e3]", "[99999999999999]",
     "[1, 1, 1, 1, 1, 1, 1, 1, 1]", f"[{'9' * 4000}, {'9' * 4000}]", '["aaaa", 1000000000000]'],
    ids=lambda text: text[:20],
)  # fmt: skip
def test_shapes_that_are_none(folder, registry, shape):
    header = f'{{"mean":{{"dtype":"F32","shape":{shape},"data_offsets":[0,4]}}}}'.encode()
    rewrite(folder, struct.pack("<Q", len(header)) + header + b"\0\0\0\0")
    refused(folder, registry, "expected the header of a safetensors file, got (ValueError|TypeError)")


def test_many_axes_are_not_multiplied(folder, registry):
    header = f'{{"mean":{{"dtype":"F32","shape":[{",".join(["64000000"] * 200_000)}],"data_offsets":[0,4]}}}}'.encode()
    rewrite(folder, struct.pack("<Q", len(header)) + header + b"\0\0\0\0")
    began = time.process_time()
    refused(folder, registry, "expected the header of a safetensors file")
    assert time.process_time() - began < 1


def test_a_card_cannot_vouch_for_a_network_that_its_file_does_not_hold(folder, registry):
    """Else its settings could ask for more than the machine has."""
    declared = {"mean": {"shape": [10**6, 10**6], "dtype": "float32"}}
    edit(folder, tensors=declared, architecture={"name": "landweber", "settings": {"layers": 10_000}})
    refused(folder, registry, r"expected tensors within \d+ bytes, got 1000000000000 numbers declared")


def stored(folder: Path) -> dict[str, Tensor]:
    return dict(load_file(folder / "model.safetensors"))


def test_missing_and_extra_tensors(folder, registry):
    tensors = stored(folder)
    rewrite(folder, {n: t for n, t in tensors.items() if n != "mean"})
    refused(folder, registry, "expected tensor 'mean' in the file, got 1 missing")
    rewrite(folder, {**tensors, "more": torch.zeros(1)})
    refused(folder, registry, "expected tensor 'more' in the card")
    rewrite(folder, tensors)
    edit(folder, tensors={"mean": {"shape": [3], "dtype": "float32"}})
    refused(folder, registry, r"expected tensor 'layers.0.step_size.free' in the card, got 2 missing")


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("mean", torch.zeros(4), r"tensor 'mean' of model .*: expected \[3\] float32 \(the card\), got \[4\] float32"),
        ("mean", torch.zeros(3, dtype=torch.int64), r"got \[3\] int64 in the file"),
        ("mean", torch.zeros(3, dtype=torch.float16), r"got \[3\] torch.float16 in the file"),
        ("mean", torch.tensor([0.0, torch.nan, 1.0]), "tensor 'mean' of model .*: expected finite numbers"),
        ("layers.1.step_size.free", torch.tensor(-torch.inf), "expected finite numbers"),
    ],
)  # fmt: skip
def test_wrong_tensors(folder, registry, name, tensor, message):
    rewrite(folder, {**stored(folder), name: tensor})
    refused(folder, registry, message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": {"name": "landwebber", "settings": {}}}, "got 'landwebber'; did you mean 'landweber'"),
        ({"architecture": {"name": "os:abort", "settings": {}}}, "architecture.name in .*card.json"),
        ({"architecture": {"name": "landweber", "settings": {"layer": 2}}}, "unknown parameter 'layer'"),
        ({"architecture": {"name": "landweber", "settings": {"layers": 3}}}, "expected tensor 'layers.2.step_size"),
        ({"architecture": {"name": "landweber", "settings": {"layers": 10_000}}}, "expected a network of 3 tensors"),
        ({"architecture": {"name": "landweber", "settings": {"layers": 10**12}}}, "architecture.settings.layers"),
        ({"name": "../../landweber"}, "name in .*card.json"),
        ({"name": "ct.landweber"}, "does not begin with its modality 'toy'"),
        ({"version": "../1"}, "version in .*card.json"),
        ({"schema": 2}, "schema in .*card.json"),
        ({"sha256": "0" * 64}, "expected sha256 0000"),
        ({"bytes": -1}, "bytes in .*card.json"),
        ({"tensors": {"mean": {"shape": [10**30], "dtype": "float32"}}}, "tensors.mean.shape.0 in .*card.json"),
        ({"tensors": {"mean": {"shape": [1] * 9, "dtype": "float32"}}}, "tensors.mean.shape in .*card.json"),
        ({"surprise": 1}, "surprise in .*card.json"),
        ({"parameters": "many"}, "parameters in .*card.json"),
        ({"parameters": 3}, r"of model 'toy.landweber': expected 2 \(the architecture\), got 3 \(the card\)"),
        ({"notice": "A certified medical device."}, "the notice is not"),
        ({"versions": {"torch": "2\x1b[31m\n"}}, "versions.torch in .*card.json"),
        ({"metrics": [{"name": "psnr", "value": float("nan"), "cases": 1, "on": "x"}]}, "metrics.0.value in"),
    ],
)  # fmt: skip
def test_cards_that_are_refused(folder, registry, changes, message):
    edit(folder, **changes)
    refused(folder, registry, message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ranges": {"views": []}}, "scope.ranges.views"),
        ({"ranges": {"views": [60.0]}}, "scope.ranges.views"),
        ({"ranges": {"views": [30.0, 60.0, 90.0]}}, "scope.ranges.views"),
        ({"ranges": {"views": [60.0, 30.0]}}, "the lowest number 60 is above the highest 30"),
        ({"ranges": {"views": [30.0, float("inf")]}}, "scope.ranges.views"),
        ({"ranges": {"views": ["parallel", 60.0]}}, "scope.ranges.views"),
        ({"noise_std": [0.2, 0.1]}, "the lowest number 0.2 is above the highest 0.1"),
        ({"noise_std": [float("nan"), 0.1]}, "scope.noise_std"),
    ],
)  # fmt: skip
def test_ranges_that_are_none(folder, registry, changes, message):
    scope = json.loads((folder / "card.json").read_text())["scope"]
    edit(folder, scope={**scope, **changes})
    refused(folder, registry, message)


def test_a_subject_on_both_sides_of_the_split(folder, registry):
    learning = json.loads((folder / "card.json").read_text())["learning"]
    edit(folder, learning={**learning, "validation": learning["training"]})
    refused(folder, registry, "subjects on both sides of the split: a, b")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"schema": 1}'])
def test_what_is_no_card(folder, registry, content):
    (folder / "card.json").write_bytes(content)
    refused(folder, registry, "card.json: expected a model card|in .*card.json: expected a model card")


def test_sizes_are_looked_at_first(folder, registry):
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(2**40)  # a hole: nothing could read it all
    refused(folder, registry, "expected at most 64000000 bytes, got 1099511627776")
    with (folder / "card.json").open("r+b") as file:
        file.truncate(2**40)
    refused(folder, registry, "expected at most 1048576 bytes, got 1099511627776")


@pytest.mark.parametrize("name", ["model.safetensors", "card.json"])
def test_links_and_pipes_are_not_followed(folder, registry, name, tmp_path):
    outside_it = tmp_path / "elsewhere"
    (folder / name).rename(outside_it)
    (folder / name).symlink_to(outside_it)
    refused(folder, registry, "expected a file of a trained model, got a link")
    (folder / name).unlink()
    os.mkfifo(folder / name)
    refused(folder, registry, "expected a file, got a directory or a device")
    (folder / name).unlink()
    refused(folder, registry, "expected a file of a trained model, got No such file")


def test_another_number_type(folder, registry):
    A = DenseOperator(OPERATOR.matrix.to(torch.complex64))
    refused(folder, registry, "expected real images, got complex ones; it was trained for toy.dense", A)


def test_the_newest_version_by_number(tmp_path, discover):
    for name in ("1", "2", "10", "2.9", "latest", ".2.tmp"):
        (tmp_path / name).mkdir()
    (tmp_path / "99").symlink_to(tmp_path / "1")
    assert newest_version(tmp_path).name == "10"
    registry = discover(toy={"models": {"toy.landweber": lambda: tmp_path}})
    assert registry.model("toy.landweber") == tmp_path / "10"
    with pytest.raises(InputError, match=r"unknown model 'toy.landwebber'; did you mean 'toy.landweber'"):
        registry.model("toy.landwebber")
    with pytest.raises(InputError, match=r"expected a folder of versions such as 1 or 1.2, got none"):
        newest_version(tmp_path / "1")


def test_ranges_of_a_training():
    found = ranges([{"views": 60, "beam": "fan"}, {"views": 30, "beam": "parallel"}])
    assert found == {"views": (30, 60), "beam": ("fan", "parallel")}


@pytest.mark.parametrize(
    ("described", "noise", "said"),
    [
        ({"rows": 64, "beam": "fan"}, 0.05, []),
        ({"rows": 64.5, "beam": "fan"}, 0.12, []),  # a percent, and a quarter of the noise, is inside
        ({"rows": 32, "beam": "fan"}, 0.05, ["rows 32: the model was trained with 64; expect less"]),
        ({"rows": 64, "beam": "cone"}, 0.05, ["beam cone: the model was trained with fan or parallel; expect less"]),
        (
            {"rows": 64, "beam": "fan"}, 0.5,
            ["noise 0.5 (normalised): the model was trained with 0.01 to 0.1; expect less"],
        ),
        ({"rows": 64}, 0.05, ["the operator does not tell its beam: the model may not be made for it"]),
    ],
)  # fmt: skip
def test_what_is_outside_a_training_is_said_in_range_terms(described, noise, said):
    assert outside(facts().scope, described, noise) == said


def test_the_card_is_plain_and_keeps_every_fact(folder):
    card = read_card(folder)
    given = facts()
    assert all(getattr(card, name) == getattr(given, name) for name in Facts.__dataclass_fields__)
    assert isinstance(card, Card)
    assert "2 learned numbers; trained on a (CC0), b (CC0); psnr 31.5 (12 cases: subject c)" in card.summary
    assert isinstance(SimpleNamespace(**json.loads((folder / "card.json").read_text())).scope["noise_std"], list)
