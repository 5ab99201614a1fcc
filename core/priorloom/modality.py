"""Modality, Case, Scan and Reader: what is measured, and how it comes in."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .errors import InputError
from .operator import LinearOperator


def slug(text: str) -> str:
    """`text` as a file name: anything but letters, digits, '.', '_' and '-' becomes '-'."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip(".-") or "unnamed"


@dataclass(frozen=True)
class Case:
    """One thing to reconstruct.

    Parameters
    ----------
    name
        Short and unique within a comparison; it becomes a folder name: letters, digits, '.', '_' and '-'.
    modality
        "ct", "mri" or a plugin's.
    operator
        The forward operator A.
    measurement
        y, ``operator.range.shape``.
    truth
        x, ``operator.domain.shape``, or None.
    noise_std
        Standard deviation of the noise per entry of y (complex: of the modulus), or None when unknown.
    metadata
        Facts for the report (dose, acceleration, source ...); plain values.
    subject
        Whom or what the image shows, so that cases of one subject are known to belong together; None when unknown.
    """

    name: str
    modality: str
    operator: LinearOperator
    measurement: Tensor
    truth: Tensor | None = None
    noise_std: float | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    subject: str | None = None

    def __post_init__(self) -> None:
        if slug(self.name) != self.name:
            raise InputError("case name", expected=f"a folder name such as '{slug(self.name)}'", got=repr(self.name))
        A = self.operator
        for what, tensor, space in (("measurement", self.measurement, A.range), ("truth", self.truth, A.domain)):
            if tensor is None:
                continue
            space.check(tensor, f"{what} of case '{self.name}'")
            if tensor.ndim != space.ndim:
                raise InputError(f"{what} of case '{self.name}'", expected=list(space.shape), got=list(tensor.shape),
                                 cure="make one case of each")  # fmt: skip
            if not bool(tensor.isfinite().all()):
                bad = int((~tensor.isfinite()).sum())
                raise InputError(
                    f"{what} of case '{self.name}'", expected="finite values", got=f"{bad} NaN or infinite"
                )

    def to(self, device: torch.device | str) -> Case:
        """The same case on `device`; the operator is moved, not copied."""
        return replace(
            self,
            operator=self.operator.to(device),
            measurement=self.measurement.to(device),
            truth=None if self.truth is None else self.truth.to(device),
        )

    def scaled(self, scale: float) -> Case:
        """The same case with the image (and so the measurement and the noise) divided by `scale`."""
        return replace(
            self,
            measurement=self.measurement / scale,
            truth=None if self.truth is None else self.truth / scale,
            noise_std=None if self.noise_std is None else self.noise_std / scale,
        )


@dataclass(frozen=True)
class Scan:
    """What a reader returns: a measurement and the name and parameters of the operator that made it.

    The host builds the operator through the registry, so that a reader needs no operator plugin and
    ``--set operator.KEY=VALUE`` can correct what the file says.
    """

    modality: str
    operator: str
    parameters: Mapping[str, Any]
    measurement: np.ndarray[Any, Any]
    truth: np.ndarray[Any, Any] | None = None
    noise_std: float | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Reader:
    """A file format.

    Parameters
    ----------
    name, summary
        Plain name, and one line of help.
    suffixes
        Lower-case file name endings that it claims, with the dot.
    recognises
        Whether the file is of this format, by a cheap look at its content; called for claimed suffixes only.
    read
        ``read(path, *, ...) -> Scan``; its keyword-only arguments are the options ``input.*``. Raises only ReaderError.
    companions
        Endings of files that belong together, such as ``.hdr`` and ``.cfl``: where a file has one of them, the files of
        its name with the others are part of the data.
    """

    name: str
    summary: str
    suffixes: tuple[str, ...]
    recognises: Callable[[Path], bool]
    read: Callable[..., Scan]
    companions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Batch:
    """Examples that share one operator, normalised as cases are (``Modality.scale``).

    Parameters
    ----------
    operator, measurement
        A, and y ``[batch, *A.range.shape]``.
    truth
        x ``[batch, *A.domain.shape]``, or None where it is not known.
    noise_std
        Standard deviation of the noise per entry of y, ``[batch]``.
    """

    operator: LinearOperator
    measurement: Tensor
    truth: Tensor | None
    noise_std: Tensor

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on `device`; the operator is moved, not copied."""
        return Batch(
            self.operator.to(device),
            self.measurement.to(device),
            None if self.truth is None else self.truth.to(device),
            self.noise_std.to(device),
        )


Simulate = Callable[[Tensor, torch.Generator], Batch]
"""From true images ``[batch, rows, columns]`` in the modality's units to a simulated, normalised batch."""


@dataclass(frozen=True)
class Training:
    """How examples for learning are made of images.

    Parameters
    ----------
    from_stored
        ``from_stored(values, generator) -> image``: what files hold (Hounsfield units, magnitudes), real ``[rows,
        columns]``, as an image in the modality's units; MRI draws a phase.
    phantoms
        ``phantom(image_shape, generator) -> image`` by name.
    unit
        ``unit(images) -> sizes``: what images ``[batch, *shape]`` in the modality's units are divided by to be
        normalised, ``[batch]``; near ``Modality.scale`` of their measurements.
    simulator
        ``simulator(registry, operator, image_shape, *, seed, ...) -> Simulate``; `operator` is the mapping of
        ``operator.*`` settings, and the further keyword-only arguments are the settings ``simulation.*``.
    """

    from_stored: Callable[[Tensor, torch.Generator], Tensor]
    phantoms: Mapping[str, Callable[[tuple[int, int], torch.Generator], Tensor]]
    unit: Callable[[Tensor], Tensor]
    simulator: Callable[..., Simulate]


def sizes(operator: LinearOperator) -> dict[str, float | str]:
    """The sizes of the image: rows and columns, or those of each axis."""
    shape = operator.image_space.shape
    names = ("rows", "columns") if len(shape) == 2 else tuple(f"size of axis {i}" for i in range(len(shape)))
    return dict(zip(names, shape, strict=True))


@dataclass(frozen=True)
class Reading:
    """A second scale on which the field reads its images, as CT does in Hounsfield units: ``factor value + offset``.

    Parameters
    ----------
    units
        Of the scale.
    factor, offset
        From the modality's units to it; the factor is positive.
    windows
        Display windows in use, ``{name: (low, high)}`` in these units.
    """

    units: str
    factor: float
    offset: float
    windows: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Modality:
    """A kind of measurement: units, normalisation, metrics convention, default methods and cases.

    Parameters
    ----------
    name, title, units
        "ct", "X-ray CT", "1/mm".
    methods
        Names of the pipelines that ``compare`` runs by default, the direct one first.
    scale
        ``scale(case) -> float``: the one normalisation; images are divided by it inside, multiplied by it on output.
    noise_std
        ``noise_std(case) -> float``: the noise level estimated from the measurement alone.
    data_range
        ``data_range(truth) -> float`` for PSNR and SSIM, of the real image that is shown.
    display
        ``display(image) -> image``: real image that is shown and measured (the magnitude for MRI).
    cases
        ``cases(registry, operator, *, seed, ...) -> list[Case]``: simulated cases; `operator` is the mapping of
        ``operator.*`` settings (with an optional ``name``), and the further keyword-only arguments are the settings
        ``case.*``.
    training
        How examples for learning are made; None where the modality offers no training.
    describe
        ``describe(operator) -> {fact: number or text}``: what of an operator decides whether a trained model fits it
        (views, pixel size, coils), units in the names; the sizes of its image when absent.
    reading
        The second scale of values that are shown, and its display windows; None where the units are the ones in use.
    shifts
        Conditions other than those of the simulated cases, under which a method's stability is measured:
        ``{name: {"case.photons": 1e4}}``, settings of ``case.*`` and ``operator.*``.
    """

    name: str
    title: str
    units: str
    methods: tuple[str, ...]
    scale: Callable[[Case], float]
    noise_std: Callable[[Case], float]
    data_range: Callable[[Tensor], float]
    display: Callable[[Tensor], Tensor]
    cases: Callable[..., list[Case]]
    training: Training | None = None
    describe: Callable[[LinearOperator], Mapping[str, float | str]] = sizes
    reading: Reading | None = None
    shifts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


__all__ = ["Batch", "Case", "Modality", "Reader", "Reading", "Scan", "Simulate", "Training"]
