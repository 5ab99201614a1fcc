"""Checkpoints: everything that a resumed run needs, in one file that appears whole or not at all."""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import ReaderError
from ..files import write_atomic
from ..unrolled import Unrolled

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
        # torch does not look at the checksums of its archive: a flipped bit would be trained on.
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise ReaderError(what, expected="a checkpoint", got=f"a damaged file (in '{damaged}')")
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ReaderError(what, expected="a checkpoint", got=error.strerror, cure="train without --resume") from error
    except ReaderError:
        raise
    except Exception as error:  # torch raises almost anything on a damaged file
        raise ReaderError(what, expected="a checkpoint", got=f"a damaged file ({type(error).__name__})") from error
    if not isinstance(stored, dict) or set(stored) != {f.name for f in fields(Progress)}:
        raise ReaderError(what, expected="a checkpoint of this version", got="something else")
    wrong = next((name for name, fits in _FITS.items() if not fits(stored[name])), None)
    if wrong is not None:
        raise ReaderError(what, expected="a checkpoint of this version", got=f"{wrong} of another kind")
    return Progress(**stored)


def check_fits(path: Path, progress: Progress, model: Unrolled) -> None:
    """Raise ReaderError where the weights of a checkpoint are not those of the model."""
    own = {name: tensor.shape for name, tensor in model.state_dict().items()}
    learned = {name: p.shape for name, p in model.named_parameters()}
    for name, stored, expected in (
        ("weights", progress.weights, own), ("best", progress.best, own), ("mean", progress.mean, learned)
    ):  # fmt: skip
        if stored is not None and {k: t.shape for k, t in stored.items()} != expected:
            raise ReaderError(f"checkpoint {path}", expected="the weights of this model", got=f"others in '{name}'")


def load_optimiser(optimiser: torch.optim.Optimizer, stored: dict[str, Any], path: Path) -> None:
    """Set an optimiser to what a checkpoint kept of it; ReaderError where that is of other parameters."""
    error = ReaderError(f"checkpoint {path}", expected="the optimiser of this model", got="something else")
    try:
        optimiser.load_state_dict(stored)
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as cause:
        raise error from cause
    for parameter, state in optimiser.state.items():
        kept = [state.get(name) for name in ("exp_avg", "exp_avg_sq")]
        if not all(isinstance(t, Tensor) and t.shape == parameter.shape for t in kept) or "step" not in state:
            raise error


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_weights(value: Any) -> bool:
    return _is_mapping(value) and all(isinstance(t, Tensor) and not t.is_sparse for t in value.values())


def _is_mapping(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(name, str) for name in value)


def _is_facts(value: Any) -> bool:
    return _is_mapping(value) and all(
        isinstance(known, list) and (all(map(_is_number, known)) or all(isinstance(v, str) for v in known))
        for known in value.values()
    )


def _is_settings(value: Any) -> bool:
    try:
        return isinstance(value, str) and isinstance(json.loads(value), dict)
    except (ValueError, RecursionError):
        return False


_FITS: dict[str, Callable[[Any], bool]] = {
    "step": _is_count,
    "seconds": lambda v: _is_number(v) and 0 <= v < math.inf,
    "weights": _is_weights,
    "mean": lambda v: v is None or _is_weights(v),
    "optimiser": _is_mapping,
    "best": lambda v: v is None or _is_weights(v),
    "best_step": _is_count,
    "best_loss": lambda v: v is None or _is_number(v),
    "best_metrics": lambda v: _is_mapping(v) and all(map(_is_number, v.values())),
    "worse": _is_count,
    "facts": _is_facts,
    "noise_std": lambda v: isinstance(v, list) and len(v) in (0, 2) and all(map(_is_number, v)),
    "settings": _is_settings,
}
"""What the values of a checkpoint must be, by name."""
