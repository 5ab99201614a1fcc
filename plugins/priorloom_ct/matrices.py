"""The ray transform and backprojection as one sparse matrix and its transpose, on any device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .geometry import Geometry
from .plan import Plan
from .sparse import INDEX_BYTES, SparseMatrix
from .symmetry import Folding, Symmetry

COLUMNS = 32
"""Copies of images that are multiplied at once: more no longer fit the cache."""


class MatrixPlan(Plan):
    """A map from images to sinograms by a matrix for the base views.

    Parameters
    ----------
    geometry
        The scan.
    folding
        Which views share the rows of the matrix.
    matrix
        ``[orbits * detectors, rows * columns]``, ``scipy.sparse.csr_matrix``.
    dtype, device
        Of the weights.
    """

    def __init__(
        self, geometry: Geometry, folding: Folding, matrix: Any, dtype: torch.dtype, device: torch.device
    ) -> None:
        super().__init__()
        self.name = "folded matrix" if len(folding.symmetries) > 1 else "matrix"
        self.geometry, self.folding = geometry, folding
        self.images_at_once = max(1, COLUMNS // len(folding.symmetries))
        self.matrix = SparseMatrix(matrix, dtype, device)
        copies, orbits = len(folding.symmetries), len(folding.bases_deg)
        views = torch.from_numpy(folding.views.T.copy()).flatten()  # [copies * orbits]
        present = (views >= 0).nonzero().flatten()
        order = torch.empty(geometry.views, dtype=torch.int64).scatter_(0, views[present], present)
        self.register_buffer("order", order.to(device), persistent=False)
        self.order: Tensor
        self._grid = (copies, orbits, geometry.detectors)

    @property
    def bytes_held(self) -> int:
        """Of the matrix and, once it was used, its transpose."""
        return sum(buffer.numel() * buffer.element_size() for buffer in self.matrix.buffers() if buffer is not None)

    @property
    def bytes_read(self) -> int:
        """Of the matrix, or of its transpose."""
        return self.matrix.weights * (INDEX_BYTES + self.matrix.values.element_size())

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, rows, columns]`` to ``[batch, views, detectors]``."""
        return torch.cat([self._forward(part) for part in torch.split(x, self.images_at_once)])

    def adjoint(self, y: Tensor) -> Tensor:
        """``[batch, views, detectors]`` to ``[batch, rows, columns]``."""
        return torch.cat([self._adjoint(part) for part in torch.split(y, self.images_at_once)])

    def _forward(self, x: Tensor) -> Tensor:
        copies = torch.stack([_copy(s, x) for s in self.folding.symmetries], dim=1)
        rays: Tensor = self.matrix(copies.reshape(-1, x.shape[1:].numel())).reshape(-1, *self._grid)
        self._turn_round(rays)
        return rays.flatten(1, 2).index_select(1, self.order)

    def _adjoint(self, y: Tensor) -> Tensor:
        copies, orbits, detectors = self._grid
        rays = y.new_zeros(y.shape[0], copies * orbits, detectors)
        rays = rays.index_copy_(1, self.order, y).reshape(-1, *self._grid)
        self._turn_round(rays)
        images = self.matrix.transposed(rays.reshape(-1, orbits * detectors))
        images = images.reshape(-1, copies, *self.geometry.image_shape)
        return torch.stack([_original(s, images[:, k]) for k, s in enumerate(self.folding.symmetries)]).sum(0)

    def _turn_round(self, rays: Tensor) -> None:
        for k, symmetry in enumerate(self.folding.symmetries):
            if symmetry.reverses:
                rays[:, k] = rays[:, k].flip(-1)

    def __str__(self) -> str:
        orbits, copies = self.folding.views.shape
        return f"{self.name}: {orbits} base views, {copies} copies of the image, {self.matrix.weights} weights"


def _copy(symmetry: Symmetry, images: Tensor) -> Tensor:
    """``Symmetry.copy`` of ``[batch, rows, columns]``."""
    turned = torch.rot90(images, -symmetry.image_turns, (-2, -1))
    return turned.flip(-1) if symmetry.mirrored else turned


def _original(symmetry: Symmetry, copies: Tensor) -> Tensor:
    """``Symmetry.original`` of ``[batch, rows, columns]``."""
    turned = copies.flip(-1) if symmetry.mirrored else copies
    return torch.rot90(turned, symmetry.image_turns, (-2, -1))
