"""The training config: one YAML file and ``--set KEY=VALUE`` become a TrainingPlan."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from ..config import flatten
from ..errors import InputError
from ..parameters import signature_parameters, validate
from ..yaml_files import read_mapping
from .denoising import Denoising

T = TypeVar("T")


_LARGEST = 1e30
"""A learning rate or a limit of a gradient beyond this overflows before anything is learned."""


@dataclass(frozen=True)
class Source:
    """One subject: a person (or a phantom), whose images belong to one side of the split.

    Parameters
    ----------
    subject
        Its name; the same name on both sides of the split is refused.
    files
        Images: a file or a folder of DICOM, NIfTI, NRRD or .npy, relative to ``data_root``.
    phantom
        A phantom of the modality in the place of files.
    scan
        A measured scan in the place of images, read by the modality's readers; see ``input``.
    input
        The reader's options for `scan`.
    rescale
        ``(slope, intercept)`` applied to what the files hold, for images of another kind: a magnitude image scaled to
        Hounsfield units is a shape to learn from, if not a CT.
    smallest
        The smallest random square as a fraction of the slice's shorter side.
    augment
        Whether to crop, flip and turn at random; by default when training, not when validating.
    weight
        How often the subject is drawn relative to the others.
    licence, attribution
        What the model card says of the data.
    """

    subject: str
    files: str | None = None
    phantom: str | None = None
    scan: str | None = None
    input: dict[str, Any] = field(default_factory=dict)
    rescale: tuple[float, float] = (1.0, 0.0)
    smallest: float = 0.5
    augment: bool | None = None
    weight: float = 1.0
    licence: str = ""
    attribution: str = ""

    def __post_init__(self) -> None:
        given = [name for name in ("files", "phantom", "scan") if getattr(self, name) is not None]
        if len(given) != 1:
            got = " and ".join(given) or "none of them"
            raise InputError(f"subject '{self.subject}'", expected="one of files, phantom and scan", got=got)
        if not all(math.isfinite(v) for v in self.rescale) or self.rescale[0] == 0:
            raise InputError(f"rescale of subject '{self.subject}'", expected="a finite slope and intercept, the slope"
                             " not zero", got=self.rescale)  # fmt: skip
        if not 0 < self.smallest <= 1:
            raise InputError(f"smallest of subject '{self.subject}'", expected="a number in (0, 1]", got=self.smallest)
        if not 0 < self.weight < math.inf:
            raise InputError(f"weight of subject '{self.subject}'", expected="a positive number", got=self.weight)


@dataclass(frozen=True)
class Optimiser:
    """AdamW (Loshchilov and Hutter, 2019; with no weight decay it is Adam).

    Parameters
    ----------
    learning_rate
        Of the first step.
    weight_decay
        Decoupled decay of the weights per step, times the learning rate.
    schedule
        "cosine" lowers the learning rate to zero over the steps (or the budget, whichever is nearer its end).
    gradient_clip
        The largest norm of a gradient; null for none.
    ema
        Decay of the running mean of the weights that is validated and kept; null keeps the weights themselves. Early on
        the mean is shorter: the decay is at most ``(1 + n) / (10 + n)`` at step n.
    precision
        32, or bf16: networks in bfloat16, physics and loss in single precision.
    """

    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    schedule: Literal["cosine", "constant"] = "cosine"
    gradient_clip: float | None = 1.0
    ema: float | None = 0.999
    precision: Literal[32, "32", "bf16"] = 32

    def __post_init__(self) -> None:
        for name in ("learning_rate", "gradient_clip"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= _LARGEST:
                raise InputError(f"optimiser.{name}", expected=f"a positive number, at most {_LARGEST:g}", got=value)
        if not 0 <= self.weight_decay < math.inf:
            raise InputError("optimiser.weight_decay", expected="a number of at least 0", got=self.weight_decay)
        if self.ema is not None and not 0 <= self.ema < 1:
            raise InputError("optimiser.ema", expected="a number in [0, 1), or null", got=self.ema)


@dataclass(frozen=True)
class TrainingPlan:
    """What to train, on what, and how.

    Parameters
    ----------
    modality
        "ct", "mri" or a plugin's.
    architecture
        ``name`` and settings of an architecture.
    steps
        Optimisation steps in all.
    image_shape
        Rows and columns of the images.
    data
        ``train`` and ``validation``: lists of subjects (`Source`).
    operator, simulation
        ``operator.*`` settings, and those of the modality's simulator.
    denoising
        Trains a denoiser on noisy images, without an operator; see `Denoising`.
    loss
        Weights of ``mse``, ``l1`` and ``ssim``; or one of ``objective``, ``noise2inverse`` and ``ssdu``.
    optimiser
        See `Optimiser`.
    batch_size
        Images per step.
    validate_every, validation_batches
        Steps between validations, and how many batches each one takes (the same ones every time).
    patience
        Stop after so many validations without a better one; null never stops early.
    checkpoint_every, log_every
        Steps between checkpoints, and between lines of the log.
    seed
        Decides the first weights and every batch.
    data_root
        The folder to which files are relative; the config's own when absent.
    name
        The method that the model is for, such as fbp-unet; the architecture's name when absent.
    initial
        The folder of a trained model of the same architecture to start from, relative to the working directory.
    tensorboard
        Whether to write TensorBoard files too (needs the package tensorboard).
    """

    modality: str
    architecture: dict[str, Any]
    steps: int
    image_shape: tuple[int, int]
    data: dict[str, Any]
    operator: dict[str, Any] = field(default_factory=dict)
    simulation: dict[str, Any] = field(default_factory=dict)
    denoising: dict[str, Any] | None = None
    loss: dict[str, Any] = field(default_factory=lambda: {"mse": 1.0})
    optimiser: dict[str, Any] = field(default_factory=dict)
    batch_size: int = 4
    validate_every: int = 500
    validation_batches: int = 8
    patience: int | None = None
    checkpoint_every: int = 200
    log_every: int = 10
    seed: int = 0
    data_root: str = ""
    name: str = ""
    initial: str = ""
    tensorboard: bool = False

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "validate_every", "validation_batches", "checkpoint_every", "log_every"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} in the config", expected="at least 1", got=getattr(self, name))
        if self.patience is not None and self.patience < 1:
            raise InputError("patience in the config", expected="at least 1, or null", got=self.patience)
        if min(self.image_shape) < 8 or math.prod(self.image_shape) * self.batch_size > _VALUE_LIMIT:
            raise InputError(
                "image_shape and batch_size in the config",
                expected=f"at least 8 pixels a side, and {_VALUE_LIMIT} pixels in a batch",
                got=f"{self.image_shape} x {self.batch_size}",
            )
        if not 0 <= self.seed < 2**31:
            raise InputError("seed", expected="0 to 2147483647", got=self.seed)
        if not isinstance(self.architecture.get("name"), str):
            raise InputError("architecture.name in the config", expected="the name of an architecture", got="none")
        if not isinstance(self.operator.get("name", ""), str):
            raise InputError("operator.name", expected="the name of an operator", got=repr(self.operator["name"]))
        if self.denoising is not None and (self.operator or self.simulation):
            raise InputError("config", expected="either denoising, or operator and simulation", got="both")
        if self.denoising is not None and not set(self.loss) <= _WITH_TRUTH:
            raise InputError("loss of a denoiser", expected=f"some of {', '.join(sorted(_WITH_TRUTH))}",
                             got=", ".join(self.loss))  # fmt: skip
        self._check_split()

    def _check_split(self) -> None:
        for subject in (twice := [s.subject for s in self.train]):
            if twice.count(subject) > 1:
                raise InputError(f"subject '{subject}' in data.train", expected="one entry", got="two")
        held_out = {s.subject for s in self.validation}
        both = next((s.subject for s in self.train if s.subject in held_out), None)
        if both is not None:
            raise InputError(
                f"subject '{both}'", expected="one side of the split", got="data.train and data.validation",
                cure="hold whole subjects out",
            )  # fmt: skip

    @property
    def train(self) -> tuple[Source, ...]:
        """The subjects to learn from."""
        return self._subjects("train")

    @property
    def validation(self) -> tuple[Source, ...]:
        """The subjects held out; none means no validation."""
        return self._subjects("validation")

    @property
    def denoising_settings(self) -> Denoising | None:
        """`denoising`, checked."""
        return None if self.denoising is None else section(Denoising, self.denoising, "denoising")

    @property
    def optimiser_settings(self) -> Optimiser:
        """`optimiser`, checked."""
        return section(Optimiser, self.optimiser, "optimiser")

    @property
    def architecture_settings(self) -> dict[str, Any]:
        """The settings of the architecture by their dotted names."""
        return flatten({k: v for k, v in self.architecture.items() if k != "name"})

    def _subjects(self, side: str) -> tuple[Source, ...]:
        validate(signature_parameters(_data, 0, "data"), self.data, "data")
        entries = self.data.get(side) or []
        if side == "train" and not entries:
            raise InputError("data.train in the config", expected="at least one subject", got="none")
        return tuple(section(Source, entry, f"data.{side}.{i}") for i, entry in enumerate(entries))


_VALUE_LIMIT = 2**27
_WITH_TRUTH = {"l1", "mse", "ssim"}


def _data(*, train: list[dict[str, Any]], validation: list[dict[str, Any]] | None = None) -> None: ...


def section(kind: type[T], raw: Mapping[str, Any], owner: str) -> T:
    """A settings class from a mapping; unknown keys and wrong types are InputErrors that name `owner`."""
    keys = {str(k): v for k, v in raw.items()}
    return kind(**validate(signature_parameters(kind, 0, owner), keys, owner))


def load(path: Path, assignments: Iterable[str] = ()) -> TrainingPlan:
    """Read a training config, changed by ``KEY=VALUE`` texts whose keys are dotted and whose values are YAML.

    Raises
    ------
    InputError
        Not readable, not YAML, an unknown key or a value that cannot be used.
    """
    raw = read_mapping(path)
    if not raw:
        raise InputError(f"config {path}", expected="a mapping", got="nothing")
    for text in assignments:
        _assign(raw, text)
    raw.setdefault("data_root", "")
    plan = section(TrainingPlan, raw, f"config {path.name}")
    root = path.parent / plan.data_root
    plan.optimiser_settings, plan.denoising_settings  # noqa: B018  # checked now, not after the data are read
    plan = section(TrainingPlan, {**raw, "data_root": str(root)}, f"config {path.name}")
    _check_files(plan)
    return plan


def _check_files(plan: TrainingPlan) -> None:
    """Refuse what is on both sides of the split under two names: a file, or one in a folder of the other side."""
    held_out = [(s, p) for s in plan.validation if (p := _place(plan, s)) is not None]
    for source in plan.train:
        here = _place(plan, source)
        if here is None:
            continue
        for other, there in held_out:
            if here == there or here in there.parents or there in here.parents:
                raise InputError(
                    f"subjects '{source.subject}' and '{other.subject}'", expected="files of their own on each side",
                    got=f"{min(here, there, key=lambda p: len(p.parts))} in data.train and data.validation",
                    cure="hold whole subjects out",
                )  # fmt: skip


def _place(plan: TrainingPlan, source: Source) -> Path | None:
    """Where a source's file or folder is, links followed."""
    given = source.files if source.files is not None else source.scan
    return None if given is None else (Path(plan.data_root) / given).resolve()


def _assign(raw: dict[str, Any], text: str) -> None:
    """Set one value in place; a number in the key is a place in a list."""
    key, equals, value_text = text.partition("=")
    if not equals or not key.strip():
        raise InputError(f"--set {text}", expected="KEY=VALUE", got=text)
    try:
        value = yaml.safe_load(value_text)
    except yaml.YAMLError as error:
        raise InputError(f"--set {text}", expected="a YAML value", got=str(error)) from error
    *path, last = key.strip().split(".")
    at: Any = raw
    for i, name in enumerate(path):
        if isinstance(at, list):
            at = _item(at, name, text)
        else:
            if at.get(name) is None:
                at[name] = {}
            at = at[name]
        if not isinstance(at, dict | list):
            raise InputError(f"--set {text}", expected=f"settings in {'.'.join(path[: i + 1])}", got=repr(at))
    if isinstance(at, list):
        at[at.index(_item(at, last, text))] = value
    else:
        at[last] = value


def _item(items: list[Any], name: str, text: str) -> Any:
    if not name.isdecimal() or int(name) >= len(items):
        raise InputError(f"--set {text}", expected=f"a number below {len(items)} in the key", got=name)
    return items[int(name)]
