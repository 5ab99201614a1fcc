"""Root: every file that the page names lies under one folder, wherever links and ``..`` point."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from priorloom.errors import InputError, OutputError
from priorloom.files import write_atomic

ENTRIES = 1000
"""The most entries of a folder that are listed."""
CONFIG_SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class Listing:
    """Names in a folder, sorted; `more` where there are further ones that are not listed."""

    folders: tuple[str, ...]
    files: tuple[str, ...]
    more: bool = False


class Root:
    """The folder under which the studio reads and writes; what lies outside does not exist for it.

    Parameters
    ----------
    folder
        An existing folder; links in it are resolved once, here.
    """

    def __init__(self, folder: Path) -> None:
        try:
            self.path = folder.resolve(strict=True)
        except (OSError, RuntimeError, ValueError) as error:
            raise InputError(f"--root {folder}", expected="a folder", got="nothing that can be opened") from error
        if not self.path.is_dir():
            raise InputError(f"--root {folder}", expected="a folder", got="a file")

    def inside(self, name: str | Path) -> Path:
        """The real path of `name`, which is relative to the root or absolute.

        Raises
        ------
        InputError
            It lies outside of the root, also by a link or ``..``.
        """
        try:
            real = Path(os.path.realpath(self.path / name))
        except (OSError, ValueError) as error:  # a NUL in the name, a loop of links
            raise InputError("file name", expected=f"a name under {self.path}", got=repr(str(name)[:80])) from error
        if not real.is_relative_to(self.path):
            raise InputError(
                f"file {str(name)[:200]}", expected=f"one under {self.path}", got="a path that leads out of it",
                cure="start the studio with --root FOLDER",
            )  # fmt: skip
        return real

    def name(self, path: Path) -> str:
        """`path` as it is shown: relative to the root."""
        return self.inside(path).relative_to(self.path).as_posix()

    def scan(self, name: str | Path) -> Path:
        """An existing file. Files that share its stem belong to the scan (``.hdr`` beside ``.cfl``), so none may lead
        out of the root either."""
        path = self.inside(name)
        if not path.is_file():
            raise InputError(f"file {name}", expected="a file", got="a folder" if path.is_dir() else "nothing there")
        for companion in _entries(path.parent):
            if Path(companion.name).stem == path.stem:
                self.inside(companion.path)
        return path

    def list(self, name: str | Path, suffixes: Collection[str]) -> Listing:
        """The folders in a folder, and its files that end in one of the lower-case `suffixes`; hidden ones and what
        leads out of the root are left out."""
        folder = self.inside(name)
        if not folder.is_dir():
            raise InputError(
                f"folder {name}", expected="a folder", got="a file" if folder.exists() else "nothing there"
            )
        folders, files = [], []
        for entry in _entries(folder):
            if entry.name.startswith(".") or not Path(os.path.realpath(entry.path)).is_relative_to(self.path):
                continue
            if entry.is_dir():
                folders.append(entry.name)
            elif entry.is_file() and Path(entry.name).suffix.lower() in suffixes:
                files.append(entry.name)
        folders, files = sorted(folders), sorted(files)
        more = len(folders) + len(files) > ENTRIES
        folders = folders[:ENTRIES]
        return Listing(tuple(folders), tuple(files[: ENTRIES - len(folders)]), more)

    def target(self, name: str) -> Path:
        """Where a config of that name is written.

        Raises
        ------
        OutputError
            Not a YAML file's name, or no folder to write it in.
        """
        path = self.inside(name)
        if path.suffix.lower() not in CONFIG_SUFFIXES:
            raise OutputError(f"output {name}", expected="a name that ends in .yaml", got=path.suffix or "no suffix")
        if not path.parent.is_dir():
            raise OutputError(f"output {name}", expected="a folder that is there", got=self.name(path.parent))
        if path.exists() and not path.is_file():
            raise OutputError(f"output {name}", expected="a file name", got="a folder")
        return path

    def save(self, name: str, text: str, *, replace: bool = False) -> Path:
        """Write a config whole or not at all; one that exists is replaced only where that is asked for.

        Raises
        ------
        OutputError
            As `target`, or the file exists.
        """
        path = self.target(name)
        if path.exists() and not replace:
            raise OutputError(f"output {name}", expected="a new file", got="one that exists", cure="confirm to replace")
        write_atomic(path, text.encode())
        return path


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return list(found)
    except OSError as error:
        raise InputError(f"folder {folder}", expected="one that can be read", got=error.strerror) from error


__all__ = ["CONFIG_SUFFIXES", "ENTRIES", "Listing", "Root"]
