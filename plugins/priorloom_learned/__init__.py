"""Learned reconstruction: unrolled architectures, the methods that run trained ones, and their weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from priorloom.hooks import Factory, hookimpl


@hookimpl
def priorloom_architectures() -> Mapping[str, Factory]:
    """Unrolled networks."""
    return {
        "deep-equilibrium": "priorloom_learned.equilibrium:deep_equilibrium",
        "learned-admm": "priorloom_learned.architectures:learned_admm",
        "learned-admm-exact": "priorloom_learned.architectures:learned_admm_exact",
        "learned-admm-network": "priorloom_learned.architectures:learned_admm_network",
        "learned-ista": "priorloom_learned.architectures:learned_ista",
        "learned-primal-dual": "priorloom_learned.architectures:learned_primal_dual",
        "learned-proximal-gradient": "priorloom_learned.architectures:learned_proximal_gradient",
        "lista": "priorloom_learned.lista:lista",
        "lista-cp": "priorloom_learned.lista:lista_cp",
        "lista-cpss": "priorloom_learned.lista:lista_cpss",
        "lista-tied": "priorloom_learned.lista:lista_tied",
        "memory-modl": "priorloom_learned.architectures:memory_modl",
        "modl": "priorloom_learned.architectures:modl",
        "nonexpansive-proximal-gradient": "priorloom_learned.architectures:nonexpansive_proximal_gradient",
        "unet": "priorloom_learned.architectures:unet",
        "variational-network": "priorloom_learned.architectures:variational_network",
    }


@hookimpl
def priorloom_pipelines() -> Mapping[str, Factory]:
    """Methods that run trained models."""
    return {
        "deep-equilibrium": "priorloom_learned.pipelines:deep_equilibrium",
        "fbp-unet": "priorloom_learned.pipelines:fbp_unet",
        "learned": "priorloom_learned.pipelines:learned",
        "learned-admm": "priorloom_learned.pipelines:learned_admm",
        "learned-admm-exact": "priorloom_learned.pipelines:learned_admm_exact",
        "learned-admm-network": "priorloom_learned.pipelines:learned_admm_network",
        "learned-ista": "priorloom_learned.pipelines:learned_ista",
        "learned-primal-dual": "priorloom_learned.pipelines:learned_primal_dual",
        "learned-proximal-gradient": "priorloom_learned.pipelines:learned_proximal_gradient",
        "memory-modl": "priorloom_learned.pipelines:memory_modl",
        "modl": "priorloom_learned.pipelines:modl",
        "nonexpansive-proximal-gradient": "priorloom_learned.pipelines:nonexpansive_proximal_gradient",
        "variational-network": "priorloom_learned.pipelines:variational_network",
        "zero-filled-unet": "priorloom_learned.pipelines:zero_filled_unet",
    }


@hookimpl
def priorloom_models() -> Mapping[str, Factory]:
    """The shipped weights: the folders ``models/MODALITY.METHOD``."""
    folder = Path(__file__).parent / "models"
    found = sorted(p for p in folder.iterdir() if p.is_dir() and "." in p.name) if folder.is_dir() else []
    return {p.name: _offer(p) for p in found}


def _offer(folder: Path) -> Callable[[], Path]:
    return lambda: folder
