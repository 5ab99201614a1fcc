"""FDK: the attenuation of a ball from its exact line integrals, shares of rays measured twice, derivatives."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from priorloom import Case, Registry, compare
from priorloom.errors import InputError
from priorloom.reconstruction import Method
from priorloom.testing import check_operator
from priorloom_ct.fbp import Filter
from priorloom_ct.fdk import ConeBackprojection, fdk, parker, remarks, shares, turn_window
from priorloom_ct.operators import fanbeam2d
from priorloom_ct.operators3d import ConeTransform, conebeam3d, helical3d

from .conftest import Disc
from .scans3d import Ball

BEAM: dict[str, Any] = {"source_to_axis": 200.0, "axis_to_detector": 100.0}
SIZE: dict[str, Any] = {"image_shape": (64, 64, 64), "detector_shape": (96, 96), "detector_pitch": 1.5, **BEAM}
UNEVEN = tuple(float(a) for a in np.concatenate([np.arange(0, 160, 2.0), np.arange(160, 360, 4.0)]))
SCANS: dict[str, Callable[[], ConeTransform]] = {
    "circle": lambda: conebeam3d(**SIZE, views=90),
    "uneven": lambda: conebeam3d(**SIZE, angles_deg=UNEVEN),
    "offset": lambda: conebeam3d(**SIZE, views=90, offset=5.1, row_offset=-4.7),
    "short": lambda: conebeam3d(**SIZE, views=90, arc_deg=210.0),
    "short, from 200": lambda: conebeam3d(**SIZE, angles_deg=tuple(np.arange(200.0, 420.0, 2.3).tolist())),
    "long": lambda: conebeam3d(**SIZE, views=110, arc_deg=300.0),
    "thick": lambda: conebeam3d(**{**SIZE, "image_shape": (32, 64, 64)}, slice_thickness=2.0, row_pitch=2.5, views=90),
    "helix": lambda: helical3d(**{**SIZE, "detector_shape": (44, 96)}, pitch=24.0, views=340),
    "left-handed": lambda: helical3d(**{**SIZE, "detector_shape": (44, 96)}, pitch=-16.0, views=460),
}


@pytest.mark.parametrize("name", SCANS)
def test_the_attenuation_of_a_ball_is_right_to_one_percent(name: str) -> None:
    A, ball = SCANS[name](), Ball()
    image = A.pseudo_inverse(ball.line_integrals(A.geometry)).numpy() / ball.mu
    distance = ball.distances(A.geometry)
    assert abs(image[distance < 3].mean() - 1) < 0.003
    assert np.abs(image[distance < ball.radius - 4] - 1).max() < 0.01
    assert abs(image[distance > ball.radius + 4].mean()) < 0.002


@pytest.mark.parametrize("filter", get_args(Filter))
def test_every_window_keeps_the_attenuation(filter: Filter) -> None:
    A, ball = SCANS["circle"](), Ball()
    image = fdk(A.backprojection, ball.line_integrals(A.geometry), filter, 0.9).numpy() / ball.mu
    assert abs(image[ball.distances(A.geometry) < ball.radius - 8].mean() - 1) < 0.005


def test_the_middle_plane_is_the_fan_beam(disc: Disc) -> None:
    """One detector row in the source's plane: filtered backprojection of a fan."""
    size: dict[str, Any] = {"pixel_size": 0.9, "detector_pitch": 1.35, **BEAM}
    plane = fanbeam2d(image_shape=(96, 96), views=200, detectors=161, **size)
    A = conebeam3d(image_shape=(1, 96, 96), views=200, detector_shape=(1, 161), **size)
    y = disc.line_integrals(plane.geometry)
    torch.testing.assert_close(A.pseudo_inverse(y[:, None])[0], plane.pseudo_inverse(y), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("arc_deg", [200.0, 230.0, 300.0, 359.0])
def test_the_two_measurements_of_a_ray_share_it(arc_deg: float) -> None:
    arc = np.deg2rad(arc_deg)
    fan = np.linspace(-(arc - np.pi) / 2, (arc - np.pi) / 2, 41)[1:-1]
    along = np.linspace(0, arc, 181)[:, None]
    own = parker(along, fan[None], arc)
    again, opposite = along + np.pi - 2 * fan, np.broadcast_to(-fan, own.shape)
    for shift in (-2 * np.pi, 0.0, 2 * np.pi):
        inside = (again + shift >= 0) & (again + shift <= arc)
        total = own + parker(again + shift, opposite, arc)
        np.testing.assert_allclose(total[inside], 1, atol=1e-12)
        own = np.where(inside, 1 - parker(again + shift, opposite, arc), own)  # leave the singly measured rays
    single = np.ones(own.shape, bool)
    for shift in (-2 * np.pi, 0.0, 2 * np.pi):
        single &= ~((again + shift >= 0) & (again + shift <= arc))
    assert single.any()
    np.testing.assert_allclose(parker(along, fan[None], arc)[single], 1, atol=1e-12)
    assert parker(np.zeros(1), np.zeros(1), arc)[0] == 0


def test_parker_s_own_arc() -> None:
    """The formula of the paper, for half a turn and the fan: ``sin^2(pi/4 along / (delta + fan))`` at the beginning."""
    delta = 0.2
    arc = np.pi + 2 * delta
    for along, fan, expected in (
        (0.1, 0.05, np.sin(np.pi / 4 * 0.1 / 0.25) ** 2),
        (0.3, -0.1, 1.0),
        (arc - 0.1, 0.05, np.sin(np.pi / 4 * 0.1 / 0.15) ** 2),
        (np.pi / 2, 0.19, 1.0),
    ):
        assert parker(np.array(along), np.array(fan), arc) == pytest.approx(expected)


@pytest.mark.parametrize("name", SCANS)
def test_shares_of_all_views_are_half_a_turn(name: str) -> None:
    A = SCANS[name]()
    half_turns = 1.0 if not A.geometry.pitch else float(np.ptp(A.geometry.angles)) / (2 * np.pi)
    total = shares(A.geometry).sum(0)
    middle = total[len(total) // 2]
    assert middle == pytest.approx(np.pi * half_turns, rel=0.01)


def test_turns_of_a_helix_add_up_to_one() -> None:
    A = SCANS["helix"]()
    window = turn_window(A.geometry)
    angles, complete = A.geometry.angles, slice(20, 44)
    turns = (window[:, complete] * np.gradient(angles)[:, None]).sum(0)
    np.testing.assert_allclose(turns, 2 * np.pi, rtol=2e-3)
    assert window.min() >= 0
    assert window.max() == 1
    # The same angle in the turns above and below.
    per_turn = round(2 * np.pi / float(np.diff(angles).mean()))
    if np.isclose(per_turn * float(np.diff(angles).mean()), 2 * np.pi, rtol=1e-3):
        assert window[:, 30].sum() == pytest.approx(per_turn, rel=0.01)


@pytest.mark.parametrize("name", ["circle", "helix"])
def test_backprojection_is_an_operator(name: str) -> None:
    if name == "circle":
        A = conebeam3d(image_shape=(6, 8, 7), views=7, detector_shape=(7, 11), offset=0.3, **BEAM)
    else:
        A = helical3d(image_shape=(9, 8, 7), views=15, detector_shape=(6, 11), pitch=4.0, arc_deg=720.0, **BEAM)
    assert len(check_operator(ConeBackprojection(A.geometry))) > 20


def test_the_direct_method_is_differentiable(generator: torch.Generator) -> None:
    A = conebeam3d(image_shape=(6, 8, 7), views=7, detector_shape=(7, 11), **BEAM).double()
    y, v = A.range.random(generator).requires_grad_(), A.domain.random(generator)
    (gradient,) = torch.autograd.grad(A.pseudo_inverse(y), y, v)
    direction = A.range.random(generator)
    assert float((A.pseudo_inverse(direction) * v).sum()) == pytest.approx(float((gradient * direction).sum()))


def test_a_batch_is_its_members(generator: torch.Generator) -> None:
    A = conebeam3d(image_shape=(6, 8, 7), views=7, detector_shape=(7, 11), **BEAM)
    y = A.range.random(generator, (2, 3))
    images: Tensor = A.pseudo_inverse(y)
    assert torch.equal(images[1, 2], A.pseudo_inverse(y[1, 2]))


def test_views_may_be_filtered_in_blocks(generator: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    A = conebeam3d(image_shape=(6, 8, 7), views=7, detector_shape=(7, 11), **BEAM)
    y = A.range.random(generator, (2,))
    whole = A.pseudo_inverse(y)
    monkeypatch.setattr("priorloom_ct.fdk._BLOCK", 4000)  # two views
    torch.testing.assert_close(A.pseudo_inverse(y), whole)


def test_a_limited_arc_is_finite_and_not_zero() -> None:
    A, ball = conebeam3d(**SIZE, views=40, arc_deg=120.0), Ball()
    image = A.pseudo_inverse(ball.line_integrals(A.geometry))
    assert bool(image.isfinite().all())
    assert float(image[ball.distances(A.geometry) < 3].mean()) > 0.4 * ball.mu


@pytest.mark.parametrize("angles", [(0.0, 90.0), (5.0,), (0.0, 180.0, 0.0, 90.0), (10.0, 10.0, 10.0)])
def test_few_or_repeated_views_stay_finite(angles: tuple[float, ...]) -> None:
    size: dict[str, Any] = {"image_shape": (6, 8, 8), "angles_deg": angles, **BEAM}
    for A in (conebeam3d(**size), helical3d(**size, pitch=3.0)):
        assert bool(A.pseudo_inverse(torch.ones(A.range.shape)).isfinite().all())


REMARKS: dict[str, tuple[Callable[[], ConeTransform], str | None]] = {
    "none": (SCANS["circle"], None),
    "side": (lambda: conebeam3d(**{**SIZE, "detector_shape": (96, 60)}, views=9), "to the side.*truncation"),
    "offset": (lambda: conebeam3d(**SIZE, views=9, offset=30.0), "to the side.*truncation"),
    "height": (lambda: conebeam3d(**{**SIZE, "detector_shape": (40, 96)}, views=9), "in height.*outermost voxels lack"),
    "helix": (lambda: helical3d(**{**SIZE, "detector_shape": (12, 96)}, views=90, pitch=24.0), "in height"),
    "ends": (lambda: helical3d(**SIZE, views=90, pitch=24.0, arc_deg=720.0), "44 of 64 slices .* lack views"),
}


@pytest.mark.parametrize("name", REMARKS)
def test_what_it_cannot_get_right_is_said(name: str) -> None:
    make, message = REMARKS[name]
    found = remarks(make().geometry)
    assert len(found) == (0 if message is None else 1)
    if message is not None:
        assert re.search(message, found[0])


def test_a_result_carries_the_warning() -> None:
    A = conebeam3d(image_shape=(6, 10, 10), views=12, detector_shape=(9, 9), **BEAM)
    case = Case("zero", "ct", A, A.range.zeros(), None, 0.01)
    (result,) = compare([case], [Method("fbp", {"filter": "hann"})], registry=Registry.discover())
    assert any("truncation" in warning for warning in result.warnings)


def test_bad_filters_are_refused() -> None:
    A = conebeam3d(image_shape=(2, 4, 4), views=3, **BEAM)
    with pytest.raises(InputError, match="cutoff of the filter"):
        fdk(A.backprojection, torch.zeros(A.range.shape), cutoff=2.0)
