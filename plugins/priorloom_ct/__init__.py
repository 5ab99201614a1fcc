"""X-ray CT: ray transforms, filtered backprojection, noise, phantoms, methods and file formats."""

from __future__ import annotations

from collections.abc import Mapping

from priorloom.hooks import Factory, hookimpl


@hookimpl
def priorloom_operators() -> Mapping[str, Factory]:
    """Forward operators."""
    return {
        "ct.conebeam3d": "priorloom_ct.operators3d:conebeam3d",
        "ct.fanbeam2d": "priorloom_ct.operators:fanbeam2d",
        "ct.helical3d": "priorloom_ct.operators3d:helical3d",
        "ct.parallel2d": "priorloom_ct.operators:parallel2d",
        "ct.parallel3d": "priorloom_ct.operators3d:parallel3d",
    }


@hookimpl
def priorloom_pipelines() -> Mapping[str, Factory]:
    """Reconstruction methods."""
    return {
        "cgls": "priorloom_ct.pipelines:cgls",
        "fbp": "priorloom_ct.pipelines:fbp",
        "tikhonov": "priorloom_ct.pipelines:tikhonov",
        "wavelet-fista": "priorloom_ct.pipelines:wavelet_fista",
    }


@hookimpl
def priorloom_modalities() -> Mapping[str, Factory]:
    """The modality."""
    return {"ct": "priorloom_ct.modality:ct"}


@hookimpl
def priorloom_readers() -> Mapping[str, Factory]:
    """File formats."""
    return {"htc2022": "priorloom_ct.htc2022:htc2022"}


@hookimpl
def priorloom_benchmarks() -> Mapping[str, Factory]:
    """Cases and peers for ``priorloom bench``."""
    return {
        "ct.conebeam3d": "priorloom_ct.peers:conebeam3d",
        "ct.fanbeam2d": "priorloom_ct.peers:fanbeam2d",
        "ct.parallel2d": "priorloom_ct.peers:parallel2d",
    }
