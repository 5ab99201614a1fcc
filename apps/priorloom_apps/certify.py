"""Certify a denoiser: what is proven and measured of it, and which algorithms then provably converge.

This is what ``priorloom certify`` runs; the library's part is ``priorloom.certify``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table
from torch import Tensor, nn

from priorloom import Denoiser, PnP, Problem, Space, Step
from priorloom.card import CARD_FILE, DenoiserFacts
from priorloom.certify import DenoiserReport, Judgement, certify_denoiser, judge
from priorloom.config import Plan, make_cases, override
from priorloom.errors import InputError, PluginError, PriorloomError
from priorloom.files import check_writable, json_value, write_atomic
from priorloom.modality import Case
from priorloom.models import add_certificate, newest_version
from priorloom.pipeline import least_squares
from priorloom.plug_and_play import RED
from priorloom.reconstruction import versions
from priorloom.registry import Registry
from priorloom.steps import ADMM, DRS, FISTA, HQS, ISTA, PDHG, DataProximal, GradientDescent, Relaxed
from priorloom.steps.accelerated import AcceleratedDescent
from priorloom.trained_denoiser import TrainedDenoiser

from .present import console

SCHEMA = 1
LEVELS = (0.02, 0.1)
"""Noise levels in units of the normalised image where none is asked for."""
SIDE = 64
"""Lower bounds are measured on the middle of the images: those of a larger image are as large or larger, but for its
edge, and take longer."""
IMAGES = 1
"""How many cases the lower bounds are measured on, each with and without noise."""
ITERATIONS, TOLERANCE = 6, 5e-2
"""Power iterations for each lower bound, and the relative residual at which the norms of large convolutions are left; a
small DRUNet takes about ten seconds of one core with them."""


@dataclass(frozen=True)
class Algorithm:
    """An algorithm with the denoiser at one noise level, on the first case of a modality.

    Parameters
    ----------
    name
        That of the method that runs it.
    sigma
        The noise level.
    judgement
        What is proven of it, with its default step sizes.
    """

    name: str
    sigma: float
    judgement: Judgement


@dataclass(frozen=True)
class Certificate:
    """A denoiser on one modality.

    Parameters
    ----------
    modality, case
        The modality, and the case whose operator the algorithms were judged with.
    reports
        One for each noise level.
    algorithms
        For each noise level, all algorithms.
    """

    modality: str
    case: str
    reports: tuple[DenoiserReport, ...]
    algorithms: tuple[Algorithm, ...]


def run_certify(
    name: str,
    registry: Registry,
    *,
    modality: str | None,
    sigma: float | None,
    settings: Sequence[str],
    seed: int,
    out: Path | None,
    card: bool = False,
    command: str = "",
) -> list[Certificate]:
    """Certify the denoiser of that name, print it, and write it to `out`.

    Parameters
    ----------
    modality
        One; absent, every modality that the denoiser can be built for.
    sigma
        The noise level in units of the normalised image; absent, `LEVELS`.
    settings
        ``denoiser.KEY=VALUE`` and ``operator.KEY=VALUE``, ``case.KEY=VALUE`` for the cases.
    seed
        Of the cases, the noise and the directions.
    card
        Put the result on the card of the trained model too.
    """
    registry.factory("denoiser", name)
    if sigma is not None and not 0 < sigma < math.inf:
        raise InputError("--sigma", expected="a positive number", got=sigma)
    if out is not None:
        check_writable(out.parent)
    plan = override(Plan(modality=modality, seed=seed), settings)
    given = {}
    for key, value in plan.settings.items():
        head, _, tail = key.partition(".")
        if head != "denoiser" or not tail:
            raise InputError(f"--set {key}", expected="denoiser.KEY, operator.KEY or case.KEY", got=key)
        given[tail] = value
    found: list[Certificate] = []
    refused: list[PriorloomError] = []
    for one in (modality,) if modality else registry.names("modality"):
        parameters = {p.name for p in registry.parameters("denoiser", name)}
        told = {"modality": one} if "modality" in parameters and "modality" not in given else {}
        try:
            cases = make_cases(override(Plan(modality=one, seed=seed), [s for s in settings if not _own(s)]), registry)
            found.append(_on_modality(registry, name, {**told, **given}, cases[:IMAGES], sigma, seed))
        except (InputError, PluginError) as error:  # no weights for this modality, or for its kind of numbers
            if modality is not None:
                raise
            refused.append(error)
    if not found:
        raise refused[0]
    for certificate in found:
        show(name, certificate)
    for reason in refused:
        console().print(f"note: left out: {reason}", highlight=False, markup=False)
    if out is not None:
        write_atomic(out, to_json(name, found, seed, command))
        print(f"wrote {out}")
    for certificate in found if card else ():
        folder = _folder(registry, name, certificate.modality, given.get("path"))
        add_certificate(folder, facts(certificate))
        print(f"wrote the card of {folder}")
    return found


def _folder(registry: Registry, name: str, modality: str, path: object) -> Path:
    """The folder of the trained model in the slot."""
    if path is None:
        return registry.model(f"{modality}.{name}")
    folder = Path(str(path))
    return folder if (folder / CARD_FILE).exists() else newest_version(folder)


def facts(certificate: Certificate) -> tuple[DenoiserFacts, ...]:
    """The certificate as a model's card has it."""
    found = []
    for r in certificate.reports:
        judged = {a.name: a.judgement for a in certificate.algorithms if a.sigma == r.sigma}
        texts = {
            label: f"{j.theorem}: {j.condition} ({j.reference})" if j.certified else f"not certified: {j.reason}"
            for label, j in judged.items()
        }
        found.append(
            DenoiserFacts(r.sigma, r.verdict, r.kind, r.upper, r.upper_residual, r.lower, r.lower_residual, texts)
        )
    return tuple(found)


def _own(text: str) -> bool:
    return text.strip().startswith("denoiser.")


def _on_modality(
    registry: Registry, name: str, parameters: dict[str, Any], cases: Sequence[Case], sigma: float | None, seed: int
) -> Certificate:
    kind = registry.modality(cases[0].modality)
    whole = cases[0].operator.domain
    # Cases may differ in size
    sides = [min(SIDE, *sizes) for sizes in zip(*(c.operator.domain.shape for c in cases), strict=True)]
    space = Space(tuple(sides), whole.dtype)
    denoiser, full = (_ready(registry.denoiser(name, s, **parameters)) for s in (space, whole))
    images = [_middle(c.truth / kind.scale(c), space) for c in cases if c.truth is not None]
    highest = denoiser.noise[1] if isinstance(denoiser, TrainedDenoiser) else math.inf
    levels = (sigma,) if sigma is not None else tuple(dict.fromkeys(min(s, highest) for s in LEVELS))
    reports: list[DenoiserReport] = []
    algorithms: list[Algorithm] = []
    for level in levels:
        before = reports[0] if reports else None
        report = certify_denoiser(
            denoiser, space, level, images, iterations=ITERATIONS, tolerance=TOLERANCE, seed=seed, before=before
        )
        reports.append(report)
        for label, judgement in judgements(cases[0].scaled(kind.scale(cases[0])), full, level):
            if report.contradiction:
                judgement = Judgement(False, reason=f"a measurement contradicts a claim: {report.contradiction}")
            algorithms.append(Algorithm(label, level, judgement))
    return Certificate(kind.name, cases[0].name, tuple(reports), tuple(algorithms))


def _ready(denoiser: Denoiser) -> Denoiser:
    return denoiser.eval() if isinstance(denoiser, nn.Module) else denoiser


def _middle(image: Tensor, space: Space) -> Tensor:
    starts = [(n - m) // 2 for n, m in zip(image.shape, space.shape, strict=True)]
    return image[tuple(slice(a, a + m) for a, m in zip(starts, space.shape, strict=True))].contiguous()


def judgements(case: Case, denoiser: Denoiser, sigma: float) -> list[tuple[str, Judgement]]:
    """What is proven of every algorithm with the denoiser, on a normalised case, with default step sizes."""
    space = case.operator.domain
    data = least_squares(case)
    slot = Problem(data, PnP(space, denoiser, sigma))
    # The weight of the data's own scale: both terms matter alike.
    red = Problem(data, RED(space, denoiser, sigma, data.lipschitz() or 1.0))
    steps: list[tuple[str, Step[Any], Problem]] = [
        ("pnp-pgd", ISTA(), slot),
        ("pnp-pgd, damped", Relaxed(ISTA()), slot),
        ("pnp-fista", FISTA(), slot),
        ("pnp-admm", ADMM(), slot),
        ("pnp-drs", DRS(), slot),
        ("pnp-hqs", HQS(), slot),
        ("pnp-pdhg", PDHG(), slot),
        ("red-gradient", GradientDescent(), red),
        ("red-accelerated", AcceleratedDescent(), red),
        ("red-proximal", DataProximal(), red),
    ]
    return [(label, judge(step, problem)) for label, step, problem in steps]


def to_json(name: str, found: Sequence[Certificate], seed: int, command: str) -> bytes:
    """The content of the file; infinite numbers become null."""
    document = {
        "schema": SCHEMA, "command": command, "seed": seed, "versions": dict(versions()), "denoiser": name,
        "modalities": [
            {
                "modality": c.modality, "case": c.case, "reports": [r.to_json() for r in c.reports],
                "algorithms": [
                    {"algorithm": a.name, "sigma": a.sigma, **a.judgement.to_json()} for a in c.algorithms
                ],
            }
            for c in found
        ],
    }  # fmt: skip
    return (json.dumps(json_value(document), indent=1, allow_nan=False) + "\n").encode()


def show(name: str, certificate: Certificate) -> None:
    """Print the tables of one modality."""
    shell = console()
    first = certificate.reports[0]
    grid = " x ".join(map(str, first.shape))
    shell.print(f"[bold]{escape(name)} for {certificate.modality}[/] ({escape(first.denoiser)}, images of {grid})",
                highlight=False)  # fmt: skip
    shell.print(_bounds(certificate.reports))
    shell.print(f"lower bounds by {first.how}; upper bounds hold for all images", highlight=False)
    for text in dict.fromkeys(r.regularity.reason for r in certificate.reports if r.regularity.reason):
        shell.print(f"proven: {text}" if first.verdict == "certified" else text, highlight=False, markup=False)
    for report in certificate.reports:
        if report.contradiction:
            shell.print(f"[bold red]contradiction[/] at sigma {report.sigma:g}: {escape(report.contradiction)}")
    if first.convolutions:
        largest = max(first.convolutions, key=lambda c: c.norm)
        shell.print(
            f"{len(first.convolutions)} convolutions, the largest norm {largest.norm:.4g} (at most {largest.bound:.4g},"
            f" {largest.name or 'filters'}), the product of their bounds {first.product:.3g}",
            highlight=False, markup=False,
        )  # fmt: skip
    shell.print(_algorithms(certificate))


def _bounds(reports: Sequence[DenoiserReport]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("sigma", "verdict", "class", "D at most", "images", "random", "I - D at most", "images", "random"):
        table.add_column(column, justify="left" if column in ("verdict", "class") else "right")
    for r in reports:
        (image, image_rest), (noise, noise_rest) = r.lower_at("image"), r.lower_at("random")
        table.add_row(
            f"{r.sigma:g}", r.verdict, r.kind, _number(r.upper), f"{image:.4f}", f"{noise:.4f}",
            _number(r.upper_residual), f"{image_rest:.4f}", f"{noise_rest:.4f}",
        )  # fmt: skip
    return table


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g}"


def _algorithms(certificate: Certificate) -> Table:
    """One row per algorithm; more where the noise levels differ in the verdict."""
    table = Table("algorithm", "certified", "condition, or why not", "theorem and reference", box=None, pad_edge=False)
    rows: dict[tuple[str, Judgement], list[float]] = {}
    for a in certificate.algorithms:
        rows.setdefault((a.name, a.judgement), []).append(a.sigma)
    levels = len(certificate.reports)
    for (label, j), sigmas in sorted(rows.items(), key=lambda row: _order(certificate, row[0][0])):
        shown = label if len(sigmas) == levels else f"{label} at sigma {', '.join(f'{s:g}' for s in sigmas)}"
        why = j.condition if j.certified else j.reason + ("" if j.remedy == "none" else f"; remedy: {j.remedy}")
        table.add_row(shown, "yes" if j.certified else "[bold red]no[/]", escape(why),
                      escape(f"{j.theorem}: {j.reference}" if j.theorem else ""))  # fmt: skip
    return table


def _order(certificate: Certificate, name: str) -> int:
    return next(i for i, a in enumerate(certificate.algorithms) if a.name == name)
