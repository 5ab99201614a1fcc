"""Trained networks in the denoiser slot."""

from __future__ import annotations

from pathlib import Path

from priorloom import Denoiser, Registry, Space
from priorloom.errors import InputError
from priorloom.models import newest_version
from priorloom.networks import RidgeDenoiser
from priorloom.trained_denoiser import TrainedDenoiser, load_denoiser


def drunet(space: Space, *, modality: str, path: Path | None = None) -> Denoiser:
    """A small DRUNet (Zhang et al., 2022), trained for the modality; strong, and nothing is proven of it.

    Parameters
    ----------
    modality
        Whose weights; that of the case where a method fills it in.
    path
        The folder of a model that you trained, in the place of the shipped one.
    """
    return _load(space, f"{modality}.drunet", path)


def ridge(space: Space, *, modality: str, path: Path | None = None) -> Denoiser:
    """One descent step ``I - grad g`` on a learned regulariser with a 1-Lipschitz gradient, for methods that descend on
    g together with the data (red-gradient, red-proximal), which then provably converge.

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


def trained(space: Space, *, path: Path) -> Denoiser:
    """Any denoiser that ``priorloom train`` made.

    Parameters
    ----------
    path
        The folder with model.safetensors and card.json, or one of versions.
    """
    return _load(space, "", path)


def _load(space: Space, name: str, path: Path | None) -> TrainedDenoiser:
    registry = Registry.discover()
    if path is None:
        folder = registry.model(name)
    else:
        folder = path if (path / "card.json").exists() else newest_version(path)
    return load_denoiser(folder, space, registry)
