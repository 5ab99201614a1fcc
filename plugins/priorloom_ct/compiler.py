"""numba's compiler, as all kernels use it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba

# Not "nnan" and "ninf": what is not a number in the data must stay visible in the result.
_OPTIONS: dict[str, Any] = {
    "nogil": True, "error_model": "numpy", "fastmath": {"contract", "nsz", "arcp", "reassoc"},
}  # fmt: skip


def compiled(function: Callable[..., Any]) -> Any:
    """`function` as compiled code that releases the interpreter's lock, kept on disk where there is a place for it."""
    try:
        return numba.njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # neither the package's folder nor the user's can be written: every process compiles anew
        return numba.njit(**_OPTIONS)(function)
