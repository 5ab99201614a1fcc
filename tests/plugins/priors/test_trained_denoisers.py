"""drunet, ridge and trained in the denoiser slot, with shipped weights and with a path."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from priorloom import Registry, Space
from priorloom.card import read_card
from priorloom.errors import InputError
from priorloom.regularity import regularity_of
from priorloom.testing import check_denoiser
from priorloom.train.config import load
from priorloom.train.run import train

REGISTRY = Registry.discover()
SHIPPED = [n for n in REGISTRY.names("model") if n.rpartition(".")[2] in ("drunet", "ridge")]
REAL, COMPLEX = Space((24, 20)), Space((24, 20), torch.complex64)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The versions of a ridge of real images, hardly trained: it denoises from its start."""
    folder = tmp_path_factory.mktemp("ridge")
    plan = {
        "modality": "ct",
        "architecture": {"name": "ridge", "side": 5, "iterations": 6},
        "image_shape": [16, 16],
        "denoising": {"noise": [0.0, 0.196]},
        "data": {"train": [{"subject": "ellipses", "phantom": "ellipses"}]},
        "batch_size": 64,  # many levels of noise, low ones too
        "steps": 2,
    }
    (folder / "ridge.yaml").write_text(yaml.safe_dump(plan))
    return train(load(folder / "ridge.yaml"), REGISTRY, folder / "out").folder.parent


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_denoisers_keep_the_contract(name: str) -> None:
    modality, _, denoiser = name.rpartition(".")
    space = COMPLEX if read_card(REGISTRY.model(name)).scope.images == "complex" else REAL
    for sigma in (0.03, 0.1):
        assert len(check_denoiser(REGISTRY.denoiser(denoiser, space, modality=modality), space, sigma=sigma)) >= 6


def test_a_ridge_as_denoiser_and_as_regulariser(run: Path, generator: torch.Generator) -> None:
    denoiser = REGISTRY.denoiser("trained", REAL, path=run)
    regulariser = REGISTRY.denoiser("ridge", REAL, modality="ct", path=run / "1")
    assert len(check_denoiser(denoiser, REAL)) < len(check_denoiser(regulariser, REAL))  # of which more is proven
    assert not regularity_of(denoiser, 0.1).gradient
    known = regularity_of(regulariser, 0.1)
    assert (known.gradient, known.residual) == (True, 1.0)
    x = REAL.random(generator, (2,))
    assert regulariser.potential(x, torch.tensor(0.1)).shape == (2,)  # type: ignore[attr-defined]


def test_a_model_of_real_images_on_both_parts(run: Path, generator: torch.Generator) -> None:
    real = REGISTRY.denoiser("trained", REAL, path=run)
    parts = REGISTRY.denoiser("trained", COMPLEX, path=run, complex_mode="real-imaginary")
    check_denoiser(parts, COMPLEX)
    x, sigma = COMPLEX.random(generator, (2,)), torch.tensor([0.1, 0.2])[:, None, None]
    y = parts(x, sigma)
    torch.testing.assert_close(y.real, real(x.real.contiguous(), sigma / 2**0.5))
    torch.testing.assert_close(y.imag, real(x.imag.contiguous(), sigma / 2**0.5))


def test_a_model_of_real_images_on_the_magnitude(run: Path, generator: torch.Generator) -> None:
    real = REGISTRY.denoiser("trained", REAL, path=run)
    magnitude = REGISTRY.denoiser("trained", COMPLEX, path=run, complex_mode="magnitude")
    check_denoiser(magnitude, COMPLEX)
    x = 3 + COMPLEX.random(generator)
    y = magnitude(x, torch.tensor(0.2))
    torch.testing.assert_close(y.angle(), x.angle())
    torch.testing.assert_close(y.abs(), real(x.abs(), torch.tensor(0.2 / 2**0.5)))
    assert not regularity_of(magnitude, 0.2).gradient


def test_complex_modes_have_no_meaning_for_real_images(run: Path, generator: torch.Generator) -> None:
    x, sigma = REAL.random(generator), torch.tensor(0.1)
    one, other = (REGISTRY.denoiser("trained", REAL, path=run, complex_mode=m) for m in ("joint", "magnitude"))
    torch.testing.assert_close(one(x, sigma), other(x, sigma), rtol=0, atol=0)


def test_what_cannot_be_loaded(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected real images, got complex ones; set complex_mode to real-imaginary"):
        REGISTRY.denoiser("trained", COMPLEX, path=run)
    with pytest.raises(InputError, match="a folder of versions"):
        REGISTRY.denoiser("trained", REAL, path=tmp_path)
    with pytest.raises(InputError, match=r"unknown model 'xray\.drunet'"):
        REGISTRY.denoiser("drunet", REAL, modality="xray")
    with pytest.raises(InputError, match="complex_mode"):
        REGISTRY.denoiser("trained", REAL, path=run, complex_mode="both")
    with pytest.raises(InputError, match="path"):
        REGISTRY.denoiser("trained", REAL)
