"""The studio's root: nothing outside of it is listed, read or written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from priorloom.errors import InputError, OutputError
from priorloom_apps.studio import files
from priorloom_apps.studio.files import Root

SUFFIXES = (".npz", ".cfl")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A root with a scan, a folder, and links that lead out of it; a secret beside it."""
    root = tmp_path / "root"
    (root / "inner").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.npz").write_bytes(b"secret")
    for name in ("scan.npz", "inner/deep.CFL", "notes.txt", ".hidden.npz"):
        (root / name).write_bytes(b"x")
    (root / "link.npz").symlink_to(tmp_path / "outside" / "secret.npz")
    (root / "way").symlink_to(tmp_path / "outside")
    (root / "near.npz").symlink_to(root / "scan.npz")
    return root


def test_only_scans_and_folders_that_lie_inside_are_listed(place: Path) -> None:
    root = Root(place)
    listing = root.list(".", SUFFIXES)
    assert listing.folders == ("inner",)
    assert listing.files == ("near.npz", "scan.npz")
    assert root.list("inner", SUFFIXES).files == ("deep.CFL",)
    assert not listing.more


def test_a_long_folder_is_listed_in_part(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "ENTRIES", 2)
    listing = Root(place).list(".", SUFFIXES)
    assert listing.more
    assert len(listing.folders) + len(listing.files) == 2


@pytest.mark.parametrize(
    "name",
    [
        "../outside/secret.npz",
        "link.npz",
        "way/secret.npz",
        "inner/../../outside/secret.npz",
        "/etc/passwd",
        "a\0b",
        "..",
    ],
)
def test_what_leads_out_is_refused(place: Path, name: str) -> None:
    root = Root(place)
    for use in (root.inside, root.scan, lambda n: root.list(n, SUFFIXES), lambda n: root.save(n, "", replace=True)):
        with pytest.raises(InputError, match=r"leads out|name under"):
            use(name)
    assert (place.parent / "outside" / "secret.npz").read_bytes() == b"secret"
    assert sorted(os.listdir(place.parent / "outside")) == ["secret.npz"]


def test_a_companion_that_leads_out_is_refused(place: Path) -> None:
    (place / "scan.hdr").symlink_to(place.parent / "outside" / "secret.npz")
    with pytest.raises(InputError, match=r"leads out"):
        Root(place).scan("scan.npz")


def test_a_root_that_is_a_link_is_its_target(place: Path) -> None:
    (place.parent / "alias").symlink_to(place)
    root = Root(place.parent / "alias")
    assert root.scan("scan.npz") == place / "scan.npz"
    assert root.scan(place.parent / "alias" / "scan.npz") == place / "scan.npz"
    assert root.name(place / "inner") == "inner"


def test_the_root_and_a_scan_must_be_there(place: Path) -> None:
    for folder in (place / "nothing", place / "scan.npz"):
        with pytest.raises(InputError, match="--root"):
            Root(folder)
    for name, got in (("nothing.npz", "nothing there"), ("inner", "a folder")):
        with pytest.raises(InputError, match=got):
            Root(place).scan(name)


def test_a_config_is_written_whole_and_replaced_only_when_asked(place: Path) -> None:
    root = Root(place)
    assert root.save("inner/a.yaml", "seed: 1\n") == place / "inner" / "a.yaml"
    with pytest.raises(OutputError, match="one that exists"):
        root.save("inner/a.yaml", "seed: 2\n")
    assert (place / "inner" / "a.yaml").read_text() == "seed: 1\n"
    root.save("inner/a.yaml", "seed: 2\n", replace=True)
    assert (place / "inner" / "a.yaml").read_text() == "seed: 2\n"
    assert sorted(os.listdir(place / "inner")) == ["a.yaml", "deep.CFL"]


@pytest.mark.parametrize(
    ("name", "problem"), [("scan.npz", ".yaml"), ("none/a.yaml", "a folder that is there"), ("", ".yaml")]
)
def test_a_config_has_a_name_and_a_folder(place: Path, name: str, problem: str) -> None:
    with pytest.raises(OutputError, match=problem):
        Root(place).save(name, "", replace=True)
    assert (place / "scan.npz").read_bytes() == b"x"


def test_a_link_does_not_carry_a_config_out(place: Path) -> None:
    target = place.parent / "outside" / "a.yaml"
    target.write_text("mine")
    (place / "a.yaml").symlink_to(target)
    with pytest.raises(InputError, match="leads out"):
        Root(place).save("a.yaml", "theirs", replace=True)
    assert target.read_text() == "mine"
