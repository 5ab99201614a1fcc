"""Examples by number, and the squares that are cut from slices."""

from __future__ import annotations

import torch

from priorloom import Registry
from priorloom.train.config import TrainingPlan
from priorloom.train.data import Examples, Subject, cropped
from priorloom.train.sources import make_sides


def examples(seed: int) -> Examples:
    registry = Registry.discover()
    training = registry.modality("ct").training
    assert training is not None
    simulate = training.simulator(registry, {"views": 6}, (16, 16), seed=seed)
    subjects = [Subject(name, training.phantoms[name]) for name in ("ellipses", "foam")]
    return Examples(subjects, simulate, image_shape=(16, 16), batch_size=2, count=5, seed=seed)


def test_a_batch_is_a_function_of_seed_and_number() -> None:
    one, again = examples(0), examples(0)
    later = one[3]
    for number in (4, 0, 3):  # whatever was asked before
        batch = again[number]
    assert torch.equal(later.measurement, batch.measurement)
    assert torch.equal(later.truth, batch.truth)  # type: ignore[arg-type]
    assert not torch.equal(later.measurement, one[4].measurement)
    assert not torch.equal(later.measurement, examples(1)[3].measurement)


def test_no_batch_of_training_is_one_of_validation() -> None:
    plan = TrainingPlan(
        "ct", {"name": "learned-proximal-gradient"}, 4_000_000, (16, 16), operator={"views": 6},
        simulation={"pixel_sizes": [4.0]}, batch_size=1, validation_batches=1,
        data={side: [{"subject": side, "phantom": "ellipses"}] for side in ("train", "validation")},
    )  # fmt: skip
    sides = make_sides(plan, Registry.discover())
    assert sides.validation is not None
    held_out = sides.validation[0].measurement
    for number in (0, 1, 1_000_002, 1_000_003, 1_000_004, 2_000_006):  # steps between the streams of two seeds
        assert not torch.equal(sides.train[number].measurement, held_out)


def test_squares_without_anything_in_them_are_drawn_again() -> None:
    slice_ = torch.zeros(64, 64)
    slice_[2:6, 2:6] = 1.0
    draw = cropped([slice_], lambda values, _: values, 0.3, augment=True)
    generator = torch.Generator().manual_seed(0)
    assert all(float(draw((16, 16), generator).max()) > 0 for _ in range(50))


def test_without_augmentation_the_middle_square_is_taken_whole(generator: torch.Generator) -> None:
    values = torch.rand((20, 12), generator=generator)
    image = cropped([values], lambda v, _: v, 0.3, augment=False)((12, 12), generator)
    torch.testing.assert_close(image, values[4:16])
