"""Quarter turns: views that differ by 90 degrees share the weights of one view."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .geometry import Geometry


@dataclass(frozen=True)
class Folding:
    """The views of a scan as base angles times turns of the image.

    Turning the scanner by ``a + 90 degrees`` is turning it by a and the image by -90 degrees, and a square pixel grid
    maps onto itself. So the weights of the base angles in [0, 90) and up to four copies of the image give all views:
    the matrix, which bounds the speed of the ray transform, shrinks by the number of turns. An oblong image allows
    half turns only. Where the views are no such product, there is one turn (none) and every view is its own base.

    Parameters
    ----------
    bases_deg
        Base angles in degrees.
    turns
        Numbers of quarter turns.
    order
        For every view, its place in the ``[turns, bases]`` grid; None where it is the same.
    """

    bases_deg: tuple[float, ...]
    turns: tuple[int, ...]
    order: tuple[int, ...] | None

    @staticmethod
    def of(geometry: Geometry) -> Folding:
        """The folding of the views of `geometry`."""
        rows, columns = geometry.image_shape
        unit = 1 if rows == columns else 2
        angles = np.asarray(geometry.angles_deg)
        turn = unit * np.floor(angles / (90.0 * unit) + 1e-9).astype(np.int64)
        bases, base_index = np.unique(np.round(angles - 90.0 * turn, 9), return_inverse=True)
        turns, turn_index = np.unique(turn % 4, return_inverse=True)
        place = turn_index * len(bases) + base_index
        if len(turns) == 1 or len(np.unique(place)) != len(bases) * len(turns) or len(place) != len(bases) * len(turns):
            return Folding(geometry.angles_deg, (0,), None)
        in_order = bool((place == np.arange(len(place))).all())
        return Folding(tuple(bases.tolist()), tuple(turns.tolist()), None if in_order else tuple(int(p) for p in place))

    def turned(self, images: Tensor) -> Tensor:
        """``[batch, rows, columns]`` to ``[batch, turns, rows, columns]``: the copies that the base angles see."""
        return torch.stack([torch.rot90(images, -k, (-2, -1)) for k in self.turns], dim=1)

    def turned_back(self, copies: Tensor) -> Tensor:
        """The transpose of ``turned``."""
        parts = [torch.rot90(copies[:, i], k, (-2, -1)) for i, k in enumerate(self.turns)]
        return parts[0] if len(parts) == 1 else torch.stack(parts).sum(0)

    def to_views(self, grid: Tensor) -> Tensor:
        """``[batch, turns * bases, detectors]`` in the order of the views."""
        if self.order is None:
            return grid
        return grid.index_select(1, torch.tensor(self.order, device=grid.device))

    def from_views(self, sinograms: Tensor) -> Tensor:
        """The inverse of ``to_views``."""
        if self.order is None:
            return sinograms
        inverse = torch.argsort(torch.tensor(self.order, device=sinograms.device))
        return sinograms.index_select(1, inverse)
