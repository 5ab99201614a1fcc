"""What the commands share: options, and the plan and the command line that they make. Imports nothing heavy."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from priorloom.config import Plan

Modality = Annotated[str | None, typer.Option("--modality", "-m", help="ct, mri or a plugin's.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", help="KEY=VALUE, e.g. prior.lam=0.1, input.every=12; METHOD.KEY for one method."),
]
Seed = Annotated[int | None, typer.Option("--seed", help="Seeds noise, phantoms and masks; recorded.")]
Device = Annotated[str, typer.Option("--device", "-d", help="cpu or cuda.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]


def plan_from(
    config: Path | None,
    modality: str | None,
    input: Path | None,
    seed: int | None,
    settings: list[str] | None,
    methods: list[str] | None = None,
) -> Plan:
    """What the file and the options say together; options win, and --set wins over both."""
    from dataclasses import replace

    from priorloom.config import Plan, load, override
    from priorloom.reconstruction import Method

    plan = Plan() if config is None else load(config)
    if modality is not None:
        plan = replace(plan, modality=modality)
    if input is not None:
        plan = replace(plan, input=input)
    if methods:
        plan = replace(plan, methods=tuple(Method(name) for name in methods))
    if seed is not None:
        plan = replace(plan, seed=seed)
    return override(plan, settings or [])


def command_line() -> str:
    """The command that runs, as one would type it."""
    return shlex.join(["priorloom", *sys.argv[1:]])
