"""Registries made of plugins that the test writes, and operators made of matrices."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from priorloom import LinearOperator, Registry, Space, hookimpl

Discover = Callable[..., Registry]


class Matrix(LinearOperator):
    """``x -> M x`` for a dense matrix, and how often it was applied."""

    def __init__(self, M: Tensor) -> None:
        super().__init__(Space((M.shape[1],), M.dtype), Space((M.shape[0],), M.dtype))
        self.register_buffer("M", M)
        self.M: Tensor
        self.forwards = self.adjoints = 0

    def _forward(self, x: Tensor) -> Tensor:
        self.forwards += 1
        return x @ self.M.T

    def _adjoint(self, y: Tensor) -> Tensor:
        self.adjoints += 1
        return y @ self.M.conj()


@pytest.fixture
def matrix() -> type[Matrix]:
    """``matrix(M)`` is the operator of a dense matrix."""
    return Matrix


@pytest.fixture
def gaussian() -> Callable[..., Tensor]:
    """``gaussian(rows, columns, seed=0)``: a matrix or vector of standard normal numbers in double precision."""

    def make(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
        return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))

    return make


@pytest.fixture
def discover(monkeypatch: pytest.MonkeyPatch) -> Discover:
    """``discover(good={"priors": {"flat": flat}}, bad=ImportError("no"))`` is the Registry of exactly these plugins.

    A dict becomes a module with the hooks ``priorloom_<key>``, an exception is raised on load, anything else is loaded
    as it is. The distribution of NAME is NAME-dist 1.0.
    """

    def entry(name: str, content: object) -> SimpleNamespace:
        def load() -> object:
            if isinstance(content, BaseException):
                raise content
            if not isinstance(content, dict):
                return content
            hooks = {f"priorloom_{k}": hookimpl(lambda returned=v: returned) for k, v in content.items()}
            return SimpleNamespace(**hooks)

        return SimpleNamespace(name=name, load=load, dist=SimpleNamespace(name=f"{name}-dist", version="1.0"))

    def make(**plugins: object) -> Registry:
        entries = [entry(name, content) for name, content in plugins.items()]
        monkeypatch.setattr("priorloom.registry.entry_points", lambda group: entries if group == "priorloom" else [])
        return Registry.discover()

    return make
