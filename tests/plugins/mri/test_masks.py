"""Sampling masks: counts, centres, and what fastMRI's definitions say."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from priorloom.errors import InputError
from priorloom_mri.masks import (
    equispaced_lines,
    grid_points,
    kspace_radius,
    make_mask,
    poisson_disc,
    random_lines,
    sampled_fraction,
    variable_density,
)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("n", "fraction", "low", "first"), [(320, 0.08, 26, 147), (368, 0.04, 15, 177), (9, 0.34, 3, 3)]
)
def test_centre_lies_where_fastmri_puts_it(n: int, fraction: float, low: int, first: int) -> None:
    for lines in (random_lines, equispaced_lines):
        masks = torch.stack(
            [lines(n, acceleration=2.0, center_fraction=fraction, generator=seeded(s)) for s in range(200)]
        )
        always = masks.all(0).nonzero().flatten().tolist()
        assert always == list(range(first, first + low))  # first = (n - low + 1) // 2


def test_random_lines_hit_the_acceleration_on_average() -> None:
    fractions = [
        sampled_fraction(random_lines(320, acceleration=4.0, center_fraction=0.08, generator=seeded(s)))
        for s in range(400)
    ]
    spread = math.sqrt(0.25 / 320) / math.sqrt(400)
    assert abs(sum(fractions) / 400 - 0.25) < 4 * spread
    assert len(set(fractions)) > 10


@pytest.mark.parametrize(("n", "R", "fraction"), [(320, 4.0, 0.08), (368, 8.0, 0.04)])
def test_equispaced_lines_have_fastmris_pitch_and_offsets(n: int, R: float, fraction: float) -> None:
    low = round(n * fraction)
    pitch = R * (low - n) / (low * R - n)  # fastMRI's adjusted acceleration
    first = (n - low + 1) // 2
    offsets = set()
    for seed in range(120):
        mask = equispaced_lines(n, acceleration=R, center_fraction=fraction, generator=seeded(seed))
        offset = int(mask.nonzero()[0])
        offsets.add(offset)
        outside = [round(offset + k * pitch) for k in range(n) if offset + k * pitch < n - 1]
        expected = sorted({*outside, *range(first, first + low)})
        assert mask.nonzero().flatten().tolist() == expected
        assert abs(int(mask.sum()) - n / R) <= 2
    assert offsets == set(range(round(pitch)))


@pytest.mark.parametrize("R", [1.0, 2.0, 3.7, 8.0])
@pytest.mark.parametrize("shape", [(128,), (63,), (48, 40)])
@pytest.mark.parametrize("degree", [0.0, 3.0])
def test_variable_density_has_the_exact_count(shape: tuple[int, ...], R: float, degree: float) -> None:
    mask = variable_density(shape, acceleration=R, degree=degree, generator=seeded(1))
    assert int(mask.sum()) == round(math.prod(shape) / R)
    centre = tuple(slice((n - round(0.32 / R * n) + 1) // 2, (n - round(0.32 / R * n) + 1) // 2 + 1) for n in shape)
    assert bool(mask[centre].all())


def test_density_falls_towards_the_edge() -> None:
    def outer(degree: float) -> float:
        masks = [
            variable_density((200,), acceleration=4.0, degree=degree, generator=seeded(s)).float() for s in range(50)
        ]
        return float(torch.stack(masks).mean(0)[:50].mean())

    assert outer(0.0) == pytest.approx((50 - 16) / (200 - 16), abs=0.03)  # uniform outside the 16 central lines
    assert outer(3.0) < 0.5 * outer(0.0)


@pytest.mark.parametrize("slope", [0.0, 2.0])
@pytest.mark.parametrize(("shape", "R"), [((48, 48), 4.0), ((40, 60), 9.0)])
def test_poisson_disc_keeps_its_distances(shape: tuple[int, int], R: float, slope: float) -> None:
    mask = poisson_disc(shape, acceleration=R, slope=slope, center_fraction=0.0, generator=seeded(2))
    assert int(mask.sum()) == round(math.prod(shape) / R)
    growth = 1 + slope * kspace_radius(shape)
    # The largest r0 that explains the mask; a random mask of the same density has neighbours at distance 1 everywhere.
    r0 = min(
        math.dist(p, q) / min(float(growth[p]), float(growth[q]))
        for p, q in itertools.combinations([tuple(p) for p in mask.nonzero().tolist()], 2)
    )
    # A square lattice of this density has the spacing s; maximal random packings reach about 0.7 s.
    mean_area = float((growth**2).mean())
    spacing = math.sqrt(R / mean_area) if slope else math.sqrt(R)
    assert r0 > 0.6 * spacing


def test_poisson_disc_samples_its_centre() -> None:
    mask = poisson_disc((64, 64), acceleration=6.0, center_fraction=0.25, generator=seeded(3))
    assert bool(mask[24:40, 24:40].all())
    assert int(mask.sum()) == round(64 * 64 / 6)


@pytest.mark.parametrize("name", ["random", "equispaced", "exact", "variable-density", "poisson-disc", "grid"])
def test_one_seed_one_mask(name: str) -> None:
    def draw(seed: int) -> torch.Tensor:
        return make_mask(name, (40, 64), acceleration=4.0, generator=seeded(seed))  # type: ignore[arg-type]

    first, other = draw(0), [draw(s) for s in range(1, 6)]
    assert first.dtype == torch.bool
    assert first.shape in ((64,), (40, 64))
    assert torch.equal(first, draw(0))
    assert not all(torch.equal(first, o) for o in other)
    assert 0.1 < sampled_fraction(first) < 0.45


def test_full_sampling() -> None:
    for name in ("random", "equispaced", "exact", "variable-density", "poisson-disc", "grid"):
        assert sampled_fraction(make_mask(name, (32, 32), acceleration=1.0, generator=seeded(0))) == 1  # type: ignore[arg-type]


@pytest.mark.parametrize("R", [0.5, math.nan, math.inf, 1000.0])
def test_bad_acceleration(R: float) -> None:
    with pytest.raises(InputError, match="acceleration: expected between"):
        random_lines(64, acceleration=R, generator=seeded(0))


def test_bad_parameters() -> None:
    with pytest.raises(InputError, match="center_fraction: expected at most the 16 samples"):
        equispaced_lines(64, acceleration=4.0, center_fraction=0.5, generator=seeded(0))
    with pytest.raises(InputError, match="center_fraction: expected between 0 and 1"):
        random_lines(64, acceleration=4.0, center_fraction=-0.1, generator=seeded(0))
    with pytest.raises(InputError, match="degree"):
        variable_density((64,), acceleration=4.0, degree=-1.0, generator=seeded(0))
    with pytest.raises(InputError, match="slope"):
        poisson_disc((16, 16), acceleration=4.0, slope=math.nan, generator=seeded(0))
    with pytest.raises(InputError, match=r"unknown mask 'poison-disc'; did you mean 'poisson-disc'\?"):
        make_mask("poison-disc", (16, 16), acceleration=4.0, generator=seeded(0))  # type: ignore[arg-type]


def test_grid_samples_every_second_row_and_column_and_the_centre() -> None:
    mask = grid_points((40, 30), acceleration=4.0, center_fraction=0.1, generator=torch.Generator().manual_seed(0))
    outside = mask.clone()
    outside[18:22, 13:17] = False  # the centre block and a pixel around it
    rows, columns = outside.any(1).nonzero().ravel(), outside.any(0).nonzero().ravel()
    assert set(rows.diff().tolist()) == {2}
    assert set(columns.diff().tolist()) == {2}
    assert mask[18:22, 14:17].all()
    assert float(mask.double().mean()) == pytest.approx(0.25, abs=0.02)
