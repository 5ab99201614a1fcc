"""Whether what methods learned or were tuned on is apart from what they are judged on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..card import Card, SubjectFacts, read_card
from ..chosen import TuningCase
from ..errors import InputError
from ..modality import Case
from ..multiples import check_settings
from ..pipeline import Slot
from ..reconstruction import Method
from ..registry import Registry
from ..stored import patient_subject
from ..trained import ModelSlot

SAME = 0.01
"""Two truths are of one image where their relative difference is below this, whatever the noise and the phase."""


def check_disjoint(tuning: Sequence[Case], test: Sequence[Case], registry: Registry) -> None:
    """Raise InputError, which names both, where a tuning case and a test case have one measurement, one subject, or
    truths that are shown the same (`SAME`)."""
    known = [(case, TuningCase.of(case), _shown(case, registry)) for case in tuning]
    for case in test:
        mine, shown = TuningCase.of(case), _shown(case, registry)
        for other, theirs, image in known:
            if other.modality != case.modality:
                continue
            same = ""
            if mine.measurement == theirs.measurement:
                same = "the same measurement"
            elif case.subject is not None and case.subject == other.subject:
                same = f"both show subject {case.subject}"
            elif _alike(shown, image):
                same = "both show the same image"
            if same:
                both = f"tuning case '{other.name}' and test case '{case.name}'"
                raise InputError(both, expected="different subjects", got=same, cure="tune on others")


def check_learned(methods: Mapping[str, Sequence[Method]], cases: Sequence[Case], registry: Registry) -> None:
    """Raise InputError where the card of a model that a method runs names the subject of a case as one that it was
    trained or selected on.

    Subjects of cards are names; a case is theirs if its ``subject`` is that name, or the ID of the patient is.
    """
    for case in cases:
        for method in methods[case.modality]:
            for card in _cards(method, case.modality, registry):
                for facts in (*card.learning.training, *card.learning.validation):
                    if case.subject is not None and case.subject in _subjects(facts):
                        raise InputError(
                            f"case '{case.name}'", expected=f"a subject that '{method.name}' has not learned from",
                            got=f"'{facts.name}' on the card of {card.name}", cure="compare without it, or on others",
                        )  # fmt: skip


def _subjects(facts: SubjectFacts) -> set[str]:
    names = {facts.name, facts.source}
    return {name.lower() for name in names} | {patient_subject(name) for name in names}


def _cards(method: Method, modality: str, registry: Registry) -> Iterator[Card]:
    """The cards of the models and of the trained denoisers that a method runs."""
    for argument in check_settings(registry, registry.pipeline(method.pipeline), method.settings).values():
        if isinstance(argument, ModelSlot):
            yield argument.card(modality)[1]
        elif isinstance(argument, Slot) and argument.kind == "denoiser":
            path = argument.parameters.get("path")
            name = f"{modality}.{argument.name}"
            if path is not None and (Path(path) / "card.json").is_file():
                yield read_card(Path(path))
            elif path is None and name in registry.names("model"):
                yield read_card(registry.model(name))


def _shown(case: Case, registry: Registry) -> Tensor | None:
    if case.truth is None:
        return None
    with torch.no_grad():
        return registry.modality(case.modality).display(case.operator.combined(case.truth)).cpu()


def _alike(one: Tensor | None, two: Tensor | None) -> bool:
    if one is None or two is None or one.shape != two.shape:
        return False
    return float((one - two).norm()) <= SAME * float(one.norm())
