"""The app scripts that double as the library's examples run, and say what they promise."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from priorloom import Registry, Space
from priorloom.config import load, make_cases, make_methods
from priorloom.testing import check_functional
from priorloom_apps import ct, mri


def _psnr(printed: str) -> dict[str, float]:
    return {line.split(":")[0]: float(line.split()[1]) for line in printed.splitlines() if line.endswith(" dB")}


def test_ct_example(capsys: pytest.CaptureFixture[str]) -> None:
    ct.main()
    printed = capsys.readouterr().out
    found = _psnr(printed)
    assert found["TV"] > found["FBP"] + 3
    assert "converged True" in printed


def test_mri_example(capsys: pytest.CaptureFixture[str]) -> None:
    mri.main()
    printed = capsys.readouterr().out
    found = _psnr(printed)
    assert found["l1-wavelet"] > found["zero-filled"] + 3
    assert "converged True" in printed
    assert "d loss / d step" in printed


README = Path(__file__).resolve().parents[2] / "README.md"


def _block(name: str) -> str:
    found = re.search(rf"<!-- example: {name} -->\n```python\n(.*?)```", README.read_text(), re.S)
    assert found is not None, f"README.md has no example '{name}'"
    return found[1]


def test_readme_library_example(capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(_block("library"), str(README), "exec"), {"__name__": "readme"})
    fbp, tv = (float(figure) for figure in re.findall(r"error (\d\.\d+)", capsys.readouterr().out))
    assert tv < 0.5 * fbp


def test_readme_plugin_example(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("readme_plugin")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # pickle, which the kit tries, looks there
    exec(compile(_block("plugin"), str(README), "exec"), vars(module))
    factory = module.priorloom_priors()["ridge"]
    assert len(check_functional(factory(Space((8, 6)), lam=0.7))) > 3


def test_readme_config_example(tmp_path: Path) -> None:
    found = re.search(r"```yaml\n(.*?)```", README.read_text(), re.S)
    assert found is not None
    (tmp_path / "plan.yaml").write_text(found[1])
    plan, registry = load(tmp_path / "plan.yaml"), Registry.discover()
    rows = make_methods(plan, registry, ["ct"])["ct"]
    assert [m.name for m in rows] == ["fbp", "tv-weak", "tv-strong"]
    assert all(case.operator.range.shape[0] == 60 for case in make_cases(plan, registry))
