"""Coil maps from non-Cartesian measurements."""

from __future__ import annotations

import torch
from torch import Tensor

from priorloom.errors import InputError

from .coils import espirit
from .nufft import NonCartesian
from .operators import fftc


def estimated_maps(A: NonCartesian, measurement: Tensor, *, calibration: int = 24, crop: float = 0.9) -> Tensor:
    """ESPIRiT maps, complex ``[coils, rows, columns]``, from a measurement whose trajectory covers the centre densely.

    The density-compensated coil images are transformed to a Cartesian grid, whose centre is the calibration data:
    radial and spiral trajectories sample it at the Nyquist distance or closer.

    Parameters
    ----------
    A
        The operator of the trajectory, in 2D and without maps.
    measurement
        ``[coils, *samples]``.
    calibration
        Width of the centre that is used, in samples of the Cartesian grid.
    crop
        Eigenvalue above which a pixel belongs to the object (see :func:`~priorloom_mri.coils.espirit`).

    Raises
    ------
    InputError
        An operator with maps or in 3D, or a measurement of one coil or another shape.
    """
    if not isinstance(A, NonCartesian) or A.maps is not None or A.domain.ndim != 2:
        raise InputError("operator for coil maps", expected="a 2D trajectory without maps", got=str(A))
    if measurement.ndim != A.range.ndim + 1:
        expected = f"[coils, {', '.join(map(str, A.range.shape))}]"
        raise InputError("measurement for coil maps", expected=expected, got=list(measurement.shape))
    with torch.no_grad():
        images = A.pseudo_inverse(measurement)
        rows, columns = A.domain.shape
        width = min(calibration, rows), min(calibration, columns)
        return espirit(fftc(images), calibration=width, crop=crop)
