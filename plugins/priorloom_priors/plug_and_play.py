"""Plug-and-play for every modality: a denoiser as a prior, in every algorithm that takes one.

What is unset is chosen from the noise. With s the noise in the image, ``s = noise_std sqrt(pixels) / |A|_F``:

* ADMM and Douglas-Rachford, whose step t (``1 / rho``) is free, denoise at ``STRENGTH s`` with ``t = sigma^2 /
  noise_std^2``, the Bayesian reading: the data are trusted by their noise, the denoised image by sigma.
* Proximal gradient and FISTA have ``t = 1 / |A|^2``, and PDHG is fast near ``t = 10 / |A|^2``. A denoiser that is the
  prox of ``sigma R`` solves the problem with the weight ``sigma / t``. They choose the sigma with the same weight as
  above, ``t b / STRENGTH`` with b the noise in ``A^H y``: a fixed part of the noise that the gradient step brings.
* Half-quadratic splitting goes down to ``HQS_LEVEL s``, and RED descends on the regulariser for noise s.

A level that is chosen stays in the range of a trained denoiser.
"""

from __future__ import annotations

from collections.abc import Callable

from priorloom import Case, Pipeline
from priorloom.errors import InputError
from priorloom.pipeline import Assembly, Slot, Solver
from priorloom.plug_and_play import ImplicitPrior
from priorloom.steps import ADMM, DRS, FISTA, HQS, ISTA, PDHG, DataProximal, GradientDescent
from priorloom.steps.accelerated import AcceleratedDescent

from .denoiser_slot import Phase
from .plan import Uncertified, plan_for, positive, with_free_step, with_gradient_step, with_red

PDHG_STEP = 10.0
"""Of 1, 3, 10, 30 and 100 the least at which PDHG, stopped at the default tolerance, is at its fixed point on a small
CT case; on an MRI case 1, 3 and 10 are."""
SIGMA_START, HQS_WEIGHT = 49 / 255, 0.23
"""Those of Zhang et al. (2022): the first noise level of the schedule, in units of the normalised image, and their
lambda. The levels fall in equal ratios, as theirs do."""
HQS_LEVEL = 0.5
"""The last noise level over the noise in the image: of 0.5, 0.7 and 1 the best, by up to 0.3 dB, on two CT slices and
four MRI scans of the training subjects, with the shipped DRUNets."""

CHAMBOLLE, DRUNET, RIDGE = (Slot("denoiser", name) for name in ("tv-chambolle", "drunet", "ridge"))
SOLVER = Solver(max_iterations=500, tolerance=5e-4)
"""A denoiser that iterates inside is itself only accurate to about 1e-3, which bounds the residual from below."""
GRADIENT_SOLVER = Solver(max_iterations=2000, tolerance=5e-5)
"""At 5e-4 both stop early on CT: on a small case the error is 0.103 and 0.070, here 0.052 and 0.049 (ADMM: 0.049)."""
RED_SOLVER = Solver(max_iterations=3000, tolerance=1e-5)


def pnp_pgd() -> Pipeline:
    """Plug-and-play proximal gradient: ``x+ = D(x - t A^H (Ax - y), sigma)``.

    References
    ----------
    Kamilov, Mansour and Wohlberg (2017), IEEE Signal Process. Lett. 24, 1872-1876.
    """
    return _pipeline("pnp-pgd", "a denoiser for the prior, by proximal gradient", _pnp_pgd)


def pnp_fista() -> Pipeline:
    """Plug-and-play FISTA: proximal gradient with momentum.

    References
    ----------
    Kamilov, Mansour and Wohlberg (2017), IEEE Signal Process. Lett. 24, 1872-1876.
    """
    return _pipeline("pnp-fista", "a denoiser for the prior, by FISTA", _pnp_fista)


def pnp_admm() -> Pipeline:
    """Plug-and-play ADMM: a denoiser in the place of the prior's prox.

    References
    ----------
    Venkatakrishnan, Bouman and Wohlberg (2013), Plug-and-play priors for model based reconstruction.
    """
    return _pipeline("pnp-admm", "a denoiser for the prior, by ADMM", _pnp_admm)


def pnp_hqs() -> Pipeline:
    """Half-quadratic splitting with a decreasing noise level (DPIR).

    ``x+ = argmin_x 0.5 |Ax - y|^2 + rho_k / 2 |x - z|^2``, ``z+ = D(x+, sigma_k)`` with ``sigma_k`` from `sigma_start`
    down to `sigma` in equal ratios over `steps` iterations, then fixed, and ``rho_k = weight noise_std^2 / sigma_k^2``.

    References
    ----------
    Zhang et al. (2022), Plug-and-play image restoration with deep denoiser prior, IEEE TPAMI 44, 6360-6376.
    """
    return _pipeline("pnp-hqs", "a denoiser at falling noise levels, by half-quadratic splitting", _pnp_hqs)


def pnp_drs() -> Pipeline:
    """Plug-and-play Douglas-Rachford splitting.

    References
    ----------
    Ryu et al. (2019), Plug-and-play methods provably converge with properly trained denoisers, ICML.
    """
    return _pipeline("pnp-drs", "a denoiser for the prior, by Douglas-Rachford splitting", _pnp_drs)


def pnp_pdhg() -> Pipeline:
    """Plug-and-play primal-dual: the denoiser as the primal prox, the data behind A as the dual; no linear system.

    References
    ----------
    Ono (2017), Primal-dual plug-and-play image restoration, IEEE Signal Process. Lett. 24, 1108-1112.
    """
    return _pipeline("pnp-pdhg", "a denoiser for the prior, by PDHG", _pnp_pdhg)


def red_gradient() -> Pipeline:
    """Regularisation by denoising, by gradient descent: ``x+ = x - t (A^H (Ax - y) + tau (x - D(x, sigma)))``.

    References
    ----------
    Romano, Elad and Milanfar (2017), The little engine that could, SIAM J. Imaging Sci. 10, 1804-1844.
    """
    return _pipeline("red-gradient", "tau (x - D(x)) for the prior's gradient, by gradient descent", _red_gradient)


def red_accelerated() -> Pipeline:
    """Regularisation by denoising with a denoiser that is ``I - grad g``, by accelerated descent on its objective.

    References
    ----------
    Li and Lin (2015), Accelerated proximal gradient methods for nonconvex programming, NeurIPS.
    """
    return _pipeline("red-accelerated", "tau g(x), D = I - grad g, by accelerated descent", _red_accelerated)


def red_proximal() -> Pipeline:
    """Regularisation by denoising, the data in the prox: for badly conditioned operators.

    References
    ----------
    Reehorst and Schniter (2019), Regularization by denoising: clarifications and new interpretations, IEEE Trans.
    Comput. Imaging 5, 52-67.
    """
    return _pipeline("red-proximal", "tau (x - D(x)) for the prior's gradient, the data in the prox", _red_proximal)


def _pipeline(name: str, how: str, assemble: Callable[..., Assembly]) -> Pipeline:
    return Pipeline(name, "pnp", f"0.5 |Ax - y|^2 with {how}", assemble)


def _pnp_pgd(
    case: Case,
    *,
    denoiser: Slot = CHAMBOLLE,
    sigma: float | None = None,
    step_size: float | None = None,
    phase: Phase = "smooth",
    uncertified: Uncertified = "damp",
    relaxation: float = 0.5,
    solver: Solver = GRADIENT_SOLVER,
) -> Assembly:
    """Proximal gradient.

    Parameters
    ----------
    sigma
        Strength of the denoiser: the standard deviation of the noise it removes, in units of the normalised image.
    step_size
        t, at most ``2 / |A|^2``; half of that when absent.
    phase
        Complex images: whether the denoiser sees them divided by the smooth phase of the first image, or as they are.
    uncertified
        Where no convergence theorem covers denoiser and algorithm: damp the iteration, or refuse to run.
    relaxation
        The share of a damped step that is taken; 1 is the whole step, undamped.
    """
    plan = plan_for(case, denoiser, phase, uncertified, relaxation, solver)
    return with_gradient_step(plan, ISTA, sigma, step_size)


def _pnp_fista(
    case: Case,
    *,
    denoiser: Slot = CHAMBOLLE,
    sigma: float | None = None,
    step_size: float | None = None,
    phase: Phase = "smooth",
    uncertified: Uncertified = "damp",
    relaxation: float = 0.5,
    solver: Solver = GRADIENT_SOLVER,
) -> Assembly:
    """FISTA.

    Parameters
    ----------
    sigma, phase, uncertified, relaxation
        As for pnp-pgd.
    step_size
        t, at most ``1 / |A|^2``; that when absent.
    """
    plan = plan_for(case, denoiser, phase, uncertified, relaxation, solver)
    return with_gradient_step(plan, FISTA, sigma, step_size)


def _pnp_admm(
    case: Case,
    *,
    denoiser: Slot = CHAMBOLLE,
    sigma: float | None = None,
    rho: float | None = None,
    phase: Phase = "smooth",
    uncertified: Uncertified = "damp",
    relaxation: float = 0.5,
    solver: Solver = SOLVER,
) -> Assembly:
    """ADMM.

    Parameters
    ----------
    sigma, phase, uncertified, relaxation
        As for pnp-pgd.
    rho
        ADMM's penalty, which weighs the denoised image against the data; ``noise_std^2 / sigma^2`` when absent.
    """
    plan = plan_for(case, denoiser, phase, uncertified, relaxation, solver)
    return with_free_step(plan, lambda rho: ADMM(rho=rho), sigma, "rho", rho, lambda t: 1 / t)


def _pnp_drs(
    case: Case,
    *,
    denoiser: Slot = CHAMBOLLE,
    sigma: float | None = None,
    step_size: float | None = None,
    phase: Phase = "smooth",
    uncertified: Uncertified = "damp",
    relaxation: float = 0.5,
    solver: Solver = SOLVER,
) -> Assembly:
    """Douglas-Rachford splitting.

    Parameters
    ----------
    sigma, phase, uncertified, relaxation
        As for pnp-pgd.
    step_size
        t of both proximal maps, any positive number; ``sigma^2 / noise_std^2`` when absent.
    """
    plan = plan_for(case, denoiser, phase, uncertified, relaxation, solver)
    return with_free_step(plan, lambda t: DRS(step=t), sigma, "step_size", step_size)


def _pnp_pdhg(
    case: Case,
    *,
    denoiser: Slot = CHAMBOLLE,
    sigma: float | None = None,
    step_size: float | None = None,
    phase: Phase = "smooth",
    uncertified: Uncertified = "damp",
    relaxation: float = 0.5,
    solver: Solver = SOLVER,
) -> Assembly:
    """PDHG with a fixed ratio.

    Parameters
    ----------
    sigma, phase, uncertified, relaxation
        As for pnp-pgd.
    step_size
        The primal step, any positive number; ``10 / |A|^2`` when absent. The dual one follows.
    """
    plan = plan_for(case, denoiser, phase, uncertified, relaxation, solver)
    # One block, scaled to norm 1: the primal step is the ratio.
    return with_gradient_step(plan, lambda t: PDHG(ratio=t), sigma, step_size, PDHG_STEP)


def _pnp_hqs(
    case: Case,
    *,
    denoiser: Slot = DRUNET,
    sigma: float | None = None,
    sigma_start: float | None = None,
    steps: int = 24,
    weight: float = HQS_WEIGHT,
    phase: Phase = "smooth",
    uncertified: Uncertified = "damp",
    relaxation: float = 0.5,
    solver: Solver = SOLVER,
) -> Assembly:
    """Half-quadratic splitting; damping begins when the noise level has come down.

    Parameters
    ----------
    sigma
        The last noise level, in units of the normalised image; half of the noise in the image when absent.
    sigma_start
        The first; 49/255, but not below sigma, when absent.
    steps
        In how many iterations it comes down.
    weight
        The prior's, relative to the Bayesian one.
    phase, uncertified, relaxation
        As for pnp-pgd.
    """
    plan = plan_for(case, denoiser, phase, uncertified, relaxation, solver)
    sigma = plan.pick("sigma", sigma, plan.filled.within(HQS_LEVEL * plan.noise_in_image))
    start = plan.pick("sigma_start", sigma_start, max(sigma, plan.filled.within(SIGMA_START)))
    if start < sigma:
        raise InputError("sigma_start", expected=f"at least sigma, {sigma:.3g}", got=start)
    if steps < 1:
        raise InputError("steps", expected="at least 1", got=steps)
    positive("weight", weight)
    lam = weight * plan.noise**2
    step = HQS(rho=lam / start**2, growth=(start / sigma) ** (2 / steps), steps=steps)
    prior = ImplicitPrior(case.operator.domain, plan.filled.denoiser, lam)
    return plan.assembly(step, prior, (start, sigma), after=steps)


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
