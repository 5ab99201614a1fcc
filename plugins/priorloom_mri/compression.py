"""Coil compression: fewer virtual coils, unitary combinations of the measured ones, that keep most of the signal.

White noise stays white, and the operator's time and memory shrink in proportion. Compress k-space and estimate maps
from the result, or apply the same matrix to known maps with :func:`priorloom_mri.noise.mix_coils`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from priorloom.errors import InputError


def svd_compression(kspace: Tensor, coils: int) -> Tensor:
    """The matrix ``[coils, measured coils]`` with orthonormal rows that keeps most of the energy of k-space.

    With ``K = U S V^H`` of k-space as ``[measured coils, samples]``, it is ``U^H``'s first rows: no other matrix with
    orthonormal rows keeps more (Eckart and Young).

    Parameters
    ----------
    kspace
        Complex ``[measured coils, *grid]``; noise white and equal in all coils (see ``whitening``).
    coils
        The number of virtual coils.

    References
    ----------
    Huang, Vijayakumar, Li, Hertel and Duensing. A software channel compression technique for faster reconstruction with
    many channels. Magnetic Resonance Imaging 26, 2008.
    """
    _check(kspace, coils)
    return _leading(_scaled(kspace).flatten(1), coils).to(kspace)


def geometric_compression(kspace: Tensor, coils: int, *, readout: int = -2, window: int = 5) -> Tensor:
    """One compression matrix for every position along a fully sampled readout, ``[positions, coils, measured coils]``.

    The coils near one position differ less than those of the whole object, so that fewer virtual coils suffice. After
    an inverse FFT along the readout, the matrix of a position is that of :func:`svd_compression` for the samples of a
    window of positions. Its rows are known up to a unitary matrix only, which is chosen so that neighbours agree best,
    from the centre outwards (orthogonal Procrustes): virtual coils then have smooth maps. Apply with
    :func:`mix_along_readout`.

    Parameters
    ----------
    kspace
        Centred, complex ``[measured coils, *grid]``; noise white and equal in all coils.
    coils
        The number of virtual coils.
    readout
        The axis of `kspace` that was fully sampled, not that of the coils.
    window
        Positions whose samples are taken together, odd.

    References
    ----------
    Zhang, Pauly, Vasanawala and Lustig. Coil compression for accelerated imaging with Cartesian sampling. Magnetic
    Resonance in Medicine 69, 2013.
    """
    _check(kspace, coils)
    axis = _readout_axis(kspace, readout)
    if window < 1 or window % 2 == 0:
        raise InputError("window of geometric_compression", expected="an odd number of positions", got=window)
    hybrid = _inverse(_scaled(kspace), axis).movedim(axis, 0).flatten(2)  # [positions, measured coils, samples]
    covariance = hybrid @ hybrid.mH
    n = len(covariance)
    half = window // 2
    matrices = []
    for position in range(n):
        nearby = covariance[max(0, position - half) : position + half + 1].sum(0)
        matrices.append(torch.linalg.eigh(nearby).eigenvectors[:, -coils:].flip(-1).mH)
    for positions, back in ((range(n // 2 + 1, n), 1), (range(n // 2 - 1, -1, -1), -1)):
        for position in positions:
            u, _, vh = torch.linalg.svd(matrices[position - back] @ matrices[position].mH)
            matrices[position] = u @ vh @ matrices[position]
    return torch.stack(matrices).to(kspace)


def mix_along_readout(kspace: Tensor, matrices: Tensor, *, readout: int = -2) -> Tensor:
    """K-space of the virtual coils, ``[coils, *grid]``, by one matrix for every position along the readout.

    Parameters
    ----------
    kspace
        Centred, complex ``[measured coils, *grid]``.
    matrices
        ``[positions, coils, measured coils]``, of :func:`geometric_compression`.
    readout
        The axis of `kspace` along which it works.
    """
    axis = _readout_axis(kspace, readout)
    if matrices.ndim != 3 or matrices.shape[0] != kspace.shape[axis] or matrices.shape[2] != kspace.shape[0]:
        raise InputError(
            "coil matrices", expected=f"[{kspace.shape[axis]}, coils, {kspace.shape[0]}]", got=list(matrices.shape)
        )
    hybrid = _inverse(kspace, axis).movedim(axis, 0)
    mixed = torch.einsum("rdc,rc...->rd...", matrices.to(kspace), hybrid).movedim(0, axis)
    result: Tensor = torch.fft.fftshift(torch.fft.fft(torch.fft.ifftshift(mixed, axis), dim=axis, norm="ortho"), axis)
    return result


def energy_kept(kspace: Tensor, compressed: Tensor) -> float:
    """The fraction of the energy ``sum |k|^2`` that is in the virtual coils."""
    before, after = (float(torch.view_as_real(k.resolve_conj()).double().square().sum()) for k in (kspace, compressed))
    return after / before if before else 1.0


def _leading(samples: Tensor, coils: int) -> Tensor:
    vectors: Tensor = torch.linalg.eigh(samples @ samples.mH).eigenvectors
    return vectors[:, -coils:].flip(-1).mH


def _scaled(kspace: Tensor) -> Tensor:
    """In double precision, where the square of the singular values loses nothing that matters, and of size one."""
    wide = kspace.to(torch.complex128)
    peak = float(torch.view_as_real(wide).abs().max())
    return wide / peak if peak else wide


def _inverse(kspace: Tensor, axis: int) -> Tensor:
    shifted: Tensor = torch.fft.fftshift(
        torch.fft.ifft(torch.fft.ifftshift(kspace, axis), dim=axis, norm="ortho"), axis
    )
    return shifted


def _readout_axis(kspace: Tensor, readout: int) -> int:
    if not -kspace.ndim < readout < kspace.ndim or readout % kspace.ndim == 0:
        raise InputError("readout", expected=f"an axis of {list(kspace.shape)} other than the coils'", got=readout)
    return readout % kspace.ndim


def _check(kspace: Tensor, coils: int) -> None:
    if kspace.ndim < 2 or not kspace.is_complex():
        raise InputError("k-space", expected="complex [coils, ...]", got=f"{kspace.dtype} {list(kspace.shape)}")
    if not bool(torch.view_as_real(kspace.resolve_conj()).isfinite().all()):
        raise InputError("k-space", expected="finite values", got="NaN or infinite")
    if not 1 <= coils <= kspace.shape[0]:
        raise InputError("number of virtual coils", expected=f"1 to {kspace.shape[0]}, those measured", got=coils)
