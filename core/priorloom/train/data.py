"""Examples without end: batch i is a function of the seed and of i alone, so that a resumed run sees the same ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ..errors import InputError
from ..modality import Batch, Simulate

_TRIES = 100
Draw = Callable[[tuple[int, int], torch.Generator], Tensor]
"""One random true image of a shape, in the modality's units."""


@dataclass(frozen=True)
class Subject:
    """What belongs to one person (or phantom) and therefore to one side of a split.

    Parameters
    ----------
    name
        Unique among all subjects.
    draw
        One image of it, different for every generator state.
    weight
        How often it is drawn relative to the others.
    """

    name: str
    draw: Draw
    weight: float = 1.0


def cropped(
    slices: Sequence[Tensor], from_stored: Callable[[Tensor, torch.Generator], Tensor], smallest: float, augment: bool
) -> Draw:
    """Images of a subject's stored slices: one slice, a random square of it, at the wanted size.

    Parameters
    ----------
    slices
        Real ``[rows, columns]``, of any sizes.
    from_stored
        The modality's ``Training.from_stored``.
    smallest
        The smallest side of the square as a fraction of the slice's shorter side; 1 takes it whole.
    augment
        Whether to flip, turn by quarters and scale intensities by 0.8 to 1.25.
    """

    def draw(shape: tuple[int, int], generator: torch.Generator) -> Tensor:
        def uniform(low: float, high: float) -> float:
            return low + (high - low) * float(torch.rand((), generator=generator))

        for _ in range(_TRIES):
            values = slices[int(torch.randint(len(slices), (), generator=generator))]
            side = round(min(values.shape) * (uniform(smallest, 1.0) if augment else 1.0))
            top, left = (int(uniform(0, n - side + 0.999)) if augment else (n - side) // 2 for n in values.shape)
            part = values[top : top + side, left : left + side]
            if part.min() < part.max():  # a corner with nothing in it teaches nothing, and has no scale
                break
        part = interpolate(part[None, None].float(), size=shape, mode="area" if side >= max(shape) else "bilinear")[
            0, 0
        ]
        if augment:
            if shape[0] == shape[1]:
                part = torch.rot90(part, int(uniform(0, 4)))
            part = part.flip(-1) if uniform(0, 1) < 0.5 else part
        image = from_stored(part.contiguous(), generator)
        return image * 0.8 * (1.25 / 0.8) ** uniform(0, 1) if augment else image

    return draw


class Examples(torch.utils.data.Dataset[Batch]):
    """Simulated batches by number.

    Parameters
    ----------
    subjects
        Where the images come from.
    simulate
        From images to a batch.
    image_shape, batch_size, count
        Of the images, images per batch, and batches per epoch.
    seed
        With the number of a batch it decides everything about it.
    """

    def __init__(
        self,
        subjects: Sequence[Subject],
        simulate: Simulate,
        *,
        image_shape: tuple[int, int],
        batch_size: int,
        count: int,
        seed: int,
    ) -> None:
        if not subjects:
            raise InputError("subjects to learn from", expected="at least one", got="none")
        self.subjects = tuple(subjects)
        self.simulate = simulate
        self.image_shape = image_shape
        self.batch_size = batch_size
        self.count = count
        self.seed = seed
        self._weights = torch.tensor([s.weight for s in subjects], dtype=torch.float64)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> Batch:
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + number) % 2**63)
        chosen = torch.multinomial(self._weights, self.batch_size, replacement=True, generator=generator)
        images = torch.stack([self.subjects[i].draw(self.image_shape, generator) for i in chosen.tolist()])
        with torch.no_grad():
            return self.simulate(images, generator)
