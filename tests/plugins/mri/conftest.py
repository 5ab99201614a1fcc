"""Measured data for the MRI tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from priorloom_mri.bart import read


@pytest.fixture(scope="session")
def brain_dir(data_dir: Path) -> Path:
    """The folder of the 8-channel brain, fully sampled and 2 x 2 undersampled."""
    return data_dir / "mri-raw" / "espirit-brain"


@pytest.fixture(scope="session")
def brain(brain_dir: Path) -> Tensor:
    """Its full k-space, ``[8, 230, 180]``."""
    return torch.from_numpy(read(brain_dir / "full.cfl", maps=None).measurement)
