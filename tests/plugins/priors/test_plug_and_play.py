"""The plug-and-play methods: what they choose, when they damp or refuse, and denoisers that cannot be used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import count
from typing import Any

import pytest
import torch
from torch import Tensor

from priorloom import Case, PnP, Registry, Space, run
from priorloom.errors import InputError
from priorloom.networks import RidgeNetwork
from priorloom.pipeline import Assembly, Slot, Solver, backprojected_noise
from priorloom.plug_and_play import RED, ImplicitPrior, Rephased
from priorloom.regularity import Regularity
from priorloom.steps import ADMM, DRS, FISTA, HQS, ISTA, PDHG, DataProximal, GradientDescent, Relaxed
from priorloom.steps.equilibrium import Anderson
from priorloom.trained_denoiser import TrainedDenoiser
from priorloom_priors.denoiser_slot import RED_WEIGHT, OnParts
from priorloom_priors.plan import STRENGTH
from priorloom_priors.plug_and_play import HQS_LEVEL, HQS_WEIGHT, PDHG_STEP, SIGMA_START

REGISTRY = Registry.discover()
STEPS = {
    "pnp-pgd": ISTA, "pnp-fista": FISTA, "pnp-admm": ADMM, "pnp-drs": DRS, "pnp-pdhg": PDHG, "pnp-hqs": HQS,
    "red-gradient": GradientDescent, "red-proximal": DataProximal,
}  # fmt: skip
NOISE = {"ct": 0.2, "mri": 0.05}


@cache
def case_of(modality: str) -> Case:
    generator = torch.Generator().manual_seed(3)
    truth = torch.zeros(16, 16)
    truth[4:12, 5:10] = 1.0
    if modality == "ct":
        A = REGISTRY.operator("ct.parallel2d", image_shape=(16, 16), pixel_size=1.0, views=12)
    else:
        mask = torch.rand(16, 16, generator=generator) < 0.5
        mask[6:10, 6:10] = True
        A = REGISTRY.operator("mri.fourier2d", image_shape=(16, 16), mask=mask)
        truth = truth * (0.6 + 0.8j)
    noise = NOISE[modality]
    return Case("box", modality, A, A(truth) + noise * A.range.random(generator), truth, noise)


class Smooth:
    """``argmin_u |u - x|^2 / 2 + sigma^2 |grad u|^2 / 2`` with periodic differences: the prox of a convex function."""

    def __init__(self, space: Space, proven: bool = True) -> None:
        frequencies = [2 - 2 * torch.cos(2 * torch.pi * torch.fft.fftfreq(n)) for n in space.shape]
        self.energy = frequencies[0][:, None] + frequencies[1]
        self.known = Regularity(1.0, 0.5, 1.0, gradient=True, convex=True) if proven else Regularity(reason="unknown")

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        made = torch.fft.ifft2(torch.fft.fft2(x) / (1 + sigma**2 * self.energy))
        return made if x.is_complex() else made.real

    def regularity(self, sigma: float) -> Regularity:
        return self.known


def slot(factory: Callable[..., Any], name: str = "mine") -> Slot:
    return Slot("denoiser", name, {}, factory)


def unproven(space: Space) -> Smooth:
    return Smooth(space, proven=False)


def assemble(modality: str, method: str, factory: Callable[..., Any] = Smooth, **settings: Any) -> Assembly:
    def made(space: Space) -> Any:
        return factory(space)

    with torch.no_grad():
        return REGISTRY.pipeline(method).assemble(case_of(modality), denoiser=slot(made), **settings)


def solve(assembly: Assembly, n: int) -> Tensor:
    return run(assembly.steps, assembly.problem, n=n, tol=1e-12, x0=assembly.start).x


@pytest.mark.parametrize("method", STEPS)
@pytest.mark.parametrize("modality", ["ct", "mri"])
def test_every_method_damps_what_is_not_proven_and_says_so(modality: str, method: str) -> None:
    case = case_of(modality)
    assembly = assemble(modality, method, unproven, relaxation=0.4)
    assert isinstance(assembly.steps, Relaxed)
    assert isinstance(assembly.steps.step, STEPS[method])
    assert assembly.steps.relaxation == 0.4
    assert assembly.parameters["damped"] is True
    assert assembly.certificate == "empirical"
    assert len(assembly.warnings) == 1
    assert "not certified to converge, and so damped by 0.4: " in assembly.warnings[0]
    with pytest.raises(
        InputError, match=r"denoiser 'mine': expected an iteration that provably converges, got .*; set"
    ):
        assemble(modality, method, unproven, uncertified="refuse")
    assert assembly.start is not None
    assert torch.equal(assembly.start, case.operator.pseudo_inverse(case.measurement))
    x = solve(assembly, 30)
    assert bool(x.isfinite().all())
    assert not torch.equal(x, assembly.start)


@pytest.mark.parametrize("modality", ["ct", "mri"])
def test_the_equilibrium_is_the_fixed_point_of_proximal_gradient(modality: str) -> None:
    case = case_of(modality)
    found = assemble(modality, "pnp-equilibrium", uncertified="refuse", memory=4)
    assert isinstance(found.steps, Anderson)
    assert (found.steps.memory, type(found.steps.step)) == (4, ISTA)
    assert found.certificate == "certified"
    assert found.judgement is not None
    assert "safeguarded" in found.judgement.theorem
    plain = assemble(modality, "pnp-pgd", uncertified="refuse")
    assert found.parameters == plain.parameters
    fast, slow = (run(a.steps, a.problem, n=500, tol=2e-5, x0=a.start) for a in (found, plain))
    assert fast.converged
    assert fast.iterations < 0.7 * slow.iterations
    t, x = found.parameters["step_size"], fast.x
    mapped = found.problem.prior.prox(x - t * case.operator.adjoint(case.operator(x) - case.measurement), t)
    assert float((mapped - x).norm() / x.norm()) <= 3e-5


def test_an_equilibrium_without_a_theorem_accelerates_the_damped_step() -> None:
    found = assemble("mri", "pnp-equilibrium", unproven, relaxation=0.4)
    assert isinstance(found.steps, Anderson)
    assert isinstance(found.steps.step, Relaxed)
    assert found.steps.step.relaxation == 0.4
    assert isinstance(found.steps.step.step, ISTA)
    assert (found.certificate, found.parameters["damped"]) == ("empirical", True)
    assert "not certified to converge, and so damped by 0.4: " in found.warnings[0]
    with pytest.raises(InputError, match="expected an iteration that provably converges"):
        assemble("mri", "pnp-equilibrium", unproven, uncertified="refuse")
    with pytest.raises(InputError, match="memory of Anderson acceleration"):
        assemble("mri", "pnp-equilibrium", memory=0)


@pytest.mark.parametrize("method", ["pnp-pgd", "pnp-fista", "pnp-admm", "pnp-drs", "pnp-pdhg", "red-proximal"])
def test_what_is_proven_runs_as_it_is(method: str) -> None:
    assembly = assemble("mri", method, uncertified="refuse")
    assert isinstance(assembly.steps, STEPS[method])
    assert assembly.certificate == "certified"
    assert assembly.warnings == ()
    assert assembly.parameters["damped"] is False


def test_the_whole_step_of_an_uncertified_method_is_taken_only_where_asked_for() -> None:
    assembly = assemble("mri", "pnp-pgd", unproven, relaxation=1.0)
    assert assembly.parameters["damped"] is False
    assert "undamped" in assembly.warnings[0]
    with pytest.raises(InputError, match=r"^relaxation: expected a number above 0 and at most 1"):
        assemble("mri", "pnp-pgd", relaxation=0.0)


def chosen(modality: str) -> tuple[float, float, float, float]:
    """The noise, in ``A^H y``, in the image, and L."""
    case = case_of(modality)
    noise, back = NOISE[modality], backprojected_noise(case)
    return noise, back, noise**2 / back, case.operator.norm() ** 2


@pytest.mark.parametrize("modality", ["ct", "mri"])
def test_automatic_parameters_follow_their_formulas(modality: str) -> None:
    noise, back, image, L = chosen(modality)
    for method, scale in (("pnp-pgd", 1.0), ("pnp-fista", 1.0), ("pnp-pdhg", PDHG_STEP)):
        used = assemble(modality, method).parameters
        assert used["step_size"] == pytest.approx(scale / L)
        assert used["sigma"] == pytest.approx(scale / L * back / STRENGTH)
    for method, name in (("pnp-admm", "rho"), ("pnp-drs", "step_size")):
        used = assemble(modality, method).parameters
        assert used["sigma"] == pytest.approx(STRENGTH * image)
        assert used[name] == pytest.approx((used["sigma"] / noise) ** (-2 if name == "rho" else 2))
    used = assemble(modality, "pnp-hqs").parameters
    assert used["sigma"] == pytest.approx(HQS_LEVEL * image)
    assert used["sigma_start"] == pytest.approx(max(HQS_LEVEL * image, SIGMA_START))
    for method in ("red-gradient", "red-proximal"):
        used = assemble(modality, method).parameters
        assert used["sigma"] == pytest.approx(image)
        assert used["tau"] == pytest.approx((noise / image) ** 2)
        assert used["step_size"] == pytest.approx(1 / (used["tau"] + (L if method == "red-gradient" else 0.0)))


def test_what_is_given_is_used_and_not_recorded_as_chosen() -> None:
    assembly = assemble("mri", "pnp-drs", sigma=0.1, step_size=0.7)
    assert assembly.parameters == {"damped": False}
    assert isinstance(assembly.steps, DRS)
    assert assembly.steps.step == 0.7
    assert isinstance(assembly.problem.prior, PnP)
    assert assembly.problem.prior.sigma == 0.1
    assembly = assemble("mri", "red-proximal", sigma=0.1, tau=0.3, step_size=0.5)
    assert assembly.parameters == {"damped": False}
    assert isinstance(assembly.problem.prior, RED)
    assert assembly.problem.prior.tau == 0.3


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("pnp-pgd", {"sigma": -1.0}),
        ("pnp-pgd", {"step_size": 0.0}),
        ("pnp-admm", {"rho": float("nan")}),
        ("pnp-hqs", {"weight": 0.0}),
        ("pnp-hqs", {"sigma_start": -0.1}),
        ("red-proximal", {"tau": -2.0}),
        ("red-gradient", {"step_size": -1.0}),
    ],
)
def test_refuses_parameters_that_are_not_positive(method: str, settings: dict[str, float]) -> None:
    with pytest.raises(InputError, match="expected a positive number, got"):
        assemble("mri", method, **settings)


def test_hqs_comes_down_in_equal_ratios_and_then_stays() -> None:
    levels: list[float] = []

    def recording(space: Space) -> Any:
        smooth = Smooth(space, proven=False)

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            levels.append(float(sigma))
            return smooth(x, sigma)

        return denoise

    assembly = assemble("mri", "pnp-hqs", recording, sigma=0.02, sigma_start=0.32, steps=4)
    assert isinstance(assembly.problem.prior, ImplicitPrior)
    assert assembly.problem.prior.lam == pytest.approx(HQS_WEIGHT * NOISE["mri"] ** 2)
    assert isinstance(assembly.steps, Relaxed)
    assert assembly.steps.after == 4
    levels.clear()
    solve(assembly, 7)
    assert levels == pytest.approx([0.32, 0.16, 0.08, 0.04, 0.02, 0.02, 0.02], rel=1e-4)
    for settings, message in (({"steps": 0}, "steps: expected at least 1"), ({"sigma": 0.5}, "sigma_start: expected")):
        with pytest.raises(InputError, match=message):
            assemble("mri", "pnp-hqs", **{"sigma_start": 0.4, **settings})


def ridge(space: Space) -> TrainedDenoiser:
    torch.manual_seed(0)
    return TrainedDenoiser(space, RidgeNetwork(space.is_complex, 3), "test.ridge", (0.01, 0.2))


def test_red_takes_the_weight_that_a_regulariser_has_learned() -> None:
    assembly = assemble("mri", "red-proximal", ridge)
    denoiser = assembly.problem.prior.denoiser.denoiser  # type: ignore[union-attr]
    weight = float(denoiser.network.weight(torch.tensor(assembly.parameters["sigma"])).detach())
    assert weight != 1
    expected = RED_WEIGHT * weight * (NOISE["mri"] / assembly.parameters["sigma"]) ** 2
    assert assembly.parameters["tau"] == pytest.approx(expected)
    assert assembly.certificate == "certified"
    with torch.no_grad():
        values = [float(assembly.problem.objective(solve(assembly, n))) for n in (1, 3, 10)]
    assert values == sorted(values, reverse=True)


def test_levels_that_are_chosen_stay_in_the_trained_range_and_others_are_refused() -> None:
    assert assemble("ct", "pnp-pgd", ridge).parameters["sigma"] == 0.01  # the formula gives less
    assert assemble("mri", "pnp-hqs", ridge).parameters["sigma_start"] <= 0.2
    with pytest.raises(InputError, match=r"sigma of denoiser 'test.ridge': expected at most 0.2 .*, got 0.5; lower"):
        assemble("mri", "pnp-admm", ridge, sigma=0.5)


def test_the_modality_is_told_to_denoisers_that_ask() -> None:
    def asks(space: Space, *, modality: str) -> Smooth:
        assert modality == "ct"
        return Smooth(space)

    with torch.no_grad():
        assembly = REGISTRY.pipeline("pnp-pgd").assemble(case_of("ct"), denoiser=slot(asks))
    assert assembly.parameters["denoiser.modality"] == "ct"


class OneSided:
    """Takes more off the real part than off the imaginary one: it knows a phase."""

    def __init__(self, space: Space) -> None:
        self.smooth = Smooth(space)

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        return torch.complex(self.smooth(x.real, 3 * sigma), self.smooth(x.imag, sigma))


def test_turning_the_measurement_turns_the_image_where_the_phase_is_taken_out() -> None:
    case, turn = case_of("mri"), torch.exp(torch.tensor(1j))
    turned = replace(case, measurement=turn * case.measurement)
    images = {}
    for phase in ("smooth", "none"):
        for name, each in (("as it is", case), ("turned", turned)):
            with torch.no_grad():
                assembly = REGISTRY.pipeline("pnp-pgd").assemble(each, denoiser=slot(OneSided), phase=phase, sigma=0.5)
            assert isinstance(assembly.problem.prior.denoiser, Rephased) == (phase == "smooth")
            images[phase, name] = solve(assembly, 10)
    size = float(images["smooth", "turned"].norm())
    difference = {
        p: float((images[p, "turned"] - turn * images[p, "as it is"]).norm()) / size for p in ("smooth", "none")
    }
    assert difference["smooth"] < 1e-5
    assert difference["none"] > 0.02
    assert not isinstance(assemble("ct", "pnp-pgd").problem.prior.denoiser, Rephased)  # type: ignore[union-attr]


COUNTER = count()
BROKEN: dict[str, tuple[Callable[[Tensor, Tensor], Any], str]] = {
    "shape": (lambda x, s: x[:-1], r"output of denoiser 'mine': expected \[16, 16\] torch.float32, got \[15, 16\]"),
    "dtype": (lambda x, s: x.double(), r"output of denoiser 'mine': expected .* torch.float32, got .* torch.float64"),
    "type": (lambda x, s: x.numpy(), "output of denoiser 'mine': expected a tensor, got ndarray"),
    "nan": (lambda x, s: x / 0 * 0, "output of denoiser 'mine': expected finite values, got NaN or infinite ones; the"),
    "random": (
        lambda x, s: x + 0.01 * next(COUNTER),
        "denoiser 'mine': expected the same result for the same image, got results that differ by up to 0.01 where",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("method", ["pnp-pgd", "pnp-hqs", "red-proximal"])
def test_a_denoiser_that_cannot_be_used_is_one_line(method: str, name: str) -> None:
    denoise, message = BROKEN[name]
    with pytest.raises(InputError, match=message) as caught:
        assemble("ct", method, lambda space: denoise)
    assert "\n" not in str(caught.value)


def convolution(x: Tensor, sigma: Tensor) -> Tensor:
    return torch.nn.functional.avg_pool2d(x[None], 3, 1, 1)[0]


@pytest.mark.parametrize("denoise", [convolution, lambda x, s: x.real], ids=["fails", "drops the phase"])
def test_a_denoiser_of_real_images_on_complex_ones_names_the_fallback(denoise: Any) -> None:
    with pytest.raises(InputError, match=r"'mine'.* expected .*complex.* got .*complex_mode=real-imaginary") as caught:
        assemble("mri", "pnp-pgd", lambda space: denoise)
    assert "\n" not in str(caught.value)


def test_a_denoiser_on_the_parts_of_complex_images(generator: torch.Generator) -> None:
    smooth = Smooth(Space((16, 16)))
    x = Space((16, 16), torch.complex64).random(generator, (2,))
    sigma = torch.tensor([0.3, 0.6])[:, None, None]
    expected = torch.complex(smooth(x.real, sigma / 2**0.5), smooth(x.imag, sigma / 2**0.5))
    torch.testing.assert_close(OnParts(smooth, "real-imaginary")(x, sigma), expected)
    magnitude = OnParts(smooth, "magnitude")
    torch.testing.assert_close(magnitude(x, sigma), smooth(x.abs(), sigma / 2**0.5) * x / x.abs())
    assert OnParts(smooth, "real-imaginary").regularity(0.1).is_prox
    assert magnitude.regularity(0.1).kind == "none"
    network = ridge(Space((16, 16)))
    parts = OnParts(network, "real-imaginary")
    sigma = sigma / 4
    with torch.no_grad():
        by_parts = network.potential(x.real, sigma / 2**0.5) + network.potential(x.imag, sigma / 2**0.5)
        torch.testing.assert_close(parts.potential(x, sigma), by_parts)
    assert not hasattr(OnParts(network, "magnitude"), "potential")


def test_levels_of_a_real_network_on_parts_are_those_of_complex_noise() -> None:
    def parts(space: Space) -> OnParts:
        return OnParts(ridge(Space(space.shape, space.real_dtype)), "real-imaginary")

    assembly = assemble("mri", "red-proximal", parts)
    sigma, tau = assembly.parameters["sigma"], assembly.parameters["tau"]
    network = ridge(Space((16, 16))).network
    assert isinstance(network, RidgeNetwork)
    assert tau == pytest.approx(
        RED_WEIGHT * float(network.weight(torch.tensor(sigma / 2**0.5)).detach()) * (NOISE["mri"] / sigma) ** 2
    )
    case = replace(case_of("mri"), noise_std=10.0)
    with torch.no_grad():
        used = REGISTRY.pipeline("pnp-admm").assemble(case, denoiser=slot(parts)).parameters
    assert used["sigma"] == pytest.approx(0.2 * 2**0.5)


def test_solver_settings_are_passed_on() -> None:
    assert assemble("mri", "pnp-fista", solver=Solver(7, 0.1)).solver == Solver(7, 0.1)
