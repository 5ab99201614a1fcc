"""The ray transform: line integrals of an attenuation image, for parallel and fan beams."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from priorloom.errors import InputError
from priorloom.hooks import example
from priorloom.operator import LinearOperator
from priorloom.space import Space

from .fbp import Backprojection, filtered_backprojection
from .folding import Folding
from .geometry import Geometry, scan_geometry
from .sparse import BYTES_PER_WEIGHT, SparseMatrix
from .weights import expected_weights, ray_weights

MEMORY_BUDGET = 8 * 2**30
"""Bytes that the weights of one operator may take."""


class RayTransform(LinearOperator):
    """Line integrals: ``[..., rows, columns]`` in 1/mm to ``[..., views, detectors]``, dimensionless.

    The weights are ASTRA's on the CPU, Joseph's linear interpolation for parallel rays and intersection lengths for
    fans, as ODL uses them by default. They are computed when the operator is first applied (the direct method does
    without them), kept as one sparse matrix and its transpose, and applied to a whole batch in one product; the
    adjoint is the exact transpose. Views that differ by quarter turns share weights (``folding.Folding``).

    Parameters
    ----------
    geometry
        The scan.

    Raises
    ------
    InputError
        On first application, when the weights would exceed `MEMORY_BUDGET`.
    """

    def __init__(self, geometry: Geometry) -> None:
        super().__init__(Space(geometry.image_shape), Space((geometry.views, geometry.detectors)))
        self.geometry = geometry
        self.folding = Folding.of(geometry)
        # Tells the device before there are weights.
        self.register_buffer("angles", torch.deg2rad(torch.tensor(geometry.angles_deg)), persistent=False)
        self._weights: SparseMatrix | None = None
        self._backprojection: Backprojection | None = None

    @property
    def weights(self) -> SparseMatrix:
        """The matrix ``[base angles * detectors, rows * columns]``, computed on first use."""
        if self._weights is None:
            bytes_needed = 2 * BYTES_PER_WEIGHT * expected_weights(self.geometry, len(self.folding.bases_deg))
            if bytes_needed > MEMORY_BUDGET:
                raise InputError(
                    "weights of the ray transform", expected=f"at most {MEMORY_BUDGET / 2**30:.0f} GiB",
                    got=f"about {bytes_needed / 2**30:.1f} GiB", cure="use fewer views or larger pixels",
                )  # fmt: skip
            matrix = ray_weights(self.geometry, self.folding.bases_deg)
            self._weights = SparseMatrix(matrix, self.domain.dtype, self.device)
        return self._weights

    @property
    def backprojection(self) -> Backprojection:
        """The pixel-driven backprojection of filtered backprojection; not the adjoint."""
        if self._backprojection is None:
            made = Backprojection(self.geometry).to(self.device, self.domain.dtype)
            self._backprojection = made
        return self._backprojection

    def _forward(self, x: Tensor) -> Tensor:
        batch = self.domain.batch_shape(x)
        copies = self.folding.turned(x.reshape(-1, *self.domain.shape))
        rays = self.weights(copies.reshape(-1, self.domain.size))
        views = self.folding.to_views(rays.reshape(-1, *self.range.shape))
        return views.reshape(*batch, *self.range.shape)

    def _adjoint(self, y: Tensor) -> Tensor:
        batch = self.range.batch_shape(y)
        views = self.folding.from_views(y.reshape(-1, *self.range.shape))
        turns = len(self.folding.turns)
        pixels = self.weights.transposed(views.reshape(-1, self.range.size // turns))
        images = self.folding.turned_back(pixels.reshape(-1, turns, *self.domain.shape))
        return images.reshape(*batch, *self.domain.shape)

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

    Raises
    ------
    InputError
        For a parameter without meaning.
    """
    return RayTransform(
        scan_geometry(image_shape, pixel_size, views, angles_deg, arc_deg, detectors, detector_pitch, offset)
    )


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

    Raises
    ------
    InputError
        For a parameter without meaning, or a source inside the image.
    """
    if not math.isfinite(source_to_axis):
        raise InputError(
            "source_to_axis", expected="a finite length in mm", got=source_to_axis, cure="use ct.parallel2d"
        )
    return RayTransform(
        scan_geometry(
            image_shape, pixel_size, views, angles_deg, arc_deg, detectors, detector_pitch, offset,
            source_to_axis, axis_to_detector,
        )
    )  # fmt: skip
