"""Parameters and starts of every step: numbers, one number per image, and what training differentiates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from priorloom import Functional, LinearOperator, Problem, Space, Step, Term, run
from priorloom.errors import InputError
from priorloom.functional import LeastSquares
from priorloom.operator import Gradient
from priorloom.steps import ADMM, CG, DRS, FISTA, HQS, ISTA, LSQR, PDHG
from priorloom_priors.functionals import L1

Gaussian = Callable[..., Tensor]

LEARNED = {"ISTA": ISTA, "FISTA": FISTA, "PDHG": PDHG, "ADMM": ADMM, "HQS": HQS, "DRS": DRS}
"""The steps with one learnable number."""


class Pixelwise(LinearOperator):
    """``x -> d x``, with a closed form for the x-update."""

    def __init__(self, d: Tensor) -> None:
        super().__init__(Space(tuple(d.shape), d.dtype), Space(tuple(d.shape), d.dtype))
        self.register_buffer("d", d)
        self.d: Tensor

    def _forward(self, x: Tensor) -> Tensor:
        return self.d * x

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.d * y

    def solve_normal(self, b: Tensor, rho: float | Tensor) -> Tensor | None:
        return b / (self.d**2 + rho)


class Distance(Functional):
    """``|z - y|_1``."""

    def __init__(self, space: Space, y: Tensor) -> None:
        super().__init__(space)
        self.register_buffer("y", y)
        self.y: Tensor

    def _value(self, x: Tensor) -> Tensor:
        return (x - self.y).abs().sum(-1)

    def _prox(self, x: Tensor, step: Tensor) -> Tensor:
        d = x - self.y
        return self.y + d.sign() * (d.abs() - step).clamp_min(0)


def lasso(A: LinearOperator, y: Tensor) -> Problem:
    return Problem(Term(LeastSquares(A.range, y), A), L1(A.domain, 0.05))


@pytest.mark.parametrize("name", LEARNED)
def test_one_number_per_image_is_not_one_per_column(name: str, gaussian: Gaussian) -> None:
    """Eight images of 8x8: a shape that broadcasts the wrong way round without a word."""
    A = Pixelwise(0.5 + gaussian(8, 8).sigmoid())
    y = gaussian(8, 8, 8, seed=1)
    values = torch.linspace(0.1, 0.9, 8, dtype=torch.float64)
    make = LEARNED[name]
    together = run(make(values), lasso(A, y), n=5, tol=1e-14)
    for i, value in enumerate(values):
        alone = run(make(float(value)), lasso(A, y[i]), n=5, tol=1e-14)
        torch.testing.assert_close(together.x[i], alone.x)
    assert together.residual is not None
    with pytest.raises(InputError, match=r"one per batch element \[8\], got \[3\]"):
        run(make(values[:3]), lasso(A, y), n=2)


@pytest.mark.parametrize("values", [(0.4, 0.4, 0.4), (0.4, 0.5, 0.3)], ids=["equal", "different"])
@pytest.mark.parametrize("terms", [False, True])
@pytest.mark.parametrize("name", LEARNED)
def test_derivatives_by_the_parameters_are_those_of_differences(
    name: str, terms: bool, values: tuple[float, ...], gaussian: Gaussian
) -> None:
    if terms and name in ("ISTA", "FISTA", "DRS"):
        pytest.skip("takes no operator terms")
    A = Pixelwise(0.5 + gaussian(6, 6).sigmoid())
    y = gaussian(2, 6, 6, seed=1)
    D = Gradient(A.domain)

    def image(*numbers: Tensor) -> Tensor:
        # By functional calls, so that gradcheck can move the numbers.
        data = Term(LeastSquares(A.range, y), A)
        problem = Problem(data, L1(A.domain, 0.05), [Term(L1(D.range, 0.1), D)] if terms else [])
        # Conjugate gradients that stop early are not what a dense solver is to the difference quotient.
        slot = {"x_update": dense_update} if name in ("ADMM", "HQS") else {}
        return run(nn.ModuleList([LEARNED[name](number, **slot) for number in numbers]), problem).x

    leaves = tuple(torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in values)
    assert torch.autograd.gradcheck(image, leaves)


def dense_update(system: Any) -> Tensor:
    """The x-update by a dense solver: exact, so that it can be differentiated."""
    n = system.space.size
    basis = torch.eye(n, dtype=system.b.dtype).reshape(n, 1, *system.space.shape)
    H = system.apply(basis.expand(n, *system.b.shape[:1], *system.space.shape)).flatten(2)
    x: Tensor = torch.linalg.solve(H.permute(1, 2, 0), system.b.flatten(1)[..., None])[..., 0]
    return x.reshape(system.b.shape)


@pytest.mark.parametrize("step", [*(make() for make in LEARNED.values()), CG(), LSQR()], ids=[*LEARNED, "CG", "LSQR"])
def test_a_start_serves_the_whole_batch(step: Step[Any], matrix: Any, gaussian: Gaussian) -> None:
    A = matrix(gaussian(20, 10))
    y = gaussian(3, 20, seed=1)
    data = Term(LeastSquares(A.range, y), A)
    problem = Problem(data) if isinstance(step, CG | LSQR) else lasso(A, y)
    start = gaussian(10, seed=2)
    one = run(step, problem, n=9, tol=1e-14, x0=start)
    many = run(step, problem, n=9, tol=1e-14, x0=start.expand(3, 10).clone())
    torch.testing.assert_close(one.x, many.x, rtol=0, atol=0)
    with pytest.raises(InputError, match=r"batch of the starting image: expected \[3\], got \[2\]"):
        run(step, problem, x0=gaussian(2, 10))


@pytest.mark.parametrize("step", [PDHG(), ADMM()])
def test_a_batch_with_somebody_elses_data_term(step: Step[Any], matrix: Any, gaussian: Gaussian) -> None:
    A = matrix(gaussian(20, 10))
    y = gaussian(3, 20, seed=1)

    def solve(y: Tensor) -> Tensor:
        return run(step, Problem(Term(Distance(A.range, y), A), L1(A.domain, 0.1)), n=20, tol=1e-14).x

    torch.testing.assert_close(solve(y), torch.stack([solve(v) for v in y]), atol=1e-9, rtol=0)


@pytest.mark.parametrize("make", [*LEARNED.values(), CG, LSQR, lambda: LSQR(damping=0.3)])
def test_a_blank_image_in_a_batch_leaves_the_gradients_finite(make: Any, gaussian: Gaussian) -> None:
    A = Pixelwise(0.5 + gaussian(6, 6).sigmoid())
    y = gaussian(3, 6, 6, seed=1)
    y[1] = 0
    y.requires_grad_()
    data = Term(LeastSquares(A.range, y), A)
    layers = nn.ModuleList([make() for _ in range(3)])
    krylov = isinstance(layers[0], CG | LSQR)
    x = run(layers, Problem(data, None if krylov else L1(A.domain, 0.05))).x
    (slope,) = torch.autograd.grad(x.sum(), y)
    assert bool(slope.isfinite().all())
    assert float(slope[0].abs().max()) > 0
