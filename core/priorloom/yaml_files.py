"""Reading YAML files that nobody vouches for: plain values only, of bounded size."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import yaml

from .errors import InputError

SIZE_LIMIT, NODE_LIMIT, DEPTH_LIMIT = 2**20, 20_000, 8
"""Bytes, values, and how deep they are nested."""


def read_mapping(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; an empty file is an empty one.

    Raises
    ------
    InputError
        Not readable, not YAML, no mapping, or too large.
    """
    what = f"config {path}"
    try:
        if path.exists() and not path.is_file():
            raise InputError(what, expected="a YAML file", got="a directory or a device")
        if path.stat().st_size > SIZE_LIMIT:
            raise InputError(what, expected=f"at most {SIZE_LIMIT} bytes", got=path.stat().st_size)
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(what, expected="a readable YAML file", got=error.strerror) from error
    except UnicodeDecodeError as error:
        raise InputError(what, expected="a readable YAML file", got="not UTF-8") from error
    except RecursionError as error:
        raise InputError(what, expected=f"at most {DEPTH_LIMIT} levels", got="many more") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date or a number that there is not
        raise InputError(what, expected="YAML", got=str(error)) from error
    raw = {} if raw is None else raw
    _check_size(raw, what, 0, count(1))
    if not isinstance(raw, dict):
        raise InputError(what, expected="a mapping", got=type(raw).__name__)
    return raw


def _check_size(value: object, what: str, depth: int, nodes: Iterator[int]) -> None:
    """Aliases make a small YAML file endless or huge."""
    if depth > DEPTH_LIMIT or next(nodes) > NODE_LIMIT:
        raise InputError(what, expected=f"at most {NODE_LIMIT} values, {DEPTH_LIMIT} deep", got="more")
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for item in inside:
        _check_size(item, what, depth + 1, nodes)
