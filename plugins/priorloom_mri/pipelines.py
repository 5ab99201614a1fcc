"""Classical MRI methods: zero-filled, CG-SENSE and wavelet compressed sensing.

The case is normalised: the 99th percentile of the zero-filled magnitude is 1. Where ``prior.lam`` is not set it follows
from the noise level, by the rules of :func:`tikhonov_weight` and :func:`wavelet_weight`. Their constants were chosen on
knee- and head-like images that no test, benchmark or default case uses, and serve every mask and noise level there.
"""

from __future__ import annotations

from torch import nn

from priorloom.modality import Case
from priorloom.pipeline import Assembly, Pipeline, Slot, Solver, backprojected_noise, least_squares, objective
from priorloom.problem import Problem
from priorloom.steps import CG, FISTA

TIKHONOV, TIKHONOV_FLOOR = 2.0, 1e-4
WAVELET, WAVELET_FLOOR = 0.25, 5e-4

_TIKHONOV, _WAVELET, _SOLVER = Slot("prior", "tikhonov"), Slot("prior", "wavelet-l1"), Solver()


def zero_filled() -> Pipeline:
    """The direct method: what was not measured is zero."""
    summary = "A^H y / sum |maps|^2, with zeros for what was not measured"
    return Pipeline("zero-filled", "direct", summary, _zero_filled, ("mri",))


def cg_sense() -> Pipeline:
    """Iterative SENSE (Pruessmann, Weiger, Bornert and Boesiger, Magn. Reson. Med. 46, 2001), regularised."""
    summary = "min 0.5 |Ax - y|^2 + 0.5 lam |x|^2 by conjugate gradients"
    return Pipeline("cg-sense", "classical", summary, _cg_sense, ("mri",))


def l1_wavelet() -> Pipeline:
    """Sparse MRI (Lustig, Donoho and Pauly, Magn. Reson. Med. 58, 2007)."""
    summary = "min 0.5 |Ax - y|^2 + lam |Wx|_1 by FISTA"
    return Pipeline("l1-wavelet", "classical", summary, _l1_wavelet, ("mri",))


def tikhonov_weight(case: Case) -> float:
    """``lam = max(2 sigma^2 / mean |x|^2, 1e-4)`` with x the zero-filled image.

    For white noise and white images ``sigma^2 / mean |x|^2`` gives the best linear estimate (Wiener). Images are not
    white: the outer k-space, most of which is not measured, has less than the mean power; hence the factor 2.
    """
    assert case.noise_std is not None, "the host fills in noise_std before a pipeline sees a case"
    power = float(case.operator.pseudo_inverse(case.measurement).abs().square().mean())
    return max(TIKHONOV * case.noise_std**2 / power, TIKHONOV_FLOOR)


def wavelet_weight(case: Case) -> float:
    """``lam = max(c std(A^H e), floor)``: a fraction of the noise in the zero-filled image."""
    return max(WAVELET * backprojected_noise(case), WAVELET_FLOOR)


def _zero_filled(case: Case) -> Assembly:
    x = case.operator.pseudo_inverse(case.measurement)
    return Assembly(Problem(least_squares(case)), nn.ModuleList([]), start=x)


def _cg_sense(case: Case, *, prior: Slot = _TIKHONOV, solver: Solver = _SOLVER) -> Assembly:
    lam = tikhonov_weight(case)
    problem = objective(case, prior.build(case.operator.domain, lam=lam))
    return Assembly(problem, CG(), solver=solver, parameters=_chosen(prior, lam), certificate="certified")


def _l1_wavelet(case: Case, *, prior: Slot = _WAVELET, solver: Solver = _SOLVER) -> Assembly:
    lam = wavelet_weight(case)
    problem = objective(case, prior.build(case.operator.domain, lam=lam))
    x = case.operator.pseudo_inverse(case.measurement)
    return Assembly(problem, FISTA(), x, solver, _chosen(prior, lam), "certified")


def _chosen(prior: Slot, lam: float) -> dict[str, float]:
    """The weight, where the user left it to the pipeline."""
    return {} if "lam" in prior.parameters else {"prior.lam": lam}
