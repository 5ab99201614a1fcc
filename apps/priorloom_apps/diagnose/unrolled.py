"""Diagnose a trained unrolled network: error split, crossover, gradient flow, schedule.

This is what ``priorloom diagnose unrolled`` runs. Every number is of this run on this machine; the library's part is
``priorloom.diagnose``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from priorloom.card import Card, outside, read_card
from priorloom.config import Plan, make_cases, override
from priorloom.diagnose import crossover as crossing
from priorloom.diagnose.crossover import Curve, Need
from priorloom.diagnose.error_split import ErrorSplit, error_split, one_step
from priorloom.diagnose.gradient_flow import EXPLODING, VANISHING, GradientFlow, gradient_flow
from priorloom.diagnose.jacobian import Extremes, jacobian_extremes
from priorloom.diagnose.schedule import Learned, schedule
from priorloom.diagnose.states import problem_of
from priorloom.errors import InputError, OutputError
from priorloom.files import check_writable, json_value, write_atomic
from priorloom.functional import Zero
from priorloom.modality import Batch, Case
from priorloom.models import load_card, newest_version
from priorloom.problem import Problem, Term
from priorloom.reconstruction import versions
from priorloom.registry import Registry
from priorloom.steps import ISTA
from priorloom.steps.safeguard import safeguarded
from priorloom.unrolled import Unrolled

from ..device import on_device
from ..present import tell
from .rivals import Rivals, curves, minimiser, own_rivals

SCHEMA = 1
LANCZOS_STEPS = 12
"""Half the library's: the largest singular values come within a per cent, and there are many layers and networks."""

Reference = Literal["truth", "minimiser"]


@dataclass(frozen=True)
class OnCase:
    """One case: the error against layers, iterations and seconds, and its split.

    Parameters
    ----------
    case, warnings
        The case, and what of it the model was not trained for.
    network, rivals
        The curves.
    needs
        For every layer what each rival needs to be as accurate.
    split
        The error split; None where the modality offers no classical step to split by.
    """

    case: str
    warnings: tuple[str, ...]
    network: Curve
    rivals: tuple[Curve, ...]
    needs: tuple[tuple[Need, ...], ...]
    split: ErrorSplit | None


@dataclass(frozen=True)
class Flow:
    """The gradient flow and the Jacobians of one network: the trained one, or an untrained twin."""

    network: str
    skip: bool | None
    flow: GradientFlow
    jacobian: tuple[Extremes, ...]


@dataclass(frozen=True)
class Diagnosis:
    """All that was found about a model."""

    card: Card
    reference: Reference
    cases: tuple[OnCase, ...]
    flows: tuple[Flow, ...]
    schedule: tuple[Learned, ...]
    lipschitz: float | None
    seed: int


def run_unrolled(
    model: str,
    registry: Registry,
    out: Path,
    *,
    count: int = 1,
    settings: Sequence[str] = (),
    seed: int = 0,
    device: str = "cpu",
    command: str = "",
) -> Diagnosis:
    """Diagnose a model; write ``diagnose.json`` and the pictures in `out`, print the table.

    Parameters
    ----------
    model
        The name of a registered model, or the folder of one.
    count
        How many of the modality's simulated cases, seed after seed.
    settings
        ``operator.*`` and ``case.*`` for the cases, ``METHOD.KEY`` for the classical methods.
    """
    if count < 1:
        raise InputError("--cases", expected="at least 1", got=count)
    folder = find_model(model, registry)
    card = read_card(folder)
    plan = override(Plan(modality=card.modality, seed=seed), settings)
    if "name" not in plan.operator:
        plan = replace(plan, operator={"name": card.scope.operator, **plan.operator})
    cases = [on_device(case, device) for case in first_cases(plan, registry, count)]
    check_writable(out)
    found = diagnose(folder, card, cases, plan, registry)
    write_atomic(out / "diagnose.json", to_json(found, command))
    _publish(found, out)
    return found


def find_model(model: str, registry: Registry) -> Path:
    """The folder of a registered model, or the folder itself (or its newest version)."""
    path = Path(model)
    if not path.is_dir():
        if path.exists() or len(path.parts) > 1:
            raise InputError(
                f"model {model}", expected="a registered model or a folder with card.json", got="no folder"
            )
        return registry.model(model)
    return path if (path / "card.json").exists() else newest_version(path)


def first_cases(plan: Plan, registry: Registry, count: int) -> list[Case]:
    """The first `count` simulated cases of a plan, those of the next seeds after those of its own."""
    cases: list[Case] = []
    seed = plan.seed
    while len(cases) < count:
        fresh = make_cases(replace(plan, seed=seed), registry)
        cases += fresh if seed == plan.seed else [replace(c, name=f"{c.name}-{seed}") for c in fresh]
        seed += 1
    return cases[:count]


def diagnose(folder: Path, card: Card, cases: Sequence[Case], plan: Plan, registry: Registry) -> Diagnosis:
    """The library's measurements on the cases of a model."""
    rivals = Rivals(plan, registry, card.modality)
    on_cases: list[OnCase] = []
    flows: list[Flow] = []
    learned: tuple[Learned, ...] = ()
    lipschitz: float | None = None
    reference: Reference = "truth"
    for case in cases:
        inner = normalised(case, registry)
        batch = as_batch(inner)
        network = load_card(folder, card, registry, inner.operator)
        problem = problem_of(network, batch)
        reference = "truth" if isinstance(problem.prior, Zero) else "minimiser"
        warnings = outside(card.scope, registry.modality(case.modality).describe(case.operator), inner.noise_std or 0.0)
        tell(f"{case.name}: errors and seconds of {len(network.layers)} layers and of the classical methods")
        used = safeguarded(network) if card.safeguarded else network
        on_cases.append(_on_case(used, batch, inner, problem, reference, rivals, tuple(warnings)))
        if not flows:
            flows = list(_flows(card, network, batch, registry))
            learned, lipschitz = schedule(network), problem.data.lipschitz()
    return Diagnosis(card, reference, tuple(on_cases), tuple(flows), learned, lipschitz, plan.seed)


def normalised(case: Case, registry: Registry) -> Case:
    """The case as methods see it: scaled, with a noise level."""
    modality = registry.modality(case.modality)
    scale = modality.scale(case)
    if not 0 < scale < float("inf"):
        raise InputError(f"scale of case '{case.name}'", expected="a measurement that is not zero", got=scale)
    inner = case.scaled(scale)
    return inner if inner.noise_std is not None else replace(inner, noise_std=modality.noise_std(inner))


def as_batch(case: Case) -> Batch:
    """A normalised case as a batch of one."""
    y = case.measurement[None]
    noise = torch.tensor([case.noise_std or 0.0], dtype=case.operator.domain.real_dtype, device=y.device)
    return Batch(case.operator, y, None if case.truth is None else case.truth[None], noise)


def _on_case(
    network: Unrolled,
    batch: Batch,
    case: Case,
    problem: Problem,
    reference: Reference,
    rivals: Rivals,
    warnings: tuple[str, ...],
) -> OnCase:
    classical: Problem | None
    if reference == "minimiser":
        # The network may carry its gradient back by something else than A^H; its objective does not.
        classical = Problem(Term(problem.data.f, problem.data.K), problem.prior)
        chosen = own_rivals(network, batch, classical)
        goal = minimiser(classical, network.starting_image(batch.operator, batch.measurement))
    else:
        if batch.truth is None:
            raise InputError(f"case '{case.name}'", expected="a truth", got="none", cure="use a simulated case")
        chosen = rivals.on(case)
        goal = batch.truth
        classical = next((r.problem for r in chosen if isinstance(r.step, ISTA)), None)
    seconds, rival_curves = curves(network, batch, chosen, goal, minimised=reference == "minimiser")
    network_curve = Curve("network", crossing.layer_errors(network, batch, goal), tuple(seconds))
    needs = tuple(tuple(crossing.need(c, error) for c in rival_curves) for error in network_curve.errors[1:])
    split = None
    if classical is not None:
        x0 = network.starting_image(batch.operator, batch.measurement)
        split = error_split(network.layers, problem, one_step(ISTA(), classical), goal, x0=x0)
    return OnCase(case.name, warnings, network_curve, rival_curves, needs, split)


def _flows(card: Card, network: Unrolled, batch: Batch, registry: Registry) -> Iterator[Flow]:
    """The trained network and, where its architecture has skips to choose, untrained twins with and without."""
    name, settings = card.architecture.name, dict(card.architecture.settings)
    known = {p.name: p.default for p in registry.parameters("architecture", name)}
    skip = bool(settings.get("skip", known["skip"])) if "skip" in known else None
    networks = [("trained", skip, network)]
    for label, twin_skip in (("with", True), ("without", False)) if skip is not None else ():
        torch.manual_seed(0)
        twin = registry.architecture(name, batch.operator, {**settings, "skip": twin_skip})
        networks.append((f"untrained, {label} skips", twin_skip, twin.to(batch.measurement.device)))
    for label, choice, one in networks:
        tell(f"gradient flow and Jacobians: {label}")
        extremes = jacobian_extremes(one, batch, lanczos_steps=LANCZOS_STEPS)
        yield Flow(label, choice, gradient_flow(one, batch), extremes)


def to_json(found: Diagnosis, command: str = "") -> bytes:
    """The content of ``diagnose.json``; infinite numbers become null."""
    card = found.card
    document = {
        "schema": SCHEMA,
        "command": command,
        "seed": found.seed,
        "versions": dict(versions()),
        "model": {
            "name": card.name, "version": card.version, "architecture": card.architecture.name,
            "settings": dict(card.architecture.settings), "parameters": card.parameters,
        },
        "reference": found.reference,
        "cases": [_case_json(c) for c in found.cases],
        "thresholds": {"vanishing": VANISHING, "exploding": EXPLODING},
        "gradient_flow": [_flow_json(f) for f in found.flows],
        "schedule": {"lipschitz": found.lipschitz, "numbers": [asdict(n) for n in found.schedule]},
    }  # fmt: skip
    return (json.dumps(json_value(document), indent=1, allow_nan=False) + "\n").encode()


def _case_json(case: OnCase) -> dict[str, Any]:
    layers = [
        {"layer": k, "error": error, "seconds": seconds,
         "needs": [asdict(n) for n in case.needs[k - 1]] if k else []}
        for k, (error, seconds) in enumerate(zip(case.network.errors, case.network.seconds, strict=True))
    ]  # fmt: skip
    rivals = [
        {"method": c.name, "limit": c.limit, "iterations": len(c.errors) - 1, "errors": list(c.errors),
         "start_seconds": c.seconds[0],
         "iteration_seconds": (c.seconds[-1] - c.seconds[0]) / max(len(c.errors) - 1, 1)}
        for c in case.rivals
    ]  # fmt: skip
    split = None
    if case.split is not None:
        names = ("errors", "remainders", "factors", "rho", "bias", "contraction", "unfolding", "bound", "holds")
        split = {name: _only(getattr(case.split, name)) for name in names}
    ahead = [{"method": name, "faster_from_layer": layer} for name, layer in faster(case).items()]
    return {
        "case": case.case, "warnings": list(case.warnings), "layers": layers, "rivals": rivals, "crossover": ahead,
        "split": split,
    }  # fmt: skip


def faster(case: OnCase) -> dict[str, int | None]:
    """For every rival the layer from which on the network is faster at equal accuracy."""
    found = {}
    for i, rival in enumerate(case.rivals):
        found[rival.name] = crossing.faster_from(case.network, [needs[i] for needs in case.needs])
    return found


def _only(values: Tensor) -> Any:
    """The figures of the one batch element."""
    return values[..., 0].tolist()


def _flow_json(one: Flow) -> dict[str, Any]:
    flow = one.flow
    return {
        "network": one.network, "skip": one.skip, "verdict": flow.verdict, "ratio": flow.ratio, "factor": flow.factor,
        **asdict(flow), "jacobian": [asdict(e) for e in one.jacobian],
    }  # fmt: skip


def _publish(found: Diagnosis, out: Path) -> None:
    from .unrolled_table import show

    show(found)
    try:
        from .unrolled_pictures import pictures

        made = pictures(found)
    except OutputError:
        raise
    except InputError as error:  # the extra [report] is not installed; the figures are complete without it
        print(f"note: no pictures: {error}")
        print(f"wrote {out}/diagnose.json")
        return
    for name, content in made.items():
        write_atomic(out / name, content)
    print(f"wrote {out}/diagnose.json, {', '.join(made)}")
