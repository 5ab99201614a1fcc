"""The Python examples of the pages in docs/ run, one after the other, and their assertions hold."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
# docs/plugins.md builds a package; tests/core/test_hooks.py runs it.
PAGES = [
    p for p in sorted(DOCS.glob("*.md")) if p.name != "plugins.md" and "```python" in p.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_examples_of_the_page_run(page: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.S | re.M)
    assert blocks
    names: dict[str, Any] = {}
    for block in blocks:
        if "deepinv" in block and find_spec("deepinv") is None:
            continue
        exec(compile(block, str(page), "exec"), names)
