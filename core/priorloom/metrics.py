"""PSNR, SSIM and NMSE of real images, always with an explicit data range (as in fastMRI's evaluate)."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from .errors import InputError


def metrics(image: Tensor, truth: Tensor, data_range: float) -> dict[str, float]:
    """PSNR in dB, SSIM (7 x 7 uniform window, Wang et al. 2004) and NMSE = |x - t|^2 / |t|^2 of one real image.

    Parameters
    ----------
    image, truth
        Real, ``[rows, columns]``.
    data_range
        The span of intensities to which PSNR and SSIM refer.
    """
    import skimage.metrics  # imported late: scipy.ndimage is slow to load

    ssim: Any = skimage.metrics.structural_similarity

    if image.shape != truth.shape or image.is_complex() or truth.is_complex():
        raise InputError(
            "image to measure", expected=f"real {list(truth.shape)}", got=f"{image.dtype} {list(image.shape)}"
        )
    if min(truth.shape) < 3:
        raise InputError("image to measure", expected="at least 3 pixels a side", got=list(truth.shape))
    if not data_range > 0:
        raise InputError("data range", expected="a positive number", got=data_range, cure="the truth is constant")
    x, t = (np.asarray(v.detach().cpu(), dtype=np.float64) for v in (image, truth))
    error = float(((x - t) ** 2).mean())
    energy = float((t**2).mean())
    window = min(7, *(n - 1 + n % 2 for n in t.shape))  # odd, and no larger than the image
    return {
        "psnr": float(10 * np.log10(data_range**2 / error)) if error > 0 else float("inf"),
        "ssim": float(ssim(t, x, data_range=data_range, win_size=window)),
        "nmse": error / energy if energy > 0 else float("inf"),
        "data_range": float(data_range),
    }
