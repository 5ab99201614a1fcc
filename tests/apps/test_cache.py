"""``priorloom cache``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from priorloom.cache import cached

from .conftest import Cli


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PRIORLOOM_CACHE", str(tmp_path))
    return tmp_path


def test_list_and_clear(cli: Cli, folder: Path) -> None:
    assert "0 entries" in cli("cache", "list").out
    cached({}, "weights of a [red]fan[/red]", lambda: {"a": np.zeros(1000)}, lambda _: True)
    listed = cli("cache", "list")
    assert listed.code == 0
    for part in ("weights of a [red]fan[/red]", "KiB", "1 entries", str(folder)):
        assert part in listed.out.replace("\n", "")
    (entry,) = json.loads(cli("cache", "list", "--json").out)["entries"]
    assert entry["bytes"] > 8000
    assert "1 entries deleted" in cli("cache", "clear").out
    assert not list(folder.iterdir())


def test_a_cap_without_meaning_is_one_line(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRIORLOOM_CACHE_GIB", "much")
    refused = cli("cache", "list")
    assert refused.code == 2
    assert refused.err.count("\n") == 1
    assert "PRIORLOOM_CACHE_GIB" in refused.err
