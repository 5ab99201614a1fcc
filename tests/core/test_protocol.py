"""What of a comparison is tuned, on what, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from priorloom import Registry
from priorloom.config import Plan, load, make_cases, make_methods, override, tuning_plan
from priorloom.errors import InputError
from priorloom.modality import Case
from priorloom.plan_file import to_yaml
from priorloom.protocol.disjoint import check_disjoint, check_learned
from priorloom.protocol.run import Prepared, prepare_rows, searched, tune
from priorloom.protocol.tuning import Tuning, over_ranges
from priorloom.reconstruction import Method
from priorloom.rule import Rule
from priorloom.stored import patient_subject

REGISTRY = Registry.discover()
PLAN = Plan(modality="ct", case={"images": ("foam",), "image_shape": (20, 20)}, operator={"views": 9})


def prepared(*methods: Method, **tuning: object) -> dict[str, Prepared]:
    made = {"budget": 12, **tuning}
    rows = prepare_rows(Tuning(**made), {"ct": methods}, REGISTRY)  # type: ignore[arg-type]
    return {row.method.name: row for row in rows}


def test_what_is_searched_follows_the_pipeline_and_the_settings() -> None:
    fbp = searched(Method("fbp"), REGISTRY)
    assert fbp["cutoff"] == (0.1, 1.0)
    assert set(fbp["filter"]) == {"ram-lak", "shepp-logan", "cosine", "hamming", "hann"}
    assert searched(Method("fbp", {"filter": "hann"}), REGISTRY) == {"cutoff": (0.1, 1.0)}
    assert searched(Method("tv-pdhg"), REGISTRY) == {"prior.lam.times": (0.01, 100.0)}
    assert searched(Method("tv-pdhg", {"prior.lam": 1.0}), REGISTRY) == {}
    assert searched(Method("tv-pdhg", {"prior.lam.times": 1.0}), REGISTRY) == {}
    # A prior in the slot that has no weight of that name.
    assert searched(Method("tv-pdhg", {"prior.name": "nonnegativity"}), REGISTRY) == {}


def test_every_method_that_chooses_a_number_says_what_is_tuned() -> None:
    """What is not direct and not learned has something to tune: a baseline that cannot be tuned is none."""
    for modality in ("ct", "mri"):
        for name in REGISTRY.names("pipeline"):
            pipeline = REGISTRY.pipeline(name)
            if pipeline.kind in ("classical", "pnp") and (not pipeline.modalities or modality in pipeline.modalities):
                assert searched(Method(name), REGISTRY), name


def test_rows_are_called_what_they_are() -> None:
    rows = prepared(
        Method("fbp"),
        Method("tikhonov", {"prior.lam": 1.0}, "given"),
        Method("tikhonov", {}, "gcv", rule=Rule("gcv", "prior.lam")),
        Method("tikhonov", {"prior.lam": 2.0}, "record", "tuned"),
        Method("learned-primal-dual"),
    )
    states = {name: row.state for name, row in rows.items()}
    assert states == {
        "fbp": "tuned", "given": "given", "gcv": "by a rule", "record": "by a record", "learned-primal-dual": "learned",
    }  # fmt: skip
    assert all(not row.ranges for name, row in rows.items() if name != "fbp")


def test_a_rule_tuned_leaves_the_others_alone() -> None:
    rows = prepared(
        Method("fbp"),
        Method("tikhonov", {}, "auto", rule=Rule("tuned", "prior.lam")),
        Method("tikhonov", {}, "range", rule=Rule("tuned", "prior.lam", 0.1, 1.0)),
    )
    assert {n: r.state for n, r in rows.items()} == {"fbp": "left alone", "auto": "tuned", "range": "tuned"}
    assert rows["auto"].ranges == {"prior.lam.times": (0.01, 100.0)}
    assert rows["range"].ranges == {"prior.lam": (0.1, 1.0)}
    assert rows["range"].method.rule is None


def test_a_range_of_ones_own_replaces_the_methods() -> None:
    over = over_ranges({"fbp": {"cutoff": [0.2, 0.9]}, "tv": {"prior": {"lam": {"times": [0.5, 2]}}}})
    assert over == {"fbp": {"cutoff": (0.2, 0.9)}, "tv": {"prior.lam.times": (0.5, 2.0)}}
    rows = prepared(Method("fbp"), Method("tv-pdhg", {}, "tv"), over=over)
    assert rows["fbp"].ranges == over["fbp"]
    assert rows["tv"].ranges == over["tv"]


def test_a_range_for_a_row_that_is_not_tuned_is_refused() -> None:
    over = over_ranges({"gcv": {"prior.lam": [0.1, 1.0]}})
    with pytest.raises(InputError, match=r"tuning.over: method 'gcv': expected a row that is tuned, got by a rule"):
        prepared(Method("fbp"), Method("tikhonov", {}, "gcv", rule=Rule("gcv", "prior.lam")), over=over)


def test_all_rows_have_the_same_settings_and_cases() -> None:
    plan = replace(PLAN, tuning=Tuning({"images": ["foam", "ellipses"]}, seed=3, budget=6))
    cases = make_cases(tuning_plan(plan), REGISTRY)
    rows = prepare_rows(Tuning(budget=6), {"ct": [Method("fbp", {"filter": "hann"}), Method("tikhonov")]}, REGISTRY)
    told: list[str] = []

    def on_trial(row: Prepared) -> Callable[[object], None]:
        return lambda _: told.append(row.method.name)

    protocol = tune(Tuning(budget=6), rows, cases, registry=REGISTRY, on_trial=on_trial)
    assert {m: (r.budget, r.used) for (_, m), r in protocol.records.items()} == {
        "fbp": (12, 12), "tikhonov": (12, 12),
    }  # fmt: skip
    assert told == ["fbp"] * 6 + ["tikhonov"] * 6
    assert [c.name for c in protocol.cases] == ["foam", "ellipses"]
    fbp, tikhonov = protocol.methods()["ct"]
    assert fbp.tuned == tikhonov.tuned == "tuned"
    assert fbp.settings["filter"] == "hann"
    # What is tuned is at least as good on the tuning cases as what the method does by itself.
    trials = protocol.records["ct", "tikhonov"].trials
    own = next(t.mean for t in trials if t.settings == {"prior.lam.times": 1.0})
    assert own is not None
    assert max(t.mean or 0 for t in trials) >= own


def test_tuning_cases_are_the_comparisons_with_what_differs() -> None:
    plan = Plan(
        modality="ct", case={"images": ["foam"], "subject": "x", "photons": 5.0}, operator={"views": 9}, seed=4,
        tuning=Tuning({"images": ["ellipses"]}),
    )  # fmt: skip
    made = tuning_plan(plan)
    assert made.case == {"images": ["ellipses"], "photons": 5.0}  # whom the cases show is not taken over
    assert (made.seed, made.operator, made.tuning) == (5, {"views": 9}, None)
    dose = replace(plan, tuning=Tuning({"photons": 9.0}, seed=8))
    assert tuning_plan(dose).case == {"images": ["foam"], "subject": "x", "photons": 9.0}
    assert tuning_plan(dose).seed == 8
    with pytest.raises(InputError, match="expected a section 'tuning' in the config, got none"):
        tuning_plan(replace(plan, tuning=None))


def test_a_plan_with_tuning_is_read_back(tmp_path: Path) -> None:
    over = over_ranges({"fbp": {"cutoff": [0.2, 1]}})
    tuning = Tuning({"photons": 3.0}, seed=2, budget=7, measure="ssim", over=over)
    plan = replace(PLAN, case={"images": ["foam"]}, reference="fbp", tuning=tuning)
    (tmp_path / "p.yaml").write_bytes(to_yaml(plan))
    assert load(tmp_path / "p.yaml") == plan
    measured = replace(plan, tuning=Tuning(input=tmp_path / "scan.npz", options={"every": 2}))
    (tmp_path / "p.yaml").write_bytes(to_yaml(measured))
    assert load(tmp_path / "p.yaml") == measured


def test_settings_change_what_is_tuned_on() -> None:
    plan = override(PLAN, ["tuning.budget=5", "tuning.measure=nmse", "tuning.case.photons=20", "tuning.seed=9"])
    assert plan.tuning == Tuning({"photons": 20}, seed=9, budget=5, measure="nmse")
    with pytest.raises(InputError, match=r"unknown setting 'tuning.budgets'; did you mean 'budget'"):
        override(PLAN, ["tuning.budgets=5"])
    with pytest.raises(InputError, match=r"tuning.measure 'snr'"):
        override(PLAN, ["tuning.measure=snr"])


def case(name: str, seed: int, subject: str | None = None) -> Case:
    (made,) = make_cases(replace(PLAN, seed=seed), REGISTRY)
    return replace(made, name=name, subject=subject)


def test_cases_are_apart_unless_they_share_data_a_subject_or_an_image() -> None:
    one, two = case("one", 1), case("two", 2)
    assert one.truth is not None
    check_disjoint([one], [two], REGISTRY)
    check_disjoint([replace(one, subject="a")], [replace(two, subject="b")], REGISTRY)
    noisy = replace(two, measurement=one.measurement * 1.1, truth=one.truth * 1.001)
    for other, words in (
        (replace(one, name="two"), "the same measurement"),
        (replace(two, subject="a"), "both show subject a"),
        (noisy, "both show the same image"),
    ):
        with pytest.raises(InputError, match=f"tuning case 'one' and test case 'two': .*{words}"):
            check_disjoint([replace(one, subject="a")], [other], REGISTRY)


def test_a_phantom_with_another_phase_is_the_same_image() -> None:
    make = REGISTRY.modality("mri").cases
    (one,), (two,) = (make(REGISTRY, {}, seed=seed, image_shape=(16, 16), coils=2) for seed in (1, 2))
    assert one.truth is not None
    assert two.truth is not None
    assert not torch.allclose(one.truth, two.truth)
    with pytest.raises(InputError, match="both show the same image"):
        check_disjoint([one], [two], REGISTRY)


def test_models_are_judged_on_others_than_they_learned_from() -> None:
    seen = case("seen", 1, patient_subject("LIDC-IDRI-0314"))
    rows = {"ct": [Method("fbp"), Method("learned-primal-dual")]}
    with pytest.raises(InputError, match=r"case 'seen': .*'learned-primal-dual' has not learned from, got 'lidc-0314'"):
        check_learned(rows, [seen], REGISTRY)
    check_learned({"ct": [Method("fbp"), Method("tv-pdhg")]}, [seen], REGISTRY)
    check_learned(rows, [case("other", 1, patient_subject("LIDC-IDRI-0001")), case("unknown", 1)], REGISTRY)
    with pytest.raises(InputError, match=r"'red-accelerated' .*on the card of ct.ridge"):
        check_learned({"ct": [Method("red-accelerated")]}, [seen], REGISTRY)


@pytest.mark.parametrize("modality", ["ct", "mri"])
def test_the_examples_are_protocols(modality: str, tmp_path: Path) -> None:
    example = Path(__file__).resolve().parents[2] / "examples" / f"protocol-{modality}.yaml"
    raw = yaml.safe_load(example.read_text())
    for section in (raw["case"], raw["tuning"]["case"]):
        for file in section["files"]:
            path = tmp_path / f"{Path(file).name.partition('.')[0]}.npy"
            values = np.random.default_rng(len(list(tmp_path.iterdir()))).uniform(0, 100, (8, 16, 16))
            np.save(path, values.astype(np.float32))
        section["files"] = [f"{Path(file).name.partition('.')[0]}.npy" for file in section["files"]]
    raw["case"]["image_shape"] = [16, 16]
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(raw))
    plan = load(path)
    assert plan.tuning is not None
    tests, tuning = make_cases(plan, REGISTRY), make_cases(tuning_plan(plan), REGISTRY)
    assert (len(tests), len(tuning)) == (8, 4)
    assert len({c.subject for c in tests + tuning}) == 4
    check_disjoint(tuning, tests, REGISTRY)
    rows = prepare_rows(plan.tuning, make_methods(plan, REGISTRY, [modality]), REGISTRY)
    states = {row.method.name: row.state for row in rows}
    assert {name: state for name, state in states.items() if name.endswith("-default")} == {
        name: "given" for name in states if name.endswith("-default")
    }
    assert plan.reference in states
    assert "tuned" in states.values()
