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

from priorloom.chosen import Chosen, Trial, TuningCase
from priorloom.errors import InputError
from priorloom.modality import Reading
from priorloom.pipeline import Learned
from priorloom.protocol.statistics import Paired, Summary
from priorloom_apps import report
from priorloom_apps.output import row as output_row
from priorloom_apps.pack import pack
from priorloom_apps.pictures import ERROR_COLOURS, overview_png
from priorloom_apps.present import notes
from priorloom_apps.report import number, plain, render

from .pages import FACTS, MODALITIES, Page, case, document, result, row, timed, unpacked


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
        assert "url(" not in (attributes.get("style") or "")
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


def test_the_page_carries_the_very_values(page: Page) -> None:
    truth = torch.linspace(0, 1, 48).reshape(6, 8)
    disc, brain = page.values
    expected = torch.stack([truth, truth + 0.1, truth + 0.05, truth - 0.2])
    assert unpacked(disc, (4, 6, 8)).tobytes() == expected.numpy().tobytes()
    measured = truth * torch.exp(0.5j * truth)
    magnitudes = torch.stack([measured.abs(), (measured + 0.1).abs()])
    assert unpacked(brain, (2, 6, 8)).tobytes() == magnitudes.numpy().tobytes()


def test_values_are_packed_bit_for_bit(generator: torch.Generator) -> None:
    odd = torch.tensor([[0.0, -0.0, 1e-45, -3.4e38], [1 / 3, 1e-38, float("inf"), 2.0**-126]])
    noise = torch.randn(2, 4, generator=generator)
    planes = [p.double().numpy() for p in (odd, noise)]
    assert unpacked(pack(planes), (2, 2, 4)).tobytes() == torch.stack([odd, noise]).numpy().tobytes()
    with pytest.raises(InputError, match="planes to pack: expected at least one"):
        pack([])
    with pytest.raises(InputError, match="all of one shape"):
        pack([planes[0], planes[1][:1]])


def test_values_of_a_smooth_image_take_less_than_four_bytes_a_pixel() -> None:
    rows, columns = np.mgrid[:128, :128]
    smooth = np.exp(-((rows - 50) ** 2 + (columns - 70) ** 2) / 900)
    assert len(pack([smooth])) < 3.6 * smooth.size  # base64 alone makes 5.3 of 4


def test_a_page_that_would_be_too_large_keeps_the_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    disc, later = case("disc"), case("later")
    monkeypatch.setattr(report, "BUDGET", len(pack([np.linspace(0, 1, 48).reshape(6, 8)] * 2)) + 300)
    page = Page(document([disc, later], [result(disc, "fbp"), result(later, "fbp")]))
    assert len(page.values) == 1
    assert page.text.count("too large to carry its values") == 1
    assert "fbp on later" in page.images()


def test_windows_in_use_are_presets_in_the_units_of_the_image() -> None:
    reading = Reading("HU", 50000.0, -1000.0, {"<lung>": (-1350, 150)})
    disc = case()
    html = render(
        [disc], [result(disc, "fbp")], [row(result(disc, "fbp"))],
        {"ct": replace(MODALITIES["ct"], reading=reading)}, FACTS,
    )  # fmt: skip
    options = [a for t, a in Page(html).tags if t == "option" and "data-low" in a]
    shown = [(float(a["data-low"] or ""), float(a["data-high"] or "")) for a in options]
    assert shown[1] == pytest.approx((0.0, 1.1))  # full range: the truth, and what lies 0.1 above it
    assert shown[2] == pytest.approx((-0.007, 0.023))  # (-1350 + 1000) / 50000, (150 + 1000) / 50000
    assert options[2]["title"] == "-1350 to 150 HU"
    assert "&lt;lung&gt;" in html


def test_means_over_the_cases_stand_with_interval_worst_case_and_difference() -> None:
    def over(method: str, psnr: float, difference: Paired | None) -> Summary:
        mean = {"psnr": psnr, "ssim": 0.9, "nmse": 0.01}
        low, high, worst = ({name: f * v for name, v in mean.items()} for f in (0.9, 1.1, 0.8))
        return Summary("ct", method, 20, 4, mean, low, high, worst, "slice-7", difference)

    paired = Paired("fbp", -1.5, -2.0, -1.0, 3, 20)
    disc = case()
    made = result(disc, "fbp")
    html = render(
        [disc], [made], [row(made)], MODALITIES, FACTS, summary=[over("fbp", 30.0, None), over("<tv>", 28.5, paired)],
        protocol="Tuned on <other> subjects.",
    )  # fmt: skip
    page = Page(html)
    assert page.cells("<tv>") == [
        "<tv>", "28.50[25.65, 31.35]", "22.80slice-7", "0.9000[0.8100, 0.9900]", "0.0100[0.00900, 0.0110]",
        "−1.50[−2.00, −1.00]", "3 of 20",
    ]  # fmt: skip
    assert page.cells("fbp")[5:7] == ["–", "–"]
    for text in ("20 cases of 4 subjects", "Tuned on <other> subjects.", "95 % bootstrap interval"):
        assert text in page.text


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
    scripts = [attributes.get("type") for tag, attributes in page.tags if tag == "script"]
    assert scripts == ["application/octet-stream", None]  # the values, and the one that runs
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


def test_a_psnr_that_is_no_number_is_not_called_infinite() -> None:
    disc = case()
    none = {"psnr": float("nan"), "ssim": float("nan"), "nmse": float("nan"), "data_range": 1.0}
    worst = {**none, "psnr": float("-inf")}
    page = Page(document([disc], [result(disc, "none", metrics=none), result(disc, "worst", metrics=worst)]))
    assert page.cells("none")[2:4] == ["–", "–"]
    assert page.cells("worst")[2] == "−∞"
    assert "∞ dB" not in page.text.replace("−∞ dB", "")


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


def test_every_trial_of_a_search_is_shown_and_the_chosen_one_is_bold() -> None:
    disc = case()
    trials = (
        Trial({"prior.lam": 0.5, "filter": "hann"}, {"a": 20.0, "b": 22.0}),
        Trial({"prior.lam": 0.25, "filter": "hann"}, {"a": 25.0, "b": 28.0}, {"b": "not converged"}),
        Trial({}, {"a": 19.0, "b": 19.5}),
    )
    seen = tuple(TuningCase(name, "ct", "0", "1") for name in ("a", "b"))
    settings = {"prior.lam": 0.25, "filter": "hann"}
    ranges = {"prior.lam": (0.1, 1.0), "filter": ("hann", "cosine")}
    record = Chosen("tv-pdhg", None, settings, ranges, "cases", "psnr", 12, 6, trials, seen, warnings=("<odd>",))
    rule = Chosen("tv-pdhg", None, {"prior.lam": 0.5}, {"prior.lam": (0.1, 1.0)}, "gcv", "gcv", 4, 3, trials[:1], seen)
    made = result(disc, "tv-pdhg", chosen=rule)
    page = Page(render([disc], [made], [row(made)], MODALITIES, FACTS, records=[record]))
    assert ["0.5", "hann", "21.000", ""] in page.rows
    assert ["0.25", "hann", "26.500", "not converged on b"] in page.rows
    assert ["as the method has it", "as the method has it", "19.250", ""] in page.rows
    text = " ".join(page.text.split())
    assert "tv-pdhg (ct): prior.lam, filter, 6 of 12 runs" in text
    assert "Note: <odd>." in text
    assert "tv-pdhg on disc: prior.lam, 3 of 4 runs" in text
    bold = [a["data-value"] for tag, a in page.tags if tag == "td" and "best" in (a.get("class") or "")]
    assert [b for b in bold if b in ("21.0", "26.5", "19.25")] == ["26.5", "21.0"]
    # What sorts a column is of one kind: in one of numbers the value that is not set is empty, in one of words text.
    cells = [a.get("data-value") for tag, a in page.tags if tag == "td"]
    place = cells.index("19.25")
    assert cells[place - 2 : place] == ["", None]
