"""The command line: commands parse, call the library and print; heavy imports wait until they are needed."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from priorloom.errors import InputError, PriorloomError, did_you_mean
from priorloom.registry import KINDS, ComponentKind, Registry

from .cli_diagnose import diagnose
from .cli_options import Debug, Device, Json, Modality, Seed, Set, command_line, plan_from
from .complaint import complaint

app = typer.Typer(
    name="priorloom",
    help="Reconstruct CT and MRI images with classical, plug-and-play and learned priors, and compare them honestly.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
components = typer.Typer(help="What is installed, by kind.")
app.add_typer(components, name="components")
app.add_typer(diagnose, name="diagnose")
cache = typer.Typer(help="What is kept on disk between runs: matrices that are costly to compute.")
app.add_typer(cache, name="cache")


@app.command()
def compare(
    config: Annotated[Path | None, typer.Argument(help="A YAML file; without it the embedded default runs.")] = None,
    modality: Modality = None,
    input: Annotated[Path | None, typer.Option("--input", "-i", help="Measured data; simulated without it.")] = None,
    method: Annotated[list[str] | None, typer.Option("--method", help="Repeat for several.")] = None,
    set: Set = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the results.")] = Path("priorloom-out"),
    seed: Seed = None,
    tuned: Annotated[
        list[Path] | None, typer.Option("--tuned", help="A record of priorloom tune to apply; repeat for several.")
    ] = None,
    device: Device = "cpu",
    debug: Debug = False,
) -> None:
    """Run several methods on the same data; write results.json, report.html and the images."""
    from .compare import run_comparison

    plan = plan_from(config, modality, input, seed, set, method)
    run_comparison(plan, Registry.discover(), out, device, command=command_line(), tuned=tuned or [])


@app.command()
def reproduce(
    folder: Annotated[Path, typer.Argument(help="What compare wrote: its capsule.json says what to run.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of the second run; FOLDER/reproduced without it.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Where files are that moved; recognised by name and content.")
    ] = None,
    device: Annotated[str | None, typer.Option("--device", "-d", help="cpu or cuda; as recorded without it.")] = None,
    debug: Debug = False,
) -> int:
    """Run a comparison again from its capsule, and compare the results: exit 0 when they hold, 1 when they do not."""
    from .reproduce import run_reproduce

    return run_reproduce(folder, Registry.discover(), out, data, device, command=command_line())


@app.command()
def reconstruct(
    input: Annotated[Path, typer.Argument(help="Measured data.")],
    method: Annotated[str, typer.Option("--method", help="A pipeline; see 'components list'.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Image to write: .npy (values) or .png (picture).")],
    modality: Modality = None,
    set: Set = None,
    seed: Seed = None,
    device: Device = "cpu",
    debug: Debug = False,
) -> None:
    """Reconstruct one measurement with one method."""
    from .reconstruct import run_reconstruction

    run_reconstruction(plan_from(None, modality, input, seed, set), method, Registry.discover(), out, device)


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="A YAML file; see docs/training.md.")],
    set: Annotated[
        list[str] | None,
        typer.Option("--set", "-s", help="KEY=VALUE with the config's keys, e.g. optimiser.learning_rate=0.0005."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run.")] = Path("priorloom-train"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in --out.")] = False,
    budget: Annotated[str | None, typer.Option("--budget", help="Stop after e.g. 20m, 90s or 1h30m.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Decides the first weights and every batch.")] = None,
    device: Device = "cpu",
    debug: Debug = False,
) -> None:
    """Train a network; write checkpoints, the log, the loss curve and the model with its card."""
    from priorloom.train.config import load

    from .train import run_training

    assignments = [*(set or []), *([] if seed is None else [f"seed={seed}"])]
    run_training(load(config, assignments), Registry.discover(), out, resume=resume, budget=budget, device=device)


@components.command("list")
def list_components(as_json: Json = False) -> None:
    """List every component by kind, with the plugin that offers it."""
    registry = Registry.discover()
    found = {kind: {name: registry.source(kind, name) for name in registry.names(kind)} for kind in KINDS}
    if as_json:
        print(json.dumps(found, indent=1))
        return
    table = Table("kind", "name", "plugin", box=None, pad_edge=False)
    for kind, names in found.items():
        for name, source in names.items():
            table.add_row(kind, name, source)
    _console().print(table)
    _warn_broken(registry)


@components.command("show")
def show_component(
    kind: Annotated[str, typer.Argument(help=", ".join(KINDS) + ".")],
    name: Annotated[str, typer.Argument(help="Its name.")],
    as_json: Json = False,
) -> None:
    """Show what a component is and its parameters: name, type, default, meaning; a trained model's card."""
    import inspect

    from priorloom.parameters import REQUIRED

    registry = Registry.discover()
    if kind not in KINDS:
        raise InputError(f"unknown kind '{kind}'", cure=did_you_mean(kind, KINDS))
    known: ComponentKind = kind
    summary = (inspect.getdoc(registry.factory(known, name)) or "").split("\n\n")[0]
    parameters = registry.parameters(known, name)
    card = None
    if known == "model":
        from priorloom.card import read_card, to_json

        card = read_card(registry.model(name))
        summary = card.summary
    if as_json:
        described = [
            {"name": p.name, "type": p.type_name, "required": p.default is REQUIRED, "help": p.help}
            | ({} if p.default is REQUIRED else {"default": _jsonable(p.default)})
            for p in parameters
        ]
        shown = {"kind": kind, "name": name, "plugin": registry.source(known, name), "summary": summary}
        told = {"card": json.loads(to_json(card))} if card else {}
        print(json.dumps({**shown, "parameters": described, **told}, indent=1))
        return
    console = _console()
    console.print(f"[bold]{kind} {name}[/] (plugin {registry.source(known, name)})")
    console.print(" ".join(summary.split()), highlight=False, markup=False)
    table = Table("parameter", "type", "default", "meaning", box=None, pad_edge=False)
    for p in parameters:
        table.add_row(*(_escaped(str(v)) for v in (p.name, p.type_name, p.default, p.help)))
    console.print(table if parameters else "no parameters")


@app.command()
def plugins(as_json: Json = False) -> None:
    """List the plugins: name, distribution, version, what they offer, or why they could not be loaded."""
    registry = Registry.discover()
    if as_json:
        print(json.dumps([vars(p) for p in registry.plugins], indent=1))
        return
    table = Table("plugin", "distribution", "version", "offers", box=None, pad_edge=False)
    for p in registry.plugins:
        offers = ", ".join(f"{len(names)} {kind}s" for kind, names in p.components.items()).replace(
            "modalitys", "modalities"
        )
        table.add_row(p.name, p.distribution, p.version, f"[red]broken: {_escaped(p.error)}[/]" if p.error else offers)
    _console().print(table)


@app.command()
def check(
    name: Annotated[str, typer.Argument(help="Any installed component.")],
    kind: Annotated[str | None, typer.Option("--kind", help="When several kinds have the name.")] = None,
    set: Set = None,
    debug: Debug = False,
) -> None:
    """Run the conformance kit on an installed component."""
    from .check import run_check

    run_check(Registry.discover(), name, kind, set or [])


@app.command()
def tune(
    method: Annotated[str, typer.Argument(help="A pipeline, or the label of a row of the config.")],
    config: Annotated[Path | None, typer.Argument(help="A YAML file, as for compare: where cases come from.")] = None,
    over: Annotated[
        list[str] | None, typer.Option("--over", help="PARAMETER=LOW:HIGH, e.g. sigma=0.01:0.2; repeat for several.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="JSON file to write.")] = Path("priorloom-tuned.json"),
    rule: Annotated[
        str, typer.Option("--rule", help="cases (tuning cases), discrepancy, lcurve, gcv, sure, or oracle (reference).")
    ] = "cases",
    budget: Annotated[int | None, typer.Option("--budget", help="Runs of the method in all; recorded.")] = None,
    measure: Annotated[str | None, typer.Option("--measure", help="psnr, ssim or nmse, for the rule cases.")] = None,
    modality: Modality = None,
    input: Annotated[Path | None, typer.Option("--input", "-i", help="Measured data; simulated without it.")] = None,
    set: Set = None,
    seed: Seed = None,
    device: Device = "cpu",
    debug: Debug = False,
) -> None:
    """Choose a method's parameters on tuning cases, or by a rule on one; write the record for compare."""
    from .tune import run_tune

    plan = plan_from(config, modality, input, seed, set)
    run_tune(
        plan, method, over or [], Registry.discover(), out, rule=rule, budget=budget,
        measure=measure, device=device,
    )  # fmt: skip


@app.command()
def certify(
    name: Annotated[str, typer.Argument(help="A denoiser; see 'components list'.")],
    modality: Modality = None,
    sigma: Annotated[
        float | None, typer.Option("--sigma", help="Noise level in units of the normalised image; two without it.")
    ] = None,
    set: Annotated[
        list[str] | None,
        typer.Option("--set", "-s", help="KEY=VALUE, e.g. denoiser.path=FOLDER, operator.views=30."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="JSON file to write.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seeds images, noise and directions; recorded.")] = 0,
    card: Annotated[bool, typer.Option("--card", help="Put the result on the card of the trained model.")] = False,
    debug: Debug = False,
) -> None:
    """Bound a denoiser's Lipschitz constants, and say which algorithms provably converge with it."""
    from .certify import run_certify

    run_certify(
        name, Registry.discover(), modality=modality, sigma=sigma, settings=set or [], seed=seed, out=out,
        card=card, command=command_line(),
    )  # fmt: skip


@app.command()
def bench(
    operator: Annotated[
        list[str] | None, typer.Option("--operator", help="E.g. ct.parallel2d; repeat for several; all without it.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="One case of each operator, a second of timing.")] = False,
    repeats: Annotated[
        int | None, typer.Option("--repeats", help="Rounds of every contender; as many as fit without it.")
    ] = None,
    as_json: Json = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File to write too: .json, or .md (a table).")] = None,
    device: Device = "cpu",
    debug: Debug = False,
) -> None:
    """Time operators beside the other implementations that are installed; with memory and the machine's bound."""
    from .bench import run_bench

    run_bench(
        Registry.discover(), operator or [], quick=quick, repeats=repeats, device=device, as_json=as_json, out=out,
        command=command_line(),
    )  # fmt: skip


@app.command()
def studio(
    scan: Annotated[Path | None, typer.Argument(help="Measured data under the root; simulated without it.")] = None,
    root: Annotated[Path, typer.Option("--root", help="No file outside of this folder is read or written.")] = Path(),
    port: Annotated[int | None, typer.Option("--port", help="Of the page; any free one without it.")] = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Print the address only.")] = False,
    modality: Modality = None,
    debug: Debug = False,
) -> None:
    """Open a page on this machine: move parameters, watch images converge, save the config (extra: studio)."""
    from .studio.serve import run_studio

    run_studio(Registry.discover(), root, scan, modality, port=port, browser=not no_browser)


@cache.command("list")
def cache_list(as_json: Json = False) -> None:
    """Show what the cache holds, and where."""
    from .cache import list_cache

    list_cache(_console(), as_json)


@cache.command("clear")
def cache_clear() -> None:
    """Delete what the cache holds; it is made again when it is needed."""
    from .cache import empty_cache

    empty_cache(_console())


def main() -> None:
    """Entry point: one line and exit 2 for the user's mistakes, 1 for anything else; a traceback only with --debug."""
    arguments = sys.argv[1:]
    if arguments in ([], ["components"], ["diagnose"]):
        arguments = [*arguments, "--help"]
    debug = "--debug" in arguments or os.environ.get("PRIORLOOM_DEBUG") == "1"
    try:
        status = app(arguments, standalone_mode=False)
    except (KeyboardInterrupt, Exception) as error:
        if debug and not hasattr(error, "format_message"):  # a usage error has no traceback worth reading
            raise
        status = _report(error)
    code = status if isinstance(status, int) else 0
    if code == _INTERRUPTED:
        _complain("interrupted; what was finished is kept")
        code = 1
    sys.exit(code)


_INTERRUPTED = 130  # what typer returns after Ctrl-C


def _report(error: BaseException) -> int:
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return _INTERRUPTED
    if isinstance(error, InputError):
        _complain(str(error))
        return 2
    if isinstance(error, PriorloomError):
        _complain(str(error))
        return 1
    usage = getattr(error, "format_message", None)  # typer's own errors: an unknown option, a missing argument
    if usage is not None:
        _complain(" ".join(usage().split()) + "; see --help")
        return 2
    if not isinstance(error, BrokenPipeError):
        _complain(complaint(error))
    return 1


def _complain(text: str) -> None:
    print(f"priorloom: {text}", file=sys.stderr)


def _warn_broken(registry: Registry) -> None:
    for p in registry.plugins:
        if p.error:
            _complain(f"plugin '{p.name}' ({p.distribution} {p.version}) is not loaded: {p.error}")


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else 160, soft_wrap=not sys.stdout.isatty())


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _jsonable(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | None | list | tuple) else str(value)


if __name__ == "__main__":
    main()
