"""Tuning on cases over words and over multiples of what a method chooses for each case by itself."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import nn

from priorloom import Case, Modality, Pipeline, Problem, Space
from priorloom.choice import on_cases
from priorloom.choice.cases import least_settings
from priorloom.errors import InputError
from priorloom.operator import Identity
from priorloom.pipeline import Assembly, least_squares
from priorloom.reconstruction import Method, reconstruct

SHAPE = (24, 24)
SPACE = Space(SHAPE, torch.float64)
Kind = Literal["plain", "half", "tenth"]
FACTORS = {"plain": 1.0, "half": 0.5, "tenth": 0.1}
RUNS: list[tuple[str, Kind, float]] = []


def ridge(case: Case, *, kind: Kind = "plain", lam: float | None = None) -> Assembly:
    """``factor y / (1 + lam)``; lam is a tenth of the noise variance, which is too little by a factor of ten."""
    chosen = {} if lam is not None else {"lam": 0.1 * (case.noise_std or 0.0) ** 2}
    value = chosen.get("lam", lam)
    if value > 1e3:
        raise InputError("lam", expected="at most 1000", got=value)
    RUNS.append((case.name, kind, value))
    image = FACTORS[kind] * case.measurement / (1 + value)
    return Assembly(Problem(least_squares(case)), nn.ModuleList(), image, parameters=chosen)


def toy() -> Modality:
    return Modality(
        "toy", "Toy", "V", ("ridge",), lambda case: 1.0, lambda case: 1.0, lambda truth: 1.0, lambda image: image,
        lambda registry, operator, *, seed=0: [],
    )  # fmt: skip


@pytest.fixture
def registry(discover):
    RUNS.clear()
    return discover(toy={"pipelines": {"ridge": lambda: Pipeline("ridge", "classical", "", ridge)},
                         "modalities": {"toy": toy}})  # fmt: skip


def case(name: str, sigma: float) -> Case:
    generator = torch.Generator().manual_seed(len(name))
    truth = torch.randn(SHAPE, generator=generator, dtype=torch.float64)
    noise = sigma * torch.randn(SHAPE, generator=generator, dtype=torch.float64)
    return Case(name, "toy", Identity(SPACE), truth + noise, truth, sigma)


def test_a_multiple_serves_cases_of_different_noise(registry):
    # The best lam of white images of variance one is sigma^2 (Wiener), ten times what the method chooses.
    cases = [case("quiet", 0.2), case("loud", 2.0)]
    found = on_cases(cases, Method("ridge"), {"lam.times": (0.1, 1000.0)}, budget=28, registry=registry)
    assert found.settings["lam.times"] == pytest.approx(10, rel=0.35)
    assert found.ranges == {"lam.times": (0.1, 1000.0)}
    absolute = on_cases(cases, Method("ridge"), {"lam": (1e-3, 10.0)}, budget=28, registry=registry)
    assert max(t.mean for t in found.trials) > max(t.mean for t in absolute.trials) + 0.5
    # Reproduced by the settings alone, on a case that was not seen.
    other = reconstruct(case("other", 1.0), found.method, registry=registry)
    assert other.parameters["lam"] == pytest.approx(found.settings["lam.times"] * 0.1)


def test_the_methods_own_value_is_tried_first_of_all(registry):
    found = on_cases([case("a", 1.0)], Method("ridge"), {"lam.times": (0.5, 3.0)}, budget=3, registry=registry)
    assert {t.settings["lam.times"] for t in found.trials} == {0.5, 1.0, 3.0}
    assert "end of its range" in found.warnings[0]


def test_every_word_is_tried_once_and_the_rest_goes_to_numbers(registry):
    ranges = {"kind": ("half", "tenth", "plain"), "lam.times": (1.0, 100.0)}
    found = on_cases([case("a", 1.0)], Method("ridge"), ranges, budget=10, registry=registry)
    assert [t.settings for t in found.trials[:3]] == [{"kind": "half"}, {"kind": "tenth"}, {"kind": "plain"}]
    kinds = {t.settings["kind"]: t.mean for t in found.trials[:3]}
    best = max(kinds, key=lambda k: kinds[k])
    assert found.settings["kind"] == best == "half"  # of white images in as much noise, the Wiener filter
    assert len(found.trials) == found.used == 10
    later = [t.settings["lam.times"] for t in found.trials[3:]]
    assert all(t.settings["kind"] == best for t in found.trials[3:])
    assert 1.0 not in later  # once the method's own lam, it was run with the word
    assert len(set(later)) == 7


def test_words_after_a_number_leave_out_what_was_run(registry):
    ranges = {"lam": (0.01, 1.0), "kind": ("plain", "half")}
    found = on_cases([case("a", 1.0)], Method("ridge"), ranges, budget=6, registry=registry)
    assert [("kind" in t.settings) for t in found.trials] == [False] * 5 + [True]
    assert found.trials[-1].settings["kind"] == "half"


def test_a_setting_that_the_method_refuses_is_not_chosen(registry):
    found = on_cases([case("a", 1.0)], Method("ridge"), {"lam.times": (1.0, 1e6)}, budget=5, registry=registry)
    refused = [t for t in found.trials if not t.sound]
    assert refused
    assert all(dict(t.remarks) == {"a": "refused"} and t.settings["lam.times"] > 1e4 for t in refused)
    assert found.settings["lam.times"] < 1e4
    with pytest.raises(InputError, match="lam: expected at most 1000, got"):
        on_cases([case("a", 1.0)], Method("ridge"), {"lam": (2e3, 1e6)}, budget=3, registry=registry)


@pytest.mark.parametrize(
    ("ranges", "words"),
    [
        ({"kind": ("half", "third")}, "parameter 'kind' of method 'ridge'.*got 'third'"),
        ({"kind": ("half", "half")}, "expected different ones"),
        ({"kin": ("half",)}, "did you mean 'kind'"),
        ({"kind.times": (0.1, 1.0)}, "expected a real number"),
        ({"lam.times": (0.1, 1.0), "lam": (0.1, 1.0)}, "expected 'lam' not set or searched"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_anything_runs(registry, ranges, words):
    with pytest.raises(InputError, match=words):
        on_cases([case("a", 1.0)], Method("ridge"), ranges, budget=30, registry=registry)
    assert not RUNS


def test_the_budget_must_have_every_word(registry):
    ranges = {"kind": ("half", "tenth", "plain"), "lam": (0.1, 1.0)}
    assert least_settings(registry, Method("ridge"), ranges) == 6
    with pytest.raises(InputError, match=r"at least 12 runs .*every word.*, got 11"):
        on_cases([case("a", 1.0), case("bb", 1.0)], Method("ridge"), ranges, budget=11, registry=registry)
    assert not RUNS
