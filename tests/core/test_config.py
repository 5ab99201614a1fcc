"""Comparison configs: YAML and KEY=VALUE to a Plan, a Plan to cases and methods, foreign code at arm's length."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from priorloom import Case, Modality, Pipeline, Reader, Registry, Scan, Space
from priorloom.bundle import write
from priorloom.config import Plan, load, make_cases, make_methods, override
from priorloom.errors import InputError, PluginError, ReaderError
from priorloom.loading import read_case
from priorloom.operator import Identity
from priorloom.pipeline import Slot, Solver, direct
from priorloom.reconstruction import Method


def _direct(case: Case, *, gain: float = 1.0) -> object:
    return direct(case, gain * case.measurement)


def _solved(case: Case, *, prior: Slot = Slot("prior", "l1"), solver: Solver = Solver()) -> object:
    return direct(case, case.measurement)


def _toy_cases(registry: Registry, operator: dict, *, seed: int, size: int = 4) -> list[Case]:
    A = Identity(Space((size, size)))
    return [Case("toy", "toy", A, A.domain.zeros() + seed + 1)]


def _modality(name: str) -> Modality:
    return Modality(
        name, name, "", ("plain",), lambda c: 1.0, lambda c: 0.1, lambda t: 1.0, lambda x: x, _toy_cases
    )  # fmt: skip


def _identity(*, size: int) -> Identity:
    return Identity(Space((size, size)))


def _l1(space: Space, *, lam: float) -> object:
    raise AssertionError("nothing here is built")


TOY = {
    "priors": {"l1": _l1},
    "pipelines": {
        "plain": lambda: Pipeline("plain", "direct", "", _direct),
        "solved": lambda: Pipeline("solved", "classical", "", _solved),
        "elsewhere": lambda: Pipeline("elsewhere", "direct", "", _direct, ("mars",)),
    },
    "modalities": {"toy": lambda: _modality("toy")},
    "operators": {"toy.identity": _identity},
}


def test_a_file_becomes_a_plan(tmp_path: Path) -> None:
    (tmp_path / "maps.npy").write_bytes(b"")
    (tmp_path / "plan.yaml").write_text(
        "modality: toy\ninput: {file: scan.npz, every: 2, maps: maps.npy}\noperator: {size: 3}\ncase: {size: 5}\n"
        "methods: [plain, {method: solved, label: mine, prior: {lam: 0.5}, solver.tolerance: 0.1}]\n"
        "settings: {prior: {lam: 2}, mine.solver.tolerance: 0.2}\nseed: 7\n"
    )
    plan = load(tmp_path / "plan.yaml")
    assert plan.input == tmp_path / "scan.npz"
    assert plan.options == {"every": 2, "maps": str(tmp_path / "maps.npy")}  # beside the config, not the caller
    assert (plan.modality, plan.operator, plan.case, plan.seed) == ("toy", {"size": 3}, {"size": 5}, 7)
    mine = Method("solved", {"prior.lam": 0.5, "solver.tolerance": 0.1}, "mine")
    assert plan.methods == (Method("plain"), mine)
    assert plan.settings == {"prior.lam": 2, "mine.solver.tolerance": 0.2}  # what --set says to every method


def test_assignments_go_where_their_first_word_says() -> None:
    plan = override(Plan(), ["input.every=3", "operator.size=2", "case.size=9", "prior.lam=1e-3", "solved.gain=[1, 2]"])
    assert (plan.options, plan.operator, plan.case) == ({"every": 3}, {"size": 2}, {"size": 9})
    assert plan.settings == {"prior.lam": "1e-3", "solved.gain": [1, 2]}  # YAML reads 1e-3 as text; binding converts it


def test_settings_reach_every_method_that_has_them_or_the_one_they_name(discover) -> None:
    registry = discover(toy=TOY)
    plan = Plan(
        methods=(Method("plain"), Method("solved"), Method("solved", {"prior.lam": 3}, "other")),
        settings={"solver.tolerance": 0.5, "other.prior.lam": 9, "gain": 2},
    )
    rows = make_methods(plan, registry, ["toy"])["toy"]
    assert [dict(m.settings) for m in rows] == [
        {"gain": 2},
        {"solver.tolerance": 0.5},
        {"prior.lam": 9, "solver.tolerance": 0.5},
    ]
    for settings, said in (
        ({"solver.tolerances": 1}, "did you mean 'solver.tolerance'?"),
        ({"plain.prior.lam": 1}, "unknown"),
    ):
        with pytest.raises(InputError, match=said.replace("?", r"\?")):
            make_methods(Plan(methods=plan.methods, settings=settings), registry, ["toy"])
    with pytest.raises(InputError, match="elsewhere"):
        make_methods(Plan(methods=(Method("elsewhere"),)), registry, ["toy"])


def test_case_settings_and_the_seed_reach_the_simulation(discover) -> None:
    registry = discover(toy=TOY)
    (case,) = make_cases(Plan(case={"size": 6}, seed=2), registry)
    assert case.measurement.shape == (6, 6)
    assert float(case.measurement.max()) == 3
    with pytest.raises(InputError, match=r"did you mean 'case\.size'"):
        make_cases(Plan(modality="toy", case={"sice": 6}), registry)
    with pytest.raises(InputError, match=r"case\.seed"):
        make_cases(Plan(case={"seed": 6}), registry)


def test_a_broken_modality_is_left_out_with_a_warning(discover, caplog) -> None:
    broken = {"modalities": {"mars": "nowhere_at_all:mars"}}
    registry = discover(toy=TOY, broken=broken)
    assert [c.modality for c in make_cases(Plan(), registry)] == ["toy"]
    assert "left out" in caplog.text
    assert "'broken'" in caplog.text
    with pytest.raises(PluginError, match="nowhere_at_all"):
        make_cases(Plan(modality="mars"), registry)


def test_an_extra_that_is_not_installed_leaves_the_other_modality(monkeypatch, caplog) -> None:
    import priorloom_ct.modality as ct

    def missing(module: str, purpose: str) -> object:
        raise PluginError(f"{purpose} needs the package pydicom", cure="install it with pip install priorloom[ct]")

    monkeypatch.setattr(ct, "backend", missing)
    assert [c.modality for c in make_cases(Plan(), Registry.discover())] == ["mri"]
    assert "priorloom[ct]" in caplog.text


def test_what_a_foreign_reader_raises_names_it_and_keeps_no_other_from_its_files(discover, tmp_path: Path) -> None:
    def explode(path: Path) -> bool:
        raise ZeroDivisionError("oops")

    def read(path: Path) -> Scan:
        return Scan("toy", "toy.identity", {"size": 2}, np.ones((2, 2), np.float32))

    path = tmp_path / "scan.toy"
    path.write_bytes(b"x")
    bad = {"readers": {"bad": lambda: Reader("bad", "", (".toy",), explode, read)}}
    good = {"readers": {"good": lambda: Reader("good", "", (".toy",), lambda p: True, read)}}
    worse = {"readers": {"worse": lambda: explode(Path())}}
    assert read_case(path, discover(toy=TOY, bad=bad, good=good, worse=worse)).measurement.shape == (2, 2)
    with pytest.raises(ReaderError, match=r"bad.*ZeroDivisionError: oops"):
        read_case(path, discover(toy=TOY, bad=bad))
    failing = {"readers": {"failing": lambda: Reader("failing", "", (".toy",), lambda p: True, explode)}}
    with pytest.raises(PluginError, match=r"reader 'failing' on scan\.toy failed: ZeroDivisionError: oops"):
        read_case(path, discover(toy=TOY, failing=failing))


def test_measurements_of_odd_precision_are_converted(tmp_path: Path) -> None:
    registry = Registry.discover()
    parameters = {"image_shape": (4, 4), "views": 3, "detectors": 5}
    for dtype in (np.longdouble, np.float16, np.int32, np.dtype(">f8")):
        path = tmp_path / "scan.npz"
        write(path, Scan("ct", "ct.parallel2d", parameters, np.ones((3, 5)).astype(dtype)))
        assert float(read_case(path, registry).measurement.sum()) == 15
