"""Denoising networks as architectures: one layer for A = I, which training trains and files hold."""

from __future__ import annotations

from torch import nn

from priorloom.errors import InputError
from priorloom.networks import (
    AveragedNetwork,
    DenoisingNetwork,
    DnCNN,
    DRUNet,
    GradientStep,
    RidgeDenoiser,
    RidgeNetwork,
)
from priorloom.operator import Identity, LinearOperator
from priorloom.steps.learned import Denoise
from priorloom.unrolled import Unrolled


def dncnn(operator: LinearOperator, *, width: int = 32, depth: int = 10) -> Unrolled:
    """DnCNN with a noise-level channel (Zhang et al., 2017).

    Parameters
    ----------
    width, depth
        Channels, and number of convolutions.
    """
    return _one_layer(operator, DnCNN(operator.domain.is_complex, width, depth))


def drunet(operator: LinearOperator, *, widths: tuple[int, ...] = (24, 40, 64, 96), blocks: int = 2) -> Unrolled:
    """A small DRUNet: bias-free, with a noise-level channel (Zhang et al., 2022).

    Parameters
    ----------
    widths
        Channels per level.
    blocks
        Residual blocks per level.
    """
    return _one_layer(operator, DRUNet(operator.domain.is_complex, widths, blocks))


def gradient_step(operator: LinearOperator, *, widths: tuple[int, ...] = (16, 32, 64), blocks: int = 1) -> Unrolled:
    """``I - grad g`` with ``g = 0.5 |x - N(x)|^2`` and a smooth DRUNet for N (Hurault et al., 2022).

    Parameters
    ----------
    widths, blocks
        Of the DRUNet.
    """
    network = DRUNet(operator.domain.is_complex, widths, blocks, nn.ELU, zero=False, limit=None)
    return _one_layer(operator, GradientStep(network))


def averaged(operator: LinearOperator, *, width: int = 32, depth: int = 6, average: float = 0.5) -> Unrolled:
    """``(1 - a) I + a N`` with a nonexpansive network N (Pesquet et al., 2021).

    Parameters
    ----------
    width, depth
        Channels, an even number, and number of convolutions.
    average
        a in (0, 1); up to a half the denoiser is firmly nonexpansive.
    """
    return _one_layer(operator, AveragedNetwork(operator.domain.is_complex, width, depth, average))


def ridge(operator: LinearOperator, *, side: int = 7, iterations: int = 10) -> Unrolled:
    """A regulariser of filters and Student-t potentials, trained as the denoiser that descends on it.

    Parameters
    ----------
    side
        The filters' side in pixels.
    iterations
        Accelerated gradient steps of the denoiser.
    """
    return _one_layer(operator, RidgeDenoiser(RidgeNetwork(operator.domain.is_complex, side), iterations))


def _one_layer(operator: LinearOperator, network: DenoisingNetwork) -> Unrolled:
    if not isinstance(operator, Identity):
        raise InputError(
            "operator of a denoiser", expected="the identity", got=type(operator).__name__,
            cure="give the config 'denoising' in the place of 'operator' and 'simulation'",
        )  # fmt: skip
    return Unrolled([Denoise(network)], back="adjoint")
