"""Model card: what a trained model is, what it was trained for and on, and how good it was; ``card.json``."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Literal

import pydantic
from pydantic import Field, FiniteFloat, NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass

from .errors import InputError
from .files import read_bounded

CARD_FILE, WEIGHTS_FILE = "card.json", "model.safetensors"
CARD_LIMIT = 2**20
"""Bytes of a card."""
SIZE_LIMIT = 64 * 10**6
"""Bytes of a file of weights."""
RANK_LIMIT = 8
"""Axes of a tensor."""
SETTING_LIMIT = 10_000
"""A number among the settings of an architecture is at most this: layers and channels are counted in hundreds."""
NOTICE = "A research model: not for diagnosis."

Text = Annotated[str, Field(max_length=4000, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
"""One line of printable characters: a card is shown on terminals."""
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$", max_length=100)]
ModelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$", max_length=200)]
Version = Annotated[str, Field(pattern=r"^\d+(\.\d+)*$", max_length=40)]
Count = Annotated[int, Field(ge=-SETTING_LIMIT, le=SETTING_LIMIT)]
Number = Annotated[float, Field(ge=-SETTING_LIMIT, le=SETTING_LIMIT, allow_inf_nan=False)]
Scalar = bool | Count | Number | Text | None
Numbers = Literal["real", "complex"]
StoredType = Literal["float32", "int64"]
Size = Annotated[int, Field(ge=0, le=SIZE_LIMIT)]


def _ordered(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError(f"the lowest number {pair[0]:g} is above the highest {pair[1]:g}")
    return pair


Interval = Annotated[tuple[FiniteFloat, FiniteFloat], pydantic.AfterValidator(_ordered)]
Range = Interval | Annotated[tuple[Text, ...], Field(min_length=1, max_length=1000)]
"""From the lowest to the highest number, or the texts that occurred."""

_CONFIG = pydantic.ConfigDict(extra="forbid")


@dataclass(frozen=True, config=_CONFIG)
class Architecture:
    """A registered architecture and its settings by their dotted names."""

    name: Name
    settings: dict[Text, Scalar | tuple[Scalar, ...]]


@dataclass(frozen=True, config=_CONFIG)
class TensorFacts:
    """Shape and dtype of one tensor."""

    shape: Annotated[tuple[Size, ...], Field(max_length=RANK_LIMIT)]
    dtype: StoredType


@dataclass(frozen=True, config=_CONFIG)
class Scope:
    """What the model was trained for.

    Parameters
    ----------
    operator
        Name of the operator, such as "ct.parallel2d".
    images, measurements
        The number types of its domain and range.
    ranges
        The facts that ``Modality.describe`` tells of an operator, each with its range in training.
    noise_std
        The lowest and the highest noise, in units of the normalised measurement.
    """

    operator: ModelName
    images: Numbers
    measurements: Numbers
    ranges: dict[Text, Range]
    noise_std: Interval


@dataclass(frozen=True, config=_CONFIG)
class SubjectFacts:
    """A subject (a person, a phantom generator) that was learned from or validated on."""

    name: Text
    source: Text
    licence: Text
    attribution: Text = ""


@dataclass(frozen=True, config=_CONFIG)
class Learning:
    """How it was trained.

    Parameters
    ----------
    training, validation
        Whole subjects, none on both sides.
    loss, seed, steps, seconds
        What was minimised, from which seed, for how long.
    initial
        The model that training started from; empty where it started afresh.
    """

    training: Annotated[tuple[SubjectFacts, ...], Field(min_length=1)]
    validation: tuple[SubjectFacts, ...]
    loss: Text
    seed: int
    steps: NonNegativeInt
    seconds: FiniteFloat
    initial: Text = ""

    def __post_init__(self) -> None:
        both = {s.name for s in self.training} & {s.name for s in self.validation}
        if both:
            raise ValueError(f"subjects on both sides of the split: {', '.join(sorted(both))}")


@dataclass(frozen=True, config=_CONFIG)
class Metric:
    """A figure: its name, its value, on how many cases, and which."""

    name: Text
    value: FiniteFloat
    cases: PositiveInt
    on: Text


@dataclass(frozen=True, config=_CONFIG)
class Stability:
    """A Lipschitz bound of the layers, or None and the reason why there is none.

    It is of the map from the starting image to the last one, ``x_0 -> x_K``, with the measurement held fixed, on one
    operator; how the image follows the measurement it does not say.
    """

    lipschitz: FiniteFloat | None
    reason: Text

    def __str__(self) -> str:
        """In a few words."""
        if self.lipschitz is None:
            return f"no Lipschitz bound: {self.reason}" if self.reason else "no Lipschitz bound"
        return f"Lipschitz bound {self.lipschitz:.3g}" + (f" ({self.reason})" if self.reason else "")


@dataclass(frozen=True, config=_CONFIG)
class DenoiserFacts:
    """What ``priorloom certify`` found of a denoiser at one noise level.

    Parameters
    ----------
    sigma
        The noise level, in units of the normalised image.
    verdict, kind
        "certified" or "none", and the class of the denoiser in words.
    upper, upper_residual
        Proven bounds of the Lipschitz constants of D and ``I - D``; None where there is none.
    lower, lower_residual
        The largest measured ones.
    algorithms
        For every algorithm the theorem that covers it, with condition and reference, or why none does.
    """

    sigma: FiniteFloat
    verdict: Literal["certified", "none"]
    kind: Text
    upper: FiniteFloat | None
    upper_residual: FiniteFloat | None
    lower: FiniteFloat
    lower_residual: FiniteFloat
    algorithms: dict[Text, Text]


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class Facts:
    """What whoever trained a model says about it.

    Parameters
    ----------
    name, version, modality
        "ct.learned-primal-dual", "1", "ct"; the name begins with the modality.
    architecture, scope, learning, metrics, certificate
        See the parts.
    safeguarded
        Whether it runs with the safeguard (`steps.safeguard`): for models that were trained on the objective.
    denoiser
        Of a denoiser, what is proven and measured of it; empty before ``priorloom certify --card``.
    """

    name: ModelName
    version: Version
    modality: Name
    architecture: Architecture
    scope: Scope
    learning: Learning
    metrics: tuple[Metric, ...]
    certificate: Stability
    safeguarded: bool = False
    denoiser: tuple[DenoiserFacts, ...] = ()

    def __post_init__(self) -> None:
        if self.name.partition(".")[0] != self.modality:
            raise ValueError(f"the name '{self.name}' of the model does not begin with its modality '{self.modality}'")
        if self.scope.operator.partition(".")[0] not in (self.modality, "image"):  # image.identity: a denoiser
            raise ValueError(f"the operator '{self.scope.operator}' is not one of '{self.modality}'")


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class Card(Facts):
    """The facts and what the file says by itself.

    Parameters
    ----------
    schema
        1.
    tensors
        Every tensor of the file by its name in the model.
    parameters
        How many numbers were learned.
    sha256, bytes
        Of the file.
    versions
        Of what computed.
    notice
        For whoever uses it.
    """

    schema: Literal[1] = 1
    tensors: Annotated[dict[Text, TensorFacts], Field(min_length=1, max_length=20_000)]
    parameters: NonNegativeInt
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    bytes: PositiveInt
    versions: dict[Text, Text]
    notice: Text = NOTICE

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.notice != NOTICE:
            raise ValueError(f"the notice is not '{NOTICE}'")

    @property
    def data(self) -> str:
        """The training subjects in one line, with their licences."""
        return ", ".join(f"{subject.name} ({subject.licence})" for subject in self.learning.training)

    @property
    def summary(self) -> str:
        """What it is, in a paragraph."""
        figures = "".join(f"; {m.name} {m.value:.4g} ({m.cases} cases: {m.on})" for m in self.metrics)
        return (
            f"{self.architecture.name} for {self.scope.operator}, version {self.version}, "
            f"{self.parameters} learned numbers; trained on {self.data}{figures}; {self.certificate}. {self.notice}"
        )


def to_json(card: Card) -> bytes:
    """The content of ``card.json``."""
    return (json.dumps(dataclasses.asdict(card), indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode()


def read_card(folder: Path) -> Card:
    """The card of a model folder, checked.

    Raises
    ------
    InputError
        Not there, a link, too large, or not a card.
    """
    path = folder / CARD_FILE
    content = read_bounded(path, CARD_LIMIT, "a file of a trained model")
    try:
        return pydantic.TypeAdapter(Card).validate_json(content, strict=True)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])[:200]
        raise InputError(
            f"{f'{where} in ' if where else ''}{path}", expected="a model card", got=f"what is no such: {first['msg']}"
        ) from error
    except RecursionError as error:
        raise InputError(str(path), expected="a model card", got="too many levels") from error


def ranges(descriptions: Iterable[Mapping[str, float | str]]) -> dict[str, Range]:
    """The range of each fact over the operators of a training (``Modality.describe``); for a card's scope."""
    numbers: dict[str, list[float]] = {}
    texts: dict[str, set[str]] = {}
    for description in descriptions:
        for name, value in description.items():
            if isinstance(value, str):
                texts.setdefault(name, set()).add(value)
            else:
                numbers.setdefault(name, []).append(value)
    found: dict[str, Range] = {name: (min(values), max(values)) for name, values in numbers.items()}
    return found | {name: tuple(sorted(values)) for name, values in texts.items()}


LENIENCE, NOISE_LENIENCE = 0.01, 0.25
"""What is outside a range by less than this fraction is inside; noise levels are estimates."""


def outside(scope: Scope, description: Mapping[str, float | str], noise_std: float) -> list[str]:
    """What of an operator and a noise level is outside the model's training, one sentence each."""
    found, untold = [], []
    for name, trained in scope.ranges.items():
        if name not in description:
            untold.append(name)
            continue
        value = description[name]
        if not _inside(value, trained, LENIENCE):
            shown = value if isinstance(value, str) else f"{value:g}"
            found.append(f"{name} {shown}: the model was trained with {_spoken(trained)}; expect less")
    if not _inside(noise_std, scope.noise_std, NOISE_LENIENCE):
        found.append(
            f"noise {noise_std:.2g} (normalised): the model was trained with {_spoken(scope.noise_std)}; expect less"
        )
    if untold:
        found.append(f"the operator does not tell its {', '.join(untold)}: the model may not be made for it")
    return found


def _inside(value: float | str, trained: Range, lenience: float) -> bool:
    if isinstance(value, str) or isinstance(trained[0], str):
        return value in trained
    low, high = float(trained[0]), float(trained[1])
    return low - lenience * abs(low) <= value <= high + lenience * abs(high)


def _spoken(trained: Range) -> str:
    if all(isinstance(v, str) for v in trained):
        return " or ".join(str(v) for v in trained)
    low, high = (f"{float(v):.3g}" if not float(v).is_integer() else f"{float(v):g}" for v in trained)
    return low if low == high else f"{low} to {high}"
