"""Environment: what computed, as far as it decides the last digits of a result."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import pydantic
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from ..bench.machine import processor
from ..card import Text

THREAD_LIMIT = 4096

_PACKAGES = (
    "priorloom", "torch", "numpy", "scipy", "scikit-image", "PyWavelets", "numba", "llvmlite", "finufft",
    "pytorch-finufft", "odl", "astra-toolbox",
)  # fmt: skip
_VARIABLES = (
    "ATEN_CPU_CAPABILITY", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "ONEDNN_MAX_CPU_ISA", "NUMBA_CPU_NAME",
    "OPENBLAS_CORETYPE", "NPY_DISABLE_CPU_FEATURES",
)  # fmt: skip
"""They choose the instructions that a library computes with."""


@dataclass(frozen=True, config=pydantic.ConfigDict(extra="forbid"))
class Environment:
    """What computed.

    Parameters
    ----------
    versions
        Of Python, of the packages that compute, and of the distributions of plugins.
    processor, machine, capability
        The processor's name, its architecture, and the vector instructions that torch uses.
    library
        The C library, whose mathematical functions differ in the last digit.
    variables
        Environment variables that choose instructions.
    threads
        Of torch, and so of the compiled kernels: sums over several threads depend on their number.
    device
        "cpu", or the name of a GPU.
    system, cores
        For the record.
    """

    versions: dict[Text, Text]
    processor: Text
    machine: Text
    capability: Text
    library: Text
    variables: dict[Text, Text]
    threads: Annotated[int, Field(ge=1, le=THREAD_LIMIT)]
    device: Text
    system: Text
    cores: int

    @classmethod
    def here(cls, device: torch.device, distributions: Iterable[str] = ()) -> Environment:
        """That of this process.

        Parameters
        ----------
        device
            What it computes on.
        distributions
            Those of the plugins, beside the packages that are known to compute.
        """
        versions = {"python": platform.python_version()}
        for package in dict.fromkeys((*_PACKAGES, *distributions)):
            with suppress(PackageNotFoundError):
                versions[package] = version(package)
        return cls(
            versions=versions,
            processor=processor(),
            machine=platform.machine(),
            capability=torch.backends.cpu.get_cpu_capability(),
            library=" ".join(platform.libc_ver()),
            variables={name: os.environ[name] for name in _VARIABLES if name in os.environ},
            threads=torch.get_num_threads(),
            device="cpu" if device.type == "cpu" else torch.cuda.get_device_name(device),
            system=platform.platform(terse=True),
            cores=os.cpu_count() or 1,
        )


def changes(before: Environment, after: Environment) -> list[str]:
    """What differs between two environments and may change the last digits, such as "torch 2.13.0 -> 2.14.0"."""
    found = []
    for name in dict.fromkeys((*before.versions, *after.versions)):
        found += _change(name, before.versions.get(name, "none"), after.versions.get(name, "none"))
    for name in dict.fromkeys((*before.variables, *after.variables)):
        found += _change(name, before.variables.get(name, "unset"), after.variables.get(name, "unset"))
    for name in ("processor", "machine", "capability", "library", "threads", "device"):
        found += _change(name, getattr(before, name), getattr(after, name))
    return found


def _change(name: str, before: object, after: object) -> list[str]:
    return [] if before == after else [f"{name} {before} -> {after}"]


__all__ = ["Environment", "changes"]
