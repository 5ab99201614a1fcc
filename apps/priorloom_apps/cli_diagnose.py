"""``priorloom diagnose``: the commands that measure operators and networks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from priorloom.registry import Registry

from .cli_options import Debug, Device, Json, Modality, Seed, Set, command_line, plan_from

diagnose = typer.Typer(
    help="Evidence about operators (spectrum, null space, noise) and networks (error split, gradient flow, schedule)."
)


@diagnose.command("unrolled")
def diagnose_unrolled(
    model: Annotated[str, typer.Argument(help="A registered model, e.g. ct.learned-primal-dual, or its folder.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of diagnose.json and the pictures.")] = Path(
        "priorloom-diagnose"
    ),
    cases: Annotated[int, typer.Option("--cases", help="How many simulated cases.")] = 1,
    set: Set = None,
    seed: Annotated[int, typer.Option("--seed", help="Seeds noise, phantoms and masks; recorded.")] = 0,
    device: Device = "cpu",
    debug: Debug = False,
) -> None:
    """Measure a trained unrolled network: error split and crossover, gradient flow, learned schedule."""
    from .diagnose.unrolled import run_unrolled

    run_unrolled(
        model,
        Registry.discover(),
        out,
        count=cases,
        settings=set or [],
        seed=seed,
        device=device,
        command=command_line(),
    )


@diagnose.command("operator")
def diagnose_operator(
    config: Annotated[Path | None, typer.Argument(help="A YAML file, as for compare: where cases come from.")] = None,
    modality: Modality = None,
    input: Annotated[Path | None, typer.Option("--input", "-i", help="Measured data; simulated without it.")] = None,
    image: Annotated[Path | None, typer.Option("--image", help=".npy: whose null space; the truth without it.")] = None,
    perturbation: Annotated[Path | None, typer.Option("--perturbation", help=".npy: a change of the image.")] = None,
    values: Annotated[int, typer.Option("--values", help="How many singular values at either end.")] = 20,
    samples: Annotated[int, typer.Option("--samples", help="Realisations of noise for the noise map.")] = 64,
    set: Set = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of operator.json and the pictures.")] = Path(
        "priorloom-diagnose"
    ),
    seed: Seed = None,
    as_json: Json = False,
    device: Device = "cpu",
    debug: Debug = False,
) -> None:
    """Say how hard a problem is before reconstructing: spectrum, null space, Picard plot, noise map, stability."""
    from .diagnose.operator import run_operator

    plan = plan_from(config, modality, input, seed, set)
    run_operator(
        plan, Registry.discover(), out, count=values, samples=samples, image=image,
        perturbation=perturbation, device=device, as_json=as_json, command=command_line(),
    )  # fmt: skip


@diagnose.command("stability")
def diagnose_stability(
    method: Annotated[str, typer.Argument(help="A pipeline, or the label of a row of the config.")],
    config: Annotated[Path | None, typer.Argument(help="A YAML file, as for compare: where cases come from.")] = None,
    modality: Modality = None,
    input: Annotated[Path | None, typer.Option("--input", "-i", help="Measured data; simulated without it.")] = None,
    against: Annotated[str, typer.Option("--against", help="The baseline, a pipeline.")] = "tv-pdhg",
    tuned: Annotated[
        Path | None, typer.Option("--tuned", help="A record of priorloom tune for the baseline; tuned here without.")
    ] = None,
    level: Annotated[float, typer.Option("--level", help="Norm of a perturbation, in norms of the noise.")] = 1.0,
    iterations: Annotated[int | None, typer.Option("--iterations", help="Of the ascent, from each start: 6.")] = None,
    restarts: Annotated[int | None, typer.Option("--restarts", help="Random starts besides the first: 1.")] = None,
    anatomy: Annotated[Path | None, typer.Option("--anatomy", help="Another image to shift to.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Shorter searches, so weaker lower bounds.")] = False,
    set: Set = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of stability.json and the pictures.")] = Path(
        "priorloom-diagnose"
    ),
    seed: Seed = None,
    as_json: Json = False,
    device: Device = "cpu",
    debug: Debug = False,
) -> None:
    """Say how stable a method is beside tuned TV: local Lipschitz constant, worst perturbation, shifted conditions."""
    from .diagnose.stability import run_stability

    plan = plan_from(config, modality, input, seed, set)
    run_stability(
        plan, method, Registry.discover(), out, against=against, tuned=tuned, level=level, iterations=iterations,
        restarts=restarts, quick=quick, anatomy=anatomy, device=device, as_json=as_json, command=command_line(),
    )  # fmt: skip
