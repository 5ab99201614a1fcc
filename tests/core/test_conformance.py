"""Every component that ships passes the kit; a new one is tested without writing a test."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from priorloom import Registry
from priorloom.checking import check_component
from priorloom.registry import KINDS, ComponentKind

REGISTRY = Registry.discover()
PLUGINS = {p.name for p in REGISTRY.plugins if p.distribution == "priorloom"}
OURS = [(kind, name) for kind in KINDS for name in REGISTRY.names(kind) if REGISTRY.source(kind, name) in PLUGINS]


@pytest.mark.parametrize(("kind", "name"), OURS, ids=[f"{k}-{n}" for k, n in OURS])
def test_component_passes_the_kit(kind: ComponentKind, name: str) -> None:
    if name.startswith("deepinv-") and find_spec("deepinv") is None:
        pytest.skip("deepinv is not installed")
    checks = check_component(REGISTRY, kind, name)
    assert len(checks) >= 1
