"""From a TrainingPlan to examples: subjects read, the split kept, the simulator built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError, did_you_mean
from ..loading import read_case
from ..modality import Batch, Modality, Simulate, Training
from ..operator import LinearOperator
from ..parameters import signature_parameters, validate
from ..registry import Registry, guarded
from .config import Source, TrainingPlan
from .data import Examples, Subject, cropped
from .denoising import OPERATOR, denoising
from .images import read_slices

# torch's generator on the CPU takes the lower 32 bits of a seed. Times an odd number this is 2**31 again: the batches
# of validation begin half the ring of seeds away from those of training, which come there after 2**31 steps.
_HELD_OUT = 2**31
BatchesByNumber = torch.utils.data.Dataset[Batch]


@dataclass(frozen=True)
class Sides:
    """Both sides of the split.

    Parameters
    ----------
    train
        Batches without end; number i is a function of the seed and i.
    validation
        The batches of every validation; None without validation subjects.
    operator
        The registered name of the operator.
    """

    train: BatchesByNumber
    validation: tuple[Batch, ...] | None
    operator: str


def make_sides(plan: TrainingPlan, registry: Registry) -> Sides:
    """Read the data of a plan.

    Raises
    ------
    InputError
        Files that cannot be used, or settings that the simulator refuses.
    """
    modality = registry.modality(plan.modality)
    registry = _Noting(registry)
    train = _examples(plan, registry, modality, plan.train, plan.seed, augment=True, count=plan.steps)
    if not plan.validation:
        return Sides(train, None, _operator_name(plan, registry))
    held_out = _examples(
        plan, registry, modality, plan.validation, plan.seed + _HELD_OUT, augment=False, count=plan.validation_batches
    )
    return Sides(train, tuple(held_out[i] for i in range(len(held_out))), _operator_name(plan, registry))


def _operator_name(plan: TrainingPlan, registry: _Noting) -> str:
    if plan.denoising is not None:
        return OPERATOR
    named = [plan.operator["name"]] if "name" in plan.operator else sorted(set(registry.noted))
    if len(named) != 1:
        raise InputError("operator.name in the config", expected="the name of one operator",
                         got=" and ".join(named) or "none")  # fmt: skip
    return str(named[0])


class _Noting(Registry):
    """The same registry; it notes which operators are built, since a simulator has a default of its own."""

    def __init__(self, registry: Registry) -> None:
        self.__dict__.update(registry.__dict__)
        self.noted: list[str] = []

    def operator(self, name: str, **parameters: Any) -> LinearOperator:
        """As ever."""
        self.noted.append(name)
        return super().operator(name, **parameters)


def _examples(
    plan: TrainingPlan,
    registry: Registry,
    modality: Modality,
    sources: Sequence[Source],
    seed: int,
    *,
    augment: bool,
    count: int,
) -> Examples | Scans:
    if any(s.scan is not None for s in sources):
        if plan.denoising is not None:
            raise InputError("data of a denoiser", expected="files or phantoms", got="a measured scan")
        other = next((s.subject for s in sources if s.scan is None), None)
        if other is not None:
            raise InputError(f"subject '{other}'", expected="a scan, as its neighbours have", got="images")
        return Scans([_scan(plan, registry, modality, s) for s in sources], [s.weight for s in sources], count, seed)
    if modality.training is None:
        raise InputError(f"training for modality '{modality.name}'", expected="a modality that simulates", got="none")
    training = modality.training
    subjects = [_subject(plan, training, s, s.augment if s.augment is not None else augment) for s in sources]
    return Examples(
        subjects,
        _simulator(plan, registry, modality, training, seed),
        image_shape=plan.image_shape,
        batch_size=plan.batch_size,
        count=count,
        seed=seed,
    )


def _subject(plan: TrainingPlan, training: Training, source: Source, augment: bool) -> Subject:
    if source.phantom is not None:
        draw = training.phantoms.get(source.phantom)
        if draw is None:
            cure = did_you_mean(source.phantom, training.phantoms)
            raise InputError(f"unknown phantom '{source.phantom}' of subject '{source.subject}'", cure=cure)
        return Subject(source.subject, draw, source.weight)
    slope, intercept = source.rescale
    slices = [slope * s + intercept for s in read_slices(Path(plan.data_root) / str(source.files))]
    return Subject(source.subject, cropped(slices, training.from_stored, source.smallest, augment), source.weight)


def _simulator(plan: TrainingPlan, registry: Registry, modality: Modality, training: Training, seed: int) -> Simulate:
    noise = plan.denoising_settings
    if noise is not None:
        return denoising(noise, modality, training)
    owner = f"the simulation of '{plan.modality}'"
    known = [p for p in signature_parameters(training.simulator, 3, owner) if p.name != "seed"]
    arguments = validate(known, plan.simulation, owner)
    with guarded(owner):
        simulate: Simulate = training.simulator(registry, plan.operator, plan.image_shape, seed=seed, **arguments)
    return simulate


def _scan(plan: TrainingPlan, registry: Registry, modality: Modality, source: Source) -> Batch:
    """A measured scan as a normalised batch of one."""
    path = Path(plan.data_root) / str(source.scan)
    case = read_case(path, registry, modality=plan.modality, options=source.input, operator=plan.operator)
    case = case.scaled(modality.scale(case))
    if case.noise_std is None:
        case = replace(case, noise_std=modality.noise_std(case))
    truth = None if case.truth is None else case.truth[None]
    return Batch(case.operator, case.measurement[None], truth, torch.tensor([case.noise_std]))


class Scans(torch.utils.data.Dataset[Batch]):
    """Measured scans by number, one at a time.

    Parameters
    ----------
    scans, weights
        The scans, and how often each is drawn.
    count
        Batches per epoch.
    seed
        With the number of a batch it decides which scan it is.
    """

    def __init__(self, scans: Sequence[Batch], weights: Sequence[float], count: int, seed: int) -> None:
        self.scans = tuple(scans)
        self.count = count
        self.seed = seed
        self._weights = torch.tensor(weights, dtype=torch.float64)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> Batch:
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + number) % 2**63)
        return self.scans[int(torch.multinomial(self._weights, 1, generator=generator))]
