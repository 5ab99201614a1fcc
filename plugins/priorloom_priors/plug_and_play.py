"""Plug-and-play for every modality: a denoiser as a prior, in every algorithm that takes one.

What is unset is chosen from the noise. With s the noise in the image, ``s = noise_std sqrt(pixels) / |A|_F``:

* ADMM and Douglas-Rachford, whose step t (``1 / rho``) is free, denoise at ``STRENGTH s`` with ``t = sigma^2 /
  noise_std^2``, the Bayesian reading: the data are trusted by their noise, the denoised image by sigma.
* Proximal gradient and FISTA have ``t = 1 / |A|^2``, and PDHG is fast near ``t = 10 / |A|^2``. A denoiser that is the
  prox of ``sigma R`` solves the problem with the weight ``sigma / t``. They choose the sigma with the same weight as
  above, ``t b / STRENGTH`` with b the noise in ``A^H y``: a fixed part of the noise that the gradient step brings.
* Half-quadratic splitting goes down to ``HQS_LEVEL s``.

A level that is chosen stays in the range of a trained denoiser.
"""

from __future__ import annotations

from priorloom import Case, Pipeline
from priorloom.errors import InputError
from priorloom.pipeline import Assembly, Range, Slot, Solver
from priorloom.plug_and_play import ImplicitPrior
from priorloom.steps import ADMM, DRS, FISTA, HQS, ISTA, PDHG
from priorloom.steps.equilibrium import Anderson

from .denoiser_slot import Phase
from .plan import SIGMA, Uncertified, plan_for, plug_and_play, positive, with_free_step, with_gradient_step

PDHG_STEP = 10.0
"""Of 1, 3, 10, 30 and 100 the least at which PDHG, stopped at the default tolerance, is at its fixed point on a small
CT case; on an MRI case 1, 3 and 10 are."""
SIGMA_START, HQS_WEIGHT = 49 / 255, 0.23
"""Those of Zhang et al. (2022): the first noise level of the schedule, in units of the normalised image, and their
lambda. The levels fall in equal ratios, as theirs do."""
HQS_LEVEL = 0.5
"""The last noise level over the noise in the image: of 0.5, 0.7 and 1 the best, by up to 0.3 dB, on two CT slices and
four MRI scans of the training subjects, with the shipped DRUNets."""

CHAMBOLLE, DRUNET = Slot("denoiser", "tv-chambolle"), Slot("denoiser", "drunet")
SOLVER = Solver(max_iterations=500, tolerance=5e-4)
"""A denoiser that iterates inside is itself only accurate to about 1e-3, which bounds the residual from below."""
GRADIENT_SOLVER = Solver(max_iterations=2000, tolerance=5e-5)
"""At 5e-4 both stop early on CT: on a small case the error is 0.103 and 0.070, here 0.052 and 0.049 (ADMM: 0.049)."""


def pnp_pgd() -> Pipeline:
    """Plug-and-play proximal gradient: ``x+ = D(x - t A^H (Ax - y), sigma)``.

    References
    ----------
    Kamilov, Mansour and Wohlberg (2017), IEEE Signal Process. Lett. 24, 1872-1876.
    """
    return plug_and_play("pnp-pgd", "a denoiser for the prior, by proximal gradient", _pnp_pgd)


def pnp_fista() -> Pipeline:
    """Plug-and-play FISTA: proximal gradient with momentum.

    References
    ----------
    Kamilov, Mansour and Wohlberg (2017), IEEE Signal Process. Lett. 24, 1872-1876.
    """
    return plug_and_play("pnp-fista", "a denoiser for the prior, by FISTA", _pnp_fista)


def pnp_equilibrium() -> Pipeline:
    """Plug-and-play to its equilibrium ``x = D(x - t A^H (Ax - y), sigma)``, by Anderson acceleration.

    A point that is extrapolated from the last ones is taken while the residual does not grow and the moves are
    summable, which keeps the convergence of proximal gradient where its map is averaged; elsewhere nothing is proven.

    References
    ----------
    Walker and Ni (2011), SIAM J. Numer. Anal. 49, 1715-1735; Zhang, O'Donoghue and Boyd (2020), SIAM J. Optim. 30,
    3170-3197; for plug-and-play as an equilibrium Gilton, Ongie and Willett (2021), IEEE Trans. Comput. Imaging 7.
    """
    return plug_and_play("pnp-equilibrium", "a denoiser for the prior, the fixed point by Anderson acceleration",
                     _pnp_equilibrium)  # fmt: skip


def pnp_admm() -> Pipeline:
    """Plug-and-play ADMM: a denoiser in the place of the prior's prox.

    References
    ----------
    Venkatakrishnan, Bouman and Wohlberg (2013), Plug-and-play priors for model based reconstruction.
    """
    return plug_and_play("pnp-admm", "a denoiser for the prior, by ADMM", _pnp_admm)


def pnp_hqs() -> Pipeline:
    """Half-quadratic splitting with a decreasing noise level (DPIR).

    ``x+ = argmin_x 0.5 |Ax - y|^2 + rho_k / 2 |x - z|^2``, ``z+ = D(x+, sigma_k)`` with ``sigma_k`` from `sigma_start`
    down to `sigma` in equal ratios over `steps` iterations, then fixed, and ``rho_k = weight noise_std^2 / sigma_k^2``.

    References
    ----------
    Zhang et al. (2022), Plug-and-play image restoration with deep denoiser prior, IEEE TPAMI 44, 6360-6376.
    """
    how = "a denoiser at falling noise levels, by half-quadratic splitting"
    return plug_and_play("pnp-hqs", how, _pnp_hqs, {**SIGMA, "weight": Range(0.02, 2.0)})


def pnp_drs() -> Pipeline:
    """Plug-and-play Douglas-Rachford splitting.

    References
    ----------
    Ryu et al. (2019), Plug-and-play methods provably converge with properly trained denoisers, ICML.
    """
    return plug_and_play("pnp-drs", "a denoiser for the prior, by Douglas-Rachford splitting", _pnp_drs)


def pnp_pdhg() -> Pipeline:
    """Plug-and-play primal-dual: the denoiser as the primal prox, the data behind A as the dual; no linear system.

    References
    ----------
    Ono (2017), Primal-dual plug-and-play image restoration, IEEE Signal Process. Lett. 24, 1108-1112.
    """
    return plug_and_play("pnp-pdhg", "a denoiser for the prior, by PDHG", _pnp_pdhg)


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


def _pnp_equilibrium(
    case: Case,
    *,
    denoiser: Slot = CHAMBOLLE,
    sigma: float | None = None,
    step_size: float | None = None,
    memory: int = 5,
    phase: Phase = "smooth",
    uncertified: Uncertified = "damp",
    relaxation: float = 0.5,
    solver: Solver = GRADIENT_SOLVER,
) -> Assembly:
    """The fixed point of proximal gradient.

    Parameters
    ----------
    sigma, step_size, phase, uncertified
        As for pnp-pgd.
    memory
        How many differences of images the acceleration keeps; each takes two images.
    relaxation
        The share of a damped proximal gradient step, which is then accelerated; 1 is the whole step, undamped.
    """
    plan = plan_for(case, denoiser, phase, uncertified, relaxation, solver)
    return with_gradient_step(plan, lambda t: Anderson(ISTA(t), memory), sigma, step_size)


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
