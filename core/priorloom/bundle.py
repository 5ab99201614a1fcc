"""The native bundle: one ``.npz`` or ``.h5`` file with a measurement and what is needed to reconstruct it.

Entries (arrays, numbers and strings, the same names in both formats):

==================  =========================================================================================
``operator``        name of the forward operator, for example ``ct.parallel2d``; its prefix is the modality
``operator.NAME``   each parameter of the operator, for example ``operator.angles_deg`` or ``operator.maps``
``measurement``     y, the shape of the operator's range
``truth``           optional, x in the units of the image
``noise_std``       optional, standard deviation of the noise per entry of y
==================  =========================================================================================
"""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import h5py
import numpy as np

from .errors import InputError, OutputError, ReaderError
from .modality import Reader, Scan

BYTE_BUDGET = 4 * 2**30
"""A bundle whose arrays declare more than this is refused before anything is allocated."""

_SUFFIXES = (".npz", ".h5", ".hdf5")
_KNOWN = ("operator", "measurement", "truth", "noise_std")


def bundle() -> Reader:
    """The reader of the native bundle."""
    return Reader("bundle", "Priorloom's own .npz or .h5 file: arrays and geometry", _SUFFIXES, _recognises, read)


def _recognises(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(8)
    return head.startswith(b"PK") if path.suffix.lower() == ".npz" else head == b"\x89HDF\r\n\x1a\n"


def read(path: Path) -> Scan:
    """Read a bundle.

    Raises
    ------
    ReaderError
        Not a bundle, truncated, pickled, too large, or without its required entries.
    """
    entries = _read_npz(path) if path.suffix.lower() == ".npz" else _read_h5(path)
    for name in ("operator", "measurement"):
        if name not in entries:
            raise ReaderError(f"{path.name}", expected=f"an entry '{name}'", got=", ".join(entries) or "nothing")
    operator = entries["operator"]
    if not isinstance(operator, str) or "." not in operator:
        raise ReaderError(f"operator in {path.name}", expected="a name such as 'ct.parallel2d'", got=repr(operator))
    parameters = {}
    for name, value in entries.items():
        if name.startswith("operator."):
            parameters[name.removeprefix("operator.")] = value
        elif name not in _KNOWN:
            raise ReaderError(
                f"entry '{name}' in {path.name}", expected=f"{', '.join(_KNOWN)} or operator.NAME", got=name
            )
    for name in ("measurement", "truth"):
        value = entries.get(name)
        if value is not None and not (isinstance(value, np.ndarray) and np.issubdtype(value.dtype, np.number)):
            raise ReaderError(f"{name} in {path.name}", expected="an array of numbers", got=type(value).__name__)
        if value is not None and not np.isfinite(value).all():
            bad = int((~np.isfinite(value)).sum())
            raise ReaderError(f"{name} in {path.name}", expected="finite values", got=f"{bad} NaN or infinite")
    noise = entries.get("noise_std")
    if noise is not None and not (isinstance(noise, int | float) and 0 <= noise < float("inf")):
        raise ReaderError(f"noise_std in {path.name}", expected="a number of at least 0", got=repr(noise))
    return Scan(
        operator.partition(".")[0],
        operator,
        parameters,
        entries["measurement"],
        entries.get("truth"),
        None if noise is None else float(noise),
        {"source": path.name},
    )


def write(path: Path, scan: Scan) -> None:
    """Write a bundle, whole or not at all (temporary name, fsync, rename).

    Raises
    ------
    InputError
        A suffix that is not a bundle's.
    OutputError
        The folder cannot be written.
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise InputError(f"suffix of {path.name}", expected=" or ".join(_SUFFIXES), got=path.suffix or "none")
    entries: dict[str, Any] = {"operator": scan.operator, "measurement": scan.measurement}
    entries |= {f"operator.{name}": value for name, value in scan.parameters.items() if value is not None}
    entries |= {k: v for k, v in (("truth", scan.truth), ("noise_std", scan.noise_std)) if v is not None}
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("x+b") as file:
            if path.suffix.lower() == ".npz":
                np.savez_compressed(file, allow_pickle=False, **{k: np.asarray(v) for k, v in entries.items()})
            else:
                with h5py.File(file, "w") as h5:
                    for name, value in entries.items():
                        h5[name] = np.bytes_(value.encode()) if isinstance(value, str) else np.asarray(value)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"output {path}", expected="a place that can be written", got=error.strerror) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _plain(value: Any) -> Any:
    """An array of rank 0 as the Python value it holds, a vector of numbers as it is."""
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, np.ndarray | np.generic) and value.ndim == 0:
        return _plain(value.item())
    if isinstance(value, np.ndarray) and not value.dtype.isnative:
        return value.astype(value.dtype.newbyteorder("="))  # torch knows the machine's byte order only
    return value


def _read_npz(path: Path) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(path) as archive:
            _check_budget(path, sum(item.file_size for item in archive.infolist()))
            for item in archive.infolist():
                with archive.open(item) as member:
                    _check_header(path, member, item)
        with np.load(path, allow_pickle=False) as file:
            return {name: _plain(file[name]) for name in file.files}
    except ReaderError:
        raise
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error, RuntimeError) as error:
        raise ReaderError(path.name, expected="a readable .npz bundle", got=str(error), cure=_CURE) from error


def _read_h5(path: Path) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    try:
        with h5py.File(path, "r") as file:
            declared = 0
            for name in file:
                # A link or an external dataset would let a file name other files on this machine.
                link = file.get(name, getlink=True)
                item = file[name] if isinstance(link, h5py.HardLink) else None
                if not isinstance(item, h5py.Dataset) or item.external or item.is_virtual:
                    raise ReaderError(
                        f"entry '{name}' in {path.name}", expected="a plain dataset", got="a link or group"
                    )
                # HDF5 follows pointers inside a file for other variable-length types, and crashes on bad ones.
                text = h5py.check_string_dtype(item.dtype) is not None and item.shape == ()
                if item.dtype.kind not in "biufcS" and not text:
                    raise ReaderError(
                        f"entry '{name}' in {path.name}", expected="numbers or one text", got=f"{item.dtype} values"
                    )
                declared += item.size * item.dtype.itemsize
            _check_budget(path, declared)
            for name in file:
                entries[name] = _plain(file[name][()])
    except ReaderError:
        raise
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise ReaderError(path.name, expected="a readable .h5 bundle", got=str(error), cure=_CURE) from error
    return entries


def _check_header(path: Path, member: IO[bytes], item: zipfile.ZipInfo) -> None:
    """An array's header may declare more than its member holds; NumPy would allocate that first."""
    version = np.lib.format.read_magic(member)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(member)
    if math.prod(shape) * dtype.itemsize > item.file_size:
        raise ReaderError(
            f"entry '{item.filename}' in {path.name}",
            expected=f"at most {item.file_size} bytes",
            got=f"an array of shape {shape} {dtype}",
            cure=_CURE,
        )


def _check_budget(path: Path, declared: int) -> None:
    if declared > BYTE_BUDGET:
        raise ReaderError(
            path.name,
            expected=f"at most {BYTE_BUDGET / 2**30:.0f} GiB of arrays",
            got=f"{declared / 2**30:.1f} GiB declared",
        )


_CURE = "the file is empty, truncated, pickled or not a bundle"
