"""Diagnose the stability of a reconstruction method, beside tuned total variation on the same data.

This is what ``priorloom diagnose stability`` runs; the library's part is ``priorloom.diagnose.stability``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from priorloom.choice import on_cases
from priorloom.chosen import Chosen, apply_chosen, read_chosen
from priorloom.config import Plan, make_cases, make_methods
from priorloom.diagnose.method_map import MethodMap
from priorloom.diagnose.perturbation import norm
from priorloom.diagnose.stability import QUICK, Budget, Stability, check_level, noise_norm, stability
from priorloom.errors import InputError, OutputError
from priorloom.files import check_writable, write_atomic
from priorloom.modality import Case, slug
from priorloom.parameters import TIMES
from priorloom.pipeline import Range
from priorloom.reconstruction import Method
from priorloom.registry import Registry

from ..device import on_device
from ..output import npy_bytes
from ..present import tell
from ..tune import method_named
from .shifts import Shift, run_shifts
from .stability_json import perturbation_file, to_json

TRIALS, QUICK_TRIALS = 7, 3
"""Settings of the baseline that are tried on every tuning case."""
WITHIN = 10.0
"""A decade either way of what the baseline chooses by itself: where its weight is searched."""


@dataclass(frozen=True)
class Baseline:
    """What a method is measured against.

    Parameters
    ----------
    method
        With its settings.
    record
        How they were chosen; None where they were not.
    standing
        The same in words.
    """

    method: Method
    record: Chosen | None
    standing: str


@dataclass(frozen=True)
class CaseStability:
    """All that was found on one case.

    Parameters
    ----------
    case, modality, measurement
        Names, and the shape of the measurement.
    noise_std, noise_source, level
        The noise per entry of the data in its units, whether it was given or estimated, and what a perturbation was
        allowed in units of its norm.
    method, against, baseline
        The two searches, and how the baseline was chosen.
    on_method, on_against
        The amplification of each under the other's worst perturbation.
    shifts
        Under other conditions; the first is the case's own.
    seed
        Of the searches.
    notes
        What was left out, and why.
    """

    case: str
    modality: str
    noise_std: float
    noise_source: str
    level: float
    method: Stability
    against: Stability
    baseline: Baseline
    on_method: float
    on_against: float
    shifts: tuple[Shift, ...]
    seed: int
    notes: tuple[str, ...]

    @property
    def largest(self) -> tuple[float, float]:
        """The largest amplification that was found for either: by its own search or by the other's."""
        return (
            max(self.method.worst.amplification, self.on_method),
            max(self.against.worst.amplification, self.on_against),
        )


def run_stability(
    plan: Plan,
    name: str,
    registry: Registry,
    out: Path,
    *,
    against: str = "tv-pdhg",
    tuned: Path | None = None,
    level: float = 1.0,
    iterations: int | None = None,
    restarts: int | None = None,
    quick: bool = False,
    anatomy: Path | None = None,
    device: str = "cpu",
    as_json: bool = False,
    command: str = "",
) -> list[CaseStability]:
    """Diagnose a method on the first case of each modality that it runs on; write ``stability.json``, the worst
    perturbations and the pictures in `out`, and print it.

    Parameters
    ----------
    plan
        As for a comparison: where the cases come from, and the method's settings.
    name
        The method: a row of the config, or a pipeline.
    against, tuned
        The baseline: a pipeline; tuned here on the same image under another seed, or by a record of ``priorloom tune``.
    level
        Largest norm of a perturbation, in units of the norm of the noise.
    iterations, restarts, quick
        What the searches may spend (`Budget`); `quick` spends less on all that is not given.
    anatomy
        Another image for the shifts, as ``case.files`` takes it.
    as_json
        Print the JSON in the place of text.
    """
    check_level(level)
    spent = _budget(QUICK if quick else Budget(), iterations, restarts, plan.seed)
    method = method_named(plan, name, registry)
    registry.factory("pipeline", against)
    record = None if tuned is None else read_chosen(tuned)
    rows = _rows(plan, method, registry)
    check_writable(out)
    trials = QUICK_TRIALS if quick else TRIALS
    ready: list[tuple[Plan, Case, Method, Baseline, float, str]] = []
    for modality, (row, cases) in rows.items():
        mine, case = replace(plan, modality=modality), on_device(cases[0], device)
        noise_std, source = _noise(case, registry)
        noise_norm(case, noise_std)  # all that can be refused, before the first search
        baseline = _baseline(mine, against, record, cases, registry, trials, device)
        if row.name == baseline.method.name:
            baseline = replace(baseline, method=replace(baseline.method, label=slug(f"{row.name}-baseline")))
        ready.append((mine, case, row, baseline, noise_std, source))
    found = []
    for mine, case, row, baseline, noise_std, source in ready:
        on_both = _searches(case, (row, baseline.method), noise_std, level, spent, registry, plan.seed)
        shifts, notes = run_shifts(mine, case, (row, baseline.method), registry, anatomy, device, tell)
        found.append(
            CaseStability(case.name, case.modality, noise_std, source, level, *on_both[0], baseline, *on_both[1],
                          tuple(shifts), spent.seed, tuple(notes))
        )  # fmt: skip
    content = to_json(found, plan.seed, command)
    write_atomic(out / "stability.json", content)
    if as_json:
        print(content.decode(), end="")
    _publish(found, [case for _, case, *_ in ready], registry, out, quiet=as_json)
    return found


def _budget(usual: Budget, iterations: int | None, restarts: int | None, seed: int) -> Budget:
    for what, value, least in (("--iterations", iterations, 1), ("--restarts", restarts, 0)):
        if value is not None and value < least:
            raise InputError(what, expected=f"at least {least}", got=value)
    return replace(
        usual, seed=seed, iterations=usual.iterations if iterations is None else iterations,
        restarts=usual.restarts if restarts is None else restarts,
    )  # fmt: skip


def _rows(plan: Plan, method: Method, registry: Registry) -> dict[str, tuple[Method, list[Case]]]:
    """The method with its settings and the cases, by modality; where no modality is named, of those that it fits."""
    fits = registry.pipeline(method.pipeline).modalities
    if plan.modality is None and len(fits) == 1 and plan.input is None:
        plan = replace(plan, modality=fits[0])
    cases = make_cases(plan, registry)
    modalities = list(dict.fromkeys(c.modality for c in cases))
    rows: dict[str, tuple[Method, list[Case]]] = {}
    problem: InputError | None = None
    for modality in modalities:
        try:
            (row,) = make_methods(replace(plan, methods=(method,)), registry, [modality])[modality]
        except InputError as error:
            problem = problem or error
            continue
        if row.rule is not None:
            raise InputError(f"'{row.rule.parameter}' of method '{row.name}'", expected="a value", got="a rule",
                             cure="choose it by priorloom tune, and set it")  # fmt: skip
        rows[modality] = row, [c for c in cases if c.modality == modality]
    if not rows:
        assert problem is not None
        raise problem
    return rows


def _noise(case: Case, registry: Registry) -> tuple[float, str]:
    if case.noise_std is not None:
        return case.noise_std, "given"
    # On the normalised case, as a reconstruction estimates it.
    modality = registry.modality(case.modality)
    scale = modality.scale(case)
    return modality.noise_std(case.scaled(scale)) * scale, "estimated"


def _baseline(
    plan: Plan, name: str, record: Chosen | None, cases: Sequence[Case], registry: Registry, trials: int, device: str
) -> Baseline:
    """The baseline as the record has it, else tuned on the first case under another seed.

    Raises
    ------
    InputError
        A record of another method or modality, or one that was tuned on the case itself.
    """
    method = Method(name)
    if record is not None:
        rows = apply_chosen([record], {cases[0].modality: [replace(method, label=record.label)]}, cases[:1], registry)
        (row,) = rows[cases[0].modality]
        names = ", ".join(c.name for c in record.cases)
        return Baseline(row, record, f"{record.rule} on {names}, {record.budget} runs (record)")
    searched = registry.pipeline(name).search
    parameter = next((p for p, r in searched.items() if isinstance(r, Range) and r.relative), None)
    if parameter is None:
        return Baseline(method, None, "as it is by default: it has no weight to tune")
    # The same image under other noise: images of another kind may call for another weight, and a baseline with the
    # wrong one would flatter the method.
    tuning: list[Case] = []
    other = replace(plan, seed=(plan.seed + 1) % 2**31)
    if plan.input is None:
        tuning = [c for c in make_cases(other, registry) if c.name == cases[0].name and c.truth is not None]
    if not tuning:
        return Baseline(method, None, "NOT tuned: there is no case with a truth to tune it on")
    how = f"the same image, seed {other.seed}"
    tell(f"tuning {name}: {trials} values of {parameter} on {how}")
    found = on_cases(
        [on_device(c, device) for c in tuning], method, {f"{parameter}{TIMES}": (1 / WITHIN, WITHIN)},
        budget=trials * len(tuning), registry=registry, seed=plan.seed,
    )  # fmt: skip
    return Baseline(found.method, found, f"tuned: the best PSNR of {trials} weights on {how}, to its advantage")


def _searches(
    case: Case, methods: tuple[Method, Method], noise_std: float, level: float, budget: Budget, registry: Registry,
    seed: int,
) -> tuple[tuple[Stability, Stability], tuple[float, float]]:  # fmt: skip
    """Both methods by themselves, and the amplification of each under the worst perturbation of the other."""
    one, two = (MethodMap(case, method, registry=registry, seed=seed) for method in methods)

    def note(text: str) -> None:
        tell(f"{case.name}: {text}")

    def search(F: MethodMap) -> Stability:
        return stability(F, case, noise_std, level=level, budget=budget, tell=note)

    def under(F: MethodMap, own: Stability, other: Stability) -> float:
        return norm(F(case.measurement + other.worst.d) - own.image) / norm(other.worst.d)

    mine, theirs = search(one), search(two)
    return (mine, theirs), (under(one, mine, theirs), under(two, theirs, mine))


def _publish(
    found: Sequence[CaseStability], cases: Sequence[Case], registry: Registry, out: Path, *, quiet: bool
) -> None:
    from .stability_text import show

    wrote = ["stability.json"]
    for one in found:
        if not quiet:
            show(one, registry.modality(one.modality))
        for s in (one.method, one.against):
            wrote.append(perturbation_file(one, s))
            write_atomic(out / wrote[-1], npy_bytes(s.worst.d.cpu().numpy()))
    try:
        for name, content in _pictures(found, cases, registry).items():
            write_atomic(out / name, content)
            wrote.append(name)
    except OutputError:
        raise
    except InputError as error:  # the extra [report] is not installed; the figures are complete without it
        tell(f"note: no pictures: {error}")
    tell(f"wrote {', '.join(f'{out}/{name}' for name in wrote)}")


def _pictures(found: Sequence[CaseStability], cases: Sequence[Case], registry: Registry) -> Mapping[str, bytes]:
    from .stability_pictures import picture

    pairs = zip(found, cases, strict=True)
    return {f"stability-{one.case}.png": picture(one, case, registry.modality(one.modality)) for one, case in pairs}
