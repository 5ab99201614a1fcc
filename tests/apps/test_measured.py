"""Measured scans through the command line, against what their makers and the full data give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.io

from .conftest import Cli

pytestmark = pytest.mark.data


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def test_htc_scan_is_the_organisers_image_and_tv_beats_fbp_on_few_views(
    cli: Cli, data_dir: Path, tmp_path: Path
) -> None:
    folder = data_dir / "ct-raw" / "htc2022"
    scan = folder / "htc2022_ta_full.mat"
    if not scan.exists():
        pytest.skip("the HTC 2022 scans are not in PRIORLOOM_DATA")
    reference = scipy.io.loadmat(folder / "htc2022_ta_full_recon_fbp.mat")["reconFullFbp"]

    def image(method: str, *settings: str) -> np.ndarray:
        out = tmp_path / "x.npy"
        options = [part for text in settings for part in ("--set", text)]
        run = cli("reconstruct", scan, "--modality", "ct", "--method", method, "--out", out, *options)
        assert run.code == 0, run.err
        assert "NOT CONVERGED" not in run.out
        return np.load(out)

    full = image("fbp")
    assert _correlation(full, reference) > 0.97
    assert _correlation(full[::-1], reference) < 0.9  # the object has no such symmetry, so a flip would show
    inside = reference > 0.5 * reference.max()
    assert abs(0.1483 * full[inside].mean() / reference[inside].mean() - 1) < 0.03

    few = _correlation(image("fbp", "input.every=12"), reference)
    variation = _correlation(image("tv-pdhg", "input.every=12", "solver.tolerance=1e-4"), reference)
    assert variation > few + 0.03
