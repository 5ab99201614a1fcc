"""The symmetries of the pixel grid: views that are turns and reflections of each other share their rays."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .geometry import Geometry

Places = npt.NDArray[np.int64]

OVERHEAD = 8
"""Finding a pixel of a ray costs about as much as adding it up in this many copies of the image."""


@dataclass(frozen=True, order=True)
class Symmetry:
    """A symmetry of the square: what view b sees of an image, view a sees of a copy.

    With ``b = a + 90 turns`` the copy is the image turned back by `turns` quarter turns. A mirrored one maps
    ``b = 90 turns - a`` instead, and its copy is reflected on top of that.

    Parameters
    ----------
    turns
        Quarter turns, 0 to 3.
    mirrored
        Whether it reverses the angle.
    reverses
        Whether the detector of view b runs backwards in view a. It does when a fan is mirrored; parallel rays may be
        looked at from behind, which turns the detector round once more.
    """

    turns: int
    mirrored: bool = False
    reverses: bool = False

    def angle(self, base_deg: float) -> float:
        """b of a, in degrees."""
        return 90.0 * self.turns + (-base_deg if self.mirrored else base_deg)

    def copy(self, image: Places) -> Places:
        """The copy of ``[rows, columns]`` that view a sees, without moving data."""
        turned = np.rot90(image, -self.image_turns)
        return turned[:, ::-1] if self.mirrored else turned

    def original(self, copy: Places) -> Places:
        """The inverse of ``copy``."""
        return np.rot90(copy[:, ::-1] if self.mirrored else copy, self.image_turns)

    @property
    def image_turns(self) -> int:
        """Quarter turns of the image."""
        # Reflecting the columns maps view a to -a with its detector backwards, which is 180 - a seen from behind.
        return self.turns - 2 if self.mirrored and not self.reverses else self.turns


@dataclass(frozen=True)
class Folding:
    """The views of a scan as orbits of a group of symmetries.

    The rays of one view of each orbit, its base, and a copy of the image for every symmetry give all views: finding
    the rays in the grid, which bounds the speed of a ray transform, is done once for an orbit. Angles that are no
    orbits have the group of one symmetry.

    Parameters
    ----------
    symmetries
        The copies of the image.
    bases_deg
        The base angle of every orbit, in degrees.
    views
        Which view an orbit and a symmetry make, ``[orbits, symmetries]``; -1 for none.
    """

    symmetries: tuple[Symmetry, ...]
    bases_deg: tuple[float, ...]
    views: npt.NDArray[np.int64]

    @staticmethod
    def of(geometry: Geometry) -> Folding:
        """The folding of the views of `geometry` that costs least."""
        return min((_fold(geometry, group) for group in _groups(geometry)), key=lambda folding: folding.cost)

    @staticmethod
    def trivial(geometry: Geometry) -> Folding:
        """Every view is its own base."""
        return _fold(geometry, (Symmetry(0),))

    @property
    def cost(self) -> int:
        """Work per ray of a view, in additions."""
        return len(self.bases_deg) * (OVERHEAD + len(self.symmetries))


def _groups(geometry: Geometry) -> list[tuple[Symmetry, ...]]:
    """The subgroups of the symmetries of the pixel grid and the beam.

    A fan may be mirrored only if its detector is symmetric about the axis; an oblong grid allows half turns only.
    """
    rows, columns = geometry.image_shape
    turns = range(0, 4, 1 if rows == columns else 2)
    fan = not geometry.is_parallel
    elements = [Symmetry(k) for k in turns]
    if geometry.is_parallel or geometry.offset == 0:
        elements += [Symmetry(k, True, fan) for k in turns]
    generated = {_closure((a, b), fan) for a in elements for b in elements}
    return sorted(generated, key=len)


def _closure(generators: tuple[Symmetry, ...], fan: bool) -> tuple[Symmetry, ...]:
    group = {Symmetry(0), *generators}
    while True:
        products = {_product(a, b, fan) for a in group for b in group}
        if products <= group:
            return tuple(sorted(group, key=lambda s: (s.mirrored, s.turns)))
        group |= products


def _product(a: Symmetry, b: Symmetry, fan: bool) -> Symmetry:
    """First b, then a."""
    turns = (a.turns + (-b.turns if a.mirrored else b.turns)) % 4
    mirrored = a.mirrored != b.mirrored
    return Symmetry(turns, mirrored, mirrored and fan)


def _fold(geometry: Geometry, group: tuple[Symmetry, ...]) -> Folding:
    waiting: dict[float, list[int]] = defaultdict(list)
    for view, angle in enumerate(geometry.angles_deg):
        waiting[_turn(angle)].append(view)
    bases, table = [], []
    for angle in sorted(waiting):
        while waiting[angle]:
            row = []
            for symmetry in group:
                same = waiting.get(_turn(symmetry.angle(angle)), [])
                row.append(same.pop(0) if same else -1)
            bases.append(angle)
            table.append(row)
    views = np.array(table, dtype=np.int64)
    used = np.flatnonzero((views >= 0).any(0))
    symmetries = tuple(group[k] for k in used)
    return Folding(symmetries, tuple(bases), np.ascontiguousarray(views[:, used]))


def _turn(angle_deg: float) -> float:
    """The angle in [0, 360), to a billionth of a degree."""
    return round(angle_deg % 360.0, 9) % 360.0
