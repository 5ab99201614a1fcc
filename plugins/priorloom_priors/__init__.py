"""Classical priors, scikit-image denoisers, and the methods for every modality: TV by PDHG and plug-and-play ADMM."""

from __future__ import annotations

from collections.abc import Mapping

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
    """scikit-image's denoisers in the plug-and-play slot."""
    return {
        "non-local-means": "priorloom_priors.denoisers:non_local_means",
        "tv-chambolle": "priorloom_priors.denoisers:tv_chambolle",
        "wavelet": "priorloom_priors.denoisers:wavelet",
    }


@hookimpl
def priorloom_pipelines() -> Mapping[str, Factory]:
    """Methods that need nothing but a linear operator."""
    return {
        "pnp-admm": "priorloom_priors.pipelines:pnp_admm",
        "tv-pdhg": "priorloom_priors.pipelines:tv_pdhg",
    }
