"""Run the conformance kit on an installed component and print what was measured: what ``priorloom check`` runs."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from priorloom.checking import check_component
from priorloom.config import Plan, override
from priorloom.errors import InputError, did_you_mean
from priorloom.registry import KINDS, ComponentKind, Registry

from .present import console


def run_check(registry: Registry, name: str, kind: str | None, settings: Sequence[str]) -> None:
    """Check the component of that name; `settings` are ``KEY=VALUE`` texts that change its example parameters."""
    kinds = [k for k in KINDS if name in registry.names(k) and kind in (None, k)]
    if kind is not None and kind not in KINDS:
        raise InputError(f"unknown kind '{kind}'", cure=did_you_mean(kind, KINDS))
    if not kinds:
        everything = {n for k in KINDS for n in registry.names(k)}
        raise InputError(f"unknown component '{name}'", cure=did_you_mean(name, everything))
    given = dict(override(Plan(), settings).settings)
    for found in kinds:
        _one(registry, found, name, given)


def _one(registry: Registry, kind: ComponentKind, name: str, given: dict[str, object]) -> None:
    table = Table("check", "measured", box=None, pad_edge=False)
    checks = check_component(registry, kind, name, given)
    for check in checks:
        table.add_row(check.name, f"{check.figure:.3g}")
    shell = console()
    shell.print(f"[bold]{kind} {name}[/] (plugin {registry.source(kind, name)})", highlight=False)
    shell.print(table)
    shell.print(f"passed {len(checks)} checks", highlight=False)
