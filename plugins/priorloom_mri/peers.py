"""What ``priorloom bench`` runs of MRI: cases of the operators, and sigpy's operators to compare with."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor

from priorloom.bench import BenchmarkCase, OperatorBenchmark, Peer, Timed
from priorloom.errors import InputError, PluginError
from priorloom.operator import LinearOperator

from .coils import birdcage_maps
from .masks import make_mask

SHAPE, COILS = (256, 256), 8


def sense2d() -> OperatorBenchmark:
    """Multi-coil Cartesian MRI beside sigpy's ``Sense``."""
    case = BenchmarkCase("256x256, 8 coils, random points", {"maps": _maps, "mask": _mask}, (1, 8, 32))
    return OperatorBenchmark("mri.sense2d", (case,), {"sigpy": sigpy_sense})


def radial2d() -> OperatorBenchmark:
    """Radial MRI beside sigpy's ``Sense`` with coordinates."""
    case = BenchmarkCase("256x256, 64 spokes of 512, 8 coils", {"spokes": 64, "readout": 512, "maps": _maps})
    return OperatorBenchmark("mri.radial2d", (case,), {"sigpy": sigpy_nufft})


def _maps() -> Tensor:
    return birdcage_maps(COILS, SHAPE)


def _mask() -> Tensor:
    return make_mask("variable-density", SHAPE, acceleration=4.0, generator=torch.Generator().manual_seed(0))


def sigpy_sense(A: LinearOperator) -> Peer:
    """``sigpy.mri.linop.Sense`` with the same maps and mask."""
    linop = _sigpy()
    maps, mask = getattr(A, "maps", None), getattr(A, "mask", None)
    if not isinstance(maps, Tensor) or not isinstance(mask, Tensor):
        raise InputError("operator for sigpy", expected="coil maps and a mask", got=type(A).__name__)
    if tuple(maps.shape[1:]) != A.domain.shape:
        raise InputError("operator for sigpy", expected="one set of maps and one frame", got=list(A.domain.shape))
    weights = np.broadcast_to(mask.cpu().numpy(), A.domain.shape).astype(np.float32)
    return _peer(linop.Sense(maps.cpu().numpy(), weights=weights), "NumPy's FFT, shifts on every call")


def sigpy_nufft(A: LinearOperator) -> Peer:
    """``sigpy.mri.linop.Sense`` with the same maps and trajectory."""
    linop = _sigpy()
    maps, trajectory = getattr(A, "maps", None), getattr(A, "trajectory", None)
    if not isinstance(maps, Tensor) or not isinstance(trajectory, Tensor):
        raise InputError("operator for sigpy", expected="coil maps and a trajectory", got=type(A).__name__)
    coordinates = trajectory.cpu().numpy() * np.asarray(A.domain.shape)  # cycles per field of view
    sense = linop.Sense(maps.cpu().numpy(), coord=coordinates.astype(np.float32))
    return _peer(sense, "gridding with oversampling 1.25 and width 4: about 1e-3 accurate")


def _peer(sense: Any, note: str) -> Peer:
    def ready(apply: Any) -> Any:
        def make(x: Tensor) -> Timed:
            array = x.cpu().resolve_conj().numpy()
            return Timed(lambda: apply(array), lambda result: torch.from_numpy(np.array(result)))

        return make

    return Peer(ready(sense), ready(sense.H), ready(sense.N), note=f"sigpy Sense, one image at a time; {note}")


def _sigpy() -> Any:
    try:
        return import_module("sigpy.mri.linop")
    except ModuleNotFoundError as error:
        if error.name != "sigpy":
            raise
        raise PluginError("this peer needs the package sigpy", cure="install it with pip install sigpy") from None
