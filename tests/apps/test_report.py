"""The report: self-contained, escaped, complete, and its pictures show the numbers that they claim to show."""

from __future__ import annotations

import base64
import builtins
import hashlib
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from priorloom.errors import InputError
from priorloom.pipeline import Learned
from priorloom_apps.output import row as output_row
from priorloom_apps.pictures import (
    ERROR_COLOURS,
    overview_png,
)
from priorloom_apps.present import notes
from priorloom_apps.report import number, plain, render

from .pages import FACTS, MODALITIES, Page, case, document, result, row, timed


@pytest.fixture(scope="module")
def page() -> Page:
    disc, brain = case("disc"), case("brain", "mri")
    better = {"psnr": 31.5, "ssim": 0.99, "nmse": 0.01, "data_range": 1.0}
    results = [
        result(disc, "fbp", kind="direct", history=(), residual=None, converged=None, iterations=0, parameters={}),
        result(disc, "tv-pdhg", 0.05, tuned="tuned"),
        result(disc, "wavelet", -0.2, converged=False, metrics=better),
        result(brain, "zero-filled", certificate="none"),
    ]  # fmt: skip
    return Page(document([disc, brain], results))


def test_report_asks_nothing_of_the_network(page: Page) -> None:
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form")
        for name in ("src", "href", "srcset", "poster", "action", "xlink:href"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:image/png;base64,", "#")), (tag, name)
        assert not any(name.startswith("on") for name in attributes)
        assert all(
            u.startswith("data:image/png;base64,") for u in re.findall(r"url\(([^)]*)\)", attributes.get("style") or "")
        )
    assert "@import" not in page.raw["style"]
    assert "url(" not in page.raw["style"]
    assert not re.search(r"https?:|fetch|XMLHttpRequest|import", page.raw["script"])


def test_policy_forbids_everything_but_the_page_itself(page: Page) -> None:
    policy = next(
        a["content"] for t, a in page.tags if t == "meta" and a.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    assert rules["style-src"] == "'unsafe-inline'"
    digest = base64.b64encode(hashlib.sha256(page.raw["script"].encode()).digest()).decode()
    assert rules["script-src"] == f"'sha256-{digest}'"


def test_table_says_every_figure(page: Page) -> None:
    assert page.cells("tv-pdhg") == [
        "tv-pdhg", "classical", "20.12", "0.9877", "0.0312", "1.25", "8", "0.0039", "yes", "tuned", "certified", "–",
    ]  # fmt: skip
    assert page.cells("fbp")[6:9] == ["–", "–", "–"]
    assert page.cells("zero-filled")[-2] == "none"


def test_unconverged_and_untuned_rows_are_marked_and_never_best(page: Page) -> None:
    assert page.cells("wavelet")[8] == "no: not converged"
    assert "Not converged: wavelet." in page.text
    assert "Not tuned: wavelet ran" in page.text  # fbp has nothing to tune
    best = [a["data-value"] for t, a in page.tags if t == "td" and "best" in (a.get("class") or "")]
    assert "31.5" not in best
    assert best.count("20.125") == 2


def test_report_names_what_reproduces_it(page: Page) -> None:
    for text in ("Two & two", "priorloom compare --seed 3", "torch 2.13.0", "prior.lam", "0.0125", "residual <= 0.004",
                 "photon count", "10000", "Identity", "6 × 8", "CT test", "1/mm", "a.u."):  # fmt: skip
        assert text in page.text


def test_pictures_show_one_window_and_one_error_scale(page: Page) -> None:
    images = page.images()
    truth = torch.linspace(0, 1, 48).reshape(6, 8).double().numpy()
    low, high = np.percentile(truth, (0.5, 99.5))

    def grey(image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        levels: np.ndarray[Any, Any] = np.rint(255 * np.clip((image - low) / (high - low), 0, 1))
        return levels

    assert np.abs(images["truth of disc"] - grey(truth)).max() <= 1  # float32 in, float64 here
    assert np.abs(images["tv-pdhg on disc"] - grey(truth + 0.05)).max() <= 1
    assert images["zero-filled on brain"].shape == (6, 8)  # the magnitude of a complex image
    # |errors| are 0.1, 0.05 and 0.2 everywhere: the common scale is 0.2, so half of it is 0.1
    errors = {alt: image for alt, image in images.items() if alt.startswith("error")}
    assert len(errors) == 4
    by_method = {alt.split()[2]: image[2, 3].tolist() for alt, image in errors.items()}
    assert np.abs(np.array(by_method["fbp"]) - ERROR_COLOURS[3]).max() <= 1
    assert np.abs(np.array(by_method["wavelet"]) - ERROR_COLOURS[0]).max() <= 1
    assert "±0.200 1/mm" in page.text


def test_names_and_values_are_escaped() -> None:
    hostile = "<script>alert(1)</script>"
    disc = replace(case(), metadata={hostile: hostile})
    object.__setattr__(disc, "name", hostile)  # Case refuses it; the report does not rely on that
    made = result(disc, f'"{hostile}', parameters={hostile: hostile}, criterion=hostile)
    html = render(
        [disc], [made], [row(made)], MODALITIES, {**FACTS, "title": hostile, "command": hostile, hostile: hostile}
    )
    page = Page(html)
    assert hostile not in html
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert "alert" not in page.raw["script"]
    assert hostile in page.text


def test_without_a_truth_there_are_images_but_no_metrics_and_no_errors() -> None:
    scan = case("scan", truth=False)
    page = Page(document([scan], [result(scan, "fbp"), result(scan, "tv")]))
    assert page.cells("fbp")[2:5] == ["no truth"] * 3
    assert sorted(page.images()) == ["fbp on scan", "tv on scan"]
    assert "none: metrics and error maps need one" in page.text
    assert "from all the results" in " ".join(page.text.split())


def test_an_interrupted_run_still_has_a_report() -> None:
    disc, later = case("disc"), case("later")
    page = Page(document([disc, later], [result(disc, "fbp")]))
    assert "No method has finished on this case." in page.text
    assert "fbp on disc" in page.images()


def test_a_perfect_image_has_infinite_psnr_and_a_black_error_map() -> None:
    disc = case()
    exact = result(disc, "exact", 0.0, metrics={"psnr": float("inf"), "ssim": 1.0, "nmse": 0.0, "data_range": 1.0})
    page = Page(document([disc], [exact]))
    assert page.cells("exact")[2:5] == ["∞", "1.0000", "0"]
    assert np.all(next(v for k, v in page.images().items() if k.startswith("error")) == ERROR_COLOURS[2])


def test_a_result_without_its_row_is_refused() -> None:
    disc = case()
    with pytest.raises(InputError, match="row of 'fbp' on 'disc'"):
        render([disc], [result(disc, "fbp")], [], MODALITIES, FACTS)


@pytest.mark.parametrize("missing", ["jinja2", "PIL", "matplotlib"])
def test_a_missing_package_is_one_line_with_the_cure(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".")[0] == missing:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    disc = case()
    with pytest.raises(InputError, match=r'no module \'\S+\'; pip install "priorloom\[report\]"'):
        (overview_png([disc], [], MODALITIES) if missing == "matplotlib" else document([disc], [result(disc, "fbp")]))


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0.0, "0"), (float("inf"), "∞"), (12.345, "12.3"), (1234.5, "1234"), (0.00123, "0.00123"),
     (0.000123, "1.23e−4"), (-2.5, "−2.50"), (1.5e6, "1.50e6"), (float("nan"), "not a number")],
)  # fmt: skip
def test_numbers_are_short(value: float | None, text: str) -> None:
    assert number(value) == text


def test_parameters_are_plain_and_short() -> None:
    assert plain(True) == "yes"
    assert plain((1.0, None, "x")) == "1, None, x"
    assert plain(torch.zeros(100, 100)).endswith("]])")
    assert len(plain("a" * 999)) == 200


LEARNED = Learned("ct.net", "2", 74721, "LIDC (CC BY 3.0; 4 subjects)", "no Lipschitz bound: networks")


def test_learned_rows_say_what_was_learned_from_what_and_where_it_does_not_fit() -> None:
    disc = case()
    warned = timed(disc, "net", "learned", 0.1, 40, model=LEARNED, warnings=("views 30: trained with 60",))
    page = Page(document([disc], [result(disc, "tv-pdhg"), warned]))
    assert page.cells("net")[-1] == "74,721"
    assert page.cells("tv-pdhg")[-1] == "–"
    for text in ("net: views 30: trained with 60.", "LIDC (CC BY 3.0; 4 subjects)", "no Lipschitz bound: networks"):
        assert text in page.text
    json_row = output_row(warned, None)
    assert json_row["model"] == {
        "name": "ct.net", "version": "2", "parameters": 74721, "data": LEARNED.data, "stability": LEARNED.stability
    }  # fmt: skip
    assert json_row["warnings"] == ["views 30: trained with 60"]
    said = "\n".join(notes([warned]))
    assert "net: model ct.net 2, 74,721 numbers learned" in said
    assert "not for diagnosis" in said
    assert "net on disc: views 30: trained with 60" in said
