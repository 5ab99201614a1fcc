"""Pictures show the numbers that they claim to show."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from priorloom.errors import InputError
from priorloom_apps.pictures import (
    ERROR_COLOURS,
    case_pictures,
    error_limit,
    error_png,
    grey_png,
    overview_png,
    plane,
    window,
)

from .pages import MODALITIES, case, pixels, result


def test_grey_png_maps_the_window_linearly_with_row_0_on_top() -> None:
    shown = pixels(grey_png(torch.tensor([[-9.0, 1.0, 2.0], [2.5, 3.0, 9.0]]), low=1.0, high=3.0))
    assert shown.dtype == np.uint8
    assert shown.tolist() == [[0, 0, 128], [191, 255, 255]]


def test_error_png_is_signed_and_common_in_scale() -> None:
    shown = pixels(error_png(torch.tensor([[-4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0]]), limit=2.0))
    blue, half_blue, zero, half_orange, orange = (list(c) for c in ERROR_COLOURS)
    assert shown[0].tolist() == [blue, blue, half_blue, zero, half_orange, orange, orange]


def test_larger_errors_are_lighter_on_both_sides() -> None:
    shown = pixels(error_png(torch.linspace(-1, 1, 201)[None], limit=1.0)).astype(float)
    lightness = shown[0] @ np.array([0.2126, 0.7152, 0.0722])
    assert np.all(np.diff(lightness[100:]) >= 0)
    assert np.all(np.diff(lightness[:101]) <= 0)


@pytest.mark.parametrize(("low", "high"), [(1.0, 1.0), (2.0, 1.0), (float("nan"), 1.0)])
def test_an_empty_window_is_refused(low: float, high: float) -> None:
    with pytest.raises(InputError, match="grey window: expected low < high"):
        grey_png(torch.zeros(2, 2), low, high)


@pytest.mark.parametrize("limit", [0.0, -1.0, float("nan"), float("inf")])
def test_a_limit_that_is_no_scale_is_refused(limit: float) -> None:
    with pytest.raises(InputError, match="limit of an error map"):
        error_png(torch.zeros(2, 2), limit)


def test_a_complex_image_or_a_stack_is_no_picture() -> None:
    with pytest.raises(InputError, match="expected real"):
        grey_png(torch.zeros(2, 2, dtype=torch.complex64), 0, 1)
    with pytest.raises(InputError, match=r"expected \[rows, columns\]"):
        grey_png(torch.zeros(3, 2, 2), 0, 1)


def test_plane_is_the_middle_of_leading_dimensions() -> None:
    volume = torch.arange(5.0)[:, None, None].expand(5, 2, 3)
    assert plane(volume).tolist() == [[2.0] * 3] * 2


def test_window_is_robust_and_never_empty() -> None:
    ramp = np.linspace(0, 1, 10_001)
    ramp[-1] = 1e6  # one hot pixel
    assert window([ramp]) == pytest.approx((0.005, 0.995))
    spike = np.zeros(10_000)
    spike[0] = 7.0
    assert window([spike]) == (0.0, 7.0)
    assert window([np.full(4, 3.0)]) == (2.5, 3.5)


def test_error_limit_is_common_to_all_maps_and_positive() -> None:
    small, large = np.full(100, 0.1), np.full(100, -0.7)
    assert error_limit([small, large]) == pytest.approx(0.7)
    spike = np.zeros(1000)
    spike[3] = -5.0
    assert error_limit([spike]) == 5.0
    assert error_limit([np.zeros(4)]) == 1.0


def test_case_pictures_share_the_window_of_the_truth() -> None:
    disc, scan = case("disc"), case("scan", truth=False)
    made = case_pictures(
        [disc, scan], [result(disc, "a", 0.0), result(disc, "b", -5.0), result(scan, "a", 7.0)], MODALITIES
    )
    assert sorted(made) == ["disc/a.png", "disc/b.png", "scan/a.png"]
    ramp = np.linspace(0, 1, 48).reshape(6, 8)
    low, high = np.percentile(ramp, (0.5, 99.5))
    expected = np.rint(255 * np.clip((ramp - low) / (high - low), 0, 1))
    assert np.abs(pixels(made["disc/a.png"]) - expected).max() <= 1
    assert pixels(made["disc/b.png"]).max() == 0  # far below the truth
    assert np.abs(pixels(made["scan/a.png"]) - expected).max() <= 1  # without a truth: its own window


def test_overview_has_a_row_a_case_and_the_same_bytes_twice() -> None:
    with_truth, without = case("disc", "mri"), case("scan", truth=False)
    results = [result(with_truth, "$x$"), result(with_truth, "b"), result(without, "a")]
    png = overview_png([with_truth, without], results, MODALITIES)
    assert png == overview_png([with_truth, without], results, MODALITIES)
    shown = pixels(png)[..., :3]
    height, width = shown.shape[:2]
    assert width > height / 1.5
    assert (shown[:, -20:].mean(axis=(1, 2)) < 250).sum() < 0.6 * height  # the last column: one case only
    with pytest.raises(InputError, match="at least one case"):
        overview_png([], [], MODALITIES)
