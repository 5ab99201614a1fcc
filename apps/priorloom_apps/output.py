"""Results as the content of files."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from priorloom.files import json_value
from priorloom.pipeline import Result
from priorloom.protocol.run import Protocol
from priorloom.protocol.statistics import Summary
from priorloom.reconstruction import versions

SCHEMA = 1


def npy_bytes(image: np.ndarray[Any, Any]) -> bytes:
    """An array as the content of a ``.npy`` file."""
    buffer = io.BytesIO()
    np.save(buffer, image, allow_pickle=False)
    return buffer.getvalue()


def row(result: Result, image: str | None) -> dict[str, Any]:
    """A result as one row of ``results.json``; metric fields are None without a truth."""
    figures = result.metrics or {}
    judgement = result.judgement
    return {
        "modality": result.modality,
        "case": result.case,
        "method": result.method,
        "kind": result.kind,
        **{name: figures.get(name) for name in ("psnr", "ssim", "nmse", "data_range")},
        "seconds": result.seconds,
        "iterations": result.iterations,
        "residual": result.residual,
        "gap": result.gap,
        "objective": result.objective,
        "converged": result.converged,
        "criterion": result.criterion,
        "outcome": result.outcome or None,
        "story": result.story,
        "parameters": dict(result.parameters),
        "tuned": result.tuned,
        "trials": None if result.chosen is None else result.chosen.to_json()["trials"],
        "certificate": result.certificate,
        **{name: getattr(judgement, name, None) or None for name in ("theorem", "condition", "reference", "reason")},
        "damped": result.damped,
        "model": None if result.model is None else asdict(result.model),
        "warnings": list(result.warnings),
        "scale": result.scale,
        "image": image,
    }


def results_json(
    rows: Sequence[Mapping[str, Any]], seed: int, protocol: Protocol | None = None, summary: Sequence[Summary] = ()
) -> bytes:
    """The content of ``results.json``; not-finite numbers become null, since JSON has none."""
    document = {
        "schema": SCHEMA,
        "seed": seed,
        "versions": dict(versions()),
        "rows": [json_value(r) for r in rows],
        "tuning": None if protocol is None else json_value(protocol.to_json()),
        "summary": [json_value(asdict(s)) for s in summary],
    }
    return (json.dumps(document, indent=1, allow_nan=False) + "\n").encode()
