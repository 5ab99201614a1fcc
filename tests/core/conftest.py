"""Registries made of plugins that the test writes."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest

from priorloom import Registry, hookimpl

Discover = Callable[..., Registry]


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
