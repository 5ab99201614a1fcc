"""Two methods under conditions other than those of a case: what they keep of their PSNR."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from priorloom.config import Plan, make_cases
from priorloom.errors import PriorloomError
from priorloom.modality import Case
from priorloom.reconstruction import Method, reconstruct
from priorloom.registry import Registry

from ..device import on_device

REFERENCE = "as it is"
GIVEN = "given anatomy"


@dataclass(frozen=True)
class Shift:
    """One condition.

    Parameters
    ----------
    name, settings, case
        What was changed, and the case that it made.
    method, against
        PSNR of the two in dB; None where one could not run.
    remark
        Why, or what a method warned of; empty where there is nothing to say.
    """

    name: str
    settings: Mapping[str, Any]
    case: str
    method: float | None
    against: float | None
    remark: str = ""


def run_shifts(
    plan: Plan,
    case: Case,
    methods: tuple[Method, Method],
    registry: Registry,
    anatomy: Path | None,
    device: str,
    tell: Callable[[str], None],
) -> tuple[list[Shift], list[str]]:
    """The case as it is and every shift of its modality, with the settings of the methods left as they are; and notes.

    Parameters
    ----------
    plan, case
        What made the case, with the modality named. Measured data cannot be shifted.
    methods
        The two.
    anatomy
        Another image, as ``case.files`` takes it.
    device, tell
        Where it runs, and what is told of the progress.
    """
    if case.truth is None:
        return [], ["no shifts: the case has no truth"]
    shifts: dict[str, Mapping[str, Any]] = dict(registry.modality(case.modality).shifts)
    notes = []
    if plan.input is not None:
        shifts = {}
        notes.append("no shifts: the data are measured, and cannot be simulated under other conditions")
    elif anatomy is not None:
        shifts[GIVEN] = {"case.files": (anatomy,)}
    found = [_measure(REFERENCE, {}, case, methods, registry, plan.seed)]
    for name, settings in shifts.items():
        tell(f"{case.name}: shift '{name}'")
        try:
            changed = make_cases(shifted(plan, settings), registry)
        except PriorloomError as error:
            found.append(Shift(name, _plain(settings), "", None, None, str(error)))
            continue
        one = next((c for c in changed if c.name == case.name), changed[0])
        found.append(_measure(name, settings, on_device(one, device), methods, registry, plan.seed))
    return found, notes


def shifted(plan: Plan, settings: Mapping[str, Any]) -> Plan:
    """The plan with settings of ``case.*`` and ``operator.*`` changed; images that are named take the place of files,
    and files that of images."""
    case = {k.removeprefix("case."): v for k, v in settings.items() if k.startswith("case.")}
    operator = {k.removeprefix("operator."): v for k, v in settings.items() if k.startswith("operator.")}
    kept = {k: v for k, v in plan.case.items() if not (case.get("files") and k == "images")}
    return replace(plan, case={**kept, **case}, operator={**plan.operator, **operator})


def _measure(
    name: str, settings: Mapping[str, Any], case: Case, methods: Sequence[Method], registry: Registry, seed: int
) -> Shift:
    figures: list[float | None] = []
    remarks = []
    for method in methods:
        try:
            result = reconstruct(case, method, registry=registry, seed=seed)
        except PriorloomError as error:
            figures.append(None)
            remarks.append(f"{method.name}: {error}")
            continue
        figures.append(None if result.metrics is None else result.metrics["psnr"])
        if result.model is not None and result.warnings:
            remarks.append(f"{method.name}: outside of what it was trained on")
        if result.converged is False:
            remarks.append(f"{method.name}: not converged")
    return Shift(name, _plain(settings), case.name, figures[0], figures[1], "; ".join(remarks))


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {k: [str(part) for part in v] if isinstance(v, tuple) else v for k, v in settings.items()}
