"""Anderson acceleration and steps at their fixed point, against dense solves, long unrolls and FISTA."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from priorloom import PnP, Problem, Space, Term, run
from priorloom.anderson import Mixture, advance, anderson, begin
from priorloom.constraints import StepSize
from priorloom.dense import DenseOperator
from priorloom.errors import InputError
from priorloom.functional import Functional, LeastSquares
from priorloom.lipschitz import certificate, step_bound
from priorloom.plug_and_play import RED
from priorloom.regularity import Regularity
from priorloom.steps import ADMM, FISTA, HQS, ISTA, PDHG, DataProximal, Step, converges
from priorloom.steps.equilibrium import Anderson, Equilibrium
from priorloom.steps.learned import Layer, LearnedWeight, NetworkPrior

DTYPES = [torch.float64, torch.complex128]
Gaussian = Callable[..., Tensor]


class L1(Functional):
    """``lam |x|_1``."""

    def __init__(self, space: Space, lam: float) -> None:
        super().__init__(space)
        self.lam = lam

    def _value(self, x: Tensor) -> Tensor:
        return self.lam * x.abs().sum(-1)

    def _prox(self, x: Tensor, step: Tensor) -> Tensor:
        return x * (1 - self.lam * step / x.abs().clamp_min(1e-300)).clamp_min(0)


class Shrinking(nn.Module):
    """``c W^H tanh(W x + b)`` on real coordinates with ``|W| = 1``: contracts by c, and is smooth."""

    def __init__(self, n: int, c: float = 0.9) -> None:
        super().__init__()
        W = torch.randn(n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
        self.W = nn.Parameter(W / torch.linalg.matrix_norm(W, 2))
        self.b = nn.Parameter(0.3 * W[0])
        self.c = c

    def forward(self, x: Tensor) -> tuple[Tensor]:
        flat = torch.view_as_real(x).flatten(-2) if x.is_complex() else x
        made = self.c * torch.tanh(flat @ self.W.T + self.b) @ self.W
        return (torch.view_as_complex(made.reshape(*x.shape, 2)) if x.is_complex() else made,)

    def lipschitz(self) -> float:
        return self.c


class Linear(nn.Module):
    """A symmetric linear denoiser with eigenvalues from 0 to 1."""

    def __init__(self, n: int) -> None:
        super().__init__()
        Q, _ = torch.linalg.qr(torch.randn(n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(4)))
        self.D = Q @ torch.diag(torch.linspace(0, 0.99, n, dtype=torch.float64)) @ Q.T

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        return x @ self.D.T

    def regularity(self, sigma: float) -> Regularity:
        return Regularity(1.0, 0.5, 1.0, True, True, "a symmetric matrix")

    def potential(self, x: Tensor, sigma: Tensor) -> Tensor:
        return 0.5 * (x * (x - x @ self.D.T)).sum(-1)


def least_squares(M: Tensor, y: Tensor, prior: Functional | None = None) -> Problem:
    A = DenseOperator(M)
    return Problem(Term(LeastSquares(A.range, y), A), prior)


def problem(gaussian: Gaussian, dtype: torch.dtype, n: int = 6, batch: int = 2) -> Problem:
    return least_squares(gaussian(n + 2, n, dtype=dtype), gaussian(batch, n + 2, seed=1, dtype=dtype))


def contraction(gaussian: Gaussian, dtype: torch.dtype, c: float, n: int = 40) -> tuple[Tensor, Tensor, Tensor]:
    """M of norm c and b, and the solution of ``x = M x + b``."""
    left, right = (torch.linalg.qr(gaussian(n, n, seed=s, dtype=dtype))[0] for s in (0, 1))
    spectrum = torch.linspace(-c / 2, c, n, dtype=torch.float64).to(dtype)
    M = 0.5 * left @ torch.diag(spectrum) @ left.mH + 0.5 * c * torch.diag(right.diagonal() / right.norm())
    M = c * M / torch.linalg.matrix_norm(M, 2)
    b = gaussian(3, n, seed=3, dtype=dtype)
    return M, b, torch.linalg.solve(torch.eye(n, dtype=dtype) - M, b.T).T


# The solver.


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("c", [0.9, 0.99])
def test_the_fixed_point_of_a_linear_contraction(gaussian: Gaussian, dtype: torch.dtype, c: float) -> None:
    M, b, expected = contraction(gaussian, dtype, c)
    space = Space((40,), dtype)
    settings: dict[str, Any] = {"tolerance": 1e-10, "max_iterations": 5000}
    plain = anderson(lambda x: x @ M.T + b, 0 * b, space, memory=0, **settings)
    fast = anderson(lambda x: x @ M.T + b, 0 * b, space, memory=8, **settings)
    for found in (plain, fast):
        assert bool(found.converged.all())
        assert found.residual.shape == (3,)
        # |x - x*| <= |f(x) - x| / (1 - c), Banach
        assert bool((space.norm(found.x - expected) <= 1.01e-10 * space.norm(expected) / (1 - c)).all())
    assert fast.iterations < 0.6 * plain.iterations


def test_no_memory_is_the_plain_iteration(gaussian: Gaussian) -> None:
    M, b, _ = contraction(gaussian, torch.float64, 0.9)
    x = 0 * b
    for _ in range(6):
        x = x @ M.T + b
    found = anderson(lambda x: x @ M.T + b, 0 * b, Space((40,), torch.float64), memory=0, tolerance=1e-30,
                     max_iterations=7)  # fmt: skip
    torch.testing.assert_close(found.x, x)
    assert (found.iterations, bool(found.converged.any())) == (7, False)


def test_a_full_memory_solves_a_linear_problem_in_as_many_steps_as_dimensions(gaussian: Gaussian) -> None:
    """Then the differences span the space (Walker and Ni, 2011: equivalent to GMRES)."""
    M, b, expected = contraction(gaussian, torch.float64, 0.9, n=6)
    found = anderson(lambda x: x @ M.T + b, 0 * b, Space((6,), torch.float64), memory=6, tolerance=1e-9,
                     max_iterations=12)  # fmt: skip
    assert bool(found.converged.all())
    torch.testing.assert_close(found.x, expected, rtol=1e-6, atol=1e-7)


def test_batch_elements_do_not_see_each_other(gaussian: Gaussian) -> None:
    M, b, _ = contraction(gaussian, torch.float64, 0.97)
    b = torch.stack([b[0], 1e6 * b[1], 0 * b[2]])
    space = Space((40,), torch.float64)
    together = anderson(lambda x: x @ M.T + b, torch.ones_like(b), space, tolerance=1e-8, max_iterations=500)
    for i in range(2):
        alone = anderson(
            lambda x, c=b[i]: x @ M.T + c, torch.ones_like(b[i]), space, tolerance=1e-8, max_iterations=500
        )
        torch.testing.assert_close(together.x[i], alone.x, rtol=1e-7, atol=0)
    assert float(together.x[2].abs().max()) < 1  # tends to 0, where no residual is relatively small


def test_an_averaged_map_that_does_not_contract(gaussian: Gaussian) -> None:
    """Proximal gradient for l1 with fewer equations than unknowns: to a minimiser, with a residual that never grows."""
    setting = least_squares(gaussian(10, 25), gaussian(2, 10, seed=1), L1(Space((25,), torch.float64), 0.3))
    step, space = ISTA(), setting.space
    start = step.init(setting, 5 * gaussian(2, 25, seed=7))
    mixture = begin(space, start.x, 5)
    refused = 0
    for _ in range(1500):
        after = advance(space, mixture, step(setting, type(start)(mixture.trial)).x)
        assert bool((after.residual <= mixture.residual + 1e-12).all())
        refused += int((after.residual == mixture.residual).sum())
        mixture = after
        if float(mixture.residual.max()) < 1e-8:
            break
    assert float(mixture.residual.max()) < 1e-8
    assert refused > 0  # the safeguard had work to do
    best = run(FISTA(), setting, n=20000, tol=1e-9).x
    torch.testing.assert_close(setting.objective(mixture.x), setting.objective(best), rtol=1e-7, atol=0)


def test_a_point_with_a_larger_residual_is_refused(gaussian: Gaussian) -> None:
    space = Space((4,), torch.float64)
    mixture = begin(space, gaussian(2, 4), 3)
    for _ in range(3):
        mixture = advance(space, mixture, 0.5 * mixture.trial + torch.arange(4.0) * mixture.trial.pow(2).mean())
    assert not bool(mixture.plain.any())
    bad = mixture.trial + torch.tensor([[1e3], [torch.nan]], dtype=torch.float64)
    after = advance(space, mixture, bad)
    assert bool(after.plain.all())
    for name in ("x", "image", "residual", "taken", "first"):
        assert torch.equal(getattr(after, name), getattr(mixture, name)), name
    assert torch.equal(after.trial, mixture.image)
    assert not bool(after.points.any() or after.residuals.any())


def test_without_a_fixed_point_the_best_is_kept() -> None:
    space = Space((1,), torch.float64)
    found = anderson(lambda x: 3 * x + x.square() + 2, torch.full((1, 1), -0.9, dtype=torch.float64), space, memory=0,
                     max_iterations=30)  # fmt: skip
    seen = torch.tensor([[-0.9]], dtype=torch.float64)
    relative = []
    for _ in range(30):
        image = 3 * seen + seen.square() + 2
        relative.append(float((image - seen).abs() / image.abs()))
        seen = image
        if not bool(seen.isfinite()):
            break
    assert float(found.residual) == pytest.approx(min(relative))
    assert not bool(found.converged)
    nothing = anderson(lambda x: x * torch.nan, torch.ones(2, 1, dtype=torch.float64), space)
    assert nothing.iterations == 1
    assert not bool(nothing.converged.any())


def test_a_start_at_the_fixed_point_stays() -> None:
    for x0 in (torch.zeros(2, 3), torch.ones(2, 3)):
        found = anderson(lambda x: x, x0, Space((3,)), tolerance=1e-12)
        assert torch.equal(found.x, x0)
        assert (found.iterations, bool(found.converged.all())) == (1, True)


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"memory": -1}, "memory of Anderson"),
        ({"tolerance": 0.0}, "tolerance of Anderson"),
        ({"tolerance": float("nan")}, "tolerance of Anderson"),
        ({"max_iterations": 0}, "max_iterations of Anderson"),
        ({"ridge": -1.0}, "ridge of Anderson"),
    ],
)
def test_bad_settings(settings: dict[str, Any], what: str) -> None:
    with pytest.raises(InputError, match=what):
        anderson(lambda x: x, torch.ones(3), Space((3,)), **settings)
    with pytest.raises(InputError, match="start of Anderson"):
        anderson(lambda x: x, torch.ones(4), Space((3,)))


# The layer.


def layer(dtype: torch.dtype, c: float = 0.9) -> Layer[Any]:
    torch.manual_seed(0)
    n = 12 if dtype.is_complex else 6
    return Layer(ISTA(StepSize()), NetworkPrior(Shrinking(n, c))).double()


def gradients(x: Tensor, target: Tensor, inner: nn.Module, y: Tensor) -> list[Tensor]:
    (x - target).abs().square().sum().backward()
    found = []
    for tensor in (*inner.parameters(), y):
        assert tensor.grad is not None
        found.append(tensor.grad)
        tensor.grad = None
    return found


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_implicit_gradient_is_that_of_a_long_unroll(gaussian: Gaussian, dtype: torch.dtype) -> None:
    inner = layer(dtype)
    y = gaussian(2, 8, seed=1, dtype=dtype).requires_grad_()
    A = gaussian(8, 6, dtype=dtype)
    target = gaussian(2, 6, seed=5, dtype=dtype)
    unrolled = run(nn.ModuleList([inner] * 400), least_squares(A, y)).x
    expected = gradients(unrolled, target, inner, y)
    x = run(nn.ModuleList([Equilibrium(inner, tolerance=1e-11, max_iterations=300)]), least_squares(A, y)).x
    torch.testing.assert_close(x, unrolled, rtol=1e-9, atol=1e-9)
    for ours, theirs in zip(gradients(x, target, inner, y), expected, strict=True):
        assert float((ours - theirs).norm() / theirs.norm()) < 1e-8
    # That of the last step alone, which the solve for u corrects, is another one.
    held = x.detach()
    last = inner(least_squares(A, y), inner.init(least_squares(A, y), held)).x
    wrong = gradients(last, target, inner, y)
    assert float((wrong[0] - expected[0]).norm() / expected[0].norm()) > 0.05


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_implicit_gradient_is_finite_differences(gaussian: Gaussian, dtype: torch.dtype) -> None:
    inner = layer(dtype, 0.8)
    equilibrium = Equilibrium(inner, tolerance=1e-13, max_iterations=300)
    A = gaussian(8, 6, dtype=dtype)
    y = gaussian(2, 8, seed=1, dtype=dtype).requires_grad_()
    names, values = zip(*equilibrium.named_parameters(), strict=True)

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([equilibrium])

        def forward(self, y: Tensor) -> Tensor:
            return run(self.layers, least_squares(A, y)).x

    whole = Whole()

    def output(y: Tensor, *parameters: Tensor) -> Tensor:
        given = {f"layers.0.{name}": p for name, p in zip(names, parameters, strict=True)}
        result: Tensor = torch.func.functional_call(whole, given, (y,))
        return result

    assert torch.autograd.gradcheck(output, (y, *values), fast_mode=True, atol=1e-6)


@pytest.mark.parametrize("step", [ISTA(), DataProximal()])
def test_the_derivative_in_the_measurement_of_a_linear_method(gaussian: Gaussian, step: Step[Any]) -> None:
    """With a linear denoiser the fixed point is a matrix times y; its rows by dense algebra."""
    M, n = gaussian(8, 6), 6
    denoiser, eye = Linear(n), torch.eye(n, dtype=torch.float64)
    y = gaussian(8, seed=1).requires_grad_()
    space = Space((n,), torch.float64)
    prior = RED(space, denoiser, 0.1) if isinstance(step, DataProximal) else PnP(space, denoiser, 0.1)
    t = 1 / float(torch.linalg.matrix_norm(M, 2)) ** 2
    # RED: A^T (A x - y) + x - D x = 0; PnP: x = D (x - t A^T (A x - y))
    D = denoiser.D
    if isinstance(step, DataProximal):
        matrix = torch.linalg.solve(M.T @ M + eye - D, M.T)
    else:
        matrix = torch.linalg.solve(eye - D @ (eye - t * M.T @ M), t * D @ M.T)
    x = Equilibrium(step, tolerance=1e-12, max_iterations=1000)
    problem = least_squares(M, y, prior)
    image = x(problem, x.init(problem)).x
    torch.testing.assert_close(image, matrix @ y, rtol=1e-6, atol=1e-8)
    for i in range(2):
        (row,) = torch.autograd.grad(image[i], y, retain_graph=True)
        torch.testing.assert_close(row, matrix[i], rtol=1e-5, atol=1e-7)


def test_memory_does_not_grow_with_the_iterations(gaussian: Gaussian) -> None:
    setting = problem(gaussian, torch.float64)
    inner = layer(torch.float64)

    def kept(layers: list[Step[Any]]) -> int:
        count = 0

        def pack(tensor: Tensor) -> Tensor:
            nonlocal count
            count += 1
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            run(nn.ModuleList(layers), setting).x.sum().backward()
        return count

    def solved(tolerance: float) -> tuple[int, int]:
        equilibrium = Equilibrium(inner, tolerance=tolerance, memory=0, max_iterations=500)
        return kept([equilibrium]), equilibrium(setting, equilibrium.init(setting)).found.iterations  # type: ignore[union-attr]

    (few, short), (many, long) = solved(1e-1), solved(1e-11)
    assert long > 4 * short
    assert few == many == kept([inner] * 20) - kept([inner] * 19)
    assert kept([inner] * 20) > 15 * many


def test_it_runs_repeated_as_a_layer_and_between_layers(gaussian: Gaussian) -> None:
    setting = least_squares(gaussian(25, 20), gaussian(2, 25, seed=1), L1(Space((20,), torch.float64), 0.3))
    expected = run(FISTA(), setting, n=10000, tol=1e-12).x
    equilibrium = Equilibrium(ISTA(), tolerance=1e-12, max_iterations=2000)
    repeated = run(equilibrium, setting, n=5, tol=1e-9)
    assert (repeated.iterations, repeated.converged) == (1, True)
    between = nn.ModuleList([Layer(ISTA(), LearnedWeight()), equilibrium, ISTA()]).double()
    for x in (repeated.x, run(nn.ModuleList([equilibrium]), setting).x, run(between, setting).x):
        torch.testing.assert_close(x, expected, rtol=1e-7, atol=1e-9)
    assert converges(equilibrium, setting)
    assert not converges(Equilibrium(ISTA(1e3)), setting)
    assert not converges(equilibrium, setting.with_prior(PnP(setting.space, Linear(20), 0.1)))


def test_the_state_says_what_was_reached(gaussian: Gaussian) -> None:
    setting = problem(gaussian, torch.float64)
    short = Equilibrium(layer(torch.float64), max_iterations=2, tolerance=1e-9)
    found = short(setting, short.init(setting)).found
    assert found is not None
    assert not bool(found.converged.any())
    inner = short.step(setting, short.step.init(setting, found.x)).x
    torch.testing.assert_close(found.residual, (inner - found.x).norm(dim=-1) / inner.norm(dim=-1))


def test_the_start_does_not_matter_and_gets_no_gradient(gaussian: Gaussian) -> None:
    setting = problem(gaussian, torch.float64)
    equilibrium = Equilibrium(layer(torch.float64), tolerance=1e-12, max_iterations=500)
    x0 = (100 * gaussian(2, 6, seed=9)).requires_grad_()
    x = equilibrium(setting, equilibrium.init(setting, x0)).x
    torch.testing.assert_close(x, equilibrium(setting, equilibrium.init(setting)).x, rtol=1e-9, atol=1e-10)
    assert torch.autograd.grad(x.sum(), x0, allow_unused=True) == (None,)


def test_it_is_differentiated_once(gaussian: Gaussian) -> None:
    setting = problem(gaussian, torch.float64)
    equilibrium = Equilibrium(layer(torch.float64))
    x = equilibrium(setting, equilibrium.init(setting)).x
    weights = equilibrium.step.prior.network.W
    with pytest.raises(InputError, match="derivative of an Equilibrium: expected a first one"):
        torch.autograd.grad(x.square().sum(), weights, create_graph=True)
    assert torch.autograd.grad(x.square().sum(), weights)[0].shape == weights.shape


def test_mixed_precision_is_switched_off_inside(gaussian: Gaussian) -> None:
    setting = problem(gaussian, torch.float64).float()
    equilibrium = Equilibrium(layer(torch.float64)).float()
    expected = equilibrium(setting, equilibrium.init(setting)).x
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = equilibrium(setting, equilibrium.init(setting)).x
        assert not torch.equal(equilibrium.step(setting, equilibrium.init(setting, expected)).x, inside)
    assert torch.equal(inside, expected)
    inside.sum().backward()


@pytest.mark.parametrize("step", [FISTA(), PDHG(), ADMM(), Equilibrium(ISTA()), Anderson(ISTA())])
def test_steps_that_keep_more_than_an_image_are_refused(gaussian: Gaussian, step: Step[Any]) -> None:
    setting = problem(gaussian, torch.float64).with_prior(L1(Space((6,), torch.float64), 0.3))
    with pytest.raises(InputError, match=rf"step inside \w+: expected one whose state .* got {type(step).__name__}"):
        Equilibrium(step).init(setting)
    with pytest.raises(InputError, match=f"got {type(step).__name__}"):
        run(nn.ModuleList([ISTA(), Equilibrium(step)]), setting)
    with pytest.raises(InputError, match=f"step inside Anderson: .* got {type(step).__name__}"):
        run(Anderson(step), setting)


def test_what_the_certificate_says(gaussian: Gaussian) -> None:
    """No number: a bound on the image that the layer starts from would say nothing of the measurement."""
    setting = problem(gaussian, torch.float64)
    assert step_bound(layer(torch.float64, 0.9), setting) == pytest.approx(0.9)
    found = certificate([Equilibrium(layer(torch.float64, 0.9))], setting)
    assert found.bound is None
    assert "contracts by 0.9: its fixed point is unique" in found.reason
    assert "no fixed point is guaranteed" in str(step_bound(Equilibrium(layer(torch.float64, 1.1)), setting))
    assert isinstance(step_bound(Anderson(ISTA()), setting), str)


# The accelerated step.


def iterations(step: Step[Any], setting: Problem, tol: float = 1e-7) -> tuple[int, Tensor]:
    found = run(step, setting, n=5000, tol=tol)
    assert found.converged
    return found.iterations, found.x


def test_accelerated_proximal_gradient_has_the_same_minimiser(gaussian: Gaussian) -> None:
    setting = least_squares(gaussian(25, 20), gaussian(3, 25, seed=1), L1(Space((20,), torch.float64), 0.3))
    plain, expected = iterations(ISTA(), setting)
    fast, x = iterations(Anderson(ISTA()), setting)
    assert fast < 0.5 * plain
    torch.testing.assert_close(x, expected, rtol=1e-4, atol=1e-5)
    best = run(FISTA(), setting, n=10000, tol=1e-12).x
    assert bool((setting.objective(x) <= setting.objective(best) * (1 + 1e-9)).all())
    assert converges(Anderson(ISTA()), setting)
    assert not converges(Anderson(HQS(1.0)), setting)


@pytest.mark.parametrize("dtype", DTYPES)
def test_accelerated_plug_and_play_has_the_same_fixed_point(gaussian: Gaussian, dtype: torch.dtype) -> None:
    class OnParts(Linear):
        def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
            return x @ self.D.T.to(x.dtype)

    M, y = gaussian(14, 20, dtype=dtype), gaussian(3, 14, seed=1, dtype=dtype)
    space = Space((20,), dtype)
    setting = least_squares(M, y, PnP(space, OnParts(20), 0.1))
    eye, D = torch.eye(20, dtype=dtype), OnParts(20).D.to(dtype)
    t = 1 / float(torch.linalg.matrix_norm(M, 2)) ** 2
    exact = torch.linalg.solve(eye - D @ (eye - t * M.mH @ M), t * D @ M.mH @ y.T).T
    plain, _ = iterations(ISTA(), setting)
    fast, x = iterations(Anderson(ISTA()), setting)
    assert fast < 0.5 * plain
    torch.testing.assert_close(x, exact, rtol=1e-4, atol=1e-4)


def test_an_accelerated_list_of_layers_is_the_acceleration(gaussian: Gaussian) -> None:
    setting = problem(gaussian, torch.float64)
    one = Anderson(ISTA())
    torch.testing.assert_close(run(nn.ModuleList([one]), setting).x, run(nn.ModuleList([ISTA()]), setting).x)
    repeated = run(one, setting, n=6, tol=1e-30).x
    torch.testing.assert_close(run(nn.ModuleList([one] * 6), setting).x, repeated)
    with pytest.raises(InputError, match="memory of Anderson acceleration"):
        Anderson(ISTA(), memory=0)


def test_a_mixture_is_a_state_of_tensors() -> None:
    assert isinstance(begin(Space((2,)), torch.ones(3, 2), 2), Mixture)
