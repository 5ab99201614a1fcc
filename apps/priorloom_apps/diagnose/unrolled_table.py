"""The diagnosis of an unrolled network as text."""

from __future__ import annotations

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from priorloom.diagnose.crossover import Need
from priorloom.diagnose.gradient_flow import EXPLODING, VANISHING

from ..present import console
from .unrolled import Diagnosis, Flow, OnCase, faster


def show(found: Diagnosis) -> None:
    """Print the tables of every case, the gradient flow and the schedule."""
    shell = console()
    for case in found.cases:
        against = "truth" if found.reference == "truth" else "minimiser of the network's objective"
        shell.print(f"[bold]{escape(found.card.name)} on {escape(case.case)}[/]: relative error against the {against}")
        shell.print(_errors(case))
        for warning in case.warnings:
            shell.print(f"note: {warning}", highlight=False, markup=False)
        for rival, layer in zip(case.rivals, faster(case).values(), strict=True):
            text = f"{rival.name}: " + (
                "as fast as the network at the accuracy of its last layer, or faster"
                if layer is None
                else f"slower than the network at equal accuracy from layer {layer} on"
            )
            if rival.limit is not None and found.reference == "truth":
                text += f"; its converged solution has the error {rival.limit:.4f}"
            shell.print(text, highlight=False, markup=False)
    shell.print(
        f"[bold]Gradient flow[/]: passes where every layer gets {VANISHING:g} to {EXPLODING:g} times the last one's"
    )
    shell.print(_flows(found.flows))
    if found.schedule:
        shell.print("[bold]Learned schedule[/] (classical value in brackets)")
        shell.print(_schedule(found))


def _errors(case: OnCase) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("layers", "error", "seconds"):
        table.add_column(name, justify="right")
    split = case.split
    if split is not None:
        table.add_column("rho^L e_0", justify="right")
        table.add_column("unfolding", justify="right")
    for rival in case.rivals:
        table.add_column(f"{rival.name} needs", justify="right")
    size = 1.0
    if split is not None and case.network.errors[0]:
        size = float(split.errors[0, 0]) / case.network.errors[0]
    for k, (error, seconds) in enumerate(zip(case.network.errors, case.network.seconds, strict=True)):
        row = [str(k), f"{error:.4f}" if error > 1e-3 else f"{error:.1e}", f"{seconds:.3f}"]
        if split is not None:
            row += [f"{float(values[k, 0]) / size:.4g}" for values in (split.contraction, split.unfolding)]
        row += [_need(n) for n in case.needs[k - 1]] if k else [""] * len(case.rivals)
        table.add_row(*row)
    return table


def _need(need: Need) -> str:
    if need.seconds is None:
        return need.outcome
    spent = f"{need.iterations} iterations, {need.seconds:.2f} s"
    return spent if need.outcome == "reached" else f"more than {spent}"


def _flows(flows: Sequence[Flow]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("network", "verdict", "first / last", "per layer", "largest singular values", "smallest", "method"):
        table.add_column(name, justify="left" if name in ("network", "verdict", "method") else "right")
    for one in flows:
        flow = one.flow
        verdict = flow.verdict if flow.verdict == "passes" else f"[bold red]{flow.verdict}[/]"
        largest, smallest = [e.largest for e in one.jacobian], [e.smallest for e in one.jacobian]
        how = "dense" if all(e.method == "dense" for e in one.jacobian) else "lanczos (estimates)"
        table.add_row(
            one.network, verdict, f"{flow.ratio:.2e}", f"{flow.factor:.3f}",
            f"{min(largest):.3g} to {max(largest):.3g}", f"{min(smallest):.2g} to {max(smallest):.2g}", how,
        )  # fmt: skip
    return table


def _schedule(found: Diagnosis) -> Table:
    names = list(dict.fromkeys((n.name, n.quantity, n.unit) for n in found.schedule))
    table = Table("layer", *(f"{quantity} {name} [{unit}]".replace("[", r"\[") for name, quantity, unit in names),
                  box=None, pad_edge=False)  # fmt: skip
    for layer in sorted({n.layer for n in found.schedule}):
        values = {n.name: n for n in found.schedule if n.layer == layer}
        row = []
        for name, _, _ in names:
            n = values.get(name)
            row.append("" if n is None else f"{n.value:.4g}" + ("" if n.classical is None else f" ({n.classical:g})"))
        table.add_row(str(layer), *row)
    return table
