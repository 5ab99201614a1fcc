"""What ``priorloom bench`` runs of CT: cases of the ray transforms, and the implementations they are compared with."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from priorloom.bench import BenchmarkCase, OperatorBenchmark, Peer, Timed
from priorloom.errors import InputError
from priorloom.operator import LinearOperator

from .backends import backend
from .geometry import Geometry
from .geometry3d import ConeGeometry
from .odl_adapter import diagonal_weight

Turn = Callable[[Tensor], Tensor]


def parallel2d() -> OperatorBenchmark:
    """The 2D parallel ray transform beside ODL with ASTRA, and scikit-image."""
    lodopab = BenchmarkCase(
        "LoDoPaB: 362x362, 1000 views, 513 detectors",
        {"image_shape": (362, 362), "pixel_size": 0.718, "views": 1000, "detectors": 513, "detector_pitch": 0.718},
    )
    common = {"image_shape": (256, 256), "views": 180, "detectors": 365}
    cases = (BenchmarkCase("256x256, 180 views, 365 detectors", common, (1, 16)), lodopab)
    return OperatorBenchmark("ct.parallel2d", cases, {"odl-astra": odl_astra, "scikit-image": scikit_image})


def fanbeam2d() -> OperatorBenchmark:
    """The 2D fan-beam ray transform beside ODL with ASTRA."""
    htc: dict[str, Any] = {
        "image_shape": (512, 512), "pixel_size": 0.1483, "angles_deg": tuple(k / 2 for k in range(721)),
        "detectors": 560, "detector_pitch": 0.2, "source_to_axis": 410.66, "axis_to_detector": 553.74 - 410.66,
    }  # fmt: skip
    case = BenchmarkCase("HTC 2022: 512x512, 721 views, 560 detectors", htc)
    return OperatorBenchmark("ct.fanbeam2d", (case,), {"odl-astra": odl_astra, "scikit-image": scikit_image})


def conebeam3d() -> OperatorBenchmark:
    """The cone-beam transform beside ODL with ASTRA, which has it on CUDA only."""
    parameters: dict[str, Any] = {
        "image_shape": (64, 64, 64), "views": 90, "detector_shape": (96, 96), "detector_pitch": 1.5,
        "source_to_axis": 200.0, "axis_to_detector": 100.0,
    }  # fmt: skip
    case = BenchmarkCase("64x64x64, 90 views of 96x96", parameters)
    return OperatorBenchmark("ct.conebeam3d", (case,), {"odl-astra": odl_astra_cone})


def odl_astra(A: LinearOperator) -> Peer:
    """ODL's RayTransform of the same scan, by ASTRA on the CPU (on CUDA where the operator is there)."""
    odl, tomo = backend("odl", "this peer"), backend("odl.applications.tomo", "this peer")
    geometry = _planar(A)
    if geometry.offset and geometry.is_parallel:
        raise InputError("scan for odl", expected="no offset (odl 1.0 drops it)", got=f"offset {geometry.offset} mm")
    half = [n * geometry.pixel_size / 2 for n in reversed(geometry.image_shape)]
    space = odl.uniform_discr([-h for h in half], half, geometry.image_shape[::-1], dtype="float32")
    impl = "astra_cuda" if A.device.type == "cuda" else "astra_cpu"
    transform = tomo.RayTransform(space, geometry.to_odl(), impl=impl)
    # ODL's first axis is x, its second y, which points up.
    return _odl_peer(transform, lambda x: torch.rot90(x, -1), lambda x: torch.rot90(x, 1), lambda y: y, impl)


def odl_astra_cone(A: LinearOperator) -> Peer:
    """ODL's RayTransform of the same cone-beam scan, by ASTRA on CUDA."""
    odl, tomo = backend("odl", "this peer"), backend("odl.applications.tomo", "this peer")
    scan = getattr(A, "geometry", None)
    if not isinstance(scan, ConeGeometry):
        raise InputError("scan for this peer", expected="a cone beam", got=type(A).__name__)
    if not backend("astra", "this peer").use_cuda():
        raise InputError("ASTRA's cone beam", expected="a CUDA GPU (it has none for the CPU)", got="none here")
    g, angles = scan.plane, scan.angles
    slices, rows, columns = scan.image_shape
    sizes = columns * g.pixel_size / 2, rows * g.pixel_size / 2, slices * scan.slice_thickness / 2
    space = odl.uniform_discr([-h for h in sizes], sizes, (columns, rows, slices), dtype="float32")
    half = np.array([g.detectors * g.detector_pitch / 2, scan.detector_rows * scan.row_pitch / 2])
    shift = np.array([g.offset, scan.row_offset])
    geometry = tomo.ConeBeamGeometry(
        odl.nonuniform_partition(angles, min_pt=angles[0] - 1e-3, max_pt=angles[-1] + 1e-3),
        odl.uniform_partition(-half - shift, half - shift, (g.detectors, scan.detector_rows)),
        g.source_to_axis, g.axis_to_detector, pitch=scan.pitch, offset_along_axis=scan.start_z, check_bounds=False,
    )  # fmt: skip
    transform = tomo.RayTransform(space, geometry, impl="astra_cuda")
    return _odl_peer(
        transform,
        lambda x: x.flip(-2).permute(2, 1, 0),
        lambda x: x.permute(2, 1, 0).flip(-2),
        lambda y: y.transpose(-1, -2),
        "astra_cuda",
    )


def _odl_peer(transform: Any, to_odl: Turn, from_odl: Turn, data: Turn, impl: str) -> Peer:
    """`to_odl` and `from_odl` order the axes of an image, `data` those of a measurement, both ways."""
    space, adjoint = transform.domain, transform.adjoint
    before, after = diagonal_weight(transform.range), diagonal_weight(space)

    def forward(x: Tensor) -> Timed:
        image = space.element(to_odl(x.cpu()).numpy().copy())
        return Timed(lambda: transform(image), lambda result: data(torch.from_numpy(np.array(result.asarray()))))

    def back(y: Tensor) -> Timed:
        sinogram = transform.range.element((data(y.cpu()).numpy() / before).astype(np.float32))
        # ODL's adjoint belongs to weighted inner products; ours is the transpose.
        return Timed(
            lambda: adjoint(sinogram), lambda result: from_odl(torch.from_numpy(np.array(after * result.asarray())))
        )

    return Peer(forward, back, note=f"ODL RayTransform, {impl}, one image at a time")


def scikit_image(A: LinearOperator) -> Peer:
    """scikit-image's ``radon`` and unfiltered ``iradon``, which rotate the image and interpolate."""
    transform = backend("skimage.transform", "this peer")
    g = _planar(A)
    rows, columns = g.image_shape
    wanted = "parallel rays, a square image, no offset and detectors as wide as pixels"
    if not g.is_parallel or rows != columns or g.offset or not math.isclose(g.detector_pitch, g.pixel_size):
        raise InputError("scan for scikit-image", expected=wanted, got="another scan")
    angles = np.asarray(g.angles_deg)
    diagonal = math.ceil(math.sqrt(2) * rows)  # what it pads the image to

    def forward(x: Tensor) -> Timed:
        image = x.cpu().numpy()

        def data(result: Any) -> Tensor:
            return g.pixel_size * _centred(torch.from_numpy(result.T.copy()), g.detectors)

        return Timed(lambda: transform.radon(image, theta=angles, circle=False), data)

    def back(y: Tensor) -> Timed:
        sinogram = _centred(y.cpu(), diagonal).numpy().T.copy()
        # It averages over the views, times pi / 2.
        scale = g.pixel_size * 2 * g.views / math.pi

        def call() -> Any:
            return transform.iradon(sinogram, theta=angles, filter_name=None, circle=False, output_size=rows)

        return Timed(call, lambda image: scale * torch.from_numpy(image.copy()))

    note = "rotates and interpolates; iradon is close to the adjoint of its radon, not equal"
    return Peer(forward, back, note=note)


def _centred(sinogram: Tensor, detectors: int) -> Tensor:
    """`sinogram` padded with zeros or cut to so many detectors, the element n // 2 kept in its place."""
    own = sinogram.shape[-1]
    before = detectors // 2 - own // 2
    after = detectors - own - before
    return torch.nn.functional.pad(sinogram, (before, after))


def _planar(A: LinearOperator) -> Geometry:
    geometry = getattr(A, "geometry", None)
    if not isinstance(geometry, Geometry):
        raise InputError("scan for this peer", expected="one slice", got=type(A).__name__)
    return geometry
