"""Errors that say, in one line, what is wrong, what was expected, what came, and the cure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class PriorloomError(Exception):
    """Base of every error that Priorloom raises on purpose; its text is one line.

    Parameters
    ----------
    what
        The thing that is wrong, in words the user knows ("mask", "input.every").
    expected, got
        What would have been right, and what came instead.
    cure
        What to do about it.
    """

    def __init__(self, what: str, *, expected: object = None, got: object = None, cure: str | None = None) -> None:
        facts = [f"{label} {value}" for label, value in (("expected", expected), ("got", got)) if value is not None]
        text = what + (": " + ", ".join(facts) if facts else "") + (f"; {cure}" if cure else "")
        super().__init__(" ".join(text.split()))


class InputError(PriorloomError):
    """The user's input cannot be used: a wrong shape, dtype, value, parameter, name or file option."""


class ReaderError(InputError):
    """A file cannot be read or must not be trusted; the only error a reader raises."""


class OutputError(InputError):
    """A result cannot be written where the user wants it."""


class PluginError(PriorloomError):
    """A plugin is broken, or two plugins claim one name."""


class DivergenceError(PriorloomError):
    """An iteration produced a non-finite or a growing residual."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The cure for a misspelt `name`: the closest of the `known` names, or all of them."""
    names = sorted(known)
    inside = [full for full in names if full.endswith(f".{name}")]
    if len(inside) == 1:  # "lam" for "prior.lam"
        return f"did you mean '{inside[0]}'?"
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    return "known: " + (", ".join(names) if names else "none")


def unique(what: str, names: Sequence[str]) -> None:
    """Raise InputError when two of the names are the same."""
    for name in names:
        if names.count(name) > 1:
            cure = "give one a label" if what == "method" else "rename one, or name one modality"
            raise InputError(f"{what} name", expected="unique names", got=f"'{name}' twice", cure=cure)
