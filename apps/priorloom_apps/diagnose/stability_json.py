"""The stability of methods as the content of ``stability.json``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from priorloom.diagnose.perturbation import norm
from priorloom.diagnose.stability import Stability
from priorloom.files import json_value
from priorloom.reconstruction import versions

from .stability_text import paragraph

if TYPE_CHECKING:
    from .stability import CaseStability

SCHEMA = 1
"""Version of the file."""


def to_json(found: Sequence[CaseStability], seed: int, command: str = "") -> bytes:
    """The content of ``stability.json``; infinite numbers become null."""
    document = {
        "schema": SCHEMA, "command": command, "seed": seed, "versions": dict(versions()),
        "cases": [_case_json(one) for one in found],
    }  # fmt: skip
    return (json.dumps(json_value(document), indent=1, allow_nan=False) + "\n").encode()


def _case_json(one: CaseStability) -> dict[str, Any]:
    largest = one.largest
    return {
        "case": one.case, "modality": one.modality, "words": paragraph(one), "noise_std": one.noise_std,
        "noise_source": one.noise_source, "level": one.level, "noise_norm": one.method.noise, "seed": one.seed,
        "method": _search_json(one, one.method, one.on_method),
        "against": _search_json(one, one.against, one.on_against) | {
            "chosen": one.baseline.standing, "settings": dict(one.baseline.method.settings),
            "record": None if one.baseline.record is None else one.baseline.record.to_json(),
        },
        "ratio_of_largest_amplifications": largest[0] / largest[1] if largest[1] else None,
        "shifts": [asdict(s) for s in one.shifts],
        "notes": list(one.notes),
    }  # fmt: skip


def _search_json(one: CaseStability, s: Stability, crossed: float) -> dict[str, Any]:
    local, worst, draws = s.local, s.worst, s.draws
    return {
        "method": s.method, "derivative": s.derivative, "runs": s.runs, "pulls": s.pulls, "seconds": s.seconds,
        "local": {
            "lipschitz": local.value, "relative": s.relative(local.value), "error": local.error, "size": local.size,
            "iterations": local.iterations, "history": list(local.history), "agreement": local.agreement,
        },
        "worst": {
            "amplification": worst.amplification, "relative": s.relative(worst.amplification),
            "change": worst.change, "in_noise_units": s.in_noise_units, "over_random": s.over_random,
            "radius": worst.radius, "norm": norm(worst.d), "history": [list(h) for h in worst.history],
            "seeds": list(worst.seeds), "standing": "at least",
            "perturbation": perturbation_file(one, s),
        },
        "under_the_other's": crossed,
        "random": {
            "amplification": draws.amplification, "relative": s.relative(draws.amplification),
            "changes": list(draws.changes), "seed": draws.seed,
        },
        "errors": None if s.errors is None else asdict(s.errors),
    }  # fmt: skip


def perturbation_file(one: CaseStability, s: Stability) -> str:
    """The name of the file with the worst perturbation of a method."""
    return f"perturbation-{one.case}-{s.method}.npy"
