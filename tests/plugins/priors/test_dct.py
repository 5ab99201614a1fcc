"""Thresholds on blocks of cosines against a loop over the blocks."""

from __future__ import annotations

import pytest
import torch
from scipy.fft import dctn, idctn
from torch import Tensor

from priorloom import Registry, Space
from priorloom.errors import InputError
from priorloom.regularity import regularity_of
from priorloom.testing import check_denoiser

REGISTRY = Registry.discover()
NAMES = ("dct", "dct-soft")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64])
def test_conformance(name: str, dtype: torch.dtype) -> None:
    space = Space((19, 24), dtype)
    checks = {c.name: c.figure for c in check_denoiser(REGISTRY.denoiser(name, space), space)}
    assert checks["share of the noise that is left"] < 0.8


def by_hand(x: Tensor, threshold: float, soft: bool) -> Tensor:
    """The mean over all blocks of the periodic image, one after the other."""
    rows, columns = x.shape
    total = torch.zeros_like(x)
    for i in range(rows):
        for j in range(columns):
            at = torch.meshgrid((i + torch.arange(8)) % rows, (j + torch.arange(8)) % columns, indexing="ij")
            block = x[at].numpy()
            c = torch.from_numpy(dctn(block.real, norm="ortho"))
            if x.is_complex():
                c = torch.complex(c, torch.from_numpy(dctn(block.imag, norm="ortho")))
            size = c.abs()
            shrunk = c * (1 - threshold / size).clamp_min(0) if soft else c * (size > threshold)
            shrunk[0, 0] = c[0, 0]
            back = torch.from_numpy(idctn(shrunk.real.numpy(), norm="ortho"))
            if x.is_complex():
                back = torch.complex(back, torch.from_numpy(idctn(shrunk.imag.numpy(), norm="ortho")))
            total[at] += back / 64
    return total


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_every_block(name: str, dtype: torch.dtype, generator: torch.Generator) -> None:
    space = Space((11, 9), dtype)
    x = space.random(generator)
    # exp(-t^2) of complex noise exceeds t, and 4.55 % of real noise 2
    threshold = 0.5 * (3.0901**0.5 if space.is_complex else 2.0)
    result = REGISTRY.denoiser(name, space, strength=2.0)(x, torch.tensor(0.5))
    torch.testing.assert_close(result, by_hand(x, threshold, name == "dct-soft"), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_scaling_and_phase(name: str, dtype: torch.dtype, generator: torch.Generator) -> None:
    space = Space((16, 12), dtype)
    x, sigma = space.random(generator, (2, 2)), torch.tensor(0.4, dtype=torch.float64)
    D = REGISTRY.denoiser(name, space)
    c = torch.tensor(-3.0 if dtype == torch.float64 else 1 - 2j, dtype=dtype)
    torch.testing.assert_close(D(c * x, c.abs() * sigma), c * D(x, sigma))
    torch.testing.assert_close(D(x, 0 * sigma), x)
    torch.testing.assert_close(D(x.roll((3, 5), (-2, -1)), sigma), D(x, sigma).roll((3, 5), (-2, -1)))


@pytest.mark.parametrize("shape", [(16, 8), (11, 13)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_soft_thresholds_are_a_proximal_map(
    shape: tuple[int, int], dtype: torch.dtype, generator: torch.Generator
) -> None:
    """A firmly nonexpansive gradient: on pairs, and by the Jacobian, symmetric with eigenvalues in [0, 1]."""
    space = Space(shape, dtype)
    D = REGISTRY.denoiser("dct-soft", space)
    assert regularity_of(D, 0.3).is_prox
    assert not regularity_of(REGISTRY.denoiser("dct", space), 0.3).is_prox
    sigma = torch.tensor(0.5, dtype=torch.float64)
    a = space.random(generator, (40,))
    b = a + torch.logspace(-3, 1, 40)[:, None, None] * space.random(generator, (40,))
    move, change = a - b, D(a, sigma) - D(b, sigma)
    assert bool((space.inner(move, change).real >= space.squared(change) * (1 - 1e-12)).all())
    at = a[:3].clone().requires_grad_()
    (slope,) = torch.autograd.grad(D.potential(at, sigma).sum(), at)  # type: ignore[attr-defined]
    torch.testing.assert_close(a[:3] - D(a[:3], sigma), slope)


def test_hard_thresholds_are_not_nonexpansive() -> None:
    """A coefficient beside the threshold."""
    space = Space((8, 8), torch.float64)
    D = REGISTRY.denoiser("dct", space, strength=3.0)
    wave = torch.cos(torch.pi / 8 * (torch.arange(8, dtype=torch.float64) + 0.5))[:, None].expand(8, 8)
    wave = wave / wave.norm()
    sizes = torch.linspace(0.1, 20, 400, dtype=torch.float64)
    made = D(sizes[:, None, None] * wave, torch.tensor(1.0))
    assert float((made[1:] - made[:-1]).norm(dim=(-2, -1)).max()) > 1.5 * float(sizes[1] - sizes[0])


def test_misuse_is_refused(generator: torch.Generator) -> None:
    space = Space((16, 16))
    D = REGISTRY.denoiser("dct", space)
    for sigma, match in ((-1.0, "at least 0"), (float("nan"), "at least 0"), ([0.1, 0.2, 0.3], "one per batch")):
        with pytest.raises(InputError, match=match):
            D(space.zeros((2,)), torch.tensor(sigma))
    with pytest.raises(InputError, match="image for cosine blocks"):
        D(space.zeros().double(), torch.tensor(0.1))
    with pytest.raises(InputError, match="two dimensions of at least 8"):
        REGISTRY.denoiser("dct", Space((7, 16)))
    with pytest.raises(InputError, match="strength"):
        REGISTRY.denoiser("dct", space, strength=0.0)
