"""Cases, results and a parser of pages for the tests of the report."""

from __future__ import annotations

import base64
import io
import zlib
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import torch
from PIL import Image

from priorloom.modality import Case, Modality
from priorloom.operator import Identity
from priorloom.pipeline import Result
from priorloom.solve import Record
from priorloom.space import Space
from priorloom_apps.report import render

FACTS = {"title": "Two & two", "command": "priorloom compare --seed 3", "seed": "3", "versions": "torch 2.13.0"}
HISTORY = tuple(Record(k, 0.5**k, 2.0 + 0.3**k, 0.01 * k, 0.9**k) for k in range(1, 9))


def modality(name: str = "ct", units: str = "1/mm") -> Modality:
    def display(image: torch.Tensor) -> torch.Tensor:
        return image.abs() if image.is_complex() else image

    return Modality(
        name=name, title=f"{name.upper()} test", units=units, methods=("direct",), scale=lambda case: 1.0,
        noise_std=lambda case: 1.0, data_range=lambda truth: float(truth.max()), display=display,
        cases=lambda *args, **settings: [],
    )  # fmt: skip


MODALITIES = {"ct": modality(), "mri": modality("mri", "a.u.")}


def case(name: str = "disc", kind: str = "ct", truth: bool = True) -> Case:
    image = torch.linspace(0, 1, 48).reshape(6, 8)
    if kind == "mri":
        image = image * torch.exp(0.5j * image)
    operator = Identity(Space((6, 8), image.dtype))
    return Case(name, kind, operator, image, image if truth else None, metadata={"photon_count": 10000, "source": "x"})


def result(of: Case, method: str, shift: float = 0.1, **changes: Any) -> Result:
    figures = {"psnr": 20.125, "ssim": 0.98765, "nmse": 0.03125, "data_range": 1.0} if of.truth is not None else None
    made = Result(
        method=method, kind="classical", case=of.name, modality=of.modality, image=of.measurement + shift,
        metrics=figures, seconds=1.25, iterations=8, residual=0.00390625, gap=None, objective=2.5, converged=True,
        criterion="residual <= 0.004", history=HISTORY, parameters={"prior.lam": 0.0125, "solver.tolerance": 0.004},
        tuned="default", certificate="certified", seed=3, scale=1.0, versions={},
    )  # fmt: skip
    return replace(made, **changes)


def row(of: Result) -> dict[str, Any]:
    names = (
        "modality",
        "case",
        "method",
        "kind",
        "seconds",
        "iterations",
        "residual",
        "converged",
        "tuned",
        "certificate",
    )
    figures = {name: (of.metrics or {}).get(name) for name in ("psnr", "ssim", "nmse", "data_range")}
    return {**{name: getattr(of, name) for name in names}, **figures, "parameters": dict(of.parameters), "image": None}


def document(cases: Sequence[Case], results: Sequence[Result]) -> str:
    return render(cases, results, [row(r) for r in results], MODALITIES, FACTS)


class Page(HTMLParser):
    """What the tests ask about a page: tags with attributes, text, the cells of tables, scripts and styles."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.raw: dict[str, str] = {"script": "", "style": ""}
        self.values: list[str] = []
        self.rows: list[list[str]] = []
        self._inside = ""
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        held = tag == "script" and dict(attributes).get("type")  # a block of data, never executed
        self._inside = "values" if held else tag
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""
        if tag == "table":
            self.rows.append([])  # what follows is in no cell

    def handle_data(self, data: str) -> None:
        if self._inside in self.raw:
            self.raw[self._inside] += data
            return
        if self._inside == "values":
            self.values.append(data)
            return
        self.text += data
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data.strip()

    def cells(self, method: str) -> list[str]:
        return next(cells for cells in self.rows if cells and cells[0] == method)

    def images(self) -> dict[str, np.ndarray[Any, Any]]:
        found = {}
        for tag, attributes in self.tags:
            if tag == "img":
                source, alt = attributes["src"], attributes["alt"]
                assert source is not None
                assert alt is not None
                found[alt] = pixels(base64.b64decode(source.removeprefix("data:image/png;base64,"), validate=True))
        return found


def pixels(png: bytes) -> np.ndarray[Any, Any]:
    with Image.open(io.BytesIO(png)) as image:
        assert image.format == "PNG"
        return np.asarray(image)


def unpacked(text: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Packed values by their definition: base64, zlib, and the four bytes of each float32 one count apart."""
    shuffled = np.frombuffer(zlib.decompress(base64.b64decode(text, validate=True)), np.uint8)
    return shuffled.reshape(4, -1).T.copy().view("<f4").reshape(shape)


def timed(of: Case, method: str, kind: str, seconds: float, psnr: float, **changes: Any) -> Result:
    figures = {"psnr": psnr, "ssim": 0.9, "nmse": 0.1, "data_range": 1.0}
    return result(of, method, kind=kind, seconds=seconds, metrics=figures, history=(), **changes)
