"""ODL and ASTRA, imported when first used and missed in one line."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from priorloom.errors import PluginError


def backend(module: str, purpose: str) -> Any:
    """The module of that name, which `purpose` needs.

    Raises
    ------
    PluginError
        When the package is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != module.partition(".")[0]:
            raise
        package = {"astra": "astra-toolbox"}.get(module, module.partition(".")[0])
        raise PluginError(
            f"{purpose} needs the package {package}", cure="install it with pip install priorloom[ct]"
        ) from None
