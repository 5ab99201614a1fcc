"""A tiny training: 16 x 16 phantoms, 12 views, two layers; a step takes milliseconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from priorloom import Registry

TINY: dict[str, Any] = {
    "modality": "ct",
    "architecture": {"name": "learned-proximal-gradient", "layers": 2, "width": 4, "depth": 2},
    "operator": {"views": 12},
    "image_shape": [16, 16],
    "simulation": {"photons": [1e4, 1e5], "pixel_sizes": [4.0]},
    "data": {
        "train": [{"subject": "ellipses", "phantom": "ellipses"}],
        "validation": [{"subject": "foam", "phantom": "foam"}],
    },
    "batch_size": 2,
    "steps": 12,
    "validate_every": 5,
    "validation_batches": 1,
    "checkpoint_every": 2,
    "log_every": 1,
}


@pytest.fixture(scope="session")
def registry() -> Registry:
    """The installed components."""
    return Registry.discover()


@pytest.fixture
def config(tmp_path: Path) -> Any:
    """``config(steps=3)`` writes TINY with changes and returns its path."""

    def write(**changes: Any) -> Path:
        path = tmp_path / "tiny.yaml"
        path.write_text(yaml.safe_dump({**TINY, **changes}))
        return path

    return write
