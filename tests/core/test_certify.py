"""Certificates: claims against measurements, and verdicts on iterations against runs of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from priorloom import PnP, Problem, Space, Term
from priorloom.certify import certify_denoiser, judge
from priorloom.errors import InputError
from priorloom.functional import LeastSquares
from priorloom.lipschitz import jacobian_norm
from priorloom.networks import AveragedNetwork, DnCNN, DRUNet, RidgeNetwork
from priorloom.networks.bounds import convolution_norms, layered_bounds
from priorloom.operator import Identity
from priorloom.plug_and_play import Denoiser, Rephased
from priorloom.regularity import Regularity
from priorloom.steps import ISTA

SPACE = Space((8, 8), torch.float64)


class Scaled(nn.Module):
    """``factor D``, of which nothing is said, or what the test says."""

    def __init__(self, denoiser: nn.Module, factor: float, claim: Regularity | None = None) -> None:
        super().__init__()
        self.denoiser, self.factor, self.claim = denoiser, factor, claim
        if claim is not None:
            self.regularity = lambda sigma: claim

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        made: Tensor = self.factor * self.denoiser(x, sigma)
        return made


class Filter(nn.Module):
    """``D x = M x`` for a matrix, with what is proven of it."""

    def __init__(self, M: Tensor, known: Regularity) -> None:
        super().__init__()
        self.M, self.known = M, known

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        return (x.flatten(-2) @ self.M.T).unflatten(-1, x.shape[-2:])

    def regularity(self, sigma: float) -> Regularity:
        return self.known

    def potential(self, x: Tensor, sigma: Tensor) -> Tensor:
        return 0.5 * (x * (x - self(x, sigma))).sum((-2, -1))


def averaged(average: float = 0.5, is_complex: bool = False, seed: int = 0) -> AveragedNetwork:
    torch.manual_seed(seed)
    return AveragedNetwork(is_complex, width=4, depth=2, average=average).double()


def images(count: int = 1, space: Space = SPACE) -> list[Tensor]:
    return list(space.random(torch.Generator().manual_seed(5), (count,)))


def plugged(denoiser: Denoiser) -> Problem:
    """Denoising by proximal gradient."""
    return Problem(Term(LeastSquares(SPACE, images()[0]), Identity(SPACE)), PnP(SPACE, denoiser, 0.1))


# Reports


def test_a_scaled_network_is_of_no_class_and_its_averaged_original_is_certified() -> None:
    network = averaged(0.3)
    with torch.no_grad():  # N close to the identity, so that 1.3 D really expands
        for part in network.network:
            if hasattr(part, "weight"):
                part.weight.zero_()[:, :, 1, 1] = torch.eye(*part.weight.shape[:2])
    good = certify_denoiser(network, SPACE, 0.1, images())
    bad = certify_denoiser(Scaled(network, 1.3), SPACE, 0.1, images())
    assert (good.verdict, bad.verdict, bad.kind) == ("certified", "none", "none")
    assert good.lower <= 1 + 1e-9
    assert bad.lower > 1.05
    assert bad.upper is None
    assert judge(ISTA(), plugged(network)).certified
    found = judge(ISTA(), plugged(Scaled(network, 1.3)))
    assert not found.certified
    assert "class 'none'" in found.reason
    assert found.remedy == "none"


@pytest.mark.parametrize(
    "claim",
    [Regularity(lipschitz=1.0), Regularity(averaged=0.5), Regularity(residual=0.1), Regularity(lipschitz=0.5)],
)
def test_a_claim_that_a_measurement_exceeds_is_worth_nothing(claim: Regularity) -> None:
    report = certify_denoiser(Scaled(averaged(0.1), 1.3, claim), SPACE, 0.1, images())
    assert report.contradiction
    assert (report.verdict, report.kind) == ("none", "none")
    assert report.to_json()["verdict"] == "none"


def test_an_averaged_claim_is_held_against_its_nonexpansive_part() -> None:
    """-I is nonexpansive, and 1/2-averaged it is not, which neither the norm of D nor of I - D shows."""
    honest = certify_denoiser(Scaled(averaged(), 0.0), SPACE, 0.1, images())
    assert honest.lower == 0
    M = -torch.eye(SPACE.size, dtype=SPACE.dtype)
    report = certify_denoiser(Filter(M, Regularity(averaged=0.5)), SPACE, 0.1, images())
    assert report.measured[0].nonexpansive == pytest.approx(3.0)
    assert "N in D" in report.contradiction
    assert not certify_denoiser(Filter(M, Regularity(averaged=1.0)), SPACE, 0.1, images()).contradiction


def test_a_gradient_has_a_symmetric_jacobian() -> None:
    torch.manual_seed(0)
    ridge = RidgeNetwork(False, side=3).double()
    report = certify_denoiser(ridge, SPACE, 0.1, images())
    assert not report.contradiction
    assert report.measured[0].asymmetry is not None
    assert report.measured[0].asymmetry < 1e-6
    claim = Regularity(lipschitz=1.0, gradient=True)
    wrong = certify_denoiser(Scaled(averaged(0.9), 1.0, claim), SPACE, 0.1, images())
    assert "not symmetric" in wrong.contradiction


def test_difference_quotients_where_there_is_no_gradient() -> None:
    """Of a linear map, symmetric, they find the norm as power iteration does."""
    values = torch.linspace(0.3, 0.7, SPACE.size, dtype=SPACE.dtype)
    values[0], values[1] = 0.1, 0.9
    M = torch.diag(values)

    def plain(x: Tensor, sigma: Tensor) -> Tensor:
        return (x.detach().flatten(-2) @ M).unflatten(-1, x.shape[-2:])

    report = certify_denoiser(plain, SPACE, 0.1, images(), iterations=100)
    assert report.how == "difference quotients"
    assert report.lower == pytest.approx(0.9, rel=1e-3)
    assert report.lower_residual == pytest.approx(0.9, rel=1e-3)
    assert report.convolutions == ()
    assert report.verdict == "none"


def test_a_denoiser_that_draws_anew_is_of_no_class() -> None:
    generator = torch.Generator().manual_seed(0)

    class Drawn(Filter):
        def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
            return 0.1 * x + 1e-9 * torch.randn(x.shape, generator=generator, dtype=x.dtype)

    report = certify_denoiser(Drawn(torch.eye(1), Regularity(averaged=0.5)), SPACE, 0.1, images())
    assert "two results" in report.contradiction
    assert report.verdict == "none"


def test_the_report_names_convolutions_and_what_is_wrapped() -> None:
    space = SPACE.with_dtype(torch.complex128)
    inner = averaged(is_complex=True)
    report = certify_denoiser(
        Rephased(inner, torch.ones(8, 8, dtype=space.dtype)), space, 0.1, images(space=space), iterations=3
    )
    assert report.denoiser == "Rephased(AveragedNetwork)"
    assert [c.channels for c in report.convolutions] == [(3, 4), (4, 2)]
    assert all(0.5 < c.norm <= c.bound <= 1 + 1e-4 for c in report.convolutions)
    assert report.upper == pytest.approx(1.0)
    assert {m.at for m in report.measured} == {"image 1", "image 1 with noise", "random 1"}
    document = report.to_json()
    assert document["class"] == report.kind
    assert document["measured"][0]["denoiser"] <= 1 + 1e-9


def test_images_are_asked_for() -> None:
    with pytest.raises(InputError, match="at least one"):
        certify_denoiser(averaged(), SPACE, 0.1, [])
    with pytest.raises(InputError, match="image for the certificate"):
        certify_denoiser(averaged(), SPACE, 0.1, [torch.zeros(3, 3)])


# Upper bounds against lower ones


def chain(generator: torch.Generator) -> nn.Sequential:
    """A stack of convolutions and activations; every stride and padding, sometimes transposed, dilated or grouped."""

    def pick(*options: object) -> object:
        return options[int(torch.randint(len(options), (), generator=generator))]

    width: int = pick(2, 4)  # type: ignore[assignment]
    layers: list[nn.Module] = []
    inputs, image = 1, torch.zeros(1, 1, 8, 8)
    for _ in range(int(torch.randint(1, 4, (), generator=generator))):
        mode = pick("zeros", "zeros", "circular", "reflect", "replicate")
        layer: nn.Module
        if mode == "zeros" and inputs > 1 and pick(0, 1):
            layer = nn.ConvTranspose2d(inputs, width, 2, stride=2, groups=pick(1, 2))  # type: ignore[arg-type]
        else:
            side, stride, padding, dilation = pick(1, 2, 3), pick(1, 1, 2), pick(0, 1), pick(1, 1, 2)
            layer = nn.Conv2d(inputs, width, side, stride, padding, dilation, padding_mode=mode)  # type: ignore[arg-type]
        try:
            image = layer(image).detach()
        except RuntimeError:  # the image has become smaller than the kernel
            continue
        layers.append(layer)
        layers.append(pick(nn.ReLU(), nn.LeakyReLU(0.1), nn.ELU(), nn.Tanh()))  # type: ignore[arg-type]
        inputs = width
    layers = layers or [nn.Conv2d(1, 1, 3)]
    network = nn.Sequential(*layers).double()
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(torch.randn(p.shape, generator=generator))
    return network


def calls(network: nn.Module, *more: Tensor) -> Callable[[Tensor], Tensor]:
    """Images through a denoiser, or as one channel through a chain."""
    return (lambda x: network(x, *more)) if more else (lambda x: network(x.reshape(-1, 1, 8, 8)).flatten(1))


def rest_of(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda x: x - function(x)


def quotients(function: Callable[[Tensor], Tensor], generator: torch.Generator) -> float:
    a, b = torch.randn(2, 20, 8, 8, generator=generator, dtype=SPACE.dtype)
    b = torch.cat([b[:10], a[10:] + 1e-3 * b[10:]])
    with torch.no_grad():
        return float(((function(a) - function(b)).flatten(1).norm(dim=1) / (a - b).flatten(1).norm(dim=1)).max())


@pytest.mark.parametrize("seed", range(20))
def test_no_upper_bound_is_below_a_lower_one(seed: int) -> None:
    """200 random networks in batches of ten: six chains, and four denoisers with what they claim."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    moving = 0
    for number in range(10):
        sigma = torch.tensor(0.1, dtype=SPACE.dtype)
        if number < 6:
            network: nn.Module = chain(generator)
            function = calls(network)
        else:
            network = (
                AveragedNetwork(False, 4, 2 + seed % 3, 0.1 + 0.8 * float(torch.rand((), generator=generator))),
                RidgeNetwork(False, 3), DnCNN(False, 3, 3), DRUNet(False, (2, 3), 1),
            )[number - 6].double()  # fmt: skip
            with torch.no_grad():
                for p in network.parameters():
                    p.add_(0.5 * torch.randn(p.shape, generator=generator))
            function = calls(network, sigma)
        x = torch.randn(8, 8, generator=generator, dtype=SPACE.dtype)
        norms = convolution_norms(network, partial(function, x), 1e-6)
        bounds = layered_bounds(network, norms)
        assert bounds is not None
        assert all(0 < n.norm <= n.bound for n in norms.values())
        uppers = [bounds[0]]
        if number in (6, 7):
            claimed = network.regularity(0.1)  # type: ignore[operator]
            uppers.append(claimed.lipschitz)
        lower = max(jacobian_norm(function, x, 6, seed), quotients(function, generator))
        moving += lower > 0
        assert lower <= min(uppers) * (1 + 1e-9)
        if number >= 6:
            rest = max(jacobian_norm(rest_of(function), x, 6, seed), quotients(rest_of(function), generator))
            assert rest <= bounds[1] * (1 + 1e-9)
    assert moving >= 7  # ReLUs may all be off
