"""The priors by name: every factory takes a Space and keyword-only parameters, and gives a Functional or a Term."""

from __future__ import annotations

import math

from torch import Tensor

from priorloom import Functional, LinearOperator, Space, Term
from priorloom.errors import InputError
from priorloom.operator import Gradient

from .composite import CycleSpinning, DualProx, Unitary
from .functionals import L1, Box, GroupL1, SquaredNorm
from .wavelet import Wavelet, WaveletName


def l1(space: Space, *, lam: float) -> L1:
    """``lam sum_i |x_i|``: few pixels differ from zero.

    Parameters
    ----------
    lam
        Weight, in the units of the data term per unit of the image.
    """
    return L1(space, lam)


def group_l1(space: Space, *, lam: float, axis: int = 0) -> GroupL1:
    """``lam sum_pixels |x(pixel)|_2`` across one axis (coils, contrasts, frames): they vanish together.

    Parameters
    ----------
    lam
        Weight, in the units of the data term per unit of the image.
    axis
        The dimension of one element that a group spans.
    """
    return GroupL1(space, lam, axis)


def tikhonov(space: Space, *, lam: float) -> SquaredNorm:
    """``0.5 lam |x|^2``.

    Parameters
    ----------
    lam
        Weight; that of the data term is one half.
    """
    return SquaredNorm(space, lam)


def tikhonov_gradient(space: Space, *, lam: float) -> Term:
    """``0.5 lam |grad x|^2``, differences per pixel: smooth images.

    Parameters
    ----------
    lam
        Weight; that of the data term is one half.
    """
    gradient = Gradient(space)
    return Term(SquaredNorm(gradient.range, lam), gradient)


def tv(space: Space, *, lam: float) -> Term:
    """Isotropic total variation ``lam sum_pixels |grad x|_2`` behind the gradient, for PDHG and ADMM.

    Differences are per pixel, zero across the far edge. Complex images: moduli of complex differences, so that real
    and imaginary part share their edges.

    Parameters
    ----------
    lam
        Weight, in the units of the data term per unit of the image.

    References
    ----------
    Rudin, Osher and Fatemi (1992), Physica D 60, 259-268.
    """
    gradient = Gradient(space)
    return Term(GroupL1(gradient.range, lam), gradient)


def tv_anisotropic(space: Space, *, lam: float) -> Term:
    """Anisotropic total variation ``lam |grad x|_1``: edges along the axes cost less than slanted ones.

    Parameters
    ----------
    lam
        Weight, in the units of the data term per unit of the image.
    """
    gradient = Gradient(space)
    return Term(L1(gradient.range, lam), gradient)


def tv_prox(space: Space, *, lam: float, tolerance: float = 1e-3, max_iterations: int = 5000) -> DualProx:
    """Isotropic total variation with its own prox (TV denoising), for ISTA, FISTA and splitting.

    The same value as ``tv``. The prox is iterated until its relative error is proven to be at most `tolerance`.

    Parameters
    ----------
    lam
        Weight, in the units of the data term per unit of the image.
    tolerance
        Proven relative error of the prox, ``|u - prox| / |x|``; the true one is ten to thirty times smaller.
    max_iterations
        Budget of the inner iteration; an error when it does not suffice.
    """
    gradient = Gradient(space)
    return DualProx(GroupL1(gradient.range, lam), gradient, tolerance, max_iterations)


class Channelwise(LinearOperator):
    """An operator applied to every channel: ``[channels, *K.domain.shape] -> [channels, *K.range.shape]``."""

    def __init__(self, K: LinearOperator, channels: int) -> None:
        super().__init__(*(Space((channels, *s.shape), s.dtype) for s in (K.domain, K.range)))
        self.K = K

    def _forward(self, x: Tensor) -> Tensor:
        return self.K._forward(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.K._adjoint(y)

    def norm_bounds(self, tolerance: float = 1e-3) -> tuple[float, float]:
        """Those of one channel."""
        return self.K.norm_bounds(tolerance)


def joint_tv(space: Space, *, lam: float) -> Term:
    """Joint (vectorial) total variation of ``[channels, *shape]``: ``lam sum_pixels |grad of all channels|_2``.

    The channels (contrasts, energies, echoes) share the places of their edges, not their heights.

    Parameters
    ----------
    lam
        Weight, in the units of the data term per unit of the image.

    References
    ----------
    Bresson and Chan (2008), Inverse Probl. Imaging 2, 455-484.
    """
    if space.ndim < 2:
        raise InputError("space of joint-tv", expected="[channels, ...]", got=list(space.shape))
    gradient = Channelwise(Gradient(Space(space.shape[1:], space.dtype)), space.shape[0])
    return Term(GroupL1(gradient.range, lam, (0, 1)), gradient)


def wavelet_l1(
    space: Space,
    *,
    lam: float,
    wavelet: WaveletName = "db4",
    levels: int | None = None,
    approximation: bool = False,
    cycle_spinning: int = 1,
) -> Functional:
    """``lam |W x|_1`` in an orthonormal wavelet basis of any image size; the prox ``W^H soft(W x)`` is exact.

    Parameters
    ----------
    lam
        Weight, in the units of the data term per unit of the image.
    wavelet
        haar, or db2 to db8.
    levels
        Depth of the transform; as deep as useful when absent.
    approximation
        Whether the coarsest approximation is thresholded too.
    cycle_spinning
        Shifts per dimension over which the prox is averaged; 1 is the plain basis. More leave no trace of the grid,
        and no value either: the averaged prox is that of another convex function at every step size.
    """
    W = Wavelet(space, wavelet, levels)
    plain = Unitary(L1(W.range, lam, None if approximation else W.details()), W)
    if cycle_spinning == 1:
        return plain
    return CycleSpinning(plain, cycle_spinning)


def nonnegativity(space: Space) -> Box:
    """The constraint ``x >= 0``; real images only."""
    return Box(space)


def box(space: Space, *, lower: float = 0.0, upper: float = math.inf) -> Box:
    """The constraint ``lower <= x <= upper``; real images only.

    Parameters
    ----------
    lower, upper
        The bounds, in the units of the image; either may be infinite.
    """
    return Box(space, lower, upper)
