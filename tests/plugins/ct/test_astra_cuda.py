"""ASTRA on torch's CUDA memory: on the CPU its description of scans, on a GPU its values, scale and memory."""

from __future__ import annotations

import gc
import pickle
from collections.abc import Callable
from typing import Any

import astra
import astra.experimental
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from priorloom.errors import InputError, PriorloomError
from priorloom.testing import check_operator
from priorloom_ct.astra_cuda import AstraCone, AstraFan, AstraParallel, astra_plan, cone_beam, stacked_beams
from priorloom_ct.operators import fanbeam2d, parallel2d
from priorloom_ct.operators3d import ConeTransform, conebeam3d, helical3d
from priorloom_ct.plans3d import cone_plan

from .conftest import Disc
from .scans3d import Ball

Relative = Callable[[Tensor, Tensor], float]
BEAM: dict[str, Any] = {"source_to_axis": 200.0, "axis_to_detector": 100.0}
SIZE: dict[str, Any] = {"image_shape": (36, 40, 44), "pixel_size": 1.3, **BEAM}
CONES: dict[str, Callable[[], ConeTransform]] = {
    "circle": lambda: conebeam3d(**SIZE, views=40, offset=3.3, row_offset=-2.2),
    "thick": lambda: conebeam3d(**SIZE, views=40, slice_thickness=1.9, row_pitch=1.6),
    "helix": lambda: helical3d(**SIZE, views=60, pitch=18.0, detector_shape=(30, 64)),
}


@pytest.fixture
def cuda() -> torch.device:
    """The GPU; without one, the test skips."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device, or torch without CUDA")
    return torch.device("cuda")


def shadow(A: Any, place: tuple[int, ...]) -> np.ndarray:
    """The centre of mass of one voxel's shadow on the detector, ``[views, dimensions of the detector]``."""
    x = A.domain.zeros()
    x[place] = 1.0
    y = A(x).double().numpy()
    grids = np.meshgrid(*(np.arange(n) for n in y.shape[1:]), indexing="ij")
    mass = y.reshape(len(y), -1).sum(1)
    return np.stack([(y * g).reshape(len(y), -1).sum(1) / np.where(mass == 0, np.nan, mass) for g in grids], axis=1)


FINE: dict[str, Callable[[], ConeTransform]] = {
    "circle": lambda: conebeam3d(**SIZE, views=12, offset=3.3, row_offset=-2.2, detector_pitch=0.5, row_pitch=0.7),
    "thick": lambda: conebeam3d(**SIZE, views=12, slice_thickness=1.9, detector_pitch=0.5),
    "helix": lambda: helical3d(**SIZE, views=50, pitch=18.0, detector_pitch=0.5, detector_shape=(90, 240)),
}


@pytest.mark.parametrize("name", FINE)
def test_astra_is_told_the_same_cone(name: str) -> None:
    A = FINE[name]()
    projection, volume = cone_beam(A.geometry)
    assert astra.geom_size(projection) == (A.range.shape[1], A.range.shape[0], A.range.shape[2])
    assert astra.geom_size(volume) == A.domain.shape
    place = (17, 9, 31)
    # Astra's rows rise along y.
    where = A.geometry.plane.x[place[2]], -A.geometry.plane.y[place[1]], A.geometry.z[place[0]]
    expected = shadow(A, place)
    seen = 0
    for view, (v, u) in enumerate(expected):
        if np.isfinite(u) and 6 < v < A.range.shape[1] - 7:
            found = astra.experimental.projectPoint(projection, *where, view)
            assert found == pytest.approx((u, v), abs=0.1)
            seen += 1
    assert seen > 8


def test_astra_is_told_the_same_parallel_beams() -> None:
    A = parallel2d(image_shape=(40, 44), pixel_size=1.3, views=12, offset=3.3, detector_pitch=0.2)
    projection, volume = stacked_beams(A.geometry, 5)
    assert astra.geom_size(projection) == (5, *A.range.shape)
    assert astra.geom_size(volume) == (5, *A.domain.shape)
    for view, (u,) in enumerate(shadow(A, (9, 31))):
        for k in range(5):
            found = astra.experimental.projectPoint(projection, A.geometry.x[31], -A.geometry.y[9], k - 2.0, view)
            assert found == pytest.approx((u, k), abs=0.05)


def test_tensors_are_read_and_written_in_place(generator: torch.Generator, relative: Relative) -> None:
    """The same code with ASTRA's projector for the CPU, whose weights are ours and whose adjoint is exact."""
    A = fanbeam2d(image_shape=(30, 34), views=11, offset=1.37, **BEAM)
    plan = AstraFan(A.geometry, "line_fanflat")
    x, y = A.domain.random(generator, (2,)), A.range.random(generator, (2,))
    assert relative(plan(x), A(x)) < 1e-4
    assert relative(plan.adjoint(y), A.adjoint(y)) < 1e-4
    assert relative(pickle.loads(pickle.dumps(plan))(x), A(x)) < 1e-4
    assert relative(plan(x.transpose(1, 2).contiguous().transpose(1, 2)), A(x)) < 1e-4
    with pytest.raises(PriorloomError, match="float32"):
        plan(x.double())


def test_projectors_end_with_their_plan() -> None:
    A = fanbeam2d(image_shape=(8, 8), views=3, **BEAM)
    plan = AstraFan(A.geometry, "line_fanflat")
    plan(torch.zeros(1, 8, 8))
    number = plan._projector().number
    assert astra.projector.projection_geometry(number)["DetectorCount"] == A.range.shape[1]
    del plan
    gc.collect()
    with pytest.raises(Exception, match=r"."):
        astra.projector.projection_geometry(number)


def test_without_a_gpu_the_process_survives() -> None:
    """ASTRA itself would end it."""
    parallel = parallel2d(image_shape=(8, 8), views=3)
    cone = conebeam3d(image_shape=(4, 8, 8), views=3, **BEAM)
    for plan, A in ((AstraParallel(parallel.geometry), parallel), (AstraCone(cone.geometry), cone)):
        for apply, space in ((plan, A.domain), (plan.adjoint, A.range)):
            with pytest.raises(InputError, match="plan astra: expected tensors on a CUDA device, got cpu"):
                apply(space.zeros((1,)))
    with pytest.raises(InputError, match="plan astra: expected tensors on a CUDA device"):
        conebeam3d(image_shape=(4, 8, 8), views=3, plan="astra", **BEAM)(cone.domain.zeros())
    with pytest.raises(InputError, match="plan matrix-free: expected tensors on the CPU, got cuda"):
        cone_plan(cone.geometry, "matrix-free", torch.device("cuda"))
    assert isinstance(cone_plan(cone.geometry, "auto", torch.device("cuda")), AstraCone)


@pytest.mark.parametrize("beam", ["parallel", "fan"])
def test_slices_on_cuda_are_those_on_the_cpu(beam: str, cuda: torch.device, disc: Disc, relative: Relative) -> None:
    size: dict[str, Any] = {"image_shape": (64, 80), "pixel_size": 1.1, "views": 90, "offset": 2.7}
    A = parallel2d(**size) if beam == "parallel" else fanbeam2d(**size, **BEAM)
    plan, image = astra_plan(A.geometry), disc.image(A.geometry)
    batch = torch.stack([image, image.flip(0), 2 * image.flip(1)])
    y = A(batch)
    found = plan(batch.to(cuda))
    assert found.is_cuda
    assert relative(found.cpu(), disc_scale(A, disc, y)) < 0.03
    assert relative(found.cpu(), y) < 0.02  # other weights in a fan, and texture units
    back = plan.adjoint(y.to(cuda)).cpu()
    exact = A.adjoint(y)
    assert relative(back, exact) < 0.05
    assert float((back * exact).sum() / exact.square().sum()) == pytest.approx(1, abs=0.01)
    assert relative(plan(batch[1:2].to(cuda)), found[1:2]) < 1e-5


def disc_scale(A: Any, disc: Disc, y: Tensor) -> Tensor:
    """The first of a batch replaced by the exact line integrals."""
    exact = y.clone()
    exact[0] = disc.line_integrals(A.geometry)
    return exact


@pytest.mark.parametrize("name", CONES)
def test_cones_on_cuda_are_those_on_the_cpu(name: str, cuda: torch.device, relative: Relative) -> None:
    A, ball = CONES[name](), Ball()
    image, exact = ball.gaussian(A.geometry)
    B = CONES[name]().to(cuda)
    assert relative(B(image.to(cuda)).cpu(), exact) < 0.02
    assert relative(B(image.to(cuda)).cpu(), A(image)) < 0.01
    y, expected = A(image), A.adjoint(A(image))
    back = B.adjoint(y.to(cuda)).cpu()
    assert relative(back, expected) < 0.15
    assert float((back * expected).sum() / expected.square().sum()) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("name", ["circle", "helix"])
def test_fdk_on_cuda_is_that_on_the_cpu(name: str, cuda: torch.device, relative: Relative) -> None:
    A, ball = CONES[name](), Ball()
    y = ball.line_integrals(A.geometry)
    found = CONES[name]().to(cuda).pseudo_inverse(y.to(cuda))
    assert found.is_cuda
    assert relative(found.cpu(), A.pseudo_inverse(y)) < 0.01


def test_the_kit_refuses_the_pair_and_prints_the_gap(cuda: torch.device) -> None:
    A = conebeam3d(image_shape=(12, 14, 16), views=20, **BEAM).to(cuda)
    assert not A.plan.adjoint_is_exact
    with pytest.raises(PriorloomError, match="dot test"):
        check_operator(A)


@pytest.mark.parametrize("scan", ["parallel", "fan", "cone"])
def test_a_thousand_training_steps_take_no_more_memory(scan: str, cuda: torch.device) -> None:
    """A network behind ASTRA's pair, with the autograd of an operator; the driver's count of free memory."""
    plan: Any
    if scan == "cone":
        cone = conebeam3d(image_shape=(16, 24, 24), views=20, **BEAM)
        plan, shape = AstraCone(cone.geometry), cone.domain.shape
    else:
        A = (
            parallel2d(image_shape=(64, 64), views=30)
            if scan == "parallel"
            else fanbeam2d(image_shape=(64, 64), views=30, **BEAM)
        )
        plan, shape = astra_plan(A.geometry), A.domain.shape
    weight = nn.Parameter(torch.ones(shape, device=cuda))
    optimiser = torch.optim.SGD([weight], lr=1e-7)
    truth = torch.rand(4, *shape, device=cuda)
    y = plan(truth)
    free = []
    for step in range(1001):
        x = truth * weight
        with torch.no_grad():
            gradient = plan.adjoint(plan(x) - y)
        optimiser.zero_grad()
        x.backward(gradient)
        optimiser.step()
        if step in (100, 1000):
            torch.cuda.synchronize()
            free.append(torch.cuda.mem_get_info()[0])
    assert free[0] - free[1] < 2**20
