"""Huber total variation: quadratic for small gradients, linear for edges."""

from __future__ import annotations

import torch
from torch import Tensor

from priorloom import Functional, Space, Term
from priorloom.errors import InputError
from priorloom.operator import Gradient


def huber(space: Space, *, lam: float, delta: float = 0.01) -> Term:
    """``lam sum_i h(|(Gx)_i|)``, h(r) = r^2 / (2 delta) up to delta and r - delta / 2 beyond (Huber, 1964, eq. 6).

    Parameters
    ----------
    lam
        Weight, positive; that of total variation, to which this tends as delta goes to 0.
    delta
        Difference of neighbouring pixels at which an edge begins, positive, in the units of the normalised image.
    """
    G = Gradient(space)
    return Term(Huber(G.range, lam, delta), G)


class Huber(Functional):
    """``f(z) = lam sum_i h(|z_i|)`` on vector fields ``[..., components, *shape]``; |.| is over the components.

    h is the Moreau envelope of |.| with parameter delta (Beck, First-Order Methods in Optimization, example 6.54);
    hence the prox, and ``f*(z) = delta |z|^2 / (2 lam)`` where every ``|z_i| <= lam``, infinite elsewhere.
    """

    has_conjugate = True

    def __init__(self, space: Space, lam: float, delta: float) -> None:
        super().__init__(space)
        for name, value in (("lam", lam), ("delta", delta)):
            if not 0 < value < float("inf"):
                raise InputError(f"{name} of the prior 'huber'", expected="a positive number", got=value)
        self.lam, self.delta = lam, delta

    def _modulus(self, z: Tensor) -> Tensor:
        modulus: Tensor = torch.linalg.vector_norm(z, dim=-self.space.ndim, keepdim=True)
        return modulus

    def _value(self, x: Tensor) -> Tensor:
        r = self._modulus(x)
        inside = r.clamp_max(self.delta)  # h(r) = r_in (r - r_in / 2) / delta in both branches
        return self.lam / self.delta * (inside * (r - inside / 2)).sum(dim=self.space.dims)

    def _prox(self, x: Tensor, step: Tensor) -> Tensor:
        shrink = step * self.lam
        return x * (1 - shrink / self._modulus(x).clamp_min(self.delta + shrink))

    def _gradient(self, x: Tensor) -> Tensor:
        return self.lam * x / self._modulus(x).clamp_min(self.delta)

    def _conjugate(self, z: Tensor) -> Tensor:
        value = self.delta / (2 * self.lam) * self.space.squared(z)
        outside = self._modulus(z).amax(dim=self.space.dims) > self.lam * (1 + 1e-5)  # 1e-5: rounding is not outside
        return value.masked_fill(outside, torch.inf)

    def gradient_lipschitz(self) -> float | None:
        """``lam / delta``."""
        return self.lam / self.delta
