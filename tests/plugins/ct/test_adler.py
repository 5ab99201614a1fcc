"""The setup of Adler and Oktem against ODL, with which they made it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from priorloom import Registry
from priorloom.errors import InputError
from priorloom.train.config import load
from priorloom_ct.phantoms import Ellipse, adler_ellipses, adler_shepp_logan, sampled_ellipses
from priorloom_ct.simulate import MU_WATER
from priorloom_ct.training import simulator

odl = pytest.importorskip("odl")
tomo = pytest.importorskip("odl.applications.tomo")

CONFIG = Path(__file__).parents[3] / "examples/train/adler-ellipses.yaml"


def odl_image(phantom: object) -> torch.Tensor:
    """ODL's [x, y] as our [rows, columns]."""
    return torch.from_numpy(np.rot90(phantom.asarray()).copy())  # type: ignore[attr-defined]


@pytest.mark.parametrize("size", [32, 33])
def test_head_equals_odl(size: int) -> None:
    space = odl.uniform_discr([-64, -64], [64, 64], [size, size], dtype="float32")
    expected = odl_image(odl.phantom.shepp_logan(space, modified=True))
    torch.testing.assert_close(adler_shepp_logan((size, size)) / MU_WATER, expected, rtol=0, atol=1e-6)


def test_sampled_ellipses_equal_odl() -> None:
    space = odl.uniform_discr([-1, -1], [1, 1], [40, 40], dtype="float32")
    rows = [(0.7, 0.3, 0.8, 0.2, -0.5, 0.6), (-0.4, 1.2, 0.1, -0.9, 0.9, 2.0), (0.2, 0.05, 0.5, 0.0, 0.0, 4.0)]
    members = [Ellipse(v, (a, b), (x, y), float(np.rad2deg(t))) for v, a, b, x, y, t in rows]
    expected = odl_image(odl.phantom.ellipsoid_phantom(space, [list(row) for row in rows]))
    torch.testing.assert_close(sampled_ellipses((40, 40), members), expected, rtol=0, atol=1e-6)


def test_random_ellipses_have_the_stated_moments() -> None:
    """Every pixel is a sum of independent values with mean 0: no drift, both signs."""
    generator = torch.Generator().manual_seed(0)
    images = torch.stack([adler_ellipses((32, 32), generator) for _ in range(200)]) / MU_WATER
    assert abs(float(images.mean())) < 0.02
    assert float(images.min()) < -0.5 < 0.5 < float(images.max())
    # E v^2 = 1/12 * 2 * 0.4^2 per ellipse; at the centre about 50 E[area] / 4 of them overlap, E[area] = pi 0.2^2.
    expected = 50 * np.pi * 0.2**2 / 4 * (2 * 0.4**2 / 12)
    assert float(images[:, 12:20, 12:20].square().mean()) == pytest.approx(expected, rel=0.3)
    again = adler_ellipses((32, 32), torch.Generator().manual_seed(0)) / MU_WATER
    assert torch.equal(again, images[0])


def test_noise_relative_to_the_signal() -> None:
    simulate = simulator(Registry.discover(), {"views": 40}, (48, 48), seed=0, relative_noise=0.05)
    truth = torch.stack([adler_shepp_logan((48, 48)), 3 * adler_shepp_logan((48, 48))])
    batch = simulate(truth, torch.Generator().manual_seed(0))
    clean = batch.operator(truth / MU_WATER)
    torch.testing.assert_close(batch.noise_std, 0.05 * clean.abs().mean(dim=(-2, -1)))
    error = (batch.measurement - clean).std(dim=(-2, -1))
    torch.testing.assert_close(error, batch.noise_std, rtol=0.05, atol=0)


@pytest.mark.parametrize("share", [0.0, -0.1, float("nan"), float("inf")])
def test_relative_noise_must_be_positive(share: float) -> None:
    with pytest.raises(InputError, match=r"simulation\.relative_noise"):
        simulator(Registry.discover(), {}, (32, 32), seed=0, relative_noise=share)


def test_config_is_the_scan_that_odl_chooses() -> None:
    plan = load(CONFIG)
    A = Registry.discover().operator("ct.parallel2d", image_shape=plan.image_shape, **plan.operator)
    space = odl.uniform_discr([-64, -64], [64, 64], [128, 128], dtype="float32")
    geometry = tomo.parallel_beam_geometry(space, num_angles=30)
    np.testing.assert_allclose(A.geometry.angles_deg, np.rad2deg(geometry.angles), atol=1e-9)  # type: ignore[attr-defined]
    phantom = odl.phantom.shepp_logan(space, modified=True)
    expected = tomo.RayTransform(space, geometry, impl="astra_cpu")(phantom).asarray()
    ours = A(odl_image(phantom))
    np.testing.assert_allclose(ours, expected, atol=5e-4 * float(expected.max()))
