"""Capsule: what a comparison read, what computed it and what came out, so that it can be run again and compared."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Annotated, Literal

import pydantic
from pydantic import Field, FiniteFloat, NonNegativeInt
from pydantic.dataclasses import dataclass

from ..card import Name, Text, Version
from ..config import Plan, load
from ..errors import InputError
from ..files import read_bounded
from .environment import Environment
from .sources import SHOWN, Sha256, Source

CAPSULE_FILE, CONFIG_FILE = "capsule.json", "config.yaml"
SCHEMA = 1
CAPSULE_LIMIT = 2**24
"""Bytes of a capsule."""

Slug = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_])?$", max_length=255)]
"""A name that is a file name (``modality.slug``) and leads nowhere else."""
_CONFIG = pydantic.ConfigDict(extra="forbid")


@dataclass(frozen=True, config=_CONFIG)
class CaseFacts:
    """A case, with SHA-256 of its measurement and truth as in ``chosen.TuningCase``."""

    name: Slug
    modality: Name
    measurement: Sha256
    truth: Sha256 | None


@dataclass(frozen=True, config=_CONFIG)
class ModelFacts:
    """A registered model that a method used."""

    name: Text
    version: Version
    sha256: Sha256


@dataclass(frozen=True, config=_CONFIG)
class Row:
    """What one method gave on one case.

    Parameters
    ----------
    case, method
        Their names.
    psnr, ssim, nmse
        None without a truth, and where they are not finite.
    iterations, outcome
        See ``Result``; the outcome is empty where a fixed number of operations is done.
    sha256
        Of the file with the image, ``images/CASE/METHOD.npy``.
    """

    case: Slug
    method: Slug
    psnr: FiniteFloat | None
    ssim: FiniteFloat | None
    nmse: FiniteFloat | None
    iterations: NonNegativeInt
    outcome: Text
    sha256: Sha256

    @property
    def image(self) -> Path:
        """Where the image is, relative to the capsule's folder."""
        return Path("images") / self.case / f"{self.method}.npy"


@dataclass(frozen=True, config=_CONFIG)
class Tolerance:
    """How far a result may be from the recorded one.

    Parameters
    ----------
    image
        ``|x - x'| / |x|`` of the image.
    psnr, ssim, nmse
        dB, absolute, and relative.
    iterations
        Relative; two more are always allowed where the number is not fixed.
    """

    image: FiniteFloat
    psnr: FiniteFloat
    ssim: FiniteFloat
    nmse: FiniteFloat
    iterations: FiniteFloat


FIXED = Tolerance(image=1e-4, psnr=1e-3, ssim=1e-4, nmse=1e-3, iterations=0.0)
"""Where a fixed number of operations is done, only rounding differs: at most 9e-6 of the image was seen."""
ITERATED = Tolerance(image=1e-2, psnr=0.02, ssim=1e-3, nmse=5e-3, iterations=0.1)
"""An iteration that stops at a tolerance may stop earlier or later: at most 3e-3 and 0.0075 dB were seen, when the
processor's vector instructions were switched off (docs/reproduce.md)."""


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class Capsule:
    """The record of a comparison, ``capsule.json`` beside ``config.yaml``, the results and the images.

    Parameters
    ----------
    complete
        Whether every row was run; False in the file while the comparison runs.
    command
        What was typed.
    device
        "cpu" or "cuda".
    config
        SHA-256 of ``config.yaml``, the resolved plan.
    planned
        How many rows there are when it is complete.
    sources, models, cases, rows
        What was read, what was used, and what came out.
    timed
        Cases whose operator chose by timing how it computes: the last digits may differ from run to run.
    environment
        What computed.
    fixed, iterated
        The tolerances of a comparison with results of another environment.
    """

    schema: Literal[1] = 1
    complete: bool
    command: Text
    device: Text
    config: Sha256
    planned: NonNegativeInt
    sources: tuple[Source, ...]
    models: tuple[ModelFacts, ...]
    cases: tuple[CaseFacts, ...]
    rows: tuple[Row, ...]
    timed: tuple[Text, ...]
    environment: Environment
    fixed: Tolerance = FIXED
    iterated: Tolerance = ITERATED


def to_json(capsule: Capsule) -> bytes:
    """The content of ``capsule.json``."""
    document = dataclasses.asdict(capsule)
    return (json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode()


def read_capsule(folder: Path) -> Capsule:
    """The capsule in a folder, checked: plain values, of a bounded size, complete, and every row of a recorded case.

    Raises
    ------
    InputError
        No folder, no capsule, one that is broken or contradicts itself, of a newer schema, or of a comparison that was
        interrupted.
    """
    if not folder.is_dir():
        raise InputError(f"capsule {folder}", expected="a folder that priorloom compare wrote", got="none there")
    path = folder / CAPSULE_FILE
    content = read_bounded(path, CAPSULE_LIMIT, "the capsule of a comparison (priorloom compare writes it)")
    try:
        raw = json.loads(content)
        schema = raw.get("schema") if isinstance(raw, dict) else None
        if type(schema) is int and schema > SCHEMA:
            raise InputError(f"schema of {path}", expected=f"at most {SCHEMA}", got=schema,
                             cure="install a newer priorloom")  # fmt: skip
        capsule = pydantic.TypeAdapter(Capsule).validate_json(content, strict=True)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])[:200]
        raise InputError(f"{f'{where} in ' if where else ''}{path}", expected="a capsule",
                         got=f"what is no such: {first['msg']}") from error  # fmt: skip
    except (ValueError, RecursionError) as error:
        raise InputError(str(path), expected="a capsule in JSON", got=str(error)) from error
    if not capsule.complete or len(capsule.rows) != capsule.planned or not capsule.rows:
        raise InputError(f"capsule {folder}", expected="a comparison that ended",
                         got=f"{len(capsule.rows)} of {capsule.planned} rows", cure="run it again")  # fmt: skip
    cases = {case.name for case in capsule.cases}
    rows = {(row.case, row.method) for row in capsule.rows}
    if len(cases) < len(capsule.cases) or len(rows) < len(capsule.rows) or not {case for case, _ in rows} <= cases:
        raise InputError(str(path), expected="every case once, and every row of a case once", got="others")
    return capsule


def recorded_plan(folder: Path, capsule: Capsule) -> Plan:
    """The plan of a capsule.

    Raises
    ------
    InputError
        ``config.yaml`` is not there, or not the one that was run.
    """
    path = folder / CONFIG_FILE
    content = read_bounded(path, CAPSULE_LIMIT, "the config of a capsule")
    found = hashlib.sha256(content).hexdigest()
    if found != capsule.config:
        raise InputError(f"changed config: {path}", expected=f"sha256 {capsule.config[:SHOWN]}", got=found[:SHOWN],
                         cure=f"run what it says now with priorloom compare {path}")  # fmt: skip
    return load(path)


__all__ = ["Capsule", "CaseFacts", "ModelFacts", "Row", "Tolerance", "read_capsule", "recorded_plan", "to_json"]
