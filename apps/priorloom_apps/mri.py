"""MRI with the library, step by step: zero-filled against wavelet-sparse reconstruction of undersampled k-space.

Run it with ``python -m priorloom_apps.mri``. The objective is ``min_x 0.5 |Ax - y|^2 + lam |W x|_1`` with an
orthonormal wavelet transform W. First it is solved to convergence; then the same kind of step is unrolled into layers
with step sizes of their own, through which gradients flow.
"""

from __future__ import annotations

import torch
from torch import nn

from priorloom import Functional, Problem, Registry, Term, run
from priorloom.functional import LeastSquares
from priorloom.metrics import metrics
from priorloom.steps import FISTA, ISTA


def main() -> None:
    """Simulate, reconstruct, print the quality; then take one gradient through the unrolled iteration."""
    registry = Registry.discover()
    # A phantom with smooth phase, 8 coils, a quarter of k-space; images are complex, metrics are of the magnitude.
    (case,) = registry.modality("mri").cases(registry, {}, seed=0, acceleration=4.0)
    A, y, truth = case.operator, case.measurement, case.truth
    assert truth is not None

    zero_filled = A.pseudo_inverse(y)

    prior = registry.prior("wavelet-l1", A.domain, lam=0.002, wavelet="haar")
    assert isinstance(prior, Functional)
    problem = Problem(Term(LeastSquares(A.range, y), A), prior)
    solution = run(FISTA(), problem, n=500, tol=1e-4)

    peak = float(truth.abs().max())
    for name, image in (("zero-filled", zero_filled), ("l1-wavelet", solution.x)):
        print(f"{name}: {metrics(image.abs(), truth.abs(), data_range=peak)['psnr']:.2f} dB")
    print(f"FISTA: {solution.iterations} iterations, converged {solution.converged} ({solution.criterion})")

    # Unrolled: the same step, listed, each layer with a learnable step size.
    step = 1 / A.norm() ** 2
    layers = nn.ModuleList([ISTA(nn.Parameter(torch.tensor(step))) for _ in range(5)])
    loss = (run(layers, problem).x - truth).abs().square().mean()
    slopes = [float(g) for g in torch.autograd.grad(loss, list(layers.parameters()))]
    print(
        f"5 unrolled layers: loss {float(loss.detach()):.4f}, d loss / d step of each layer",
        [f"{g:.1e}" for g in slopes],
    )


if __name__ == "__main__":
    main()
