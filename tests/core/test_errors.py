"""Errors: one line that says what, expected, got and the cure."""

from __future__ import annotations

import pytest

import priorloom.errors as errors
from priorloom.errors import InputError, OutputError, PluginError, PriorloomError, ReaderError, did_you_mean


def test_the_text_has_what_expected_got_and_cure_in_this_order():
    error = InputError("mask", expected="a bool array", got="int64", cure="compare it with 0")
    assert str(error) == "mask: expected a bool array, got int64; compare it with 0"
    assert str(InputError("mask")) == "mask"
    assert str(InputError("lam", got=0)) == "lam: got 0"


def test_the_text_is_one_line_whatever_goes_in():
    error = InputError("a\nb", expected="c\n\n  d", got="e\tf\r", cure="g\n")
    assert str(error) == "a b: expected c d, got e f ; g"


def test_one_family():
    family = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, Exception)]
    assert len(family) >= 6
    assert all(issubclass(c, PriorloomError) for c in family)
    assert issubclass(ReaderError, InputError)
    assert issubclass(OutputError, InputError)
    assert not issubclass(PluginError, InputError)


@pytest.mark.parametrize(
    ("name", "known", "said"),
    [
        ("tv-pdgh", ["fbp", "tv-pdhg"], "did you mean 'tv-pdhg'?"),
        ("lam", ["prior.lam", "prior.name"], "did you mean 'prior.lam'?"),
        ("name", ["prior.name", "denoiser.name"], "known: denoiser.name, prior.name"),
        ("zzz", ["b", "a"], "known: a, b"),
        ("zzz", [], "known: none"),
    ],
)
def test_did_you_mean(name, known, said):
    assert did_you_mean(name, known) == said
