"""Slices of files: which ones, their names, and whom they show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from pydicom.data import get_testdata_file

from priorloom import Registry
from priorloom.errors import InputError
from priorloom.stored import patient_subject, stored_slices

CT_SMALL = Path(str(get_testdata_file("CT_small.dcm", download=False)))


def volume(path: Path, slices: int, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    np.save(path, rng.normal(size=(slices, 12, 10)).astype(np.float32))
    return path


def dicom(path: Path, patient: str, seed: int, study: str = "1.2") -> Path:
    data = pydicom.dcmread(CT_SMALL)
    data.PatientID, data.StudyInstanceUID = patient, study
    pixels = np.random.default_rng(seed).integers(0, 1000, (128, 128)).astype(np.int16)
    data.PixelData = pixels.tobytes()
    data.save_as(path)
    return path


def places(n: int, wanted: int, tmp_path: Path) -> list[int]:
    return [int(s.name.rpartition("-s")[2]) for s in stored_slices([volume(tmp_path / "v.npy", n)], (8, 8), wanted)]


def test_slices_are_spread_over_the_middle_half(tmp_path: Path) -> None:
    assert places(40, 2, tmp_path) == [16, 26]  # 40 (1/4 + 1/8) = 15 and 40 (1/4 + 3/8) = 25, counted from one
    assert places(40, 20, tmp_path) == list(range(11, 31))
    assert places(5, 5, tmp_path) == [1, 2, 3, 4, 5]  # more than the middle half has: all


def test_blank_slices_do_not_count(tmp_path: Path) -> None:
    values = np.zeros((9, 12, 10), np.float32)
    values[3] = np.arange(120).reshape(12, 10)
    values[6] = 2 * values[3]
    np.save(tmp_path / "v.npy", values)
    first, second = stored_slices([tmp_path / "v.npy"], (12, 10), 2)
    assert torch.equal(2 * first.values, second.values)
    with pytest.raises(InputError, match=r"case.slices=3 slices that are not blank, got 2"):
        stored_slices([tmp_path / "v.npy"], (12, 10), 3)


def test_one_slice_has_the_name_of_its_file(tmp_path: Path) -> None:
    (only,) = stored_slices([volume(tmp_path / "my head.npy", 7)], (12, 10))
    assert only.name == "my-head"
    assert "slice 4 of 7" in only.source


def test_slices_of_a_volume_share_their_subject_and_other_volumes_do_not(tmp_path: Path) -> None:
    one, two = volume(tmp_path / "a.npy", 6), volume(tmp_path / "b.npy", 6, seed=1)
    copy = volume(tmp_path / "copy.npy", 6)
    of_one, of_two, of_copy = ({s.subject for s in stored_slices([p], (12, 10), 2)} for p in (one, two, copy))
    assert len(of_one) == 1
    assert of_one == of_copy
    assert of_one.isdisjoint(of_two)
    assert {s.subject for s in stored_slices([one, two], (12, 10), 2, "someone")} == {"someone"}


def test_a_dicom_file_states_its_patient(tmp_path: Path) -> None:
    stated = [("p1", "1.2"), ("p1", "1.3"), ("p2", "1.2"), ("", ""), ("", "")]
    files = [dicom(tmp_path / f"{i}.dcm", patient, i, study) for i, (patient, study) in enumerate(stated)]
    first, second, other, unknown, unknown_too = (s.subject for s in stored_slices(files, (64, 64)))
    assert first == second
    assert len({first, other, unknown, unknown_too}) == 4


def test_slices_without_a_patient_are_of_their_study(tmp_path: Path) -> None:
    files = [dicom(tmp_path / f"{i}.dcm", "", i, study) for i, study in enumerate(["1.2", "1.2", "1.3"])]
    first, second, other = (s.subject for s in stored_slices(files, (64, 64)))
    assert first == second != other
    (several,) = stored_slices([tmp_path], (64, 64))  # of one person all the same
    assert several.subject not in (first, other)


def test_a_folder_is_one_subject(tmp_path: Path) -> None:
    for i in range(6):
        dicom(tmp_path / f"{i}.dcm", "p1", i)
    made = stored_slices([tmp_path], (64, 64), 2)
    assert [s.name for s in made] == [f"{tmp_path.name}-s03", f"{tmp_path.name}-s04"]
    assert len({s.subject for s in made}) == 1
    dicom(tmp_path / "6.dcm", "p2", 6)
    with pytest.raises(InputError, match=r"expected the slices of one patient, got 2 patients; name the files"):
        stored_slices([tmp_path], (64, 64))


def test_two_files_of_one_name(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    files = [volume(tmp_path / "a.npy", 3), volume(tmp_path / "x" / "a.npy", 3, 1)]
    with pytest.raises(InputError, match=r"'a' twice"):
        stored_slices(files, (12, 10))


@pytest.mark.parametrize("modality", ["ct", "mri"])
def test_cases_know_their_subject(modality: str, tmp_path: Path) -> None:
    registry = Registry.discover()
    make = registry.modality(modality).cases
    np.save(tmp_path / "v.npy", np.random.default_rng(0).uniform(0, 100, (8, 16, 16)).astype(np.float32))
    cases = make(registry, {}, seed=1, files=(tmp_path / "v.npy",), slices=2, image_shape=(16, 16))
    assert [c.name for c in cases] == ["v-s04", "v-s06"]
    assert len({c.subject for c in cases}) == 1
    assert cases[0].subject is not None
    assert not torch.equal(cases[0].measurement, cases[1].measurement)
    stated = make(registry, {}, seed=1, files=(tmp_path / "v.npy",), subject="p7", image_shape=(16, 16))
    assert stated[0].subject == "p7"
    with pytest.raises(InputError, match=r"case.slices: expected at least 1, got 0"):
        make(registry, {}, seed=1, files=(tmp_path / "v.npy",), slices=0)
    with pytest.raises(InputError, match=r"case.subject: expected case.files, got none"):
        make(registry, {}, seed=1, subject="p7")


def test_phantoms_show_nobody_and_the_embedded_slice_is_its_file(tmp_path: Path) -> None:
    registry = Registry.discover()
    small, foam = registry.modality("ct").cases(registry, {}, seed=0, image_shape=(16, 16))
    (stored,) = stored_slices([CT_SMALL], (16, 16))
    assert small.subject == stored.subject
    assert foam.subject is None


def test_a_folder_of_a_real_scan_knows_its_patient(data_dir: Path) -> None:
    made = stored_slices([data_dir / "ct-images/lidc-idri-0314"], (64, 64), 3)
    assert {s.subject for s in made} == {patient_subject("LIDC-IDRI-0314")}
    assert len({s.name for s in made}) == 3
    (other,) = stored_slices([data_dir / "ct-images/totalseg-dicom"], (64, 64))  # its patient's ID is empty
    assert other.subject not in {s.subject for s in made}
