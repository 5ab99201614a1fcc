"""Classical priors, scikit-image denoisers, and the methods for every modality: TV by PDHG and plug-and-play."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from priorloom.hooks import Factory, hookimpl


@hookimpl
def priorloom_priors() -> Mapping[str, Factory]:
    """L1, group L1, Tikhonov, total variation, wavelets and bounds."""
    return {
        "box": "priorloom_priors.priors:box",
        "group-l1": "priorloom_priors.priors:group_l1",
        "joint-tv": "priorloom_priors.priors:joint_tv",
        "l1": "priorloom_priors.priors:l1",
        "nonnegativity": "priorloom_priors.priors:nonnegativity",
        "tikhonov": "priorloom_priors.priors:tikhonov",
        "tikhonov-gradient": "priorloom_priors.priors:tikhonov_gradient",
        "tv": "priorloom_priors.priors:tv",
        "tv-anisotropic": "priorloom_priors.priors:tv_anisotropic",
        "tv-prox": "priorloom_priors.priors:tv_prox",
        "wavelet-l1": "priorloom_priors.priors:wavelet_l1",
    }


@hookimpl
def priorloom_denoisers() -> Mapping[str, Factory]:
    """Denoisers for the plug-and-play slot: classical, trained, and deepinv's."""
    return {
        "dct": "priorloom_priors.dct:dct",
        "dct-soft": "priorloom_priors.dct:dct_soft",
        "deepinv-tgv": "priorloom_priors.deepinv_adapter:tgv",
        "deepinv-tv": "priorloom_priors.deepinv_adapter:tv",
        "deepinv-wavelet": "priorloom_priors.deepinv_adapter:wavelet",
        "drunet": "priorloom_priors.trained_denoisers:drunet",
        "non-local-means": "priorloom_priors.denoisers:non_local_means",
        "ridge": "priorloom_priors.trained_denoisers:ridge",
        "trained": "priorloom_priors.trained_denoisers:trained",
        "tv-chambolle": "priorloom_priors.denoisers:tv_chambolle",
        "wavelet": "priorloom_priors.denoisers:wavelet",
    }


@hookimpl
def priorloom_architectures() -> Mapping[str, Factory]:
    """Denoising networks."""
    return {
        "averaged": "priorloom_priors.architectures:averaged",
        "dncnn": "priorloom_priors.architectures:dncnn",
        "drunet": "priorloom_priors.architectures:drunet",
        "gradient-step": "priorloom_priors.architectures:gradient_step",
        "ridge": "priorloom_priors.architectures:ridge",
    }


@hookimpl
def priorloom_pipelines() -> Mapping[str, Factory]:
    """Methods that need nothing but a linear operator."""
    return {
        "pnp-admm": "priorloom_priors.plug_and_play:pnp_admm",
        "pnp-drs": "priorloom_priors.plug_and_play:pnp_drs",
        "pnp-equilibrium": "priorloom_priors.plug_and_play:pnp_equilibrium",
        "pnp-fista": "priorloom_priors.plug_and_play:pnp_fista",
        "pnp-hqs": "priorloom_priors.plug_and_play:pnp_hqs",
        "pnp-pdhg": "priorloom_priors.plug_and_play:pnp_pdhg",
        "pnp-pgd": "priorloom_priors.plug_and_play:pnp_pgd",
        "red-accelerated": "priorloom_priors.red:red_accelerated",
        "red-gradient": "priorloom_priors.red:red_gradient",
        "red-proximal": "priorloom_priors.red:red_proximal",
        "tv-pdhg": "priorloom_priors.pipelines:tv_pdhg",
    }


@hookimpl
def priorloom_models() -> Mapping[str, Factory]:
    """The shipped denoisers: the folders ``models/MODALITY.DENOISER``."""
    folder = Path(__file__).parent / "models"
    found = sorted(p for p in folder.iterdir() if p.is_dir() and "." in p.name) if folder.is_dir() else []
    return {p.name: _offer(p) for p in found}


def _offer(folder: Path) -> Callable[[], Path]:
    return lambda: folder
