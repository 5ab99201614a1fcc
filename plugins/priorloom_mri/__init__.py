"""MRI: Cartesian single- and multi-coil operators, coil maps, masks, noise, methods and file formats."""

from __future__ import annotations

from collections.abc import Mapping

from priorloom.hooks import Factory, hookimpl


@hookimpl
def priorloom_operators() -> Mapping[str, Factory]:
    """Forward operators."""
    return {
        "mri.fourier2d": "priorloom_mri.operators:fourier2d",
        "mri.fourier3d": "priorloom_mri.operators:fourier3d",
        "mri.nufft": "priorloom_mri.nufft:nufft",
        "mri.radial2d": "priorloom_mri.nufft:radial2d",
        "mri.sense2d": "priorloom_mri.operators:sense2d",
        "mri.sense3d": "priorloom_mri.operators:sense3d",
        "mri.spiral2d": "priorloom_mri.nufft:spiral2d",
    }


@hookimpl
def priorloom_pipelines() -> Mapping[str, Factory]:
    """Reconstruction methods."""
    return {
        "zero-filled": "priorloom_mri.pipelines:zero_filled",
        "cg-sense": "priorloom_mri.pipelines:cg_sense",
        "l1-wavelet": "priorloom_mri.pipelines:l1_wavelet",
    }


@hookimpl
def priorloom_modalities() -> Mapping[str, Factory]:
    """The modality."""
    return {"mri": "priorloom_mri.modality:mri"}


@hookimpl
def priorloom_readers() -> Mapping[str, Factory]:
    """File formats."""
    return {"bart": "priorloom_mri.bart:bart"}


@hookimpl
def priorloom_benchmarks() -> Mapping[str, Factory]:
    """Cases and peers for ``priorloom bench``."""
    return {
        "mri.radial2d": "priorloom_mri.peers:radial2d",
        "mri.sense2d": "priorloom_mri.peers:sense2d",
    }
