"""How the cone-beam transform is computed: by compiled loops on the CPU, by ASTRA on CUDA."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from priorloom.errors import InputError
from priorloom.memory import require_memory

from .geometry3d import COPIES, ConeGeometry, compiled_kernels
from .plan import Plan, require_plan, require_precision
from .threads import spread

ConePlanName = Literal["auto", "matrix-free", "astra"]


def cone_plan(geometry: ConeGeometry, wanted: ConePlanName, device: torch.device) -> Plan:
    """The plan for a cone-beam transform: "auto" is "matrix-free" on the CPU and "astra" on CUDA.

    Raises
    ------
    InputError
        For a plan that the device cannot run.
    """
    require_plan(wanted, get_args(ConePlanName))
    if wanted == "auto":
        wanted = "matrix-free" if device.type == "cpu" else "astra"
    if (wanted == "matrix-free") != (device.type == "cpu"):
        there = "on the CPU" if wanted == "matrix-free" else "on a CUDA device"
        raise InputError(f"plan {wanted}", expected=f"tensors {there}", got=device.type, cure="use plan=auto")
    if wanted == "matrix-free":
        return RayDrivenCone(geometry)
    from .astra_cuda import AstraCone

    return AstraCone(geometry)


class RayDrivenCone(Plan):
    """Joseph's interpolation on torch's number of threads, one volume of a batch after the other.

    Parameters
    ----------
    geometry
        The scan.
    """

    name = "matrix-free"
    adjoint_is_exact = True

    def __init__(self, geometry: ConeGeometry) -> None:
        super().__init__()
        self.geometry = geometry

    @property
    def bytes_held(self) -> int:
        """The rays seen along the axis."""
        return sum(table.nbytes for table in self.geometry.rays)

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, slices, rows, columns]`` to ``[batch, views, detector rows, detector columns]``."""
        y = self._room(x, self.geometry.range_shape)
        views, rows, columns = self.geometry.range_shape
        for volume, out in zip(x.detach(), y, strict=True):
            inside = torch.empty((views, columns, rows), dtype=x.dtype)
            self._run(volume.permute(1, 2, 0).contiguous(), inside, adjoint=False)
            out.copy_(inside.transpose(1, 2))
        return y

    def adjoint(self, y: Tensor) -> Tensor:
        """``[batch, views, detector rows, detector columns]`` to ``[batch, slices, rows, columns]``."""
        x = self._room(y, self.geometry.image_shape)
        slices, rows, columns = self.geometry.image_shape
        for views, out in zip(y.detach(), x, strict=True):
            inside = torch.empty((rows, columns, slices), dtype=y.dtype)
            self._run(inside, views.transpose(1, 2).contiguous(), adjoint=True)
            out.copy_(inside.permute(2, 0, 1))
        return x

    def _room(self, source: Tensor, shape: tuple[int, int, int]) -> Tensor:
        require_precision(source.dtype)
        target = torch.Size((len(source), *shape))
        entries = target.numel() + COPIES * (source[:1].numel() + shape[0] * shape[1] * shape[2])
        require_memory("a batch of cone-beam transforms", source.element_size() * entries, "use a smaller batch")
        return source.new_empty(target)

    def _run(self, volume: Tensor, views: Tensor, adjoint: bool) -> None:
        """One volume ``[rows, columns, slices]`` and its views ``[views, detector columns, detector rows]``."""
        kernels, scan = compiled_kernels("the cone-beam transform"), self.geometry
        thickness, rays = scan.slice_thickness, scan.rays
        arrays, slant = (
            (volume.resolve_neg().numpy(), views.resolve_neg().numpy()),
            scan.slant.astype(volume.numpy().dtype),
        )
        height = (scan.source_z - scan.z[0]) / thickness
        row, step = float(scan.row_positions[0]) / thickness, scan.row_pitch / thickness
        kernel, count = (kernels.project_transposed, volume.shape[0]) if adjoint else (kernels.project, views.shape[0])
        spread(lambda first, last: kernel(*arrays, rays, slant, height, row, step, first, last), count)

    def __str__(self) -> str:
        return "matrix-free: compiled loops over rays"
