"""The training config: what it refuses, in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from priorloom.errors import InputError
from priorloom.train.config import load


def refused(path: Path, *assignments: str) -> str:
    with pytest.raises(InputError) as caught:
        load(path, assignments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_it_is_read(config: Any, tmp_path: Path) -> None:
    plan = load(config(), ["optimiser.learning_rate=2e-3", "data.train.0.weight=2", "architecture.layers=3"])
    assert plan.optimiser_settings.learning_rate == 2e-3
    assert plan.train[0].weight == 2
    assert plan.architecture_settings["layers"] == 3
    assert Path(plan.data_root) == tmp_path
    assert Path(load(config(), ["data_root=sub"]).data_root) == tmp_path / "sub"
    assert Path(load(config(), ["data_root=/elsewhere"]).data_root) == Path("/elsewhere")


@pytest.mark.parametrize(
    ("assignment", "text"),
    [
        ("step=3", "did you mean 'steps'"),
        ("optimiser.learning_rat=3", "did you mean 'learning_rate'"),
        ("data.trains=[]", "did you mean 'train'"),
        ("data.train.0.weights=2", "did you mean 'weight'"),
        ("data.train.1.weight=2", "a number below 1"),
        ("data.train=[]", "data.train in the config: expected at least one subject"),
        ("data={}", "needs parameter 'train'"),
        ("data.validation=[{subject: ellipses, phantom: foam}]", "subject 'ellipses': expected one side of the split"),
        ("data.train=[{subject: a, phantom: foam}, {subject: a, phantom: foam}]", "one entry"),
        ("data.train=[{subject: a}]", "one of files, phantom and scan"),
        ("data.train=[{subject: a, phantom: foam, files: b}]", "files and phantom"),
        ("data.train=[3]", "dict"),
        ("steps=0", "at least 1"),
        ("steps=many", "expected int"),
        ("batch_size=true", "expected int"),
        ("image_shape=[4, 4]", "at least 8 pixels"),
        ("image_shape=[100000, 100000]", "pixels in a batch"),
        ("patience=0", "at least 1, or null"),
        ("seed=-1", "0 to 2147483647"),
        ("optimiser.ema=1", "[0, 1)"),
        ("optimiser.learning_rate=-1", "a positive number"),
        ("optimiser.learning_rate=.inf", "a positive number"),
        ("optimiser.precision=16", "precision"),
        ("optimiser.schedule=linear", "schedule"),
        ("architecture={}", "architecture.name"),
        ("steps", "KEY=VALUE"),
        ("steps.more=1", "settings in steps"),
        ("steps=[", "a YAML value"),
    ],
)
def test_what_it_refuses(assignment: str, text: str, config: Any) -> None:
    assert text in refused(config(), assignment)


@pytest.mark.parametrize(
    ("train", "validation"),
    [
        ("{files: a.npy}", "{files: a.npy}"),
        ("{files: a.npy}", "{files: sub/../a.npy}"),
        ("{files: a.npy}", "{files: link.npy}"),
        ("{files: sub}", "{files: sub/b.npy}"),
        ("{files: sub/b.npy}", "{files: ./sub/}"),
        ("{files: sub}", "{files: inside}"),
        ("{scan: a.npz}", "{scan: link.npz}"),
        ("{scan: sub/b.npz}", "{files: .}"),
    ],
)
def test_a_file_on_both_sides_under_two_names(train: str, validation: str, config: Any, tmp_path: Path) -> None:
    (tmp_path / "sub" / "deep").mkdir(parents=True)
    (tmp_path / "inside").symlink_to(tmp_path / "sub" / "deep")
    for ending in ("npy", "npz"):
        (tmp_path / f"a.{ending}").touch()
        (tmp_path / f"link.{ending}").symlink_to(tmp_path / f"a.{ending}")
    sides = (f"[{{subject: {name}, {given[1:]}]" for name, given in (("one", train), ("two", validation)))
    text = refused(
        config(), *(f"data.{side}={value}" for side, value in zip(("train", "validation"), sides, strict=True))
    )
    assert "subjects 'one' and 'two': expected files of their own on each side" in text


def test_files_beside_each_other_are_two_subjects(config: Any, tmp_path: Path) -> None:
    sides = ["data.train=[{subject: one, files: sub}]", "data.validation=[{subject: two, files: sub-2}]"]
    assert load(config(), sides).validation[0].files == "sub-2"


def test_files_that_are_no_config(tmp_path: Path) -> None:
    assert "No such file" in refused(tmp_path / "absent.yaml")
    assert "a directory" in refused(tmp_path)
    file = tmp_path / "a.yaml"
    for content, text in (("", "got nothing"), ("[1]", "a mapping"), ("a: [", "YAML"), ("\xff", "YAML")):
        file.write_bytes(content.encode("latin-1"))
        assert text in refused(file)
    bomb = "a: &a [x, x]\n" + "".join(
        f"{b}: &{b} [*{a}, *{a}, *{a}, *{a}, *{a}]\n" for a, b in zip("abcdefghi", "bcdefghij", strict=True)
    )
    file.write_text(bomb)
    assert "at most" in refused(file)
