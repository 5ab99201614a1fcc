"""deepinv's denoisers in the slot, with stand-ins of their signature: deepinv itself need not be installed."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from priorloom import PriorloomError, Registry, Space
from priorloom.errors import InputError
from priorloom.testing import check_denoiser
from priorloom_priors.deepinv_adapter import from_deepinv

REGISTRY = Registry.discover()
REAL, COMPLEX = Space((16, 12)), Space((16, 12), torch.complex64)


class Smoother(nn.Module):
    """Averages neighbours; begins where the last call ended unless told to restart, as deepinv's TVDenoiser does."""

    def __init__(self, n_it_max: int = 1, level: int = 1) -> None:
        super().__init__()
        self.free = nn.Parameter(torch.tensor(0.05))
        self.restart = True
        self.calls: list[tuple[tuple[int, ...], torch.dtype, float]] = []

    def forward(self, x: Tensor, ths: float | None = None, **kwargs: Any) -> Tensor:
        assert ths is not None
        assert not self.training
        assert self.restart
        self.restart = False
        self.calls.append((tuple(x.shape), x.dtype, ths))
        weight = ths / (ths + self.free)
        mean = (x + x.roll(1, -1) + x.roll(-1, -1) + x.roll(1, -2) + x.roll(-1, -2)) / 5
        return x + weight * (mean - x)


@pytest.mark.parametrize("space", [REAL, REAL.with_dtype(torch.float64), COMPLEX])
@pytest.mark.parametrize("mode", ["real-imaginary", "magnitude"])
def test_conformance(space: Space, mode: Any) -> None:
    theirs = Smoother()
    check_denoiser(from_deepinv(theirs, space, unit=2.0, complex_mode=mode), space)
    assert {(shape, dtype) for shape, dtype, _ in theirs.calls} == {((1, 1, 16, 12), torch.float32)}


def test_units_and_levels(generator: torch.Generator) -> None:
    theirs = Smoother()
    x = REAL.random(generator, (2,))
    y = from_deepinv(theirs, REAL, unit=4.0)(x, torch.tensor([0.4, 0.8])[:, None, None])
    assert [level for _, _, level in theirs.calls] == pytest.approx([0.1, 0.2])
    theirs.restart = True
    torch.testing.assert_close(y[1], 4 * theirs(x[1:, None] / 4, 0.2)[0, 0])
    theirs.calls.clear()
    from_deepinv(theirs, COMPLEX)(x + 0j, torch.tensor(0.2))
    assert [level for _, _, level in theirs.calls] == pytest.approx([0.2 / 2**0.5] * 4)


def test_gradients_flow(generator: torch.Generator) -> None:
    x = REAL.random(generator, (2,)).requires_grad_()
    D = from_deepinv(Smoother(), REAL)
    (g,) = torch.autograd.grad(D(x, torch.tensor(0.1)).sum(), x)
    torch.testing.assert_close(g, torch.ones_like(g))  # the mean stays


def test_registered_ones(monkeypatch: pytest.MonkeyPatch, generator: torch.Generator) -> None:
    package = ModuleType("deepinv")
    package.models = SimpleNamespace(TVDenoiser=Smoother, TGVDenoiser=Smoother, WaveletDenoiser=Smoother)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "deepinv", package)
    monkeypatch.setattr("priorloom_priors.deepinv_adapter.find_spec", lambda name: object())
    for name in ("deepinv-tv", "deepinv-tgv", "deepinv-wavelet"):
        for space in (REAL, COMPLEX):
            check_denoiser(REGISTRY.denoiser(name, space), space)
    with pytest.raises(InputError, match="strength"):
        REGISTRY.denoiser("deepinv-tv", REAL, strength=-1.0)


class Broken(ModuleType):
    """A package whose import goes wrong inside, as with a torchvision that does not fit torch."""

    def __getattr__(self, name: str) -> Any:
        if name == "models":
            raise RuntimeError("operator torchvision::nms does not exist\nmore")
        raise AttributeError(name)


@pytest.mark.parametrize("package", [None, Broken("deepinv")])
@pytest.mark.parametrize("name", ["deepinv-tv", "deepinv-tgv", "deepinv-wavelet"])
def test_without_deepinv_it_says_what_to_install(
    name: str, package: ModuleType | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "deepinv", package)  # type: ignore[arg-type]
    with pytest.raises(PriorloomError, match="pip install deepinv") as caught:
        REGISTRY.denoiser(name, REAL)
    assert "\n" not in str(caught.value)


def test_misuse_is_refused() -> None:
    D = from_deepinv(Smoother(), REAL)
    for sigma, match in ((-1.0, "at least 0"), (float("nan"), "at least 0"), ([0.1, 0.2, 0.3], "one per batch")):
        with pytest.raises(InputError, match=match):
            D(REAL.zeros((2,)), torch.tensor(sigma))
    with pytest.raises(InputError, match="image for a deepinv denoiser"):
        D(REAL.zeros().double(), torch.tensor(0.1))
    with pytest.raises(InputError, match=r"output of a deepinv denoiser: expected \[1, 1, 16, 12\], got \[1, 16, 12\]"):
        from_deepinv(lambda x, sigma: x[0], REAL)(REAL.zeros(), torch.tensor(0.1))
    with pytest.raises(InputError, match="two dimensions"):
        from_deepinv(Smoother(), Space((4, 4, 4)))
    with pytest.raises(InputError, match="unit"):
        from_deepinv(Smoother(), REAL, unit=0.0)
