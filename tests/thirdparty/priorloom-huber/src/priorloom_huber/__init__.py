"""Huber total variation for Priorloom."""

from __future__ import annotations

from collections.abc import Mapping

from priorloom import hookimpl


@hookimpl
def priorloom_priors() -> Mapping[str, str]:
    """The prior of this package; the string is imported when somebody uses it."""
    return {"huber": "priorloom_huber.huber:huber"}
