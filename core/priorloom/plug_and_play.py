"""Plug-and-play: a denoiser as a prox (`PnP`, `ImplicitPrior`), or as the gradient of a prior (`RED`)."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from .errors import InputError
from .functional import Functional, _per_element
from .regularity import Regularity, name_of, regularity_of
from .space import Space


@runtime_checkable
class Denoiser(Protocol):
    """Anything that removes white Gaussian noise of standard deviation `sigma` from ``[..., *shape]``.

    The contract, which ``testing.check_denoiser`` checks:

    * Images are normalised by the modality (``Modality.scale``): values of the order of 1, of any sign, in no fixed
      interval; nothing is clipped.
    * `sigma` is in the same units, at least 0, one number or one per batch element (shaped ``[..., 1, 1]``); for
      complex images it is that of an entry, so that the real and the imaginary part have ``sigma / sqrt(2)`` each.
    * Every batch element is denoised by itself, the same way each time; shape, dtype and device stay, and the result is
      finite. As sigma goes to zero the image stays.

    It may say what is proven of it in ``regularity(sigma: float) -> Regularity``; and where it is ``I - grad g``, give
    ``potential(x, sigma)``, the value of g per batch element.
    """

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The denoised `x`, of the same shape, dtype and device; `sigma` is a tensor that broadcasts against `x`."""
        ...


class _Denoising(Functional):
    """What the three have in common: a denoiser, called and checked in one place."""

    is_convex = False
    has_value = False

    def __init__(self, space: Space, denoiser: Denoiser) -> None:
        super().__init__(space)
        self.denoiser = denoiser

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """``D(x, sigma)``; raises InputError for another shape or dtype, or values that are not finite."""
        result = self.denoiser(x, sigma)
        name = f"output of the denoiser {name_of(self.denoiser)}"
        if result.shape != x.shape or result.dtype != x.dtype:
            raise InputError(name, expected=f"{list(x.shape)} {x.dtype}", got=f"{list(result.shape)} {result.dtype}")
        if not bool(result.isfinite().all()) and bool(x.isfinite().all()):
            raise InputError(name, expected="finite values", got="NaN or infinite ones from a finite image",
                             cure="the denoiser is broken; try another")  # fmt: skip
        return result


class PnP(_Denoising):
    """A denoiser as the prox of a functional that has no value: plug-and-play (Venkatakrishnan et al., 2013).

    ``prox(x, step) = D(x, sigma)``. The denoiser's strength is `sigma`, not the step: the step of the algorithm
    then only weighs the data, as in the plug-and-play literature.

    Parameters
    ----------
    space
        The Space of one image.
    denoiser
        The denoiser in the slot.
    sigma
        Its noise level, in the units of the image; a number, one number per batch element, or an nn.Parameter.
    """

    def __init__(self, space: Space, denoiser: Denoiser, sigma: float | Tensor) -> None:
        super().__init__(space, denoiser)
        _check_level("sigma of a denoiser", sigma)
        self.sigma = sigma

    def _prox(self, x: Tensor, step: Tensor) -> Tensor:
        return self.denoise(x, _per_element(self.sigma, x, self.space))

    def regularity(self) -> Regularity:
        """What is proven of the denoiser at this noise level."""
        return regularity_of(self.denoiser, self.sigma)


class ImplicitPrior(_Denoising):
    """``lam R`` with R the negative log density of the images that a denoiser knows: ``prox(x, step) = D(x, sigma)``
    with ``sigma = sqrt(lam step)`` (Zhang et al., 2022, eq. 6), so that a schedule of penalties is one of noise levels.

    Parameters
    ----------
    space, denoiser
        As for `PnP`.
    lam
        The variance of the noise that a step of 1 removes; for ``0.5 |Ax - y|^2`` the noise variance of y makes the
        objective the negative log posterior.
    """

    def __init__(self, space: Space, denoiser: Denoiser, lam: float | Tensor) -> None:
        super().__init__(space, denoiser)
        _check_level("lam of an implicit prior", lam)
        self.lam = lam

    def _prox(self, x: Tensor, step: Tensor) -> Tensor:
        return self.denoise(x, torch.sqrt(step * _per_element(self.lam, x, self.space)))


class RED(_Denoising):
    """Regularisation by denoising: a functional with the gradient ``tau (x - D(x, sigma))`` (Romano, Elad and Milanfar,
    2017). It has a value, ``tau g(x)``, where ``D = I - grad g`` with g at hand; any other D has no such functional in
    general (Reehorst and Schniter, 2019), but the fixed points of the iteration are of use all the same.

    Parameters
    ----------
    space, denoiser, sigma
        As for `PnP`.
    tau
        The weight, a number or one number per batch element.
    """

    def __init__(self, space: Space, denoiser: Denoiser, sigma: float | Tensor, tau: float | Tensor = 1.0) -> None:
        super().__init__(space, denoiser)
        _check_level("sigma of a denoiser", sigma)
        _check_level("tau of RED", tau)
        self.sigma = sigma
        self.tau = tau
        known = self.regularity()
        self.has_value = known.gradient and hasattr(denoiser, "potential")
        self.is_convex = known.gradient and known.convex

    def _gradient(self, x: Tensor) -> Tensor:
        tau, sigma = (_per_element(v, x, self.space) for v in (self.tau, self.sigma))
        return tau * (x - self.denoise(x, sigma))

    def _value(self, x: Tensor) -> Tensor:
        potential: Any = self.denoiser.potential  # type: ignore[attr-defined]
        value: Tensor = potential(x, _per_element(self.sigma, x, self.space))
        return torch.as_tensor(self.tau, dtype=value.dtype, device=value.device) * value

    def gradient_lipschitz(self) -> float | None:
        """tau times the constant of ``I - D``; None where nothing bounds it."""
        known = self.regularity()
        return None if known.residual is None else known.residual * float(torch.as_tensor(self.tau).detach().max())

    def regularity(self) -> Regularity:
        """What is proven of the denoiser at this noise level."""
        return regularity_of(self.denoiser, self.sigma)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """That of tau and sigma."""
        return tuple(torch.broadcast_shapes(*(torch.as_tensor(v).shape for v in (self.tau, self.sigma))))  # type: ignore[no-untyped-call]


def _check_level(what: str, value: float | Tensor) -> None:
    if isinstance(value, nn.Parameter):
        return
    number = torch.as_tensor(value)
    if not bool(((number > 0) & number.isfinite()).all()):
        raise InputError(what, expected="a positive number", got=value)


class Rephased(nn.Module):
    """A denoiser behind a fixed phase: ``x -> p D(conj(p) x, sigma)`` with ``|p| = 1``, for complex images.

    Multiplication by p is unitary, so that everything that is proven of D holds for this too.

    Parameters
    ----------
    denoiser
        D.
    phase
        p, ``[..., *shape]``, such as the smooth phase of a first reconstruction.
    """

    def __init__(self, denoiser: Denoiser, phase: Tensor) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.register_buffer("phase", phase)
        self.phase: Tensor
        if hasattr(denoiser, "potential"):
            self.potential = self._potential

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The denoised `x`."""
        return self.denoiser(x * self.phase.conj(), sigma) * self.phase

    def regularity(self, sigma: float) -> Regularity:
        """That of D."""
        return regularity_of(self.denoiser, sigma)

    def _potential(self, x: Tensor, sigma: Tensor) -> Tensor:
        value: Tensor = self.denoiser.potential(x * self.phase.conj(), sigma)  # type: ignore[attr-defined]
        return value
