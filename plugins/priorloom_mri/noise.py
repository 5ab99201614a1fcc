"""Complex Gaussian noise, its coil covariance, and pre-whitening.

The standard deviation of complex noise is that of the modulus, ``sigma^2 = E |e|^2``; real and imaginary part have
``sigma^2 / 2`` each.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from priorloom.errors import InputError


def add_noise(kspace: Tensor, std: float | Tensor, generator: torch.Generator, mask: Tensor | None = None) -> Tensor:
    """`kspace` plus circular white Gaussian noise where it was sampled.

    Parameters
    ----------
    kspace
        Complex ``[..., coils, rows, columns]``, or ``[..., rows, columns]`` for one coil and a number as `std`.
    std
        Standard deviation of each entry, or the covariance between coils, Hermitian ``[coils, coils]``.
    generator
        Source of randomness, on the CPU.
    mask
        The sampled positions, ``[rows, columns]`` or ``[columns]``; all of them when absent.
    """
    noise = torch.randn(kspace.shape, dtype=kspace.dtype, generator=generator).to(kspace.device)
    if isinstance(std, Tensor) and std.ndim:
        noise = mix_coils(noise, _cholesky(std.to(kspace)))
    else:
        if not 0 <= float(std) < math.inf:
            raise InputError("noise", expected="a standard deviation of at least 0", got=float(std))
        noise = noise * std
    return kspace + (noise if mask is None else noise * mask.to(kspace.device))


def coil_covariance(scan: Tensor) -> Tensor:
    """Covariance ``E e e^H`` between coils, complex ``[coils, coils]``, from a noise scan ``[coils, ...]``."""
    samples = scan.flatten(1)
    if not scan.is_complex() or samples.shape[1] < samples.shape[0]:
        raise InputError(
            "noise scan", expected="complex [coils, samples] with more samples than coils",
            got=f"{scan.dtype} {list(scan.shape)}",
        )  # fmt: skip
    covariance: Tensor = samples @ samples.mH / samples.shape[1]
    return covariance


def whitening(covariance: Tensor) -> Tensor:
    """``W = L^-1`` with ``L L^H = covariance``, ``[coils, coils]``: ``W e`` is white with standard deviation 1.

    Apply it with :func:`mix_coils` to the measurement and to the coil maps alike (Pruessmann et al., 2001, eq. 25).
    """
    L = _cholesky(covariance)
    identity = torch.eye(len(L), dtype=L.dtype, device=L.device)
    inverse: Tensor = torch.linalg.solve_triangular(L, identity, upper=False)
    return inverse


def mix_coils(data: Tensor, matrix: Tensor) -> Tensor:
    """``sum_c matrix[d, c] data[..., c, rows, columns]``: new coils as combinations of the old ones."""
    if matrix.ndim != 2 or data.ndim < 3 or matrix.shape[1] != data.shape[-3]:
        raise InputError(
            "coil matrix",
            expected=f"[new coils, {data.shape[-3] if data.ndim > 2 else 'coils'}]",
            got=list(matrix.shape),
        )
    mixed: Tensor = torch.einsum("dc,...cij->...dij", matrix.to(data), data)
    return mixed


def _cholesky(covariance: Tensor) -> Tensor:
    if covariance.ndim != 2 or covariance.shape[0] != covariance.shape[1]:
        raise InputError("noise covariance", expected="a square [coils, coils]", got=list(covariance.shape))
    L: Tensor
    L, failed = torch.linalg.cholesky_ex(covariance)
    if int(failed) or not bool(L.isfinite().all()):
        raise InputError(
            "noise covariance", expected="a positive definite matrix", got="one that is not",
            cure="take more noise samples, or leave out dead coils",
        )  # fmt: skip
    return L
