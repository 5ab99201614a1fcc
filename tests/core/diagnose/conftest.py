"""Small problems on which networks are diagnosed."""

from __future__ import annotations

import pytest
import torch

from priorloom.modality import Batch
from priorloom.registry import Registry


@pytest.fixture(scope="session")
def registry() -> Registry:
    return Registry.discover()


def scans(registry: Registry, size: int, views: int, phantoms: tuple[str, ...]) -> Batch:
    training = registry.modality("ct").training
    assert training is not None
    generator = torch.Generator().manual_seed(0)
    images = torch.stack([training.phantoms[name]((size, size), generator) for name in phantoms])
    return training.simulator(registry, {"views": views}, (size, size), seed=0)(images, generator)


@pytest.fixture(scope="session")
def ct(registry: Registry) -> Batch:
    """Two phantoms of 24 x 24 pixels in 12 views."""
    return scans(registry, 24, 12, ("foam", "ellipses"))


@pytest.fixture(scope="session")
def tiny(registry: Registry) -> Batch:
    """One phantom of 12 x 12 pixels in 8 views."""
    return scans(registry, 12, 8, ("foam",))


@pytest.fixture(scope="session")
def mri(registry: Registry) -> Batch:
    """One phantom of 12 x 12 pixels, two coils: complex."""
    training = registry.modality("mri").training
    assert training is not None
    generator = torch.Generator().manual_seed(0)
    images = training.phantoms["shepp-logan"]((12, 12), generator)[None]
    return training.simulator(registry, {}, (12, 12), seed=0, coils=2, operators=1)(images, generator)
