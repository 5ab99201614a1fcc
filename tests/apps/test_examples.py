"""The app scripts that double as the library's examples run, and say what they promise."""

from __future__ import annotations

import pytest

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
