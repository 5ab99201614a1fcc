"""An error as the one line that the user reads, on the command line and in the studio."""

from __future__ import annotations

import re

from priorloom.errors import PriorloomError


def complaint(error: BaseException) -> str:
    """What is wrong in one line: an error of ours says it itself, of another the type is told too."""
    text = str(error)
    if isinstance(error, PriorloomError):
        return text
    if isinstance(error, MemoryError) or "not enough memory" in text or "out of memory" in text:
        asked = re.search(r"(?:tried to )?allocate (\d[\d.]* ?\w+)", text)
        asked_for = f": {asked.group(1)} more" if asked else ""
        return f"out of memory{asked_for}; take fewer views, slices or coils at a time, or smaller images"
    return " ".join(f"{type(error).__name__}: {error}".split()) + "; add --debug for the traceback"
