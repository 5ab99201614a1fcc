"""Coil maps against sigpy, known truth, and their definitions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import sigpy.mri
import torch
from scipy.io import loadmat
from torch import Tensor

from priorloom import Case
from priorloom.errors import InputError
from priorloom.reconstruction import Method, reconstruct
from priorloom_mri.bart import read
from priorloom_mri.coils import (
    _to_image,
    birdcage_maps,
    calibration_block,
    crop_centre,
    espirit,
    root_sum_of_squares,
    walsh,
)
from priorloom_mri.noise import add_noise
from priorloom_mri.operators import fftc, ifftc, sense2d
from priorloom_mri.phantoms import phantom


def agreement(a: Tensor, b: Tensor) -> Tensor:
    """``|<a, b>| / |a| |b|`` across the coils: 1 where the maps are the same up to a common factor."""
    return (a.conj() * b).sum(0).abs() / (root_sum_of_squares(a) * root_sum_of_squares(b)).clamp_min(1e-12)


def disc(n: int) -> Tensor:
    y, x = torch.meshgrid(*(torch.linspace(-1, 1, n),) * 2, indexing="ij")
    return (x**2 + y**2 < 0.7).to(torch.complex64) * (1 + 0.5 * torch.cos(5 * x + 3 * y))


@pytest.mark.parametrize(("coils", "shape"), [(8, (32, 24)), (5, (15, 17)), (1, (8, 8))])
def test_birdcage_is_sigpys(coils: int, shape: tuple[int, int]) -> None:
    ours = birdcage_maps(coils, shape)
    np.testing.assert_allclose(ours.numpy(), sigpy.mri.birdcage_maps((coils, *shape)), atol=2e-6)
    torch.testing.assert_close(root_sum_of_squares(ours), torch.ones(shape))


def test_walsh_finds_the_maps(generator: torch.Generator) -> None:
    maps = birdcage_maps(6, (48, 48))
    image = disc(48)
    found = walsh(add_noise(maps * image, 0.01, generator), window=5)
    assert float(agreement(found, maps)[image != 0].min()) > 0.995
    torch.testing.assert_close(root_sum_of_squares(found), torch.ones(48, 48))


def test_walsh_with_one_pixel_is_the_image_itself(generator: torch.Generator) -> None:
    images = torch.randn(3, 6, 5, dtype=torch.complex64, generator=generator)
    torch.testing.assert_close(agreement(walsh(images, window=1), images), torch.ones(6, 5))


def test_espirit_finds_the_maps(generator: torch.Generator) -> None:
    maps = birdcage_maps(6, (64, 56))
    image = phantom((64, 56), generator)
    kspace = add_noise(fftc(maps * image), 0.002, generator)
    found = espirit(kspace)
    head = image.abs() > 0.05
    assert float(agreement(found, maps)[head].min()) > 0.99
    size = root_sum_of_squares(found)
    assert float(size[head].min()) > 0.999
    assert bool(((size < 1e-6) | ((size - 1).abs() < 1e-4)).all())
    # The phase convention removes what the maps cannot know: one smooth phase remains.
    combined = (found.conj() * maps).sum(0)[head]
    assert float(torch.nn.functional.cosine_similarity(combined.real, combined.abs(), dim=0).abs()) > 0.5


@pytest.mark.parametrize(("shape", "calibration"), [((48, 48), (24, 24)), ((45, 50), (20, 17))])
def test_espirit_is_sigpys_up_to_phase(
    shape: tuple[int, int], calibration: tuple[int, int], generator: torch.Generator
) -> None:
    maps = birdcage_maps(4, shape)
    kspace = add_noise(fftc(maps * phantom(shape, generator)), 0.005, generator)
    ours = espirit(kspace, calibration=calibration, crop=0.9)
    block = crop_centre(kspace, calibration)
    padded = torch.zeros_like(kspace)
    crop_centre(padded, calibration).copy_(block)
    width = min(calibration)
    if calibration[0] == calibration[1]:
        app = sigpy.mri.app.EspiritCalib(
            padded.numpy(), calib_width=width, crop=0.9, max_iter=400, show_pbar=False, output_eigenvalue=False
        )
        theirs = torch.from_numpy(app.run())
        support, their_support = root_sum_of_squares(ours) > 0.5, root_sum_of_squares(theirs) > 0.5
        assert float((support != their_support).float().mean()) < 0.01
        assert float(agreement(ours, theirs)[support & their_support].min()) > 0.999
    else:
        assert float(agreement(ours, maps)[root_sum_of_squares(ours) > 0.5].mean()) > 0.99


def test_espirit_ignores_k_space_outside_its_calibration(generator: torch.Generator) -> None:
    maps = birdcage_maps(4, (40, 40))
    kspace = fftc(maps * phantom((40, 40), generator))
    other = kspace.clone()
    other[:, :, 35:] = 7
    torch.testing.assert_close(espirit(kspace, calibration=(16, 16)), espirit(other, calibration=(16, 16)))


def test_calibration_block() -> None:
    mask = torch.zeros(40, 30, dtype=torch.bool)
    mask[12:28, 8:22] = True  # rows -8 .. 7 and columns -7 .. 6 around the centre (20, 15)
    assert calibration_block(mask, 24) == (16, 14)
    assert calibration_block(mask, 10) == (10, 10)
    mask[13] = False
    assert calibration_block(mask, 24) == (13, 14)
    lines = torch.zeros(40, 30, dtype=torch.bool)
    lines[:, 10:20] = True
    assert calibration_block(lines, 24) == (24, 10)
    assert calibration_block(torch.zeros(8, 8, dtype=torch.bool), 24) == (0, 0)
    assert calibration_block(torch.ones(7, 9, dtype=torch.bool), 24) == (7, 9)
    for rows, columns in ((16, 14), (13, 10), (7, 7)):
        assert bool(crop_centre(torch.ones(40, 30), (rows, columns)).all())


def test_bad_input(generator: torch.Generator) -> None:
    kspace = torch.randn(3, 20, 20, dtype=torch.complex64, generator=generator)
    for calibration in ((24, 24), (5, 5)):
        with pytest.raises(InputError, match="calibration of espirit"):
            espirit(kspace, calibration=calibration)
    with pytest.raises(InputError, match="signal in the centre"):
        espirit(torch.zeros_like(kspace), calibration=(12, 12))
    with pytest.raises(InputError, match="threshold and crop"):
        espirit(kspace, calibration=(12, 12), crop=1.5)
    for sets in (0, 4):
        with pytest.raises(InputError, match="sets of espirit: expected 1 to 3"):
            espirit(kspace, calibration=(12, 12), sets=sets)
    with pytest.raises(InputError, match="finite"):
        espirit(kspace * torch.nan, calibration=(12, 12))
    with pytest.raises(InputError, match="complex"):
        walsh(kspace.real)
    with pytest.raises(InputError, match="odd"):
        walsh(kspace, window=4)
    with pytest.raises(InputError, match="birdcage"):
        birdcage_maps(0, (4, 4))


def test_two_places_that_fold_onto_one_pixel_have_two_maps(generator: torch.Generator) -> None:
    """Half the field of view: every second line of k-space, and images that overlap where the object does."""
    wide = birdcage_maps(8, (64, 96))
    image = torch.zeros(64, 96, dtype=torch.complex64)
    image[8:56, 10:86] = phantom((48, 76), generator)
    coil_images = (wide * image)[..., :48] + (wide * image)[..., 48:]
    maps = espirit(fftc(coil_images), sets=2, crop=0.9)
    assert maps.shape == (2, 8, 64, 48)
    folded = (image[:, :48].abs() > 0.05) & (image[:, 48:].abs() > 0.05)
    residuals = []
    for used in (maps[:1], maps):
        explained = torch.einsum("scij,sdij,dij->cij", used, used.conj(), coil_images)
        residuals.append(float((explained - coil_images)[:, folded].norm() / coil_images[:, folded].norm()))
    assert residuals[0] > 0.1
    assert residuals[1] < 0.3 * residuals[0]
    single = root_sum_of_squares(maps[1])[~folded & (image[:, :48].abs() < 0.01) & (image[:, 48:].abs() > 0.05)]
    assert float((single > 0.5).float().mean()) < 0.5  # where nothing folds, one set suffices
    torch.testing.assert_close(maps[0], espirit(fftc(coil_images), crop=0.9))
    both = root_sum_of_squares(maps).gt(0.5).all(0)
    assert float((maps[0].conj() * maps[1]).sum(0)[both].abs().max()) < 1e-4


@pytest.mark.data
def test_two_sets_explain_a_field_of_view_smaller_than_the_head(brain_dir: Path) -> None:
    kspace = torch.from_numpy(read(brain_dir / "smallfov.cfl").measurement)
    stored = loadmat(brain_dir / "brain_alias_8ch.mat")["DATA"].transpose(2, 0, 1)[..., 44:212]
    full = ifftc(torch.from_numpy(np.ascontiguousarray(stored)).to(torch.complex64))
    reference = root_sum_of_squares(full)
    head = reference > 0.05 * reference.max()
    mask = (kspace != 0).any(0)
    errors = []
    for sets in (1, 2):
        A = sense2d(maps=espirit(kspace, calibration=calibration_block(mask, 24), sets=sets), mask=mask)
        case = Case(f"sets-{sets}", "mri", A, kspace)
        result = reconstruct(case, Method("cg-sense", {"prior.lam": 1e-3, "solver.tolerance": 1e-3}))
        image = A.combined(result.image).abs()
        errors.append(float((image - reference)[head].norm() / reference[head].norm()))
    one, two = errors
    assert one > 0.08
    assert two < 0.06


@pytest.mark.data
def test_espirit_on_the_brain_is_sigpys(brain: Tensor) -> None:
    ours = espirit(brain)
    theirs = torch.from_numpy(sigpy.mri.app.EspiritCalib(brain.numpy(), show_pbar=False).run())
    support, their_support = root_sum_of_squares(ours) > 0.5, root_sum_of_squares(theirs) > 0.5
    assert float((support != their_support).float().mean()) < 1e-3
    both = agreement(ours, theirs)[support & their_support]
    # sigpy stops its power iteration after 100 steps, which is early where two eigenvalues are close.
    assert float(both.quantile(0.001)) > 0.999
    assert float(both.min()) > 0.99


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64, torch.complex128])
def test_root_sum_of_squares_is_the_norm_across_the_coils(dtype: torch.dtype, generator: torch.Generator) -> None:
    images = torch.randn(2, 5, 9, 7, dtype=dtype, generator=generator)
    torch.testing.assert_close(root_sum_of_squares(images), torch.linalg.vector_norm(images, dim=-3))
    torch.testing.assert_close(root_sum_of_squares(images.conj()), torch.linalg.vector_norm(images, dim=-3))
    leaf = torch.zeros(5, 2, 2, dtype=dtype, requires_grad=True)
    (slope,) = torch.autograd.grad(root_sum_of_squares(leaf).sum(), leaf)
    assert not bool(slope.any())


@pytest.mark.parametrize("scale", [1e-38, 1e-20, 1e20, 1e38])
def test_maps_do_not_depend_on_the_scale(scale: float, generator: torch.Generator) -> None:
    """Squares of such values overflow or vanish in single precision."""
    images = birdcage_maps(4, (32, 32)) * disc(32)
    images = images / images.abs().max()
    for estimate, data in ((walsh, images), (espirit, fftc(images) / fftc(images).abs().max())):
        torch.testing.assert_close(estimate(data * scale), estimate(data), atol=2e-3, rtol=0)


def test_espirit_on_an_image_smaller_than_two_kernels() -> None:
    """The lags between the samples of a patch then exceed the image."""
    shape = (12, 10)
    maps = birdcage_maps(3, shape, radius=4.0)
    image = torch.ones(shape, dtype=torch.complex64)
    found = espirit(fftc(maps * image), calibration=shape, crop=0.5)
    assert float(agreement(found, maps).min()) > 0.95


@pytest.mark.parametrize(("block", "shape"), [((3, 5), (8, 7)), ((11, 5), (8, 7)), ((11, 11), (4, 10))])
def test_a_block_of_kspace_as_an_image_is_its_fourier_sum(
    block: tuple[int, int], shape: tuple[int, int], generator: torch.Generator
) -> None:
    centre = torch.randn(2, *block, dtype=torch.complex128, generator=generator)
    factors = []
    for k, n in zip(block, shape, strict=True):
        m, r = (torch.arange(size).double() - size // 2 for size in (k, n))
        factors.append(torch.exp(2j * torch.pi * r[:, None] * m / n))
    torch.testing.assert_close(_to_image(centre, shape), factors[0] @ centre @ factors[1].T)
