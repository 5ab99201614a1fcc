"""The HTC 2022 reader: the measured files, and files that must be refused."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import torch

from priorloom.errors import ReaderError
from priorloom_ct import htc2022, mat5
from priorloom_ct.htc2022 import read
from priorloom_ct.operators import fanbeam2d

GEOMETRY = {"distanceSourceOrigin": 410.66, "distanceSourceDetector": 553.74, "pixelSizePost": 0.2}


def save(path: Path, name: str = "CtDataFull", *, compressed: bool = True, **changes: Any) -> Path:
    """A small file of the challenge's layout; a change to None removes the entry."""
    angles = np.linspace(0, 360, 9)[None]
    entries = {"angles": angles, **GEOMETRY, **{k: v for k, v in changes.items() if k != "sinogram"}}
    sinogram = changes.get("sinogram", np.arange(9 * 7.0).reshape(9, 7))
    parameters = {k: v for k, v in entries.items() if v is not None}
    content = {name: {"type": "2D", "sinogram": sinogram, "parameters": parameters}}
    scipy.io.savemat(path, content, do_compression=compressed)
    return path


def test_a_file_of_the_layout(tmp_path: Path) -> None:
    scan = read(save(tmp_path / "a.mat"))
    assert (scan.modality, scan.operator) == ("ct", "ct.fanbeam2d")
    assert scan.parameters == {
        "image_shape": (512, 512),
        "pixel_size": 0.148322,
        "angles_deg": tuple(45.0 * k for k in range(8)),
        "detectors": 7,
        "detector_pitch": 0.2,
        "source_to_axis": 410.66,
        "axis_to_detector": 143.08,
    }
    np.testing.assert_array_equal(scan.measurement, np.arange(56.0).reshape(8, 7))


def test_options_choose_views(tmp_path: Path) -> None:
    path = save(tmp_path / "a.mat")
    assert read(path, every=3).parameters["angles_deg"] == (0.0, 135.0, 270.0)
    scan = read(path, angles=(45.0, 180.0))
    assert scan.parameters["angles_deg"] == (45.0, 90.0, 135.0)
    np.testing.assert_array_equal(scan.measurement[:, 0], [7, 14, 21])
    assert read(path, angles=(300.0, 400.0)).parameters["angles_deg"] == (0.0, 315.0)
    assert read(path, angles=(-50.0, 10.0)).parameters["angles_deg"] == (0.0, 315.0)
    assert read(path, angles=(45.0, 270.0), every=2).parameters["angles_deg"] == (45.0, 135.0, 225.0)


def test_limited_files(tmp_path: Path) -> None:
    angles = np.arange(30.0, 39.0)[None]
    path = save(tmp_path / "limited.mat", "CtDataLimited", angles=angles)
    assert read(path).parameters["angles_deg"] == tuple(range(30, 39))
    assert htc2022.htc2022().recognises(path)


def damaged(path: Path, change: Callable[[bytes], bytes]) -> Path:
    save(path)
    path.write_bytes(change(path.read_bytes()))
    return path


NAN = np.full((9, 7), np.nan)
BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "empty": (lambda p: damaged(p, lambda b: b""), "got an empty file"),
    "not matlab": (lambda p: damaged(p, lambda b: b"PK" + b), "got another format"),
    "header only, short": (lambda p: damaged(p, lambda b: b[:60]), "got another format"),
    "header only": (lambda p: damaged(p, lambda b: b[:128]), "expected a structure CtDataFull or CtDataLimited"),
    "truncated": (lambda p: damaged(p, lambda b: b[:-40]), "download it again"),
    "truncated tag": (lambda p: damaged(p, lambda b: b + b"\0\0\0"), "download it again"),
    "flipped bytes": (lambda p: damaged(p, lambda b: b[:160] + bytes(99) + b[259:]), "bad.mat"),
    "other variable": (lambda p: save(p, "Other"), "expected a structure CtDataFull or CtDataLimited"),
    "nan": (lambda p: save(p, sinogram=NAN), "sinogram in bad.mat: expected finite values, got 63 NaN or infinite"),
    "rows": (lambda p: save(p, sinogram=np.ones((8, 7))), "expected [9 angles, detectors], got [8, 7]"),
    "rank": (lambda p: save(p, sinogram=np.ones((9, 7, 2))), "expected [9 angles, detectors], got [9, 7, 2]"),
    "text": (lambda p: save(p, sinogram="no"), "sinogram in bad.mat: expected real numbers"),
    "complex": (lambda p: save(p, sinogram=np.ones((9, 7)) * 1j), "sinogram in bad.mat: expected real numbers"),
    "no angles": (lambda p: save(p, angles=None), "angles in bad.mat: expected real numbers"),
    "no distance": (lambda p: save(p, distanceSourceOrigin=None), "distanceSourceOrigin in bad.mat: expected real"),
    "negative": (lambda p: save(p, distanceSourceOrigin=-1.0), "distanceSourceOrigin in bad.mat: expected one"),
    "inside out": (lambda p: save(p, distanceSourceDetector=400.0), "Detector in bad.mat: expected at least"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_refused_in_one_line(case: str, tmp_path: Path) -> None:
    make, message = BAD[case]
    path = make(tmp_path / "bad.mat")
    with pytest.raises(ReaderError) as caught:
        read(path)
    text = str(caught.value)
    assert message in text
    assert "bad.mat" in text
    assert "\n" not in text


@pytest.mark.parametrize("compressed", [False, True])
def test_every_damage_is_a_reader_error(compressed: bool, tmp_path: Path) -> None:
    """One wrong byte anywhere, and random cuts and changes: a ReaderError or nothing, and no memory to speak of."""
    whole = save(tmp_path / "whole.mat", compressed=compressed).read_bytes()
    path = tmp_path / "bad.mat"
    random = np.random.default_rng(0)
    damages = []
    for place in range(0, len(whole), 5 if compressed else 1):
        damage = bytearray(whole)
        damage[place] ^= int(random.choice([0x01, 0x10, 0x7F, 0x80, 0xFF]))
        damages.append(damage)
    for k in range(300):
        damage = bytearray(whole)
        for place in random.integers(0, len(whole), k % 5):
            damage[place] ^= int(random.integers(1, 256))
        damages.append(damage[: len(whole) if k % 2 else int(random.integers(1, len(whole)))])
    refusals = []
    tracemalloc.start()
    for damage in damages:
        path.write_bytes(damage)
        htc2022.htc2022().recognises(path)
        try:
            read(path)
        except ReaderError as error:  # some damage goes unnoticed; what is noticed is a ReaderError
            refusals.append(str(error))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(refusals) > 150
    assert not any("\n" in text for text in refusals)
    assert peak < 8 << 20, "a small file needs no large memory"


def test_a_bomb_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "bomb.mat"
    header = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H", 0x0100) + b"IM"
    content = zlib.compress(struct.pack("<II", 14, 3 * 2**30) + bytes(1000))
    path.write_bytes(header + struct.pack("<II", 15, len(content)) + content)
    tracemalloc.start()
    with pytest.raises(ReaderError, match="expected at most 1073741824 bytes of data, got 3221225472 declared"):
        read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def test_compressed_data_are_checked(tmp_path: Path) -> None:
    """Every damage of the compressed part that changes the scan is noticed, by its checksum if by nothing else."""
    path = save(tmp_path / "bad.mat")
    whole, scan = path.read_bytes(), read(path)
    noticed = 0
    for place in range(136, len(whole)):
        damage = bytearray(whole)
        damage[place] ^= 0x04
        path.write_bytes(damage)
        try:
            found = read(path)
        except ReaderError:
            noticed += 1
        else:
            np.testing.assert_array_equal(found.measurement, scan.measurement)
            assert found.parameters == scan.parameters
    assert noticed > 0.98 * (len(whole) - 136)


def test_an_array_of_countless_parts_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "parts.mat"
    save(path, compressed=False)
    whole = path.read_bytes()
    name = whole.index(b"CtDataFull")
    head = whole[128:name] + b"CtDataFull".ljust(16, b"\0")
    content = struct.pack("<II", 14, len(head) - 8 + (32 << 20)) + head[8:] + bytes(32 << 20)
    packed = zlib.compress(content)
    path.write_bytes(whole[:128] + struct.pack("<II", 15, len(packed)) + packed)
    with pytest.raises(ReaderError, match="more than 4096 parts"):
        read(path)


@pytest.mark.parametrize("compressed", [False, True])
def test_values_are_those_of_scipy(compressed: bool, tmp_path: Path) -> None:
    content = {
        "f8": np.arange(6.0).reshape(2, 3), "f4": np.float32([[1.5, -2]]), "i2": np.int16([[-3], [4]]),
        "u1": np.uint8([[200]]), "i8": np.int64([[2**60]]), "cube": np.arange(24).reshape(2, 3, 4),
        "empty": np.zeros((0, 0)), "text": "a word", "inner": {"deep": {"x": 1.25}}, "imaginary": 1j,
        "cell": np.array([1, "b"], object),
    }  # fmt: skip
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, {"other": 1.0, "it": content}, do_compression=compressed)
    found = mat5.variables(path)
    assert list(found) == ["other", "it"]
    ours = mat5.load(path, found["it"])
    theirs = scipy.io.loadmat(path)["it"][0, 0]
    assert list(ours) == list(theirs.dtype.names)
    for name in ("f8", "f4", "i2", "u1", "i8", "cube", "empty"):
        np.testing.assert_array_equal(ours[name], theirs[name])
        assert ours[name].shape == theirs[name].shape
    assert ours["text"] == "a word"
    assert ours["inner"]["deep"]["x"].item() == 1.25
    assert ours["imaginary"] is None
    assert ours["cell"] is None


def test_structures_without_end_are_refused(tmp_path: Path) -> None:
    content: dict[str, Any] = {"x": 1.0}
    for _ in range(40):
        content = {"x": content}
    path = tmp_path / "deep.mat"
    scipy.io.savemat(path, {"CtDataFull": content})
    with pytest.raises(ReaderError, match="structures more than 8 deep"):
        read(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 0}, "input.every: expected at least 1, got 0"),
        ({"angles": (10.0, 40.0)}, "input.angles: expected a range that meets 0 to 315 degrees"),
        ({"angles": (40.0, 10.0)}, "input.angles: expected two rising angles"),
        ({"angles": (0.0, float("nan"))}, "input.angles: expected two rising angles"),
        ({"angles": (0.0, 400.0)}, "input.angles: expected two rising angles"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ReaderError) as caught:
        read(save(tmp_path / "a.mat"), **options)
    assert str(caught.value).startswith(message)


def test_a_missing_file_is_a_reader_error(tmp_path: Path) -> None:
    with pytest.raises(ReaderError, match=r"absent\.mat: expected a readable file"):
        read(tmp_path / "absent.mat")


@pytest.mark.data
def test_recognises_its_own_only(data_dir: Path) -> None:
    recognises = htc2022.htc2022().recognises
    assert recognises(data_dir / "ct-raw" / "htc2022" / "htc2022_ta_full.mat")
    assert not recognises(data_dir / "ct-raw" / "htc2022" / "htc2022_ta_full_recon_fbp.mat")
    assert not recognises(data_dir / "mri-raw" / "espirit-brain" / "brain_alias_8ch.mat")


@pytest.mark.data
@pytest.mark.parametrize("scan", ["ta", "td"])
def test_fbp_of_all_views_is_the_organisers(scan: str, data_dir: Path) -> None:
    folder = data_dir / "ct-raw" / "htc2022"
    measured = read(folder / f"htc2022_{scan}_full.mat")
    assert len(measured.parameters["angles_deg"]) == 720
    A = fanbeam2d(**measured.parameters)
    image = A.pseudo_inverse(torch.from_numpy(measured.measurement).float()).numpy() * 0.1483  # per pixel
    reference = scipy.io.loadmat(folder / f"htc2022_{scan}_full_recon_fbp.mat")["reconFullFbp"]
    assert np.corrcoef(image.ravel(), reference.ravel())[0, 1] > 0.99
    assert float((image * reference).sum() / (reference**2).sum()) == pytest.approx(1, abs=0.01)
