"""The wavelet transform against PyWavelets and against what orthonormal means."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import pywt
import torch

from priorloom import Functional, PnP, PriorloomError, Registry, Space
from priorloom.errors import InputError
from priorloom.functional import LeastSquares
from priorloom.testing import check_operator, check_prior
from priorloom_priors.composite import Unitary
from priorloom_priors.wavelet import Wavelet, WaveletName, daubechies

NAMES: tuple[WaveletName, ...] = ("haar", "db2", "db3", "db4", "db5", "db6", "db7", "db8")
REGISTRY = Registry.discover()


class Bare(Functional):
    """``0.5 |x|^2``, without a conjugate."""

    def _value(self, x: torch.Tensor) -> torch.Tensor:
        return 0.5 * self.space.norm(x) ** 2

    def _prox(self, x: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        return x / (1 + step)


@pytest.mark.parametrize("moments", range(1, 9))
def test_filters_are_those_of_daubechies(moments: int) -> None:
    np.testing.assert_allclose(daubechies(moments), pywt.Wavelet(f"db{moments}").rec_lo, atol=1e-12)


@pytest.mark.filterwarnings("ignore:Level value")  # periodic filters longer than the image are a case to test
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(64, 32), (16, 16)])
def test_equals_pywavelets_where_sizes_divide(
    name: WaveletName, shape: tuple[int, int], generator: torch.Generator
) -> None:
    x = Space(shape, torch.float64).random(generator, (2,))
    for levels in (1, 3):
        coefficients = Wavelet(Space(shape, torch.float64), name, levels)(x)
        for ours, image in zip(coefficients, x, strict=True):
            theirs = pywt.wavedec2(image.numpy(), name, mode="periodization", level=levels)
            np.testing.assert_allclose(ours.numpy(), pywt.coeffs_to_array(theirs)[0], atol=1e-12)


@pytest.mark.parametrize("shape", [(230, 180), (7, 5), (3, 1), (33,), (5, 6, 7), (1,), (2, 3)])
def test_orthonormal_for_every_size(shape: tuple[int, ...], generator: torch.Generator) -> None:
    for name, dtype in itertools.product(("haar", "db4", "db8"), (torch.float64, torch.complex128)):
        W = Wavelet(Space(shape, dtype), name)
        x = W.domain.random(generator, (2,))
        torch.testing.assert_close(W.adjoint(W(x)), x, atol=1e-12, rtol=0)
        torch.testing.assert_close(W(W.adjoint(x)), x, atol=1e-12, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_is_a_conforming_operator(dtype: torch.dtype) -> None:
    for shape in ((16, 11), (9,)):
        assert len(check_operator(Wavelet(Space(shape, dtype), "db3", 2))) > 15


def test_a_smooth_image_is_sparse() -> None:
    """db4 has four vanishing moments: of a cubic, only coefficients near the edges remain."""
    t = torch.linspace(-1, 1, 64, dtype=torch.float64)
    cubic = t**3 - 0.5 * t
    W = Wavelet(Space((64,), torch.float64), "db4", 1)
    details = W(cubic)[32:]
    assert int((details.abs() > 1e-10).sum()) <= 4


def test_levels_and_names_are_checked() -> None:
    with pytest.raises(InputError, match="wavelet: expected one of haar, db2"):
        Wavelet(Space((8, 8)), "db9")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="levels of the wavelet transform: expected 0 to 3, got 4"):
        Wavelet(Space((8, 8)), "haar", 4)
    assert Wavelet(Space((230, 180)), "db4").levels == 4
    assert Wavelet(Space((256, 256)), "haar").approximation_shape == (8, 8)


@pytest.mark.parametrize("space", [Space((23, 18)), Space((16, 16), torch.complex64)], ids=str)
@pytest.mark.parametrize("approximation", [False, True])
def test_wavelet_prior_conforms(space: Space, approximation: bool) -> None:
    prior = REGISTRY.prior("wavelet-l1", space, lam=0.2, wavelet="db2", levels=2, approximation=approximation)
    assert any("Fenchel" in check.name for check in check_prior(prior))


def test_prox_is_pywavelets_thresholding(generator: torch.Generator) -> None:
    space = Space((32, 32), torch.float64)
    prior = REGISTRY.prior("wavelet-l1", space, lam=0.5, wavelet="db3", levels=2)
    assert isinstance(prior, Functional)
    x = space.random(generator)
    approximation, *details = pywt.wavedec2(x.numpy(), "db3", mode="periodization", level=2)
    soft = [tuple(pywt.threshold(d, 0.5 * 0.8, "soft") for d in level) for level in details]
    expected = pywt.waverec2([approximation, *soft], "db3", mode="periodization")
    np.testing.assert_allclose(prior.prox(x, 0.8).numpy(), expected, atol=1e-12)


def test_cycle_spinning_is_shift_invariant_and_a_prox(generator: torch.Generator) -> None:
    space = Space((8, 8), torch.float64)
    prior = REGISTRY.prior("wavelet-l1", space, lam=0.5, wavelet="haar", levels=1, cycle_spinning=2)
    assert isinstance(prior, Functional)
    x, z = space.random(generator, (5,)), space.random(generator, (5,))
    u, w = prior.prox(x, 0.6), prior.prox(z, 0.6)
    assert torch.equal(u, prior.prox(x, 0.6))
    # One level of Haar repeats every two pixels, so two shifts per axis make the prox invariant.
    torch.testing.assert_close(prior.prox(x.roll((1, 3), (-2, -1)), 0.6), u.roll((1, 3), (-2, -1)))
    slack = space.norm(u - w) ** 2 - space.inner(x - z, u - w)
    assert float(slack.max()) < 1e-12


@pytest.mark.parametrize("space", [Space((12, 10)), Space((8, 8), torch.complex64)], ids=str)
@pytest.mark.parametrize("cycle_spinning", [1, 2, 3])
def test_cycle_spinning_claims_what_holds(space: Space, cycle_spinning: int) -> None:
    prior = REGISTRY.prior("wavelet-l1", space, lam=0.5, wavelet="db2", levels=2, cycle_spinning=cycle_spinning)
    assert isinstance(prior, Functional)
    names = [check.name for check in check_prior(prior)]
    assert "prox at step 1 is firmly nonexpansive" in names
    assert ("prox at step 1 is the argmin" in names) == (cycle_spinning == 1)
    assert prior.has_value == prior.has_conjugate == (cycle_spinning == 1)
    if cycle_spinning > 1:
        with pytest.raises(PriorloomError, match="CycleSpinning has no value"):
            prior(space.zeros())


def test_cycle_spinning_is_the_prox_of_the_proximal_average(generator: torch.Generator) -> None:
    """``(x - prox(x, t)) / t`` is the gradient of the mean of the Moreau envelopes of the shifted functionals."""
    space, t = Space((6, 6), torch.float64), 0.7
    plain, spun = (
        REGISTRY.prior("wavelet-l1", space, lam=0.5, wavelet="haar", levels=1, cycle_spinning=n) for n in (1, 2)
    )
    assert isinstance(plain, Functional)
    assert isinstance(spun, Functional)
    x = space.random(generator).requires_grad_()
    envelopes = []
    for shift in itertools.product(range(2), repeat=2):
        rolled = x.roll(shift, (0, 1))
        u = plain.prox(rolled, t)
        envelopes.append(plain(u) + space.norm(u - rolled) ** 2 / (2 * t))
    (slope,) = torch.autograd.grad(torch.stack(envelopes).mean(), x)
    torch.testing.assert_close((x - spun.prox(x, t)) / t, slope)


def test_a_functional_behind_a_wavelet_offers_what_it_has() -> None:
    """A functional without a conjugate or a value has neither behind the transform."""
    space = Space((8, 8))
    W = Wavelet(space, "haar", 1)
    for f in (LeastSquares(space, space.zeros()), Bare(space), PnP(space, lambda x, sigma: x / (1 + sigma), 0.1)):
        behind = Unitary(f, W)
        claims = ("has_value", "is_convex", "has_conjugate")
        assert [getattr(behind, c) for c in claims] == [getattr(f, c) for c in claims]
        assert len(check_prior(behind)) >= 3
    assert Unitary(LeastSquares(space, space.zeros()), W).has_conjugate
    assert not Unitary(Bare(space), W).has_conjugate


def test_the_filters_stay_exact_through_single_precision(generator: torch.Generator) -> None:
    W = Wavelet(Space((12, 10)), "db3", 2).double().float().double()
    x = W.domain.random(generator)
    torch.testing.assert_close(W.adjoint(W(x)), x, atol=1e-13, rtol=0)


def test_cycle_spinning_needs_a_shift() -> None:
    with pytest.raises(InputError, match="cycle_spinning"):
        REGISTRY.prior("wavelet-l1", Space((8, 8)), lam=0.5, cycle_spinning=0)
