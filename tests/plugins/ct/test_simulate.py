"""Units, noise and phantoms."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.ndimage
import skimage.data
import torch
from torch import Tensor

from priorloom.errors import InputError
from priorloom_ct.phantoms import Ellipse, ellipses, foam, random_ellipses, shepp_logan
from priorloom_ct.simulate import (
    MU_WATER,
    from_hounsfield,
    gaussian_noise,
    line_integrals,
    photon_counts,
    photon_noise,
    to_hounsfield,
)


def test_hounsfield_units() -> None:
    hu = torch.tensor([-1100.0, -1000.0, 0.0, 1000.0])
    torch.testing.assert_close(from_hounsfield(hu), torch.tensor([0.0, 0.0, MU_WATER, 2 * MU_WATER]))
    torch.testing.assert_close(to_hounsfield(from_hounsfield(hu[1:])), hu[1:], atol=1e-3, rtol=0)


@pytest.mark.parametrize("photons", [1e3, 1e5])
def test_photon_noise_has_the_stated_statistics(photons: float, generator: torch.Generator) -> None:
    p = torch.full((400, 500), 1.5)
    counts = photon_counts(p, photons, generator)
    mean = photons * math.exp(-1.5)
    assert torch.equal(counts, counts.round())
    assert float(counts.mean()) == pytest.approx(mean, abs=5 * math.sqrt(mean / p.numel()))
    assert float(counts.var()) == pytest.approx(mean, rel=0.02)
    noisy, std = photon_noise(p, photons, generator)
    assert std == pytest.approx(math.sqrt(1 / mean))
    assert float((noisy - p).std()) == pytest.approx(std, rel=0.02)


def test_noise_of_a_varied_sinogram_is_its_root_mean_square(generator: torch.Generator) -> None:
    p = torch.linspace(0, 3, 200_000).reshape(400, 500)
    noisy, std = photon_noise(p, 1e5, generator)
    assert float((noisy - p).square().mean().sqrt()) == pytest.approx(std, rel=0.02)


def test_starved_elements_stay_finite(generator: torch.Generator) -> None:
    noisy, _ = photon_noise(torch.full((50, 50), 20.0), 100.0, generator)
    torch.testing.assert_close(noisy, torch.full((50, 50), math.log(100.0)))
    assert float(line_integrals(torch.tensor(0.0), 1.0)) == 0.0


def test_gaussian_noise(generator: torch.Generator) -> None:
    noise = gaussian_noise(torch.ones(400, 500), 0.3, generator) - 1
    assert float(noise.mean()) == pytest.approx(0, abs=0.003)
    assert float(noise.std()) == pytest.approx(0.3, rel=0.01)


def test_bad_noise_is_refused(generator: torch.Generator) -> None:
    for photons in (0.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="photons: expected a finite number"):
            photon_counts(torch.zeros(2), photons, generator)
    for std in (-1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="standard deviation of the noise"):
            gaussian_noise(torch.zeros(2), std, generator)


def test_shepp_logan_is_scikit_images() -> None:
    own = shepp_logan((400, 400), peak=1.0).numpy()
    reference = skimage.data.shepp_logan_phantom()
    flat = scipy.ndimage.maximum_filter(reference, 5) - scipy.ndimage.minimum_filter(reference, 5) < 1e-9
    assert flat.mean() > 0.9, "scikit-image samples points, ours are area averages: compare away from the edges"
    np.testing.assert_allclose(own[flat], reference[flat], atol=0.003)  # theirs has 8 bits


def test_an_ellipse_has_its_area_place_and_turn() -> None:
    image = ellipses((100, 200), [Ellipse(2.0, (0.4, 0.1), (0.5, -0.2), 30.0)]).double()
    assert float(image.sum()) == pytest.approx(2 * math.pi * 0.4 * 0.1 * 100**2, rel=0.005)
    y, x = torch.meshgrid(49.5 - torch.arange(100.0), torch.arange(200.0) - 99.5, indexing="ij")
    mass = image.sum()
    cx, cy = (image * x).sum() / mass / 100, (image * y).sum() / mass / 100
    assert (float(cx), float(cy)) == pytest.approx((0.5, -0.2), abs=1e-3)
    xx = ((x / 100 - cx) ** 2 * image).sum()
    yy = ((y / 100 - cy) ** 2 * image).sum()
    xy = ((x / 100 - cx) * (y / 100 - cy) * image).sum()
    assert math.degrees(0.5 * math.atan2(2 * float(xy), float(xx - yy))) == pytest.approx(30, abs=0.5)


@pytest.mark.parametrize("make", [random_ellipses, foam])
def test_phantoms_follow_their_generator(make: Callable[..., Tensor]) -> None:
    first, again, other = (make((64, 48), torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert first.shape == (64, 48)
    assert first.dtype == torch.float32
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert float(first.min()) >= 0
    assert bool(first.isfinite().all())


def test_foam_is_a_disc_with_voids_that_do_not_touch(generator: torch.Generator) -> None:
    image = (foam((512, 512), generator, voids=30) / MU_WATER).numpy()
    assert image.max() == pytest.approx(1.0, abs=1e-6)
    y, x = np.mgrid[255.5:-256:-1, -255.5:256]
    assert image[np.hypot(x, y) > 0.9 * 256 + 1].max() == 0.0
    labels, count = scipy.ndimage.label((image < 0.5) & (np.hypot(x, y) < 0.9 * 256 - 1))
    assert count == 30, "voids that touched would merge"
    for k in range(1, count + 1):
        ys, xs = np.nonzero(labels == k)
        assert len(ys) == pytest.approx(math.pi / 4 * (np.ptp(ys) + 1) * (np.ptp(xs) + 1), rel=0.2), "a void is round"


def test_bad_phantoms_are_refused(generator: torch.Generator) -> None:
    with pytest.raises(InputError, match="foam: expected at least one void"):
        foam((8, 8), generator, voids=0)
    with pytest.raises(InputError, match="mean_count of random ellipses"):
        random_ellipses((8, 8), generator, mean_count=0)
