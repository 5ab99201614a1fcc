"""The values behind the pictures of a report, as text that a page can hold and its script can unpack."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from priorloom.errors import InputError


def pack(planes: Sequence[NDArray[np.float64]]) -> str:
    """Planes of one shape as base64 of a zlib stream, bit for bit in float32.

    The bytes are shuffled first, as HDF5's filter of that name does: all lowest bytes of the little-endian float32
    values, then all second ones, and so on. Sign and exponent, which hardly change from pixel to pixel, then stand
    together and compress.

    Parameters
    ----------
    planes
        Each ``[rows, columns]``; values that are float32 numbers already come back exactly, others rounded to it.

    Raises
    ------
    InputError
        No plane, or planes of several shapes.
    """
    shapes = {plane.shape for plane in planes}
    if len(shapes) != 1:
        raise InputError("planes to pack", expected="at least one, all of one shape", got=sorted(shapes) or "none")
    values = np.stack([plane.astype("<f4") for plane in planes])
    shuffled = values.reshape(-1).view(np.uint8).reshape(-1, 4).T
    return base64.b64encode(zlib.compress(shuffled.tobytes(), 9)).decode()


__all__ = ["pack"]
