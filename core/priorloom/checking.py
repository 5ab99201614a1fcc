"""check_component(): the conformance kit on any registered component, built from its example parameters."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from .bench import MakePeer
from .binding import bind
from .card import read_card
from .errors import InputError, PriorloomError, ReaderError
from .hooks import example_parameters
from .modality import Case
from .models import load_model
from .operator import LinearOperator
from .parameters import signature_parameters
from .reconstruction import Method, reconstruct
from .registry import ComponentKind, Registry
from .space import Space
from .testing import Check, ConformanceError, check_architecture, check_denoiser, check_operator, check_prior
from .testing.measures import require, require_fit
from .train.denoising import OPERATOR
from .trained import ModelSlot
from .trained_denoiser import load_denoiser

SPACES = (Space((16, 12)), Space((16, 12), torch.complex64))
"""A component on images is checked on a real and on a complex one, unless it refuses complex images."""


def check_component(
    registry: Registry, kind: ComponentKind, name: str, given: Mapping[str, Any] | None = None
) -> list[Check]:
    """Build a component from its example parameters (changed by `given`) and run the conformance kit on it.

    Parameters
    ----------
    registry
        Where the component comes from.
    kind, name
        Which component.
    given
        Parameters that replace those of the example.

    Raises
    ------
    ConformanceError
        A check failed; the error names it, what was expected and what came.
    InputError
        The component cannot be built from these parameters.
    """
    factory = registry.factory(kind, name)
    if given and kind in ("modality", "reader", "model"):
        raise InputError(f"{kind} '{name}'", expected="no parameters to check it with", got=", ".join(given))
    parameters = {**example_parameters(factory), **(given or {})}
    return list(_CHECKS[kind](registry, name, parameters))


def _operator(registry: Registry, name: str, parameters: dict[str, Any]) -> Iterator[Check]:
    yield from check_operator(registry.operator(name, **parameters))


def _prior(registry: Registry, name: str, parameters: dict[str, Any]) -> Iterator[Check]:
    needs = {p.name for p in signature_parameters(registry.factory("prior", name), 1, f"prior '{name}'")}
    if "lam" in needs:
        parameters.setdefault("lam", 0.3)
    for space, prior in _on_spaces(lambda s: registry.prior(name, s, **parameters)):
        yield from _labelled("complex " if space.is_complex else "real ", check_prior(prior))


def _denoiser(registry: Registry, name: str, parameters: dict[str, Any]) -> Iterator[Check]:
    larger = [Space((32, 24), s.dtype) for s in SPACES]  # patches and wavelets need room
    for space, denoiser in _on_spaces(lambda s: registry.denoiser(name, s, **parameters), larger):
        yield from _labelled("complex " if space.is_complex else "real ", check_denoiser(denoiser, space))


def _pipeline(registry: Registry, name: str, parameters: dict[str, Any]) -> Iterator[Check]:
    """The default cases of each modality it serves: the image's shape, and converged where it iterates."""
    pipeline = registry.pipeline(name)
    arguments, _ = bind(registry, pipeline, parameters)
    models = [slot for slot in arguments.values() if isinstance(slot, ModelSlot)]
    for modality in pipeline.modalities or registry.names("modality"):
        if not all(slot.is_filled(modality) for slot in models):
            yield Check(f"{modality}: no trained model to run", 0.0)
            continue
        for case in registry.modality(modality).cases(registry, {}, seed=0):
            yield _solved(registry, case, Method(name, parameters))


def _solved(registry: Registry, case: Case, method: Method) -> Check:
    result = reconstruct(case, method, registry=registry)
    what = f"'{method.name}' on case '{case.name}' of {case.modality}"
    if result.image.shape != case.operator.domain.shape:
        raise ConformanceError(what, expected=list(case.operator.domain.shape), got=list(result.image.shape))
    if result.converged is False and result.kind != "pnp":  # with a denoiser the verdict says what was seen
        raise ConformanceError(what, expected=result.criterion, got=f"residual {result.residual:.2g}")
    return Check(f"{case.modality} {case.name}: {result.iterations} iterations, residual", result.residual or 0.0)


def _architecture(registry: Registry, name: str, parameters: dict[str, Any]) -> Iterator[Check]:
    # Two layers tell all that many do, where it has layers.
    if "layers" in {p.name for p in registry.parameters("architecture", name)}:
        parameters.setdefault("layers", 2)
    yield from check_architecture(lambda operator: registry.architecture(name, operator, parameters))


def _model(registry: Registry, name: str, parameters: dict[str, Any]) -> Iterator[Check]:
    """Every version loads on its modality's default cases, as its card says, and makes finite images of them."""
    folder = registry.model(name).parent
    versions = sorted(p for p in folder.iterdir() if p.is_dir())
    for version in versions:
        card = read_card(version)
        if (card.name, card.version) != (name, version.name):
            raise ConformanceError(
                f"card in {version}", expected=f"{name} {version.name}", got=f"{card.name} {card.version}"
            )
        for case in registry.modality(card.modality).cases(registry, {}, seed=0):
            if card.scope.operator == OPERATOR:
                yield _denoised(registry, version, case)
                continue
            network = load_model(version, registry, case.operator)
            learned = sum(p.numel() for p in network.parameters())
            if learned != card.parameters:
                raise ConformanceError(f"numbers learned by {name}", expected=card.parameters, got=learned)
            result = reconstruct(case, Method("learned", {"model.path": str(version)}), registry=registry)
            require_fit(f"image of {name} on '{case.name}'", case.operator.domain, result.image, ())
            figure = result.metrics["psnr"] if result.metrics else 0.0
            yield Check(f"version {card.version}, {case.name}: PSNR in dB", figure)


def _denoised(registry: Registry, version: Path, case: Case) -> Check:
    """What a trained denoiser leaves of noise half as loud as the loudest that it knows."""
    if case.truth is None:
        raise ConformanceError(f"case '{case.name}'", expected="a truth to denoise", got="none")
    truth = case.truth / registry.modality(case.modality).scale(case)
    space = case.operator.domain
    denoiser = load_denoiser(version, space, registry)
    sigma = 0.5 * denoiser.noise[1]
    noisy = truth + sigma * space.random(torch.Generator().manual_seed(0))
    with torch.no_grad():
        left = space.norm(denoiser(noisy, torch.tensor(sigma)) - truth) / space.norm(noisy - truth)
    return require(f"{case.name}: share of the noise that is left", float(left), 0.999)


def _modality(registry: Registry, name: str, parameters: dict[str, Any]) -> Iterator[Check]:
    """Its default cases, its scale and noise estimate, and the direct method first among its methods."""
    modality = registry.modality(name)
    for method in modality.methods:
        registry.pipeline(method)
    if registry.pipeline(modality.methods[0]).kind != "direct":
        raise ConformanceError(f"methods of '{name}'", expected="the direct one first", got=modality.methods[0])
    for case in modality.cases(registry, {}, seed=0):
        if case.modality != name:
            raise ConformanceError(f"modality of case '{case.name}'", expected=name, got=case.modality)
        for what, value in (("scale", modality.scale(case)), ("noise level", modality.noise_std(case))):
            if not 0 < value < float("inf"):
                raise ConformanceError(f"{what} of case '{case.name}'", expected="a positive number", got=value)
            yield Check(f"{case.name}: {what}", value)
        if case.truth is not None:
            shown = modality.display(case.truth)
            if shown.is_complex() or not modality.data_range(shown) > 0:
                raise ConformanceError(
                    f"display of case '{case.name}'", expected="a real image with a range", got=shown.dtype
                )


def _reader(registry: Registry, name: str, parameters: dict[str, Any]) -> Iterator[Check]:
    """Suffixes, options, and a ReaderError (nothing else) for files that are empty, garbage or not there."""
    reader = registry.reader(name)
    signature_parameters(reader.read, 1, f"reader '{name}'", "input.")
    for suffix in reader.suffixes:
        if not suffix.startswith(".") or suffix != suffix.lower():
            raise ConformanceError(f"suffix of reader '{name}'", expected="lower case with a dot", got=suffix)
        with tempfile.TemporaryDirectory() as folder:
            for content in (b"", b"not a measurement " * 40, None):
                path = Path(folder) / f"file{suffix}"
                path.unlink(missing_ok=True)
                if content is not None:
                    path.write_bytes(content)
                    if reader.recognises(path) is True and not content:
                        raise ConformanceError(
                            f"reader '{name}'", expected="an empty file not recognised", got="recognised"
                        )
                _refuses(reader.read, path, name)
        yield Check(f"{suffix}: refuses empty, garbage and missing files", 0.0)


def _refuses(read: Callable[..., Any], path: Path, name: str) -> None:
    try:
        read(path)
    except ReaderError as error:
        if "\n" in str(error):
            raise ConformanceError(f"error of reader '{name}'", expected="one line", got=str(error)) from error
        return
    except Exception as error:
        raise ConformanceError(
            f"reader '{name}'", expected="a ReaderError", got=f"{type(error).__name__}: {error}"
        ) from error
    raise ConformanceError(f"reader '{name}'", expected="a ReaderError for a bad file", got="none")


def _benchmark(registry: Registry, name: str, parameters: dict[str, Any]) -> Iterator[Check]:
    """Its operator exists and takes the parameters of every case; peers run on the operator's example, so changed."""
    benchmark = registry.benchmark(name)
    factory = registry.factory("operator", benchmark.operator)
    known = {p.name for p in registry.parameters("operator", benchmark.operator)}
    for case in benchmark.cases:
        for parameter in case.parameters:
            if parameter not in known:
                raise ConformanceError(f"case '{case.label}' of '{name}'", expected=sorted(known), got=parameter)
        if not case.batches or min(case.batches) < 1:
            raise ConformanceError(f"batches of case '{case.label}'", expected="positive numbers", got=case.batches)
        yield Check(f"case '{case.label}': largest batch", float(max(case.batches)))
    A = registry.operator(benchmark.operator, **{**example_parameters(factory), **parameters})
    x = A.domain.random(torch.Generator().manual_seed(0))
    with torch.no_grad():
        for label, make in benchmark.peers.items():
            yield from _peer(label, make, A, x)


def _peer(label: str, make: MakePeer, A: LinearOperator, x: torch.Tensor) -> Iterator[Check]:
    try:
        peer = make(A)
    except PriorloomError:  # it says why it cannot be compared, on this machine or this example
        yield Check(f"peer {label}: not compared here", 0.0)
        return
    y = A(x)
    for what, ready, given, space in (
        ("forward", peer.forward, x, A.range),
        ("adjoint", peer.adjoint, y, A.domain),
        ("normal", peer.normal, x, A.domain),
    ):
        if ready is not None:
            timed = ready(given[None] if peer.batched else given)
            got = timed.to_tensor(timed.call())
            if got.shape[-space.ndim :] != space.shape:
                raise ConformanceError(f"{what} of peer {label}", expected=list(space.shape), got=list(got.shape))
            yield Check(f"peer {label}: {what} runs", 0.0)


def _on_spaces(
    build: Callable[[Space], Any], spaces: tuple[Space, ...] | list[Space] = SPACES
) -> Iterator[tuple[Space, Any]]:
    """The component on every space that it does not refuse; a refusal of real images is an error."""
    for space in spaces:
        try:
            made = build(space)
        except InputError:
            if space.is_complex:
                continue
            raise
        yield space, made


def _labelled(label: str, checks: list[Check]) -> Iterator[Check]:
    for check in checks:
        yield Check(label + check.name, check.figure)


_CHECKS: dict[ComponentKind, Callable[[Registry, str, dict[str, Any]], Iterator[Check]]] = {
    "operator": _operator,
    "prior": _prior,
    "denoiser": _denoiser,
    "pipeline": _pipeline,
    "modality": _modality,
    "reader": _reader,
    "architecture": _architecture,
    "model": _model,
    "benchmark": _benchmark,
}
