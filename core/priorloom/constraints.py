"""Learned scalars that cannot leave their legal range: step sizes in (0, 2 / L), weights and thresholds in [0, inf).

A legal range is kept by parametrisation, not by clipping: whatever an optimiser does to the free number, the value that
the step sees is legal, and its derivative exists.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from .errors import InputError

MARGIN = 1e-3
"""A step size keeps this fraction of ``2 / L`` away from both ends, so that rounding cannot carry it there."""
LEAST = 1e-4
"""What is divided by stays above this fraction of its initial value."""


class Relative(nn.Module):
    """A learned number relative to the Lipschitz constant L of the data gradient *at hand*: ``forward(L)``.

    So it stays legal when the operator at inference is not that of training. Steps take it wherever they take a number.
    """

    def forward(self, lipschitz: float | Tensor) -> Tensor:
        """The number for a gradient with this Lipschitz constant, or one number per batch element."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")


class StepSize(Relative):
    """A step size in ``(0, 2 / L)``: ``t = (2 / L) (m + (1 - 2 m) s(w))`` with the sigmoid s and the margin m.

    With the adjoint, gradient steps on a convex data term are averaged operators, hence nonexpansive (Bauschke and
    Combettes, 2017, prop. 4.39). With a backprojector B and ``L = |B A|`` they are where B A is symmetric and positive
    semidefinite, as the adjoint's is. That of a direct method need not be, and then the steps may expand; see
    `priorloom.lipschitz.gradient_step_bound`.

    Parameters
    ----------
    initial
        The first value in units of ``2 / L``, in (0, 1); a half is ISTA's ``1 / L``.
    """

    def __init__(self, initial: float = 0.5) -> None:
        super().__init__()
        if not MARGIN < initial < 1 - MARGIN:
            raise InputError("initial step size in units of 2 / L", expected="a number in (0, 1)", got=initial)
        share = (initial - MARGIN) / (1 - 2 * MARGIN)
        self.free = nn.Parameter(torch.tensor(math.log(share / (1 - share))))

    def forward(self, lipschitz: float | Tensor) -> Tensor:
        """t."""
        fraction: Tensor = MARGIN + (1 - 2 * MARGIN) * torch.sigmoid(self.free)
        return fraction * (2 / lipschitz)


class Penalty(Relative):
    """A penalty in units of L: ``rho = L p`` with a learned ``p > 0``, see `Positive`; its reciprocal is finite."""

    def __init__(self, initial: float = 1.0) -> None:
        super().__init__()
        self.factor = Positive(initial, LEAST)

    def forward(self, lipschitz: float | Tensor) -> Tensor:
        """rho."""
        factor: Tensor = self.factor()
        return lipschitz * factor


class Positive(nn.Module):
    """A number in ``[0, inf)``: ``initial (m + (1 - m) softplus(w) / log 2)``, which is `initial` at w = 0; it grows
    linearly with w, so that no finite w overflows.

    Parameters
    ----------
    initial
        The first value, positive.
    least
        m, the lower end in units of `initial`; above 0 where the number is divided by.
    """

    def __init__(self, initial: float = 1.0, least: float = 0.0) -> None:
        super().__init__()
        if not 0 < initial < math.inf:
            raise InputError("initial value of a learned weight", expected="a positive number", got=initial)
        if not 0 <= least < 1:
            raise InputError("least value of a learned weight", expected="a fraction of the initial one", got=least)
        self.initial = initial
        self.least = least
        self.free = nn.Parameter(torch.zeros(()))

    def forward(self) -> Tensor:
        """The number."""
        share: Tensor = self.least + softplus(self.free) * ((1 - self.least) / math.log(2))
        return self.initial * share
