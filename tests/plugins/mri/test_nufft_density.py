"""Trajectories and density compensation: geometry, areas, the fixed point, and images in their units."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.spatial
import torch
from torch import Tensor

from priorloom.errors import InputError
from priorloom_mri.coils import birdcage_maps
from priorloom_mri.density import pipe_menon, ramp
from priorloom_mri.nufft import nufft, radial2d, spiral2d
from priorloom_mri.phantoms import phantom
from priorloom_mri.trajectories import GOLDEN_ANGLE, kooshball, radial, spiral, stack_of_stars


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def test_radial_spokes_are_where_they_should_be() -> None:
    k = radial(4, 8)
    torch.testing.assert_close(k[0, :, 1], (torch.arange(8, dtype=torch.float64) - 4) / 8)  # along the columns
    torch.testing.assert_close(k[2, :, 0], (torch.arange(8, dtype=torch.float64) - 4) / 8)  # then along the rows
    golden = radial(3, 8, "golden")
    angles = torch.atan2(golden[:, -1, 0], golden[:, -1, 1]).remainder(math.pi)
    torch.testing.assert_close(angles, (torch.arange(3, dtype=torch.float64) * GOLDEN_ANGLE).remainder(math.pi))
    assert math.degrees(GOLDEN_ANGLE) == pytest.approx(111.246, abs=1e-3)


def test_spiral_samples_are_equally_far_apart() -> None:
    k = spiral(3, 400, 5.0)
    steps = k[0].diff(dim=0).norm(dim=-1)
    assert float(steps[5:].max() / steps[5:].min()) < 1.02  # a chord is shorter than its arc
    torch.testing.assert_close(k[:, -1].norm(dim=-1), torch.full((3,), 0.5, dtype=torch.float64))
    assert float(k[:, 0].abs().max()) == 0


def test_stars_and_koosh_balls_stay_inside() -> None:
    stack = stack_of_stars(6, 5, 8)
    assert stack.shape == (6, 5, 8, 3)
    assert torch.equal(stack[2, ..., 1:], radial(5, 8))
    assert stack[:, 0, 0, 0].tolist() == [-0.5, -1 / 3, -1 / 6, 0.0, 1 / 6, 1 / 3]
    ball = kooshball(500, 16)
    torch.testing.assert_close(ball[:, 0].norm(dim=-1), torch.full((500,), 0.5, dtype=torch.float64))
    ends = torch.cat([ball[:, 0], -ball[:, 0]])
    neighbours = scipy.spatial.cKDTree(ends.numpy()).query(ends.numpy(), k=2)[0][:, 1]
    assert neighbours.max() / neighbours.min() < 2.5  # the directions are spread evenly


@pytest.mark.parametrize("ordering", ["uniform", "golden"])
def test_ramp_gives_the_areas_of_the_voronoi_cells(ordering: str) -> None:
    n, spokes, readout = 16, 21, 16
    k = radial(spokes, readout, ordering)  # type: ignore[arg-type]
    weights = ramp(k, (n, n)) / n**2
    inner = (k.norm(dim=-1) > 0.1) & (k.norm(dim=-1) < 0.4)
    # The centre is shared: Voronoi wants distinct points.
    flat = k.reshape(-1, 2).numpy() + 1e-9 * np.random.default_rng(0).standard_normal((spokes * readout, 2))
    cells = scipy.spatial.Voronoi(flat)
    areas = np.full(len(flat), np.nan)
    for i in np.flatnonzero(inner.flatten()):
        areas[i] = scipy.spatial.ConvexHull(cells.vertices[cells.regions[cells.point_region[i]]]).volume
    ratio = weights.flatten().numpy()[inner.flatten()] / areas[inner.flatten()]
    assert abs(np.median(ratio) - 1) < 0.01
    assert np.abs(ratio - 1).max() < 0.05
    assert float(weights.sum()) == pytest.approx(math.pi / 4, rel=0.01)  # the disc


def test_ramp_in_three_dimensions_fills_the_ball() -> None:
    assert float(ramp(kooshball(50, 64), (8, 8, 8)).sum()) / 8**3 == pytest.approx(math.pi / 6, rel=0.01)


def test_half_spokes_cover_the_disc_too() -> None:
    angle = 2 * math.pi * torch.arange(30, dtype=torch.float64) / 30
    direction = torch.stack([angle.sin(), angle.cos()], -1)
    radius = torch.arange(32, dtype=torch.float64) / 64
    k = radius[:, None] * direction[:, None]
    edge = (31.5 / 64) ** 2
    assert float(ramp(k, (8, 8)).sum()) / 64 == pytest.approx(math.pi * edge, rel=1e-3)


def test_ramp_refuses_what_is_not_radial() -> None:
    with pytest.raises(InputError, match=r"\[spokes, readout, 2\].*use 'pipe-menon'"):
        ramp(torch.rand(9, 2, dtype=torch.float64) - 0.5, (8, 8))
    with pytest.raises(InputError, match="straight spokes"):
        ramp(spiral(4, 50, 3.0), (8, 8))


def test_pipe_menon_solves_its_fixed_point(generator: torch.Generator) -> None:
    # C from the definition: the squared inner products of the rows of A.
    k, shape = radial(13, 20), (10, 8)
    r = torch.stack(torch.meshgrid(*(torch.arange(n) - n // 2 for n in shape), indexing="ij"), -1).reshape(-1, 2)
    rows = torch.exp(-2j * math.pi * (k.reshape(-1, 2) @ r.double().T)) / math.sqrt(80)
    C = (rows @ rows.mH).abs().square()
    w = torch.ones(len(C), dtype=torch.float64)
    for _ in range(20):
        w = w / (C @ w)
    torch.testing.assert_close(pipe_menon(k, shape).flatten(), w, rtol=1e-4, atol=1e-6)
    density = C @ pipe_menon(k, shape, iterations=200).flatten()
    assert float((density - 1).abs().mean()) < 0.01


def test_pipe_menon_agrees_with_the_ramp_where_k_space_is_full() -> None:
    shape = (48, 48)
    k = radial(120, 96)
    exact, found = ramp(k, shape), pipe_menon(k, shape)
    inside = (k.norm(dim=-1) > 0.05) & (k.norm(dim=-1) < 0.4)
    assert float(((found - exact).abs() / exact)[inside].median()) < 0.01
    assert float(((found - exact).abs() / exact)[inside].max()) < 0.1
    assert float(found.sum() / exact.sum()) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("coils", [0, 4])
@pytest.mark.parametrize("kind", ["ramp", "pipe-menon", "given", "spiral"])
def test_direct_image_has_its_units(kind: str, coils: int, generator: torch.Generator) -> None:
    shape = (64, 64)
    maps = birdcage_maps(coils, shape) if coils else None
    if kind == "spiral":
        A = spiral2d(image_shape=shape, interleaves=8, maps=maps)
    elif kind == "given":  # in a unit of its own
        k = radial(110, 128)
        A = nufft(image_shape=shape, trajectory=k, maps=maps, density=7e3 * ramp(k, shape))
    else:
        A = radial2d(image_shape=shape, spokes=110, maps=maps, density=kind)  # type: ignore[arg-type]
    truth = phantom(shape, generator)
    image = A.pseudo_inverse(A(truth))
    assert distance(image, truth) < 0.11  # the corners of k-space are not measured
    scale = torch.vdot(truth.flatten(), image.flatten()) / truth.norm() ** 2
    assert abs(complex(scale) - 1) < 0.02


def test_weights_that_miss_the_centre_cannot_be_scaled() -> None:
    k = radial(5, 16)
    A = nufft(image_shape=(8, 8), trajectory=k, density=torch.zeros(5, 16))
    with pytest.raises(InputError, match="density weights"):
        A.pseudo_inverse(A.range.zeros())
