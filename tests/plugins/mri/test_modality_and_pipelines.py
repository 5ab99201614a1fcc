"""The modality's conventions and the methods, against definitions, sigpy and a NumPy/PyWavelets solver."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import pywt
import sigpy.mri.app
import torch

from priorloom import Case, Registry
from priorloom.errors import InputError
from priorloom.metrics import metrics
from priorloom.reconstruction import Method, reconstruct
from priorloom_mri.bart import read
from priorloom_mri.coils import birdcage_maps, root_sum_of_squares
from priorloom_mri.masks import make_mask
from priorloom_mri.modality import cases, data_range, describe, mri, noise_std, scale
from priorloom_mri.noise import add_noise
from priorloom_mri.operators import Sense, fftc, fourier2d, ifftc, sense2d, sense3d
from priorloom_mri.phantoms import phantom


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.discover()


def small_case(noise: float = 0.01, shape: tuple[int, int] = (32, 32)) -> Case:
    generator = torch.Generator().manual_seed(1)
    truth = phantom(shape, generator)
    mask = make_mask("poisson-disc", shape, acceleration=3.0, generator=generator)
    A = sense2d(maps=birdcage_maps(4, shape), mask=mask)
    return Case("small", "mri", A, add_noise(A(truth), noise, generator, mask), truth, noise)


def error(image: torch.Tensor, truth: torch.Tensor) -> float:
    return float((image.abs() - truth.abs()).norm() / truth.abs().norm())


def test_scale_is_a_percentile_and_homogeneous() -> None:
    case = small_case()
    image = case.operator.pseudo_inverse(case.measurement).abs()
    assert float((image <= scale(case)).double().mean()) == pytest.approx(0.99, abs=1e-3)
    assert scale(replace(case, measurement=1e6 * case.measurement)) == pytest.approx(1e6 * scale(case))
    zero = replace(case, measurement=0 * case.measurement)
    assert scale(zero) == 0


@pytest.mark.parametrize("name", ["variable-density", "poisson-disc"])
@pytest.mark.parametrize("std", [0.02, 0.2])
def test_noise_is_estimated_from_the_outer_k_space(name: str, std: float, generator: torch.Generator) -> None:
    shape = (128, 128)
    mask = make_mask(name, shape, acceleration=4.0, generator=generator)  # type: ignore[arg-type]
    A = sense2d(maps=birdcage_maps(8, shape), mask=mask)
    y, x = torch.meshgrid(*(torch.linspace(-4, 4, n) for n in shape), indexing="ij")
    smooth = torch.exp(-(x**2) - y**2).to(torch.complex64)  # no signal in its outer k-space
    case = Case("smooth", "mri", A, add_noise(A(smooth), std, generator, mask))
    assert noise_std(case) == pytest.approx(std, rel=0.05)
    single = fourier2d(image_shape=shape, mask=mask)
    case = Case("smooth", "mri", single, add_noise(single(smooth), std, generator, mask))
    assert noise_std(case) == pytest.approx(std, rel=0.1)


def test_metrics_follow_fastmri() -> None:
    """PSNR with the range max |truth|, NMSE of magnitudes (Zbontar et al. 2018, section 6)."""
    case = small_case()
    assert case.truth is not None
    modality = mri()
    truth = modality.display(case.truth)
    image = modality.display(case.operator.pseudo_inverse(case.measurement))
    found = metrics(image, truth, modality.data_range(truth))
    t, x = truth.double().numpy(), image.double().numpy()
    assert data_range(truth) == t.max()
    assert found["psnr"] == pytest.approx(20 * math.log10(t.max() / math.sqrt(((x - t) ** 2).mean())))
    assert found["nmse"] == pytest.approx(((x - t) ** 2).sum() / (t**2).sum())


def test_default_case(registry: Registry) -> None:
    (case,) = cases(registry, {}, seed=0)
    assert case.operator.domain.shape == (128, 128)
    assert case.operator.range.shape == (8, 128, 128)
    assert case.metadata["nominal acceleration"] == 4
    assert case.metadata["sampled fraction"] == 0.25
    assert case.truth is not None
    assert case.noise_std is not None
    residual = case.measurement - case.operator(case.truth)
    sampled = case.measurement != 0
    assert float(residual[sampled].abs().square().mean().sqrt()) == pytest.approx(case.noise_std, rel=0.02)
    assert float(sampled.double().mean()) == 0.25
    (again,) = cases(registry, {}, seed=0)
    (other,) = cases(registry, {}, seed=1)
    assert torch.equal(case.measurement, again.measurement)
    assert not torch.equal(case.measurement, other.measurement)


@pytest.mark.parametrize("mask", ["random", "equispaced", "exact", "poisson-disc", "grid"])
@pytest.mark.parametrize("name", ["mri.fourier2d", "mri.sense2d"])
def test_cases_for_every_mask_and_operator(registry: Registry, name: str, mask: str) -> None:
    settings = {"acceleration": 3.0, "mask": mask, "image_shape": (48, 40), "coils": 5, "noise": 0.0}
    (case,) = cases(registry, {"name": name}, seed=3, **settings)  # type: ignore[arg-type]
    assert case.operator.range.shape == ((48, 40) if name == "mri.fourier2d" else (5, 48, 40))
    assert case.noise_std is None
    achieved = case.metadata["achieved acceleration"]
    assert achieved == pytest.approx(1 / float(case.operator.mask.double().mean()), abs=2e-3)  # type: ignore[union-attr]
    assert math.isfinite(float(reconstruct(case, "zero-filled", registry=registry).image.abs().max()))


def test_bad_cases(registry: Registry) -> None:
    with pytest.raises(InputError, match=r"case\.noise"):
        cases(registry, {}, seed=0, noise=-1.0)
    with pytest.raises(InputError, match="unknown parameter 'msk'"):
        cases(registry, {"msk": 1}, seed=0, image_shape=(16, 16))
    with pytest.raises(InputError, match=r"case\.image_shape"):
        cases(registry, {"name": "mri.fourier2d", "image_shape": (16, 16), "mask": None}, seed=0, image_shape=(16, 32))


def test_zero_filled_is_the_combined_inverse_fft(registry: Registry) -> None:
    case = small_case()
    maps = birdcage_maps(4, (32, 32))
    expected = (maps.conj() * ifftc(case.measurement)).sum(0)  # birdcage maps have unit sum of squares
    result = reconstruct(case, "zero-filled", registry=registry)
    torch.testing.assert_close(result.image, expected, atol=1e-5, rtol=1e-4)
    assert result.kind == "direct"
    assert result.converged is None


@pytest.mark.parametrize("lam", [0.003, 0.1])
def test_cg_sense_is_the_dense_solution(registry: Registry, lam: float) -> None:
    case = small_case(shape=(12, 10))
    settings = {"prior.lam": lam, "solver.tolerance": 1e-6}
    result = reconstruct(case, Method("cg-sense", settings), registry=registry)
    A = case.operator
    matrix = A(torch.eye(120, dtype=torch.complex64).reshape(-1, 12, 10)).flatten(1).T.to(torch.complex128)
    normal = matrix.mH @ matrix + lam * torch.eye(120)
    expected = torch.linalg.solve(normal, matrix.mH @ case.measurement.reshape(-1).to(torch.complex128))
    assert result.converged
    torch.testing.assert_close(result.image.reshape(-1).to(torch.complex128), expected, atol=1e-4, rtol=1e-4)


def test_cg_sense_agrees_with_sigpy(registry: Registry) -> None:
    case = small_case()
    result = reconstruct(case, Method("cg-sense", {"prior.lam": 0.02, "solver.tolerance": 1e-6}), registry=registry)
    app = sigpy.mri.app.SenseRecon(
        case.measurement.numpy(), birdcage_maps(4, (32, 32)).numpy(), 0.02, max_iter=200, show_pbar=False
    )
    np.testing.assert_allclose(result.image.numpy(), app.run(), atol=1e-4)


def test_l1_wavelet_agrees_with_pywavelets_and_numpy(registry: Registry) -> None:
    """ISTA written with NumPy's FFT and PyWavelets reaches the same image and objective."""
    case = small_case()
    lam, maps = 0.02, birdcage_maps(4, (32, 32)).numpy().astype(np.complex128)
    settings = {"prior.lam": lam, "prior.wavelet": "haar", "prior.levels": 2, "solver.tolerance": 1e-6}
    unit = scale(case)
    result = reconstruct(case, Method("l1-wavelet", settings), registry=registry)
    assert result.converged
    y = case.measurement.numpy().astype(np.complex128) / unit
    mask = y != 0

    def forward(x: np.ndarray) -> np.ndarray:
        return mask * fftc(torch.from_numpy(maps * x)).numpy()

    def transform(x: np.ndarray) -> list[np.ndarray]:
        return pywt.wavedec2(x, "haar", mode="periodization", level=2)

    def objective(x: np.ndarray) -> float:
        detail = sum(np.abs(band).sum() for bands in transform(x)[1:] for band in bands)
        return float(0.5 * (np.abs(forward(x) - y) ** 2).sum() + lam * detail)

    def shrink(c: np.ndarray) -> np.ndarray:
        return c * np.maximum(1 - lam / np.maximum(np.abs(c), 1e-300), 0)

    x = np.zeros((32, 32), np.complex128)
    for _ in range(1500):
        step = x - (maps.conj() * ifftc(torch.from_numpy(forward(x) - y)).numpy()).sum(0)
        first, *details = transform(step)
        x = pywt.waverec2([first, *(tuple(map(shrink, bands)) for bands in details)], "haar", mode="periodization")
    image = result.image.numpy() / unit
    assert objective(image) == pytest.approx(objective(x), rel=1e-5)
    assert np.linalg.norm(image - x) < 2e-3 * np.linalg.norm(x)


def test_methods_improve_in_order_with_automatic_weights(registry: Registry) -> None:
    settings = {"mask": "poisson-disc", "image_shape": (64, 64), "noise": 0.02}
    (case,) = cases(registry, {}, seed=0, **settings)  # type: ignore[arg-type]
    assert case.truth is not None
    results = [reconstruct(case, m, registry=registry) for m in ("zero-filled", "cg-sense", "l1-wavelet")]
    errors = [error(r.image, case.truth) for r in results]
    assert errors[0] > errors[1] > errors[2]
    assert all(r.converged for r in results[1:])
    for result in results[1:]:
        lam = result.parameters["prior.lam"]
        pinned = reconstruct(case, Method(result.method, {"prior.lam": lam}), registry=registry)
        torch.testing.assert_close(pinned.image, result.image)
        best = min(
            error(reconstruct(case, Method(result.method, {"prior.lam": f * lam}), registry=registry).image, case.truth)
            for f in (0.1, 0.3, 1.0, 3.0, 10.0)
        )
        assert error(result.image, case.truth) < 1.2 * best


def test_units_of_the_scanner_do_not_matter(registry: Registry) -> None:
    case = small_case()
    assert case.noise_std is not None
    big = replace(case, measurement=1e5 * case.measurement, noise_std=1e5 * case.noise_std, truth=None)
    for name in ("zero-filled", "cg-sense", "l1-wavelet"):
        one, other = (reconstruct(c, name, registry=registry).image for c in (case, big))
        torch.testing.assert_close(other / 1e5, one, atol=2e-4, rtol=2e-4)


def test_any_prior_fits_the_slot(registry: Registry) -> None:
    case = small_case()
    result = reconstruct(case, Method("l1-wavelet", {"prior.name": "l1"}), registry=registry)
    assert result.converged
    assert result.parameters["prior.lam"] > 0
    with pytest.raises(InputError, match="lam"):
        reconstruct(case, Method("cg-sense", {"prior.lam": -1.0}), registry=registry)


@pytest.mark.data
def test_the_measured_brain_is_as_good_as_sigpys(registry: Registry, brain_dir: Path) -> None:
    """Error inside the head against the full scan, at the weight that is best for both (mri_espirit_brain.py)."""
    scan = read(brain_dir / "und2x2.cfl")
    A = registry.operator(scan.operator, **scan.parameters)
    case = Case("brain", "mri", A, torch.from_numpy(scan.measurement))
    reference = root_sum_of_squares(ifftc(torch.from_numpy(read(brain_dir / "full.cfl").measurement)))
    head = reference > 0.05 * reference.max()
    lam, unit = 10**-2.5, scale(case)
    ours = reconstruct(case, Method("l1-wavelet", {"prior.lam": lam}), registry=registry)
    theirs = sigpy.mri.app.L1WaveletRecon(
        scan.measurement / unit, scan.parameters["maps"], lam, max_iter=80, show_pbar=False
    ).run()
    assert ours.converged
    found, limit = (
        error(ours.image[head], reference[head]),
        error(torch.from_numpy(theirs * unit)[head], reference[head]),
    )
    assert found < 1.05 * limit
    assert found < 0.045
    automatic = reconstruct(case, "l1-wavelet", registry=registry)
    assert error(automatic.image[head], reference[head]) < 0.05


def stacked_case(kind: str, generator: torch.Generator) -> Case:
    """A case with two orthonormal map sets, with three frames, or in three dimensions."""
    if kind == "volume":
        shape: tuple[int, ...] = (6, 16, 16)
        maps = torch.stack([birdcage_maps(4, (16, 16))] * 6, 1)
        A = sense3d(maps=maps, mask=make_mask("poisson-disc", (16, 16), acceleration=2.0, generator=generator))
        truth = torch.stack([phantom((16, 16), generator)] * 6)
    else:
        shape = (24, 24)
        masks = [make_mask("poisson-disc", shape, acceleration=2.0, generator=generator) for _ in range(3)]
        maps = birdcage_maps(4, shape)
        other = maps * torch.tensor([1.0, -1.0, 1.0, -1.0])[:, None, None]
        other = other - (maps.conj() * other).sum(0) * maps
        sets = torch.stack((maps, other / root_sum_of_squares(other)))
        A = sense2d(maps=sets, mask=masks[0]) if kind == "sets" else sense2d(maps=maps, mask=torch.stack(masks))
        truth = torch.stack([phantom(shape, generator) for _ in range(A.domain.shape[0])])
    assert isinstance(A, Sense)
    mask = A.mask[:, None] if A.frames else A.mask
    return Case(kind, "mri", A, add_noise(A(truth), 0.005, generator, mask), truth)


def test_noise_of_frames_and_volumes_is_estimated(generator: torch.Generator) -> None:
    for kind in ("sets", "frames", "volume"):
        case = stacked_case(kind, generator)
        assert case.truth is not None
        noise = replace(case, measurement=case.measurement - case.operator(case.truth))
        assert noise_std(noise) == pytest.approx(0.005, rel=0.2)


@pytest.mark.parametrize("kind", ["sets", "frames", "volume"])
def test_every_method_takes_map_sets_frames_and_volumes(
    kind: str, registry: Registry, generator: torch.Generator
) -> None:
    case = stacked_case(kind, generator)
    errors = {}
    for name in ("zero-filled", "cg-sense", "l1-wavelet", "tv-pdhg", "pnp-hqs"):
        settings = {} if name == "zero-filled" else {"solver.max_iterations": 200}
        if name == "pnp-hqs":
            settings = {"denoiser.name": "tv-chambolle"}
        result = reconstruct(case, Method(name, settings), registry=registry)
        assert result.image.shape == case.operator.domain.shape
        assert result.metrics is not None
        errors[name] = result.metrics["nmse"]
    assert max(errors["cg-sense"], errors["tv-pdhg"], errors["l1-wavelet"]) < errors["zero-filled"]
    facts = describe(case.operator)
    assert facts["coils"] == 4
    assert (facts.get("map sets"), facts.get("frames")) == {
        "sets": (2, None), "frames": (None, 3), "volume": (None, None),
    }[kind]  # fmt: skip


def test_priors_see_one_image_of_a_stack_at_a_time(registry: Registry, generator: torch.Generator) -> None:
    """Frames do not mix: together they are what each is alone."""
    case = stacked_case("frames", generator)
    settings = {"prior.lam": 0.01, "solver.max_iterations": 400, "solver.tolerance": 1e-6}
    for method in ("tv-pdhg", "l1-wavelet"):
        together = reconstruct(case, Method(method, settings), registry=registry)
        factor = together.scale
        for t in range(3):
            A = sense2d(maps=case.operator.maps, mask=case.operator.mask[t])  # type: ignore[arg-type, index]
            single = Case("one", "mri", A, case.measurement[t], None, 0.005)
            alone = reconstruct(
                single, Method(method, {**settings, "prior.lam": 0.01 * factor / scale(single)}), registry=registry
            )
            torch.testing.assert_close(together.image[t], alone.image, atol=2e-3, rtol=0)


def test_map_sets_are_shown_as_their_root_sum_of_squares(generator: torch.Generator) -> None:
    case = stacked_case("sets", generator)
    shown = mri().display(case.operator.combined(case.truth))  # type: ignore[arg-type]
    torch.testing.assert_close(shown, case.truth.abs().square().sum(0).sqrt())  # type: ignore[union-attr]
    assert scale(case) == pytest.approx(
        float(case.operator.combined(case.operator.pseudo_inverse(case.measurement)).flatten().quantile(0.99)), rel=0.05
    )
