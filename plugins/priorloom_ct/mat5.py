"""MATLAB 5 files: structures, numbers and text, read without trusting a single size that the file declares.

scipy.io.loadmat allocates what a damaged file declares, gigabytes for one wrong byte. Here every size is held against
the bytes that are there. The layout is that of "MAT-File Format" (The MathWorks, chapter 1): a header of 128 bytes,
then elements of a tag (type, length) and content, padded to 8 bytes; a compressed element holds one other.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from priorloom.errors import ReaderError

BYTE_BUDGET = 2**30
"""A file that declares more than this once inflated is refused before it is loaded."""

MAGIC = b"MATLAB 5.0 MAT-file"

_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_TEXT = {1: "utf-8", 2: "utf-8", 4: "utf-16", 16: "utf-8", 17: "utf-16"}
_MATRIX, _COMPRESSED = 14, 15
_STRUCTURE, _CHARACTERS, _NUMERIC = 2, 4, range(6, 16)
_COMPLEX = 0x800
_HEAD = 256  # bytes of an element that hold its name
_DEPTH = 8  # of structures in structures
_PARTS = 4096  # of one array: the fields of a structure
_CURE = "download it again"


class _Damaged(Exception):
    """What a part of the file should have been and is not."""


@dataclass(frozen=True)
class Variable:
    """Where a variable is: the byte order, and the type, place and length of its element's content."""

    order: str
    kind: int
    place: int
    length: int


def variables(path: Path, expected: str = "a MATLAB 5 file") -> dict[str, Variable]:
    """The variables of a file by name, from the first bytes of each.

    Raises
    ------
    ReaderError
        Unreadable, empty, truncated, another format, damaged, or larger than the budget.
    """
    try:
        found, declared = _survey(path, expected)
    except OSError as error:
        raise ReaderError(path.name, expected="a readable file", got=error.strerror or str(error)) from error
    except zlib.error as error:
        raise ReaderError(path.name, expected="intact compressed data", got=str(error), cure=_CURE) from error
    if declared > BYTE_BUDGET:
        raise ReaderError(path.name, expected=f"at most {BYTE_BUDGET} bytes of data", got=f"{declared} declared")
    return found


def load(path: Path, variable: Variable) -> Any:
    """A variable: a dict for a structure, an array for real numbers, a string for text, None for anything else.

    Raises
    ------
    ReaderError
        Unreadable or damaged.
    """
    try:
        with path.open("rb") as file:
            file.seek(variable.place)
            content = memoryview(file.read(variable.length))
        if variable.kind == _COMPRESSED:
            content = _inflated(content, variable.order)
        return _matrix(content, variable.order, _DEPTH)
    except OSError as error:
        raise ReaderError(path.name, expected="a readable file", got=error.strerror or str(error)) from error
    except (_Damaged, zlib.error) as error:
        raise ReaderError(path.name, expected="an intact MATLAB file", got=str(error), cure=_CURE) from error


def _survey(path: Path, expected: str) -> tuple[dict[str, Variable], int]:
    """The variables, and how many bytes all of them declare."""
    found: dict[str, Variable] = {}
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(128)
        if not size:
            raise ReaderError(path.name, expected=expected, got="an empty file", cure=_CURE)
        if not head.startswith(MAGIC) or len(head) < 128 or head[126:] not in (b"IM", b"MI"):
            raise ReaderError(path.name, expected=expected, got="another format")
        order = "<" if head[126:] == b"IM" else ">"
        declared, place = 0, 128
        while place < size:
            file.seek(place)
            tag = file.read(8)
            kind, length = struct.unpack(f"{order}II", tag) if len(tag) == 8 else (0, size)
            if kind not in (_MATRIX, _COMPRESSED):
                raise ReaderError(path.name, expected="arrays", got=f"an element of kind {kind}", cure=_CURE)
            end = place + 8 + length
            if end > size:
                raise ReaderError(path.name, expected=f"{end} bytes", got=f"{size}", cure=_CURE)
            first = file.read(min(length, _HEAD))
            if kind == _COMPRESSED:
                inflated = zlib.decompressobj().decompress(first, _HEAD)
                declared += struct.unpack_from(f"{order}II", inflated)[1] if len(inflated) >= 8 else 0
                first = inflated[8:]
            else:
                declared += length
            found.setdefault(_name(first, order), Variable(order, kind, place + 8, length))
            place = end
    return found, declared


def _name(head: bytes, order: str) -> str:
    """The name of an array, from its first bytes; empty where there is none."""
    try:
        parts = _elements(memoryview(head), order)
        return [bytes(content) for _, content in islice(parts, 3)][2].decode("ascii", "replace")
    except (_Damaged, IndexError):
        return ""


def _inflated(content: memoryview, order: str) -> memoryview:
    """The content of the one array in a compressed element."""
    start = zlib.decompressobj().decompress(content, 8)
    kind, length = struct.unpack(f"{order}II", start) if len(start) == 8 else (0, 0)
    if kind != _MATRIX or length > BYTE_BUDGET:
        raise _Damaged("a compressed element without an array")
    stream = zlib.decompressobj()
    whole = stream.decompress(content, 8 + length + 1)  # the one byte more has the checksum read too
    if len(whole) != 8 + length or not stream.eof:
        raise _Damaged(f"{len(whole) - 8} of {length} bytes")
    return memoryview(whole)[8:]


def _elements(data: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """Type and content of every element."""
    place = 0
    while place < len(data):
        if len(data) - place < 8:
            raise _Damaged("half a tag")
        kind, length = struct.unpack_from(f"{order}II", data, place)
        start, after = place + 8, place + 8 + length + -length % 8
        if kind >> 16:  # up to four bytes of content lie in the tag itself
            kind, length, start, after = kind & 0xFFFF, kind >> 16, place + 4, place + 8
            if length > 4:
                raise _Damaged(f"{length} bytes in a tag")
        if start + length > len(data):
            raise _Damaged(f"{len(data) - start} of {length} bytes")
        yield kind, data[start : start + length]
        place = after


def _matrix(content: memoryview, order: str, depth: int) -> Any:
    """The value of an array: flags, sizes, name, and what its class has after that."""
    if depth == 0:
        raise _Damaged(f"structures more than {_DEPTH} deep")
    parts = list(islice(_elements(content, order), _PARTS + 1))
    if len(parts) > _PARTS:
        raise _Damaged(f"an array of more than {_PARTS} parts")
    if not parts:  # how MATLAB writes an empty array in a structure
        return np.zeros(0)
    if len(parts) < 3 or len(parts[0][1]) != 8 or len(parts[1][1]) % 4:
        raise _Damaged("an array without sizes")
    (flags,) = struct.unpack_from(f"{order}I", parts[0][1])
    sizes = struct.unpack(f"{order}{len(parts[1][1]) // 4}i", parts[1][1])
    if min(sizes, default=-1) < 0 or len(sizes) > 32:
        raise _Damaged("an array with impossible sizes")
    count, kind, rest = math.prod(sizes), flags & 0xFF, parts[3:]
    if kind == _STRUCTURE:
        return _structure(rest, count, order, depth)
    if flags & _COMPLEX or not rest or kind not in (_CHARACTERS, *_NUMERIC):
        return None
    stored, data = rest[0]
    if kind == _CHARACTERS:
        encoding = _TEXT.get(stored, "utf-8")
        return bytes(data).decode(encoding + {"<": "-le", ">": "-be"}[order] * (encoding == "utf-16"), "replace")
    if stored not in _NUMBERS or len(data) != count * np.dtype(_NUMBERS[stored]).itemsize:
        raise _Damaged(f"{len(data)} bytes for an array {list(sizes)}")
    return np.frombuffer(data, order + _NUMBERS[stored]).reshape(sizes, order="F")


def _structure(parts: list[tuple[int, memoryview]], count: int, order: str, depth: int) -> dict[str, Any] | None:
    """The fields of one structure; None for an array of several."""
    if len(parts) < 2 or len(parts[0][1]) != 4:
        raise _Damaged("a structure without field names")
    (width,) = struct.unpack(f"{order}i", parts[0][1])
    text, members = bytes(parts[1][1]), parts[2:]
    if width < 1 or len(text) % width or len(members) != count * (len(text) // width):
        raise _Damaged("a structure with missing fields")
    if count != 1 or any(kind != _MATRIX for kind, _ in members):
        return None
    names = [text[k : k + width].split(b"\0")[0].decode("ascii", "replace") for k in range(0, len(text), width)]
    return {name: _matrix(content, order, depth - 1) for name, (_, content) in zip(names, members, strict=True)}
