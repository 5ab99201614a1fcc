"""Simulated scans to learn from."""

from __future__ import annotations

import pytest
import torch

from priorloom import Registry


@pytest.mark.parametrize("name", ["mri.sense2d", "mri.fourier2d"])
def test_a_mask_in_the_settings_is_that_of_the_measurement_and_its_noise(name: str) -> None:
    registry = Registry.discover()
    training = registry.modality("mri").training
    assert training is not None
    mask = torch.rand((16, 16), generator=torch.Generator().manual_seed(5)) < 0.5
    simulate = training.simulator(
        registry, {"name": name, "mask": mask}, (16, 16), seed=0, coils=2, noise=(0.1, 0.1), operators=1
    )
    generator = torch.Generator().manual_seed(1)
    x = torch.rand((2, 16, 16), generator=generator).to(torch.complex64)
    batch = simulate(x, generator)
    assert torch.equal((batch.measurement != 0).any(0).reshape(-1, 16, 16).any(0), mask)
    assert batch.truth is not None
    noise = batch.measurement - batch.operator(batch.truth)
    assert bool((noise[..., mask].abs() > 0).all())  # every sample has its noise
