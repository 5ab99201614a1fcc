"""What the core itself offers through the hooks: the native bundle, which serves every modality."""

from __future__ import annotations

from collections.abc import Mapping

from .hooks import Factory, hookimpl


@hookimpl
def priorloom_readers() -> Mapping[str, Factory]:
    """The native ``.npz`` / ``.h5`` bundle."""
    return {"bundle": "priorloom.bundle:bundle"}
