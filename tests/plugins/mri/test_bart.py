"""The BART reader: what it returns, and what it refuses."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from priorloom import Registry
from priorloom.errors import ReaderError
from priorloom_mri import bart
from priorloom_mri.bart import read
from priorloom_mri.coils import birdcage_maps, root_sum_of_squares
from priorloom_mri.operators import fftc, ifftc
from priorloom_mri.phantoms import phantom

SHAPE = (40, 32)


def write_cfl(path: Path, array: np.ndarray, *, sizes: tuple[int, ...] | None = None) -> Path:
    sizes = sizes or array.shape
    padded = [*sizes, *(1,) * (16 - len(sizes))]
    path.with_suffix(".hdr").write_text("# Dimensions\n" + " ".join(map(str, padded)) + " \n# Command\nphantom\n")
    array.astype("<c8").ravel(order="F").tofile(path.with_suffix(".cfl"))
    return path.with_suffix(".cfl")


def bart_order(kspace: np.ndarray) -> np.ndarray:
    """``[coils, rows, columns]`` as BART's (1, rows, columns, coils)."""
    return kspace.transpose(1, 2, 0)[None]


@pytest.fixture
def kspace() -> np.ndarray:
    image = phantom(SHAPE, torch.Generator().manual_seed(0))
    return fftc(birdcage_maps(4, SHAPE) * image).numpy()


@pytest.mark.parametrize("suffix", [".cfl", ".hdr"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_reads_a_slice_along_any_axis(tmp_path: Path, kspace: np.ndarray, axis: int, suffix: str) -> None:
    array = np.expand_dims(kspace.transpose(1, 2, 0), axis)
    scan = read(write_cfl(tmp_path / "k.cfl", array).with_suffix(suffix))
    assert (scan.modality, scan.operator) == ("mri", "mri.sense2d")
    np.testing.assert_array_equal(scan.measurement, kspace)
    assert scan.measurement.dtype == np.complex64
    assert scan.parameters["maps"].shape == (4, *SHAPE)
    A = Registry.discover().operator(scan.operator, **scan.parameters)
    assert A.range.shape == scan.measurement.shape


def test_maps_mask_and_calibration(tmp_path: Path, kspace: np.ndarray) -> None:
    maps = birdcage_maps(4, SHAPE).numpy()
    mask = np.zeros(SHAPE, bool)
    mask[::2] = True
    mask[12:28, 8:24] = True
    path = write_cfl(tmp_path / "k.cfl", bart_order(kspace * mask))
    np.save(tmp_path / "maps.npy", maps)
    write_cfl(tmp_path / "maps.cfl", bart_order(maps))
    np.save(tmp_path / "mask.npy", mask)
    write_cfl(tmp_path / "mask.cfl", bart_order(mask[None]))
    for suffix in (".npy", ".cfl"):
        scan = read(path, maps=tmp_path / f"maps{suffix}", mask=tmp_path / f"mask{suffix}")
        np.testing.assert_array_equal(scan.parameters["maps"], maps)
        np.testing.assert_array_equal(scan.parameters["mask"], mask)
    scan = read(path)
    np.testing.assert_array_equal(scan.parameters["mask"], (kspace * mask != 0).any(0))
    assert scan.metadata["maps"] == "ESPIRiT, 17 x 16 calibration"  # row 28 is sampled as a line
    assert read(path, calibration=12).metadata["maps"] == "ESPIRiT, 12 x 12 calibration"
    smaller = np.zeros(SHAPE[1], bool)
    smaller[4:28] = True
    np.save(tmp_path / "lines.npy", smaller)
    scan = read(path, maps=tmp_path / "maps.npy", mask=tmp_path / "lines.npy")
    assert not scan.measurement[..., ~smaller].any()


def test_one_coil_needs_no_maps(tmp_path: Path, kspace: np.ndarray) -> None:
    scan = read(write_cfl(tmp_path / "k.cfl", bart_order(kspace[:1])))
    assert scan.operator == "mri.fourier2d"
    assert scan.parameters["image_shape"] == SHAPE
    np.testing.assert_array_equal(scan.measurement, kspace[0])


def test_recognises_by_content(tmp_path: Path, kspace: np.ndarray) -> None:
    reader = Registry.discover().reader("bart")
    assert reader.suffixes == (".cfl", ".hdr")
    path = write_cfl(tmp_path / "k.cfl", bart_order(kspace))
    assert reader.recognises(path)
    assert reader.recognises(path.with_suffix(".hdr"))
    (tmp_path / "other.hdr").write_bytes(b"\x5c\x01\x00\x00 analyze")
    assert not reader.recognises(tmp_path / "other.hdr")


@pytest.mark.parametrize("gone", [".cfl", ".hdr"])
def test_missing_companion(tmp_path: Path, kspace: np.ndarray, gone: str) -> None:
    path = write_cfl(tmp_path / "k.cfl", bart_order(kspace))
    path.with_suffix(gone).unlink()
    for suffix in (".cfl", ".hdr"):
        with pytest.raises(ReaderError, match=rf"companion k\{gone}: expected both"):
            read(path.with_suffix(suffix))


@pytest.mark.parametrize(
    "header",
    ["", "garbage", "# Dimensions\n", "# Dimensions\n1 40 x 4\n", "# Dimensions\n1 -40 32 4\n",
     "# Dimensions\n1 0 32 4\n",
     "# Dimensions\n" + "1 " * 17 + "\n", "# Dimensions\n1.5 2\n", "# Dimensions\n" + "9" * 30 + "\n"],
)  # fmt: skip
def test_bad_headers(tmp_path: Path, kspace: np.ndarray, header: str) -> None:
    path = write_cfl(tmp_path / "k.cfl", bart_order(kspace))
    path.with_suffix(".hdr").write_text(header)
    with pytest.raises(ReaderError, match=r"k\.hdr: expected"):
        read(path)


def test_header_over_the_byte_budget(tmp_path: Path, kspace: np.ndarray) -> None:
    path = write_cfl(tmp_path / "k.cfl", bart_order(kspace), sizes=(1, 100000, 100000, 4))
    with pytest.raises(ReaderError, match=r"at most 2 GiB, got 298\.0 GiB declared"):
        read(path)
    path.with_suffix(".hdr").write_bytes(b"# Dimensions\n" + b" " * (bart.HEADER_BYTES + 1))
    with pytest.raises(ReaderError, match="short text header"):
        read(path)


@pytest.mark.parametrize("change", [-1, -8, 8])
def test_truncated_or_padded_data(tmp_path: Path, kspace: np.ndarray, change: int) -> None:
    path = write_cfl(tmp_path / "k.cfl", bart_order(kspace))
    data = path.read_bytes()
    path.write_bytes(data[:change] if change < 0 else data + b"\0" * change)
    with pytest.raises(ReaderError, match=r"k\.cfl: expected 40960 bytes"):
        read(path)


def test_empty_nan_and_zero(tmp_path: Path, kspace: np.ndarray) -> None:
    path = write_cfl(tmp_path / "k.cfl", bart_order(kspace))
    path.write_bytes(b"")
    with pytest.raises(ReaderError, match="got 0 bytes"):
        read(path)
    bad = kspace.copy()
    bad[0, 3, 3] = np.nan
    with pytest.raises(ReaderError, match="finite values, got 1 NaN"):
        read(write_cfl(tmp_path / "nan.cfl", bart_order(bad)))
    with pytest.raises(ReaderError, match="zeros only"):
        read(write_cfl(tmp_path / "zero.cfl", bart_order(0 * kspace)))


@pytest.mark.parametrize("sizes", [(4, 10, 32, 4), (1, 1, 1280, 4), (1, 20, 32, 4, 2), (1, 20, 32, 4, 1, 2)])
def test_unsupported_dimensions(tmp_path: Path, kspace: np.ndarray, sizes: tuple[int, ...]) -> None:
    with pytest.raises(ReaderError, match=r"expected one (slice|set of maps).*bart slice"):
        read(write_cfl(tmp_path / "k.cfl", kspace, sizes=sizes))


def test_companions_that_do_not_fit(tmp_path: Path, kspace: np.ndarray) -> None:
    path = write_cfl(tmp_path / "k.cfl", bart_order(kspace))
    with pytest.raises(ReaderError, match=r"maps\.npy"):
        read(path, maps=tmp_path / "maps.npy")
    for bad in (np.ones((3, *SHAPE)), np.ones(SHAPE), np.ones((1, 1, 4, *SHAPE)), np.ones(())):
        np.save(tmp_path / "maps.npy", bad)
        with pytest.raises(ReaderError, match=r"maps maps\.npy: expected \[4, 40, 32\] or \[sets, 4, 40, 32\], got \["):
            read(path, maps=tmp_path / "maps.npy")
    np.save(tmp_path / "maps.npy", np.ones((5, 4, *SHAPE)))
    with pytest.raises(ReaderError, match=r"at most as many sets as coils \(4\), got 5"):
        read(path, maps=tmp_path / "maps.npy")
    (tmp_path / "maps.npy").write_bytes(b"PK\x03\x04 a zip archive")
    with pytest.raises(ReaderError, match=r"expected a \.npy file"):
        read(path, maps=tmp_path / "maps.npy")
    with pytest.raises(ReaderError, match=r"a \.cfl or \.hdr file"):
        read(path, maps=tmp_path / "maps.mat")
    np.save(tmp_path / "mask.npy", np.ones(SHAPE[0], bool))
    with pytest.raises(ReaderError, match=r"mask mask\.npy: expected \[40, 32\] or \[32\]"):
        read(path, mask=tmp_path / "mask.npy")
    np.save(tmp_path / "mask.npy", np.zeros(SHAPE, bool))
    with pytest.raises(ReaderError, match="samples nothing"):
        read(path, mask=tmp_path / "mask.npy")


ODD = np.zeros((4, *SHAPE), dtype=[("re", "<f4"), ("im", "<f4")])
COMPANIONS: dict[str, tuple[np.ndarray, str]] = {
    "nan": (np.full((4, *SHAPE), np.nan), "companion.npy: expected finite values, got 5120 NaN or infinite"),
    "infinite": (np.full((4, *SHAPE), -np.inf + 0j), "companion.npy: expected finite values, got 5120"),
    "longdouble": (np.ones((4, *SHAPE), np.longdouble), "companion.npy: expected booleans, integers, floats or"),
    "clongdouble": (np.ones((4, *SHAPE), np.clongdouble), "companion.npy: expected booleans, integers, floats or"),
    "object": (np.full((4, *SHAPE), None, dtype=object), "companion.npy: expected a readable .npy file"),
    "structured": (ODD, "companion.npy: expected booleans, integers, floats or complex"),
    "text": (np.full((4, *SHAPE), "1"), "companion.npy: expected booleans, integers, floats or complex, got <U1"),
    "bytes": (np.full((4, *SHAPE), b"1"), "companion.npy: expected booleans, integers, floats or complex, got |S1"),
    "date": (np.zeros((4, *SHAPE), "M8[s]"), "companion.npy: expected booleans, integers, floats or complex, got"),
    "nothing": (np.zeros((0, *SHAPE)), "companion.npy: expected"),
}


@pytest.mark.parametrize("role", ["maps", "mask"])
@pytest.mark.parametrize("case", COMPANIONS)
def test_odd_companions_are_refused_in_one_line(tmp_path: Path, kspace: np.ndarray, role: str, case: str) -> None:
    array, message = COMPANIONS[case]
    path = write_cfl(tmp_path / "k.cfl", bart_order(kspace))
    np.save(tmp_path / "companion.npy", array[0] if role == "mask" and len(array) else array, allow_pickle=True)
    with pytest.raises(ReaderError) as caught:
        read(path, **{role: tmp_path / "companion.npy"})
    expected = message.replace("5120", "1280") if role == "mask" else message
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_maps_must_fit_single_precision_and_sense_something(tmp_path: Path, kspace: np.ndarray) -> None:
    path = write_cfl(tmp_path / "k.cfl", bart_order(kspace))
    for array, message in ((np.full((4, *SHAPE), 1e300), "5120 NaN or infinite"), (0 * kspace, "got zeros only")):
        np.save(tmp_path / "maps.npy", array)
        with pytest.raises(ReaderError, match=message):
            read(path, maps=tmp_path / "maps.npy")
    with pytest.raises(ReaderError, match="got zeros only"):
        read(path, maps=write_cfl(tmp_path / "maps.cfl", bart_order(0 * kspace)))
    with pytest.raises(ReaderError, match="samples nothing"):
        read(path, mask=write_cfl(tmp_path / "mask.cfl", bart_order(0 * kspace[:1])))
    bad = np.ones((1, *SHAPE), np.complex64)
    bad[0, 3, 3] = np.nan
    with pytest.raises(ReaderError, match="1 NaN or infinite"):
        read(path, mask=write_cfl(tmp_path / "mask.cfl", bart_order(bad)))


@pytest.mark.parametrize("dtype", [">c8", "<c16", ">f4", "<f2", "i1"])
def test_maps_of_every_plain_dtype(tmp_path: Path, kspace: np.ndarray, dtype: str) -> None:
    path = write_cfl(tmp_path / "k.cfl", bart_order(kspace))
    np.save(tmp_path / "maps.npy", np.ones((4, *SHAPE), dtype))
    scan = read(path, maps=tmp_path / "maps.npy")
    Registry.discover().operator(scan.operator, **scan.parameters)
    assert scan.parameters["maps"].dtype == np.complex64


def test_several_sets_of_maps(tmp_path: Path, kspace: np.ndarray) -> None:
    path = write_cfl(tmp_path / "k.cfl", bart_order(kspace))
    scan = read(path, sets=2)
    assert scan.parameters["maps"].shape == (2, 4, *SHAPE)
    assert scan.metadata["maps"].endswith(", 2 sets")
    np.testing.assert_allclose(scan.parameters["maps"][0], read(path).parameters["maps"], atol=1e-6)
    maps = scan.parameters["maps"]
    write_cfl(tmp_path / "maps.cfl", maps.transpose(2, 3, 1, 0)[None])  # sets are BART's fifth dimension
    np.save(tmp_path / "maps.npy", maps)
    for name in ("maps.cfl", "maps.npy"):
        np.testing.assert_array_equal(read(path, maps=tmp_path / name).parameters["maps"], maps)
    for sets in (0, 5):
        with pytest.raises(ReaderError, match=r"input\.sets: expected 1 to 4"):
            read(path, sets=sets)


def test_coil_compression(tmp_path: Path, kspace: np.ndarray) -> None:
    path = write_cfl(tmp_path / "k.cfl", bart_order(kspace))
    maps = birdcage_maps(4, SHAPE).numpy()
    np.save(tmp_path / "maps.npy", maps)
    scan = read(path, maps=tmp_path / "maps.npy", coils=3)
    assert scan.measurement.shape == scan.parameters["maps"].shape == (3, *SHAPE)
    assert scan.metadata["coils"] == 3
    assert scan.metadata["coil compression"].startswith("4 to 3, 9")
    U, _, _ = np.linalg.svd(kspace.reshape(4, -1).astype(np.complex128), full_matrices=False)
    for mixed, data in ((scan.measurement, kspace), (scan.parameters["maps"], maps)):
        energy = np.linalg.norm(np.einsum("cd,crs->drs", U[:, :3].conj(), data), axis=0)
        np.testing.assert_allclose(np.linalg.norm(mixed, axis=0), energy, atol=1e-5)
    assert read(path, coils=4).metadata == read(path).metadata
    for coils in (0, 5):
        with pytest.raises(ReaderError, match=r"input\.coils: expected 1 to 4"):
            read(path, coils=coils)


def damaged(whole: bytes, random: np.random.Generator, k: int) -> bytes:
    """A few bytes changed, every other time cut off too."""
    damage = bytearray(whole)
    for place in random.integers(0, min(len(whole), 160 if k % 3 else len(whole)), 1 + k % 5):
        damage[place] ^= int(random.integers(1, 256))
    return bytes(damage[: len(whole) if k % 2 else int(random.integers(0, len(whole)))])


@pytest.mark.parametrize("part", ["k.cfl", "k.hdr", "maps.npy", "mask.npy", "mask.cfl", "mask.hdr"])
def test_every_damage_is_a_reader_error(tmp_path: Path, part: str) -> None:
    shape = (16, 14)
    maps = birdcage_maps(2, shape, radius=4.0).numpy()
    path = write_cfl(tmp_path / "k.cfl", bart_order(fftc(torch.from_numpy(maps)).numpy()))
    np.save(tmp_path / "maps.npy", maps)
    np.save(tmp_path / "mask.npy", np.ones(shape, bool))
    write_cfl(tmp_path / "mask.cfl", bart_order(np.ones((1, *shape))))
    companion = {"mask.npy": "mask.npy", "mask.cfl": "mask.cfl", "mask.hdr": "mask.hdr"}.get(part)
    options: dict[str, Any] = {"mask": tmp_path / companion} if companion else {}
    options |= {"maps": tmp_path / "maps.npy"} if part == "maps.npy" else {"calibration": 12}
    whole = (tmp_path / part).read_bytes()
    assert read(path, **options).measurement.shape == (2, *shape)
    random, reader = np.random.default_rng(0), Registry.discover().reader("bart")
    refusals = []
    tracemalloc.start()
    for k in range(300):
        (tmp_path / part).write_bytes(damaged(whole, random, k))
        reader.recognises(path)
        try:
            scan = read(path, **options)
        except ReaderError as error:  # some damage goes unnoticed; what is noticed is a ReaderError
            refusals.append(str(error))
        else:
            assert np.isfinite(scan.measurement).all()
            assert np.isfinite(scan.parameters["maps"]).all()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(refusals) > 100
    assert not any("\n" in text for text in refusals)
    assert peak < 32 << 20, "a small file needs no large memory"


def test_no_calibration_region(tmp_path: Path, kspace: np.ndarray) -> None:
    mask = np.zeros(SHAPE, bool)
    mask[::2, ::2] = True
    path = write_cfl(tmp_path / "k.cfl", bart_order(kspace * mask))
    with pytest.raises(ReaderError, match=r"fully sampled centre of 8 x 8 at least, got 1 x 1; give input\.maps=FILE"):
        read(path)
    with pytest.raises(ReaderError, match=r"input\.calibration: expected at least 8"):
        read(path, calibration=4)


@pytest.mark.data
def test_the_brain(brain_dir: Path) -> None:
    full, under = read(brain_dir / "full.cfl"), read(brain_dir / "und2x2.hdr")
    assert full.measurement.shape == under.measurement.shape == (8, 230, 180)
    assert under.metadata["sampled fraction"] == 0.2572
    assert under.metadata["maps"] == "ESPIRiT, 20 x 20 calibration"
    mask = under.parameters["mask"]
    np.testing.assert_array_equal(full.measurement * mask, under.measurement)
    # The published figure: zero-filled against the root sum of squares of the full scan, where that exceeds 5 %.
    reference = root_sum_of_squares(ifftc(torch.from_numpy(full.measurement)))
    head = reference > 0.05 * reference.max()
    A = Registry.discover().operator(under.operator, **under.parameters)
    image = A.pseudo_inverse(torch.from_numpy(under.measurement)).abs()
    error = float(((image - reference)[head]).norm() / reference[head].norm())
    assert error == pytest.approx(0.225, abs=0.002)
