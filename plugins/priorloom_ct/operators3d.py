"""The ray transform of volumes: slices in parallel beams, cone beams on circles and helices."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from priorloom.cost import Cost, Operation
from priorloom.errors import InputError
from priorloom.hooks import example
from priorloom.operator import LinearOperator
from priorloom.space import Space

from .fdk import ConeBackprojection, fdk
from .geometry import SENSIBLE
from .geometry3d import ConeGeometry, cone_geometry
from .operators import RayTransform, parallel2d
from .plan import Plan, PlanName
from .plans3d import ConePlanName, cone_plan


class SliceTransform(LinearOperator):
    """The same 2D operator on every slice: ``[..., slices, rows, columns]`` to ``[..., slices, views, detectors]``.

    Parameters
    ----------
    plane
        The operator on one slice; the slices are a batch to it.
    slices
        Their number.
    """

    def __init__(self, plane: RayTransform, slices: int) -> None:
        super().__init__(
            Space((slices, *plane.domain.shape), plane.domain.dtype),
            Space((slices, *plane.range.shape), plane.range.dtype),
        )
        self.plane = plane

    def _forward(self, x: Tensor) -> Tensor:
        return self.plane._forward(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.plane._adjoint(y)

    def _pseudo_inverse(self, y: Tensor) -> Tensor:
        return self.plane.pseudo_inverse(y)

    def norm_bounds(self, tolerance: float = 1e-3) -> tuple[float, float]:
        """That of one slice."""
        return self.plane.norm_bounds(tolerance)


class ConeTransform(LinearOperator):
    """Line integrals: ``[..., slices, rows, columns]`` in 1/mm to ``[..., views, detector rows, detector columns]``.

    Joseph's interpolation, computed in every application from the geometry. On the CPU the adjoint is the exact
    transpose; on CUDA it is ASTRA's backprojection, which is near it (``astra_cuda``).

    Parameters
    ----------
    geometry
        The scan.
    plan
        How it is computed, see ``plans3d.cone_plan``.

    Raises
    ------
    InputError
        On first application, when the plan does not fit the device.
    """

    def __init__(self, geometry: ConeGeometry, plan: ConePlanName = "auto") -> None:
        super().__init__(Space(geometry.image_shape), Space(geometry.range_shape))
        self.geometry = geometry
        self.wanted_plan = plan
        # Tells the device.
        self.register_buffer("angles", torch.from_numpy(geometry.angles).float(), persistent=False)
        self._plan: Plan | None = None
        self._planned_for: str | None = None
        self._backprojection: ConeBackprojection | None = None

    @property
    def plan(self) -> Plan:
        """How it is computed here: its name, and in words by ``str``; made on first use."""
        if self._plan is None or self._planned_for != self.device.type:
            self._plan = cone_plan(self.geometry, self.wanted_plan, self.device)
            self._planned_for = self.device.type
        return self._plan

    @property
    def backprojection(self) -> ConeBackprojection:
        """The voxel-driven backprojection of the direct method; not the adjoint."""
        if self._backprojection is None:
            self._backprojection = ConeBackprojection(self.geometry).to(self.device, self.domain.dtype)
        return self._backprojection

    def _forward(self, x: Tensor) -> Tensor:
        views: Tensor = self.plan(x.reshape(-1, *self.domain.shape))
        return views.reshape(*self.domain.batch_shape(x), *self.range.shape)

    def _adjoint(self, y: Tensor) -> Tensor:
        volumes = self.plan.adjoint(y.reshape(-1, *self.range.shape))
        return volumes.reshape(*self.range.batch_shape(y), *self.domain.shape)

    def cost(self, operation: Operation, batch: int) -> Cost:
        """Four weights where a ray crosses a sheet of voxels, a multiplication and an addition each; data moved once.

        A ray crosses about one sheet for every 1.1 voxels of its way (the mean of max(|cos|, |sin|) over the angles is
        0.9), and the rays of a view cover the volume as often as they are denser than voxels at the axis.
        """
        g, voxels = self.geometry, self.domain.size
        plane = g.plane
        denser = plane.pixel_size * g.slice_thickness * plane.magnification**2 / (plane.detector_pitch * g.row_pitch)
        crossings = min(0.9 * voxels * denser * plane.views, self.range.size * float(max(self.domain.shape[1:])))
        passes = 2 if operation == "normal" else 1
        values = batch * (voxels + self.range.size) * self.domain.dtype.itemsize
        return Cost(8.0 * crossings * batch * passes, float(passes * values))

    def _pseudo_inverse(self, y: Tensor) -> Tensor:
        return fdk(self.backprojection, y)

    def extra_repr(self) -> str:
        """Path of the source and sizes."""
        path = f"helix of pitch {self.geometry.pitch:g} mm" if self.geometry.pitch else "circle"
        return f"cone beam on a {path}, volume {self.domain.shape}, measurement {self.range.shape}"


@example(image_shape=(3, 14, 12), views=9)
def parallel3d(
    *,
    image_shape: tuple[int, int, int],
    pixel_size: float = 1.0,
    views: int | None = None,
    angles_deg: tuple[float, ...] | None = None,
    arc_deg: float = 180.0,
    detectors: int | None = None,
    detector_pitch: float | None = None,
    offset: float = 0.0,
    plan: PlanName = "auto",
) -> SliceTransform:
    """The ray transform of a stack of slices in parallel beams, one detector row for each slice.

    Parameters
    ----------
    image_shape
        Slices, rows and columns of the volume.
    pixel_size
        Side of a pixel in mm.
    views
        Number of views, spread evenly over ``[0, arc_deg)``; as many as resolve a slice when absent.
    angles_deg
        The view angles in degrees instead.
    arc_deg
        The arc of `views` in degrees, without its end point.
    detectors
        Number of detector elements in a row; as many as cover a slice's diagonal when absent.
    detector_pitch
        Their spacing in mm; the pixel size when absent.
    offset
        Shift of the rotation axis on the detector from the detector's centre, in mm towards higher elements.
    plan
        How a slice is computed, as in ct.parallel2d.

    Raises
    ------
    InputError
        For a parameter without meaning.
    """
    if len(image_shape) != 3 or min(image_shape) < 1:
        raise InputError(
            "image_shape", expected="three positive integers (slices, rows, columns)", got=tuple(image_shape)
        )
    plane = parallel2d(
        image_shape=image_shape[1:], pixel_size=pixel_size, views=views, angles_deg=angles_deg, arc_deg=arc_deg,
        detectors=detectors, detector_pitch=detector_pitch, offset=offset, plan=plan,
    )  # fmt: skip
    return SliceTransform(plane, image_shape[0])


@example(image_shape=(6, 8, 7), views=7, source_to_axis=40.0, axis_to_detector=20.0, detector_shape=(7, 11))
def conebeam3d(
    *,
    image_shape: tuple[int, int, int],
    source_to_axis: float,
    axis_to_detector: float,
    pixel_size: float = 1.0,
    slice_thickness: float | None = None,
    views: int | None = None,
    angles_deg: tuple[float, ...] | None = None,
    arc_deg: float = 360.0,
    detector_shape: tuple[int, int] | None = None,
    detector_pitch: float | None = None,
    row_pitch: float | None = None,
    offset: float = 0.0,
    row_offset: float = 0.0,
    plan: ConePlanName = "auto",
) -> ConeTransform:
    """The ray transform of a cone-beam scan on a circle, with a flat detector.

    Parameters
    ----------
    image_shape
        Slices, rows and columns of the volume.
    source_to_axis, axis_to_detector
        Distances from the rotation axis to the source and to the detector, in mm.
    pixel_size
        Side of a pixel in mm.
    slice_thickness
        Distance of the slices in mm; the pixel size when absent.
    views
        Number of views, spread evenly over ``[0, arc_deg)``; as many as resolve a slice when absent.
    angles_deg
        The view angles in degrees instead.
    arc_deg
        The arc of `views` in degrees, without its end point.
    detector_shape
        Rows and columns of the detector; as many as the volume's shadow needs when absent.
    detector_pitch
        Spacing of the detector's columns in mm on the detector; the magnified pixel size when absent.
    row_pitch
        Spacing of its rows; that of the columns when absent.
    offset
        Shift of the projected rotation axis from the detector's centre, in mm on the detector towards higher columns.
    row_offset
        Shift of the source's plane from the detector's centre, in mm on the detector towards higher rows.
    plan
        How it is computed: "matrix-free" on the CPU, "astra" on CUDA.

    Raises
    ------
    InputError
        For a parameter without meaning, a source inside the volume's cylinder, rays too steep for the slices, or sizes
        beyond the memory.
    """
    geometry = cone_geometry(
        image_shape, pixel_size, slice_thickness, views, angles_deg, arc_deg, detector_shape, detector_pitch, row_pitch,
        offset, row_offset, source_to_axis, axis_to_detector,
    )  # fmt: skip
    return ConeTransform(geometry, plan)


@example(
    image_shape=(5, 8, 7), views=17, source_to_axis=40.0, axis_to_detector=20.0, detector_shape=(6, 11), pitch=4.0,

)  # fmt: skip
def helical3d(
    *,
    image_shape: tuple[int, int, int],
    source_to_axis: float,
    axis_to_detector: float,
    pitch: float,
    pixel_size: float = 1.0,
    slice_thickness: float | None = None,
    views: int | None = None,
    angles_deg: tuple[float, ...] | None = None,
    arc_deg: float | None = None,
    detector_shape: tuple[int, int] | None = None,
    detector_pitch: float | None = None,
    row_pitch: float | None = None,
    offset: float = 0.0,
    row_offset: float = 0.0,
    start_z: float | None = None,
    plan: ConePlanName = "auto",
) -> ConeTransform:
    """The ray transform of a helical cone-beam scan with a flat detector.

    Parameters
    ----------
    image_shape
        Slices, rows and columns of the volume.
    source_to_axis, axis_to_detector
        Distances from the rotation axis to the source and to the detector, in mm.
    pitch
        Rise of source and detector in a turn (counter-clockwise), in mm at the axis; negative for a left-handed helix.
    pixel_size
        Side of a pixel in mm.
    slice_thickness
        Distance of the slices in mm; the pixel size when absent.
    views
        Number of views in all turns, spread evenly over ``[0, arc_deg)``; as many as resolve a slice when absent.
    angles_deg
        The view angles in degrees instead, beyond 360 in further turns.
    arc_deg
        The arc of `views` in degrees; when absent, as long as the source needs from the lowest slice to the highest,
        and 420 degrees more.
    detector_shape
        Rows and columns of the detector; as many as one and a half turns' rise in the volume's shadow need when absent.
    detector_pitch
        Spacing of the detector's columns in mm on the detector; the magnified pixel size when absent.
    row_pitch
        Spacing of its rows; that of the columns when absent.
    offset
        Shift of the projected rotation axis from the detector's centre, in mm on the detector towards higher columns.
    row_offset
        Shift of the source's plane from the detector's centre, in mm on the detector towards higher rows.
    start_z
        Height of the source at the angle zero in mm; when absent, the helix is centred on the volume.
    plan
        How it is computed: "matrix-free" on the CPU, "astra" on CUDA.

    Raises
    ------
    InputError
        For a parameter without meaning, a source inside the volume's cylinder, rays too steep for the slices, or sizes
        beyond the memory.
    """
    if not (math.isfinite(pitch) and abs(pitch) >= SENSIBLE[0]):
        raise InputError("pitch", expected="a rise per turn in mm, not zero", got=pitch, cure="use ct.conebeam3d")
    if arc_deg is None:
        thickness = pixel_size if slice_thickness is None else slice_thickness
        arc_deg = 360 * image_shape[0] * thickness / abs(pitch) + 420
    geometry = cone_geometry(
        image_shape, pixel_size, slice_thickness, views, angles_deg, arc_deg, detector_shape, detector_pitch, row_pitch,
        offset, row_offset, source_to_axis, axis_to_detector, pitch, start_z,
    )  # fmt: skip
    return ConeTransform(geometry, plan)
