"""reconstruct and compare on a toy modality: identity operator, a direct and an iterative method."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import priorloom
from priorloom import Case, Functional, Modality, Pipeline, PnP, Problem, Space, State, Step, compare
from priorloom.errors import DivergenceError, InputError
from priorloom.judgement import Judgement
from priorloom.metrics import metrics
from priorloom.operator import Identity
from priorloom.pipeline import Assembly, Slot, Solver, least_squares
from priorloom.reconstruction import Method, reconstruct
from priorloom.steps import ISTA

SPACE = Space((12, 12))


class Absolute(Functional):
    """``lam |x|_1``."""

    def __init__(self, space: Space, lam: float) -> None:
        super().__init__(space)
        self.lam = lam

    def _value(self, x: Tensor) -> Tensor:
        return self.lam * x.abs().sum(dim=self.space.dims)

    def _prox(self, x: Tensor, step: Tensor) -> Tensor:
        return x.sign() * (x.abs() - step * self.lam).clamp_min(0)


def absolute(space: Space, *, lam: float) -> Absolute:
    """The l1 norm."""
    return Absolute(space, lam)


class Explode(Step[State]):
    """Doubles everything a thousand times over."""

    def init(self, problem: Problem, x0: Tensor | None = None) -> State:
        return State(problem.zeros() + 1)

    def forward(self, problem: Problem, state: State) -> State:
        return State(state.x * 1e30)


SOLVER, SLOT = Solver(max_iterations=100, tolerance=1e-6), Slot("prior", "absolute")


def direct(case: Case, *, gain: float = 1.0) -> Assembly:
    """The pseudo-inverse, times a gain."""
    start = gain * case.operator.pseudo_inverse(case.measurement)
    return Assembly(Problem(least_squares(case)), nn.ModuleList(), start)


def shrink(case: Case, *, prior: Slot = SLOT, solver: Solver = SOLVER) -> Assembly:
    """ISTA, with the noise level as the weight unless it is set."""
    assert case.noise_std is not None
    made = prior.build(case.operator.domain, lam=case.noise_std)
    chosen = {} if "lam" in prior.parameters else {"prior.lam": case.noise_std}
    return Assembly(Problem(least_squares(case), made), ISTA(), None, solver, chosen, "certified")


def random(case: Case) -> Assembly:
    """An image of noise."""
    return Assembly(Problem(least_squares(case)), nn.ModuleList(), torch.randn(SPACE.shape))


def explode(case: Case) -> Assembly:
    """A step that diverges."""
    return Assembly(Problem(least_squares(case)), Explode(), None)


def expanding(case: Case, *, factor: float = 1.3, solver: Solver = SOLVER) -> Assembly:
    """PnP-PGD with half a step and a denoiser that multiplies by `factor`: the iteration is x+ = factor (x + y) / 2."""
    prior = PnP(case.operator.domain, lambda x, sigma: factor * x, 1.0)
    judged = Judgement(False, reason="D is 1.3-Lipschitz")
    return Assembly(Problem(least_squares(case), prior), ISTA(0.5), None, solver, certificate="empirical",
                    judgement=judged, damped=True)  # fmt: skip


def flipping(case: Case, *, solver: Solver = SOLVER) -> Assembly:
    """A denoiser that changes the sign: a cycle of two."""
    prior = PnP(case.operator.domain, lambda x, sigma: -x, 1.0)
    step = ISTA(1e-9)  # the data hardly count
    return Assembly(Problem(least_squares(case), prior), step, case.measurement, solver, certificate="certified")


def not_a_number(case: Case) -> Assembly:
    """A direct method that fails in silence."""
    return Assembly(Problem(least_squares(case)), nn.ModuleList(), torch.full(SPACE.shape, torch.nan))


def toy() -> Modality:
    """A modality that scales by the brightest value."""
    return Modality(
        "toy",
        "Toy",
        "V",
        methods=("direct", "shrink"),
        scale=lambda case: float(case.measurement.abs().max()),
        noise_std=lambda case: 0.125,
        data_range=lambda truth: float(truth.max()),
        display=lambda image: image,
        cases=lambda registry, operator, *, seed=0: [],
    )


@pytest.fixture
def registry(discover):
    recipes = {"direct": direct, "shrink": shrink, "random": random, "explode": explode, "nan": not_a_number,
               "expanding": expanding, "flipping": flipping}  # fmt: skip
    kinds = {"direct": "direct", "expanding": "pnp", "flipping": "pnp"}
    pipelines = {
        name: lambda name=name, recipe=recipe: Pipeline(name, kinds.get(name, "classical"), "", recipe)
        for name, recipe in recipes.items()
    }
    elsewhere = {"elsewhere": lambda: Pipeline("elsewhere", "direct", "", direct, modalities=("ct",))}
    return discover(
        toy={"pipelines": pipelines | elsewhere, "modalities": {"toy": toy}, "priors": {"absolute": absolute}}
    )


@pytest.fixture
def case(generator) -> Case:
    truth = torch.zeros(SPACE.shape)
    truth[3:8, 3:8] = 40.0
    return Case("square", "toy", Identity(SPACE), truth + SPACE.random(generator), truth)


def test_a_direct_method_comes_back_in_the_users_units(registry, case):
    got = reconstruct(case, "direct", registry=registry)
    torch.testing.assert_close(got.image, case.measurement)
    assert got.scale == pytest.approx(float(case.measurement.max()))
    assert got.metrics == pytest.approx(metrics(got.image, case.truth, 40.0))
    assert (got.kind, got.iterations, got.converged, got.residual) == ("direct", 0, None, None)
    assert (got.tuned, got.parameters, got.certificate) == ("default", {"gain": 1.0}, "none")


def test_an_iterative_method_solves_the_normalised_problem_and_says_how(registry, case):
    got = reconstruct(case, "shrink", registry=registry)
    y, lam = case.measurement, 0.125 * got.scale  # min 0.5 |x - y|^2 + lam |x|_1 is soft thresholding
    torch.testing.assert_close(got.image, y.sign() * (y.abs() - lam).clamp_min(0))
    assert got.converged is True
    assert got.iterations <= 3
    assert "1e-06" in got.criterion
    assert got.residual is not None
    assert got.residual <= 1e-6
    assert got.certificate == "certified"
    assert got.history[-1].iteration == got.iterations
    assert got.parameters == {
        "prior.name": "absolute", "prior.lam": 0.125, "solver.max_iterations": 100, "solver.tolerance": 1e-6
    }  # fmt: skip


def test_the_noise_level_of_the_case_is_used_and_scaled(registry, case):
    got = reconstruct(replace(case, noise_std=1.0), "shrink", registry=registry)
    assert got.parameters["prior.lam"] == pytest.approx(1 / got.scale)


def test_settings_are_bound_and_recorded(registry, case):
    got = reconstruct(case, Method("shrink", {"prior.lam": "0.5", "solver.max_iterations": 1}), registry=registry)
    assert got.parameters["prior.lam"] == 0.5
    assert got.tuned == "given"
    assert got.iterations == 1
    assert got.converged is False
    assert reconstruct(case, Method("direct", tuned="oracle"), registry=registry).tuned == "oracle"


def test_the_result_does_not_depend_on_the_unit(registry, case):
    big = replace(case, measurement=1000 * case.measurement, truth=1000 * case.truth)
    one, thousand = (reconstruct(c, "shrink", registry=registry) for c in (case, big))
    torch.testing.assert_close(thousand.image, 1000 * one.image)


def test_no_truth_no_metrics(registry, case):
    assert reconstruct(replace(case, truth=None), "direct", registry=registry).metrics is None


def test_compare_runs_the_default_methods_of_the_modality_in_order(registry, case):
    seen = []
    cases = [case, replace(case, name="other")]
    results = compare(cases, registry=registry, on_result=lambda c, r: seen.append((c.name, r.method)))
    assert seen == [(r.case, r.method) for r in results]
    assert seen == [("square", "direct"), ("square", "shrink"), ("other", "direct"), ("other", "shrink")]


def test_a_label_tells_two_rows_of_one_method_apart(registry, case):
    methods = [Method("direct"), Method("direct", {"gain": 2.0}, label="doubled")]
    first, second = compare([case], methods, registry=registry)
    assert (first.method, second.method) == ("direct", "doubled")
    torch.testing.assert_close(second.image, 2 * first.image)


def test_the_seed_fixes_every_method_whatever_ran_before(registry, case):
    alone = reconstruct(case, "random", registry=registry, seed=3)
    _, after = compare([case], ["direct", "random"], registry=registry, seed=3)
    other = reconstruct(case, "random", registry=registry, seed=4)
    np.testing.assert_array_equal(alone.image, after.image)
    assert alone.seed == 3
    assert not torch.equal(alone.image, other.image)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("shrnk", "unknown pipeline 'shrnk'; did you mean 'shrink'"),
        ("elsewhere", "method 'elsewhere': expected a case of ct, got toy; methods for toy: direct, shrink"),
        (Method("shrink", {"lam": 1}), "unknown parameter 'lam' of method 'shrink'; did you mean 'prior.lam'"),
        (Method("direct", {"gain": "high"}), "parameter 'gain' of method 'direct': expected float, got 'high'"),
    ],
)
def test_methods_that_cannot_run_are_refused(registry, case, method, message):
    with pytest.raises(InputError, match=message):
        compare([case], [method], registry=registry)


def test_names_must_be_unique(registry, case):
    with pytest.raises(InputError, match="case name: expected unique names, got 'square' twice; rename one"):
        compare([case, case], registry=registry)
    with pytest.raises(InputError, match="method name: expected unique names, got 'direct' twice; give one a label"):
        compare([case], ["direct", "direct"], registry=registry)


def test_a_measurement_of_zeros_is_refused(registry, case):
    with pytest.raises(InputError, match="scale of case 'square': expected a measurement that is not zero"):
        reconstruct(replace(case, measurement=SPACE.zeros()), "direct", registry=registry)


def test_divergence_is_an_error_that_names_the_step_and_keeps_what_was_finished(registry, case):
    seen = []
    with pytest.raises(DivergenceError, match=r"Explode diverged at iteration \d"):
        compare([case], ["direct", "explode"], registry=registry, on_result=lambda c, r: seen.append(r.method))
    assert seen == ["direct"]
    with pytest.raises(DivergenceError, match="method 'nan' on case 'square': expected a finite image"):
        reconstruct(case, "nan", registry=registry)


def test_an_expanding_denoiser_is_stopped_and_its_best_iterate_kept(registry, case):
    """x+ = factor (x + y) / 2 from 0: beyond a factor of 2 it runs away."""
    got = reconstruct(case, Method("expanding", {"factor": 2.6, "solver.max_iterations": 500}), registry=registry)
    assert (got.outcome, got.converged, got.certificate) == ("diverged", False, "none")
    assert got.iterations < 100
    assert got.warnings == (got.story,)
    assert "diverged at iteration" in got.story
    changes = [1.3 * 1.3**k for k in range(got.iterations)]  # of x_k+1 - x_k in units of y
    sizes = [1.3 * (1.3 ** (k + 1) - 1) / 0.3 for k in range(got.iterations)]
    kept = min(range(got.iterations), key=lambda k: changes[k] / min(sizes[k], sizes[9]))
    torch.testing.assert_close(got.image, sizes[kept] * case.measurement, rtol=1e-4, atol=1e-4)
    assert got.metrics is not None
    assert got.judgement is not None
    assert (got.judgement.theorem, got.damped) == ("", True)


def test_empirical_is_said_only_of_what_was_seen_to_converge(registry, case):
    seen = reconstruct(case, Method("expanding", {"solver.max_iterations": 500}), registry=registry)
    assert (seen.outcome, seen.certificate, seen.warnings) == ("converged", "empirical", ())
    torch.testing.assert_close(seen.image, 0.65 / 0.35 * case.measurement, rtol=1e-4, atol=1e-4)
    short = reconstruct(case, Method("expanding", {"solver.max_iterations": 3}), registry=registry)
    assert (short.outcome, short.certificate) == ("budget", "none")


def test_a_theorem_that_the_iteration_contradicts_certifies_nothing(registry, case):
    got = reconstruct(case, Method("flipping", {"solver.max_iterations": 500}), registry=registry)
    assert (got.outcome, got.certificate) == ("cycling", "none")


def test_a_certificate_does_not_wait_for_the_last_iteration(registry, case):
    got = reconstruct(case, Method("shrink", {"solver.max_iterations": 1}), registry=registry)
    assert (got.outcome, got.converged, got.certificate) == ("budget", False, "certified")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"measurement": torch.zeros(12, 11)}, r"measurement of case 'square': expected shape \[..., 12, 12\], got"),
        ({"measurement": torch.full((12, 12), torch.nan)}, "expected finite values, got 144 NaN or infinite"),
        ({"truth": torch.zeros(12, 12, dtype=torch.float64)}, "truth of case 'square': expected torch.float32"),
    ],
)
def test_a_case_that_does_not_fit_its_operator_cannot_be_made(case, change, message):
    with pytest.raises(InputError, match=message):
        replace(case, **change)


def test_the_function_is_not_hidden_by_a_module() -> None:
    # Importing a submodule puts its name on the package, so no public name may be a module's.
    assert callable(priorloom.compare)
    homes = {path.stem for path in Path(priorloom.__file__).parent.glob("*.py")}
    assert not homes & set(priorloom.__all__)


def test_the_curve_has_the_error_and_the_image_in_the_users_units(registry, case):
    seen = []
    result = reconstruct(case, "shrink", registry=registry, watch=lambda record, x: seen.append((record, x)))
    assert [record for record, _ in seen] == list(result.history)
    for record, x in seen:
        assert record.error == pytest.approx(float((x - case.truth).norm() / case.truth.norm()), rel=1e-5)
    torch.testing.assert_close(seen[-1][1], result.image)
    blind = reconstruct(replace(case, truth=None), "shrink", registry=registry)
    assert {record.error for record in blind.history} == {None}


def test_the_penalty_is_the_objective_without_the_data_term(registry, case):
    result = reconstruct(case, "shrink", registry=registry)
    misfit = 0.5 * float(((result.image - case.measurement) / result.scale).square().sum())
    assert result.penalty == pytest.approx(result.objective - misfit, rel=1e-4)
    assert result.penalty > 0
    assert reconstruct(case, "direct", registry=registry).penalty is None
