"""A plan written to a file is the plan that is read from it."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from priorloom import Registry, plan_file
from priorloom.choice import MEASURES
from priorloom.config import Plan, load, make_methods, override
from priorloom.errors import InputError
from priorloom.plan_file import to_yaml
from priorloom.protocol.tuning import Tuning
from priorloom.reconstruction import Method
from priorloom.rule import Rule

_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
_scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | _texts
_values = st.recursive(_scalars, lambda inner: st.lists(inner, max_size=3), max_leaves=6)
_names = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9_-]{0,8}[A-Za-z0-9])?", fullmatch=True)
# "null" and "1" are good names: YAML must not make None and a number of them.
_keys = _names.filter(lambda name: name not in ("method", "label", "file", "files"))
_dotted = st.lists(_keys, min_size=1, max_size=3).map(".".join)


_files = _names.map(lambda name: Path("/data") / f"{name}.npz")
_ends = st.floats(allow_nan=False, allow_infinity=False)
_searched = st.tuples(_ends, _ends) | st.lists(_texts, min_size=1, max_size=3).map(tuple)


@st.composite
def _tunings(draw: st.DrawFn) -> Tuning:
    file = draw(st.none() | _files)
    return Tuning(
        case={} if file else draw(st.dictionaries(_keys, _values, max_size=3)),
        input=file,
        options=draw(st.dictionaries(_keys, _values, max_size=3)) if file else {},
        seed=draw(st.none() | st.integers(0, 2**31 - 1)),
        budget=draw(st.integers(1, 10**4)),
        measure=draw(st.sampled_from(MEASURES)),
        over=draw(st.dictionaries(_names, st.dictionaries(_dotted, _searched, min_size=1, max_size=2), max_size=2)),
    )


@st.composite
def _plans(draw: st.DrawFn) -> Plan:
    file = draw(st.none() | _files)
    methods = st.builds(Method, _names, st.dictionaries(_dotted, _values, max_size=3), st.none() | _names)
    return Plan(
        modality=draw(st.none() | _texts.filter(bool)),
        input=file,
        options=draw(st.dictionaries(_keys, _values, max_size=3)) if file else {},
        operator=draw(st.dictionaries(_keys, _values, max_size=3)),
        case=draw(st.dictionaries(_keys, _values, max_size=3)),
        methods=draw(st.none() | st.lists(methods, min_size=1, max_size=3).map(tuple)),
        settings=draw(st.dictionaries(_dotted, _values, max_size=3)),
        seed=draw(st.integers(0, 2**31 - 1)),
        tuning=draw(st.none() | _tunings()),
        reference=draw(st.none() | _names),
    )


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_plans())
def test_what_is_written_reads_back_equal(tmp_path_factory: pytest.TempPathFactory, plan: Plan) -> None:
    path = tmp_path_factory.getbasetemp() / "plan.yaml"
    path.write_bytes(to_yaml(plan))
    assert load(path) == plan


def test_every_field_of_a_plan_and_of_a_method_is_written() -> None:
    assert set(plan_file._WRITERS) == {f.name for f in fields(Plan)}
    assert set(plan_file._METHOD_WRITERS) == {f.name for f in fields(Method)}
    # The property test draws these; a new one needs a place in `_tuning`, and there.
    assert {f.name for f in fields(Tuning)} == {"case", "input", "options", "seed", "budget", "measure", "over"}


def test_options_and_assignments_are_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plan = Plan(input=Path("scan.npz"), methods=(Method("fbp"), Method("tv-pdhg", {"prior.lam": 1e-5}, "weak")))
    plan = override(plan, ["input.every=3", "operator.views=60", "weak.solver.tolerance=1.0e-3", "prior.name=tv"])
    written = yaml.safe_load(to_yaml(plan))
    assert written == {
        "input": {"file": str(tmp_path / "scan.npz"), "every": 3},
        "operator": {"views": 60},
        "methods": ["fbp", {"method": "tv-pdhg", "label": "weak", "prior.lam": 1e-5}],
        "settings": {"weak.solver.tolerance": 1e-3, "prior.name": "tv"},
        "seed": 0,
    }


def test_a_rule_is_written_as_the_settings_that_state_it(tmp_path: Path) -> None:
    registry = Registry.discover()
    stated = Plan(methods=(Method("tikhonov", {"prior.lam.rule": "gcv", "prior.lam.budget": 5}),))
    (row,) = make_methods(stated, registry, ["ct"])["ct"]
    assert row.rule == Rule("gcv", "prior.lam", budget=5)
    (tmp_path / "plan.yaml").write_bytes(to_yaml(Plan(methods=(row,))))
    assert make_methods(load(tmp_path / "plan.yaml"), registry, ["ct"])["ct"] == [row]


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (
            Plan(operator={"mask": torch.ones(2)}),
            "operator.mask: expected a number, a text or a list of them, got Tensor",
        ),
        (Plan(methods=(Method("fbp", tuned="tuned"),)), "method 'fbp' in a config file"),
        (Plan(options={"every": 2}), "input.every: expected an input file"),
    ],
)
def test_what_no_file_can_hold_is_refused(plan: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        to_yaml(plan)
