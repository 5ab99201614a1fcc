"""Intervals of means over cases, against SciPy, enumeration and closed forms; and what a summary says."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product
from typing import Any, Literal

import numpy as np
import pytest
import scipy.stats
import torch

from priorloom import Case, Space
from priorloom.errors import InputError
from priorloom.operator import Identity
from priorloom.pipeline import Choice, Kind, Result
from priorloom.protocol.statistics import CONFIDENCE, _tail, mean_interval, summaries

SPACE = Space((4, 4), torch.float32)


def each(values: np.ndarray[Any, Any]) -> list[int]:
    return list(range(len(values)))


def test_the_level_is_that_of_hesterberg() -> None:
    n = 6
    t = scipy.stats.t.ppf(0.025, n - 1)
    assert _tail(n, 0.95) == pytest.approx(scipy.stats.norm.cdf(math.sqrt(n / (n - 1)) * t))
    assert _tail(10**6, 0.95) == pytest.approx(0.025, rel=1e-4)


@pytest.mark.parametrize("n", [5, 12])
def test_the_interval_is_scipys_percentile_bootstrap(n: int) -> None:
    values = np.random.default_rng(3).gamma(2.0, size=n)
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, method="percentile", confidence_level=1 - 2 * _tail(n, CONFIDENCE), n_resamples=60_000,
        rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    spread = values.std() / math.sqrt(n)
    assert mean_interval(values, each(values)) == pytest.approx(tuple(theirs), abs=0.15 * spread)


def test_the_interval_of_three_is_that_of_all_27_draws() -> None:
    values = np.array([1.0, 2.0, 4.0])
    means = [np.mean(draw) for draw in product(values, repeat=3)]
    tail = _tail(3, 0.5)
    expected = np.quantile(means, [tail, 1 - tail], method="inverted_cdf")
    assert mean_interval(values, each(values), 0.5) == pytest.approx(tuple(expected), abs=1e-9)
    # 95 % of three values ask for more than the bootstrap has: its whole range.
    assert mean_interval(values, each(values)) == (1.0, 4.0)


def test_the_interval_of_two_valued_figures_is_binomial() -> None:
    n, ones = 40, 25
    values = np.array([1.0] * ones + [0.0] * (n - ones))
    tail = _tail(n, CONFIDENCE)
    expected = scipy.stats.binom(n, ones / n).ppf([tail, 1 - tail]) / n
    assert mean_interval(values, each(values)) == pytest.approx(tuple(expected), abs=1.01 / n)


def test_many_values_give_the_normal_interval() -> None:
    values = np.random.default_rng(0).normal(size=400)
    half = 1.96 * values.std() / 20
    low, high = mean_interval(values, each(values))
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.06 * half)


def test_subjects_are_drawn_and_not_their_slices() -> None:
    of_subjects = np.array([20.0, 25.0, 30.0, 28.0, 22.0])
    slices, groups = np.repeat(of_subjects, 20), np.repeat(np.arange(5), 20)
    assert mean_interval(slices, groups.tolist()) == pytest.approx(mean_interval(of_subjects, range(5)))
    alone = mean_interval(slices, each(slices))
    grouped = mean_interval(slices, groups.tolist())
    assert grouped[1] - grouped[0] > 3 * (alone[1] - alone[0])
    # Slices of one subject are all there is: they are drawn themselves.
    assert mean_interval(of_subjects, ["same"] * 5) == mean_interval(of_subjects, each(of_subjects))


def test_subjects_with_more_slices_count_more() -> None:
    # Ratio of sums: (1 + 1 + 1 + 5) / 4 = 2, and draws of one subject only are 1 and 5.
    low, high = mean_interval(np.array([1.0, 1.0, 1.0, 5.0]), ["a", "a", "a", "b"])
    assert (low, high) == (1.0, 5.0)


def test_the_interval_covers_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    trials = 300
    hits = sum(low <= 0 <= high for low, high in (mean_interval(rng.normal(size=8), range(8)) for _ in range(trials)))
    # 95 % to within two standard deviations of a binomial; the plain percentiles reach 91 %.
    assert hits / trials == pytest.approx(0.95, abs=0.026)


def test_the_same_values_have_the_same_interval() -> None:
    values = np.random.default_rng(0).normal(size=9)
    assert mean_interval(values, each(values)) == mean_interval(values, each(values))


def test_no_interval_of_one_value_or_of_infinite_ones() -> None:
    assert all(math.isnan(end) for end in mean_interval(np.array([3.0]), ["a"]))
    assert all(math.isnan(end) for end in mean_interval(np.array([3.0, math.inf]), ["a", "b"]))
    with pytest.raises(InputError, match="at least one"):
        mean_interval(np.zeros(0), [])
    with pytest.raises(InputError, match=r"confidence: expected a number in \(0, 1\), got 1"):
        mean_interval(np.zeros(3), range(3), 1.0)


def case(name: str, subject: str | None = None) -> Case:
    return Case(name, "ct", Identity(SPACE), torch.zeros(4, 4), torch.zeros(4, 4), subject=subject)


def result(
    method: str, case: str, psnr: float, kind: Kind = "classical", tuned: Choice = "default", nmse: float = 0.1
) -> Result:
    figures = {"psnr": psnr, "ssim": psnr / 100, "nmse": nmse, "data_range": 1.0}
    return Result(
        method, kind, case, "ct", torch.zeros(4, 4), figures, 1.0, 1, None, None, None, True, "", (), {}, tuned,
        "none", 0, 1.0, {},
    )  # fmt: skip


CASES = [case("a1", "a"), case("a2", "a"), case("b1", "b"), case("c1", "c")]
PSNR = {"fbp": (20, 22, 30, 24), "tv": (26, 25, 29, 31), "net": (28, 24, 33, 33)}
KINDS: dict[str, Literal["direct", "classical", "learned"]] = {"fbp": "direct", "tv": "classical", "net": "learned"}


def rows(tuned: tuple[str, ...] = ()) -> list[Result]:
    return [
        result(m, c.name, PSNR[m][i], KINDS[m], "tuned" if m in tuned else "default", nmse=1 / PSNR[m][i])
        for i, c in enumerate(CASES)
        for m in PSNR
    ]


def test_a_summary_says_mean_worst_case_and_difference() -> None:
    fbp, tv, net = summaries(rows(), CASES)
    assert (fbp.method, fbp.cases, fbp.subjects) == ("fbp", 4, 3)
    assert fbp.mean["psnr"] == pytest.approx(24)
    assert (fbp.worst["psnr"], fbp.worst_case) == (20, "a1")
    assert fbp.worst["nmse"] == pytest.approx(1 / 20)
    assert fbp.low["psnr"] < 24 < fbp.high["psnr"]
    # TV is the best baseline; the network is no baseline.
    assert tv.difference is None
    assert net.difference is not None
    assert (net.difference.reference, net.difference.wins, net.difference.cases) == ("tv", 3, 4)
    assert net.difference.mean == pytest.approx((2 - 1 + 4 + 2) / 4)
    assert net.difference.low < net.difference.mean < net.difference.high
    expected = mean_interval(np.array([2.0, -1, 4, 2]), ["a", "a", "b", "c"])
    assert (net.difference.low, net.difference.high) == pytest.approx(expected)


def test_a_tuned_baseline_is_preferred_and_a_named_reference_taken() -> None:
    of_fbp = summaries(rows(("fbp",)), CASES)[1].difference
    assert of_fbp is not None
    assert of_fbp.reference == "fbp"
    of_net = summaries(rows(), CASES, "net")[0].difference
    assert of_net is not None
    assert of_net.reference == "net"


def test_unknown_subjects_are_counted_as_unknown() -> None:
    unknown = [replace(c, subject=None) if c.name == "c1" else c for c in CASES]
    assert summaries(rows(), unknown)[0].subjects is None
    # An unknown subject is not the same as another unknown one: the cases stand alone.
    alone = summaries(rows(), [replace(c, subject=None) for c in CASES])[0]
    values = np.array(PSNR["fbp"], dtype=float)
    assert (alone.low["psnr"], alone.high["psnr"]) == pytest.approx(mean_interval(values, range(4)))


def test_fewer_than_three_cases_have_no_summary() -> None:
    assert summaries([r for r in rows() if r.case in ("a1", "b1")], CASES) == ()
    assert summaries([replace(r, metrics=None) for r in rows()], CASES) == ()


def test_every_method_is_summarised_over_the_same_cases() -> None:
    interrupted = [r for r in rows() if (r.case, r.method) not in (("c1", "tv"), ("c1", "net"))]
    fbp, tv, net = summaries(interrupted, CASES)
    assert (fbp.cases, tv.cases, net.cases) == (3, 3, 3)
    assert fbp.mean["psnr"] == pytest.approx((20 + 22 + 30) / 3)
    assert summaries(interrupted[:-4], CASES) == ()  # two cases that all of them have


def test_equal_perfect_images_do_not_differ() -> None:
    perfect = [result(m, c.name, math.inf) for c in CASES for m in ("one", "two")]
    _, two = summaries(perfect, CASES)
    assert two.difference is not None
    assert (two.difference.mean, two.difference.wins) == (0.0, 0)
    assert math.isnan(two.low["psnr"])
