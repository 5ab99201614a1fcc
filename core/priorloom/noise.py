"""How loud the noise of a measurement is in the image: the natural unit of regularisation weights."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch

from .operator import LinearOperator, Stored

_PROBES = 4
_KEPT: WeakKeyDictionary[LinearOperator, tuple[Stored, float]] = WeakKeyDictionary()


def backprojected_std(A: LinearOperator) -> float:
    """Standard deviation of ``A^H e`` per pixel for white noise e of standard deviation 1: ``|A|_F / sqrt(pixels)``.

    ``|A|_F`` is estimated by Hutchinson's method with a fixed seed, and kept as long as A is unchanged.
    """
    kept = _KEPT.get(A)
    if kept is None or not A._still_stores(kept[0]):
        w = A.range.random(torch.Generator().manual_seed(0), (_PROBES,), A.device)
        with torch.no_grad():
            std = float(A.adjoint(w).abs().square().mean().sqrt())
        kept = _KEPT[A] = (A._stored(), std)
    return kept[1]
