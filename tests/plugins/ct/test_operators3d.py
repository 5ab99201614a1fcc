"""Cone-beam transforms against exact integrals along ODL's rays, against Joseph's definition, and as operators."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import astra.experimental
import numpy as np
import pytest
import scipy.ndimage
import torch
from torch import Tensor

from priorloom import Case, Registry, compare
from priorloom.errors import InputError, PluginError
from priorloom.operator import Gradient
from priorloom.reconstruction import Method
from priorloom.testing import check_operator
from priorloom_ct.operators import fanbeam2d, parallel2d
from priorloom_ct.operators3d import ConeTransform, conebeam3d, helical3d, parallel3d

from .conftest import Disc
from .scans3d import Ball, box_integrals, odl_rays

Relative = Callable[[Tensor, Tensor], float]
BEAM: dict[str, Any] = {"source_to_axis": 200.0, "axis_to_detector": 100.0}
SIZE: dict[str, Any] = {"image_shape": (36, 40, 44), "pixel_size": 1.3, "views": 14, **BEAM}
SCANS: dict[str, Callable[[], ConeTransform]] = {
    "circle": lambda: conebeam3d(**SIZE),
    "thick": lambda: conebeam3d(**{**SIZE, "image_shape": (20, 40, 44)}, slice_thickness=2.4, row_pitch=1.1),
    "thin": lambda: conebeam3d(**{**SIZE, "image_shape": (80, 40, 44)}, slice_thickness=0.6, detector_pitch=2.3),
    "offset": lambda: conebeam3d(**SIZE, offset=7.7, row_offset=-9.1),
    "short": lambda: conebeam3d(**SIZE, arc_deg=230.0),
    "magnified": lambda: conebeam3d(**{**SIZE, "source_to_axis": 80.0, "axis_to_detector": 160.0}),
    "virtual": lambda: conebeam3d(**{**SIZE, "axis_to_detector": 0.0}),
    "helix": lambda: helical3d(**SIZE, pitch=18.0, detector_shape=(22, 60)),
    "left-handed": lambda: helical3d(**SIZE, pitch=-25.0, arc_deg=900.0),
    "helix, from -200": lambda: helical3d(
        **{**SIZE, "views": None}, pitch=20.0, start_z=2.5, angles_deg=tuple(range(-200, 300, 31))
    ),
}


@pytest.mark.parametrize("name", SCANS)
def test_values_are_the_line_integrals_of_a_gaussian(name: str, relative: Relative) -> None:
    A, ball = SCANS[name](), Ball()
    image, exact = ball.gaussian(A.geometry)
    assert relative(A(image), exact) < 0.02  # widths of 3 to 10 voxels


def test_values_are_the_line_integrals_of_a_box(relative: Relative) -> None:
    A = SCANS["circle"]()
    x = torch.zeros(A.domain.shape)
    x[10:30, 5:17, 8:40] = 0.02
    size, (slices, rows, columns) = 1.3, A.domain.shape
    low = np.array([8 - columns / 2, rows / 2 - 17, 10 - slices / 2]) * size
    high = np.array([40 - columns / 2, rows / 2 - 5, 30 - slices / 2]) * size
    exact = box_integrals(A.geometry, low, high, 0.02)
    assert relative(A(x), exact) < 0.03
    rays = exact > 0.7 * exact.max()  # away from the edges, where one voxel matters
    assert relative(A(x)[rays], exact[rays]) < 0.02


@pytest.mark.parametrize("name", SCANS)
def test_values_are_joseph_s_sums(name: str, generator: torch.Generator, relative: Relative) -> None:
    """The definition, by SciPy's trilinear interpolation: a sample wherever a ray crosses the centres of rows or of
    columns, whichever it is steeper to, times the distance of samples."""
    A = SCANS[name]().double()
    x, geometry = A.domain.random(generator), A.geometry
    sources, elements = odl_rays(geometry)
    sources, elements = sources[:3], elements[:3]
    slices, rows, columns = A.domain.shape
    size = np.array([geometry.plane.pixel_size, -geometry.plane.pixel_size, geometry.slice_thickness])
    centre = (np.array([columns, rows, slices]) - 1) / 2
    start, along = sources / size + centre, (elements - sources) / size
    expected = np.zeros(sources.shape[:-1])
    for axis, steps in ((0, columns), (1, rows)):
        chosen = np.abs(along[..., axis]) >= np.abs(along[..., 1 - axis])
        chosen &= along[..., axis] != 0
        t = (np.arange(steps) - start[..., axis, None]) / np.where(chosen, along[..., axis], 1)[..., None]
        points = start[..., None, :] + t[..., None] * along[..., None, :]
        samples = scipy.ndimage.map_coordinates(
            x.numpy(), [points[..., 2], points[..., 1], points[..., 0]], order=1, mode="grid-constant"
        )
        distance = np.linalg.norm(along * size, axis=-1) / np.where(chosen, np.abs(along[..., axis]), 1)
        expected += np.where(chosen, samples.sum(-1) * distance, 0)
    found = A(x)[:3].numpy()
    wrong = np.abs(found - expected) > 1e-9 * np.abs(expected).max()
    ties = np.isclose(np.abs(along[..., 0]), np.abs(along[..., 1]), rtol=1e-9)  # either axis is right
    assert not (wrong & ~ties).any()


@pytest.mark.parametrize("name", SCANS)
def test_adjoint_is_the_exact_transpose(name: str, generator: torch.Generator) -> None:
    A = SCANS[name]()
    for B, bound in ((A, 1e-5), (copy.deepcopy(A).double(), 1e-13)):
        x, y = B.domain.random(generator), B.range.random(generator)
        ax, aty = B(x).double(), B.adjoint(y).double()
        gap = float((ax * y).sum() - (x * aty).sum()) / float(ax.norm() * y.double().norm())
        assert abs(gap) < bound


def test_64_cubed_is_matched_in_single_precision(generator: torch.Generator) -> None:
    A = conebeam3d(image_shape=(64, 64, 64), views=90, detector_shape=(96, 96), **BEAM)
    x, y = A.domain.random(generator), A(torch.ones(A.domain.shape))
    for u, v in ((x, y), (torch.ones(A.domain.shape), A.range.random(generator)), (x, A(x))):
        left, right = (A(u).double() * v).sum(), (u * A.adjoint(v).double()).sum()
        assert abs(float(left - right)) < 1e-5 * float(A(u).norm() * v.norm())


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_do_not_change_a_bit(threads: int, generator: torch.Generator) -> None:
    A = SCANS["helix"]()
    x, y = A.domain.random(generator), A.range.random(generator)
    expected, before = (A(x), A.adjoint(y)), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert torch.equal(A(x), expected[0])
        assert torch.equal(A.adjoint(y), expected[1])
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("make", [conebeam3d, helical3d, parallel3d])
def test_conformance(make: Callable[..., Any]) -> None:
    A = make(**make.__priorloom_example__)  # type: ignore[attr-defined]
    assert len(check_operator(A)) > 20


def test_the_middle_plane_is_the_fan_beam(disc: Disc) -> None:
    """A disc that is constant along z, seen by the middle row: both discretisations are as far from the truth."""
    plane = fanbeam2d(image_shape=(64, 64), pixel_size=1.4, views=24, detectors=111, detector_pitch=2.1, **BEAM)
    A = conebeam3d(
        image_shape=(3, 64, 64), pixel_size=1.4, views=24, detector_shape=(1, 111), detector_pitch=2.1, **BEAM
    )
    image, exact = disc.image(plane.geometry), disc.line_integrals(plane.geometry)
    fan, cone = plane(image), A(image.expand(3, 64, 64))[:, 0]
    errors = [float((y - exact).norm() / exact.norm()) for y in (fan, cone)]
    assert max(errors) < 0.03
    assert float((fan - cone).norm() / exact.norm()) < sum(errors)
    assert float((fan - cone).norm() / exact.norm()) < 0.02


def test_points_are_projected_to_where_astra_puts_them() -> None:
    """One voxel throws its shadow where ASTRA computes it, for ASTRA's own description of the scan."""
    A = conebeam3d(**{**SIZE, "views": 5}, detector_pitch=0.9, offset=3.3, row_offset=-2.2).double()
    plane, shape = A.geometry.plane, A.range.shape
    proj = astra.create_proj_geom(
        "cone", 0.9, 0.9, shape[1], shape[2], A.geometry.angles, plane.source_to_axis, plane.axis_to_detector
    )
    proj = astra.functions.geom_postalignment(proj, (-3.3 / 0.9, 2.2 / 0.9))
    place = (30, 9, 31)
    x = A.domain.zeros()
    x[place] = 1.0
    where = A.geometry.plane.x[place[2]], A.geometry.plane.y[place[1]], A.geometry.z[place[0]]
    y = A(x).numpy()
    for view in range(shape[0]):
        u, v = astra.experimental.projectPoint(proj, *where, view)
        mass = y[view] / y[view].sum()
        assert (mass.sum(0) * np.arange(shape[2])).sum() == pytest.approx(u, abs=0.1)
        assert (mass.sum(1) * np.arange(shape[1])).sum() == pytest.approx(v, abs=0.1)


def test_slices_are_a_batch_of_the_parallel_beam(generator: torch.Generator) -> None:
    A, plane = parallel3d(image_shape=(3, 20, 18), views=9), parallel2d(image_shape=(20, 18), views=9)
    x = A.domain.random(generator, (2,))
    y = A(x)
    assert tuple(y.shape) == (2, 3, *plane.range.shape)
    for k in range(3):
        torch.testing.assert_close(y[1, k], plane(x[1, k]))
        torch.testing.assert_close(A.pseudo_inverse(y)[0, k], plane.pseudo_inverse(y[0, k]))
    assert A.norm() == pytest.approx(plane.norm())


def test_pickled_and_in_double_precision(generator: torch.Generator, relative: Relative) -> None:
    A = SCANS["helix"]()
    x = A.domain.random(generator, (2,))
    B = pickle.loads(pickle.dumps(A)).double()
    assert relative(B(x.double()), A(x).double()) < 1e-5


@pytest.mark.parametrize("method", ["cgls", "tv-pdhg"])
def test_methods_of_two_dimensions_reconstruct_a_volume(method: str, generator: torch.Generator) -> None:
    A = conebeam3d(image_shape=(16, 20, 20), pixel_size=2.0, views=20, **BEAM)
    ball = Ball(radius=11.0, centre=(2.0, -3.0, 1.0), mu=0.02)
    truth = ball.image(A.geometry)
    y = A(truth) + 0.01 * A.range.random(generator)
    (result,) = compare([Case("ball", "ct", A, y, truth, 0.01)], [Method(method, {})], registry=Registry.discover())
    assert result.converged
    assert float((result.image - truth).norm() / truth.norm()) < 0.25
    assert Gradient(A.domain)(truth).shape == (3, 16, 20, 20)


def test_the_direct_method_is_fbp(generator: torch.Generator) -> None:
    A = conebeam3d(image_shape=(6, 10, 10), views=12, **BEAM)
    y = A.range.random(generator)
    (result,) = compare([Case("noise", "ct", A, y, None, 0.01)], [Method("fbp", {})], registry=Registry.discover())
    torch.testing.assert_close(result.image, A.pseudo_inverse(y), rtol=1e-4, atol=1e-6)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "plane": ({"image_shape": (8, 8)}, r"image_shape: expected three positive integers \(slices, rows, columns\)"),
    "empty": ({"image_shape": (0, 8, 8)}, "image_shape: expected three positive"),
    "source inside": ({"source_to_axis": 20.0}, "source_to_axis: expected more than 38.65"),
    "parallel": ({"source_to_axis": float("inf")}, "source_to_axis: .*use ct.parallel3d"),
    "row": ({"detector_shape": (40,)}, "detector_shape: expected two positive"),
    "thickness": ({"slice_thickness": -1.0}, "slice_thickness: expected"),
    "pitch of rows": ({"row_pitch": float("nan")}, "row_pitch: expected"),
    "row offset": ({"row_offset": float("inf")}, "row_offset: expected a length"),
    "no angles": ({"angles_deg": (), "views": None}, "angles_deg: expected at least one"),
    "views and angles": ({"angles_deg": (0.0, 1.0), "views": 3}, "views: expected 2"),
    "too steep": (
        {"detector_shape": (700, 60)},
        "outermost detector row: expected a rise of at most one slice.*cone angle of 66 degrees; use fewer",
    ),
    "slices too thin": (
        {"slice_thickness": 0.01, "detector_shape": (45, 60)},
        "outermost detector row: .*thicker slices",
    ),
    "too large": ({"image_shape": (4000, 4000, 4000), "source_to_axis": 1e5}, "at most 2147483648 entries each"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_scans_are_refused_in_one_line(name: str) -> None:
    changes, message = BAD[name]
    with pytest.raises(InputError, match=message) as error:
        conebeam3d(**{**SIZE, **changes})
    assert "\n" not in str(error.value)


def test_a_helix_has_a_pitch() -> None:
    for pitch in (0.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="pitch: expected a rise per turn in mm"):
            helical3d(**SIZE, pitch=pitch)


def test_what_does_not_fit_in_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRIORLOOM_MEMORY_GIB", "0.001")
    with pytest.raises(InputError, match=r"memory of the cone-beam transform: expected at most 1.02 MiB, got about"):
        SCANS["circle"]()
    monkeypatch.setenv("PRIORLOOM_MEMORY_GIB", "0.01")
    A = SCANS["circle"]()
    with pytest.raises(InputError, match=r"memory of a batch of cone-beam transforms: .*use a smaller batch"):
        A(torch.zeros(100, *A.domain.shape))


def test_a_missing_numba_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    A = SCANS["circle"]()
    monkeypatch.setitem(sys.modules, "numba", None)
    with pytest.raises(PluginError, match=r"the cone-beam transform needs the package numba; install it with pip"):
        A(A.domain.zeros())


def test_help_does_not_import_numba() -> None:
    code = "import sys, priorloom_ct.operators3d; print('numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
