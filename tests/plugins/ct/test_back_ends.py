"""One scan through every implementation at hand: line integrals, adjoint and filtered backprojection on one scale."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import odl
import odl.applications.tomo as tomo
import pytest
import torch
from odl.applications.tomo.analytic import fbp_op
from skimage.transform import iradon, radon

from priorloom_ct.geometry import Geometry
from priorloom_ct.operators import RayTransform, fanbeam2d, parallel2d
from priorloom_ct.plan import PlanName

from .conftest import Disc

Array = np.ndarray[Any, Any]
SIZE, PIXEL = 97, 0.8


@dataclass(frozen=True)
class BackEnd:
    forward: Callable[[Array], Array]
    adjoint: Callable[[Array], Array]
    fbp: Callable[[Array], Array]


def ours(geometry: Geometry, plan: PlanName) -> BackEnd:
    A = RayTransform(geometry, plan)
    return BackEnd(*(lambda x, f=f: f(torch.from_numpy(x)).numpy() for f in (A, A.adjoint, A.pseudo_inverse)))


def odl_astra(geometry: Geometry) -> BackEnd:
    half = SIZE * PIXEL / 2
    space = odl.uniform_discr([-half, -half], [half, half], (SIZE, SIZE), dtype="float32")
    A = tomo.RayTransform(space, geometry.to_odl(), impl="astra_cpu")
    inverse = fbp_op(A, padding=True)
    weights = A.domain.weighting.const / A.range.weighting.const
    return BackEnd(
        lambda x: A(space.element(np.rot90(x, -1).copy())).asarray(),
        lambda y: np.rot90(weights * A.adjoint(A.range.element(y)).asarray()),
        lambda y: np.rot90(inverse(A.range.element(y)).asarray()),
    )


def scikit_image(geometry: Geometry) -> BackEnd:
    # It rotates the image about the pixel n // 2, which is the centre of an odd one, and counts lengths in pixels.
    angles = np.asarray(geometry.angles_deg)
    own = len(radon(np.zeros((SIZE, SIZE)), [0.0], circle=False))

    def centred(views: Array, detectors: int) -> Array:
        before = detectors // 2 - views.shape[1] // 2
        after = detectors - views.shape[1] - before
        return np.pad(views, ((0, 0), (max(before, 0), max(after, 0))))[:, max(-before, 0) :][:, :detectors]

    return BackEnd(
        lambda x: PIXEL * centred(radon(x, angles, circle=False).T, geometry.detectors),
        lambda y: PIXEL * 2 * geometry.views / np.pi * iradon(
            centred(y, own).T, angles, SIZE, filter_name=None, circle=False
        ),
        lambda y: iradon(centred(y, own).T, angles, SIZE, filter_name="ramp", circle=False) / PIXEL,
    )  # fmt: skip


@pytest.mark.parametrize("beam", ["parallel", "fan"])
def test_back_ends_agree(beam: str, disc: Disc, capsys: pytest.CaptureFixture[str]) -> None:
    common: dict[str, Any] = {"image_shape": (SIZE, SIZE), "pixel_size": PIXEL, "views": 120}
    if beam == "parallel":
        A = parallel2d(**common, detectors=139)
    else:
        A = fanbeam2d(**common, source_to_axis=300.0, axis_to_detector=120.0)
    geometry = A.geometry
    ends = {f"priorloom {p}": ours(geometry, p) for p in ("matrix-free", "folded", "matrix")}
    ends["odl astra_cpu"] = odl_astra(geometry)
    if beam == "parallel":
        ends["scikit-image"] = scikit_image(geometry)
    image, exact = disc.image(geometry).numpy(), disc.line_integrals(geometry).numpy()
    inside = disc.image(geometry).numpy() > 0.99 * disc.mu
    middle = inside & (np.hypot(*np.meshgrid(geometry.x - disc.x, geometry.y - disc.y)) < 0.6 * disc.radius)
    reference = ends["priorloom matrix-free"].adjoint(exact)
    print(f"\n{beam} beam: relative error of the line integrals and of the adjoint, attenuation by FBP / exact")
    for name, end in ends.items():
        forward = np.linalg.norm(end.forward(image) - exact) / np.linalg.norm(exact)
        adjoint = np.linalg.norm(end.adjoint(exact) - reference) / np.linalg.norm(reference)
        level = end.fbp(exact)[middle].mean() / disc.mu
        print(f"{name:22s} {forward:8.4f} {adjoint:8.4f} {level:8.4f}")
        assert forward < 0.03, name
        assert adjoint < 0.02, name
        assert level == pytest.approx(1, abs=0.01), name
    table = capsys.readouterr().out
    assert table.count("\n") == len(ends) + 2
    with capsys.disabled():
        print(table, end="")
