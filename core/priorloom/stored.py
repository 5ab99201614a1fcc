"""Slices of image files on a wanted grid: what simulated cases of files are made of."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor
from torch.nn.functional import interpolate

from .errors import InputError, ReaderError
from .modality import slug
from .train.images import patients, read_slices, studies

_DIGITS = 12


@dataclass(frozen=True)
class StoredSlice:
    """One slice of a file.

    Parameters
    ----------
    name
        A name for its case: the file's, with ``-sNN`` where several slices of the file are taken.
    values
        As they are stored (Hounsfield units, magnitudes), real ``[rows, columns]``.
    source
        Where they come from, in words.
    subject
        Whose slice it is; see `subject_of`.
    """

    name: str
    values: Tensor
    source: str
    subject: str


def stored_slices(
    files: Sequence[Path], image_shape: tuple[int, int], slices: int = 1, subject: str | None = None
) -> list[StoredSlice]:
    """`slices` slices of every file, spread evenly over the middle half of those that are not blank.

    The places are ``n (1/4 + (k + 1/2) / (2 N))`` for k below N, of n slices: the middle one for N = 1. Where the
    middle half has fewer than N, they are spread over all n. A slice that is larger than `image_shape` is cut to the
    proportions of that and averaged over areas to it; a smaller slice is taken as it is.

    Parameters
    ----------
    files
        DICOM, NIfTI, NRRD or .npy, or folders of such files, each the slices of one subject in the order of their
        names.
    image_shape
        (rows, columns).
    slices
        How many of each file.
    subject
        Whom all the files show, whatever they say themselves; capitals do not tell two subjects apart.

    Raises
    ------
    ReaderError
        Not there, not readable, with fewer slices than wanted, or a folder with several patients.
    InputError
        No positive number of slices, or two slices of one name.
    """
    if slices < 1:
        raise InputError("case.slices", expected="at least 1", got=slices)
    if subject is not None and not subject.strip():
        raise InputError("case.subject", expected="a text", got=repr(subject))
    found: list[StoredSlice] = []
    for path in files:
        if not path.exists():
            raise ReaderError(f"case.files: {path}", expected="an image file", got="none there", cure="check the path")
        volume = read_slices(path)
        whose = subject_of(path, volume) if subject is None else subject.strip().lower()
        stem = slug(path.name if path.is_dir() else path.stem)
        for place in _places(len(volume), slices, path):
            values, how = _on_grid(volume[place], image_shape)
            source = path.name + (f", slice {place + 1} of {len(volume)}" if len(volume) > 1 else "") + how
            name = stem if slices == 1 else f"{stem}-s{place + 1:02d}"
            found.append(StoredSlice(name, values, source, whose))
    names = [s.name for s in found]
    for name in names:
        if names.count(name) > 1:
            raise InputError("case.files", expected="files of different names", got=f"'{name}' twice",
                             cure="rename one")  # fmt: skip
    return found


def subject_of(path: Path, volume: Sequence[Tensor]) -> str:
    """Whose images a file or folder holds, as 12 hexadecimal digits of a SHA-256.

    Of the patient's ID where DICOM states one, else of its one study; else of the values of all slices, by which the
    same volume is known again, but not other images of the same subject.

    Raises
    ------
    ReaderError
        A folder with several patients.
    """
    stated = patients(path)
    if len(stated) > 1:
        raise ReaderError(f"case.files: {path}", expected="the slices of one patient", got=f"{len(stated)} patients",
                          cure="name the files one by one, or state case.subject")  # fmt: skip
    if stated:
        return patient_subject(stated[0])
    if len(of := studies(path)) == 1:
        return hashlib.sha256(f"study {of[0]}".encode()).hexdigest()[:_DIGITS]
    content = hashlib.sha256()
    for plane in volume:
        content.update(f"{tuple(plane.shape)} ".encode())
        content.update(plane.numpy().tobytes())
    return content.hexdigest()[:_DIGITS]


def patient_subject(patient: str) -> str:
    """The subject of a patient's ID; capitals do not tell two patients apart."""
    return hashlib.sha256(f"patient {patient.lower()}".encode()).hexdigest()[:_DIGITS]


def _places(n: int, wanted: int, path: Path) -> list[int]:
    if wanted > n:
        raise ReaderError(f"case.files: {path}", expected=f"at least case.slices={wanted} slices that are not blank",
                          got=n)  # fmt: skip
    middle = [int(n * (0.25 + (k + 0.5) / (2 * wanted))) for k in range(wanted)]
    return middle if len(set(middle)) == wanted else [int(n * (k + 0.5) / wanted) for k in range(wanted)]


def _on_grid(values: Tensor, image_shape: tuple[int, int]) -> tuple[Tensor, str]:
    ratio = min(n / wanted for n, wanted in zip(values.shape, image_shape, strict=True))
    if ratio <= 1:
        return values, ""
    rows, columns = (round(ratio * wanted) for wanted in image_shape)
    top, left = (values.shape[0] - rows) // 2, (values.shape[1] - columns) // 2
    middle = values[top : top + rows, left : left + columns]
    averaged = interpolate(middle[None, None], size=image_shape, mode="area")[0, 0]
    return averaged, f", {rows} x {columns} pixels averaged to {image_shape[0]} x {image_shape[1]}"
