"""Binding: dotted settings to the arguments of a pipeline, with slots and solver groups."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from priorloom import Pipeline, Space
from priorloom.binding import bind, pipeline_parameters
from priorloom.errors import InputError, PluginError
from priorloom.functional import Zero
from priorloom.parameters import AUTOMATIC
from priorloom.pipeline import Slot, Solver


def soft(space: Space, *, lam: float, levels: int = 2) -> tuple:
    """One prior.

    Parameters
    ----------
    lam
        Its weight.
    """
    return "soft", lam, levels


def rough(space: Space, *, mu: float = 0.5) -> tuple:
    """Another prior, with other parameters."""
    return "rough", mu


@dataclass(frozen=True)
class Fussy(Solver):
    """A solver group with one more number.

    Parameters
    ----------
    rho
        The penalty.
    """

    rho: float = 1.0


SOFT = Slot("prior", "soft", {"levels": 3})
MISSPELT = Slot("prior", "soft", {"weight": 3})


def assemble(
    case: object,
    *,
    filter: str = "ramp",
    prior: Slot = SOFT,
    solver: Fussy = Fussy(max_iterations=50),
) -> None: ...


METHOD = Pipeline("m", "classical", "a method", assemble)


@pytest.fixture
def registry(discover):
    return discover(p={"priors": {"soft": soft, "rough": rough}})


def test_settings_have_dotted_names_help_and_the_presets_of_the_slot(registry):
    parameters = {p.name: p for p in pipeline_parameters(registry, METHOD, {})}
    assert list(parameters) == [
        "filter", "prior.name", "prior.lam", "prior.levels", "solver.max_iterations", "solver.tolerance", "solver.rho"
    ]  # fmt: skip
    assert parameters["prior.lam"].default is AUTOMATIC
    assert parameters["prior.lam"].help == "Its weight."
    assert parameters["prior.levels"].default == 3
    assert parameters["solver.max_iterations"].default == 50
    assert parameters["solver.rho"].help == "The penalty."
    assert parameters["solver.max_iterations"].help.startswith("The most iterations")


def test_settings_reach_their_arguments_with_their_types(registry):
    settings = {"filter": "hann", "prior.lam": "0.1", "solver.rho": 2, "solver.tolerance": 1e-3}
    arguments, flat = bind(registry, METHOD, settings)
    assert arguments["filter"] == "hann"
    assert arguments["solver"] == Fussy(max_iterations=50, tolerance=1e-3, rho=2.0)
    assert arguments["prior"].build(Space((2,))) == ("soft", 0.1, 3)
    assert flat == {
        "filter": "hann", "prior.name": "soft", "prior.lam": 0.1, "prior.levels": 3,
        "solver.max_iterations": 50, "solver.tolerance": 1e-3, "solver.rho": 2.0,
    }  # fmt: skip


def test_a_required_parameter_of_a_slot_is_left_to_the_pipeline(registry):
    arguments, flat = bind(registry, METHOD, {})
    assert "prior.lam" not in flat
    assert arguments["prior"].build(Space((2,)), lam=7.0) == ("soft", 7.0, 3)
    assert arguments["prior"].unset == ("lam",)
    with pytest.raises(InputError, match=r"prior 'soft' needs parameter 'prior.lam'"):
        arguments["prior"].build(Space((2,)))
    arguments, _ = bind(registry, METHOD, {"prior.lam": 0.5})
    assert arguments["prior"].unset == ()
    assert arguments["prior"].build(Space((2,)), lam=7.0) == ("soft", 0.5, 3)


def test_a_slot_swaps_the_component_and_its_parameters(registry):
    arguments, flat = bind(registry, METHOD, {"prior.name": "rough", "prior.mu": 2})
    assert arguments["prior"].build(Space((2,)), lam=7.0) == ("rough", 2.0)  # rough has no lam to fall back on
    assert "prior.levels" not in flat
    with pytest.raises(InputError, match=r"unknown parameter 'prior.lam' of method 'm'"):
        bind(registry, METHOD, {"prior.name": "rough", "prior.lam": 2})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prior.lamm": 1}, "unknown parameter 'prior.lamm' of method 'm'; did you mean 'prior.lam'"),
        ({"lam": 1}, "unknown parameter 'lam' of method 'm'; did you mean 'prior.lam'"),
        ({"solver": 1}, "unknown parameter 'solver' of method 'm'"),
        ({"prior.name": "sofd"}, "unknown prior 'sofd'; did you mean 'soft'"),
        ({"prior.name": 3}, "parameter 'prior.name': expected the name of a prior, got 3"),
        ({"solver.max_iterations": "many"}, "parameter 'solver.max_iterations' of method 'm': expected int, got"),
        ({"prior.lam": [1]}, "parameter 'prior.lam' of method 'm': expected float, got list"),
    ],
)  # fmt: skip
def test_settings_that_fit_nothing_are_refused(registry, settings, message):
    with pytest.raises(InputError, match=message):
        bind(registry, METHOD, settings)


def test_a_preset_that_the_component_does_not_have_is_the_authors_error(registry):
    def wrong(case: object, *, prior: Slot = MISSPELT) -> None: ...

    with pytest.raises(PluginError, match="unknown parameter 'weight' preset for prior 'soft'"):
        bind(registry, Pipeline("m", "classical", "", wrong), {})


def test_a_prior_may_come_from_another_plugin_than_the_pipeline(discover):
    registry = discover(p={"priors": {"soft": soft}}, q={"priors": {"zero": Zero}})
    arguments, _ = bind(registry, METHOD, {"prior.name": "zero"})
    assert isinstance(arguments["prior"].build(Space((2,))), Zero)
