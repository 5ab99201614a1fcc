"""How a map between images and sinograms is computed: without a matrix, or by a sparse one, folded or not."""

from __future__ import annotations

import math
import time
from importlib.util import find_spec
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from priorloom.cache import Arrays, cached
from priorloom.errors import InputError, PriorloomError
from priorloom.memory import memory_budget, readable_bytes

from .geometry import Geometry
from .sparse import INDEX_BYTES
from .symmetry import Folding

PlanName = Literal["auto", "measured", "matrix-free", "folded", "matrix", "astra"]


class Plan(nn.Module):
    """Computes a linear map from images to sinograms and its transpose; holds no state but constants."""

    name: str

    adjoint_is_exact: bool = True
    """Whether ``adjoint`` is the transpose to rounding."""

    images_at_once: int = 1
    """How many images share one pass over the tables or the matrix."""

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, rows, columns]`` to ``[batch, views, detectors]``."""
        raise NotImplementedError

    def adjoint(self, y: Tensor) -> Tensor:
        """``[batch, views, detectors]`` to ``[batch, rows, columns]``."""
        raise NotImplementedError

    @property
    def bytes_held(self) -> int:
        """What it keeps between calls."""
        raise NotImplementedError

    @property
    def bytes_read(self) -> int:
        """What one pass reads of it."""
        return self.bytes_held


def ray_plan(geometry: Geometry, wanted: PlanName, dtype: torch.dtype, device: torch.device) -> Plan:
    """The plan for a ray transform.

    On a CPU "auto" takes the compiled kernels of "matrix-free": up to twice as fast as the products of matrices where
    views are symmetric or images come in batches, without their memory and set-up; for one image in views without
    symmetry a matrix is faster (docs/ct.md has the times). Elsewhere, and where numba is missing, it takes the matrix
    that is "folded" by the symmetries of the scan. "measured" tries all that the device can run on one image, ASTRA on
    CUDA too, whose adjoint is not exact, and takes the fastest.

    Raises
    ------
    InputError
        For a plan that the device cannot run, or a matrix that exceeds the memory budget, with its estimated size.
    """
    require_plan(wanted, get_args(PlanName))
    require_precision(dtype)
    on_cpu = device.type == "cpu"
    if wanted == "measured":
        return _fastest(geometry, dtype, device)
    if wanted == "auto":
        wanted = "matrix-free" if on_cpu and has_kernels() else "folded"
    if wanted == "matrix-free":
        _require_device(wanted, on_cpu, "tensors on the CPU", device)
        from .matrix_free import RayDriven

        return RayDriven(geometry, dtype)
    if wanted == "astra":
        _require_device(wanted, device.type == "cuda", "tensors on a CUDA device", device)
        from .astra_cuda import astra_plan

        return astra_plan(geometry)
    from .matrices import MatrixPlan

    folding = Folding.of(geometry) if wanted == "folded" else Folding.trivial(geometry)
    weights = _ray_weights(geometry, folding, dtype, on_cpu)
    return MatrixPlan(geometry, folding, weights, dtype, device)


def _fastest(geometry: Geometry, dtype: torch.dtype, device: torch.device) -> Plan:
    candidates: tuple[PlanName, ...] = ("folded", "matrix", "matrix-free" if device.type == "cpu" else "astra")
    best: tuple[float, Plan] | None = None
    refused: PriorloomError | None = None
    for name in candidates:
        try:
            plan = ray_plan(geometry, name, dtype, device)
            seconds = _seconds(plan, torch.ones(1, *geometry.image_shape, dtype=dtype, device=device))
        except PriorloomError as error:
            refused = error
            continue
        if best is None or seconds < best[0]:
            best = seconds, plan
    if best is None:
        assert refused is not None
        raise refused
    return best[1]


def _seconds(plan: Plan, x: Tensor) -> float:
    """The best of three times for forward and adjoint, after one to warm up."""
    best = math.inf
    for turn in range(4):
        if x.is_cuda:
            torch.cuda.synchronize(x.device)
        began = time.perf_counter()
        plan.adjoint(plan(x))
        if x.is_cuda:
            torch.cuda.synchronize(x.device)
        if turn:
            best = min(best, time.perf_counter() - began)
    return best


def _require_device(plan: PlanName, fits: bool, expected: str, device: torch.device) -> None:
    if not fits:
        raise InputError(f"plan {plan}", expected=expected, got=device.type, cure="use plan=auto")


def pixel_plan(geometry: Geometry, dtype: torch.dtype, device: torch.device) -> Plan:
    """The plan for the backprojection of filtered views, as its transpose."""
    require_precision(dtype)
    if device.type == "cpu" and has_kernels():
        from .matrix_free import PixelDriven

        return PixelDriven(geometry, dtype)
    from .interpolation import interpolation
    from .matrices import MatrixPlan

    folding = Folding.of(geometry)
    rows, columns = geometry.image_shape
    weights = 2.0 * len(folding.bases_deg) * rows * columns
    _require(weights, "interpolation weights of filtered backprojection", dtype, device.type == "cpu")
    return MatrixPlan(geometry, folding, interpolation(geometry, folding.bases_deg), dtype, device)


def require_plan(wanted: str, known: tuple[str, ...]) -> None:
    """Refuses a plan that does not exist."""
    if wanted not in known:
        raise InputError("plan", expected=f"one of {', '.join(known)}", got=wanted)


def require_precision(dtype: torch.dtype) -> None:
    """Refuses what neither the compiled kernels nor sparse matrices compute in."""
    if dtype not in (torch.float32, torch.float64):
        raise InputError(
            "precision of a ray transform", expected="float32 or float64", got=dtype, cure="convert it with .float()"
        )


def has_kernels() -> bool:
    """Whether the compiled kernels can be used."""
    return find_spec("numba") is not None


def _ray_weights(geometry: Geometry, folding: Folding, dtype: torch.dtype, on_cpu: bool) -> object:
    import scipy.sparse

    from .backends import backend
    from .weights import expected_weights, ray_weights

    expected = expected_weights(geometry, len(folding.bases_deg))
    _require(expected, "weights of the ray transform", dtype, on_cpu)
    shape = len(folding.bases_deg) * geometry.detectors, geometry.image_shape[0] * geometry.image_shape[1]

    def make() -> Arrays:
        matrix = ray_weights(geometry, folding.bases_deg)
        return {"starts": matrix.indptr, "columns": matrix.indices, "values": matrix.data}

    def fits(arrays: Arrays) -> bool:
        if set(arrays) != {"starts", "columns", "values"} or arrays["starts"].shape != (shape[0] + 1,):
            return False
        starts, columns, values = arrays["starts"], arrays["columns"], arrays["values"]
        if starts.dtype.kind + columns.dtype.kind != "ii" or values.dtype != "float32":
            return False
        count = int(starts[-1])
        return (
            starts[0] == 0 and bool((starts[1:] >= starts[:-1]).all())
            and columns.shape == values.shape == (count,)
            and (count == 0 or (int(columns.min()) >= 0 and int(columns.max()) < shape[1]))
        )  # fmt: skip

    key = {"what": "ray weights", "format": 1, "scan": geometry.key(), "bases_deg": folding.bases_deg,
           "astra": backend("astra", "the ray transform").__version__}  # fmt: skip
    about = f"ray weights of a {geometry.describe()}, {len(folding.bases_deg)} base views"
    arrays = cached(key, about, make, fits)
    return scipy.sparse.csr_matrix((arrays["values"], arrays["columns"], arrays["starts"]), shape=shape)


def _require(weights: float, what: str, dtype: torch.dtype, on_cpu: bool) -> None:
    bytes_needed = 2 * (INDEX_BYTES + dtype.itemsize) * weights  # the transpose too
    cure = "use plan=matrix-free on the CPU, fewer views or larger pixels"
    budget = memory_budget() if on_cpu else torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else 2**62
    if bytes_needed > budget:
        raise InputError(
            what, expected=f"at most {readable_bytes(budget)}", got=f"about {readable_bytes(bytes_needed)}",
            cure=cure,
        )  # fmt: skip
    if weights >= 2**31:
        raise InputError(what, expected="at most 2^31, the range of their indices", got=f"{weights:.3g}", cure=cure)
