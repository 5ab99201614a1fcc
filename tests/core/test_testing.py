"""The conformance kit accepts what is right, and rejects what is wrong with the figure."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import Tensor

from priorloom import Functional, LinearOperator, Space, Term
from priorloom.errors import PriorloomError
from priorloom.functional import LeastSquares, Zero
from priorloom.operator import Gradient, Identity, Stack
from priorloom.plug_and_play import PnP
from priorloom.testing import Check, ConformanceError, check_denoiser, check_functional, check_operator, check_prior

SPACE = Space((6, 5))


class Matrix(LinearOperator):
    """A dense matrix, with the adjoint scaled by `fault`."""

    def __init__(self, dtype: torch.dtype = torch.float32, fault: float = 1.0, norm_fault: float = 1.0) -> None:
        super().__init__(Space((3, 4), dtype), Space((5,), dtype))
        self.fault, self.norm_fault = fault, norm_fault
        a = Space((5, 12), dtype).random(torch.Generator().manual_seed(3))
        self.register_buffer("a", a)
        self.a: Tensor

    def _forward(self, x: Tensor) -> Tensor:
        return x.flatten(-2) @ self.a.T

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.fault * (y @ self.a.conj()).unflatten(-1, (3, 4))

    def _norm(self) -> float | None:
        return self.norm_fault * float(torch.linalg.matrix_norm(self.a, 2))


class Affine(Matrix):
    def _forward(self, x: Tensor) -> Tensor:
        return super()._forward(x) + 0.01


class Bent(Matrix):
    def _forward(self, x: Tensor) -> Tensor:
        return super()._forward(x + 0.01 * x.abs())


class Conjugating(Matrix):
    """Real-linear only."""

    def _forward(self, x: Tensor) -> Tensor:
        return super()._forward(x.conj())


class Nan(Matrix):
    def _forward(self, x: Tensor) -> Tensor:
        y = super()._forward(x)
        return y / torch.where(y == 0, torch.nan, 1.0)


class LeftBehind(LinearOperator):
    """Weights in a plain attribute, or in a container: no .to() finds them."""

    def __init__(self, container: type) -> None:
        super().__init__(SPACE, SPACE)
        weights = SPACE.random(torch.Generator().manual_seed(4))
        self.kept = weights if container is Tensor else {0: weights} if container is dict else container([weights])

    def _forward(self, x: Tensor) -> Tensor:
        weights: Tensor = self.kept if isinstance(self.kept, Tensor) else self.kept[0]
        return weights * x

    _adjoint = _forward


class OnlySingle(Matrix):
    has_double = False


class Forgetful(Matrix):
    """Another matrix after .double()."""

    def _forward(self, x: Tensor) -> Tensor:
        return super()._forward(x) * (1.001 if x.dtype == torch.float64 else 1.0)

    def _adjoint(self, y: Tensor) -> Tensor:
        return super()._adjoint(y) * (1.001 if y.dtype == torch.float64 else 1.0)


class RealFourier(LinearOperator):
    """The unitary FFT of a real image: linear over the real numbers."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__(SPACE.with_dtype(dtype), SPACE.with_dtype(dtype.to_complex()))

    def _forward(self, x: Tensor) -> Tensor:
        return torch.fft.fft2(x.to(self.range.dtype), norm="ortho")

    def _adjoint(self, y: Tensor) -> Tensor:
        return torch.fft.ifft2(y, norm="ortho").real


class Radon(LinearOperator):
    """scikit-image's radon, and its iradon as the adjoint: filtered, so that it is none."""

    def __init__(self, filter_name: str | None) -> None:
        super().__init__(Space((16, 16)), Space((23, 12)))
        self.filter_name = filter_name
        self.angles = np.linspace(0, 180, 12, endpoint=False)

    def _forward(self, x: Tensor) -> Tensor:
        from skimage.transform import radon

        images = x.detach().reshape(-1, 16, 16).numpy()
        sinograms = [radon(image, self.angles, circle=False) for image in images]
        return torch.from_numpy(np.stack(sinograms)).to(x).reshape(*x.shape[:-2], 23, 12)

    def _adjoint(self, y: Tensor) -> Tensor:
        from skimage.transform import iradon

        sinograms = y.detach().reshape(-1, 23, 12).double().numpy()
        name = self.filter_name
        images = [iradon(s, self.angles, output_size=16, filter_name=name, circle=False) for s in sinograms]
        return torch.from_numpy(np.stack(images)).to(y).reshape(*y.shape[:-2], 16, 16)


def gap_in(error: ConformanceError) -> float:
    found = re.search(r"dot test.*expected at most \S+, got (\S+);", str(error))
    assert found, str(error)
    return float(found[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64, torch.complex128])
def test_good_operators_pass(dtype: torch.dtype) -> None:
    space = SPACE.with_dtype(dtype)
    stack = Stack([Gradient(space), 2 * Identity(space)])
    fourier = RealFourier(dtype.to_real())
    for operator in (Matrix(dtype), Matrix(dtype).H, Gradient(space), Identity(space), stack, fourier, fourier.H):
        checks = check_operator(operator)
        assert all(isinstance(c, Check) for c in checks)
        assert any(c.name.startswith("dot test") and c.figure < 1e-5 for c in checks)


def test_operators_of_a_single_precision_part_pass() -> None:
    S = OnlySingle()
    for operator in (S, S.H, S @ Identity(S.domain), Stack([Matrix(), S])):
        assert not any("double" in c.name for c in check_operator(operator))


@pytest.mark.parametrize("filter_name", ["ramp", None])
def test_iradon_is_rejected_with_the_gap(filter_name: str | None) -> None:
    A = Radon(filter_name)
    with pytest.raises(ConformanceError, match="dot test") as caught:
        check_operator(A)
    # The figure in the message is a dot test's: at least the one that this simple pair shows.
    x = torch.ones(16, 16)
    circle = A(x)
    by_hand = abs(float((circle * circle).sum() - (x * A.adjoint(circle)).sum())) / float(circle.norm() ** 2)
    assert by_hand > 0.01
    assert gap_in(caught.value) >= 0.99 * by_hand


@pytest.mark.parametrize("fault", [2.0, 1.001])
def test_wrong_scale_is_rejected_with_the_gap(fault: float) -> None:
    with pytest.raises(ConformanceError) as caught:
        check_operator(Matrix(fault=fault))
    assert gap_in(caught.value) == pytest.approx(fault - 1, rel=0.1)


@pytest.mark.parametrize(
    ("operator", "check"),
    [
        (Affine(), "linear"),
        (Bent(), "linear"),
        (Conjugating(torch.complex64), "linear"),
        (Nan(), "image of zero"),
        (Matrix(norm_fault=0.9), "norm interval"),
        (Matrix(norm_fault=1.1), "norm interval"),
        (LeftBehind(Tensor), r"moves every tensor.*LeftBehind\.kept left on cpu"),
        (LeftBehind(list), r"LeftBehind\.kept left on cpu"),
        (LeftBehind(tuple), r"LeftBehind\.kept left on cpu"),
        (2 * LeftBehind(dict), r"LeftBehind\.kept left on cpu"),
        (Forgetful(), r"\.double\(\) computes the same"),
    ],
)
def test_faulty_operators_are_rejected(operator: LinearOperator, check: str) -> None:
    with pytest.raises(ConformanceError, match=check) as caught:
        check_operator(operator)
    assert isinstance(caught.value, PriorloomError | AssertionError)
    assert "expected" in str(caught.value)
    assert "got" in str(caught.value)


class Absolute(Functional):
    """The L1 norm, with a prox whose step is off by `fault`."""

    has_conjugate = True

    def __init__(self, space: Space, fault: float = 1.0, radius: float = 1.0) -> None:
        super().__init__(space)
        self.fault, self.radius = fault, radius

    def _value(self, x: Tensor) -> Tensor:
        return x.abs().sum(self.space.dims)

    def _prox(self, x: Tensor, step: Tensor) -> Tensor:
        return x.sgn() * (x.abs() - self.fault * step).clamp_min(0)

    def _conjugate(self, z: Tensor) -> Tensor:
        largest = z.abs().amax(self.space.dims)
        return torch.where(largest <= self.radius * 1.0001, 0.0, torch.inf)


class Quadratic(Functional):
    is_quadratic = True

    def __init__(self, space: Space, slope: float = 1.0, lipschitz: float = 1.0) -> None:
        super().__init__(space)
        self.slope, self.lipschitz = slope, lipschitz

    def _value(self, x: Tensor) -> Tensor:
        return 0.5 * self.space.norm(x) ** 2

    def _gradient(self, x: Tensor) -> Tensor:
        return self.slope * x

    def gradient_lipschitz(self) -> float | None:
        return self.lipschitz


class Hard(Functional):
    """Hard thresholding calls itself the prox of a convex functional."""

    def _value(self, x: Tensor) -> Tensor:
        return 0.5 * (x != 0).flatten(-2).sum(-1).to(x.dtype)

    def _prox(self, x: Tensor, step: Tensor) -> Tensor:
        return torch.where(x.abs() > step.sqrt(), x, 0.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64, torch.float64])
def test_good_functionals_pass(dtype: torch.dtype, generator: torch.Generator) -> None:
    space = SPACE.with_dtype(dtype)
    y = space.random(generator)
    for f in (Absolute(space), Zero(space), LeastSquares(space, y), Quadratic(space)):
        assert len(check_functional(f)) > 3
    assert len(check_prior(Term(Absolute(Gradient(space).range), Gradient(space)))) > 20


def test_plug_and_play_has_a_prox_only() -> None:
    names = [c.name for c in check_functional(PnP(SPACE, Smoother(), 0.1))]
    assert "prox: a step per image equals single images" in names
    assert not any("argmin" in name or "value" in name for name in names)


@pytest.mark.parametrize(
    ("f", "check"),
    [
        (Absolute(SPACE, fault=2.0), "argmin"),
        (Absolute(SPACE, fault=0.9), "argmin"),
        (Absolute(SPACE, radius=0.5), "Fenchel-Young"),
        (Quadratic(SPACE, slope=2.0), "autograd"),
        (Quadratic(SPACE, lipschitz=0.5), "Lipschitz"),
        (Hard(SPACE), "firmly nonexpansive"),
    ],
)
def test_faulty_functionals_are_rejected(f: Functional, check: str) -> None:
    with pytest.raises(ConformanceError, match=check):
        check_functional(f)


class Smoother:
    """Averages neighbours, more so with more noise; `fault` names what it does wrong."""

    def __init__(self, fault: str = "") -> None:
        self.fault = fault

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        weight = sigma / (sigma + 0.05)
        mean = (x + x.roll(1, -1) + x.roll(-1, -1) + x.roll(1, -2) + x.roll(-1, -2)) / 5
        if self.fault == "in place":
            x.mul_(0.99)
        if self.fault == "weak":
            return x
        if self.fault == "strong":
            return mean
        if self.fault == "random":
            return x + weight * (mean - x) + 1e-3 * torch.randn_like(x)
        if self.fault == "batch":
            return x + weight * (mean - x).mean(0, keepdim=True) if x.ndim > 2 else x + weight * (mean - x)
        result = x + weight * (mean - x)
        return result.double() if self.fault == "dtype" else result


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_a_good_denoiser_passes(dtype: torch.dtype) -> None:
    checks = check_denoiser(Smoother(), Space((24, 20), dtype))
    assert {c.name: c.figure for c in checks}["share of the noise that is left"] < 0.8


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        ("dtype", "output of the denoiser"),
        ("in place", "input of the denoiser"),
        ("random", "same output twice"),
        ("batch", "batch equals stack"),
        ("weak", "share of the noise"),
        ("strong", "sigma goes to zero"),
    ],
)
def test_faulty_denoisers_are_rejected(fault: str, check: str) -> None:
    with pytest.raises(ConformanceError, match=check):
        check_denoiser(Smoother(fault), Space((24, 20)))
