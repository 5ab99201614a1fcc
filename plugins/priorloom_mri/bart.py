"""Reader of BART's ``.cfl`` / ``.hdr`` pairs: Cartesian k-space of one slice, with maps and mask as companions.

The header is text, the sizes of up to 16 dimensions on the line after ``# Dimensions``; the data are complex64, little
endian, first dimension fastest. BART's order is readout, phase 1, phase 2, coils, maps, then echoes, repetitions and
so on (Uecker et al., BART, proc. ISMRM 2015). One slice has exactly one of the first three dimensions equal to 1; the
other two become rows and columns in this order, and nothing is flipped.
"""

from __future__ import annotations

import math
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from priorloom.errors import InputError, ReaderError
from priorloom.modality import Reader, Scan

from .coils import calibration_block, espirit
from .compression import energy_kept, svd_compression
from .noise import mix_coils

Array = np.ndarray[Any, Any]

BYTE_BUDGET = 2 * 2**30
"""A header that declares more than this is refused before anything is read."""
HEADER_BYTES = 1 << 20
"""A header is a few lines; more is something else."""
KERNEL = 6
"""Side of ESPIRiT's patches."""


def bart() -> Reader:
    """The reader of BART files."""
    pair = (".cfl", ".hdr")
    return Reader("bart", "BART .cfl/.hdr: Cartesian k-space of one slice", pair, _recognises, read, companions=pair)


def read(
    path: Path,
    *,
    maps: Path | None = None,
    mask: Path | None = None,
    calibration: int = 24,
    sets: int = 1,
    coils: int | None = None,
) -> Scan:
    """Read k-space, and find the coil maps and the mask.

    Parameters
    ----------
    path
        Either file of the pair.
    maps
        Coil sensitivities, ``.cfl`` or ``.npy`` ``[coils, rows, columns]`` or ``[sets, coils, rows, columns]``;
        estimated by ESPIRiT when absent.
    mask
        Sampled positions, ``.cfl`` or ``.npy`` ``[rows, columns]`` or ``[columns]``; the nonzero samples when absent.
    calibration
        Largest width of the central block from which ESPIRiT estimates the maps; the fully sampled part of it is used.
    sets
        How many sets of maps ESPIRiT estimates: 2 where the field of view is smaller than the object.
    coils
        How many virtual coils the coils are compressed to; no compression when absent.

    Raises
    ------
    ReaderError
        A missing companion, a header that disagrees with the data, dimensions other than one slice, NaN, zeros only,
        maps or a mask that do not fit, no fully sampled centre to estimate maps from, or more sets or virtual coils
        than coils.
    """
    path = Path(path)
    kspace = _slice(_load_cfl(path), path)
    if not kspace.any():
        raise ReaderError(path.name, expected="k-space with signal", got="zeros only")
    measured, rows, columns = kspace.shape
    sampled = (kspace != 0).any(0) if mask is None else _load_mask(Path(mask), (rows, columns))
    if not sampled.any():
        raise ReaderError(f"mask of {path.name}", expected="at least one sample", got="a mask that samples nothing")
    kspace = kspace * sampled
    sensitivities = None if maps is None else _load_maps(Path(maps), kspace.shape)
    facts: dict[str, Any] = {"source": path.name, "coils": measured}
    if coils is not None and coils != measured:
        kspace, sensitivities, kept = _compress(kspace, sensitivities, coils)
        facts |= {"coils": coils, "coil compression": f"{measured} to {coils}, {kept:.2%} of the energy"}
    facts["sampled fraction"] = round(float(sampled.mean()), 4)
    parameters: dict[str, Any] = {"mask": sampled}
    if not 1 <= sets <= len(kspace):
        raise ReaderError("input.sets", expected=f"1 to {len(kspace)}, the number of coils", got=sets)
    if len(kspace) == 1 and sensitivities is None:
        return Scan("mri", "mri.fourier2d", {"image_shape": (rows, columns), **parameters}, kspace[0], metadata=facts)
    if maps is not None:
        facts["maps"] = Path(maps).name
    else:
        sensitivities, block = _estimate(kspace, sampled, calibration, sets, path)
        several = f", {sets} sets" if sets > 1 else ""
        facts["maps"] = f"ESPIRiT, {block[0]} x {block[1]} calibration{several}"
    return Scan("mri", "mri.sense2d", {"maps": sensitivities, **parameters}, kspace, metadata=facts)


def _recognises(path: Path) -> bool:
    header = path.with_suffix(".hdr")
    if not header.is_file():
        # Claimed, so that the missing companion is named.
        return path.suffix.lower() == ".cfl" and path.stat().st_size > 0
    with header.open("rb") as file:
        return file.read(256).lstrip().startswith(b"# Dimensions")


def _pair(path: Path) -> tuple[Path, Path]:
    """The header and the data, both of which must exist."""
    if path.suffix.lower() not in (".cfl", ".hdr"):
        raise ReaderError(path.name, expected="a .cfl or .hdr file", got=path.suffix or "no suffix")
    header, data = path.with_suffix(".hdr"), path.with_suffix(".cfl")
    for part in (header, data):
        if not part.is_file():
            raise ReaderError(f"companion {part.name}", expected="both .hdr and .cfl", got="no such file",
                              cure="copy the pair together")  # fmt: skip
    return header, data


def _dimensions(header: Path) -> tuple[int, ...]:
    """The sizes that a header declares, without trailing ones."""
    if header.stat().st_size > HEADER_BYTES:
        raise ReaderError(header.name, expected="a short text header", got=f"{header.stat().st_size} bytes")
    lines = header.read_bytes().decode("ascii", errors="replace").splitlines()
    after = [b for a, b in pairwise(lines) if a.strip() == "# Dimensions"]
    words = after[0].split() if after else []
    if not words or len(words) > 16 or not all(w.isascii() and w.isdigit() and len(w) < 16 for w in words):
        got = " ".join(words)[:60] or "none"
        raise ReaderError(header.name, expected="up to 16 sizes after '# Dimensions'", got=got)
    sizes = [int(w) for w in words]
    if 0 in sizes:
        raise ReaderError(header.name, expected="positive sizes", got=tuple(sizes))
    declared = 8 * math.prod(sizes)
    if declared > BYTE_BUDGET:
        raise ReaderError(
            header.name, expected=f"at most {BYTE_BUDGET // 2**30} GiB", got=f"{declared / 2**30:.1f} GiB declared",
            cure="extract the slice with 'bart slice'",
        )  # fmt: skip
    return tuple(sizes)


def _load_cfl(path: Path) -> Array:
    """The array of a pair, complex64, at least five dimensions."""
    try:
        header, data = _pair(path)
        sizes = _dimensions(header)
        actual = data.stat().st_size
        if actual != 8 * math.prod(sizes):
            raise ReaderError(
                data.name, expected=f"{8 * math.prod(sizes)} bytes for {sizes}", got=f"{actual} bytes",
                cure="the file is truncated, or the header belongs to another",
            )  # fmt: skip
        values = np.fromfile(data, dtype="<c8")
    except OSError as error:
        raise ReaderError(path.name, expected="readable files", got=str(error)) from error
    _check_finite(values, data)
    array = values.astype(np.complex64, copy=False).reshape(sizes, order="F")
    return array.reshape(sizes + (1,) * (5 - len(sizes)), order="F")


def _check_finite(array: Array, path: Path) -> None:
    bad = int((~np.isfinite(array)).sum())
    if bad:
        raise ReaderError(path.name, expected="finite values", got=f"{bad} NaN or infinite")


def _compress(kspace: Array, maps: Array | None, coils: int) -> tuple[Array, Array | None, float]:
    """K-space and maps of the virtual coils, and the fraction of the energy that they keep."""
    data = torch.from_numpy(kspace)
    try:
        matrix = svd_compression(data, coils)
    except InputError as error:
        raise ReaderError("input.coils", expected=f"1 to {len(kspace)}, those measured", got=coils) from error
    compressed = mix_coils(data, matrix)
    mixed = None if maps is None else mix_coils(torch.from_numpy(maps), matrix).numpy()
    return compressed.numpy(), mixed, energy_kept(data, compressed)


def _slice(array: Array, path: Path) -> Array:
    """``[coils, rows, columns]`` of one slice with one set of maps."""
    spatial, coils, rest = array.shape[:3], array.shape[3], array.shape[4:]
    if math.prod(rest) > 1:
        raise ReaderError(
            path.name, expected="one set of maps, echo, repetition ...", got=f"dimensions {array.shape}",
            cure="extract one with 'bart slice'",
        )  # fmt: skip
    if spatial.count(1) != 1:
        raise ReaderError(
            path.name, expected="one slice: exactly one of the first three dimensions is 1", got=f"{spatial}",
            cure="for a volume, transform the fully sampled axis with 'bart fft -i -u' and take a 'bart slice'",
        )  # fmt: skip
    rows, columns = (n for n in spatial if n > 1)
    plane = array.reshape(rows, columns, coils, order="F")
    return np.ascontiguousarray(plane.transpose(2, 0, 1))


def _load_npy(path: Path) -> Array:
    try:
        with path.open("rb") as file:
            if file.read(6) != b"\x93NUMPY":
                raise ReaderError(path.name, expected="a .npy file", got="other content")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a header that is not numpy's own
            declared: Array = np.load(path, mmap_mode="r", allow_pickle=False)
        # Wider floats have no fixed layout: 80 and 128 bits are stored under one name.
        if declared.dtype.kind not in "biufc" or declared.dtype.itemsize > (16 if declared.dtype.kind == "c" else 8):
            raise ReaderError(
                path.name, expected="booleans, integers, floats or complex", got=f"{declared.dtype} values"
            )
        if declared.nbytes > BYTE_BUDGET:
            raise ReaderError(path.name, expected=f"at most {BYTE_BUDGET // 2**30} GiB", got=f"{declared.nbytes} bytes")
        array = np.array(declared)
    except ReaderError:
        raise
    except Exception as error:  # numpy's parser raises whatever a damaged header provokes
        got = str(error) or type(error).__name__
        raise ReaderError(path.name, expected="a readable .npy file", got=got) from error
    return array


def _companion(path: Path) -> Array:
    """A companion as ``[..., rows, columns]``, finite."""
    if path.suffix.lower() != ".npy":
        return _slice(_load_cfl(path), path)
    array = _load_npy(path)
    _check_finite(array, path)
    return array


def _load_sets(path: Path) -> Array:
    """Maps ``[coils, rows, columns]``, or of several sets (BART's fifth dimension) ``[sets, coils, rows, columns]``."""
    if path.suffix.lower() == ".npy":
        return _companion(path)
    array = _load_cfl(path)
    sets = [_slice(array[:, :, :, :, i : i + 1], path) for i in range(array.shape[4])]
    return sets[0] if len(sets) == 1 else np.stack(sets)


def _load_maps(path: Path, shape: tuple[int, ...]) -> Array:
    maps = _load_sets(path)
    if maps.shape[-3:] != shape or maps.ndim not in (3, 4):
        raise ReaderError(
            f"maps {path.name}", expected=f"{list(shape)} or [sets, {str(list(shape))[1:]}", got=list(maps.shape),
            cure="coils, rows and columns must be those of the k-space",
        )  # fmt: skip
    if maps.ndim == 4 and len(maps) > shape[0]:
        raise ReaderError(f"maps {path.name}", expected=f"at most as many sets as coils ({shape[0]})", got=len(maps))
    with np.errstate(over="ignore"):  # what single precision cannot hold becomes infinite, and is refused
        single = maps.astype(np.complex64)
    _check_finite(single, path)
    if not single.any():
        raise ReaderError(f"maps {path.name}", expected="sensitivities", got="zeros only")
    return single


def _load_mask(path: Path, shape: tuple[int, int]) -> Array:
    mask = _companion(path)
    if path.suffix.lower() != ".npy":
        mask = (mask != 0).any(0)
    if mask.shape not in (shape, shape[1:]):
        expected = f"[{shape[0]}, {shape[1]}] or [{shape[1]}]"
        raise ReaderError(f"mask {path.name}", expected=expected, got=list(mask.shape))
    return np.array(np.broadcast_to(mask != 0, shape))


def _estimate(kspace: Array, sampled: Array, width: int, sets: int, path: Path) -> tuple[Array, tuple[int, int]]:
    if width < KERNEL + 2:
        raise ReaderError("input.calibration", expected=f"at least {KERNEL + 2}", got=width)
    block = calibration_block(torch.from_numpy(sampled), width)
    if min(block) < KERNEL + 2:
        raise ReaderError(
            f"coil maps of {path.name}", expected=f"a fully sampled centre of {KERNEL + 2} x {KERNEL + 2} at least",
            got=f"{block[0]} x {block[1]}", cure="give input.maps=FILE",
        )  # fmt: skip
    try:
        maps = espirit(torch.from_numpy(kspace), calibration=block, kernel=KERNEL, sets=sets)
    except InputError as error:
        raise ReaderError(str(error)) from error
    if not bool(maps.any()):
        raise ReaderError(f"coil maps of {path.name}", expected="a consistent calibration region", got="no support",
                          cure="give input.maps=FILE")  # fmt: skip
    return maps.numpy(), block
