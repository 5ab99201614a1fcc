"""Reading images: each format against the library or the bytes that wrote it, and what must be refused."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pydicom.data
import pytest

from priorloom.errors import ReaderError
from priorloom.train import images
from priorloom.train.images import read_slices

VOLUME = np.arange(3 * 4 * 5, dtype=np.int16).reshape(3, 4, 5)  # [slices, rows, columns]


def nrrd(content: bytes, *, encoding: str = "raw", kind: str = "short", sizes: str = "5 4 3", more: str = "") -> bytes:
    head = f"NRRD0004\n# a comment\ntype: {kind}\ndimension: 3\nsizes: {sizes}\nendian: little\n"
    head += f"encoding: {encoding}\n{more}"
    return head.encode() + b"\n" + content


def test_npy(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", VOLUME)
    found = read_slices(tmp_path / "a.npy")
    np.testing.assert_array_equal(np.stack(found), VOLUME.astype(np.float32))


@pytest.mark.parametrize("encoding", ["raw", "gzip"])
def test_nrrd(encoding: str, tmp_path: Path) -> None:
    values = VOLUME.astype("<i2").tobytes()
    file = tmp_path / "a.nrrd"
    file.write_bytes(nrrd(gzip.compress(values) if encoding == "gzip" else values, encoding=encoding))
    np.testing.assert_array_equal(np.stack(read_slices(file)), VOLUME)


def test_nifti_slices_are_axial_with_the_front_up_and_the_right_side_on_the_left(tmp_path: Path) -> None:
    # In world coordinates: x to the right, y to the front, z up. Stored with reversed and swapped axes.
    world = np.zeros((5, 4, 3), np.float32)
    world[4, 3, 1] = 1.0  # rightmost, frontmost
    world[0, 0, 1] = 2.0  # leftmost, at the back
    stored = world.transpose(2, 0, 1)[:, ::-1]
    affine = np.array([[0, -1, 0, 4], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])
    nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(stored), affine), tmp_path / "a.nii.gz")
    (plane,) = read_slices(tmp_path / "a.nii.gz")  # the blank ones are left out
    assert tuple(plane.shape) == (4, 5)
    assert plane[0, 0] == 1.0
    assert plane[-1, -1] == 2.0


def test_dicom_in_hounsfield_units(tmp_path: Path) -> None:
    source = Path(str(pydicom.data.get_testdata_file("CT_small.dcm", download=False)))
    (tmp_path / "without-an-ending").write_bytes(source.read_bytes())
    (plane,) = read_slices(tmp_path)
    data = pydicom.dcmread(source)
    np.testing.assert_allclose(plane, data.pixel_array * float(data.RescaleSlope) + float(data.RescaleIntercept))


def test_dicom_is_judged_by_its_header_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Path(str(pydicom.data.get_testdata_file("CT_small.dcm", download=False)))
    deflated = Path(str(pydicom.data.get_testdata_file("image_dfl.dcm", download=False)))
    (tmp_path / "a.dcm").write_bytes(source.read_bytes())
    (tmp_path / "b.dcm").write_bytes(deflated.read_bytes())
    own = pydicom.dcmread

    def header_only(file: Path, **options: bool) -> pydicom.Dataset:
        assert options.get("stop_before_pixels"), "the pixels are read"
        return own(file, stop_before_pixels=True)

    monkeypatch.setattr(pydicom, "dcmread", header_only)
    assert "a deflated one" in refused(tmp_path / "b.dcm")
    monkeypatch.setattr(images, "VALUE_LIMIT", 128 * 128 - 1)
    assert "with at most 16383 values" in refused(tmp_path / "a.dcm")
    monkeypatch.setattr(images, "BYTE_LIMIT", 1000)
    assert "at most 1000 bytes" in refused(tmp_path / "a.dcm")


def test_a_folder_is_read_by_name_and_other_files_are_left_alone(tmp_path: Path) -> None:
    np.save(tmp_path / "b.npy", VOLUME[1])
    np.save(tmp_path / "a.npy", VOLUME[0])
    (tmp_path / "notes.txt").write_text("about the scan")
    np.testing.assert_array_equal(np.stack(read_slices(tmp_path)), VOLUME[:2])


def refused(path: Path) -> str:
    with pytest.raises(ReaderError) as caught:
        read_slices(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_nothing_there_and_nothing_in_it(tmp_path: Path) -> None:
    assert "nothing there" in refused(tmp_path / "absent")
    assert "an empty folder" in refused(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    assert "1 other files" in refused(tmp_path)
    assert "got .txt" in refused(tmp_path / "notes.txt")


def test_damaged_files(tmp_path: Path) -> None:
    for name in ("a.dcm", "a.nii", "a.nii.gz", "a.nrrd", "a.npy"):
        (tmp_path / name).write_bytes(b"damaged")
        assert name in refused(tmp_path / name)


def test_values_that_are_no_image(tmp_path: Path) -> None:
    file = tmp_path / "a.npy"
    for array, text in (
        (np.array([1.0, 2.0]), "[slices, rows, columns]"),
        (np.ones((4, 4), complex), "real numbers"),
        (np.array([[1.0, np.nan], [0, 0]]), "NaN"),
        (np.ones((4, 4)), "not blank"),
    ):
        np.save(file, array)
        assert text in refused(file)
    np.save(file, np.array([{}], dtype=object), allow_pickle=True)
    assert "ValueError" in refused(file)


def test_nrrd_that_lies(tmp_path: Path) -> None:
    file = tmp_path / "a.nrrd"
    for content, text in (
        (nrrd(b"short"), "cut off"),
        (nrrd(b"", sizes="100000 100000 100000"), "at most"),
        (nrrd(b"", sizes="5 four"), "ValueError"),
        (nrrd(b"", kind="block"), "an integer or real type"),
        (nrrd(b"", encoding="bzip2"), "raw or gzip"),
        (nrrd(b"", more="data file: /etc/passwd\n"), "separate data file"),
    ):
        file.write_bytes(content)
        assert text in refused(file)


def test_a_subject_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "a.npy", VOLUME)
    np.save(tmp_path / "b.npy", VOLUME)
    monkeypatch.setattr(images, "VALUE_LIMIT", VOLUME.size + 1)
    assert "name fewer files" in refused(tmp_path)


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "count", "shape"),
    [
        ("ct-images/totalseg-dicom", 20, (512, 512)),
        ("ct-images/totalseg-nii/example_ct.nii.gz", 112, (101, 122)),
        ("mri-images/pyradiomics/brain1_image.nrrd", 25, (256, 256)),
    ],
)
def test_measured_images(data_dir: Path, name: str, count: int, shape: tuple[int, int]) -> None:
    found = read_slices(data_dir / name)
    assert len(found) == count
    assert tuple(found[0].shape) == shape
    if name.startswith("ct"):  # air, and tissue near water
        values = np.concatenate([f.ravel() for f in found])
        assert np.percentile(values, 1) < -900
        assert ((values > -50) & (values < 100)).mean() > 0.05
