"""Images to learn from: DICOM, NIfTI, NRRD and .npy files as slices of what they hold (Hounsfield units, magnitudes).

Every format is read by its size first, and no file can ask for more than `VALUE_LIMIT` values.
"""

from __future__ import annotations

import gzip
import math
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError, ReaderError

VALUE_LIMIT = 2**28
"""Values of one subject (1 GiB in single precision)."""
BYTE_LIMIT = 2**31
"""Bytes of one DICOM file."""
FILE_LIMIT = 10_000
"""Files of one folder."""

Array = np.ndarray[Any, Any]


def read_slices(path: Path) -> list[Tensor]:
    """The slices of a subject, real float32 ``[rows, columns]``; blank ones are left out.

    Parameters
    ----------
    path
        A file, or a folder of files of which each is read in the order of the names.

    Raises
    ------
    ReaderError
        Nothing there, no images, or a file that cannot be read or must not be trusted.
    """
    if not path.exists():
        raise ReaderError(f"images {path}", expected="a file or a folder", got="nothing there", cure="check data_root")
    files = _files(path) if path.is_dir() else [path]
    slices: list[Tensor] = []
    values = 0
    for file in files:
        for plane in _read(file):
            values += plane.size
            if values > VALUE_LIMIT:
                raise ReaderError(f"images {path}", expected=f"at most {VALUE_LIMIT} values", got="more",
                                  cure="name fewer files")  # fmt: skip
            if plane.size and plane.min() != plane.max():
                slices.append(torch.from_numpy(plane))
    if not slices:
        raise ReaderError(f"images {path}", expected="at least one slice that is not blank", got="none")
    return slices


def patients(path: Path) -> tuple[str, ...]:
    """The different patients' IDs that the DICOM files of a subject state; other formats and empty IDs say nothing.

    Raises
    ------
    ReaderError
        Nothing there, or a file that cannot be read.
    """
    return _stated(path, "PatientID")


def studies(path: Path) -> tuple[str, ...]:
    """The different studies (UIDs) that the DICOM files of a subject belong to; as `patients`."""
    return _stated(path, "StudyInstanceUID")


def _stated(path: Path, tag: str) -> tuple[str, ...]:
    files = _files(path) if path.is_dir() else [path]
    dicoms = [file for file in files if _format(file) is _dicom]
    if not dicoms:
        return ()
    pydicom = _backend("pydicom", "DICOM images", "pip install 'priorloom[ct]'")
    stated = set()
    for file in dicoms:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=[tag])
            stated.add(str(header.get(tag) or "").strip())
        except Exception as error:  # the library raises almost anything on a damaged file
            raise ReaderError(f"images {file}", expected="a readable file", got=str(error)) from error
    return tuple(sorted(stated - {""}))


def _files(folder: Path) -> list[Path]:
    found = sorted(f for f in folder.iterdir() if f.is_file() and not f.name.startswith("."))
    known = [f for f in found if _format(f) is not None]
    if not known:
        got = f"{len(found)} other files" if found else "an empty folder"
        raise ReaderError(f"images {folder}", expected="DICOM, NIfTI, NRRD or .npy files", got=got)
    if len(known) > FILE_LIMIT:
        raise ReaderError(f"images {folder}", expected=f"at most {FILE_LIMIT} files", got=len(known))
    return known


def _format(file: Path) -> Callable[[Path], list[Array]] | None:
    name = file.name.lower()
    for ending, read in _FORMATS.items():
        if name.endswith(ending):
            return read
    # DICOM files often have no ending; their fifth block of 32 bytes begins with a mark.
    with file.open("rb") as stream:
        return _dicom if stream.read(132)[128:] == b"DICM" else None


def _read(file: Path) -> list[Array]:
    try:
        read = _format(file)
        if read is None:
            raise ReaderError(f"images {file}", expected=", ".join(_FORMATS), got=file.suffix or "no suffix")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what a library thinks of a file's details is not for our users
            found = read(file)
        planes = [np.array(p, dtype=np.float32, order="C") for p in found]  # own memory: a map may be read-only
    except InputError:
        raise
    except Exception as error:  # the libraries raise almost anything on a damaged file
        raise ReaderError(
            f"images {file}", expected="a readable file", got=f"{type(error).__name__}: {error}"
        ) from error
    for plane in planes:
        if plane.ndim != 2 or min(plane.shape) < 2:
            raise ReaderError(f"images {file}", expected="slices [rows, columns]", got=list(plane.shape))
        if not np.isfinite(plane).all():
            raise ReaderError(f"images {file}", expected="finite values", got="NaN or infinite ones")
    return planes


def _bounded(file: Path, shape: tuple[int, ...]) -> None:
    if len(shape) not in (2, 3) or not 0 < math.prod(shape) <= VALUE_LIMIT:
        raise ReaderError(f"images {file}", expected=f"[slices, rows, columns] with at most {VALUE_LIMIT} values",
                          got=list(shape))  # fmt: skip


def _backend(module: str, what: str, cure: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise InputError(f"{what} need the package {module}", cure=cure) from error


def _dicom(file: Path) -> list[Array]:
    pydicom = _backend("pydicom", "DICOM images", "pip install 'priorloom[ct]'")
    if file.stat().st_size > BYTE_LIMIT:
        raise ReaderError(f"images {file}", expected=f"at most {BYTE_LIMIT} bytes", got=file.stat().st_size)
    syntax = pydicom.filereader.read_file_meta_info(file).get("TransferSyntaxUID")
    if syntax is not None and syntax.is_deflated:  # its header cannot be read without unpacking all that follows
        raise ReaderError(
            f"images {file}", expected="a DICOM image", got="a deflated one", cure="write it uncompressed"
        )
    header = pydicom.dcmread(file, stop_before_pixels=True)
    if "Rows" not in header or "Columns" not in header:
        raise ReaderError(f"images {file}", expected="a DICOM image", got="a DICOM file without pixels")
    frames = int(header.get("NumberOfFrames") or 1)
    _bounded(file, (frames, int(header.Rows), int(header.Columns)))
    if int(header.get("SamplesPerPixel", 1)) != 1:
        raise ReaderError(f"images {file}", expected="one value a pixel", got=f"{header.SamplesPerPixel} (colour)")
    data = pydicom.dcmread(file)
    if "PixelData" not in data:
        raise ReaderError(f"images {file}", expected="a DICOM image", got="a DICOM file without pixels")
    slope, intercept = float(data.get("RescaleSlope", 1)), float(data.get("RescaleIntercept", 0))
    pixels = data.pixel_array.astype(np.float32) * np.float32(slope) + np.float32(intercept)
    return list(pixels.reshape(-1, *pixels.shape[-2:]))


def _nifti(file: Path) -> list[Array]:
    nibabel = _backend("nibabel", "NIfTI images", "pip install 'priorloom[mri]'")
    image = nibabel.load(file)
    shape = tuple(n for n in image.shape[:3]) + tuple(n for n in image.shape[3:] if n != 1)
    _bounded(file, shape)
    # Axial slices, whatever the order of the axes on disk: right to left, then front to back, as a radiologist looks.
    volume = np.asarray(nibabel.as_closest_canonical(image).dataobj, dtype=np.float32).reshape(
        nibabel.as_closest_canonical(image).shape[:3]
    )
    return [plane.T[::-1, ::-1] for plane in np.moveaxis(volume, -1, 0)]


def _npy(file: Path) -> list[Array]:
    array = np.load(file, mmap_mode="r", allow_pickle=False)
    if array.dtype.kind not in "iuf":
        raise ReaderError(f"images {file}", expected="real numbers", got=array.dtype)
    _bounded(file, array.shape)
    return list(array.reshape(-1, *array.shape[-2:]))


_NRRD_TYPES = {
    "uchar": "u1", "unsigned char": "u1", "uint8": "u1", "signed char": "i1", "int8": "i1", "short": "i2",
    "int16": "i2", "ushort": "u2", "unsigned short": "u2", "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4",
    "unsigned int": "u4", "uint32": "u4", "float": "f4", "double": "f8",
}  # fmt: skip


def _nrrd(file: Path) -> list[Array]:
    """Text lines, a blank line, the values with the first axis fastest (http://teem.sourceforge.net/nrrd/format.html)."""
    with file.open("rb") as stream:
        head, separator, _ = stream.read(2**16).replace(b"\r\n", b"\n").partition(b"\n\n")
        if not head.startswith(b"NRRD") or not separator:
            raise ReaderError(f"images {file}", expected="an NRRD header", got="none")
        lines = head.decode("ascii", "replace").lower().splitlines()[1:]
        pairs = (line.partition(":") for line in lines if not line.startswith("#") and ":=" not in line)
        fields = {name.strip(): value.strip() for name, _, value in pairs}
        if "data file" in fields or "datafile" in fields:
            raise ReaderError(f"images {file}", expected="values in the file itself", got="a separate data file")
        kind = _NRRD_TYPES.get(fields.get("type", ""))
        if kind is None:
            raise ReaderError(f"type of {file}", expected="an integer or real type", got=fields.get("type"))
        sizes = tuple(int(n) for n in fields.get("sizes", "").split())
        _bounded(file, sizes)
        stream.seek(0)
        while stream.readline(2**16).strip():
            pass
        dtype = np.dtype(kind).newbyteorder(">" if fields.get("endian") == "big" else "<")
        wanted = math.prod(sizes) * dtype.itemsize
        encoding = fields.get("encoding", "raw")
        if encoding in ("gzip", "gz"):
            with gzip.GzipFile(fileobj=stream) as unpacked:
                content = unpacked.read(wanted)
        elif encoding == "raw":
            content = stream.read(wanted)
        else:
            raise ReaderError(f"encoding of {file}", expected="raw or gzip", got=encoding)
    if len(content) != wanted:
        raise ReaderError(
            f"images {file}", expected=f"{wanted} bytes of values", got=len(content), cure="it is cut off"
        )
    array = np.frombuffer(content, dtype).reshape(sizes[::-1])
    return list(array.reshape(-1, *array.shape[-2:]))


_FORMATS: dict[str, Callable[[Path], list[Array]]] = {
    ".dcm": _dicom,
    ".ima": _dicom,
    ".nii": _nifti,
    ".nii.gz": _nifti,
    ".nrrd": _nrrd,
    ".npy": _npy,
}
