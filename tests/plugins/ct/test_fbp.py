"""Filtered backprojection: the attenuation of a disc from its exact line integrals, in every kind of scan."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import get_args

import numpy as np
import pytest
import torch

from priorloom.errors import InputError
from priorloom.modality import Case
from priorloom_ct import plan
from priorloom_ct.fbp import Backprojection, Filter, angular_weights, filtered_backprojection
from priorloom_ct.operators import RayTransform, fanbeam2d, parallel2d
from priorloom_ct.pipelines import fbp as direct_method

from .conftest import Disc

FAN = {"source_to_axis": 200.0, "axis_to_detector": 100.0}
GRID = {"image_shape": (96, 96), "pixel_size": 0.9}
UNEVEN = tuple(float(a) for a in np.concatenate([np.arange(0, 60, 0.5), np.arange(60, 180, 2)]))
RANDOM = tuple(float(a) for a in np.random.default_rng(0).uniform(0, 360, 300))
TWO_DENSITIES = tuple(float(a) for a in np.concatenate([np.arange(0, 160, 1), np.arange(160, 360, 2)]))
SCANS: dict[str, Callable[[], RayTransform]] = {
    "parallel 180": lambda: parallel2d(**GRID, views=120),
    "parallel 360": lambda: parallel2d(**GRID, views=240, arc_deg=360.0),
    "parallel 360, odd": lambda: parallel2d(**GRID, views=151, arc_deg=360.0),
    "parallel 270": lambda: parallel2d(**GRID, views=240, arc_deg=270.0),
    "parallel, both ends": lambda: parallel2d(**GRID, angles_deg=tuple(np.linspace(0, 180, 121).tolist())),
    "parallel, offset": lambda: parallel2d(**GRID, views=120, offset=11.3),
    "parallel, uneven": lambda: parallel2d(**GRID, angles_deg=UNEVEN),
    "parallel, random": lambda: parallel2d(**GRID, angles_deg=RANDOM),
    "parallel, oblong": lambda: parallel2d(image_shape=(80, 110), pixel_size=0.9, views=120, detector_pitch=0.6),
    "parallel, coarse": lambda: parallel2d(**GRID, views=120, detector_pitch=1.8),
    "fan 360": lambda: fanbeam2d(**GRID, views=240, **FAN),
    "fan, offset": lambda: fanbeam2d(**GRID, views=240, offset=9.7, **FAN),
    "fan, uneven": lambda: fanbeam2d(**GRID, angles_deg=TWO_DENSITIES, **FAN),
    "fan, short": lambda: fanbeam2d(**GRID, views=180, arc_deg=230.0, **FAN),
    "fan, long": lambda: fanbeam2d(**GRID, views=180, arc_deg=300.0, **FAN),
    "fan, from 200": lambda: fanbeam2d(**GRID, angles_deg=tuple(np.arange(200.0, 440.0, 1.3).tolist()), **FAN),
}


@pytest.mark.parametrize("name", SCANS)
def test_the_attenuation_of_a_disc_is_right_to_two_percent(name: str, disc: Disc) -> None:
    A = SCANS[name]()
    image = A.pseudo_inverse(disc.line_integrals(A.geometry)).numpy() / disc.mu
    distance = disc.distances(A.geometry)
    inside, outside = image[distance < disc.radius - 4], image[distance > disc.radius + 4]
    assert abs(inside.mean() - 1) < 0.005
    assert np.abs(inside - 1).max() < 0.02
    assert abs(outside.mean()) < 0.005


@pytest.mark.parametrize("filter", get_args(Filter))
def test_every_window_keeps_the_attenuation(filter: Filter, disc: Disc) -> None:
    A = SCANS["fan 360"]()
    image = filtered_backprojection(A, disc.line_integrals(A.geometry), filter, 0.8).numpy() / disc.mu
    assert np.abs(image[disc.distances(A.geometry) < disc.radius - 8] - 1).max() < 0.02


def test_windows_smooth_in_their_order(generator: torch.Generator) -> None:
    A = SCANS["parallel 180"]()
    noise = A.range.random(generator)
    deviations = [float(filtered_backprojection(A, noise, f).std()) for f in get_args(Filter)]
    assert all(a > b for a, b in pairwise(deviations)), "ram-lak > shepp-logan > cosine > hamming > hann"
    assert float(filtered_backprojection(A, noise, cutoff=0.5).std()) < deviations[0] / 2


def test_a_limited_arc_has_no_outlying_views() -> None:
    weights, arc = angular_weights(tuple(float(a) for a in range(30, 120)), 180.0)
    np.testing.assert_allclose(weights, np.deg2rad(1.0))
    np.testing.assert_allclose(arc, np.deg2rad([29.5, 90.0]))


@pytest.mark.parametrize("angles", [RANDOM, UNEVEN, (0.0, 90.0), (5.0,), (0.0, 180.0, 0.0, 90.0)])
def test_angular_weights_add_up_to_half_a_turn(angles: tuple[float, ...]) -> None:
    weights, arc = angular_weights(angles, 180.0)
    assert arc is None
    assert weights.sum() == pytest.approx(np.pi)


def test_limited_angle_fan_is_finite_and_nonzero(disc: Disc) -> None:
    A = fanbeam2d(**GRID, views=60, arc_deg=60.0, **FAN)
    image = A.pseudo_inverse(disc.line_integrals(A.geometry))
    assert bool(image.isfinite().all())
    assert float(image[disc.distances(A.geometry) < 10].mean()) > 0.2 * disc.mu


@pytest.mark.parametrize("name", ["parallel 180", "parallel, random", "fan 360", "fan, short"])
def test_backprojection_is_one_map_with_and_without_a_matrix(
    name: str, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    geometry = SCANS[name]().geometry
    free = Backprojection(geometry).double()
    y, x = free.domain.random(generator, (2,)), free.range.random(generator, (2,))
    image, views = free(y), free.adjoint(x)
    assert free.plan.name == "matrix-free"
    assert float((image * x).sum() - (y * views).sum()) == pytest.approx(0, abs=1e-11 * float(image.norm() * x.norm()))
    monkeypatch.setattr(plan, "has_kernels", lambda: False)
    matrix = Backprojection(geometry).double()
    assert "matrix" in matrix.plan.name
    torch.testing.assert_close(image, matrix(y), rtol=1e-5, atol=1e-4)  # its weights are in single precision
    torch.testing.assert_close(views, matrix.adjoint(x), rtol=1e-5, atol=1e-4)


def test_bad_filters_are_refused() -> None:
    A = parallel2d(image_shape=(8, 8), views=3)
    y = A.range.zeros()
    with pytest.raises(InputError, match=r"filter: expected one of ram-lak, .*, got ramp"):
        filtered_backprojection(A, y, "ramp")  # type: ignore[arg-type]
    for cutoff in (0.0, 1.5, float("nan")):
        with pytest.raises(InputError, match="cutoff of the filter: expected a fraction of Nyquist"):
            filtered_backprojection(A, y, cutoff=cutoff)


ARCS = {
    "full": tuple(float(a) for a in range(0, 360, 3)),
    "half": tuple(float(a) for a in range(0, 180, 3)),
    "limited": tuple(float(a) for a in range(20, 110, 3)),
    "across zero": tuple(float(a) for a in range(-40, 50, 3)),
    "two": (10.0, 40.0),
    "opposite": (10.0, 190.0),
    "single": (35.0,),
}


@pytest.mark.parametrize("beam", ["parallel", "fan"])
@pytest.mark.parametrize("arc", ARCS)
def test_repeated_views_share_the_weight_of_one(beam: str, arc: str) -> None:
    """The weights of all rays of one direction add up to the same, however often it was measured."""
    period = 360 if beam == "fan" else 180
    directions = sorted({round(a % period) for a in ARCS[arc]})

    def totals(angles: tuple[float, ...]) -> np.ndarray:
        grid = {"image_shape": (16, 16), "angles_deg": angles}
        A = fanbeam2d(**grid, **FAN) if beam == "fan" else parallel2d(**grid)
        assert bool(A.pseudo_inverse(torch.ones(A.range.shape)).isfinite().all())
        result = np.zeros((len(directions), A.range.shape[1]))
        np.add.at(result, [directions.index(round(a % period)) for a in angles], A.backprojection.ray_weights.numpy())
        return result

    once = totals(ARCS[arc])
    assert (once.sum(0) > 0).all()
    last = len(ARCS[arc]) - 1
    for k, turn in {(0, 0.0), (0, 360.0), (last // 2, 1e-9), (last, 0.0), (last, -360.0)}:
        np.testing.assert_allclose(totals((*ARCS[arc], ARCS[arc][k] + turn)), once, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(totals(tuple(a for a in ARCS[arc] for _ in range(3))), once, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("apart", [1e-12, 4e-7, 1e-6, 3e-6, 1e-3])
def test_nearly_repeated_views_keep_the_weights_finite(apart: float) -> None:
    for end in (20.0, 107.0):
        for sign in (-1, 1):
            A = fanbeam2d(image_shape=(16, 16), angles_deg=(*ARCS["limited"], end + sign * apart), **FAN)
            weights = A.backprojection.ray_weights
            assert bool(weights.isfinite().all())
            assert float(weights.min()) >= 0


@pytest.mark.parametrize(
    ("make", "cut"),
    [
        (lambda: parallel2d(**GRID, views=4), False),
        (lambda: parallel2d(**GRID, views=4, detectors=97), False),
        (lambda: parallel2d(**GRID, views=4, detectors=60), True),
        (lambda: parallel2d(**GRID, views=4, detectors=120, offset=30.0), True),
        (lambda: fanbeam2d(**GRID, views=4, **FAN), False),
        (lambda: fanbeam2d(**GRID, views=4, detectors=80, **FAN), True),
    ],
)
def test_a_detector_that_is_too_small_is_told(make: Callable[[], RayTransform], cut: bool) -> None:
    A = make()
    case = Case("disc", "ct", A, torch.zeros(A.range.shape), noise_std=1.0)
    warnings = direct_method().assemble(case).warnings
    assert len(warnings) == cut
    if cut:
        assert "the image's circle has" in warnings[0]
        assert "more detectors" in warnings[0]
