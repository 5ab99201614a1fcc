"""Recorder: writes the capsule of a comparison while it runs."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from ..card import read_card
from ..chosen import TuningCase
from ..config import Plan
from ..errors import InputError
from ..files import write_atomic
from ..loading import find_reader
from ..modality import Case
from ..multiples import check_settings
from ..pipeline import Result, Slot
from ..plan_file import to_yaml
from ..reconstruction import Method
from ..registry import Registry
from ..trained import ModelSlot
from .contents import CAPSULE_FILE, CONFIG_FILE, Capsule, CaseFacts, ModelFacts, Row, to_json
from .environment import Environment
from .sources import SHOWN, Source, absolute, source


class Recorder:
    """Keeps the capsule of a comparison that runs in a folder.

    The file is there from the start, marked as not complete, so that it never belongs to older results.

    Parameters
    ----------
    folder
        OUT.
    plan, cases, rows, tuned
        What is run: methods by modality, and the records of ``priorloom tune`` that were applied.
    registry, device, command
        With which components, where, and what was typed.
    """

    def __init__(
        self,
        folder: Path,
        plan: Plan,
        cases: Sequence[Case],
        rows: Mapping[str, Sequence[Method]],
        registry: Registry,
        *,
        device: torch.device,
        command: str = "",
        tuned: Sequence[Path] = (),
    ) -> None:
        plan, paths = absolute(plan, rows, registry)
        config = to_yaml(plan)
        self.folder = folder
        self._rows: list[Row] = []
        self._capsule = Capsule(
            complete=False,
            command=_one_line(command),
            device=str(device),
            config=hashlib.sha256(config).hexdigest(),
            planned=sum(len(rows[c.modality]) for c in cases),
            sources=_sources(plan, {**paths, "tuned": tuple(str(p.absolute()) for p in tuned)}, registry),
            models=used_models(rows, registry),
            cases=tuple(map(_case_facts, cases)),
            rows=(),
            timed=tuple(c.name for c in cases if c.operator.timed),
            environment=Environment.here(device, [p.distribution for p in registry.plugins]),
        )
        write_atomic(folder / CONFIG_FILE, config)
        self.write()

    def add(self, result: Result, content: bytes) -> None:
        """One more row, with the content of its image's file."""
        figures = {name: _finite((result.metrics or {}).get(name)) for name in ("psnr", "ssim", "nmse")}
        digest = hashlib.sha256(content).hexdigest()
        self._rows.append(
            Row(result.case, result.method, **figures, iterations=result.iterations, outcome=result.outcome,
                sha256=digest)
        )  # fmt: skip

    def write(self) -> None:
        """The file, complete once every row is there."""
        whole = bool(self._rows) and len(self._rows) == self._capsule.planned
        capsule = dataclasses.replace(self._capsule, rows=tuple(self._rows), complete=whole)
        write_atomic(self.folder / CAPSULE_FILE, to_json(capsule))


def used_models(rows: Mapping[str, Sequence[Method]], registry: Registry) -> tuple[ModelFacts, ...]:
    """The registered models that methods run or have in a slot; those in folders are sources."""
    known = registry.names("model")
    found: dict[str, None] = {}
    for modality, methods in rows.items():
        for method in methods:
            for value in check_settings(registry, registry.pipeline(method.pipeline), method.settings).values():
                if isinstance(value, ModelSlot) and value.path is None:
                    found[value.card(modality)[1].name] = None
                elif isinstance(value, Slot) and value.parameters.get("path") is None:
                    name = f"{modality}.{value.name}"
                    found |= {name: None} if name in known else {}
    return tuple(_model_facts(name, registry) for name in found)


def _model_facts(name: str, registry: Registry) -> ModelFacts:
    card = read_card(registry.model(name))
    return ModelFacts(name, card.version, card.sha256)


def check_models(capsule: Capsule, registry: Registry) -> None:
    """Raise InputError where a registered model is not the recorded one."""
    known = registry.names("model")
    for wanted in capsule.models:
        found = _model_facts(wanted.name, registry) if wanted.name in known else None
        if found != wanted:
            got = "none" if found is None else f"version {found.version}, sha256 {found.sha256[:SHOWN]}"
            raise InputError(
                f"changed data: model '{wanted.name}'", expected=f"version {wanted.version}, sha256 "
                f"{wanted.sha256[:SHOWN]}", got=got, cure="install the recorded versions (environment in capsule.json)",
            )  # fmt: skip


def _case_facts(case: Case) -> CaseFacts:
    known = TuningCase.of(case)
    return CaseFacts(case.name, case.modality, known.measurement, known.truth)


def _sources(plan: Plan, paths: Mapping[str, Sequence[str]], registry: Registry) -> tuple[Source, ...]:
    companions: tuple[str, ...] = ()
    for part in (plan, plan.tuning):
        if part is not None and part.input is not None:
            companions += find_reader(part.input, registry, part.options.get("reader")).companions
    found: dict[str, Source] = {}
    for setting, named in paths.items():
        for path in named:
            if path not in found:
                found[path] = source(setting, Path(path), companions)
    return tuple(found.values())


def _finite(value: float | None) -> float | None:
    return value if value is not None and abs(value) < float("inf") else None


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)[:4000]


__all__ = ["Recorder", "check_models", "used_models"]
