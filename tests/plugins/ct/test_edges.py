"""Scans and data at the edges of what is allowed: against the definition, for every plan, and without harm."""

from __future__ import annotations

import math
import multiprocessing
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
import torch
from torch import Tensor

from priorloom.errors import InputError
from priorloom.operator import LinearOperator
from priorloom_ct import compiler, threads
from priorloom_ct import plan as plans
from priorloom_ct.astra_cuda import astra_plan
from priorloom_ct.fbp import Backprojection
from priorloom_ct.geometry import Geometry
from priorloom_ct.interpolation import interpolation
from priorloom_ct.operators import RayTransform, fanbeam2d, parallel2d
from priorloom_ct.operators3d import conebeam3d, helical3d

CONE: dict[str, Any] = {"source_to_axis": 40.0, "axis_to_detector": 20.0}
OPERATORS: dict[str, Callable[[], LinearOperator]] = {
    "parallel": lambda: parallel2d(image_shape=(9, 8), views=6),
    "folded": lambda: parallel2d(image_shape=(9, 8), views=6, plan="folded"),
    "fan": lambda: fanbeam2d(image_shape=(9, 8), views=6, **CONE),
    "cone": lambda: conebeam3d(image_shape=(4, 8, 8), views=6, **CONE),
    "helix": lambda: helical3d(image_shape=(4, 8, 8), views=16, pitch=4.0, **CONE),
}


def lengths(geometry: Geometry) -> Tensor:
    """How far every ray goes in every pixel, by clipping it to the pixel, ``[views, detectors, rows, columns]``."""
    point, way = (a[:, :, None, None] for a in geometry.rays(np.deg2rad(geometry.angles_deg)))
    half = geometry.pixel_size / 2
    with np.errstate(divide="ignore"):
        x = [(geometry.x + side - point[..., 0]) / way[..., 0] for side in (-half, half)]
        y = [(geometry.y[:, None] + side - point[..., 1]) / way[..., 1] for side in (-half, half)]
    enters = np.maximum(np.minimum(*x), np.minimum(*y))
    leaves = np.minimum(np.maximum(*x), np.maximum(*y))
    return torch.from_numpy((leaves - enters).clip(0) * np.linalg.norm(way, axis=-1))


@pytest.mark.parametrize("angle", [10.0, 80.0, 185.0, 275.0])
@pytest.mark.parametrize(("detectors", "offset"), [(3, 60.0), (4, 0.3), (5, 42.0), (6, 20.0)])
def test_a_few_rays_that_go_everywhere(angle: float, detectors: int, offset: float) -> None:
    # The source is just outside of the image, and the next ray is up to 120 degrees away.
    A = fanbeam2d(
        image_shape=(32, 32), angles_deg=(angle, angle + 1), detectors=detectors, detector_pitch=84.0, offset=offset,
        source_to_axis=23.0, axis_to_detector=1.0,
    ).double()  # fmt: skip
    images = torch.eye(1024, dtype=torch.float64).reshape(1024, 32, 32)
    weights = A(images)
    torch.testing.assert_close(weights, lengths(A.geometry).flatten(2).permute(2, 0, 1), rtol=1e-6, atol=1e-6)
    y = torch.eye(A.range.size, dtype=torch.float64).reshape(-1, *A.range.shape)
    torch.testing.assert_close(A.adjoint(y).flatten(1), weights.flatten(1).T, rtol=0, atol=1e-12)


@pytest.mark.parametrize("detectors", [1, 2, 5])
def test_backprojection_of_few_elements_without_the_compiler(detectors: int) -> None:
    geometry = fanbeam2d(image_shape=(6, 5), views=4, detectors=detectors, **CONE).geometry
    matrix = interpolation(geometry, geometry.angles_deg)
    assert int(matrix.tocsc().indices.max()) < geometry.views * detectors
    images = torch.eye(30).reshape(30, 6, 5)
    found = Backprojection(geometry).adjoint(images).reshape(30, -1)
    torch.testing.assert_close(found.T, torch.from_numpy(matrix.toarray()), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", OPERATORS)
def test_an_empty_batch_gives_an_empty_batch(name: str) -> None:
    A = OPERATORS[name]()
    x, y = A.domain.zeros((2, 0)).requires_grad_(), A.range.zeros((2, 0)).requires_grad_()
    for function, argument, shape in (
        (A, x, A.range.shape), (A.normal, x, A.domain.shape),
        (A.adjoint, y, A.domain.shape), (A.pseudo_inverse, y, A.domain.shape),
    ):  # fmt: skip
        result = function(argument)
        assert result.shape == (2, 0, *shape)
        result.sum().backward()


def test_astra_is_not_asked_for_an_empty_batch() -> None:
    for A in (parallel2d(image_shape=(9, 8), views=6), fanbeam2d(image_shape=(9, 8), views=6, **CONE)):
        plan = astra_plan(A.geometry)
        assert plan(A.domain.zeros((0,))).shape == (0, *A.range.shape)
        assert plan.adjoint(A.range.zeros((0,))).shape == (0, *A.domain.shape)


@pytest.mark.parametrize("name", OPERATORS)
def test_data_may_be_views_that_torch_negates_when_read(name: str, generator: torch.Generator) -> None:
    A = OPERATORS[name]()
    x, y = A.domain.random(generator), A.range.random(generator)
    for function, argument in ((A, x), (A.adjoint, y), (A.pseudo_inverse, y)):
        lazy = torch._neg_view(-argument)
        assert lazy.is_neg()
        torch.testing.assert_close(function(lazy), function(argument), rtol=0, atol=0)


@pytest.mark.parametrize("name", OPERATORS)
def test_half_precision_is_refused(name: str) -> None:
    A = OPERATORS[name]().half()
    for call in (lambda: A(A.domain.zeros()), lambda: A.backprojection(A.range.zeros())):
        with pytest.raises(InputError, match=r"^precision of a ray transform: expected float32 or float64, got .*16"):
            call()


def test_a_plan_that_does_not_exist_is_refused() -> None:
    for make in (
        lambda: parallel2d(image_shape=(8, 8), plan="fast"),  # type: ignore[arg-type]
        lambda: conebeam3d(image_shape=(4, 8, 8), plan="fast", **CONE),  # type: ignore[arg-type]
    ):
        with pytest.raises(InputError, match=r"^plan: expected one of auto, .*got fast"):
            _ = make().plan


def test_more_weights_than_indices_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRIORLOOM_MEMORY_GIB", "1e6")
    A = parallel2d(image_shape=(2048, 2048), views=1001, plan="matrix")
    with pytest.raises(InputError, match=r"^weights of the ray transform: expected at most 2\^31, .*use plan=matrix-f"):
        _ = A.plan


def test_double_precision_needs_more_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    A = parallel2d(image_shape=(64, 64), views=61, plan="matrix")
    estimates = []
    for dtype in (torch.float32, torch.float64):
        monkeypatch.setattr(plans, "memory_budget", lambda: 0)
        with pytest.raises(InputError, match="about") as caught:
            plans.ray_plan(A.geometry, "matrix", dtype, torch.device("cpu"))
        estimates.append(float(str(caught.value).partition("about ")[2].split()[0]))
    assert estimates[1] / estimates[0] == pytest.approx(1.5, abs=0.02)


def test_two_operators_in_two_threads_and_one_in_both(generator: torch.Generator) -> None:
    A = parallel2d(image_shape=(40, 40), views=30)
    B = fanbeam2d(image_shape=(48, 48), views=20, source_to_axis=100.0, axis_to_detector=50.0)
    x, z = A.domain.random(generator, (3,)), B.domain.random(generator, (3,))
    # Copies build their plans in the threads.
    wanted = {A: (x, RayTransform(A.geometry)(x)), B: (z, RayTransform(B.geometry)(z))}
    wrong: list[str] = []

    def apply(operator: RayTransform) -> None:
        try:
            data, result = wanted[operator]
            if not all(torch.equal(operator(data), result) for _ in range(20)):
                wrong.append(operator.extra_repr())
        except Exception as failure:
            wrong.append(repr(failure))

    running = [threading.Thread(target=apply, args=(operator,)) for operator in (A, B, A)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert not wrong


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_process_computes() -> None:
    # After the team of threads was used, which a fork does not take along.
    A = parallel2d(image_shape=(64, 64), views=60)
    before, x = torch.get_num_threads(), torch.ones(4, 64, 64)
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    try:
        torch.set_num_threads(2)
        y = A(x)
        child = context.Process(target=lambda: queue.put(bool(torch.equal(A(x), y))))
        child.start()
        child.join(60)
        assert child.exitcode == 0
        assert queue.get() is True
    finally:
        child.kill()
        torch.set_num_threads(before)


def test_without_a_place_for_compiled_code_it_is_compiled_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    njit = numba.njit

    def no_place(cache: bool = False, **options: Any) -> Any:
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return njit(**options)

    monkeypatch.setattr(numba, "njit", no_place)
    assert compiler.compiled(lambda a: a + 1)(1) == 2


def test_a_distant_detector_row_does_not_overflow(generator: torch.Generator) -> None:
    # The first row is ten million slices below the volume.
    scan: dict[str, Any] = {
        "image_shape": (4, 4, 4), "pixel_size": 1e-5, "angles_deg": (0.0, 30.0), "source_to_axis": 1000.0,
        "axis_to_detector": 0.0, "detector_pitch": 1e-5,
    }  # fmt: skip
    A = conebeam3d(**scan, detector_shape=(3, 4), row_pitch=100.0).double()
    middle = conebeam3d(**scan, detector_shape=(1, 4), row_pitch=1.0).double()
    x = A.domain.random(generator)
    assert math.isclose(float(A(x)[:, [0, 2]].abs().max()), 0.0)
    torch.testing.assert_close(A(x)[:, 1], middle(x)[:, 0], rtol=1e-5, atol=1e-9)


def test_a_stored_matrix_of_another_kind_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRIORLOOM_CACHE", str(tmp_path))
    scan: dict[str, Any] = {"image_shape": (9, 8), "views": 6, "plan": "folded"}
    x = torch.ones(9, 8)
    y = parallel2d(**scan)(x)
    (file,) = tmp_path.glob("*.npz")
    with np.load(file) as stored:
        arrays = dict(stored)
    for wrong in (
        {"starts": np.full(arrays["starts"].shape, "text")}, {"values": arrays["values"].astype(">f4")},
        {"columns": arrays["columns"].astype(float)},
    ):  # fmt: skip
        np.savez(file, **{**arrays, **wrong})
        assert torch.equal(parallel2d(**scan)(x), y)


def test_estimates_of_memory_know_the_precision_and_fdk(monkeypatch: pytest.MonkeyPatch) -> None:
    A = parallel2d(image_shape=(256, 256), views=4)
    _ = A.plan
    monkeypatch.setenv("PRIORLOOM_MEMORY_GIB", "0.003")  # four lanes of two images in single precision are 2 MiB
    _ = parallel2d(image_shape=(256, 256), views=4).plan
    with pytest.raises(InputError, match=r"^memory of a parallel-beam scan, 256 x 256 .*got about 4\.\d* MiB"):
        _ = parallel2d(image_shape=(256, 256), views=4).double().plan
    B = conebeam3d(image_shape=(4, 8, 8), views=60, detector_shape=(60, 60), **CONE)
    y = B.range.zeros()
    monkeypatch.setenv("PRIORLOOM_MEMORY_GIB", "0.002")
    with pytest.raises(InputError, match=r"^memory of the weights of FDK: expected at most 2.05 MiB, got about 2.47"):
        B.pseudo_inverse(y)
    monkeypatch.setenv("PRIORLOOM_MEMORY_GIB", "0.0035")
    with pytest.raises(InputError, match=r"^memory of filtered backprojection: .*got about 4.12 MiB; use a smaller"):
        B.pseudo_inverse(y)
    monkeypatch.setenv("PRIORLOOM_MEMORY_GIB", "0.005")
    assert not bool(B.pseudo_inverse(y).any())


def test_a_torch_without_openmp_has_threads_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    team = threads._team
    monkeypatch.setattr(torch.__config__, "parallel_info", lambda: "ATen parallel backend: native thread pool")
    team.cache_clear()
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert team() is threads._pool
        done: list[int] = []
        threads.spread(lambda first, last: done.extend(range(first, last)), 100)
        assert sorted(done) == list(range(100))
        with pytest.raises(ZeroDivisionError):
            threads.spread(lambda first, last: print(1 // (first - first)), 100)
    finally:
        torch.set_num_threads(before)
        team.cache_clear()
