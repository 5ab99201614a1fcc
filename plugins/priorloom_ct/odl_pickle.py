"""Pickling of ODL objects: those of odl 1.0 hold modules, array backends and ASTRA's handles, which do not pickle."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

from .backends import backend


class Shared:
    """A foreign object that copies share; pickled, modules and array backends go by name, ray transforms are made anew.

    What holds a local function, such as ODL's fan-beam geometries, cannot be pickled.

    Parameters
    ----------
    value
        The object.
    """

    def __init__(self, value: Any) -> None:
        self.value = value

    def __deepcopy__(self, memo: dict[int, Any]) -> Shared:
        return self

    def __reduce__(self) -> tuple[Callable[[bytes], Shared], tuple[bytes]]:
        content = io.BytesIO()
        _Pickler(content).dump(self.value)
        return _restored, (content.getvalue(),)


class _Pickler(pickle.Pickler):
    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, ModuleType):
            return import_module, (obj.__name__,)
        if isinstance(obj, backend("odl", "the ODL adapter").ArrayBackend):
            return _array_backend, (obj.impl,)
        tomo = backend("odl.applications.tomo", "the ODL adapter")
        if isinstance(obj, tomo.RayTransform):
            return _ray_transform, (obj.domain, obj.geometry, obj.range, obj.impl)
        return NotImplemented


def _array_backend(name: str) -> Any:
    return backend("odl.core.array_API_support.utils", "the ODL adapter").lookup_array_backend(name)


def _ray_transform(domain: Any, geometry: Any, range: Any, impl: str) -> Any:
    tomo = backend("odl.applications.tomo", "the ODL adapter")
    return tomo.RayTransform(domain, geometry, proj_space=range, impl=impl)


def _restored(content: bytes) -> Shared:
    return Shared(pickle.loads(content))
