"""Noise statistics, pre-whitening and the phantom."""

from __future__ import annotations

import math

import pytest
import torch

from priorloom.errors import InputError
from priorloom_mri.noise import add_noise, coil_covariance, mix_coils, whitening
from priorloom_mri.phantoms import phantom, shepp_logan, smooth_phase


def covariance(generator: torch.Generator, coils: int = 4) -> torch.Tensor:
    m = torch.randn(coils, coils, dtype=torch.complex64, generator=generator)
    return m @ m.mH + 0.1 * torch.eye(coils)


def test_std_is_that_of_the_modulus(generator: torch.Generator) -> None:
    noise = add_noise(torch.zeros(2, 200, 200, dtype=torch.complex64), 0.3, generator)
    assert float(noise.abs().square().mean().sqrt()) == pytest.approx(0.3, rel=0.01)
    assert float(noise.real.std()) == pytest.approx(0.3 / math.sqrt(2), rel=0.02)
    assert float((noise.real * noise.imag).mean().abs()) < 0.001


def test_noise_only_where_sampled(generator: torch.Generator) -> None:
    mask = torch.tensor([True, False, True, False])
    noise = add_noise(torch.zeros(2, 3, 4, dtype=torch.complex64), 1.0, generator, mask)
    assert torch.equal(noise != 0, mask.expand(2, 3, 4))


def test_noise_has_the_coil_covariance(generator: torch.Generator) -> None:
    C = covariance(generator)
    noise = add_noise(torch.zeros(4, 200, 200, dtype=torch.complex64), C, generator)
    found = coil_covariance(noise)
    assert float((found - C).abs().max()) < 0.03 * float(C.abs().max())


def test_whitened_noise_is_white(generator: torch.Generator) -> None:
    C = covariance(generator)
    scan = add_noise(torch.zeros(4, 100, 100, dtype=torch.complex64), C, generator)
    other = add_noise(torch.zeros(4, 100, 100, dtype=torch.complex64), C, generator)
    white = coil_covariance(mix_coils(other, whitening(coil_covariance(scan))))
    # 10 000 samples in each scan: entries of both covariances are off by 1 % standard deviations.
    assert float((white - torch.eye(4)).abs().max()) < 0.07


def test_whitening_is_the_inverse_square_root(generator: torch.Generator) -> None:
    C = covariance(generator).to(torch.complex128)
    W = whitening(C)
    torch.testing.assert_close(W @ C @ W.mH, torch.eye(4, dtype=torch.complex128))


def test_bad_noise(generator: torch.Generator) -> None:
    y = torch.zeros(4, 3, 3, dtype=torch.complex64)
    with pytest.raises(InputError, match="standard deviation"):
        add_noise(y, -1.0, generator)
    with pytest.raises(InputError, match="positive definite"):
        whitening(torch.zeros(4, 4, dtype=torch.complex64))
    with pytest.raises(InputError, match="square"):
        whitening(torch.zeros(4, 3, dtype=torch.complex64))
    with pytest.raises(InputError, match="more samples than coils"):
        coil_covariance(torch.zeros(4, 3, dtype=torch.complex64))
    with pytest.raises(InputError, match="coil matrix"):
        mix_coils(y, torch.eye(3))


def test_phantom_has_the_area_and_values_of_its_ellipses() -> None:
    image = shepp_logan((256, 192))
    # The sum over ellipses of amplitude * pi a b, over the area 4 of the square.
    table = [(1, 0.69, 0.92), (-0.8, 0.6624, 0.874), (-0.2, 0.11, 0.31), (-0.2, 0.16, 0.41), (0.1, 0.21, 0.25)]
    table += [(0.1, 0.046, 0.046)] * 2 + [(0.1, 0.046, 0.023), (0.1, 0.023, 0.023), (0.1, 0.023, 0.046)]
    expected = math.pi / 4 * sum(a * b * c for a, b, c in table)
    assert float(image.mean()) == pytest.approx(expected, rel=2e-3)
    assert float(image.max()) == 1
    assert float(image.min()) == 0

    def at(x: float, y: float) -> float:
        return float(image[round((1 - y) * 127.5), round((x + 1) * 95.5)])

    assert at(0, 0.9) == 1  # skull
    assert at(0.22, 0) == pytest.approx(0, abs=1e-6)  # the smaller ventricle is on the right
    assert at(0, 0.35) == pytest.approx(0.3)  # the large bright ellipse is above the centre
    assert at(0.95, 0.95) == 0


def test_phantom_is_complex_with_a_smooth_bounded_phase(generator: torch.Generator) -> None:
    phase = smooth_phase((64, 48), generator, radians=1.0)
    assert float(phase.abs().max()) == pytest.approx(1.0)
    assert float(phase.diff(dim=0).abs().max()) < 0.15
    image = phantom((64, 48), generator)
    assert image.dtype == torch.complex64
    torch.testing.assert_close(image.abs(), shepp_logan((64, 48)), atol=1e-6, rtol=1e-5)
    assert float(image.imag.abs().max()) > 0.1
    with pytest.raises(InputError):
        shepp_logan((0, 4))
