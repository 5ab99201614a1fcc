"""Shared fixtures."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # the workers already keep every core busy; their threads would wait for each other


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Measured data for tests: PRIORLOOM_DATA, or ../shared/data beside the checkout."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("PRIORLOOM_DATA", default))
    if not folder.is_dir():
        pytest.skip("no measured data: set PRIORLOOM_DATA to its folder")
    return folder


@pytest.fixture
def generator() -> torch.Generator:
    """A seeded random generator."""
    return torch.Generator().manual_seed(20)
