"""Settings in multiples of a method's own choice."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from priorloom import Registry
from priorloom.config import Plan, make_cases, make_methods, override
from priorloom.errors import InputError
from priorloom.reconstruction import Method, reconstruct

SMALL = Plan(modality="ct", case={"image_shape": (20, 20), "images": ("foam",)}, operator={"views": 9})
REGISTRY = Registry.discover()


def run(method: Method, photons: float = 1e4) -> tuple[dict[str, object], torch.Tensor]:
    plan = Plan(modality="ct", case={**SMALL.case, "photons": photons}, operator=SMALL.operator)
    (case,) = make_cases(plan, REGISTRY)
    result = reconstruct(case, method, registry=REGISTRY)
    return dict(result.parameters), result.image


@pytest.mark.parametrize("photons", [300.0, 1e6])
def test_a_multiple_follows_the_automatic_value_of_each_case(photons: float) -> None:
    own, _ = run(Method("tikhonov"), photons)
    given, image = run(Method("tikhonov", {"prior.lam.times": 3}), photons)
    assert given["prior.lam"] == pytest.approx(3 * own["prior.lam"])
    assert given["prior.lam.times"] == 3.0
    _, same = run(Method("tikhonov", {"prior.lam": given["prior.lam"]}), photons)
    assert torch.equal(image, same)


def test_once_the_automatic_value_is_the_default() -> None:
    _, default = run(Method("pnp-admm", {"solver.max_iterations": 3}))
    _, once = run(Method("pnp-admm", {"solver.max_iterations": 3, "sigma.times": 1}))
    assert torch.equal(default, once)


def test_a_parameter_that_follows_another_is_multiplied_after_it() -> None:
    short = {"solver.max_iterations": 3}
    at_two, _ = run(Method("pnp-admm", {**short, "sigma.times": 2}))
    # rho follows sigma; the order in which the settings are written does not matter.
    both, _ = run(Method("pnp-admm", {**short, "rho.times": 5, "sigma.times": 2}))
    assert both["sigma"] == pytest.approx(at_two["sigma"])
    assert both["rho"] == pytest.approx(5 * np.float64(at_two["rho"]))


def rows(*assignments: str, method: str = "tikhonov") -> Method:
    plan = override(Plan(modality="ct", methods=(Method(method),)), assignments)
    ((row,),) = make_methods(plan, REGISTRY, ["ct"]).values()
    return row


@pytest.mark.parametrize("text", ["prior.lam.times=2", "tikhonov.prior.lam.times=2", "prior.lam={times: 2}"])
def test_a_multiple_is_a_setting_like_others(text: str) -> None:
    row = rows(text)
    assert row.settings == {"prior.lam.times": 2}
    assert row.choice == "given"


@pytest.mark.parametrize(
    ("method", "texts", "words"),
    [
        ("tikhonov", ("prior.lam.times=2", "prior.lam=1"), "expected a value or 'prior.lam.times', got both"),
        ("tikhonov", ("prior.lam.times=-2",), "expected a positive number, got -2"),
        ("tikhonov", ("prior.lam.times=many",), "expected float, got 'many'"),
        ("tikhonov", ("prior.lan.times=2",), "did you mean 'prior.lam.times'"),
        ("tikhonov", ("prior.lam.times=2", "prior.lam.rule=gcv"), "expected a value or a rule, got both"),
        ("fbp", ("filter.times=2",), "unknown setting 'filter.times'"),
    ],
)
def test_what_cannot_be_is_refused(method: str, texts: tuple[str, ...], words: str) -> None:
    with pytest.raises(InputError, match=words):
        rows(*texts, method=method)


def test_a_parameter_that_the_method_does_not_choose_has_no_multiple() -> None:
    with pytest.raises(InputError, match=r"'cutoff.times' of method 'fbp': expected a parameter that it chooses by"):
        run(Method("fbp", {"cutoff.times": 0.5}))
    with pytest.raises(InputError, match=r"unknown parameter 'filter.times' of method 'fbp'"):
        run(Method("fbp", {"filter.times": 0.5}))
