"""Reconstruct one measurement with one method: what ``priorloom reconstruct`` runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from priorloom.comparison import run_method
from priorloom.config import Plan, make_cases, make_methods
from priorloom.errors import OutputError
from priorloom.files import check_writable, write_atomic
from priorloom.modality import Case
from priorloom.pipeline import Result
from priorloom.reconstruction import Method
from priorloom.registry import Registry

from .device import on_device
from .output import npy_bytes
from .present import choices, summary


def run_reconstruction(plan: Plan, method: str, registry: Registry, out: Path, device: str = "cpu") -> Result:
    """Reconstruct ``plan.input`` with `method` and write the image, ``.npy`` (values) or ``.png`` (picture)."""
    if out.suffix.lower() not in (".npy", ".png"):
        raise OutputError(f"output {out}", expected="a name that ends in .npy or .png", got=out.suffix or "no suffix")
    registry.factory("pipeline", method)
    (case,) = make_cases(plan, registry)
    case = on_device(case, device)
    (chosen,) = make_methods(replace(plan, methods=(Method(method),)), registry, [case.modality])[case.modality]
    check_writable(out.parent)
    result = run_method(case, chosen, registry=registry, seed=plan.seed)
    if out.suffix.lower() == ".npy":
        write_atomic(out, npy_bytes(result.image.cpu().numpy()))
    else:
        write_atomic(out, _picture(case, result, registry))
    modality = registry.modality(case.modality)
    print(f"{case.name}: {summary(result)}")
    for note in choices([result]):
        print(f"note: {note}")
    print(f"wrote {out}: {' x '.join(map(str, result.image.shape))} in {modality.units}")
    return result


def _picture(case: Case, result: Result, registry: Registry) -> bytes:
    from . import pictures

    image = case.operator.combined(result.image)
    shown = pictures.plane(registry.modality(case.modality).display(image))
    return pictures.grey_png(shown, *pictures.window([shown]))
