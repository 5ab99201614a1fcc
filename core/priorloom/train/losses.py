"""Losses: what training minimises, one number per batch.

Images are normalised. The physics and the loss are computed in single precision, also where networks are not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from ..errors import InputError, did_you_mean
from ..modality import Batch, Modality
from ..unrolled import Unrolled

Display = Callable[[Tensor], Tensor]


class Loss(Protocol):
    """A loss: ``loss(model, batch, generator) -> scalar``; gradients flow to the model."""

    @property
    def needs_truth(self) -> bool:
        """Whether batches must have a truth."""
        ...

    def __call__(self, model: Unrolled, batch: Batch, generator: torch.Generator) -> Tensor:
        """The loss of one batch; `generator` decides what the loss draws."""
        ...


def reconstruct(model: Unrolled, batch: Batch) -> Tensor:
    """The model's image of a batch, ``[batch, *A.domain.shape]``."""
    image: Tensor = model(batch.operator, batch.measurement, batch.noise_std)
    return image


@dataclass(frozen=True)
class Supervised:
    """``mse |x - t|^2 + l1 |x - t| + ssim (1 - SSIM(x, t))``, means over pixels and batch.

    Parameters
    ----------
    mse, l1, ssim
        The weights; the moduli of complex differences, SSIM of the image that is shown.
    display
        The modality's ``display``.
    """

    mse: float
    l1: float
    ssim: float
    display: Display
    needs_truth: bool = True

    def __call__(self, model: Unrolled, batch: Batch, generator: torch.Generator) -> Tensor:
        """The loss against the truth."""
        return self.compare(reconstruct(model, batch), truth_of(batch))

    def compare(self, image: Tensor, truth: Tensor) -> Tensor:
        """The loss of an image against the truth."""
        with torch.autocast(image.device.type, enabled=False):
            return self._compare(image, truth)

    def _compare(self, image: Tensor, truth: Tensor) -> Tensor:
        difference = image - truth
        total = image.real.new_zeros(())
        if self.mse:
            total = total + self.mse * (difference * difference.conj()).real.mean()
        if self.l1:
            total = total + self.l1 * difference.abs().mean()
        if self.ssim:
            total = total + self.ssim * (1 - ssim(self.display(image), self.display(truth)).mean())
        return total


def ssim(image: Tensor, truth: Tensor) -> Tensor:
    """Structural similarity of each image, ``[batch]`` (Wang et al., 2004): 7 x 7 uniform windows, sample covariances,
    the data range that of the truth's maximum minus minimum, borders left out; as scikit-image.

    Parameters
    ----------
    image, truth
        Real, ``[batch, rows, columns]``.
    """
    window, x, t = 7, image[:, None], truth[:, None]
    span = (truth.amax((-2, -1)) - truth.amin((-2, -1))).reshape(-1, 1, 1, 1).clamp_min(1e-6)
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2

    def mean(v: Tensor) -> Tensor:
        return avg_pool2d(v, window, stride=1)

    mx, mt = mean(x), mean(t)
    unbiased = window**2 / (window**2 - 1)
    vx, vt, cov = (
        unbiased * (mean(a * b) - ma * mb) for a, b, ma, mb in ((x, x, mx, mx), (t, t, mt, mt), (x, t, mx, mt))
    )
    similarity = (2 * mx * mt + c1) * (2 * cov + c2) / ((mx**2 + mt**2 + c1) * (vx + vt + c2))
    return similarity.mean((-3, -2, -1))


@dataclass(frozen=True)
class Objective:
    """``J(x) / J(0)``, the objective of ``Unrolled.problem`` as the loss: no truth is used.

    Dividing by J(0), which the network does not influence, makes it dimensionless.
    """

    weight: float = 1.0
    needs_truth: bool = False

    def __call__(self, model: Unrolled, batch: Batch, generator: torch.Generator) -> Tensor:
        """The mean over the batch."""
        image = reconstruct(model, batch)
        with torch.autocast(image.device.type, enabled=False):
            if model.prior is None:
                raise InputError("loss.objective", expected="an architecture whose problem has a prior", got="none",
                                 cure="use learned-ista")  # fmt: skip
            problem = model.problem(batch.operator, batch.measurement, batch.noise_std)
            zero = problem.objective(torch.zeros_like(image)).detach()
            return self.weight * (problem.objective(image) / zero.clamp_min(torch.finfo(zero.dtype).tiny)).mean()


def make_loss(settings: Mapping[str, Any], modality: Modality) -> Loss:
    """The loss of a config.

    Parameters
    ----------
    settings
        ``{"mse": 1.0, "l1": 0.1, "ssim": 0}``, ``{"objective": 1.0}``, ``{"noise2inverse": {"parts": 4}}`` or
        ``{"ssdu": {"share": 0.4, "splits": 8}}``.
    modality
        Says what of an image is shown.

    Raises
    ------
    InputError
        An unknown loss, or losses that cannot be mixed.
    """
    from .splits import Noise2Inverse, SelfSupervised

    mixed, alone = ("mse", "l1", "ssim"), ("objective", "noise2inverse", "ssdu")
    for name in settings:
        if name not in (*mixed, *alone):
            raise InputError(f"unknown loss '{name}'", cure=did_you_mean(str(name), (*mixed, *alone)))
    chosen = {name: value for name, value in settings.items() if value is not None and value != 0}
    kind = next((name for name in alone if name in chosen), None)
    if kind is not None and len(chosen) > 1:
        raise InputError("loss", expected=f"'{kind}' alone", got=" and ".join(chosen), cure="it uses no truth")
    if kind == "noise2inverse":
        return _from_settings(Noise2Inverse, chosen[kind], kind)
    if kind == "ssdu":
        return _from_settings(SelfSupervised, chosen[kind], kind)
    weights = {name: _weight(name, value) for name, value in chosen.items()}
    if not weights:
        raise InputError("loss", expected="at least one positive weight", got=dict(settings))
    if kind == "objective":
        return Objective(weights[kind])
    mse, l1, ssim_weight = (weights.get(name, 0.0) for name in mixed)
    return Supervised(mse, l1, ssim_weight, modality.display)


def truth_of(batch: Batch) -> Tensor:
    """The truth; raises InputError where there is none."""
    if batch.truth is None:
        raise InputError("loss", expected="one that needs no truth (objective, noise2inverse, ssdu)",
                         got="scans without a truth")  # fmt: skip
    return batch.truth


def _weight(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise InputError(f"loss.{name}", expected="a number of at least 0", got=repr(value))
    return float(value)


def _from_settings(kind: Callable[..., Loss], settings: Any, name: str) -> Loss:
    from .config import section

    if not isinstance(settings, Mapping):
        raise InputError(f"loss.{name}", expected="settings such as {} for the defaults", got=repr(settings))
    made: Loss = section(kind, settings, f"loss.{name}")  # type: ignore[arg-type]
    return made
