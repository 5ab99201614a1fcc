"""Benchmarks of operators against other implementations: what a plugin offers, and what ``priorloom bench`` runs.

A benchmark names an operator, cases of it, and peers: other implementations of the same map. Benchmarks of solvers and
training steps will be further classes beside `OperatorBenchmark`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..operator import LinearOperator


@dataclass(frozen=True)
class BenchmarkCase:
    """One size of an operator.

    Parameters
    ----------
    label
        In a few words, for the table.
    parameters
        Of the operator's factory. A value that is costly to make may be a function without arguments that makes it.
    batches
        Numbers of images that are transformed at once.
    """

    label: str
    parameters: Mapping[str, Any]
    batches: tuple[int, ...] = (1,)


@dataclass(frozen=True)
class Timed:
    """One application by a peer, made ready.

    Parameters
    ----------
    call
        What is timed: no copy or conversion that the peer's own user would not pay for.
    to_tensor
        The result of `call` as ours, in our units and shape; not timed.
    """

    call: Callable[[], Any]
    to_tensor: Callable[[Any], Tensor] = torch.as_tensor


@dataclass(frozen=True)
class Peer:
    """Another implementation of an operator.

    Parameters
    ----------
    forward, adjoint, normal
        Each takes our input, one image (a batch where `batched`) on the CPU or on our device, and makes an application
        ready; None where the peer has none.
    note
        What differs, such as another discretisation: what the reader needs to judge the ratio.
    batched
        Whether it takes a batch in one call. Otherwise it is timed on one image.
    """

    forward: Callable[[Tensor], Timed] | None = None
    adjoint: Callable[[Tensor], Timed] | None = None
    normal: Callable[[Tensor], Timed] | None = None
    note: str = ""
    batched: bool = False


MakePeer = Callable[[LinearOperator], Peer]
"""Makes the peer of an operator at hand; raises a PriorloomError that says why it cannot."""


@dataclass(frozen=True)
class OperatorBenchmark:
    """What a plugin's benchmark is.

    Parameters
    ----------
    operator
        The name of a registered operator, one's own or somebody else's.
    cases
        Sizes to run; none where the benchmark only adds peers to an operator that has cases already.
    peers
        Other implementations by name, compared in every case of the operator.
    """

    operator: str
    cases: tuple[BenchmarkCase, ...] = ()
    peers: Mapping[str, MakePeer] = field(default_factory=dict)


__all__ = ["BenchmarkCase", "MakePeer", "OperatorBenchmark", "Peer", "Timed"]
