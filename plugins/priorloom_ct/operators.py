"""The ray transform: line integrals of an attenuation image, for parallel and fan beams."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from priorloom.cost import Cost, Operation
from priorloom.errors import InputError
from priorloom.hooks import example
from priorloom.operator import LinearOperator
from priorloom.space import Space

from .fbp import Backprojection, filtered_backprojection
from .geometry import Geometry, scan_geometry
from .plan import Plan, PlanName, ray_plan
from .weights import expected_weights


class RayTransform(LinearOperator):
    """Line integrals: ``[..., rows, columns]`` in 1/mm to ``[..., views, detectors]``, dimensionless.

    The weight of a pixel on a ray is Joseph's linear interpolation for parallel rays (Joseph, IEEE Trans. Med. Imaging
    1, 1982) and the length of the intersection for fans (Siddon, Med. Phys. 12, 1985), as ODL uses them by default. The
    adjoint is the exact transpose, but for the plan "astra". Views that are turns and reflections of each other share
    their rays (``symmetry.Folding``).

    Parameters
    ----------
    geometry
        The scan.
    plan
        How it is computed, see ``plan.ray_plan``: the weights are the same in all plans but "astra".

    Raises
    ------
    InputError
        On first application, when the plan does not fit the device or its memory.
    """

    def __init__(self, geometry: Geometry, plan: PlanName = "auto") -> None:
        super().__init__(Space(geometry.image_shape), Space((geometry.views, geometry.detectors)))
        self.geometry = geometry
        self.wanted_plan = plan
        self.timed = plan == "measured"
        # Tells the device before there are weights.
        self.register_buffer("angles", torch.deg2rad(torch.tensor(geometry.angles_deg)), persistent=False)
        self._plan: Plan | None = None
        self._planned_for: tuple[str, torch.dtype] | None = None
        self._backprojection: Backprojection | None = None

    @property
    def plan(self) -> Plan:
        """How it is computed here: its name, its size, in words by ``str``; made on first use."""
        here = self.device.type, self.domain.dtype
        plan = self._plan
        if plan is None or self._planned_for != here:
            self._plan = plan = None  # the old one goes first: it may be large
            plan = ray_plan(self.geometry, self.wanted_plan, self.domain.dtype, self.device)
            self._plan, self._planned_for = plan, here
        return plan

    @property
    def backprojection(self) -> Backprojection:
        """The pixel-driven backprojection of filtered backprojection; not the adjoint."""
        if self._backprojection is None:
            made = Backprojection(self.geometry).to(self.device, self.domain.dtype)
            self._backprojection = made
        return self._backprojection

    def _forward(self, x: Tensor) -> Tensor:
        views: Tensor = self.plan(x.reshape(-1, *self.domain.shape))
        return views.reshape(*self.domain.batch_shape(x), *self.range.shape)

    def _adjoint(self, y: Tensor) -> Tensor:
        images = self.plan.adjoint(y.reshape(-1, *self.range.shape))
        return images.reshape(*self.range.batch_shape(y), *self.domain.shape)

    def cost(self, operation: Operation, batch: int) -> Cost:
        """What the weights demand however they are found: a multiplication and an addition each, for every image.

        The data are moved once, and the plan's tables once for as many images as it computes together.
        """
        passes = 2 if operation == "normal" else 1
        weights = expected_weights(self.geometry, self.geometry.views)
        values = batch * (self.domain.size + self.range.size) * self.domain.dtype.itemsize
        tables = math.ceil(batch / self.plan.images_at_once) * self.plan.bytes_read
        return Cost(2.0 * weights * batch * passes, float(passes * (values + tables)))

    def _pseudo_inverse(self, y: Tensor) -> Tensor:
        return filtered_backprojection(self, y)

    def extra_repr(self) -> str:
        """Beam and sizes."""
        beam = "parallel" if self.geometry.is_parallel else "fan"
        return f"{beam} beam, image {self.domain.shape}, sinogram {self.range.shape}"


@example(image_shape=(14, 12), views=9)
def parallel2d(
    *,
    image_shape: tuple[int, int],
    pixel_size: float = 1.0,
    views: int | None = None,
    angles_deg: tuple[float, ...] | None = None,
    arc_deg: float = 180.0,
    detectors: int | None = None,
    detector_pitch: float | None = None,
    offset: float = 0.0,
    plan: PlanName = "auto",
) -> RayTransform:
    """The ray transform of a parallel-beam scan.

    Parameters
    ----------
    image_shape
        Rows and columns of the image.
    pixel_size
        Side of a pixel in mm.
    views
        Number of views, spread evenly over ``[0, arc_deg)``; as many as resolve the image when absent (pi/2 per
        column and half turn).
    angles_deg
        The view angles in degrees instead.
    arc_deg
        The arc of `views` in degrees, without its end point.
    detectors
        Number of detector elements; as many as cover the image's diagonal when absent.
    detector_pitch
        Their spacing in mm; the pixel size when absent.
    offset
        Shift of the rotation axis on the detector from the detector's centre, in mm towards higher elements.
    plan
        How it is computed: "matrix-free" (CPU), by the "folded" matrix or the whole "matrix", by "astra" (CUDA; near
        the adjoint only), by what turns out fastest when "measured" here, or by what usually is ("auto").

    Raises
    ------
    InputError
        For a parameter without meaning.
    """
    geometry = scan_geometry(image_shape, pixel_size, views, angles_deg, arc_deg, detectors, detector_pitch, offset)
    return RayTransform(geometry, plan)


@example(image_shape=(14, 12), views=9, source_to_axis=60.0, axis_to_detector=30.0)
def fanbeam2d(
    *,
    image_shape: tuple[int, int],
    source_to_axis: float,
    axis_to_detector: float,
    pixel_size: float = 1.0,
    views: int | None = None,
    angles_deg: tuple[float, ...] | None = None,
    arc_deg: float = 360.0,
    detectors: int | None = None,
    detector_pitch: float | None = None,
    offset: float = 0.0,
    plan: PlanName = "auto",
) -> RayTransform:
    """The ray transform of a fan-beam scan with a flat detector.

    Parameters
    ----------
    image_shape
        Rows and columns of the image.
    source_to_axis, axis_to_detector
        Distances from the rotation axis to the source and to the detector, in mm.
    pixel_size
        Side of a pixel in mm.
    views
        Number of views, spread evenly over ``[0, arc_deg)``; as many as resolve the image when absent.
    angles_deg
        The view angles in degrees instead.
    arc_deg
        The arc of `views` in degrees, without its end point.
    detectors
        Number of detector elements; as many as the image's shadow needs when absent.
    detector_pitch
        Their spacing in mm on the detector; the magnified pixel size when absent.
    offset
        Shift of the projected rotation axis from the detector's centre, in mm on the detector towards higher
        elements.
    plan
        How it is computed: "matrix-free" (CPU), by the "folded" matrix or the whole "matrix", by "astra" (CUDA; near
        the adjoint only), by what turns out fastest when "measured" here, or by what usually is ("auto").

    Raises
    ------
    InputError
        For a parameter without meaning, or a source inside the image.
    """
    if not math.isfinite(source_to_axis):
        raise InputError(
            "source_to_axis", expected="a finite length in mm", got=source_to_axis, cure="use ct.parallel2d"
        )
    geometry = scan_geometry(
        image_shape, pixel_size, views, angles_deg, arc_deg, detectors, detector_pitch, offset, source_to_axis,
        axis_to_detector,
    )  # fmt: skip
    return RayTransform(geometry, plan)
