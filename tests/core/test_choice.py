"""Choosing parameters: against closed forms, dense grids, the noise itself, and a stated budget."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from priorloom import Case, LinearOperator, Modality, Pipeline, Problem, Space, State, Step
from priorloom.choice import by_discrepancy, measured_entries, noise_level, on_cases
from priorloom.chosen import Chosen, TuningCase, apply_chosen, digest, read_chosen
from priorloom.errors import InputError
from priorloom.operator import Identity
from priorloom.pipeline import Assembly, least_squares
from priorloom.reconstruction import Method, reconstruct

SHAPE = (24, 24)
SPACE = Space(SHAPE, torch.float64)
CALLS: list[tuple[str, float, float]] = []


class Masked(LinearOperator):
    """Keeps some entries, as a mask in k-space does."""

    def __init__(self, mask: Tensor, dtype: torch.dtype) -> None:
        super().__init__(Space(tuple(mask.shape), dtype), Space(tuple(mask.shape), dtype))
        self.register_buffer("mask", mask)
        self.mask: Tensor

    def _forward(self, x: Tensor) -> Tensor:
        return self.mask * x

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.mask * y


class Grow(Step[State]):
    """Diverges to infinity."""

    def init(self, problem: Problem, x0: Tensor | None = None) -> State:
        return State(problem.zeros() + 1)

    def forward(self, problem: Problem, state: State) -> State:
        return State(state.x * 1e200)


def ridge(case: Case, *, lam: float = 1.0, gain: float = 1.0, steps: int = 3) -> Assembly:
    """``gain argmin 0.5 |Ax - y|^2 + 0.5 lam |x|^2`` for a diagonal A of zeros and ones: ``gain y / (1 + lam)``."""
    CALLS.append((case.name, lam, gain))
    return Assembly(Problem(least_squares(case)), nn.ModuleList(), gain * case.measurement / (1 + lam))


def fragile(case: Case, *, lam: float = 1.0) -> Assembly:
    """The same, but the iteration diverges where lam is below 0.5, which is where the images would be best."""
    if lam < 0.5:
        return Assembly(Problem(least_squares(case)), Grow(), None)
    return ridge(case, lam=lam)


def wavy(case: Case, *, lam: float = 1.0) -> Assembly:
    """A residual that rises and falls in lam."""
    return Assembly(Problem(least_squares(case)), nn.ModuleList(), case.measurement * (0.5 + 0.5 * math.cos(9 * lam)))


def toy() -> Modality:
    """Everything in units of one; the noise level is what the measurement's last entry says."""
    return Modality(
        "toy", "Toy", "V", ("ridge",), lambda case: 2.0, lambda case: float(case.measurement.abs().flatten()[-1]),
        lambda truth: float(truth.max()), lambda image: image.real, lambda registry, operator, *, seed=0: [],
    )  # fmt: skip


@pytest.fixture
def registry(discover):
    CALLS.clear()
    recipes = {"ridge": ridge, "fragile": fragile, "wavy": wavy}
    made = {n: lambda n=n, r=r: Pipeline(n, "classical", "", r) for n, r in recipes.items()}
    return discover(toy={"pipelines": made, "modalities": {"toy": toy}})


def _case(name: str = "a", sigma: float = 0.3, seed: int = 0) -> Case:
    generator = torch.Generator().manual_seed(seed)
    truth = torch.rand(SHAPE, generator=generator, dtype=torch.float64)
    noise = sigma * torch.randn(SHAPE, generator=generator, dtype=torch.float64)
    return Case(name, "toy", Identity(SPACE), truth + noise, truth, sigma)


def test_the_discrepancy_is_met_where_the_closed_form_says(registry):
    case = _case()
    found = by_discrepancy(case, Method("ridge"), "lam", 1e-3, 1e2, budget=12, registry=registry)
    # |Ax - y| = lam / (1 + lam) |y| = sqrt(m) sigma
    ratio = math.sqrt(case.measurement.numel()) * 0.3 / float(case.measurement.norm())
    exact = ratio / (1 - ratio)
    assert found.settings["lam"] == pytest.approx(exact, rel=0.1)
    image = reconstruct(case, found.method, registry=registry).image
    figure = float((image - case.measurement).square().sum()) / (case.measurement.numel() * 0.09)
    assert abs(figure - 1) <= math.sqrt(2 / case.measurement.numel())
    assert found.trials[-1].mean == pytest.approx(figure)
    assert found.warnings == ()
    assert found.used == len(found.trials) <= 12
    assert (found.rule, found.measure, found.budget) == ("discrepancy", "discrepancy", 12)
    assert found.method == Method("ridge", {"lam": found.settings["lam"]}, None, "rule")


def test_a_residual_that_falls_is_searched_as_well(registry):
    case = _case()
    found = by_discrepancy(case, Method("ridge", {"lam": 1e-9}), "gain", 0.05, 1.0, budget=12, registry=registry)
    ratio = math.sqrt(case.measurement.numel()) * 0.3 / float(case.measurement.norm())
    assert found.settings["gain"] == pytest.approx(1 - ratio, rel=0.1)  # |y| (1 - gain) is the noise
    assert found.settings["lam"] == 1e-9
    assert found.warnings == ()


def test_complex_masked_entries_count_as_sampled_and_once_by_their_modulus(registry, generator):
    mask = (torch.rand(SHAPE, generator=generator) < 0.3).double()
    truth = torch.randn(SHAPE, dtype=torch.complex128, generator=generator)
    noise = 0.5 * torch.randn(SHAPE, dtype=torch.complex128, generator=generator)  # E |e|^2 = 0.25
    case = Case("k", "toy", Masked(mask, torch.complex128), mask * (truth + noise), truth, 0.5)
    assert measured_entries(case) == int(mask.sum())
    found = by_discrepancy(case, Method("ridge"), "lam", 1e-3, 1e2, budget=12, registry=registry)
    image = reconstruct(case, found.method, registry=registry).image
    figure = float((mask * image - case.measurement).abs().square().sum()) / (float(mask.sum()) * 0.25)
    assert abs(figure - 1) <= math.sqrt(1 / float(mask.sum()))  # two degrees of freedom an entry
    assert found.trials[-1].mean == pytest.approx(figure)


def test_an_entry_that_misses_the_object_and_has_noise_is_measured(generator):
    mask = torch.ones(SHAPE, dtype=torch.float64)
    mask[:, :4] = 0  # rays that miss the image still see noise
    y = torch.randn(SHAPE, dtype=torch.float64, generator=generator)
    assert measured_entries(Case("rays", "toy", Masked(mask, torch.float64), y)) == y.numel()


def test_the_true_image_meets_the_principle(registry):
    case = _case(sigma=0.2)
    figure = float((case.operator(case.truth) - case.measurement).square().sum()) / (measured_entries(case) * 0.04)
    assert abs(figure - 1) < 4 * math.sqrt(2 / case.measurement.numel())


@pytest.mark.parametrize(("low", "high", "nearer"), [(1e-4, 1e-3, 1e-3), (50.0, 100.0, 50.0)])
def test_a_range_without_the_crossing_gives_its_nearer_end_and_says_so(registry, low, high, nearer):
    found = by_discrepancy(_case(), Method("ridge"), "lam", low, high, registry=registry)
    assert found.settings["lam"] == nearer
    assert found.used == 2
    assert "does not contain the crossing" in found.warnings[0]


def test_a_small_budget_is_kept_and_the_miss_is_told(registry):
    found = by_discrepancy(_case(), Method("ridge"), "lam", 1e-9, 1e9, budget=3, registry=registry)
    assert len(CALLS) == found.used == 3
    assert "larger budget" in found.warnings[0]


def test_where_the_search_stops_by_itself_is_no_miss(registry, monkeypatch):
    # With eight million entries the noise moves the figure by less than CLOSE; a coarse CLOSE stands for that here.
    monkeypatch.setattr("priorloom.choice.discrepancy.CLOSE", 0.5)
    found = by_discrepancy(_case(), Method("ridge"), "lam", 1e-3, 1e2, budget=12, registry=registry)
    assert found.used < 12
    assert abs(found.trials[-1].mean - 1) > math.sqrt(2 / _case().measurement.numel())
    assert found.warnings == ()


def test_a_residual_that_is_not_monotone_is_told(registry):
    found = by_discrepancy(_case(), Method("wavy"), "lam", 0.01, 1.0, budget=12, registry=registry)
    assert any("not monotone" in w for w in found.warnings)


def test_an_estimated_noise_level_is_used_and_told(registry):
    case = replace(_case(), noise_std=None)
    noise, estimated = noise_level(case, registry)
    assert estimated
    assert noise == pytest.approx(float(case.measurement.abs().flatten()[-1]))
    found = by_discrepancy(case, Method("ridge"), "lam", 1e-3, 1e2, registry=registry)
    assert any("estimate" in w for w in found.warnings)


def test_no_noise_level_is_an_input_error(registry):
    y = _case().measurement.clone()
    y[-1, -1] = 0
    for case in (replace(_case(), measurement=y, noise_std=None), replace(_case(), noise_std=0.0)):
        with pytest.raises(InputError, match="noise level of case 'a'"):
            by_discrepancy(case, Method("ridge"), "lam", 0.1, 1, registry=registry)
    assert not CALLS


def test_on_cases_finds_the_best_mean_of_a_dense_grid(registry):
    cases = [_case("a", 0.3, 0), _case("b", 0.6, 1)]
    found = on_cases(cases, Method("ridge"), {"lam": (1e-3, 1e2)}, budget=28, registry=registry)

    def mean(lam: float) -> float:
        results = [reconstruct(c, Method("ridge", {"lam": lam}), registry=registry) for c in cases]
        return float(np.mean([r.metrics["psnr"] for r in results]))

    dense = np.geomspace(1e-3, 1e2, 60)
    best = max(mean(lam) for lam in dense)
    assert mean(found.settings["lam"]) >= best - 0.05
    assert max(t.mean for t in found.trials) == pytest.approx(mean(found.settings["lam"]))
    assert found.warnings == ()


@pytest.mark.parametrize("budget", [6, 7, 8, 13, 20])
def test_on_cases_keeps_its_budget_and_uses_it(registry, budget):
    cases = [_case("a"), _case("b", seed=1)]
    found = on_cases(cases, Method("ridge"), {"lam": (0.01, 10)}, budget=budget, registry=registry)
    assert len(CALLS) == found.used == 2 * (budget // 2)
    assert len({lam for _, lam, _ in CALLS}) == budget // 2  # no setting is run twice


def test_on_cases_is_deterministic(registry):
    one, two = (
        on_cases([_case()], Method("ridge"), {"lam": (0.01, 10)}, budget=9, registry=registry) for _ in range(2)
    )
    assert one == two


def test_nmse_is_made_small(registry):
    found = on_cases([_case()], Method("ridge"), {"lam": (1e-3, 1e2)}, budget=12, measure="nmse", registry=registry)
    chosen = next(t for t in found.trials if t.settings["lam"] == found.settings["lam"])
    assert chosen.mean == min(t.mean for t in found.trials)


def test_several_parameters_are_searched_in_the_order_given_with_equal_shares(registry):
    ranges = {"gain": (0.1, 10.0), "lam": (0.01, 10.0)}
    found = on_cases([_case()], Method("ridge"), ranges, budget=13, registry=registry)
    first, second = found.trials[:7], found.trials[7:]
    assert [set(t.settings) for t in first] == [{"gain"}] * 7
    best = max(first, key=lambda t: t.mean).settings["gain"]
    assert len(second) == 6
    assert all(t.settings["gain"] == best and "lam" in t.settings for t in second)
    assert {lam for _, lam, _ in CALLS[:7]} == {1.0}  # the default of the method


def test_a_parameter_that_helps_nowhere_is_left_as_it_was(registry):
    ranges = {"gain": (1.5, 3.0), "lam": (50.0, 100.0)}
    found = on_cases([_case()], Method("ridge"), ranges, budget=6, registry=registry)
    assert "lam" not in found.settings
    assert any(w.startswith("lam is left as it was") for w in found.warnings)


def test_the_end_of_a_range_is_told(registry):
    found = on_cases([_case()], Method("ridge"), {"lam": (10.0, 100.0)}, budget=5, registry=registry)
    assert found.settings["lam"] == 10.0
    assert "may lie beyond" in found.warnings[0]


def test_a_setting_that_diverges_is_never_chosen(registry):
    found = on_cases([_case(sigma=0.1)], Method("fragile"), {"lam": (0.01, 10.0)}, budget=9, registry=registry)
    lost = [t for t in found.trials if t.settings["lam"] < 0.5]
    assert lost
    assert all(t.mean is None and dict(t.remarks) == {"a": "diverged"} and not t.sound for t in lost)
    assert found.settings["lam"] >= 0.5
    with pytest.raises(InputError, match="does not diverge"):
        on_cases([_case()], Method("fragile"), {"lam": (0.01, 0.1)}, budget=3, registry=registry)
    with pytest.raises(InputError, match="does not diverge"):
        by_discrepancy(_case(), Method("fragile"), "lam", 0.01, 10, registry=registry)


@pytest.mark.parametrize(
    ("ranges", "words"),
    [
        ({"lan": (0.1, 1.0)}, "did you mean 'lam'"),
        ({"steps": (1.0, 5.0)}, "expected a real number"),
        ({"lam": (1.0, 0.1)}, "0 < LOW < HIGH"),
        ({"lam": (0.0, 0.1)}, "0 < LOW < HIGH"),
        ({"lam": (-1.0, 0.1)}, "0 < LOW < HIGH"),
        ({"lam": (0.1, math.inf)}, "0 < LOW < HIGH"),
        ({"lam": (math.nan, 1.0)}, "0 < LOW < HIGH"),
        ({}, "at least one"),
    ],
)
def test_ranges_are_refused_before_anything_runs(registry, ranges, words):
    with pytest.raises(InputError, match=words):
        on_cases([_case()], Method("ridge"), ranges, budget=30, registry=registry)
    for name, (low, high) in ranges.items():
        with pytest.raises(InputError, match=words):
            by_discrepancy(_case(), Method("ridge"), name, low, high, registry=registry)
    assert not CALLS


def test_cases_and_budgets_are_refused_before_anything_runs(registry):
    ranges = {"lam": (0.1, 1.0)}
    for cases, budget, words in (
        ([], 9, "tuning cases"),
        ([_case(), _case()], 9, "unique"),
        ([_case(), replace(_case("b"), modality="ct")], 9, "one modality"),
        ([replace(_case(), truth=None)], 9, "expected a truth"),
        ([_case(), _case("b")], 5, "at least 6 runs"),
    ):
        with pytest.raises(InputError, match=words):
            on_cases(cases, Method("ridge"), ranges, budget=budget, registry=registry)
    with pytest.raises(InputError, match="at least 3 runs"):
        by_discrepancy(_case(), Method("ridge"), "lam", 0.1, 1, budget=2, registry=registry)
    with pytest.raises(InputError, match="measure 'snr'"):
        on_cases([_case()], Method("ridge"), ranges, budget=3, measure="snr", registry=registry)
    assert not CALLS


@pytest.fixture
def record(registry) -> Chosen:
    return on_cases([_case("a")], Method("ridge", {"gain": 0.9}), {"lam": (0.01, 10)}, budget=5, registry=registry)


def test_a_record_comes_back_from_its_file(record, tmp_path):
    path = tmp_path / "tuned.json"
    path.write_text(json.dumps(record.to_json(), allow_nan=False))
    assert read_chosen(path) == record
    perfect = replace(record.trials[0], facts={"psnr": math.inf, "misfit": 0.0})  # JSON has no infinity
    path.write_text(json.dumps(replace(record, trials=(perfect,)).to_json(), allow_nan=False))
    assert read_chosen(path).trials == (replace(perfect, facts={"misfit": 0.0}),)


def test_files_that_are_no_record_are_refused_in_one_line(record, tmp_path):
    path = tmp_path / "tuned.json"
    good = record.to_json()
    texts = ["", "[1]", "{}", "3", *(json.dumps(good | bad) for bad in (
        {"schema": 2}, {"rule": "guess"}, {"cases": []}, {"cases": [{"name": "x"}]}, {"ranges": {"lam": 1}},
        {"settings": 3}, {"budget": "many"}, {"trials": [3]}, {"label": 3},
        {"cases": [good["cases"][0] | {"name": []}]},
        *({"trials": [good["trials"][0] | trial]} for trial in (
            {"figures": [1.0]}, {"figures": {"a": "x"}}, {"settings": [1]}, {"remarks": ["x"]}, {"facts": {"psnr": ""}},
        )),
    ))]  # fmt: skip
    for text in texts:
        path.write_text(text)
        with pytest.raises(InputError, match="tuned settings") as caught:
            read_chosen(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="No such file"):
        read_chosen(tmp_path / "absent.json")


def test_a_record_is_applied_to_its_row_alone(record, registry):
    rows = {"toy": [Method("ridge"), Method("ridge", label="other")]}
    applied = apply_chosen([record], rows, [_case("new", seed=5)], registry)
    assert applied["toy"] == [record.method, Method("ridge", label="other")]
    assert applied["toy"][0].settings == {"gain": 0.9, "lam": record.settings["lam"]}
    assert reconstruct(_case("new", seed=5), applied["toy"][0], registry=registry).tuned == "tuned"
    assert record.facts == {"tuned.rule": "cases", "tuned.budget": 5, "tuned.cases": "a"}


def test_other_settings_than_those_tuned_with_are_refused(record, registry):
    for row in (Method("ridge", {"gain": 2.0}), Method("ridge", {"steps": 4})):
        with pytest.raises(InputError, match="as it was tuned with"):
            apply_chosen([record], {"toy": [row]}, [], registry)
    assert apply_chosen([record], {"toy": [Method("ridge", {"gain": 0.9})]}, [], registry)


def test_a_record_of_a_method_that_is_not_run_is_refused(record, registry):
    for rows in ({"toy": [Method("fragile")]}, {"toy": [Method("ridge", label="mine")]}, {"ct": [Method("ridge")]}):
        with pytest.raises(InputError, match="expected a method that is run"):
            apply_chosen([record], rows, [], registry)
    with pytest.raises(InputError, match="got two"):
        apply_chosen([record, record], {"toy": [Method("ridge")]}, [], registry)


def test_compared_cases_are_recognised_by_data_whatever_their_name(record, registry, caplog):
    rows = {"toy": [Method("ridge")]}
    other = _case("a", seed=7)
    same_truth = replace(other, name="b", truth=_case().truth)
    same_data = replace(_case("c"), truth=None)
    for case in (_case(), same_truth, same_data):
        with pytest.raises(InputError, match="was not tuned on"):
            apply_chosen([record], rows, [case], registry)
    assert not caplog.records
    apply_chosen([record], rows, [other], registry)
    assert "has the name of a tuning case" in caplog.text


def test_the_discrepancy_principle_may_use_the_measurement_it_is_applied_to(registry):
    found = by_discrepancy(_case(), Method("ridge"), "lam", 1e-3, 1e2, registry=registry)
    assert apply_chosen([found], {"toy": [Method("ridge")]}, [_case()], registry)["toy"] == [found.method]


def test_digests_tell_values_shapes_and_types_apart():
    x = torch.arange(6.0)
    kinds = [x, x + 1, x.reshape(2, 3), x.double(), x.to(torch.complex64)]
    assert len({digest(k) for k in kinds}) == len(kinds)
    assert digest(x.reshape(2, 3).T) == digest(x.reshape(2, 3).T.contiguous())
    assert TuningCase.of(replace(_case(), truth=None)).truth is None
