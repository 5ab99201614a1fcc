"""The CT modality: units, normalisation, noise estimate, metrics convention and simulated cases."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from priorloom.errors import InputError, PluginError
from priorloom.modality import Case, Modality, Reading, Training, sizes
from priorloom.operator import LinearOperator
from priorloom.stored import StoredSlice, stored_slices, subject_of

from .backends import backend
from .operators import RayTransform
from .phantoms import foam, random_ellipses, shepp_logan
from .simulate import MU_WATER, from_hounsfield, photon_noise
from .training import PHANTOMS, simulator, water

if TYPE_CHECKING:
    from priorloom.registry import Registry

METHODS = ("fbp", "tikhonov", "tv-pdhg", "wavelet-fista", "pnp-admm", "pnp-hqs", "red-accelerated")

PIXEL_LIMIT = 2**24
"""Pixels of a simulated image."""

HOUNSFIELD = Reading(
    "HU",
    1000 / MU_WATER,
    -1000.0,
    {"soft tissue": (-160, 240), "lung": (-1350, 150), "bone": (-500, 1500), "brain": (0, 80)},
)
"""Levels and widths in clinical use: 40/400, -600/1500, 500/2000 and 40/80."""

SHIFTS: Mapping[str, Mapping[str, Any]] = {
    "less dose": {"case.photons": 1e4},
    "more dose": {"case.photons": 1e6},
    "fewer views": {"operator.views": 30},
    "shorter arc": {"operator.arc_deg": 150.0},
    "other anatomy": {"case.images": ("shepp-logan",), "case.files": ()},
}

CaseImage = Literal["ct-small", "foam", "shepp-logan", "ellipses"]


def ct() -> Modality:
    """X-ray computed tomography: attenuation images in 1/mm, sinograms of line integrals."""
    return Modality(
        "ct", "X-ray CT", "1/mm", METHODS, scale, noise_std, data_range, lambda image: image, cases,
        Training(lambda hu, _: from_hounsfield(hu), PHANTOMS, water, simulator), describe, HOUNSFIELD,
        SHIFTS,
    )  # fmt: skip


def scale(case: Case) -> float:
    """The attenuation of water, so that water is 1 inside.

    A physical constant rather than a statistic of the scan: the same tissue looks the same to a prior or a network in
    every scan, whatever else is in the field of view. Acrylic in the HTC 2022 scans (45 kV) comes out near 2.
    """
    return MU_WATER


def noise_std(case: Case) -> float:
    """Noise level from fourth differences along the detector.

    Their standard deviation is sqrt(70) times that of white noise, a smooth sinogram has almost none, and the median
    absolute deviation ignores the few large ones that edges make. Only rays through the object (above a tenth of the
    largest value) are looked at, where there are any, since most of the noise is there. Where edges are everywhere,
    as in a foam, it is too large.
    """
    y = case.measurement.double()
    differences = y.diff(n=4, dim=-1).abs()
    through = y[..., 2:-2] > 0.1 * y.amax()
    chosen = differences[through] if int(through.sum()) > 100 else differences.flatten()
    return float(chosen.median()) / 0.6745 / math.sqrt(70) if chosen.numel() else 0.0


def data_range(truth: Tensor) -> float:
    """Maximum minus minimum of the truth."""
    return float(truth.max() - truth.min())


def describe(operator: LinearOperator) -> dict[str, float | str]:
    """The geometry: views, the arc between the first and the last (and one step more), beam, detector, pixels."""
    facts = sizes(operator)
    if not isinstance(operator, RayTransform):
        return facts
    geometry = operator.geometry
    angles = np.sort(geometry.angles_deg)
    step = float(np.median(np.diff(angles))) if len(angles) > 1 else 0.0
    facts |= {
        "views": geometry.views,
        "arc [deg]": round(float(angles[-1] - angles[0]) + step, 6),
        "beam": "parallel" if geometry.is_parallel else "fan",
        "pixel size [mm]": round(geometry.pixel_size, 6),
        "detectors": geometry.detectors,
        "detector pitch [mm]": round(geometry.detector_pitch, 6),
    }
    if not geometry.is_parallel:
        facts |= {
            "source to axis [mm]": geometry.source_to_axis,
            "axis to detector [mm]": geometry.axis_to_detector,
        }
    return facts


def ct_small() -> tuple[Tensor, float, str]:
    """The CT slice that pydicom ships as test data, in 1/mm ``[128, 128]``, its pixel size in mm, and its subject."""
    files = backend("pydicom.data", "the slice CT_small.dcm")
    path = files.get_testdata_file("CT_small.dcm", download=False)
    if path is None:
        raise PluginError("CT_small.dcm is not in the pydicom package", cure="reinstall pydicom>=3")
    dicom = backend("pydicom", "the slice CT_small.dcm").dcmread(path)
    hu = dicom.pixel_array.astype(np.float32) * float(dicom.RescaleSlope) + float(dicom.RescaleIntercept)
    values = torch.from_numpy(hu)
    return from_hounsfield(values), float(dicom.PixelSpacing[0]), subject_of(Path(path), [values])


def cases(
    registry: Registry,
    operator: Mapping[str, Any],
    *,
    seed: int,
    photons: float = 1e5,
    images: tuple[CaseImage, ...] | None = None,
    files: tuple[Path, ...] = (),
    slices: int = 1,
    subject: str | None = None,
    image_shape: tuple[int, int] = (128, 128),
    pixel_size: float | None = None,
) -> list[Case]:
    """Simulated low-dose, few-view scans of a real slice, of phantoms and of slices from files.

    The measurement is the operator on the pixel image plus photon noise. For the real slice that is all there is, as
    its truth is pixels; phantoms are area averages on the same grid. The metadata say so.

    Parameters
    ----------
    registry
        Where the operator comes from.
    operator
        ``operator.*``: its ``name`` (ct.parallel2d when absent) and parameters (60 views when they say nothing about
        angles).
    seed
        Of the phantoms and the noise; every image has a stream of its own.
    photons
        Photons per detector element without an object.
    images
        Which images: the slice CT_small.dcm of the pydicom package, and phantoms. Absent, ct-small and foam unless
        there are files.
    files
        Images in Hounsfield units: DICOM, NIfTI, NRRD or .npy files, or folders of them with one subject each.
    slices
        How many slices of each file, spread over the middle half of those that are not blank; one is the middle one.
    subject
        Whom all files show. Absent, the patient's ID or else the study that DICOM states, else the content of the file.
    image_shape
        Rows and columns of the phantoms. The middle of a larger slice from a file is averaged over areas to it.
    pixel_size
        Side of a pixel of the image as it is scanned, in mm. Absent, that of the slice ct-small, 128 mm over the longer
        side for phantoms, and 1 for files.
    """
    settings = dict(operator)
    name = str(settings.pop("name", "ct.parallel2d"))
    if "angles_deg" not in settings:
        settings.setdefault("views", 60)
    made = []
    named: tuple[CaseImage, ...] = () if files else ("ct-small", "foam")
    if images is not None:
        named = images
    if not named and not files:
        raise InputError("case.images", expected=f"names from {', '.join(_IMAGES)}", got="none")
    if not 0 < math.prod(image_shape) <= PIXEL_LIMIT:
        raise InputError("case.image_shape", expected=f"1 to {PIXEL_LIMIT} pixels", got=image_shape)
    for image in named:
        if image not in _IMAGES:
            raise InputError("case.images", expected=f"names from {', '.join(_IMAGES)}", got=image)
    if subject is not None and not files:
        raise InputError("case.subject", expected="case.files", got="none")
    stored = {s.name: partial(_stored, s) for s in stored_slices(files, image_shape, slices, subject)}
    draws = {image: _IMAGES[image] for image in named} | stored
    if len(draws) < len(named) + len(stored):
        raise InputError("case.images and case.files", expected="different names", got="two that are the same")
    for case_name, draw in draws.items():
        # The stream of an image depends on its name, not on its place in the list.
        generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {case_name}".encode()))
        truth, own_size, source, whose = draw(image_shape, generator)
        grid = {"image_shape": tuple(truth.shape), "pixel_size": own_size if pixel_size is None else pixel_size}
        A = registry.operator(name, **{**grid, **settings})
        if tuple(A.domain.shape) != tuple(truth.shape):
            raise InputError(
                f"image of operator '{name}'", expected=list(truth.shape), got=list(A.domain.shape),
                cure="set case.image_shape",
            )  # fmt: skip
        y, std = photon_noise(A(truth), photons, generator)
        facts = {
            "source": source,
            "simulation": "the same operator on the pixel image, then Poisson counts",
            "operator": name,
            "photons per element": photons,
            **{fact: value for fact, value in describe(A).items() if fact not in ("rows", "columns")},
        }
        made.append(Case(case_name, "ct", A, y, truth, std, facts, whose))
    return made


_Drawn = tuple[Tensor, float, str, str | None]
"""An image in 1/mm, the side of its pixels in mm, where it comes from, and its subject."""


def _slice(image_shape: tuple[int, int], generator: torch.Generator) -> _Drawn:
    image, side, subject = ct_small()
    return image, side, "CT_small.dcm, a real slice shipped with pydicom; negative attenuation clipped", subject


def _stored(stored: StoredSlice, image_shape: tuple[int, int], generator: torch.Generator) -> _Drawn:
    source = f"{stored.source}; Hounsfield units, negative attenuation clipped"
    return from_hounsfield(stored.values), 1.0, source, stored.subject


def _phantom(
    what: str, draw: Callable[[tuple[int, int], torch.Generator], Tensor]
) -> Callable[[tuple[int, int], torch.Generator], _Drawn]:
    def make(image_shape: tuple[int, int], generator: torch.Generator) -> _Drawn:
        return draw(image_shape, generator), 128.0 / max(image_shape), what, None

    return make


_IMAGES: dict[str, Callable[[tuple[int, int], torch.Generator], _Drawn]] = {
    "ct-small": _slice,
    "foam": _phantom("foam phantom", foam),
    "shepp-logan": _phantom("modified Shepp-Logan phantom", lambda shape, _: shepp_logan(shape)),
    "ellipses": _phantom("random ellipses phantom", random_ellipses),
}
