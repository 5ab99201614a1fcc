"""Classical MRI methods: zero-filled, CG-SENSE and wavelet compressed sensing.

The case is normalised: the 99th percentile of the zero-filled magnitude is 1. Where ``prior.lam`` is not set it follows
from the noise by the rules of :func:`tikhonov_weight` and :func:`wavelet_weight`. Their constants come from five images
(liver, heart, three heads) under four multi-coil masks and three noise levels, none of which a test, benchmark or
default case uses: in those 60 cases the error is 2.4 % (Tikhonov) and 1.5 % (wavelet) above that of the best lam on
average, and 18 % and 6 % at worst.
"""

from __future__ import annotations

from priorloom.modality import Case
from priorloom.pipeline import AROUND, Assembly, Pipeline, Slot, Solver, direct, regularised
from priorloom.steps import CG, FISTA

FACTOR, TIKHONOV_FLOOR, WAVELET_FLOOR = 2.0, 1e-4, 3e-4

_TIKHONOV, _WAVELET, _SOLVER = Slot("prior", "tikhonov"), Slot("prior", "wavelet-l1"), Solver()


def zero_filled() -> Pipeline:
    """The direct method: what was not measured is zero."""
    summary = "A^H y / sum |maps|^2, with zeros for what was not measured"
    return Pipeline("zero-filled", "direct", summary, _zero_filled, ("mri",))


def cg_sense() -> Pipeline:
    """Regularised iterative SENSE (Pruessmann et al., Magnetic Resonance in Medicine 46, 2001)."""
    summary = "min 0.5 |Ax - y|^2 + 0.5 lam |x|^2 by conjugate gradients"
    return Pipeline("cg-sense", "classical", summary, _cg_sense, ("mri",), {"prior.lam": AROUND})


def l1_wavelet() -> Pipeline:
    """Sparse MRI (Lustig, Donoho and Pauly, Magnetic Resonance in Medicine 58, 2007)."""
    summary = "min 0.5 |Ax - y|^2 + lam |Wx|_1 by FISTA"
    return Pipeline("l1-wavelet", "classical", summary, _l1_wavelet, ("mri",), {"prior.lam": AROUND})


def tikhonov_weight(case: Case) -> float:
    """``lam = max(2 sigma^2 / mean |x|^2, 1e-4)`` with x the zero-filled image.

    ``sigma^2 / mean |x|^2`` gives the best linear estimate of white images from white noise (Wiener). Images are not
    white: the outer k-space, most of which is not measured, has less than the mean power; hence the factor 2. The floor
    keeps conjugate gradients fast where the noise would not call for a prior.
    """
    power = float(case.operator.pseudo_inverse(case.measurement).abs().square().mean())
    return max(FACTOR * _variance(case) / power, TIKHONOV_FLOOR)


def wavelet_weight(case: Case) -> float:
    """``lam = max(2 sigma^2 / mean |x|, 3e-4)`` with x the zero-filled image.

    The most probable image under Gaussian noise and Laplace distributed coefficients of mean modulus b has
    ``lam = sigma^2 / b``, up to a constant; the mean magnitude stands for b. Weights proportional to sigma, as for
    denoising, oversmooth at low noise, because the data determine most coefficients. The floor is for the aliasing.
    """
    size = float(case.operator.pseudo_inverse(case.measurement).abs().mean())
    return max(FACTOR * _variance(case) / size, WAVELET_FLOOR)


def _variance(case: Case) -> float:
    assert case.noise_std is not None, "the host fills in noise_std before a pipeline sees a case"
    return case.noise_std**2


def _zero_filled(case: Case) -> Assembly:
    return direct(case, case.operator.pseudo_inverse(case.measurement))


def _cg_sense(case: Case, *, prior: Slot = _TIKHONOV, solver: Solver = _SOLVER) -> Assembly:
    start = case.operator.pseudo_inverse(case.measurement)
    return regularised(case, CG(), prior, tikhonov_weight(case), solver, start=start)


def _l1_wavelet(case: Case, *, prior: Slot = _WAVELET, solver: Solver = _SOLVER) -> Assembly:
    start = case.operator.pseudo_inverse(case.measurement)
    return regularised(case, FISTA(), prior, wavelet_weight(case), solver, start=start)
