"""The modality, its cases and the classical methods, through the registry as users reach them."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from priorloom import Case, Registry, compare
from priorloom.errors import InputError
from priorloom.reconstruction import Method
from priorloom_ct import modality
from priorloom_ct.operators import RayTransform, parallel2d
from priorloom_ct.simulate import MU_WATER, gaussian_noise, photon_noise, to_hounsfield

from .conftest import Disc


@pytest.fixture(scope="module")
def registry() -> Registry:
    """What is installed."""
    return Registry.discover()


@pytest.fixture
def case(generator: torch.Generator) -> Case:
    """A disc in 40 views with white noise."""
    A = parallel2d(image_shape=(32, 32), pixel_size=2.0, views=40)
    truth = Disc(18.0, 4.0, -6.0, MU_WATER).image(A.geometry)
    return Case("disc", "ct", A, gaussian_noise(A(truth), 0.02, generator), truth, 0.02)


def dense(A: RayTransform) -> np.ndarray:
    """The matrix, column by column."""
    basis = torch.eye(A.domain.size).reshape(-1, *A.domain.shape)
    return A(basis).flatten(1).T.double().numpy()


def image(case: Case, registry: Registry, method: str, **settings: float) -> Tensor:
    chosen = Method(method, {name.replace("__", "."): value for name, value in settings.items()})
    (result,) = compare([case], [chosen], registry=registry)
    assert result.converged is not False
    return result.image


def test_fbp_is_the_pseudo_inverse(case: Case, registry: Registry) -> None:
    torch.testing.assert_close(image(case, registry, "fbp"), case.operator.pseudo_inverse(case.measurement))


def test_tikhonov_is_the_dense_solution(case: Case, registry: Registry) -> None:
    A = dense(case.operator)
    y = case.measurement.double().numpy().ravel()
    expected = np.linalg.solve(A.T @ A + 30.0 * np.eye(A.shape[1]), A.T @ y)
    found = image(case, registry, "tikhonov", prior__lam=30.0, solver__tolerance=1e-6).numpy().ravel()
    assert np.linalg.norm(found - expected) < 1e-3 * np.linalg.norm(expected)


def test_cgls_stops_at_the_noise(case: Case, registry: Registry) -> None:
    (result,) = compare([case], ["cgls"], registry=registry)
    misfit = float((case.operator(result.image) - case.measurement).norm())
    noise = case.noise_std * case.measurement.numel() ** 0.5
    assert result.converged
    assert 0.9 * noise < misfit <= 1.001 * noise
    assert "discrepancy principle" in result.criterion


def test_wavelet_fista_meets_its_optimality_condition(case: Case, registry: Registry) -> None:
    lam = 3.0
    x = image(case, registry, "wavelet-fista", prior__lam=lam, solver__tolerance=1e-6) / MU_WATER
    A = case.operator
    prior = registry.prior("wavelet-l1", A.domain, lam=lam)
    y = case.measurement / MU_WATER
    step = 1 / A.norm() ** 2
    fixed = prior.prox(x - step * A.adjoint(A(x) - y), step)
    assert float((x - fixed).norm() / x.norm()) < 1e-4


def test_unset_weights_follow_the_noise(case: Case, registry: Registry) -> None:
    lams = [
        compare([replace(case, noise_std=std)], ["tikhonov"], registry=registry)[0].parameters["prior.lam"]
        for std in (0.01, 0.04)
    ]
    assert lams[1] == pytest.approx(4 * lams[0])


def test_images_are_read_in_hounsfield_units(registry: Registry) -> None:
    reading = registry.modality("ct").reading
    assert reading is not None
    mu = torch.tensor([0.0, MU_WATER, 0.05], dtype=torch.float64)
    torch.testing.assert_close(reading.factor * mu + reading.offset, to_hounsfield(mu))
    assert all(low < high for low, high in reading.windows.values())


def test_methods_beat_fbp_on_few_noisy_views(registry: Registry) -> None:
    cases = registry.modality("ct").cases(
        registry, {}, seed=3, photons=2e4, images=("shepp-logan",), image_shape=(64, 64)
    )
    results = compare(cases, ["fbp", "tikhonov", "cgls", "wavelet-fista"], registry=registry)
    psnr = {r.method: r.metrics["psnr"] for r in results}
    assert all(r.converged is not False for r in results)
    assert min(psnr["tikhonov"], psnr["cgls"], psnr["wavelet-fista"]) > psnr["fbp"] + 0.5


@pytest.mark.parametrize("settings", [{"filter": "hann", "cutoff": 0.7}, {"filter": "cosine"}])
def test_fbp_takes_a_filter(settings: dict[str, object], case: Case, registry: Registry) -> None:
    (result,) = compare([case], [Method("fbp", settings)], registry=registry)
    assert not torch.allclose(result.image, case.operator.pseudo_inverse(case.measurement))


def test_bad_settings_are_refused(case: Case, registry: Registry) -> None:
    for method, settings in (
        ("cgls", {"discrepancy": 0.0}),
        ("fbp", {"cutoff": 2.0}),
        ("tikhonov", {"prior.lam": -1.0}),
    ):
        with pytest.raises(InputError):
            compare([case], [Method(method, settings)], registry=registry)


def test_default_cases_are_the_embedded_ones(registry: Registry) -> None:
    cases = registry.modality("ct").cases(registry, {}, seed=0)
    assert [c.name for c in cases] == ["ct-small", "foam"]
    for c in cases:
        assert c.measurement.shape[0] == 60
        assert c.operator.domain.shape == (128, 128)
        assert float(c.truth.min()) >= 0
        residual = float((c.measurement - c.operator(c.truth)).square().mean().sqrt())
        assert residual == pytest.approx(c.noise_std, rel=0.03)
    slice_ = cases[0].truth
    assert 0.8 * MU_WATER < float(slice_.median()) < 1.2 * MU_WATER
    again = registry.modality("ct").cases(registry, {}, seed=0)
    other = registry.modality("ct").cases(registry, {}, seed=1)
    assert all(torch.equal(a.measurement, b.measurement) for a, b in zip(cases, again, strict=True))
    assert not any(torch.equal(a.measurement, b.measurement) for a, b in zip(cases, other, strict=True))
    (alone,) = registry.modality("ct").cases(registry, {}, seed=0, images=("foam",))
    assert torch.equal(alone.measurement, cases[1].measurement)  # the place in the list does not matter


def test_cases_take_an_operator(registry: Registry) -> None:
    settings = {"name": "ct.fanbeam2d", "source_to_axis": 300.0, "axis_to_detector": 100.0, "views": 30}
    (case,) = registry.modality("ct").cases(registry, settings, seed=0, images=("ellipses",), image_shape=(48, 48))
    assert case.measurement.shape[0] == 30
    assert not case.operator.geometry.is_parallel
    with pytest.raises(InputError, match=r"case\.images: expected names from ct-small"):
        registry.modality("ct").cases(registry, {}, seed=0, images=("brain",))
    with pytest.raises(InputError, match=r"image of operator 'ct\.parallel2d'"):
        registry.modality("ct").cases(registry, {"image_shape": (8, 8)}, seed=0, images=("foam",))


@pytest.mark.parametrize("photons", [1e3, 1e4])
def test_the_noise_level_is_found_in_the_sinogram(photons: float, generator: torch.Generator, disc: Disc) -> None:
    A = parallel2d(image_shape=(128, 128), views=90)
    clean = disc.line_integrals(A.geometry)
    noisy, _ = photon_noise(clean, photons, generator)
    through = clean > 0.1 * clean.max()
    actual = float((noisy - clean)[through].std())
    assert modality.noise_std(Case("disc", "ct", A, noisy)) == pytest.approx(actual, rel=0.1)


def test_scale_and_range() -> None:
    A = parallel2d(image_shape=(4, 4), views=3)
    assert modality.scale(Case("zero", "ct", A, A.range.zeros())) == MU_WATER
    assert modality.noise_std(Case("zero", "ct", A, A.range.zeros())) == 0.0
    assert modality.data_range(torch.tensor([-1.0, 3.0])) == 4.0


def test_discovery_imports_nothing_heavy() -> None:
    code = (
        "import sys, priorloom_ct as p; p.priorloom_operators(); p.priorloom_pipelines();"
        "sys.exit(any(m in sys.modules for m in ('torch', 'odl', 'astra', 'numpy', 'scipy', 'pydicom')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("make", ["operators:parallel2d", "modality:ct", "htc2022:htc2022", "pipelines:fbp"])
def test_nothing_needs_odl_or_astra_before_it_computes(make: str) -> None:
    module, _, name = make.partition(":")
    call = "(image_shape=(8, 8), views=4)" if module == "operators" else "()"
    code = (
        f"import sys; from priorloom_ct.{module} import {name}; {name}{call};"
        "sys.exit(any(m in sys.modules for m in ('odl', 'astra', 'pydicom')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
