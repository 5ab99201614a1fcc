"""train(): a plan becomes a trained model on disk, with the card that says how it came about."""

from __future__ import annotations

import copy
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..binding import bind_factory
from ..card import Architecture, Card, Facts, Learning, Metric, Scope, Stability, SubjectFacts, read_card
from ..errors import InputError
from ..lipschitz import certificate
from ..modality import Batch, slug
from ..models import load_model, number_type, save_model
from ..registry import Registry
from ..steps.safeguard import Safeguard, safeguarded
from ..unrolled import Unrolled
from . import checkpoint
from .checkpoint import Progress
from .config import Source, TrainingPlan
from .evaluate import evaluate
from .losses import Loss, Objective, make_loss
from .record import Watch
from .sources import Sides, make_sides


@dataclass(frozen=True)
class Trained:
    """Where a training ended.

    Parameters
    ----------
    folder
        The model: ``model.safetensors`` and ``card.json``.
    card
        What the card says.
    step, chosen
        Steps done, and the step whose weights were kept.
    """

    folder: Path
    card: Card
    step: int
    chosen: int


def train(
    plan: TrainingPlan,
    registry: Registry,
    out: Path,
    *,
    resume: bool = False,
    budget: float | None = None,
    device: str = "cpu",
    devices: int | None = None,
    watch: Watch | None = None,
) -> Trained:
    """Train a plan; write checkpoints, ``log.csv`` and the model ``NAME/1`` in `out`.

    Parameters
    ----------
    plan, registry
        What to train, and where components come from.
    out
        The folder of the run.
    resume
        Go on from ``checkpoints/last.pt``.
    budget
        Stop after so many seconds, those before a resumption included.
    device, devices
        Where; see `lightning.fit`.
    watch
        Told every point of the log.

    Raises
    ------
    InputError
        A plan that cannot be carried out, or a checkpoint of another one.
    DivergenceError
        A loss or gradient that is not finite.
    """
    from .lightning import Run, fit  # late: it imports pytorch-lightning

    modality = registry.modality(plan.modality)
    optimiser = plan.optimiser_settings
    loss = make_loss(plan.loss, modality)
    last = out / "checkpoints" / "last.pt"
    if last.exists() and not resume:
        raise InputError(f"output {out}", expected="a new folder", got="one with a checkpoint",
                         cure="add --resume, or choose another --out")  # fmt: skip
    sides = make_sides(plan, registry)
    first = sides.train[0]
    model, settings = _untrained(plan, registry, first)
    _check(model, loss, sides, first)
    progress = _progress(plan, last, resume, model)
    if optimiser.ema is None:
        progress.mean = None  # of an earlier run, and from here on not of these weights
    run = Run(
        batches=sides.train,
        validation=sides.validation,
        loss=loss,
        modality=modality,
        optimiser=optimiser,
        steps=plan.steps,
        validate_every=plan.validate_every,
        patience=plan.patience,
        checkpoint_every=plan.checkpoint_every,
        log_every=plan.log_every,
        seed=plan.seed,
        budget=budget,
        folder=out,
        watch=watch,
        tensorboard=plan.tensorboard,
    )
    stale = plan.patience is not None and progress.worse >= plan.patience
    if progress.step < plan.steps and not stale and (budget is None or progress.seconds < budget):
        fit(model, run, progress, device, devices)
    chosen = _choose(model, progress)
    used = safeguarded(model) if isinstance(loss, Objective) else model  # as inference runs it
    figures: dict[str, float] = {}
    if sides.validation:  # once more, since inference is in single precision whatever the training was in
        place = torch.device(device)
        held_out = copy.deepcopy(sides.validation)  # the norms of operators may have been estimated in bfloat16
        figures = evaluate(used.to(place), held_out, loss, modality, place)
        used.to("cpu")
    facts = _facts(plan, settings, sides, used, progress, chosen, figures)
    folder, card = _write(out, model, facts)
    return Trained(folder, card, progress.step, chosen)


def _untrained(plan: TrainingPlan, registry: Registry, example: Batch) -> tuple[Unrolled, dict[str, Any]]:
    """The network with its first weights, which the seed decides, and all its settings."""
    name = plan.architecture["name"]
    factory = registry.factory("architecture", name)
    _, settings = bind_factory(registry, factory, f"architecture '{name}'", plan.architecture_settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        model = registry.architecture(name, example.operator, plan.architecture_settings)
    if plan.initial:
        given = load_model(Path(plan.initial), registry, example.operator)
        if {k: p.shape for k, p in given.named_parameters()} != {k: p.shape for k, p in model.named_parameters()}:
            raise InputError(
                f"initial model {plan.initial}", expected=f"a model of the same '{name}'", got="another one"
            )
        seen = {s.name for s in read_card(Path(plan.initial)).learning.training}
        leaked = next((s.subject for s in plan.validation if s.subject in seen), None)
        if leaked is not None:
            raise InputError(f"subject '{leaked}'", expected="validation subjects that the initial model has not seen",
                             got="one it learned from", cure="hold whole subjects out")  # fmt: skip
        model.load_state_dict(given.state_dict())
    return model, settings


def _check(model: Unrolled, loss: Loss, sides: Sides, first: Batch) -> None:
    """Everything that would fail after a long wait, now."""
    if loss.needs_truth and any(b.truth is None for b in (first, *(sides.validation or ()))):
        raise InputError("loss", expected="one that needs no truth (objective, noise2inverse, ssdu)",
                         got="scans without a truth")  # fmt: skip
    with torch.no_grad():
        loss(model, first, torch.Generator().manual_seed(0))
    if not any(p.requires_grad for p in model.parameters()):
        raise InputError("architecture", expected="something to learn", got="no parameters")


def _progress(plan: TrainingPlan, last: Path, resume: bool, model: Unrolled) -> Progress:
    settings = _fixed(plan)
    if not resume:
        return Progress(settings=settings)
    progress = checkpoint.load(last)
    if progress.settings != settings:
        before, now = json.loads(progress.settings), json.loads(settings)
        changed = [key for key in now if before.get(key) != now[key]]
        raise InputError(f"checkpoint {last}", expected="a run of the same config", got=f"another {', '.join(changed)}",
                         cure="set it back, or train into another --out")  # fmt: skip
    checkpoint.check_fits(last, progress, model)
    return progress


_FREE = (
    "steps",
    "optimiser",
    "patience",
    "validate_every",
    "checkpoint_every",
    "log_every",
    "data_root",
    "tensorboard",
)


def _fixed(plan: TrainingPlan) -> str:
    """What a resumed run may not change, as text."""
    return json.dumps({k: v for k, v in asdict(plan).items() if k not in _FREE}, sort_keys=True, default=str)


def _choose(model: Unrolled, progress: Progress) -> int:
    """Load the weights to keep: those that validated best, else the mean, else the last."""
    if progress.best is not None:
        model.load_state_dict(progress.best)
        return progress.best_step
    model.load_state_dict(progress.weights)
    if progress.mean is not None:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(progress.mean[name])
    return progress.step


def _facts(
    plan: TrainingPlan,
    settings: dict[str, Any],
    sides: Sides,
    used: Unrolled,
    progress: Progress,
    chosen: int,
    figures: dict[str, float],
) -> Facts:
    name = str(plan.architecture["name"])
    A = sides.train[0].operator
    on = f"validation subjects {', '.join(s.subject for s in plan.validation)} (step {chosen})"
    cases = int(figures.get("cases", 0))
    return Facts(
        name=f"{plan.modality}.{slug(plan.name or name)}",
        version="1",
        modality=plan.modality,
        architecture=Architecture(name, {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}),
        scope=Scope(
            operator=sides.operator,
            images=number_type(A.domain),
            measurements=number_type(A.range),
            ranges={k: tuple(v) for k, v in progress.facts.items()},
            noise_std=(progress.noise_std[0], progress.noise_std[1]),
        ),
        learning=Learning(
            training=tuple(_subject(s) for s in plan.train),
            validation=tuple(_subject(s) for s in plan.validation),
            loss=json.dumps(plan.loss),
            seed=plan.seed,
            steps=progress.step,
            seconds=round(progress.seconds, 3),
            initial=_started_from(plan),
        ),
        metrics=tuple(Metric(k, figures[k], cases, on) for k in ("psnr", "ssim") if cases),
        certificate=_stability(used, sides.train[0].to("cpu")),
        safeguarded=any(isinstance(layer, Safeguard) for layer in used.layers),
    )


def _started_from(plan: TrainingPlan) -> str:
    """The model that training started from, in words; empty where there was none."""
    if not plan.initial:
        return ""
    card = read_card(Path(plan.initial))
    before = f"; {card.learning.initial}" if card.learning.initial else ""
    return f"{card.name} {card.version} after {card.learning.steps} steps, sha256 {card.sha256[:16]}{before}"


def _stability(model: Unrolled, example: Batch) -> Stability:
    with torch.no_grad():
        found = certificate(model.layers, model.problem(example.operator, example.measurement, example.noise_std))
    return Stability(found.bound, f"from the starting image to the last, on the first operator: {found.reason}")


def _subject(source: Source) -> SubjectFacts:
    given = source.files or source.scan
    what = f"phantom {source.phantom}" if given is None else Path(given).name
    return SubjectFacts(source.subject, what, source.licence or ("none needed" if given is None else "not stated"),
                        source.attribution)  # fmt: skip


def _write(out: Path, model: Unrolled, facts: Facts) -> tuple[Path, Card]:
    """The model as the next version: a run that goes on leaves what it wrote when it stopped before."""
    versions = out / facts.name
    number = 1
    while (versions / str(number)).exists():
        number += 1
    folder = versions / str(number)
    return folder, save_model(folder, model, replace(facts, version=str(number)))
