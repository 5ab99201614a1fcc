"""scikit-image's denoisers as plug-and-play denoisers: batched, for real and complex images of any dtype.

One adapter does what all share. The image is divided by sigma, so that a backend always sees noise of standard
deviation one and every denoiser commutes with scaling: ``D(c x, c sigma) = c D(x, sigma)``. Backends compute in
double precision. sigma = 0 gives the image back. A denoiser has no gradient; differentiating it raises.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from priorloom import Denoiser, PriorloomError, Space
from priorloom.errors import InputError

from .wavelet import WaveletName

ComplexMode = Literal["real-imaginary", "magnitude"]
Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class ImageDenoiser:
    """A backend that takes out unit noise, made into a Denoiser.

    Parameters
    ----------
    space
        The Space of one image.
    backend
        ``[*shape, channels] -> [*shape, channels]``, float64, for white noise of standard deviation one per entry.
    complex_mode
        "real-imaginary": the two parts are the channels, each with noise ``sigma / sqrt(2)`` (sigma is that of the
        complex entry). "magnitude": the magnitude is denoised, with the same noise at high signal, and the phase kept.
    """

    space: Space
    backend: Callable[[Array], Array]
    complex_mode: ComplexMode = "real-imaginary"

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The denoised `x`, ``[..., *shape]``; `sigma` is one number, or one per batch element."""
        self.space.check(x, "image for a denoiser")
        if x.requires_grad and torch.is_grad_enabled():
            raise PriorloomError("a scikit-image denoiser has no gradient", cure="use torch.no_grad(), or a network")
        images = x.reshape(-1, *self.space.shape)
        levels = self._levels(x, torch.as_tensor(sigma))
        cleaned = [self._one(image, level) for image, level in zip(images, levels, strict=True)]
        return torch.stack(cleaned).reshape(x.shape) if cleaned else x.clone()

    def _levels(self, x: Tensor, sigma: Tensor) -> list[float]:
        try:
            per_image = sigma.detach().expand(*self.space.batch_shape(x), *(1,) * self.space.ndim)
        except RuntimeError:
            raise InputError(
                "sigma of a denoiser", expected="one number, or one per batch element", got=list(sigma.shape)
            ) from None
        values: list[float] = per_image.flatten().tolist()
        if not all(0 <= v < float("inf") for v in values):
            raise InputError("sigma of a denoiser", expected="finite, at least 0", got=values)
        return values

    def _one(self, image: Tensor, sigma: float) -> Tensor:
        if sigma == 0:
            return image.clone()
        wide = image.detach().cpu().to(torch.complex128 if image.is_complex() else torch.float64)
        if not image.is_complex():
            return self._channels(wide[..., None], sigma)[..., 0].to(image)
        sigma = sigma / 2**0.5
        if self.complex_mode == "real-imaginary":
            return torch.view_as_complex(self._channels(torch.view_as_real(wide), sigma)).to(image)
        magnitude = self._channels(wide.abs()[..., None], sigma)[..., 0].clamp_min(0)
        return (magnitude * wide.sgn()).to(image)

    def _channels(self, parts: Tensor, sigma: float) -> Tensor:
        cleaned = self.backend(np.ascontiguousarray(parts.numpy()) / sigma)
        return torch.from_numpy(np.ascontiguousarray(cleaned) * sigma)


@dataclass(frozen=True)
class _Chambolle:
    strength: float
    tolerance: float
    max_iterations: int

    def __call__(self, image: Array) -> Array:
        from skimage.restoration import denoise_tv_chambolle

        result: Array = denoise_tv_chambolle(  # type: ignore[no-untyped-call]
            image, weight=self.strength, eps=self.tolerance, max_num_iter=self.max_iterations, channel_axis=-1
        )
        return result


@dataclass(frozen=True)
class _NonLocalMeans:
    strength: float
    patch_size: int
    patch_distance: int

    def __call__(self, image: Array) -> Array:
        from skimage.restoration import denoise_nl_means

        result: Array = denoise_nl_means(
            image, patch_size=self.patch_size, patch_distance=self.patch_distance, h=self.strength, sigma=1.0,
            fast_mode=True, preserve_range=True, channel_axis=-1,
        )  # fmt: skip
        return result.reshape(image.shape)  # scikit-image drops a single channel


@dataclass(frozen=True)
class _Wavelet:
    wavelet: str
    method: str
    levels: int | None

    def __call__(self, image: Array) -> Array:
        from skimage.restoration import denoise_wavelet

        with warnings.catch_warnings():
            # BayesShrink divides by the variance of a subband, which is zero where the image is constant.
            warnings.simplefilter("ignore", RuntimeWarning)
            result: Array = denoise_wavelet(
                image, sigma=1.0, wavelet=self.wavelet, method=self.method, wavelet_levels=self.levels,
                rescale_sigma=False, channel_axis=-1,
            )  # fmt: skip
        return result


def tv_chambolle(
    space: Space,
    *,
    strength: float = 0.8,
    tolerance: float = 1e-6,
    max_iterations: int = 100,
    complex_mode: ComplexMode = "real-imaginary",
) -> Denoiser:
    """Isotropic TV denoising by Chambolle's projection: ``argmin_u 0.5 |u - x|^2 + strength sigma TV(u)``.

    scikit-image's documentation states the objective otherwise; its iteration minimises this one with
    ``weight = strength sigma`` (tested against the prox of ``tv``), for complex images on each part by itself.

    Parameters
    ----------
    strength
        The TV weight in units of sigma; 0.7 to 1 removes white noise best from natural and piecewise constant images.
    tolerance
        Stop when the energy changes by less than this fraction of its start (scikit-image's ``eps``).
    max_iterations
        Budget of the inner iteration. A hundred leave about one per mille of the image; the prox itself needs more.
    complex_mode
        real-imaginary, or magnitude with the phase kept.

    References
    ----------
    Chambolle (2004), J. Math. Imaging Vis. 20, 89-97.
    """
    _check_positive(strength=strength, tolerance=tolerance, max_iterations=max_iterations)
    return ImageDenoiser(space, _Chambolle(strength, tolerance, max_iterations), complex_mode)


def non_local_means(
    space: Space,
    *,
    strength: float = 0.8,
    patch_size: int = 5,
    patch_distance: int = 6,
    complex_mode: ComplexMode = "real-imaginary",
) -> Denoiser:
    """Non-local means: pixels averaged by the likeness of the patches around them (2-D and 3-D images).

    Parameters
    ----------
    strength
        The filter parameter h in units of sigma; patch distances are corrected by the noise variance.
    patch_size, patch_distance
        Side of a patch, and how far to search for similar ones, in pixels.
    complex_mode
        real-imaginary (patches compared on both parts at once), or magnitude with the phase kept.

    References
    ----------
    Buades, Coll and Morel (2005), CVPR; Darbon et al. (2008), ISBI (the fast variant).
    """
    _check_positive(strength=strength, patch_size=patch_size, patch_distance=patch_distance)
    if space.ndim not in (2, 3):
        raise InputError("image for non-local-means", expected="2 or 3 dimensions", got=list(space.shape))
    return ImageDenoiser(space, _NonLocalMeans(strength, patch_size, patch_distance), complex_mode)


def wavelet(
    space: Space,
    *,
    wavelet: WaveletName = "db2",
    method: Literal["BayesShrink", "VisuShrink"] = "BayesShrink",
    levels: int | None = None,
    complex_mode: ComplexMode = "real-imaginary",
) -> Denoiser:
    """Wavelet soft-thresholding with a threshold per subband (BayesShrink) or one for all (VisuShrink).

    Needs PyWavelets, which scikit-image does not install by itself.

    Parameters
    ----------
    wavelet
        haar, or db2 to db8.
    method
        BayesShrink adapts to every subband; VisuShrink is the universal threshold.
    levels
        Depth; scikit-image's choice when absent.
    complex_mode
        real-imaginary, or magnitude with the phase kept.

    References
    ----------
    Chang, Yu and Vetterli (2000), IEEE Trans. Image Process. 9, 1532-1546; Donoho and Johnstone (1994), Biometrika 81.
    """
    if find_spec("pywt") is None:
        raise PriorloomError("denoiser 'wavelet' needs PyWavelets", cure="pip install PyWavelets")
    import pywt

    deepest = pywt.dwtn_max_level(space.shape, wavelet)
    if not 1 <= (1 if levels is None else levels) <= deepest:
        raise InputError(
            f"levels of the denoiser on an image {list(space.shape)}", expected=f"1 to {deepest}", got=levels or 1,
            cure="use fewer levels, a shorter wavelet or a larger image",
        )  # fmt: skip
    return ImageDenoiser(space, _Wavelet(wavelet, method, levels), complex_mode)


def _check_positive(**values: float) -> None:
    for name, value in values.items():
        if not 0 < value < float("inf"):
            raise InputError(f"parameter '{name}' of a denoiser", expected="a positive number", got=value)
