"""Priorloom: reconstruct CT and MRI images with classical, plug-and-play and learned priors, and compare them honestly.

Names are resolved on first use, so that ``import priorloom`` imports no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .comparison import compare
    from .errors import PriorloomError
    from .functional import Functional
    from .hooks import hookimpl
    from .modality import Case, Modality, Reader, Scan
    from .operator import LinearOperator
    from .pipeline import Pipeline, Result
    from .plug_and_play import Denoiser, PnP
    from .problem import Problem, Term
    from .registry import Registry
    from .solve import run
    from .space import Space
    from .steps.base import State, Step

_HOME = {
    "Case": "modality",
    "Denoiser": "plug_and_play",
    "Functional": "functional",
    "LinearOperator": "operator",
    "Modality": "modality",
    "Pipeline": "pipeline",
    "PnP": "plug_and_play",
    "PriorloomError": "errors",
    "Problem": "problem",
    "Reader": "modality",
    "Registry": "registry",
    "Result": "pipeline",
    "Scan": "modality",
    "Space": "space",
    "State": "steps.base",
    "Step": "steps.base",
    "Term": "problem",
    "compare": "comparison",
    "hookimpl": "hooks",
    "run": "solve",
}

__all__ = [
    "Case",
    "Denoiser",
    "Functional",
    "LinearOperator",
    "Modality",
    "Pipeline",
    "PnP",
    "PriorloomError",
    "Problem",
    "Reader",
    "Registry",
    "Result",
    "Scan",
    "Space",
    "State",
    "Step",
    "Term",
    "compare",
    "hookimpl",
    "run",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'priorloom' has no attribute '{name}'")
    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
