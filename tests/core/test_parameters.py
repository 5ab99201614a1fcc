"""Parameters from signatures: types, defaults, help, and refusals that say what was expected."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pytest
import torch

from priorloom.errors import InputError, PluginError
from priorloom.parameters import REQUIRED, Parameter, docstring_parameters, signature_parameters, validate

if TYPE_CHECKING:
    from decimal import Decimal


def disc(
    space: object,
    *,
    lam: float,
    levels: int = 3,
    kind: Literal["iso", "ct.aniso"] = "iso",
    shape: tuple[int, int] | None = None,
    positive: bool = True,
) -> None:
    """A factory.

    Parameters
    ----------
    lam
        Weight, in 1/mm;
        positive.
    levels, kind
        Shared help.
    positive : bool, optional
        With a type, as others write them.

    Returns
    -------
    nothing
        at all
    """


def found(factory, skip=0):
    return {p.name: p for p in signature_parameters(factory, skip, "prior 'disc'")}


def test_the_signature_is_the_schema():
    parameters = found(disc, 1)
    assert list(parameters) == ["lam", "levels", "kind", "shape", "positive"]
    assert parameters["lam"].default is REQUIRED
    assert parameters["levels"].default == 3
    shown = [p.type_name for p in parameters.values()]
    assert shown == ["float", "int", "Literal['iso', 'ct.aniso']", "tuple[int, int] | None", "bool"]
    assert [p.help for p in parameters.values()] == [
        "Weight, in 1/mm; positive.", "Shared help.", "Shared help.", "", "With a type, as others write them."
    ]  # fmt: skip


def test_modules_are_left_out_of_the_type_shown():
    assert Parameter("x", torch.Tensor).type_name == "Tensor"
    assert Parameter("x", np.ndarray | None).type_name == "ndarray | None"


class Widget:
    """A class as factory.

    Parameters
    ----------
    size
        In mm.
    """

    def __init__(self, *, size: float = 1.0) -> None:
        self.size = size


@dataclass
class Record:
    """A dataclass as factory."""

    size: float = 1.0


def widget(size: float, scale: float = 2.0) -> float:
    """A function of which a part is given."""
    return size * scale


@pytest.mark.parametrize("factory", [Widget, Record, functools.partial(widget, scale=3.0)])
def test_classes_dataclasses_and_partial_functions_are_factories(factory):
    assert found(factory)["size"].annotation is float
    assert found(Widget)["size"].help == "In mm."


def swallows(*, lam: float, **rest: float) -> None: ...
def swallows_too(*lam: float) -> None: ...
def untyped(*, lam=1.0): ...
def unresolved(*, lam: Decimal) -> None: ...
def spaceless(*, lam: float) -> None: ...


@pytest.mark.parametrize(
    ("factory", "skip", "message"),
    [
        (swallows, 0, r"prior 'disc' takes '\*\*rest"),
        (swallows_too, 0, r"prior 'disc' takes '\*lam"),
        (untyped, 0, "parameter 'lam' of prior 'disc' has no type annotation; annotate it"),
        (unresolved, 0, "'lam' of prior 'disc' cannot be read: name 'Decimal' is not defined; import at run time"),
        (spaceless, 1, r"prior 'disc' takes \(lam\): expected 1 positional"),
    ],
)
def test_a_signature_that_hides_something_is_refused(factory, skip, message):
    with pytest.raises(PluginError, match=message):
        found(factory, skip)


def test_an_annotation_of_a_skipped_argument_may_exist_for_type_checkers_only():
    def factory(space: Decimal, *, lam: float) -> Decimal: ...

    assert found(factory, 1)["lam"].annotation is float


@pytest.mark.parametrize(
    ("annotation", "given", "kept"),
    [
        (float, 1, 1.0),
        (float, "1e-3", 1e-3),
        (int, "12", 12),
        (bool, "false", False),
        (tuple[int, int], [4, 6], (4, 6)),
        (tuple[float, ...] | None, None, None),
        (tuple[float, ...], np.array([0.5, 1.0]), (0.5, 1.0)),
        (list[float], np.arange(3.0, dtype=">f8"), [0.0, 1.0, 2.0]),
        (Literal["iso", "ct.aniso"], "iso", "iso"),
    ],
)
def test_values_become_the_type_that_is_asked_for(annotation, given, kept):
    value = Parameter("x", annotation).validate(given, "it")
    assert value == kept
    assert type(value) is type(kept)


def test_arrays_become_tensors_where_the_signature_says_so():
    mask = np.array([[True, False]])
    assert torch.equal(Parameter("x", torch.Tensor).validate(mask, "it"), torch.tensor([[True, False]]))
    assert Parameter("x", np.ndarray).validate(mask, "it") is mask


@pytest.mark.parametrize(
    ("annotation", "given", "message"),
    [
        (float, "much", "parameter 'x' of it: expected float, got 'much'; "),
        (int, 1.5, "expected int, got 1.5; "),
        (tuple[int, int], [1, 2, 3], r"expected tuple\[int, int\], got list; "),
        (Literal["iso", "aniso"], "is", r"expected Literal\['iso', 'aniso'\], got 'is'; "),
        (torch.Tensor, [1.0], "expected Tensor, got list; "),
        (torch.Tensor, np.array(["text"]), "expected Tensor, got ndarray; "),
        (float, None, "expected float, got None; "),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_in_one_line(annotation, given, message):
    with pytest.raises(InputError, match=message) as caught:
        Parameter("x", annotation).validate(given, "it")
    assert "\n" not in str(caught.value)


def test_validate_refuses_unknown_and_missing_names():
    parameters = signature_parameters(disc, 1, "prior 'disc'")
    assert validate(parameters, {"lam": "2", "shape": [3, 4]}, "prior 'disc'") == {"lam": 2.0, "shape": (3, 4)}
    with pytest.raises(InputError, match="unknown parameter 'levles' of prior 'disc'; did you mean 'levels'"):
        validate(parameters, {"lam": 1, "levles": 2}, "prior 'disc'")
    with pytest.raises(InputError, match="prior 'disc' needs parameter 'lam': expected float, got nothing"):
        validate(parameters, {}, "prior 'disc'")


def test_a_docstring_without_parameters_gives_no_help():
    assert docstring_parameters("One line.") == {}
    assert docstring_parameters("") == {}
