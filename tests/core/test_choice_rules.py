"""Rules for a weight on Tikhonov's method and soft thresholding, against the singular values and closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize_scalar
from torch import Tensor, nn

from priorloom import Case, Functional, Modality, Pipeline, Problem, Registry, Space, Term, compare
from priorloom.choice import by_discrepancy, by_gcv, by_lcurve, by_oracle, by_sure, choose
from priorloom.choice.influence import Influence
from priorloom.choice.one_case import OneCase
from priorloom.chosen import Chosen, apply_chosen
from priorloom.comparison import run_method
from priorloom.errors import InputError
from priorloom.operator import Identity
from priorloom.parameters import Parameter
from priorloom.pipeline import AROUND, Assembly, Range, Solver, least_squares
from priorloom.reconstruction import Method, reconstruct
from priorloom.rule import Rule, split_rule
from priorloom.steps import CG

TIGHT = {"solver.tolerance": 1e-7, "solver.max_iterations": 500}


@dataclass(frozen=True)
class Dense:
    """Tikhonov's method on a case by the singular value decomposition of what was measured.

    ``A = U S V^H``, ``b = U^H y``; the filter factors are ``f = s^2 / (s^2 + lam)``. `p` is the number of real
    coordinates of an entry.
    """

    case: Case
    low: float
    high: float
    p: int
    truth: NDArray[np.complex128]
    A: NDArray[np.complex128]
    y: NDArray[np.complex128]

    @property
    def m(self) -> int:
        return self.y.size

    @property
    def noise(self) -> float:
        assert self.case.noise_std is not None
        return self.case.noise_std

    def parts(self, lam: float) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], float]:
        U, s, _ = np.linalg.svd(self.A, full_matrices=False)
        b = np.abs(U.conj().T @ self.y)
        outside = max(float(np.sum(np.abs(self.y) ** 2) - np.sum(b**2)), 0.0)
        return s, b, s**2 / (s**2 + lam), outside

    def image(self, lam: float) -> NDArray[np.complex128]:
        A = self.A
        found: NDArray[np.complex128] = np.linalg.solve(A.conj().T @ A + lam * np.eye(A.shape[1]), A.conj().T @ self.y)
        return found

    def misfit(self, lam: float) -> float:
        _, b, f, outside = self.parts(lam)
        return float(np.sum(((1 - f) * b) ** 2)) + outside

    def gcv(self, lam: float) -> float:
        """Golub, Heath and Wahba's V, with entries for m and the complex trace."""
        trace = float(self.parts(lam)[2].sum())
        return self.misfit(lam) / self.m / (1 - trace / self.m) ** 2 / self.p

    def sure(self, lam: float) -> float:
        """In units of the noise: every one of the p coordinates has the variance ``noise^2 / p``."""
        n, variance = self.p * self.m, self.noise**2 / self.p
        divergence = self.p * float(self.parts(lam)[2].sum())
        return (self.misfit(lam) - n * variance + 2 * variance * divergence) / (n * variance)

    def bend(self, lam: float) -> float:
        """Curvature of ``(log |r|^2, log |x|^2)``: with their derivatives by ``k = sqrt(lam)``, as Hansen and O'Leary
        (1993) have it, ``rho' = -k^2 eta'``."""
        s, b, f, _ = self.parts(lam)
        k = math.sqrt(lam)
        eta, rho = float(np.sum((f * b / s) ** 2)), self.misfit(lam)
        change = -4 / k * float(np.sum((1 - f) * f**2 * b**2 / s**2))
        top = k**2 * change * rho + 2 * k * eta * rho + k**4 * eta * change
        return -eta * rho / change * top / (k**4 * eta**2 + rho**2) ** 1.5

    def psnr(self, lam: float) -> float:
        x, truth = self.image(lam), self.truth
        if self.p == 2:
            x, truth = np.abs(x), np.abs(truth)
        reach = float((truth.max() if self.p == 2 else truth.max() - truth.min()).real)
        return 10 * math.log10(reach**2 / float(np.mean(np.abs(x - truth) ** 2)))

    def lowest(self, f: Callable[[float], float]) -> float:
        """Where f is lowest in the range: the best of a fine grid, made finer."""
        grid = np.geomspace(self.low, self.high, 200)
        k = int(np.argmin([f(lam) for lam in grid]))
        ends = (math.log(grid[max(k - 1, 0)]), math.log(grid[min(k + 1, 199)]))
        return math.exp(minimize_scalar(lambda t: f(math.exp(t)), bounds=ends, options={"xatol": 1e-6}).x)


def _matrix(case: Case) -> Tensor:
    """Every column of the operator."""
    A = case.operator
    units = torch.eye(A.domain.size, dtype=A.domain.dtype).reshape(-1, *A.domain.shape)
    with torch.no_grad():
        return A(units).reshape(len(units), -1).T


def _dense(case: Case, low: float, high: float) -> Dense:
    measured = case.measurement.flatten() != 0
    assert case.truth is not None
    return Dense(case, low, high, 2 if case.measurement.is_complex() else 1, case.truth.flatten().numpy(),
                 _matrix(case)[measured].numpy(), case.measurement.flatten()[measured].numpy())  # fmt: skip


def _radon(size: int, views: int, detectors: int, noise: float) -> Case:
    """A disc in few views, white noise, in double precision."""
    A = Registry.discover().operator("ct.parallel2d", image_shape=(size, size), pixel_size=1.0, views=views,
                                     detectors=detectors, detector_pitch=1.1).double()  # fmt: skip
    generator = torch.Generator().manual_seed(3)
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    disc = (rows - 0.4 * size) ** 2 + (columns - 0.5 * size) ** 2 < 0.1 * size**2
    truth = 0.02 * disc.double() + 0.005
    e = torch.randn(A.range.shape, dtype=torch.float64, generator=generator)
    return Case("disc", "ct", A, A(truth) + noise * e, truth, noise)


@pytest.fixture(scope="module")
def radon() -> tuple[Dense, Method, Registry]:
    """18 rays through 16 pixels."""
    return _dense(_radon(4, 3, 6, 0.01), 0.02, 20.0), Method("tikhonov", TIGHT), Registry.discover()


@pytest.fixture(scope="module")
def fourier() -> tuple[Dense, Method, Registry]:
    """A blob with a phase, half of k-space of two coils, in double precision."""
    registry = Registry.discover()
    generator = torch.Generator().manual_seed(5)
    rows, columns = torch.meshgrid(torch.arange(4.0), torch.arange(4.0), indexing="ij")
    size = torch.exp(-((rows - 1.5) ** 2 + (columns - 2) ** 2) / 3).double()
    truth = torch.polar(size, 0.3 * rows.double())
    maps = torch.stack([torch.exp(-rows / 4), 0.3j * torch.exp(-columns / 3)]).to(torch.complex64)
    mask = torch.rand((4, 4), generator=generator) < 0.5
    A = registry.operator("mri.sense2d", maps=maps, mask=mask).double()
    noise = 0.05 * torch.randn(A.range.shape, dtype=torch.complex128, generator=generator)
    case = Case("blob", "mri", A, A(truth) + noise * mask, truth, 0.05)
    return _dense(case, 1e-3, 2.0), Method("cg-sense", TIGHT), registry


@pytest.fixture(params=["radon", "fourier"])
def setting(request: pytest.FixtureRequest) -> tuple[Dense, Method, Registry]:
    """Both, one after the other."""
    made: tuple[Dense, Method, Registry] = request.getfixturevalue(request.param)
    return made


def _agrees(found: Chosen, closed: Callable[[float], float], best: float) -> None:
    """Every trial has the closed form's value, and the choice is its best, both to 1 %."""
    for trial in found.trials:
        assert trial.mean == pytest.approx(closed(trial.settings["prior.lam"]), rel=1e-2, abs=1e-4)
    assert found.settings["prior.lam"] == pytest.approx(best, rel=1e-2)
    assert found.used <= found.budget


@pytest.mark.parametrize(("name", "by"), [("radon", by_gcv), ("fourier", by_sure)])
def test_the_choice_by_exact_traces_is_that_of_the_singular_values(
    request: pytest.FixtureRequest, name: str, by: Callable[..., Chosen]
) -> None:
    dense, method, registry = request.getfixturevalue(name)
    closed = dense.gcv if by is by_gcv else dense.sure
    best = dense.lowest(closed)
    cost = 1 + dense.p * dense.m
    found = by(dense.case, method, "prior.lam", best / 3, best * 5, budget=8 * cost, probes=10**6, registry=registry)
    _agrees(found, closed, best)
    assert found.used == len(found.trials) * cost
    for trial in found.trials:
        trace = float(dense.parts(trial.settings["prior.lam"])[2].sum())
        assert trial.facts["divergence"] == pytest.approx(dense.p * trace, rel=1e-4)


@pytest.mark.parametrize(("name", "by"), [("radon", by_sure), ("fourier", by_gcv)])
def test_the_criterion_by_exact_traces_is_that_of_the_singular_values(
    request: pytest.FixtureRequest, name: str, by: Callable[..., Chosen]
) -> None:
    dense, method, registry = request.getfixturevalue(name)
    closed = dense.gcv if by is by_gcv else dense.sure
    found = by(dense.case, method, "prior.lam", dense.low, dense.high, budget=3 * (1 + dense.p * dense.m),
               probes=dense.p * dense.m, registry=registry)  # fmt: skip
    assert len(found.trials) == 3
    for trial in found.trials:
        assert trial.mean == pytest.approx(closed(trial.settings["prior.lam"]), rel=1e-3)


def test_random_probes_come_within_a_percent() -> None:
    case = _radon(28, 20, 30, 0.004)
    dense = _dense(case, 0.1, 100.0)
    method = Method("tikhonov", {"solver.tolerance": 1e-4})
    for by, closed in ((by_gcv, dense.gcv), (by_sure, dense.sure)):
        found = by(case, method, "prior.lam", 5.0, 100.0, budget=3 * 25, probes=24, registry=Registry.discover())
        for trial in found.trials:
            assert trial.mean == pytest.approx(closed(trial.settings["prior.lam"]), rel=1e-2)
            exact = float(dense.parts(trial.settings["prior.lam"])[2].sum())
            assert trial.facts["divergence"] != pytest.approx(exact, rel=1e-6)  # it is an estimate


def test_the_corner_of_the_lcurve_is_where_hansens_formula_has_it(setting: tuple[Dense, Method, Registry]) -> None:
    dense, method, registry = setting
    found = by_lcurve(dense.case, method, "prior.lam", dense.low, dense.high, budget=40, registry=registry)

    def slope(lam: float) -> float:
        return dense.misfit(lam) / (lam * float(np.sum(np.abs(dense.image(lam)) ** 2)))

    _agrees(found, slope, dense.lowest(lambda lam: -dense.bend(lam)))
    assert found.warnings == ()


def test_the_discrepancy_is_met_where_the_singular_values_say(setting: tuple[Dense, Method, Registry]) -> None:
    dense, method, registry = setting
    noise = math.sqrt(dense.misfit(math.sqrt(dense.low * dense.high)) / dense.m)  # so that there is a crossing

    def figure(lam: float) -> float:
        return dense.misfit(lam) / (dense.m * noise**2)

    best = brentq(lambda lam: figure(lam) - 1, dense.low, dense.high)
    case = replace(dense.case, noise_std=noise)
    found = by_discrepancy(case, method, "prior.lam", dense.low, dense.high, budget=20, registry=registry)
    _agrees(found, figure, best)


def test_the_oracle_finds_the_best_psnr(setting: tuple[Dense, Method, Registry]) -> None:
    dense, method, registry = setting
    found = by_oracle(dense.case, method, "prior.lam", dense.low, dense.high, budget=16, registry=registry)
    _agrees(found, dense.psnr, dense.lowest(lambda lam: -dense.psnr(lam)))
    assert found.loss_db == 0
    assert found.method.tuned == "oracle"


def _denoising(shape: tuple[int, ...], sigma: float, dtype: torch.dtype = torch.float64) -> Case:
    """A = I and a sparse truth."""
    generator = torch.Generator().manual_seed(8)
    truth = 3 * torch.randn(shape, dtype=dtype, generator=generator) * (torch.rand(shape, generator=generator) < 0.2)
    noise = sigma * torch.randn(shape, dtype=dtype, generator=generator)
    return Case("sparse", "toy", Identity(Space(shape, dtype)), truth + noise, truth, sigma)


def soft(case: Case, *, lam: float = 1.0, extra: float = 1.0) -> Assembly:
    """Soft thresholding, in closed form: ``argmin 0.5 |x - y|^2 + lam |x|_1``, moduli where complex."""
    y = case.measurement
    size = y.abs()
    image = y * (size - lam).clamp_min(0) / size.clamp_min(1e-300)
    return Assembly(Problem(least_squares(case)), nn.ModuleList(), image)


def weighted(case: Case, *, lam: float = 1.0, extra: float = 0.5) -> Assembly:
    """A ridge whose penalty has a second part that lam does not weigh."""
    space = case.operator.domain
    prior = Term(Ridge(space, lam), Identity(space))
    other = Term(Ridge(space, extra), Identity(space))
    return Assembly(Problem(least_squares(case), None, (prior, other)), CG(), None, Solver(50, 1e-9))


def otherwise(case: Case, *, lam: float = 1.0) -> Assembly:
    """A ridge whose data term is not ``0.5 |x - y|^2``, so that the slope of its L-curve is not ``-1 / lam``."""
    space = case.operator.domain
    data = Term(Ridge(space, 3.0), case.operator)
    return Assembly(Problem(data, None, (Term(Ridge(space, lam), Identity(space)),)), CG(), None, Solver(50, 1e-9))


class Ridge(Functional):
    """``0.5 weight |x|^2``."""

    is_quadratic = True

    def __init__(self, space: Space, weight: float) -> None:
        super().__init__(space)
        self.weight = weight

    def _value(self, x: Tensor) -> Tensor:
        return 0.5 * self.weight * self.space.squared(x)

    def _gradient(self, x: Tensor) -> Tensor:
        return self.weight * x


def toy() -> Modality:
    """Everything in units of one; the noise level is not known."""
    return Modality("toy", "Toy", "V", ("soft",), lambda case: 1.0, lambda case: 0.0,
                    lambda truth: float(truth.max()), torch.abs, lambda registry, operator, *, seed=0: [])  # fmt: skip


@pytest.fixture
def toys(discover: Callable[..., Registry]) -> Registry:
    """Soft thresholding, and a ridge with a second penalty."""
    made = {
        "soft": lambda: Pipeline("soft", "classical", "", soft, search={"lam": Range(0.01, 10.0), "extra": AROUND}),
        "otherwise": lambda: Pipeline("otherwise", "classical", "", otherwise),
        "weighted": lambda: Pipeline("weighted", "classical", "", weighted, search={"lam": AROUND}),
    }
    return discover(toy={"pipelines": made, "modalities": {"toy": toy}})


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_sure_of_soft_thresholding_is_that_of_donoho_and_johnstone(toys: Registry, dtype: torch.dtype) -> None:
    """Real: ``n s^2 - 2 s^2 #{|y| <= t} + sum min(|y|, t)^2``. Complex: by the divergence ``2 - t / |y|`` of
    ``y (1 - t / |y|)`` in the plane."""
    sigma = 0.7
    case = _denoising((120, 120), sigma, dtype)
    size = case.measurement.abs().numpy()

    def closed(t: float) -> float:
        kept = size > t
        if dtype == torch.float64:
            risk = size.size * sigma**2 - 2 * sigma**2 * np.sum(~kept) + np.sum(np.minimum(size, t) ** 2)
        else:
            risk = np.sum(np.minimum(size, t) ** 2) - size.size * sigma**2 + sigma**2 * np.sum(2 - t / size[kept])
        return float(risk) / (size.size * sigma**2)

    found = by_sure(case, Method("soft"), "lam", 0.05, 5.0, budget=200, probes=9, registry=toys)
    for trial in found.trials:
        assert trial.mean == pytest.approx(
            closed(trial.settings["lam"]), rel=1e-2, abs=1e-3 if dtype == torch.float64 else 7e-3
        )
    best = min(closed(t) for t in np.geomspace(0.05, 5, 500))
    assert closed(found.settings["lam"]) <= 1.01 * best
    # It estimates the risk, which is known here.
    risk = float((torch.as_tensor(soft(case, lam=found.settings["lam"]).start) - case.truth).abs().square().mean())
    assert found.trials[-1].mean is not None
    assert min(t.mean or 9 for t in found.trials) == pytest.approx(risk / sigma**2, abs=0.03)


def test_the_divergence_of_total_variation_counts_the_pieces() -> None:
    """In one dimension the degrees of freedom of total variation denoising are the constant pieces of the image
    (Tibshirani et al. 2005, Journal of the Royal Statistical Society B 67, 91-108, for the fused lasso)."""
    generator = torch.Generator().manual_seed(2)
    steps = torch.tensor([1.0, 4.0, 2.0], dtype=torch.float64).repeat_interleave(8)[None]
    y = steps + 0.4 * torch.randn(steps.shape, dtype=torch.float64, generator=generator)
    case = Case("steps", "toy", Identity(Space((1, 24), torch.float64)), y, None, 0.4)
    registry = Registry.discover()
    method = Method("tv-pdhg", {"solver.tolerance": 1e-6, "solver.max_iterations": 5000, "nonnegative": False})
    case = replace(case, modality="ct")
    runs = OneCase(case, method, "prior.lam", 0.1, 10.0, rule="gcv", measure="gcv", budget=10, registry=registry,
                   seed=0, on_trial=None)  # fmt: skip
    influence = Influence(runs, 24)
    lam = 30.0
    result = runs.run(lam)
    pieces = 1 + int((result.image.diff(dim=-1).abs() > 1e-4).sum())
    assert 3 < pieces < 12
    assert influence.divergence(lam, result) == pytest.approx(pieces, abs=0.5)


def test_what_a_rule_needs_is_said_in_one_line_before_anything_runs(toys: Registry) -> None:
    case = _denoising((6, 6), 0.5)
    silent, blind = replace(case, noise_std=None), replace(case, truth=None)
    asked = [
        (silent, Rule("sure", "lam"), "noise level of case 'sparse'"),
        (silent, Rule("discrepancy", "lam"), "noise level of case 'sparse'"),
        (replace(case, noise_std=0.0), Rule("sure", "lam"), "noise level of case 'sparse'"),
        (blind, Rule("oracle", "lam"), "expected a truth, got none"),
        (case, Rule("lcurve", "lam"), "expected the weight of an objective"),
        (case, Rule("tuned", "lam"), "expected tuning cases, got none"),
        (case, Rule("gcv", "lam", budget=5), "at least 6 runs"),
        (case, Rule("oracle", "lam", budget=2), "at least 3 runs"),
        (case, Rule("gcv", "extra"), "the method chooses no value"),
        (case, Rule("gcv", "lam", low=20.0), "low below high"),
        (case, Rule("gcv", "lan", 0.1, 1.0), "did you mean 'lam'"),
    ]
    for on, rule, words in asked:
        with pytest.raises(InputError, match=words) as caught:
            run_method(on, Method("soft", rule=rule), registry=toys)
        assert "\n" not in str(caught.value)
    # Asked of every row before the first one runs.
    done: list[str] = []
    for rule, words in (
        (Rule("sure", "lam", budget=5), "at least 6 runs"),
        (Rule("discrepancy", "lam", budget=2), "at least 3 runs"),
        (Rule("gcv", "plain", 0.1), "the method has no default"),
    ):
        with pytest.raises(InputError, match=words):
            compare([case], [Method("soft", label="first"), Method("soft", rule=rule)], registry=toys,
                    on_result=lambda _, result: done.append(result.method))  # fmt: skip
    assert not done
    with pytest.raises(InputError, match="expected the weight of the whole penalty"):
        run_method(case, Method("weighted", rule=Rule("lcurve", "lam", 0.1, 1.0)), registry=toys)
    with pytest.raises(InputError, match="expected the data term"):
        run_method(case, Method("otherwise", rule=Rule("lcurve", "lam", 0.1, 1.0)), registry=toys)
    with pytest.raises(InputError, match="expected a value, got a rule"):
        reconstruct(case, Method("soft", rule=Rule("gcv", "lam")), registry=toys)
    with pytest.raises(InputError, match="probes"):
        by_gcv(case, Method("soft"), "lam", 0.1, 1.0, probes=0, registry=toys)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"name": "gvc"}, "did you mean 'gcv'"),
        ({"low": 0.0}, "a positive number"),
        ({"high": math.inf}, "a positive number"),
        ({"low": 2.0, "high": 1.0}, "low below high"),
        ({"budget": 0}, "a number of runs"),
    ],
)
def test_a_rule_that_cannot_be_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Rule(**({"name": "gcv", "parameter": "lam"} | given))


def test_settings_are_split_into_values_and_a_rule() -> None:
    known = [Parameter("lam", float), Parameter("other", float | None), Parameter("steps", int)]
    assert split_rule({"lam": 1.0, "steps": 2}, known, "it") == ({"lam": 1.0, "steps": 2}, None)
    nested = {"lam": {"rule": "gcv", "low": "1e-3", "budget": 8}, "steps": 2}
    assert split_rule(nested, known, "it") == ({"steps": 2}, Rule("gcv", "lam", 1e-3, None, 8))
    for settings, words in (
        ({"lam.rule": "gcv", "lam": 1.0}, "expected a value or a rule, got both"),
        ({"lam.rule": "gcv", "lam.times": 2.0}, "expected a value or a rule, got both"),
        ({"lam.low": 1.0}, "expected a rule, 'lam.rule'"),
        ({"lam.rule": "gcv", "lam.hihg": 1.0}, "did you mean 'high'"),
        ({"lam.rule": "gcv", "lam.low": "much"}, "expected float"),
        ({"lam.rule": "gcv", "other.rule": "gcv"}, "one parameter that is chosen by a rule"),
    ):
        with pytest.raises(InputError, match=words):
            split_rule(settings, known, "it")


def test_a_result_says_which_rule_at_what_cost_and_what_it_lost(toys: Registry) -> None:
    case = _denoising((40, 40), 0.7)
    oracle = Method("soft", label="best", rule=Rule("oracle", "lam"))
    rows = [Method("soft"), Method("soft", label="gcv", rule=Rule("gcv", "lam", budget=10)), oracle,
            Method("soft", {"extra": 2.0}, "other", rule=Rule("sure", "lam", 0.5, 4.0))]  # fmt: skip
    plain, gcv, best, other = compare([case], rows, registry=toys)
    assert [r.tuned for r in (plain, gcv, best, other)] == ["default", "rule", "oracle", "rule"]
    assert plain.chosen is None
    assert gcv.chosen is not None
    assert best.metrics is not None
    assert gcv.metrics is not None
    said = gcv.parameters
    assert (said["lam.rule"], said["lam.low"], said["lam.high"], said["lam.runs"]) == ("gcv", 0.01, 10.0, 10)
    assert said["lam.runs"] == gcv.chosen.used == 2 * len(gcv.chosen.trials)
    assert said["lam.seconds"] >= 0
    # Against the oracle's row where it has the same settings, else against the best of its own trials.
    against = best.metrics["psnr"] - gcv.metrics["psnr"]
    assert said["lam.loss_db"] == pytest.approx(max(against, gcv.chosen.loss_db or 0.0))
    assert best.parameters["lam.loss_db"] == 0
    assert other.chosen is not None
    assert other.parameters["lam.loss_db"] == other.chosen.loss_db
    assert best.metrics["psnr"] >= max(r.metrics["psnr"] for r in (plain, gcv) if r.metrics)
    unseen = run_method(replace(case, truth=None), rows[1], registry=toys)
    assert "lam.loss_db" not in unseen.parameters
    assert unseen.parameters["lam"] == said["lam"]


def test_a_record_of_the_oracle_is_for_its_own_case(toys: Registry) -> None:
    case = _denoising((12, 12), 0.7)
    found = choose(case, Method("soft", rule=Rule("oracle", "lam")), registry=toys)
    (row,) = apply_chosen([found], {"toy": [Method("soft")]}, [case], toys)["toy"]
    assert row.tuned == "oracle"
    with pytest.raises(InputError, match="the case that the oracle of 'soft' saw"):
        apply_chosen([found], {"toy": [Method("soft")]}, [replace(case, measurement=case.measurement + 1)], toys)
    with pytest.raises(InputError, match="expected a record or a rule, got both"):
        apply_chosen([found], {"toy": [Method("soft", rule=Rule("gcv", "lam"))]}, [case], toys)


def test_the_warnings_of_trials_are_not_repeated(
    discover: Callable[..., Registry], caplog: pytest.LogCaptureFixture
) -> None:
    def warned(case: Case, *, lam: float = 1.0) -> Assembly:
        return replace(soft(case, lam=lam), warnings=("mind the gap",))

    made = {"warned": lambda: Pipeline("warned", "classical", "", warned)}
    registry = discover(toy={"pipelines": made, "modalities": {"toy": toy}})
    method = Method("warned", rule=Rule("gcv", "lam", 0.1, 1.0))
    result = run_method(_denoising((8, 8), 0.5), method, registry=registry)
    assert "mind the gap" in result.warnings
    assert [r.message.count("mind the gap") for r in caplog.records] == [1]
