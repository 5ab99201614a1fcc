"""Coil compression against a dense SVD, and by what becomes of the image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from priorloom.errors import InputError
from priorloom_mri.cartesian import fftc, ifftc
from priorloom_mri.coils import birdcage_maps, root_sum_of_squares
from priorloom_mri.compression import energy_kept, geometric_compression, mix_along_readout, svd_compression
from priorloom_mri.noise import mix_coils
from priorloom_mri.phantoms import phantom


def kspace_of(coils: int, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    return fftc(birdcage_maps(coils, shape) * phantom(shape, generator))


@pytest.mark.parametrize("coils", [1, 3, 6])
def test_the_matrix_is_that_of_the_dense_svd(coils: int, generator: torch.Generator) -> None:
    kspace = torch.randn(6, 9, 7, dtype=torch.complex128, generator=generator)
    kspace *= torch.tensor([5.0, 1, 2, 3, 0.2, 0.1], dtype=torch.float64)[:, None, None]
    W = svd_compression(kspace, coils)
    U, S, _ = np.linalg.svd(kspace.flatten(1).numpy(), full_matrices=False)
    np.testing.assert_allclose((W.mH @ W).numpy(), U[:, :coils] @ U[:, :coils].conj().T, atol=1e-10)
    np.testing.assert_allclose((W @ W.mH).numpy(), np.eye(coils), atol=1e-12)
    kept = energy_kept(kspace, mix_coils(kspace, W))
    assert kept == pytest.approx(float((S[:coils] ** 2).sum() / (S**2).sum()), rel=1e-9)


def test_a_volume_is_compressed_alike(generator: torch.Generator) -> None:
    kspace = torch.randn(4, 3, 5, 2, dtype=torch.complex64, generator=generator)
    torch.testing.assert_close(svd_compression(kspace, 2), svd_compression(kspace.flatten(2), 2))


@pytest.mark.parametrize("readout", [-2, -1])
def test_all_virtual_coils_keep_everything(readout: int, generator: torch.Generator) -> None:
    kspace = kspace_of(4, (16, 15), generator)
    reference = root_sum_of_squares(ifftc(kspace))
    matrices = geometric_compression(kspace, 4, readout=readout)
    compressed = mix_along_readout(kspace, matrices, readout=readout)
    torch.testing.assert_close(root_sum_of_squares(ifftc(compressed)), reference, atol=1e-5, rtol=1e-4)
    identity = torch.eye(4).to(matrices).expand(len(matrices), 4, 4)
    torch.testing.assert_close(matrices @ matrices.mH, identity, atol=1e-5, rtol=0)


def test_geometric_compression_keeps_more_with_as_many_coils(generator: torch.Generator) -> None:
    """Each position has coils of its own, so that no common matrix does better (Zhang et al., 2013)."""
    kspace = kspace_of(12, (48, 40), generator)
    for coils in (2, 4):
        common = energy_kept(kspace, mix_coils(kspace, svd_compression(kspace, coils)))
        own = energy_kept(kspace, mix_along_readout(kspace, geometric_compression(kspace, coils, window=1)))
        assert 1 - own < 0.7 * (1 - common)


def test_neighbouring_matrices_agree(generator: torch.Generator) -> None:
    kspace = kspace_of(8, (48, 40), generator)
    matrices = geometric_compression(kspace, 4)
    steps = (matrices[1:] - matrices[:-1]).flatten(1).norm(dim=1) / matrices[1:].flatten(1).norm(dim=1)
    assert float(steps.median()) < 0.1


def test_unsampled_lines_stay_unsampled(generator: torch.Generator) -> None:
    mask = torch.rand(40, generator=generator) < 0.5
    kspace = kspace_of(6, (48, 40), generator) * mask
    compressed = mix_along_readout(kspace, geometric_compression(kspace, 3))
    assert float(compressed[..., ~mask].abs().max()) == 0


def test_bad_input(generator: torch.Generator) -> None:
    kspace = torch.randn(3, 6, 5, dtype=torch.complex64, generator=generator)
    for coils in (0, 4):
        with pytest.raises(InputError, match="number of virtual coils: expected 1 to 3"):
            svd_compression(kspace, coils)
    with pytest.raises(InputError, match="complex"):
        svd_compression(kspace.real, 2)
    with pytest.raises(InputError, match="finite"):
        geometric_compression(kspace * torch.nan, 2)
    with pytest.raises(InputError, match="readout"):
        geometric_compression(kspace, 2, readout=0)
    with pytest.raises(InputError, match="odd"):
        geometric_compression(kspace, 2, window=2)
    with pytest.raises(InputError, match="coil matrices"):
        mix_along_readout(kspace, geometric_compression(kspace, 2), readout=-1)


@pytest.mark.data
def test_the_brain_in_four_virtual_coils(brain: Tensor) -> None:
    reference = root_sum_of_squares(ifftc(brain))
    head = reference > 0.05 * reference.max()
    errors = []
    for compressed in (
        mix_coils(brain, svd_compression(brain, 4)),
        mix_along_readout(brain, geometric_compression(brain, 4)),
    ):
        image = root_sum_of_squares(ifftc(compressed))
        errors.append(float((image - reference)[head].norm() / reference[head].norm()))
    common, own = errors
    assert own < common < 0.05
