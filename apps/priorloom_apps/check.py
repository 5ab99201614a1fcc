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
    if kind is not None and kind not in KINDS:
        raise InputError(f"unknown kind '{kind}'", cure=did_you_mean(kind, KINDS))
    searched = [k for k in KINDS if kind in (None, k)]
    kinds = [k for k in searched if name in registry.names(k)]
    if not kinds:
        names = {n for k in searched for n in registry.names(k)}
        raise InputError(f"unknown {kind or 'component'} '{name}'", cure=did_you_mean(name, names))
    plan = override(Plan(), settings)
    given = {**plan.settings, **plan.operator}
    for key in (*(f"case.{k}" for k in plan.case), *(f"input.{k}" for k in plan.options)):
        raise InputError(f"--set {key}", expected=f"a parameter of '{name}'", got=key)
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
