"""Writing files whole, through links and with the rights that the user chose."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from priorloom.errors import OutputError
from priorloom.files import write_atomic
from priorloom.train.checkpoint import Progress, save


def test_a_link_goes_on_pointing_to_what_it_names(tmp_path: Path) -> None:
    (tmp_path / "link.pt").symlink_to(tmp_path / "elsewhere" / "real.pt")
    save(tmp_path / "link.pt", Progress(step=1))
    assert (tmp_path / "link.pt").is_symlink()
    assert (tmp_path / "elsewhere" / "real.pt").stat().st_size > 0
    assert [p.name for p in (tmp_path / "elsewhere").iterdir()] == ["real.pt"]


def test_the_umask_decides_who_may_read(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        save(tmp_path / "private.pt", Progress())
        write_atomic(tmp_path / "private.txt", b"mine")
    finally:
        os.umask(before)
    assert [p.stat().st_mode & 0o777 for p in tmp_path.iterdir()] == [0o600, 0o600]


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="choose another --out"):
        write_atomic(tmp_path / "file" / "x", b"")
