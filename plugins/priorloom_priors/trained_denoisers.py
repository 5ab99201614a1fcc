"""Trained networks in the denoiser slot."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from priorloom import Denoiser, Registry, Space
from priorloom.errors import InputError
from priorloom.hooks import example
from priorloom.models import newest_version
from priorloom.networks import RidgeDenoiser
from priorloom.trained_denoiser import TrainedDenoiser, load_denoiser

from .denoiser_slot import OnParts

ComplexMode = Literal["joint", "real-imaginary", "magnitude"]


@example(modality="ct")
def drunet(space: Space, *, modality: str, path: Path | None = None, complex_mode: ComplexMode = "joint") -> Denoiser:
    """A small DRUNet (Zhang et al., 2022), trained for the modality; strong, and nothing is proven of it.

    Parameters
    ----------
    modality
        Whose weights; that of the case where a method fills it in.
    path
        The folder of a model that you trained, in the place of the shipped one.
    complex_mode
        For complex images: "joint" takes a model of complex images. The others take one of real images: on both parts,
        each with noise ``sigma / sqrt(2)``, or on the magnitude with the phase kept.
    """
    return _loaded(space, f"{modality}.drunet", path, complex_mode)


@example(modality="ct")
def ridge(space: Space, *, modality: str, path: Path | None = None) -> Denoiser:
    """One descent step ``I - grad g`` on a learned regulariser with a 1-Lipschitz gradient, for methods that descend on
    g together with the data (red-gradient, red-proximal), which then provably converge.

    By itself it takes out little noise; ``trained`` with the same folder denoises by many steps.

    Parameters
    ----------
    modality, path
        As for drunet.
    """
    found = _load(space, f"{modality}.ridge", path)
    network = found.network
    if not isinstance(network, RidgeDenoiser):
        raise InputError(f"model '{found.name}'", expected="architecture 'ridge'", got=type(network).__name__)
    return TrainedDenoiser(space, network.regulariser, found.name, found.noise)


@example(path=lambda: Path(__file__).parent / "models" / "ct.drunet")
def trained(space: Space, *, path: Path, complex_mode: ComplexMode = "joint") -> Denoiser:
    """Any denoiser that ``priorloom train`` made: dncnn, drunet, gradient-step, averaged or ridge.

    Parameters
    ----------
    path
        The folder with model.safetensors and card.json, or one of versions.
    complex_mode
        As for drunet.
    """
    return _loaded(space, "", path, complex_mode)


def _loaded(space: Space, name: str, path: Path | None, mode: ComplexMode) -> Denoiser:
    if mode == "joint" or not space.is_complex:
        return _load(space, name, path)
    return OnParts(_load(space.with_dtype(space.real_dtype), name, path), mode)


def _load(space: Space, name: str, path: Path | None) -> TrainedDenoiser:
    registry = Registry.discover()
    if path is None:
        folder = registry.model(name)
    else:
        folder = path if (path / "card.json").exists() else newest_version(path)
    return load_denoiser(folder, space, registry)
