"""Results as markup: the table, and what a reader must know before believing it; everything is escaped."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from priorloom.pipeline import Result
from priorloom.reconstruction import TROUBLE

from ..present import notes

_HEAD = ("method", "PSNR dB", "SSIM", "seconds", "iterations", "residual", "converged", "tuned", "certificate")


def verdict(result: Result) -> str:
    """A result in a few words, for the title of its image."""
    quality = "" if result.metrics is None else f"{result.metrics['psnr']:.2f} dB, "
    return f"{quality}{result.seconds:.2f} s"


def results_table(results: Mapping[int, Result]) -> str:
    """The table of results by place, with notes under it; empty without a result."""
    if not results:
        return ""
    titles = "".join(f"<th>{name}</th>" for name in _HEAD)
    rows = "".join(_row(place, result) for place, result in sorted(results.items()))
    listed = "".join(f"<li>{escape(note)}</li>" for note in notes([r for _, r in sorted(results.items())]))
    table = f"<table><thead><tr>{titles}</tr></thead><tbody>{rows}</tbody></table>"
    return f'<div class="scroll">{table}</div><ul>{listed}</ul>'


def _row(place: int, r: Result) -> str:
    psnr, ssim = ("–", "–") if r.metrics is None else (f"{r.metrics['psnr']:.2f}", f"{r.metrics['ssim']:.4f}")
    residual = "–" if r.residual is None else f"{r.residual:.1e}"
    ending = "–" if r.converged is None else "yes" if r.converged else "NO"
    if r.outcome in TROUBLE:
        ending = r.outcome.upper()
    loose = ' class="warn-ink"' if r.converged is False else ""
    before = "".join(f"<td>{text}</td>" for text in (psnr, ssim, f"{r.seconds:.2f}", str(r.iterations), residual))
    after = "".join(f"<td>{escape(text)}</td>" for text in (r.tuned, r.certificate))
    name = f'<td><i class="dot s{place}"></i>{escape(r.method)}</td>'
    return f"<tr>{name}{before}<td{loose}>{escape(ending)}</td>{after}</tr>"
