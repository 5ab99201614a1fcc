"""Metrics against their definitions: Wang et al. (2004) for SSIM, fastMRI's evaluate for PSNR and NMSE."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from priorloom.errors import InputError
from priorloom.metrics import metrics


@pytest.fixture
def pair(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    truth = torch.rand(24, 31, generator=generator)
    return truth + 0.1 * torch.randn(24, 31, generator=generator), truth


def test_psnr_and_nmse_are_those_of_the_formulas(pair):
    image, truth = pair
    x, t = image.double().numpy(), truth.double().numpy()
    for data_range in (1.0, float(t.max()), 3.0):
        got = metrics(image, truth, data_range)
        assert got["psnr"] == pytest.approx(20 * np.log10(data_range / np.sqrt(np.mean((x - t) ** 2))), rel=1e-9)
        assert got["nmse"] == pytest.approx(np.linalg.norm(t - x) ** 2 / np.linalg.norm(t) ** 2, rel=1e-9)
        assert got["data_range"] == data_range


def ssim_by_definition(x: np.ndarray, t: np.ndarray, data_range: float) -> float:
    """The mean over all 7 x 7 windows of Wang's eq. 13 with K1 = 0.01, K2 = 0.03 and unbiased (co)variances."""
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    a, b = (np.lib.stride_tricks.sliding_window_view(v, (7, 7)).reshape(-1, 49) for v in (x, t))
    ma, mb = a.mean(1), b.mean(1)
    va, vb = a.var(1, ddof=1), b.var(1, ddof=1)
    cov = ((a - ma[:, None]) * (b - mb[:, None])).sum(1) / 48
    return float(np.mean((2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))))


def test_ssim_is_that_of_the_definition(pair):
    image, truth = pair
    expected = ssim_by_definition(image.double().numpy(), truth.double().numpy(), 1.5)
    assert metrics(image, truth, 1.5)["ssim"] == pytest.approx(expected, abs=1e-6)


def test_a_perfect_image():
    t = torch.rand(9, 9)
    got = metrics(t, t, 1.0)
    assert got["psnr"] == float("inf")
    assert got["ssim"] == pytest.approx(1.0)
    assert got["nmse"] == 0.0


def test_ssim_and_nmse_do_not_depend_on_the_unit(pair):
    image, truth = pair
    one, thousand = metrics(image, truth, 1.0), metrics(1000 * image, 1000 * truth, 1000.0)
    assert thousand["ssim"] == pytest.approx(one["ssim"], rel=1e-4)
    assert thousand["psnr"] == pytest.approx(one["psnr"], rel=1e-4)


def test_small_images_have_a_smaller_window():
    t = torch.rand(4, 6)
    assert -1 <= metrics(t + 0.1, t, 1.0)["ssim"] <= 1


@pytest.mark.parametrize(
    ("image", "truth", "data_range", "message"),
    [
        (torch.zeros(8, 8), torch.zeros(8, 9), 1.0, r"expected real \[8, 9\], got torch.float32 \[8, 8\]"),
        (torch.zeros(8, 8, dtype=torch.complex64), torch.zeros(8, 8), 1.0, "expected real"),
        (torch.zeros(8, 8), torch.ones(8, 8), 0.0, "data range: expected a positive number, got 0.0; the truth is con"),
        (torch.zeros(8, 8), torch.ones(8, 8), float("nan"), "data range: expected a positive number"),
        (torch.zeros(2, 8), torch.zeros(2, 8), 1.0, "at least 3 pixels a side"),
    ],
)
def test_what_cannot_be_measured_is_refused(image, truth, data_range, message):
    with pytest.raises(InputError, match=message):
        metrics(image, truth, data_range)
