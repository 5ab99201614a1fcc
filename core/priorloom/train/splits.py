"""Learning without a truth: one part of a measurement is reconstructed, and judged by the other part."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..errors import InputError
from ..modality import Batch
from ..operator import LinearOperator
from ..unrolled import Unrolled

_SEED = 55_555  # of the splits, so that masks drawn from small seeds are independent of them
CENTRE = 4
"""Rows and columns in the middle of k-space that are always given to the network."""


class Selected(LinearOperator):
    """``S A``: the operator with some entries of its measurement only, the others zero.

    Its direct method is that of A on these entries times `gain`.

    Parameters
    ----------
    operator
        A.
    selection
        Zeros and ones that broadcast to ``operator.range.shape``.
    gain
        Makes up for what is missing where the direct method sums over the entries with equal weights (FBP over views).
    """

    def __init__(self, operator: LinearOperator, selection: Tensor, gain: float = 1.0) -> None:
        super().__init__(operator.domain, operator.range)
        self.operator = operator
        self.gain = gain
        self.register_buffer("selection", selection.to(operator.device, operator.range.real_dtype))
        self.selection: Tensor

    def _forward(self, x: Tensor) -> Tensor:
        return self.selection * self.operator._forward(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.operator._adjoint(self.selection * y)

    def _pseudo_inverse(self, y: Tensor) -> Tensor:
        return self.gain * self.operator.pseudo_inverse(self.selection * y)


def _drawn(
    pairs: list[tuple[Selected, Selected]], device: torch.device, generator: torch.Generator
) -> tuple[Selected, Selected]:
    """One of the pairs, on `device`: they may have been made before the batch and its operator were moved there."""
    pair = pairs[int(torch.randint(len(pairs), (), generator=generator))]
    for part in pair:
        if part.device != device:  # moving forgets the norm
            part.to(device)
    return pair


@dataclass
class Noise2Inverse:
    """``|model(y_a) - B y_b|^2`` for two disjoint groups of views a and b and the direct method B (Hendriksen, Pelt and
    Batenburg, IEEE Trans. Comput. Imaging 6, 2020, strategy X:1).

    The views are dealt into interleaved groups; one group, drawn at random, is the target, all others are given. The
    noise of the views must be independent and of mean zero; then the expected loss has the same minimiser as that
    against the noiseless ``B A x``.

    Parameters
    ----------
    parts
        Number of groups.
    """

    parts: int = 4
    needs_truth: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        if not 2 <= self.parts <= 64:
            raise InputError("loss.noise2inverse.parts", expected="2 to 64", got=self.parts)
        self._known: dict[int, list[tuple[Selected, Selected]]] = {}

    def __call__(self, model: Unrolled, batch: Batch, generator: torch.Generator) -> Tensor:
        """The loss of one batch."""
        y = batch.measurement
        given, target = _drawn(self.groups(batch.operator), y.device, generator)
        image: Tensor = model(given, y * given.selection, batch.noise_std)
        with torch.autocast(y.device.type, enabled=False), torch.no_grad():
            reference = target.pseudo_inverse(y)
        return (image - reference).abs().square().mean()

    def groups(self, A: LinearOperator) -> list[tuple[Selected, Selected]]:
        """For every group the operator of all others and its own."""
        if A.range.is_complex or A.range.ndim < 2 or A.range.shape[0] < self.parts:
            raise InputError("loss.noise2inverse", expected=f"real measurements with at least {self.parts} views",
                             got=f"{A.range.dtype} {list(A.range.shape)}", cure="for k-space use ssdu")  # fmt: skip
        if id(A) not in self._known:
            views = torch.arange(A.range.shape[0]).reshape(-1, *[1] * (A.range.ndim - 1))
            self._known[id(A)] = [
                (
                    Selected(A, views % self.parts != j, len(views) / int((views % self.parts != j).sum())),
                    Selected(A, views % self.parts == j, len(views) / int((views % self.parts == j).sum())),
                )
                for j in range(self.parts)
            ]
        return self._known[id(A)]


@dataclass
class SelfSupervised:
    """``|u - v|_2 / |v|_2 + |u - v|_1 / |v|_1`` for ``v = y_b`` and ``u = A_b model(y_a)`` with two disjoint sets of
    k-space samples a and b (SSDU; Yaman et al., Magnetic Resonance in Medicine 84, 2020; several splits: Yaman et al.,
    2022).

    Parameters
    ----------
    share
        The part of the samples that the network is not given; the middle of k-space always is.
    splits
        How many random splits there are for every operator.
    """

    share: float = 0.4
    splits: int = 4
    needs_truth: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        if not 0 < self.share < 1 or not 1 <= self.splits <= 64:
            raise InputError("loss.ssdu", expected="share in (0, 1) and splits of 1 to 64",
                             got=f"{self.share} and {self.splits}")  # fmt: skip
        self._known: dict[int, list[tuple[Selected, Selected]]] = {}

    def __call__(self, model: Unrolled, batch: Batch, generator: torch.Generator) -> Tensor:
        """The loss of one batch."""
        A, y = batch.operator, batch.measurement
        if not A.range.is_complex or A.range.ndim < 2:
            raise InputError("loss.ssdu", expected="k-space", got=f"{A.range.dtype} {list(A.range.shape)}",
                             cure="for CT use noise2inverse")  # fmt: skip
        if id(A) not in self._known:
            self._known[id(A)] = [self._split(A, y, number) for number in range(self.splits)]
        given, held = _drawn(self._known[id(A)], y.device, generator)
        image: Tensor = model(given, y * given.selection, batch.noise_std)
        with torch.autocast(y.device.type, enabled=False):
            v = held.selection * y
            d = held(image) - v
            l2 = A.range.norm(d) / A.range.norm(v)
            l1 = d.abs().sum(A.range.dims) / v.abs().sum(A.range.dims)
            loss: Tensor = (l2 + l1).mean()
            return loss

    def _split(self, A: LinearOperator, y: Tensor, number: int) -> tuple[Selected, Selected]:
        measured = (y != 0).flatten(0, -3).any(0).cpu()
        held = measured & (
            torch.rand(measured.shape, generator=torch.Generator().manual_seed(_SEED + number)) < self.share
        )
        rows, columns = ((n - CENTRE) // 2 for n in measured.shape)
        held[rows : rows + CENTRE, columns : columns + CENTRE] = False
        return Selected(A, measured & ~held), Selected(A, held)
