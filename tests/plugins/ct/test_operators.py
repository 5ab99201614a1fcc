"""Ray transforms against the exact integrals of a disc, against ODL, and as linear operators."""

from __future__ import annotations

import copy
import pickle
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import odl
import odl.applications.tomo as tomo
import pytest
import torch
from torch import Tensor

from priorloom.errors import InputError, PriorloomError
from priorloom.testing import check_operator
from priorloom_ct import matrix_free, weights
from priorloom_ct import plan as plans
from priorloom_ct.operators import RayTransform, fanbeam2d, parallel2d
from priorloom_ct.plan import PlanName

from .conftest import Disc

Relative = Callable[[Tensor, Tensor], float]
FAN = {"source_to_axis": 200.0, "axis_to_detector": 100.0}
UNEVEN = tuple(float(a) for a in np.concatenate([np.arange(0, 60, 3), np.arange(60, 180, 8)]))
SHUFFLED = (100.0, 10.0, 280.0, 190.0, 12.0, 102.0, 192.0, 282.0)
SCANS: dict[str, Callable[[], RayTransform]] = {
    "parallel": lambda: parallel2d(image_shape=(64, 64), pixel_size=1.4, views=30),
    "parallel-360": lambda: parallel2d(image_shape=(64, 64), pixel_size=1.4, views=28, arc_deg=360.0),
    "parallel-odd": lambda: parallel2d(image_shape=(64, 64), pixel_size=1.4, views=29),
    "parallel-offset": lambda: parallel2d(image_shape=(64, 64), pixel_size=1.4, views=30, offset=11.3),
    "parallel-uneven": lambda: parallel2d(image_shape=(64, 64), pixel_size=1.4, angles_deg=UNEVEN),
    "parallel-shuffled": lambda: parallel2d(image_shape=(64, 64), pixel_size=1.4, angles_deg=SHUFFLED),
    "parallel-oblong": lambda: parallel2d(image_shape=(60, 80), pixel_size=1.4, views=16, arc_deg=360.0),
    "parallel-fine": lambda: parallel2d(image_shape=(64, 64), pixel_size=1.4, views=30, detector_pitch=0.5),
    "fan": lambda: fanbeam2d(image_shape=(64, 64), pixel_size=1.4, views=40, **FAN),
    "fan-offset": lambda: fanbeam2d(image_shape=(64, 64), pixel_size=1.4, views=40, offset=9.7, **FAN),
    "fan-arc": lambda: fanbeam2d(image_shape=(64, 64), pixel_size=1.4, views=33, arc_deg=200.0, **FAN),
    "fan-shuffled": lambda: fanbeam2d(image_shape=(64, 64), pixel_size=1.4, angles_deg=SHUFFLED, **FAN),
}


@pytest.mark.parametrize("name", SCANS)
def test_values_are_the_line_integrals_of_a_disc(name: str, disc: Disc, relative: Relative) -> None:
    A = SCANS[name]()
    assert relative(A(disc.image(A.geometry)), disc.line_integrals(A.geometry)) < 0.03  # pixels of 1.4 mm, radius 22 mm


@pytest.mark.parametrize("name", SCANS)
def test_adjoint_is_the_exact_transpose(name: str, generator: torch.Generator) -> None:
    A = SCANS[name]().double()
    x, y = A.domain.random(generator), A.range.random(generator)
    forward, backward = A.range.inner(A(x), y), A.domain.inner(x, A.adjoint(y))
    assert abs(float(forward - backward)) < 1e-13 * float(A.range.norm(A(x)) * A.range.norm(y))


@pytest.mark.parametrize("name", ["parallel", "parallel-odd", "parallel-uneven", "fan", "fan-arc"])
def test_values_agree_with_odl(name: str, generator: torch.Generator, relative: Relative) -> None:
    # In a fan, a shift of the detector by less than an element keeps rays off pixel edges, whose length belongs to
    # either side. (For parallel rays ODL forgets the offset, and Joseph's weights have no such ties.)
    A = SCANS[name]()
    geometry = A.geometry
    if not geometry.is_parallel:
        A = fanbeam2d(image_shape=(64, 64), pixel_size=1.4, angles_deg=geometry.angles_deg, offset=0.137, **FAN)
        geometry = A.geometry
    half = 64 * 1.4 / 2
    space = odl.uniform_discr([-half, -half], [half, half], (64, 64), dtype="float32")
    transform = tomo.RayTransform(space, geometry.to_odl(), impl="astra_cpu")
    x = A.domain.random(generator).abs()
    y = A(x)
    as_odl = torch.rot90(x, -1).numpy()  # ODL's first axis is x, upwards the second
    assert relative(y, torch.from_numpy(transform(space.element(as_odl)).asarray())) < 1e-4
    adjoint = transform.adjoint(transform.range.element(y.numpy())).asarray()
    weights = transform.domain.weighting.const / transform.range.weighting.const
    assert relative(A.adjoint(y), weights * torch.rot90(torch.from_numpy(adjoint.copy()), 1)) < 1e-4


@pytest.mark.parametrize("name", ["parallel", "parallel-odd", "fan"])
def test_a_batch_is_its_members(name: str, generator: torch.Generator) -> None:
    A = SCANS[name]()
    x, y = A.domain.random(generator, (2, 3)), A.range.random(generator, (2, 3))
    for operator, batch in ((A, x), (A.adjoint, y), (A.pseudo_inverse, y)):
        each = torch.stack([torch.stack([operator(one) for one in row]) for row in batch])
        torch.testing.assert_close(operator(batch), each, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("fan", [False, True])
def test_derivatives_in_double(fan: bool, generator: torch.Generator) -> None:
    small: dict[str, Any] = {"image_shape": (4, 4), "views": 6, "detectors": 7}
    A = (fanbeam2d(**small, source_to_axis=20.0, axis_to_detector=9.0) if fan else parallel2d(**small)).double()
    x = A.domain.random(generator, (2,)).requires_grad_()
    y = A.range.random(generator, (2,)).requires_grad_()
    for function, argument in ((A, x), (A.adjoint, y), (A.pseudo_inverse, y)):
        assert torch.autograd.gradcheck(function, (argument,))
        assert torch.autograd.gradgradcheck(function, (argument,))


def test_symmetric_views_share_their_rays() -> None:
    folded = {name: scan().plan.folding.views.shape for name, scan in SCANS.items()}
    assert folded == {  # base views, copies of the image
        "parallel": (8, 4), "parallel-360": (4, 8), "parallel-odd": (15, 2), "parallel-offset": (8, 4),
        "parallel-uneven": (29, 2), "parallel-shuffled": (2, 4), "parallel-oblong": (5, 4), "parallel-fine": (8, 4),
        "fan": (6, 8), "fan-offset": (10, 4), "fan-arc": (33, 1), "fan-shuffled": (2, 4),
    }  # fmt: skip


@pytest.mark.parametrize("plan", ["folded", "matrix"])
@pytest.mark.parametrize("name", SCANS)
def test_plans_compute_the_same(name: str, plan: PlanName, generator: torch.Generator, relative: Relative) -> None:
    # The matrix is ASTRA's, which finds rays in single precision. Off the edges of pixels, where a ray's length belongs
    # to either side; see above.
    geometry = SCANS[name]().geometry
    if not geometry.is_parallel:
        geometry = replace(geometry, offset=geometry.offset + 0.137)
    free, matrix = RayTransform(geometry, "matrix-free"), RayTransform(geometry, plan)
    x, y = free.domain.random(generator, (5,)), free.range.random(generator, (5,))
    tolerance = 1e-4 if geometry.is_parallel else 5e-4
    assert relative(free(x), matrix(x)) < tolerance
    assert relative(free.adjoint(y), matrix.adjoint(y)) < tolerance
    assert matrix.plan.name == (
        "folded matrix" if plan == "folded" and len(matrix.plan.folding.symmetries) > 1 else "matrix"
    )


@pytest.mark.parametrize("name", ["fan", "parallel-360"])
def test_folding_is_exact_also_where_rays_run_along_edges(name: str, generator: torch.Generator) -> None:
    A = SCANS[name]().double()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matrix_free.Folding, "of", matrix_free.Folding.trivial)
        unfolded = matrix_free.RayDriven(A.geometry, torch.float64)
    x, y = A.domain.random(generator, (2,)), A.range.random(generator, (2,))
    assert unfolded.folding.views.shape == (A.geometry.views, 1)
    torch.testing.assert_close(A(x), unfolded(x), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(A.adjoint(y), unfolded.adjoint(y), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("plan", ["matrix-free", "folded", "matrix"])
@pytest.mark.parametrize("fan", [False, True])
def test_every_plan_conforms(fan: bool, plan: PlanName) -> None:
    settings: dict[str, Any] = {"image_shape": (14, 12), "views": 9, "plan": plan}
    A = fanbeam2d(**settings, source_to_axis=60.0, axis_to_detector=30.0) if fan else parallel2d(**settings)
    assert len(check_operator(A)) > 10
    assert plan in str(A.plan)


def test_what_is_no_number_stays_visible() -> None:
    A = parallel2d(image_shape=(16, 16), views=8)
    x = torch.zeros(16, 16)
    x[8, 8] = float("nan")
    assert bool(A(x).isnan().any())
    x[8, 8] = float("inf")
    assert not bool(A(x).isfinite().all())


def test_large_batches_need_no_more_memory_than_their_images(generator: torch.Generator) -> None:
    A = SCANS["parallel"]()
    x = A.domain.random(generator, (19,))  # three chunks, the last of another size
    torch.testing.assert_close(A(x)[18], A(x[18]), rtol=1e-5, atol=1e-4)
    y = A(x)
    torch.testing.assert_close(A.adjoint(y)[18], A.adjoint(y[18]), rtol=1e-5, atol=1e-3)


def test_folding_quarters_the_matrix() -> None:
    scan: dict[str, Any] = {"image_shape": (64, 64), "views": 180}
    folded, whole = parallel2d(**scan, plan="folded"), parallel2d(**scan, plan="matrix")
    for A in (folded, whole):
        A.adjoint(A(torch.ones(64, 64)))
    assert folded.plan.bytes_held < 0.26 * whole.plan.bytes_held
    assert parallel2d(**scan).plan.bytes_held < 0.02 * whole.plan.bytes_held


def test_matrices_are_kept_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, generator: torch.Generator) -> None:
    monkeypatch.setenv("PRIORLOOM_CACHE", str(tmp_path))
    scan: dict[str, Any] = {"image_shape": (20, 20), "views": 12, "plan": "folded"}
    A = parallel2d(**scan)
    x = A.domain.random(generator)
    y = A(x)
    (file,) = tmp_path.glob("*.npz")
    monkeypatch.setattr(weights, "ray_weights", lambda *_: pytest.fail("computed again"))
    assert torch.equal(parallel2d(**scan)(x), y)
    monkeypatch.undo()
    monkeypatch.setenv("PRIORLOOM_CACHE", str(tmp_path))
    # An index beyond the image would read foreign memory: such a file is made anew.
    with np.load(file) as stored:
        arrays = dict(stored)
    arrays["columns"][3] = 4000
    np.savez(file, **arrays)
    assert torch.equal(parallel2d(**scan)(x), y)
    file.write_bytes(file.read_bytes()[:500])
    assert torch.equal(parallel2d(**scan)(x), y)
    parallel2d(**{**scan, "views": 13})(x)
    assert len(list(tmp_path.glob("*.npz"))) == 2


def test_defaults_cover_the_image() -> None:
    A = parallel2d(image_shape=(256, 256), views=180)
    assert A.range.shape == (180, 365)
    for A in (parallel2d(image_shape=(40, 60), offset=5.0, views=24), fanbeam2d(image_shape=(40, 60), views=24, **FAN)):
        corners = torch.zeros(40, 60)
        corners[[0, 0, -1, -1], [0, -1, 0, -1]] = 1.0
        y = A(corners)
        assert bool((y.sum(-1) > 2).all()), "every view sees the corners"
        assert float(y[:, [0, -1]].abs().max()) == 0.0
    assert parallel2d(image_shape=(64, 64)).range.shape[0] == 101
    assert fanbeam2d(image_shape=(64, 64), **FAN).range.shape[0] == 202


def test_views_leave_out_the_end_of_the_arc() -> None:
    assert parallel2d(image_shape=(8, 8), views=4, arc_deg=180.0).geometry.angles_deg == (0.0, 45.0, 90.0, 135.0)


@pytest.mark.parametrize("built", [False, True])
def test_copies_work(built: bool, generator: torch.Generator) -> None:
    A = SCANS["parallel"]()
    x = A.domain.random(generator)
    if built:
        A(x), A.adjoint(A(x)), A.pseudo_inverse(A(x))
    for twin in (copy.deepcopy(A), pickle.loads(pickle.dumps(A))):
        assert torch.equal(twin(x), A(x))
    assert A.state_dict() == {}
    doubled = copy.deepcopy(A).double()
    torch.testing.assert_close(doubled(x.double()).float(), A(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (parallel2d, {"image_shape": (0, 8)}, "image_shape: expected two positive integers"),
        (parallel2d, {"pixel_size": 0.0}, "pixel_size: expected a positive number"),
        (parallel2d, {"pixel_size": float("nan")}, "pixel_size: expected a positive number"),
        (parallel2d, {"views": 0}, "views: expected at least 1"),
        (parallel2d, {"views": 3, "angles_deg": (0.0, 1.0)}, "views: expected 2"),
        (parallel2d, {"angles_deg": ()}, "angles_deg: expected at least one angle"),
        (parallel2d, {"angles_deg": (0.0, float("inf"))}, "angles_deg: expected at least one angle, all finite"),
        (parallel2d, {"arc_deg": -1.0}, "arc_deg: expected a positive number"),
        (parallel2d, {"detectors": 0}, "detectors: expected at least 1"),
        (parallel2d, {"detector_pitch": -1.0}, "detector_pitch: expected a positive number"),
        (parallel2d, {"offset": float("nan")}, "offset: expected a finite length"),
        (parallel2d, {"offset": 1e300}, "offset: expected a finite length in mm, got 1e+300"),
        (fanbeam2d, {"source_to_axis": 5.0, "axis_to_detector": 1.0}, "source_to_axis: expected more than 5.65685 mm"),
        (fanbeam2d, {"source_to_axis": float("inf"), "axis_to_detector": 1.0}, "source_to_axis: expected a finite"),
        (fanbeam2d, {"source_to_axis": 50.0, "axis_to_detector": -1.0}, "axis_to_detector: expected a length"),
    ],
)
def test_bad_parameters_are_refused(make: Callable[..., Any], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        make(**{"image_shape": (8, 8), **settings})
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_wrong_shape_is_refused() -> None:
    A = parallel2d(image_shape=(8, 8), views=3)
    with pytest.raises(InputError, match=r"expected shape \[\.\.\., 8, 8\], got \[8, 9\]"):
        A(torch.zeros(8, 9))


def test_too_many_weights_are_refused_before_they_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    A = parallel2d(image_shape=(4096, 4096), views=1001, plan="matrix")
    monkeypatch.setenv("PRIORLOOM_MEMORY_GIB", "8")
    monkeypatch.setattr(weights, "ray_weights", lambda *_: pytest.fail("computed"))
    with pytest.raises(
        InputError, match=r"weights of the ray transform: expected at most 8 GiB, got about 4\d\d GiB; use plan=m"
    ):
        A(torch.zeros(4096, 4096))


def test_the_estimate_of_weights_holds() -> None:
    for name in ("parallel", "parallel-oblong", "parallel-fine", "fan", "fan-arc"):
        A = RayTransform(SCANS[name]().geometry, "folded")
        expected = weights.expected_weights(A.geometry, len(A.plan.folding.bases_deg))
        assert 0.9 < A.plan.matrix.weights / expected < 1.1, name


@pytest.mark.parametrize("name", ["parallel", "parallel-fine", "fan"])
def test_the_cost_counts_the_weights(name: str) -> None:
    A = SCANS[name]()
    weights_of_all_views = RayTransform(A.geometry, "matrix").plan.matrix.weights
    assert A.cost("forward", 3).flops == pytest.approx(2 * 3 * weights_of_all_views, rel=0.1)
    assert A.cost("normal", 3).flops == 2 * A.cost("adjoint", 3).flops
    assert A.cost("forward", 1).bytes >= 4 * (A.domain.size + A.range.size)


def test_without_the_compiler_it_takes_the_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "has_kernels", lambda: False)
    assert parallel2d(image_shape=(8, 8), views=4).plan.name == "folded matrix"


def test_the_fastest_plan_is_found_by_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {"folded matrix": 3.0, "matrix": 2.0, "matrix-free": 4.0}
    monkeypatch.setattr(plans, "_seconds", lambda plan, x: seconds[plan.name])
    scan: dict[str, Any] = {"image_shape": (8, 8), "views": 4, "plan": "measured"}
    assert parallel2d(**scan).plan.name == "matrix"
    monkeypatch.undo()
    assert parallel2d(**scan).plan.name in seconds
    monkeypatch.setenv("PRIORLOOM_MEMORY_GIB", "1e-6")
    with pytest.raises(InputError, match=r"^memory of a parallel-beam scan, 8 x 8 pixels, 4 views, 13 detectors: exp"):
        _ = parallel2d(**scan).plan


@pytest.mark.parametrize("name", ["astra", "matrix-free"])
def test_a_plan_for_another_device_is_refused(name: PlanName) -> None:
    A = parallel2d(image_shape=(8, 8), views=4, plan=name)
    device = torch.device("cpu" if name == "astra" else "cuda")
    with pytest.raises(InputError, match=f"^plan {name}: expected tensors on .* got {device}; use plan=auto"):
        plans.ray_plan(A.geometry, name, torch.float32, device)


def test_missing_backend_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "astra", None)
    with pytest.raises(PriorloomError) as caught:
        parallel2d(image_shape=(8, 8), views=3, plan="matrix")(torch.zeros(8, 8))
    text = "the ray transform needs the package astra-toolbox; install it with pip install priorloom[ct]"
    assert str(caught.value) == text
