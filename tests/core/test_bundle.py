"""The native bundle: what is written comes back, and a file that cannot be trusted is refused in one line."""

from __future__ import annotations

import io
import os
import random
import struct
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

import priorloom.bundle as bundle_module
from priorloom import Scan
from priorloom.bundle import bundle, read, write
from priorloom.errors import InputError, OutputError, ReaderError

SUFFIXES = (".npz", ".h5")


@pytest.fixture
def scan() -> Scan:
    rng = np.random.default_rng(0)
    parameters = {"image_shape": (4, 6), "angles_deg": np.linspace(0, 90, 3), "pixel_size": 0.5, "filter": "hann"}
    y = rng.standard_normal((3, 5)).astype(np.float32)
    return Scan("ct", "ct.parallel2d", parameters, y, rng.random((4, 6)), noise_std=0.25)


def refused(path: Path, match: str) -> None:
    with pytest.raises(ReaderError, match=match) as caught:
        read(path)
    assert "\n" not in str(caught.value)
    assert path.name in str(caught.value)


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".hdf5", ".NPZ"])
def test_round_trip(tmp_path, scan, suffix):
    path = tmp_path / f"scan{suffix}"
    write(path, scan)
    assert bundle().recognises(path)
    got = read(path)
    assert (got.modality, got.operator, got.noise_std) == ("ct", "ct.parallel2d", 0.25)
    np.testing.assert_array_equal(got.measurement, scan.measurement)
    assert got.measurement.dtype == np.float32
    np.testing.assert_array_equal(got.truth, scan.truth)
    assert set(got.parameters) == set(scan.parameters)
    assert got.parameters["pixel_size"] == 0.5
    assert got.parameters["filter"] == "hann"
    assert tuple(got.parameters["image_shape"]) == (4, 6)
    np.testing.assert_array_equal(got.parameters["angles_deg"], scan.parameters["angles_deg"])
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_complex_and_boolean_arrays(tmp_path, suffix):
    path = tmp_path / f"kspace{suffix}"
    y = (np.arange(6) * (1 + 2j)).astype(np.complex64).reshape(2, 3)
    write(path, Scan("mri", "mri.fourier2d", {"mask": np.array([[True, False, True]])}, y))
    got = read(path)
    np.testing.assert_array_equal(got.measurement, y)
    assert got.parameters["mask"].dtype == bool
    assert got.truth is None
    assert got.noise_std is None


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_arrays_of_the_other_byte_order_come_in_the_native_one(tmp_path, suffix):
    path = tmp_path / f"old{suffix}"
    write(path, Scan("ct", "ct.parallel2d", {}, np.arange(3, dtype=">f4")))
    got = read(path).measurement
    assert got.dtype.isnative
    np.testing.assert_array_equal(got, [0, 1, 2])


def test_a_file_that_plain_numpy_or_h5py_wrote_is_read(tmp_path):
    np.savez(tmp_path / "a.npz", operator="toy.a", measurement=np.ones(3), **{"operator.n": 3})
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["operator"], file["measurement"], file["operator.n"] = "toy.a", np.ones(3), 3
    for name in ("a.npz", "b.h5"):
        got = read(tmp_path / name)
        assert (got.operator, got.parameters) == ("toy.a", {"n": 3})


def test_other_files_are_not_recognised(tmp_path):
    for suffix in SUFFIXES:
        path = tmp_path / f"text{suffix}"
        path.write_bytes(b"")
        assert not bundle().recognises(path)
        refused(path, "expected a readable")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_truncated_file_is_refused(tmp_path, scan, suffix):
    path = tmp_path / f"scan{suffix}"
    write(path, scan)
    whole = path.read_bytes()
    for size in range(0, len(whole), len(whole) // 12):
        path.write_bytes(whole[:size])
        refused(path, "expected a readable")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_random_damage_is_refused_or_harmless(tmp_path, scan, suffix):
    path = tmp_path / f"scan{suffix}"
    write(path, scan)
    whole, rng = path.read_bytes(), random.Random(1)
    outcomes = set()
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        path.write_bytes(damaged)
        try:
            read(path)
            outcomes.add("read")
        except ReaderError:
            outcomes.add("refused")
    assert "refused" in outcomes


def npz(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def npy(array: object, pickle: bool = False) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=pickle)
    return buffer.getvalue()


def good() -> dict[str, bytes]:
    return {"operator.npy": npy("toy.a"), "measurement.npy": npy(np.ones(3))}


class Bomb:
    """Unpickling this would make a file."""

    def __reduce__(self):
        return (open, ("pwned", "w"))


def test_pickled_arrays_are_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pickled = npy(np.array([Bomb()], dtype=object), pickle=True)
    refused(npz(tmp_path / "a.npz", good() | {"truth.npy": pickled}), "allow_pickle|pickle")
    assert os.listdir(tmp_path) == ["a.npz"]


def test_a_header_that_declares_more_than_the_member_holds_is_refused(tmp_path):
    text = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 1000000), }"
    header = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text
    refused(npz(tmp_path / "a.npz", good() | {"truth.npy": header}), r"entry 'truth.npy' .*expected at most 81 bytes")


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(bundle_module, "BYTE_BUDGET", 2**20)
    bomb = npy(np.zeros(2**21, np.uint8))
    path = npz(tmp_path / "a.npz", good() | {"truth.npy": bomb}, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 10_000
    refused(path, "GiB of arrays")


def test_an_h5_dataset_that_declares_more_than_the_budget_is_refused(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["operator"] = "toy.a"
        file.create_dataset("measurement", shape=(2**20, 2**20), dtype="f4", chunks=(1024, 1024))
    assert path.stat().st_size < 100_000
    refused(path, "expected at most 4 GiB of arrays, got 4096.0 GiB declared")


def h5(path: Path) -> h5py.File:
    file = h5py.File(path, "w")
    file["operator"], file["measurement"] = "toy.a", np.ones(3)
    return file


def test_links_to_other_files_are_refused(tmp_path):
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["x"] = np.ones(3)
    (tmp_path / "raw").write_bytes(bytes(24))
    external, soft, raw, virtual, group = (
        tmp_path / f"{n}.h5" for n in ("external", "soft", "raw", "virtual", "group")
    )
    with h5(external) as file:
        file["truth"] = h5py.ExternalLink("secret.h5", "/x")
    with h5(soft) as file:
        file["truth"] = h5py.SoftLink("/measurement")
    with h5(raw) as file:
        file.create_dataset("truth", (3,), "f8", external=[(str(tmp_path / "raw"), 0, 24)])
    with h5(virtual) as file:
        layout = h5py.VirtualLayout((3,), "f8")
        layout[:] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "x", (3,))
        file.create_virtual_dataset("truth", layout)
    with h5(group) as file:
        file["truth/inner"] = np.ones(3)
    for path in (external, soft, raw, virtual, group):
        refused(path, "entry 'truth' .*expected a plain dataset, got a link or group")


def test_h5_types_that_point_into_the_file_are_refused(tmp_path):
    path = tmp_path / "a.h5"
    with h5(path) as file:
        file.create_dataset("truth", (2,), h5py.vlen_dtype(np.float64))
    refused(path, "entry 'truth' .*expected numbers or one text")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"measurement": None}, "expected an entry 'measurement', got operator"),
        ({"operator": None}, "expected an entry 'operator', got measurement"),
        ({"operator": "parallel2d"}, "operator in .*expected a name such as 'ct.parallel2d', got 'parallel2d'"),
        ({"operator": 3}, "expected a name such as 'ct.parallel2d', got 3"),
        (
            {"measured": 3},
            "entry 'measured' in .*expected operator, measurement, truth, noise_std or operator.NAME",
        ),
        ({"measurement": np.array([1, np.nan, np.inf])}, "measurement in .*expected finite values, got 2 NaN or inf"),
        ({"truth": np.array([np.nan])}, "truth in .*expected finite values, got 1 NaN"),
        ({"measurement": "text"}, "measurement in .*expected an array of numbers, got str"),
        ({"measurement": 1.0}, "measurement in .*expected an array of numbers, got float"),
        ({"measurement": np.array([True])}, "measurement in .*expected an array of numbers, got ndarray"),
        ({"noise_std": -1.0}, "noise_std in .*expected a number of at least 0, got -1.0"),
        ({"noise_std": np.nan}, "noise_std in .*expected a number of at least 0, got nan"),
        ({"noise_std": np.ones(2)}, "noise_std in .*expected a number of at least 0"),
    ],
)
def test_entries_that_are_missing_unknown_or_wrong_are_refused(tmp_path, suffix, entries, message):
    path = tmp_path / f"a{suffix}"
    wanted = {"operator": "toy.a", "measurement": np.ones(3)} | entries
    wanted = {name: value for name, value in wanted.items() if value is not None}
    if suffix == ".npz":
        np.savez(path, **wanted)
    else:
        with h5py.File(path, "w") as file:
            for name, value in wanted.items():
                file[name] = value
    refused(path, message)


def test_a_member_that_is_not_an_array_is_refused(tmp_path):
    refused(npz(tmp_path / "a.npz", good() | {"notes.txt": b"hello"}), "expected a readable .npz bundle")


def test_writing_refuses_another_suffix_and_a_folder_that_is_not_there(tmp_path, scan):
    with pytest.raises(InputError, match=r"suffix of x.npy: expected .npz or .h5 or .hdf5, got .npy"):
        write(tmp_path / "x.npy", scan)
    with pytest.raises(OutputError, match="expected a place that can be written, got No such file or directory"):
        write(tmp_path / "none" / "x.npz", scan)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_failed_write_keeps_the_older_file(tmp_path, scan, suffix, monkeypatch):
    path = tmp_path / f"a{suffix}"
    write(path, scan)
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="got No space left on device"):
        write(path, scan)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]
