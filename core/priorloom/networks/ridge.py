"""A learned regulariser whose gradient has an exactly known Lipschitz constant: filters and a Student-t potential.

One layer of convolutions, as deep as a regulariser can be and still be read: a "fields of experts" model (Roth and
Black, 2005; Chen, Ranftl and Pock, Insights into analysis operator learning, 2014), trained for denoising and used with
convergence guarantees as in Goujon, Neumayer and Unser (Learning weakly convex regularizers, 2024).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import fold, unfold

from ..errors import InputError
from ..regularity import Regularity
from .denoising import DenoisingNetwork
from .spectral import convolution_bound

_LEVEL, _SCALE = 1e-3, 1e-6
"""Noise below the first (in units of the normalised image) is treated as that; no scale s_i is below the second."""


class RidgeNetwork(DenoisingNetwork):
    """``D = I - grad g`` with ``g(x) = sum_i sum_pixels psi_i(|w_i * x|)``,
    ``psi_i(r) = s_i^2 / 2 log(1 + r^2 / s_i^2)`` and ``s_i = a_i sigma^b_i``.

    The filters w_i have zero mean and edges of zeros, and together, as one convolution W, a norm of at most 1. As
    ``-1/8 <= psi'' <= 1`` and ``0 <= psi' / r <= 1``, the gradient ``W^H phi(W x)`` with ``phi(z) = psi'(|z|) z / |z|``
    is 1-Lipschitz, and g is 1/8-weakly convex. For complex images the filters are real and the potentials see moduli,
    so that g knows no phase; real and complex images have the same parameters.

    One step of descent is a weak denoiser. The regulariser is meant to be descended on together with the data,
    ``0.5 |Ax - y|^2 + tau g(x)`` (RED), with ``tau = weight(sigma)`` for A = I and noise sigma.

    Parameters
    ----------
    is_complex
        Whether images are complex.
    side
        The filters' odd side in pixels; there are ``side^2 - 1`` of them, which begin as the cosine basis.
    """

    def __init__(self, is_complex: bool, side: int = 7) -> None:
        super().__init__(is_complex)
        if side < 3 or side % 2 == 0:
            raise InputError("side of a filter", expected="an odd number of at least 3", got=side)
        self.filters = nn.Parameter(_cosines(side))
        count = len(self.filters)
        self.log_scale = nn.Parameter(torch.zeros(count))
        self.exponent = nn.Parameter(torch.ones(count))
        self.log_weight = nn.Parameter(torch.tensor(math.log(5.0)))
        self.weight_exponent = nn.Parameter(torch.zeros(()))
        self._kept: tuple[tuple[Tensor, int, torch.dtype, torch.device], Tensor] | None = None

    def weight(self, sigma: Tensor) -> Tensor:
        """tau with which ``argmin_u 0.5 |u - x|^2 + tau g(u)`` removes noise of this level; learned."""
        return torch.exp(self.log_weight + self.weight_exponent * _log(sigma))

    def potential(self, x: Tensor, sigma: Tensor) -> Tensor:
        """``g(x)``, one value per image ``[...]``."""
        responses, scale, _ = self._responses(x, sigma)
        size = responses.square().sum(1)
        values = 0.5 * scale.square() * torch.log1p(size / scale.square())
        return values.sum((-3, -2, -1)).reshape(x.shape[:-2])

    def gradient(self, x: Tensor, sigma: Tensor) -> Tensor:
        """``grad g(x)``, of the shape and dtype of x."""
        responses, scale, filters = self._responses(x, sigma)
        bounded = responses / (1 + responses.square().sum(1, keepdim=True) / scale.square()[:, None])
        side, shape = filters.shape[-1], x.shape[-2:]
        patches = filters.flatten(1).T @ bounded.flatten(0, 1).flatten(2)
        back = fold(patches, (shape[0], shape[1]), side, padding=side // 2)
        parts = back.reshape(len(responses), -1, *shape).movedim(1, -1)
        made = torch.view_as_complex(parts.contiguous()) if self.is_complex else parts[..., 0]
        return made.reshape(x.shape)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """``x - grad g(x)``."""
        return x - self.gradient(x, sigma)

    def regularity(self, sigma: float) -> Regularity:
        """The gradient of a function, whose gradient is 1-Lipschitz by construction."""
        return Regularity(
            lipschitz=1.125,
            residual=1.0,
            gradient=True,
            reason="I - grad g, g >= 0; -1/8 <= psi'' <= 1 and the filters are divided by a bound of their norm",
        )

    def _responses(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``W x``, ``[batch, parts, filters, rows, columns]``, the scales ``[batch, filters, 1, 1]``, and the
        filters."""
        self.check(x)
        parts = torch.view_as_real(x.resolve_conj()).movedim(-1, -3) if self.is_complex else x[..., None, :, :]
        parts = parts.reshape(-1, *parts.shape[-3:])
        filters = self._normalised(parts.dtype)
        # Products of matrices with patches: for one channel three times as fast as convolutions on a CPU.
        side = filters.shape[-1]
        made = filters.flatten(1) @ unfold(parts.flatten(0, 1)[:, None], side, padding=side // 2)
        level = sigma.to(parts.dtype).expand(*x.shape[:-2], 1, 1).reshape(-1, 1, 1, 1)
        scale = torch.exp(self.log_scale[:, None, None] + self.exponent[:, None, None] * _log(level)).clamp_min(_SCALE)
        return made.reshape(*parts.shape[:2], -1, *parts.shape[-2:]), scale, filters

    def _normalised(self, dtype: torch.dtype) -> Tensor:
        """The filters of zero mean, divided by the bound of their norm; computed once where nothing learns."""
        weight = self.filters
        if torch.is_grad_enabled() and weight.requires_grad:
            return self._divided().to(dtype)
        key = (weight, weight._version, dtype, weight.device)
        if self._kept is None or self._kept[0][0] is not weight or self._kept[0][1:] != key[1:]:
            self._kept = key, self._divided().detach().to(dtype)
        return self._kept[1]

    def _divided(self) -> Tensor:
        centred = self.filters - self.filters.mean((-2, -1), keepdim=True)
        return centred / convolution_bound(centred)

    # A copy counts the changes of its tensors anew.
    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_kept": None}


class RidgeDenoiser(DenoisingNetwork):
    """``argmin_u 0.5 |u - x|^2 + weight(sigma) g(u)``, a fixed number of accelerated gradient steps (Nesterov, 1983):
    the form in which a `RidgeNetwork` learns, and in which it denoises.

    Parameters
    ----------
    regulariser
        g and its weight.
    iterations
        Their number.
    """

    def __init__(self, regulariser: RidgeNetwork, iterations: int = 10) -> None:
        super().__init__(regulariser.is_complex)
        if iterations < 1:
            raise InputError("iterations of a ridge denoiser", expected="at least 1", got=iterations)
        self.regulariser = regulariser
        self.iterations = iterations

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The last iterate."""
        weight = self.regulariser.weight(sigma).to(x.real.dtype)
        u = before = x
        for k in range(self.iterations):
            slope = u - x + weight * self.regulariser.gradient(u, sigma)
            after = u - slope / (1 + weight)
            u = after + k / (k + 3) * (after - before)
            before = after
        return before

    def regularity(self, sigma: float) -> Regularity:
        """Nothing: a fixed number of iterations is no proximal map."""
        return Regularity(reason="a fixed number of iterations")


def _log(sigma: Tensor) -> Tensor:
    return sigma.clamp_min(_LEVEL).log()


def _cosines(side: int) -> Tensor:
    """The two-dimensional cosine basis without its constant, ``[side^2 - 1, 1, side, side]``."""
    n = torch.arange(side, dtype=torch.float64)
    basis = torch.cos(math.pi / side * (n[None, :] + 0.5) * n[:, None])
    basis = basis / basis.norm(dim=1, keepdim=True)
    return torch.einsum("ia,jb->ijab", basis, basis).reshape(-1, 1, side, side)[1:].float()
