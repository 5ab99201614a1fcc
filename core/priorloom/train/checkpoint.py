"""Checkpoints: everything that a resumed run needs, in one file that appears whole or not at all."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import OutputError, ReaderError

SIZE_LIMIT = 2**31
"""Bytes of a checkpoint."""

Weights = dict[str, Tensor]


@dataclass
class Progress:
    """Where a run stands; all that changes while it trains.

    Parameters
    ----------
    step
        Optimisation steps done, which is also the number of the next batch.
    seconds
        Time spent in all runs.
    weights, mean
        The weights, and their running mean (None without one).
    optimiser
        The optimiser's ``state_dict``.
    best, best_step, best_loss, best_metrics
        The weights that validated best so far, at which step, with which figures; None before the first validation.
    worse
        Validations since.
    facts, noise_std
        What the operators and the noise levels of the batches were: ``[lowest, highest]``, or the texts that occurred.
    settings
        What must be the same when resuming.
    """

    step: int = 0
    seconds: float = 0.0
    weights: Weights = field(default_factory=dict)
    mean: Weights | None = None
    optimiser: dict[str, Any] = field(default_factory=dict)
    best: Weights | None = None
    best_step: int = 0
    best_loss: float | None = None
    best_metrics: dict[str, float] = field(default_factory=dict)
    worse: int = 0
    facts: dict[str, list[Any]] = field(default_factory=dict)
    noise_std: list[float] = field(default_factory=list)
    settings: str = ""

    def see(self, facts: Mapping[str, float | str], noise_std: Tensor) -> None:
        """Widen `facts` and `noise_std` by those of a batch."""
        levels = [*self.noise_std, float(noise_std.min()), float(noise_std.max())]
        self.noise_std = [min(levels), max(levels)]
        for name, value in facts.items():
            known = [*self.facts.get(name, []), value]
            self.facts[name] = sorted(set(known)) if isinstance(value, str) else [min(known), max(known)]


def save(path: Path, progress: Progress) -> None:
    """Write a checkpoint."""
    buffer = io.BytesIO()
    torch.save({f.name: getattr(progress, f.name) for f in fields(progress)}, buffer)
    write_atomic(path, buffer.getvalue())


def load(path: Path) -> Progress:
    """Read a checkpoint; never unpickles.

    Raises
    ------
    ReaderError
        Not there, damaged, or not a checkpoint.
    """
    what = f"checkpoint {path}"
    try:
        if path.stat().st_size > SIZE_LIMIT:
            raise ReaderError(what, expected=f"at most {SIZE_LIMIT} bytes", got=path.stat().st_size)
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ReaderError(what, expected="a checkpoint", got=error.strerror, cure="train without --resume") from error
    except ReaderError:
        raise
    except Exception as error:  # torch raises almost anything on a damaged file
        raise ReaderError(what, expected="a checkpoint", got=f"a damaged file ({type(error).__name__})") from error
    names = {f.name for f in fields(Progress)}
    if not isinstance(stored, dict) or set(stored) != names:
        raise ReaderError(what, expected="a checkpoint of this version", got="something else")
    return Progress(**stored)


def write_atomic(path: Path, content: bytes) -> None:
    """Write `content` to a temporary name beside `path`, fsync, and rename.

    Raises
    ------
    OutputError
        The folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise OutputError(f"output {path}", expected="a place that can be written", got=error.strerror or str(error),
                          cure="choose another --out") from error  # fmt: skip
