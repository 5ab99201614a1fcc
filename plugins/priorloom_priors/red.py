"""Regularisation by denoising for every modality: ``tau (x - D(x, sigma))`` as the gradient of the prior.

What is unset is chosen from the noise: RED descends on the regulariser for the noise in the image, ``sigma = noise_std
sqrt(pixels) / |A|_F``; a level that is chosen stays in the range of a trained denoiser.
"""

from __future__ import annotations

from priorloom import Case, Pipeline
from priorloom.pipeline import Assembly, Range, Slot, Solver
from priorloom.steps import DataProximal, GradientDescent
from priorloom.steps.accelerated import AcceleratedDescent

from .denoiser_slot import Phase
from .plan import Uncertified, plan_for, plug_and_play, with_red

RIDGE = Slot("denoiser", "ridge")
SEARCH = {"tau": Range(0.1, 10.0, relative=True)}
RED_SOLVER = Solver(max_iterations=3000, tolerance=1e-5)


def red_gradient() -> Pipeline:
    """Regularisation by denoising, by gradient descent: ``x+ = x - t (A^H (Ax - y) + tau (x - D(x, sigma)))``.

    References
    ----------
    Romano, Elad and Milanfar (2017), The little engine that could, SIAM J. Imaging Sci. 10, 1804-1844.
    """
    return plug_and_play(
        "red-gradient", "tau (x - D(x)) for the prior's gradient, by gradient descent", _red_gradient, SEARCH
    )


def red_accelerated() -> Pipeline:
    """Regularisation by denoising with a denoiser that is ``I - grad g``, by accelerated descent on its objective.

    References
    ----------
    Li and Lin (2015), Accelerated proximal gradient methods for nonconvex programming, NeurIPS.
    """
    return plug_and_play(
        "red-accelerated", "tau g(x), D = I - grad g, by accelerated descent", _red_accelerated, SEARCH
    )


def red_proximal() -> Pipeline:
    """Regularisation by denoising, the data in the prox: for badly conditioned operators.

    References
    ----------
    Reehorst and Schniter (2019), Regularization by denoising: clarifications and new interpretations, IEEE Trans.
    Comput. Imaging 5, 52-67.
    """
    return plug_and_play(
        "red-proximal", "tau (x - D(x)) for the prior's gradient, the data in the prox", _red_proximal, SEARCH
    )


def _red_gradient(
    case: Case,
    *,
    denoiser: Slot = RIDGE,
    sigma: float | None = None,
    tau: float | None = None,
    step_size: float | None = None,
    phase: Phase = "smooth",
    uncertified: Uncertified = "damp",
    relaxation: float = 0.5,
    solver: Solver = RED_SOLVER,
) -> Assembly:
    """Gradient descent.

    Parameters
    ----------
    sigma
        The noise level that the denoiser is asked to remove, in units of the normalised image; the noise in the image
        when absent.
    tau
        The weight of ``x - D(x, sigma)``; ``noise_std^2 / sigma^2`` when absent, times the weight that a trained
        regulariser has learned for this noise level.
    step_size
        t; one over the Lipschitz constant of the whole gradient when absent.
    phase, uncertified, relaxation
        As for pnp-pgd.
    """
    plan = plan_for(case, denoiser, phase, uncertified, relaxation, solver)
    return with_red(plan, lambda t: GradientDescent(step_size=t), sigma, tau, step_size)


def _red_accelerated(
    case: Case,
    *,
    denoiser: Slot = RIDGE,
    sigma: float | None = None,
    tau: float | None = None,
    step_size: float | None = None,
    phase: Phase = "smooth",
    uncertified: Uncertified = "damp",
    relaxation: float = 0.5,
    solver: Solver = RED_SOLVER,
) -> Assembly:
    """Accelerated descent.

    Parameters
    ----------
    sigma, tau, phase, uncertified, relaxation
        As for red-gradient.
    step_size
        t; one over the Lipschitz constant of the whole gradient when absent.
    """
    plan = plan_for(case, denoiser, phase, uncertified, relaxation, solver)
    return with_red(plan, lambda t: AcceleratedDescent(step_size=t), sigma, tau, step_size)


def _red_proximal(
    case: Case,
    *,
    denoiser: Slot = RIDGE,
    sigma: float | None = None,
    tau: float | None = None,
    step_size: float | None = None,
    phase: Phase = "smooth",
    uncertified: Uncertified = "damp",
    relaxation: float = 0.5,
    solver: Solver = RED_SOLVER,
) -> Assembly:
    """Proximal steps on the data.

    Parameters
    ----------
    sigma, tau, phase, uncertified, relaxation
        As for red-gradient.
    step_size
        t; one over the Lipschitz constant of ``tau (x - D(x, sigma))`` when absent.
    """
    plan = plan_for(case, denoiser, phase, uncertified, relaxation, solver)
    return with_red(plan, lambda t: DataProximal(step_size=t), sigma, tau, step_size)
