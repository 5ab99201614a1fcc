"""The measured spiral phantom, 60 interleaves of 1182 samples, 8 coils, and maps from non-Cartesian data."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import scipy.io
import scipy.ndimage
import torch
from torch import Tensor

from priorloom.errors import InputError
from priorloom.modality import Case
from priorloom.reconstruction import Method, reconstruct
from priorloom_mri.calibration import estimated_maps
from priorloom_mri.coils import birdcage_maps, root_sum_of_squares
from priorloom_mri.nufft import nufft, radial2d
from priorloom_mri.operators import fourier2d, ifftc
from priorloom_mri.phantoms import phantom

SHAPE = (260, 360)


class Spiral(NamedTuple):
    """Trajectory [interleaves, readout, 2], weights of the file, samples [coils, interleaves, readout]."""

    k: Tensor
    weights: Tensor
    samples: Tensor

    def every(self, step: int) -> Spiral:
        return Spiral(self.k[::step], self.weights[::step], self.samples[:, ::step])


@pytest.fixture(scope="module")
def spiral(data_dir: Path) -> Spiral:
    content = scipy.io.loadmat(data_dir / "mri-raw" / "spirit-spiral" / "spiral.mat")
    k, samples = content["k"].T, content["data"].transpose(2, 1, 0)
    points = torch.from_numpy(np.stack([k.real, k.imag], -1))
    return Spiral(points, torch.from_numpy(content["w"].T.copy()), torch.from_numpy(samples.astype(np.complex64)))


def gridded(spiral: Spiral) -> Tensor:
    """Root sum of squares after nearest-point gridding with the weights of the file, in their unit."""
    cells = torch.zeros(8, *SHAPE, dtype=torch.complex64)
    index = [(spiral.k[..., a] * n).round().long().add(n // 2).remainder(n).flatten() for a, n in enumerate(SHAPE)]
    cells.index_put_(
        (torch.arange(8)[:, None], index[0], index[1]),
        (spiral.samples * spiral.weights).flatten(1).to(torch.complex64),
        True,
    )
    return root_sum_of_squares(ifftc(cells))


def background(image: Tensor) -> Tensor:
    """Where the object certainly is not: far from everything bright."""
    bright = scipy.ndimage.gaussian_filter(image.abs().numpy(), 3) > 0.08 * float(image.abs().max())
    return torch.from_numpy(scipy.ndimage.distance_transform_edt(~bright) > 12)


@pytest.mark.data
def test_spiral_phantom_reconstructs(spiral: Spiral) -> None:
    A = nufft(image_shape=SHAPE, trajectory=spiral.k, density=spiral.weights)
    direct = root_sum_of_squares(A.pseudo_inverse(spiral.samples))
    coarse = gridded(spiral)
    correlation = float(np.corrcoef(direct.flatten(), coarse.flatten())[0, 1])
    assert correlation > 0.97
    outside = background(direct)
    assert 0.05 < float(outside.float().mean()) < 0.6
    clean, gridding = (float(x[outside].mean() / x[~outside].mean()) for x in (direct, coarse))
    assert clean < 0.8 * gridding


@pytest.mark.data
def test_multi_coil_reconstruction_of_a_fraction_of_the_spirals(spiral: Spiral) -> None:
    full = nufft(image_shape=SHAPE, trajectory=spiral.k, density=spiral.weights)
    maps = estimated_maps(full, spiral.samples)
    whole = nufft(image_shape=SHAPE, trajectory=spiral.k, maps=maps, density=spiral.weights)
    reference = whole.pseudo_inverse(spiral.samples)
    part = spiral.every(6)
    A = nufft(image_shape=SHAPE, trajectory=part.k, maps=maps, density=part.weights)
    case = Case("spiral", "mri", A, part.samples)
    errors: dict[str, float] = {}
    residuals: dict[str, float] = {}
    for method in (Method("zero-filled"), Method("cg-sense", {"solver.max_iterations": 20})):
        result = reconstruct(case, method)
        inside = maps.abs().sum(0) > 0
        errors[result.method] = float((result.image - reference)[inside].norm() / reference[inside].norm())
        residuals[result.method] = float((A(result.image) - part.samples).norm() / part.samples.norm())
    # The reference has noise of its own, which no method can reproduce from other samples.
    assert errors["cg-sense"] < 0.6 * errors["zero-filled"]
    assert residuals["cg-sense"] < 0.75 * residuals["zero-filled"]
    outside = background(root_sum_of_squares(full.pseudo_inverse(spiral.samples)))
    assert float(reference.abs()[outside].mean() / reference.abs()[~outside].mean()) < 0.15


def test_maps_come_from_the_measurement(generator: torch.Generator) -> None:
    shape = (64, 64)
    true, truth = birdcage_maps(4, shape), phantom(shape, generator)
    A = radial2d(maps=true, spokes=100)
    found = estimated_maps(radial2d(image_shape=shape, spokes=100), A(truth))
    inside = truth.abs() > 0.1
    alike = (found.conj() * true).sum(0).abs() / (root_sum_of_squares(found) * root_sum_of_squares(true)).clamp_min(
        1e-6
    )
    assert float(alike[inside].quantile(0.05)) > 0.99


def test_maps_are_refused_for_the_wrong_operator(generator: torch.Generator) -> None:
    A = radial2d(maps=birdcage_maps(4, (16, 16)), spokes=9)
    with pytest.raises(InputError, match="2D trajectory without maps"):
        estimated_maps(A, A.range.zeros())
    with pytest.raises(InputError, match="operator for coil maps: expected a 2D trajectory"):
        estimated_maps(fourier2d(image_shape=(16, 16)), torch.zeros(2, 16, 16))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="measurement for coil maps"):
        estimated_maps(radial2d(image_shape=(16, 16), spokes=9), torch.zeros(9, 32, dtype=torch.complex64))
