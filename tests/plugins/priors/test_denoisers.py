"""The scikit-image denoisers in the plug-and-play slot."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.restoration import denoise_nl_means, denoise_wavelet

from priorloom import Functional, PriorloomError, Registry, Space
from priorloom.errors import InputError
from priorloom.testing import check_denoiser

REGISTRY = Registry.discover()
NAMES = ("non-local-means", "tv-chambolle", "wavelet")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64])
def test_conformance(name: str, dtype: torch.dtype) -> None:
    space = Space((40, 36), dtype)
    modes = ("real-imaginary", "magnitude") if space.is_complex else ("real-imaginary",)
    for mode in modes:
        assert len(check_denoiser(REGISTRY.denoiser(name, space, complex_mode=mode), space)) >= 5


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_chambolle_is_the_prox_of_tv(dtype: torch.dtype, generator: torch.Generator) -> None:
    """With a long inner iteration: the weight is strength times sigma, per part of a complex image over sqrt(2)."""
    real = Space((24, 20), torch.float64)
    space = real.with_dtype(dtype)
    x = space.random(generator)
    denoiser = REGISTRY.denoiser("tv-chambolle", space, strength=0.9, tolerance=1e-12, max_iterations=20000)
    prox = REGISTRY.prior("tv-prox", real, lam=0.9, tolerance=1e-5, max_iterations=100000)
    assert isinstance(prox, Functional)
    result = denoiser(x, torch.tensor(0.5))
    if space.is_complex:
        expected = torch.complex(prox.prox(x.real, 0.5 / 2**0.5), prox.prox(x.imag, 0.5 / 2**0.5))
    else:
        expected = prox.prox(x, 0.5)
    assert float(space.norm(result - expected) / space.norm(x)) < 1e-4


def test_sigma_means_the_standard_deviation_in_units_of_the_image(generator: torch.Generator) -> None:
    space = Space((32, 32), torch.float64)
    x = 1 + 0.3 * space.random(generator)
    sigma = torch.tensor(0.3, dtype=torch.float64)
    for name in NAMES:
        D = REGISTRY.denoiser(name, space)
        torch.testing.assert_close(D(1000 * x, 1000 * sigma), 1000 * D(x, sigma), rtol=1e-9, atol=1e-9)
    image = x.numpy()
    theirs = denoise_wavelet(image, sigma=0.3, wavelet="db2", method="BayesShrink", rescale_sigma=False)
    np.testing.assert_allclose(REGISTRY.denoiser("wavelet", space)(x, sigma).numpy(), theirs, rtol=1e-9)
    theirs = denoise_nl_means(image, patch_size=5, patch_distance=6, h=0.24, sigma=0.3, preserve_range=True)
    np.testing.assert_allclose(REGISTRY.denoiser("non-local-means", space)(x, sigma).numpy(), theirs, rtol=1e-6)


def test_magnitude_mode_keeps_the_phase(generator: torch.Generator) -> None:
    space = Space((24, 24), torch.complex128)
    x = 2 + space.random(generator)
    y = REGISTRY.denoiser("tv-chambolle", space, complex_mode="magnitude")(x, torch.tensor(0.5))
    torch.testing.assert_close(y.angle(), x.angle())
    assert float(y.abs().std()) < 0.7 * float(x.abs().std())


def test_a_constant_image_stays() -> None:
    x = torch.full((32, 32), 3.0)
    for name in NAMES:
        D = REGISTRY.denoiser(name, Space((32, 32)))
        torch.testing.assert_close(D(x, torch.tensor(0.1)), x, atol=1e-5, rtol=0)
        assert torch.equal(D(x, torch.tensor(0.0)), x)


def test_misuse_is_refused(generator: torch.Generator) -> None:
    space = Space((16, 16))
    D = REGISTRY.denoiser("tv-chambolle", space)
    x = space.random(generator, (2,))
    with pytest.raises(InputError, match="sigma of a denoiser: expected one number, or one per batch element"):
        D(x, torch.full((16, 16), 0.1))
    with pytest.raises(InputError, match="sigma of a denoiser: expected finite, at least 0"):
        D(x, torch.tensor(-1.0))
    with pytest.raises(InputError, match="image for a denoiser"):
        D(x.double(), torch.tensor(0.1))
    with pytest.raises(PriorloomError, match="no gradient"):
        D(x.requires_grad_(), torch.tensor(0.1))
    with pytest.raises(InputError, match="'strength'"):
        REGISTRY.denoiser("tv-chambolle", space, strength=-1.0)
    with pytest.raises(InputError, match="2 or 3 dimensions"):
        REGISTRY.denoiser("non-local-means", Space((16,)))
    with pytest.raises(InputError, match="levels of the denoiser"):
        REGISTRY.denoiser("wavelet", Space((16, 16)), levels=4)
    with pytest.raises(InputError, match="levels of the denoiser"):
        REGISTRY.denoiser("wavelet", Space((2, 2)))
