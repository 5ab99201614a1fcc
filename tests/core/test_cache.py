"""Arrays kept on disk: found again, checked, shared, and never more than the cap."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from priorloom.cache import Arrays, cache_entries, cache_folder, cached, clear_cache
from priorloom.errors import InputError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PRIORLOOM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def making(size: int = 100) -> tuple[Callable[[], Arrays], list[int]]:
    calls: list[int] = []

    def make() -> Arrays:
        calls.append(size)
        return {"a": np.arange(size, dtype=np.float32), "b": np.array([7])}

    return make, calls


def right(arrays: Arrays) -> bool:
    return set(arrays) == {"a", "b"}


def test_arrays_are_made_once(folder: Path) -> None:
    make, calls = making()
    for _ in range(3):
        arrays = cached({"angle": 1.5}, "some arrays", make, right)
        assert arrays["a"].tolist() == list(range(100))
    assert calls == [100]
    cached({"angle": 1.6}, "others", make, right)
    assert calls == [100, 100]
    assert {entry.about for entry in cache_entries()} == {"some arrays", "others"}
    assert clear_cache()[0] == 2
    assert not cache_entries()


def test_a_file_that_does_not_fit_is_made_anew(folder: Path) -> None:
    make, calls = making()
    cached({}, "x", make, right)
    cached({}, "x", make, lambda arrays: False)
    assert len(calls) == 2


FLIPPED = np.float32(50).tobytes(), np.float32(51).tobytes()


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b.replace(*FLIPPED)])
def test_a_damaged_file_is_made_anew(folder: Path, damage: Callable[[bytes], bytes]) -> None:
    make, calls = making()
    cached({}, "x", make, right)
    (file,) = folder.glob("*.npz")
    file.write_bytes(damage(file.read_bytes()))
    assert cached({}, "x", make, right)["a"].tolist() == list(range(100))
    assert len(calls) == 2


def test_pickles_are_never_loaded(folder: Path) -> None:
    make, calls = making()
    cached({}, "x", make, right)
    (file,) = folder.glob("*.npz")
    np.savez(file, a=np.array([{"an": "object"}], dtype=object), b=np.array([1]), allow_pickle=True)
    assert cached({}, "x", make, right)["b"] == 7
    assert len(calls) == 2


def test_a_bomb_is_not_unpacked(folder: Path) -> None:
    make, calls = making()
    cached({}, "x", make, right)
    (file,) = folder.glob("*.npz")
    np.savez_compressed(file, a=np.zeros(10**7), b=np.array([1]))
    assert cached({}, "x", make, right)["a"].size == 100
    assert len(calls) == 2


def test_the_cap_holds_and_the_longest_unused_goes_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRIORLOOM_CACHE_GIB", str(10_000 / 2**30))
    for k in range(3):
        make, _ = making(1000)
        cached({"k": k}, str(k), make, right)
        for entry in cache_entries():  # time passes
            os.utime(entry.path, (entry.used - 100, entry.used - 100))
    assert sum(entry.size for entry in cache_entries()) <= 10_000
    assert {entry.about for entry in cache_entries()} == {"1", "2"}
    make, calls = making(100_000)
    cached({"k": "large"}, "large", make, right)
    assert {entry.about for entry in cache_entries()} == {"1", "2"}, "what exceeds the cap is not kept"
    assert calls == [100_000]


def test_without_a_cache_nothing_is_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRIORLOOM_CACHE_GIB", "0")
    make, calls = making()
    cached({}, "x", make, right)
    cached({}, "x", make, right)
    assert len(calls) == 2
    assert not folder.exists()


@pytest.mark.parametrize("value", ["-1", "much", "nan"])
def test_a_cap_without_meaning_is_refused(value: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRIORLOOM_CACHE_GIB", value)
    with pytest.raises(InputError, match="PRIORLOOM_CACHE_GIB"):
        cached({}, "x", making()[0], right)


def test_a_folder_that_cannot_be_written_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PRIORLOOM_CACHE", str(tmp_path / "file"))
    make, calls = making()
    assert cached({}, "x", make, right)["b"] == 7
    assert cached({}, "x", make, right)["b"] == 7
    assert len(calls) == 2


def test_many_may_write_at_once(folder: Path) -> None:
    make, _ = making(10_000)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: cached({}, "x", make, right)["a"].sum(), range(32)))
    assert len(set(results)) == 1
    assert [path.suffix for path in cache_folder().iterdir()] == [".npz"]


def test_random_damage_does_no_harm(folder: Path) -> None:
    make, _ = making()
    cached({}, "x", make, right)
    (file,) = folder.glob("*.npz")
    stored, random = file.read_bytes(), np.random.default_rng(0)
    packed = io.BytesIO()
    np.savez_compressed(packed, a=np.arange(100, dtype=np.float32), b=np.array([7]), about=np.array("x"))
    for k in range(300):
        damaged = bytearray(packed.getvalue() if k % 2 else stored)
        for place in random.integers(0, len(damaged), 3):
            damaged[place] = random.integers(0, 256)
        file.write_bytes(damaged)
        cache_entries()
        assert cached({}, "x", make, right)["b"].shape == (1,)


def test_files_of_others_in_the_folder_are_left_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRIORLOOM_CACHE_GIB", str(2_000 / 2**30))
    folder.mkdir()
    theirs = folder / "scan.npz"
    np.savez(theirs, a=np.zeros(10_000))
    os.utime(theirs, (0, 0))
    part = folder / ".download.tmp"
    part.write_bytes(b"")
    os.utime(part, (0, 0))
    make, _ = making()
    cached({}, "x", make, right)
    assert [entry.about for entry in cache_entries()] == ["x"]
    assert clear_cache()[0] == 1
    assert theirs.exists()
    assert part.exists()
