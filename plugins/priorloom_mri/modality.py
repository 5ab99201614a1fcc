"""The MRI modality: normalisation, noise estimate, metrics convention and simulated cases."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from priorloom.errors import InputError
from priorloom.modality import Case, Modality, Training, sizes
from priorloom.operator import LinearOperator
from priorloom.stored import StoredSlice, stored_slices

from .coils import birdcage_maps
from .masks import MaskName, kspace_radius, make_mask, sampled_fraction
from .noise import add_noise
from .nufft import NonCartesian
from .operators import Fourier, Sense
from .phantoms import phantom, smooth_phase
from .training import PHANTOMS, from_stored, simulator, typical_magnitude

if TYPE_CHECKING:
    from priorloom.registry import Registry

METHODS = ("zero-filled", "cg-sense", "l1-wavelet", "tv-pdhg", "pnp-admm", "pnp-hqs", "red-accelerated")

VALUE_LIMIT = 2**27
"""Values of a simulated k-space."""

SHIFTS: Mapping[str, Mapping[str, Any]] = {
    "more noise": {"case.noise": 0.02},
    "less noise": {"case.noise": 0.001},
    "higher acceleration": {"case.acceleration": 8.0},
    "other mask": {"case.mask": "random"},
    "fewer coils": {"case.coils": 4},
}


def mri() -> Modality:
    """Magnetic resonance imaging: complex images, k-space measurements, magnitudes at the edges."""
    return Modality(
        "mri", "Cartesian MRI", "arbitrary", METHODS, scale, noise_std, data_range, torch.abs, cases,
        Training(from_stored, PHANTOMS, typical_magnitude, simulator), describe,
        shifts=SHIFTS,
    )  # fmt: skip


def scale(case: Case) -> float:
    """The 99th percentile of the zero-filled magnitude: an intensity near 1 inside, whatever the scanner's unit."""
    shown = case.operator.combined(case.operator.pseudo_inverse(case.measurement))
    return float(typical_magnitude(shown.reshape(-1, shown.shape[-1])))


def noise_std(case: Case, fraction: float = 0.1) -> float:
    """Noise level from the outermost `fraction` of the sampled k-space, where signal is weakest.

    The modulus of complex Gaussian noise is Rayleigh distributed with median ``sigma sqrt(ln 2)``: a median that a few
    samples with signal do not move. Coils are taken one by one and averaged as powers.
    """
    A, y = case.operator, case.measurement
    if isinstance(A, NonCartesian):
        radius = A.trajectory.norm(dim=-1)
    else:
        radius = kspace_radius(tuple(y.shape[-A.image_space.ndim :])).to(y.device)
    grid = radius.shape
    coils = A.coils if isinstance(A, Sense) else 1 if isinstance(A, Fourier) else math.prod(y.shape[: -len(grid)])
    medians = []
    for frame in y.reshape(-1, coils, *grid):
        sampled = (frame != 0).any(0)
        count = int(sampled.sum())
        if count:
            outermost = radius[sampled].topk(max(1, math.ceil(fraction * count))).indices
            medians.append(frame[:, sampled][:, outermost].abs().median(dim=-1).values)
    return float(torch.stack(medians).square().mean().sqrt()) / math.sqrt(math.log(2)) if medians else 0.0


def data_range(truth: Tensor) -> float:
    """The maximum of the true magnitude (fastMRI's evaluate)."""
    return float(truth.max())


def describe(operator: LinearOperator) -> dict[str, float | str]:
    """Coils, and what is sampled: "lines", "points" or "everything" of a grid with the achieved acceleration, or
    "non-Cartesian" points."""
    facts = sizes(operator)
    if isinstance(operator, NonCartesian):
        samples = operator.trajectory[..., 0].numel() / operator.domain.size
        return facts | {"coils": operator.coils, "sampling": "non-Cartesian", "samples per pixel": round(samples, 3)}
    if not isinstance(operator, Sense | Fourier):
        return facts
    mask = operator.mask
    axes = range(mask.ndim - len(operator.image_shape), mask.ndim)
    whole_lines = any(bool((mask == mask.narrow(axis, 0, 1)).all()) for axis in axes)
    facts |= {
        "coils": operator.coils if isinstance(operator, Sense) else 1,
        "sampling": "everything" if bool(mask.all()) else "lines" if whole_lines else "points",
        "achieved acceleration": round(1 / sampled_fraction(mask), 3),
    }
    if operator.frames:
        facts["frames"] = operator.frames[0]
    if isinstance(operator, Sense) and operator.sets:
        facts["map sets"] = operator.sets[0]
    return facts


def cases(
    registry: Registry,
    operator: Mapping[str, Any],
    *,
    seed: int,
    acceleration: float = 4.0,
    mask: MaskName = "variable-density",
    coils: int = 8,
    noise: float = 0.005,
    files: tuple[Path, ...] = (),
    slices: int = 1,
    subject: str | None = None,
    image_shape: tuple[int, int] = (128, 128),
) -> list[Case]:
    """A Shepp-Logan head or magnitudes from files, with a smooth phase, measured by birdcage coils and random masks.

    Parameters
    ----------
    registry
        Where the operator comes from.
    operator
        ``operator.*``: its ``name`` (mri.sense2d when absent) and further parameters.
    seed
        Of the phase, the mask and the noise.
    acceleration
        Nominal acceleration R; what the mask achieves is in the metadata. For operators with a mask, as the next.
    mask
        Kind of sampling mask.
    coils
        Number of receive coils (one for mri.fourier2d).
    noise
        Standard deviation of the k-space noise relative to the brightest pixel.
    files
        Magnitude images in the place of the phantom: DICOM, NIfTI, NRRD or .npy files, or folders of them with one
        subject each. The brightest pixel of a slice becomes 1.
    slices
        How many slices of each file, spread over the middle half of those that are not blank; one is the middle one.
    subject
        Whom all files show. Absent, the patient's ID or else the study that DICOM states, else the content of the file.
    image_shape
        (rows, columns) of the phantom. The middle of a larger slice from a file is averaged over areas to it.
    """
    settings = dict(operator)
    name = str(settings.pop("name", "mri.sense2d"))
    if not 0 <= noise < math.inf:
        raise InputError("case.noise", expected="a number of at least 0", got=noise)
    if not 0 < math.prod(image_shape) * max(coils, 1) <= VALUE_LIMIT:
        raise InputError("case.image_shape times case.coils", expected=f"1 to {VALUE_LIMIT} values",
                         got=f"{image_shape} x {coils}")  # fmt: skip
    has_mask = "mask" in {parameter.name for parameter in registry.parameters("operator", name)}
    made: list[Case] = []
    if subject is not None and not files:
        raise InputError("case.subject", expected="case.files", got="none")
    for stored in stored_slices(files, image_shape, slices, subject) or (None,):
        case_name = "phantom" if stored is None else stored.name
        # The stream of a slice depends on its name, not on its place in the list.
        stream = seed if stored is None else zlib.crc32(f"{seed} {case_name}".encode())
        generator = torch.Generator().manual_seed(stream)
        truth, source = _truth(stored, image_shape, generator)
        shape = (truth.shape[0], truth.shape[1])
        lines = make_mask(mask, shape, acceleration=acceleration, generator=generator) if has_mask else None
        given: dict[str, Any] = {} if lines is None else {"mask": lines}
        if name == "mri.fourier2d":
            given["image_shape"] = shape
        else:
            given["maps"] = birdcage_maps(coils, shape)
        A = registry.operator(name, **{**given, **settings})
        if A.domain.shape != truth.shape:
            raise InputError(f"image of operator '{name}'", expected=list(shape), got=list(A.domain.shape),
                             cure="set case.image_shape")  # fmt: skip
        y = add_noise(A(truth), noise, generator, lines)
        facts = {
            "source": source,
            **({} if lines is None else _sampled(mask, acceleration, lines)),
            **{fact: value for fact, value in describe(A).items() if fact not in ("rows", "columns")},
            "noise": noise,
        }
        whose = None if stored is None else stored.subject
        made.append(Case(case_name, "mri", A, y, truth, noise if noise > 0 else None, facts, whose))
    return made


def _sampled(mask: str, acceleration: float, lines: Tensor) -> dict[str, Any]:
    fraction = round(sampled_fraction(lines), 4)
    return {"mask": mask, "nominal acceleration": acceleration, "sampled fraction": fraction}


def _truth(stored: StoredSlice | None, image_shape: tuple[int, int], generator: torch.Generator) -> tuple[Tensor, str]:
    if stored is None:
        return phantom(image_shape, generator), "Shepp-Logan phantom with smooth phase"
    magnitude = stored.values
    if not bool(magnitude.max() > 0):
        raise InputError(f"magnitudes of {stored.name}", expected="positive values", got="none")
    phase = smooth_phase((magnitude.shape[-2], magnitude.shape[-1]), generator)
    image = torch.polar((magnitude / magnitude.max()).clamp_min(0), phase)
    return image, f"{stored.source}; magnitude with a smooth phase"
