"""CT with the library, step by step: filtered back-projection against total variation on a simulated low-dose scan.

Run it with ``python -m priorloom_apps.ct``. The objective is ``min_x 0.5 |Ax - y|^2 + lam TV(x) + i(x >= 0)``.
"""

from __future__ import annotations

import math

import torch

from priorloom import Functional, Problem, Registry, Term, run
from priorloom.functional import LeastSquares
from priorloom.metrics import metrics
from priorloom.steps import PDHG


def main() -> None:
    """Simulate, reconstruct twice, print the quality."""
    registry = Registry.discover()
    # 60 views of 128 x 128 pixels; lengths in mm, the image in 1/mm, the sinogram dimensionless.
    A = registry.operator("ct.parallel2d", image_shape=(128, 128), pixel_size=1.0, views=60)
    truth = torch.zeros(A.domain.shape)
    truth[24:104, 34:94] = 0.02
    truth[50:70, 50:60] = 0.03
    clean = A(truth)
    sigma = 0.01 * float(clean.max())
    y = clean + sigma * A.range.random(torch.Generator().manual_seed(0))

    fbp = A.pseudo_inverse(y)

    lam = 0.5 * sigma * A.norm() / math.sqrt(A.domain.size / A.range.size)
    tv = registry.prior("tv", A.domain, lam=lam)
    positive = registry.prior("nonnegativity", A.domain)
    # Total variation sits behind the gradient operator, positivity in the prox slot.
    assert isinstance(tv, Term)
    assert isinstance(positive, Functional)
    problem = Problem(Term(LeastSquares(A.range, y), A), positive, (tv,))
    solution = run(PDHG(), problem, n=2000, tol=1e-4)

    for name, image in (("FBP", fbp), ("TV", solution.x)):
        print(f"{name}: {metrics(image, truth, data_range=0.03)['psnr']:.2f} dB")
    print(f"PDHG: {solution.iterations} iterations, converged {solution.converged} ({solution.criterion})")


if __name__ == "__main__":
    main()
