"""What the checks share: the record of a check, the error, relative distances, and what every component owes."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from ..errors import InputError, PriorloomError
from ..space import Space

T = TypeVar("T")


@dataclass(frozen=True)
class Check:
    """One check that was passed.

    Parameters
    ----------
    name
        What was checked.
    figure
        What was measured; zero is perfect unless the name says otherwise.
    """

    name: str
    figure: float


class ConformanceError(PriorloomError, AssertionError):
    """A component does not keep the contract: which check, what was expected, what came."""


def require(name: str, figure: float, allowed: float, meaning: str | None = None) -> Check:
    """The check, passed when `figure` is at most `allowed`; `meaning` says what a failure means."""
    if not figure <= allowed:
        raise ConformanceError(name, expected=f"at most {allowed:.2g}", got=f"{figure:.3g}", cure=meaning)
    return Check(name, figure)


def require_fit(name: str, space: Space, got: Tensor, batch: tuple[int, ...]) -> None:
    """The output has this Space and batch shape, and is finite."""
    expected = f"{[*batch, *space.shape]} {space.dtype}"
    if not isinstance(got, Tensor) or tuple(got.shape) != (*batch, *space.shape) or got.dtype != space.dtype:
        shown = f"{list(got.shape)} {got.dtype}" if isinstance(got, Tensor) else type(got).__name__
        raise ConformanceError(name, expected=expected, got=shown)
    if not bool(got.isfinite().all()):
        raise ConformanceError(name, expected="finite values", got=f"{int((~got.isfinite()).sum())} NaN or infinite")


def require_refusal(apply: Callable[[Tensor], Tensor], space: Space) -> None:
    """A wrong shape and a wrong dtype raise an InputError that says what was expected and what came."""
    wrong_dtype = torch.float64 if space.dtype != torch.float64 else torch.float32
    for what, bad in (
        ("wrong shape", torch.zeros((*space.shape[:-1], space.shape[-1] + 1), dtype=space.dtype)),
        ("wrong dtype", torch.zeros(space.shape, dtype=wrong_dtype)),
    ):
        try:
            apply(bad)
        except InputError as error:
            if "expected" in str(error) and "got" in str(error):
                continue
            raise ConformanceError(f"error for a {what}", expected="expected and got", got=error) from None
        except Exception as error:
            raise ConformanceError(f"{what}", expected="an InputError", got=type(error).__name__) from error
        raise ConformanceError(f"{what}", expected="an InputError", got="a result")


def unchanged(name: str, apply: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """``apply(x)``, and x must stay as it was."""
    before = x.clone()
    result = apply(x)
    if not torch.equal(x, before):
        raise ConformanceError(f"input of the {name}", expected="left as it was", got="modified in place")
    return result


def pickled(component: T) -> T:
    """A copy through pickle."""
    try:
        copied: T = pickle.loads(pickle.dumps(component))
    except Exception as error:
        raise ConformanceError(
            "pickle round trip", expected="a copy", got=f"{type(error).__name__}: {error}"
        ) from error
    return copied


def far(space: Space, a: Tensor, b: Tensor) -> float:
    """``|a - b| / max(|a|, |b|)``, the largest over the batch; 0 where both are zero."""
    return float((space.norm(a - b) / at_least(torch.maximum(space.norm(a), space.norm(b)))).max())


def number_gap(a: Tensor, b: Tensor) -> float:
    """``|a - b| / max(|a|, |b|)`` of numbers, the largest."""
    return float(((a - b).abs() / at_least(torch.maximum(a.abs(), b.abs()))).max())


def at_least(x: Tensor) -> Tensor:
    """`x`, or the smallest positive number: a divisor."""
    return x.clamp_min(torch.finfo(x.dtype).tiny)


def wide(x: Tensor) -> Tensor:
    """`x` in double precision."""
    return x.to(torch.complex128 if x.is_complex() else torch.float64)


def rounding(space: Space) -> float:
    """The rounding unit of a Space."""
    return torch.finfo(space.real_dtype).eps


def device_of(component: nn.Module) -> torch.device:
    """Where its tensors live; the CPU when it has none."""
    for tensor in (*component.parameters(), *component.buffers()):
        return tensor.device
    return torch.device("cpu")
