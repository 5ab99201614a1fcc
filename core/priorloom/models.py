"""Trained models on disk: ``NAME/VERSION/{model.safetensors, card.json}``, written whole, read with distrust.

A file of weights is data and nothing else: it is never unpickled, and the card names a registered architecture, never
something to import.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from .card import (
    CARD_FILE,
    CARD_LIMIT,
    RANK_LIMIT,
    SIZE_LIMIT,
    WEIGHTS_FILE,
    Card,
    DenoiserFacts,
    Facts,
    Numbers,
    StoredType,
    TensorFacts,
    read_card,
    to_json,
)  # fmt: skip
from .errors import InputError, OutputError, did_you_mean
from .files import read_bounded, write_atomic
from .operator import LinearOperator
from .space import Space
from .unrolled import Unrolled

if TYPE_CHECKING:
    from .registry import Registry

_HEADER_LIMIT = 2**22
_DTYPES: dict[torch.dtype, StoredType] = {torch.float32: "float32", torch.int64: "int64"}


def newest_version(folder: Path) -> Path:
    """The subfolder with the highest version, numbers compared as numbers.

    Raises
    ------
    InputError
        There is none.
    """
    try:
        found = [p for p in folder.iterdir() if re.fullmatch(r"\d+(\.\d+)*", p.name) and not p.is_symlink()]
    except OSError as error:
        raise InputError(f"model folder {folder}", expected="a folder of versions", got=error.strerror) from error
    if not found:
        raise InputError(f"model folder {folder}", expected="a folder of versions such as 1 or 1.2", got="none")
    return max(found, key=lambda p: [int(part) for part in p.name.split(".")])


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers by name; what several layers share is there once, under its first name."""
    named = dict(model.named_parameters())
    kept = model.state_dict().keys()
    return named | {name: buffer for name, buffer in model.named_buffers() if name in kept}


def number_type(space: Space) -> Numbers:
    """ "real" or "complex"."""
    return "complex" if space.is_complex else "real"


def save_model(folder: Path, model: Unrolled, facts: Facts) -> Card:
    """Write a trained model as a new folder, whole or not at all.

    Parameters
    ----------
    folder
        ``.../NAME/VERSION``; it must not hold anything yet, since a version never changes.
    model
        On any device; floating-point tensors are stored as float32.
    facts
        What the card says beside the tensors.

    Raises
    ------
    InputError
        A tensor that is not finite, not real or an integer, or a model that is too large.
    OutputError
        The folder cannot be written, or holds something.
    """
    stored = {name: _plain(name, tensor) for name, tensor in tensors_of(model).items()}
    content = save(stored)
    if len(content) > SIZE_LIMIT:
        raise InputError("weights of the model", expected=f"at most {SIZE_LIMIT} bytes", got=len(content))
    from .reconstruction import versions  # late: reconstruction reaches this module through the pipelines

    card = Card(
        **{f.name: getattr(facts, f.name) for f in dataclasses.fields(Facts)},
        tensors={name: TensorFacts(tuple(t.shape), _DTYPES[t.dtype]) for name, t in stored.items()},
        parameters=sum(p.numel() for p in model.parameters()),
        sha256=hashlib.sha256(content).hexdigest(),
        bytes=len(content),
        versions=dict(versions()),
    )
    description = to_json(card)
    if len(description) > CARD_LIMIT:
        raise InputError("card of the model", expected=f"at most {CARD_LIMIT} bytes", got=len(description))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".tmp"))
        try:
            for name, data in ((WEIGHTS_FILE, content), (CARD_FILE, description)):
                with (temporary / name).open("xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
            temporary.chmod(0o755)
            temporary.rename(folder)  # refuses a folder that is not empty
        finally:
            with suppress(OSError):
                shutil.rmtree(temporary)
    except OSError as error:
        raise OutputError(
            f"model folder {folder}", expected="a new or empty folder", got=error.strerror,
            cure="choose another version",
        ) from error  # fmt: skip
    return card


def add_certificate(folder: Path, found: tuple[DenoiserFacts, ...]) -> Card:
    """Put what ``priorloom certify`` found of a denoiser on its card; the weights stay as they are."""
    card = dataclasses.replace(read_card(folder), denoiser=found)
    write_atomic(folder / CARD_FILE, to_json(card))
    return card


def load_model(folder: Path, registry: Registry, operator: LinearOperator) -> Unrolled:
    """The model of a folder, on the device and in the precision of `operator`, ready for inference.

    Raises
    ------
    InputError
        Anything that is not exactly what the card says, or a model of other numbers than the operator's.
    """
    return load_card(folder, read_card(folder), registry, operator)


def load_card(folder: Path, card: Card, registry: Registry, operator: LinearOperator) -> Unrolled:
    """The same with the card at hand."""
    _check_numbers(card, operator)
    content = _checked_content(folder / WEIGHTS_FILE, card)
    model = _untrained(card, registry, operator).float()
    _check_same(folder, "the architecture", card.tensors, _facts(tensors_of(model)))
    learned = sum(p.numel() for p in model.parameters())
    if learned != card.parameters:
        raise InputError(f"parameters of model '{card.name}'", expected=f"{learned} (the architecture)",
                         got=f"{card.parameters} (the card)")  # fmt: skip
    stored = _tensors(folder, card, content)
    with torch.no_grad():
        for name, tensor in tensors_of(model).items():
            tensor.copy_(stored[name])
    model = model.to(device=operator.device, dtype=operator.domain.real_dtype)
    model.eval()
    return model.requires_grad_(False)


def check_weights(folder: Path, card: Card) -> None:
    """Raise InputError unless the weights are what the card says, as far as that shows without an operator."""
    _tensors(folder, card, _checked_content(folder / WEIGHTS_FILE, card))


def _tensors(folder: Path, card: Card, content: bytes) -> dict[str, Tensor]:
    """The tensors of a file, all of the card's and finite."""
    try:
        stored = load(content)
    except (SafetensorError, ValueError, RuntimeError, KeyError) as error:
        raise InputError(f"weights {folder / WEIGHTS_FILE}", expected="safetensors", got=str(error)) from error
    _check_same(folder, "the file", card.tensors, _facts(stored))
    for name, tensor in stored.items():
        _check_finite(f"tensor '{name}' of model '{card.name}'", tensor)
    return stored


def _plain(name: str, tensor: Tensor) -> Tensor:
    what = f"tensor '{name}' of the model"
    if tensor.is_complex() or not (tensor.is_floating_point() or tensor.dtype == torch.int64):
        raise InputError(what, expected="real numbers, or int64", got=tensor.dtype)
    made = tensor.detach().to("cpu", torch.float32 if tensor.is_floating_point() else torch.int64)
    _check_finite(what, made)
    return made.contiguous().clone()


def _check_finite(what: str, tensor: Tensor) -> None:
    if not bool(tensor.isfinite().all()):
        raise InputError(what, expected="finite numbers", got="NaN or infinite")


def _dtype(tensor: Tensor) -> str:
    return _DTYPES.get(tensor.dtype, str(tensor.dtype))


def _facts(tensors: Mapping[str, Tensor]) -> dict[str, tuple[tuple[int, ...], str]]:
    return {name: (tuple(t.shape), _dtype(t)) for name, t in tensors.items()}


def _check_numbers(card: Card, operator: LinearOperator) -> None:
    scope = card.scope
    for what, wanted, space in (
        ("images", scope.images, operator.domain),
        ("measurements", scope.measurements, operator.range),
    ):
        if number_type(space) != wanted:
            raise InputError(
                f"model '{card.name}' on {type(operator).__name__}", expected=f"{wanted} {what}",
                got=f"{number_type(space)} ones", cure=f"it was trained for {scope.operator}",
            )  # fmt: skip


def _checked_content(path: Path, card: Card) -> bytes:
    """The bytes of the file: their number, what they begin with, and their hash are as they must be."""
    content = read_bounded(path, SIZE_LIMIT, "a file of a trained model")
    what = f"weights {path}"
    header = int.from_bytes(content[:8], "little")
    if not 2 <= header <= min(_HEADER_LIMIT, len(content) - 8) or content[8:9] != b"{":
        pickled = content.startswith((b"\x80", b"PK\x03\x04"))
        got = "a pickle or an archive, which may run code" if pickled else repr(content[:9])
        raise InputError(what, expected="the header of a safetensors file", got=got)
    if len(content) != card.bytes:
        raise InputError(what, expected=f"{card.bytes} bytes", got=len(content), cure="the file is damaged")
    found = hashlib.sha256(content).hexdigest()
    if found != card.sha256:
        raise InputError(what, expected=f"sha256 {card.sha256}", got=found, cure="the file is damaged, or another one")
    try:
        declared = json.loads(content[8 : 8 + header])
        shapes = [_shape(t["shape"]) for name, t in declared.items() if name != "__metadata__"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(what, expected="the header of a safetensors file", got=type(error).__name__) from error
    # The card's shapes too: they are what a network may grow to before its tensors are compared.
    for given in (shapes, [t.shape for t in card.tensors.values()]):
        numbers = sum(math.prod(shape) for shape in given)
        if numbers > len(content):
            raise InputError(what, expected=f"tensors within {len(content)} bytes", got=f"{numbers} numbers declared")
    return content


def _shape(declared: object) -> list[int]:
    """A shape as a file states it, bounded before anything is multiplied; raises ValueError for anything else."""
    if not isinstance(declared, list) or len(declared) > RANK_LIMIT:
        raise ValueError("no list of sizes")
    if not all(type(size) is int and 0 <= size <= SIZE_LIMIT for size in declared):
        raise ValueError("no sizes")
    return declared


def _untrained(card: Card, registry: Registry, operator: LinearOperator) -> Unrolled:
    known = registry.names("architecture")
    name = card.architecture.name
    if name not in known:
        raise InputError(
            f"architecture of model '{card.name}'", expected="a registered one", got=repr(name),
            cure=did_you_mean(name, known),
        )  # fmt: skip
    with _at_most(card):
        return registry.architecture(name, operator, card.architecture.settings)


@contextmanager
def _at_most(card: Card) -> Iterator[None]:
    """Stops the building of a model as soon as it has more numbers or tensors than its card says: settings could ask
    for more than the machine has."""
    allowed = {"numbers": sum(math.prod(t.shape) for t in card.tensors.values()), "tensors": len(card.tensors)}
    # Room for buffers that are not stored, and for parameters that are replaced.
    limit = {"numbers": 2 * allowed["numbers"] + 100_000, "tensors": 2 * allowed["tensors"] + 1000}
    seen = dict.fromkeys(allowed, 0)

    def count(_: nn.Module, name: str, tensor: Tensor | None) -> None:
        seen["tensors"] += 1
        seen["numbers"] += 0 if tensor is None else tensor.numel()
        for what, number in seen.items():
            if number > limit[what]:
                expected = f"a network of {allowed[what]} {what}"
                raise InputError(f"settings of model '{card.name}'", expected=expected, got="a larger one")

    hooks = [
        torch_module.register_module_parameter_registration_hook(count),
        torch_module.register_module_buffer_registration_hook(count),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _check_same(
    folder: Path, other: str, wanted: Mapping[str, TensorFacts], got: Mapping[str, tuple[tuple[int, ...], str]]
) -> None:
    """Raise InputError unless the card and `other` have the same tensors: names, shapes, dtypes."""
    what = f"model {folder}"
    for missing, where in ((wanted.keys() - got.keys(), other), (got.keys() - wanted.keys(), "the card")):
        if missing:
            raise InputError(f"{what}", expected=f"tensor '{min(missing)}' in {where}", got=f"{len(missing)} missing")
    for name, facts in wanted.items():
        if (facts.shape, facts.dtype) != got[name]:
            shape, dtype = got[name]
            raise InputError(
                f"tensor '{name}' of {what}", expected=f"{list(facts.shape)} {facts.dtype} (the card)",
                got=f"{list(shape)} {dtype} in {other}",
            )  # fmt: skip
