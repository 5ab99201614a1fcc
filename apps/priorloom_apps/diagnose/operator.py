"""Diagnose an operator before any reconstruction: how hard is the problem that it poses?

This is what ``priorloom diagnose operator`` runs; the library's part is ``priorloom.diagnose.spectrum`` and its
neighbours.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from priorloom.config import Plan, make_cases
from priorloom.diagnose.noise_gain import Direction, NoiseMap, direction, noise_map
from priorloom.diagnose.picard import NullShare, Picard, null_share, picard
from priorloom.diagnose.spectrum import Spectrum, spectrum
from priorloom.errors import InputError, OutputError
from priorloom.files import check_writable, json_value, write_atomic
from priorloom.modality import Case, Modality
from priorloom.reconstruction import versions
from priorloom.registry import Registry

from ..device import on_device
from ..present import tell

SCHEMA = 1


@dataclass(frozen=True)
class Hidden:
    """An image, and how much of it the operator does not see."""

    image: str
    null: NullShare


@dataclass(frozen=True)
class OperatorDiagnosis:
    """All that was found about the operator of one case.

    Parameters
    ----------
    case, modality, operator
        Names.
    noise_std, noise_source
        The noise level per entry of the data in the data's units, and whether it was given or estimated.
    spectrum, picard
        Of the operator and the case's measurement.
    hidden
        The null space's share of the image; None where there is no image.
    noise
        The noise of the direct method's image; None where there is no direct method.
    direction, direction_null
        Along the perturbation that was given.
    notes
        What was left out, and why.
    """

    case: str
    modality: str
    operator: str
    noise_std: float
    noise_source: str
    spectrum: Spectrum
    picard: Picard
    hidden: Hidden | None
    noise: NoiseMap | None
    direction: Direction | None
    direction_null: NullShare | None
    notes: tuple[str, ...]


def run_operator(
    plan: Plan,
    registry: Registry,
    out: Path,
    *,
    count: int = 20,
    samples: int = 64,
    image: Path | None = None,
    perturbation: Path | None = None,
    device: str = "cpu",
    as_json: bool = False,
    command: str = "",
) -> list[OperatorDiagnosis]:
    """Diagnose the operator of every case of a plan; write ``operator.json`` and the pictures in `out`, and print it.

    Parameters
    ----------
    plan
        As for a comparison; its methods are not used.
    count, samples
        How many singular values at either end, and realisations of noise.
    image
        A ``.npy`` file: the image whose null space is measured; the truth, else the direct method's image, without it.
    perturbation
        A ``.npy`` file: a change of the image.
    as_json
        Print the JSON in the place of text.
    """
    if count < 1:
        raise InputError("--values", expected="at least 1", got=count)
    if samples < 2:
        raise InputError("--samples", expected="at least 2", got=samples)
    for key in plan.settings:
        raise InputError(f"--set {key}", expected="operator.KEY, case.KEY or input.KEY", got=key)
    cases = [on_device(case, device) for case in make_cases(plan, registry)]
    # Every case before the first is diagnosed, which may take a minute.
    images = [read_image(image, c, "--image") for c in cases]
    perturbations = [read_image(perturbation, c, "--perturbation") for c in cases]
    check_writable(out)
    found = []
    for case, x, d in zip(cases, images, perturbations, strict=True):
        tell(f"{case.name}: spectrum, null space and {samples} realisations of noise")
        found.append(diagnose_operator(case, registry.modality(case.modality), count, samples, plan.seed, x, d))
    content = to_json(found, plan.seed, command)
    write_atomic(out / "operator.json", content)
    for one in found:
        if one.noise is not None:
            write_atomic(out / f"noise-{one.case}.npy", _npy(one.noise.std))
    if as_json:
        print(content.decode(), end="")
    _publish(found, cases, registry, out, quiet=as_json)
    return found


def read_image(path: Path | None, case: Case, what: str) -> Tensor | None:
    """A ``.npy`` file as an image of the case.

    Raises
    ------
    InputError
        A file that is no array of numbers, or an array of another shape.
    """
    if path is None:
        return None
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        # NumPy's own text offers to load what must not be trusted.
        got = error.strerror if isinstance(error, OSError) else None
        raise InputError(
            f"{what} {path.name}", expected="a .npy file with an image", got=got or "no plain array"
        ) from error
    space = case.operator.domain
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fciu":
        raise InputError(f"{what} {path.name}", expected="one array of numbers", got="something else")
    if values.shape != space.shape:
        raise InputError(f"{what} {path.name}", expected=f"the shape {list(space.shape)} of case '{case.name}'",
                         got=list(values.shape))  # fmt: skip
    if np.iscomplexobj(values) and not space.is_complex:
        raise InputError(f"{what} {path.name}", expected="real numbers", got=values.dtype)
    tensor = torch.from_numpy(values.astype(np.result_type(values.dtype, np.float32))).to(space.dtype)
    if not bool(tensor.isfinite().all()) or not bool(tensor.abs().max() > 0):
        raise InputError(f"{what} {path.name}", expected="finite values that are not all zero", got="others")
    return tensor.to(case.measurement.device)


def diagnose_operator(
    case: Case,
    modality: Modality,
    count: int,
    samples: int,
    seed: int,
    image: Tensor | None = None,
    perturbation: Tensor | None = None,
) -> OperatorDiagnosis:
    """The library's measurements on one case."""
    A, y = case.operator, case.measurement
    given = case.noise_std is not None
    noise_std = float(case.noise_std if case.noise_std is not None else modality.noise_std(case))
    notes = []
    ends = spectrum(A, count, seed=seed)
    plot = picard(A, ends, y, noise_std if noise_std > 0 else None)
    noise: NoiseMap | None = None
    direct: Tensor | None = None
    try:
        with torch.no_grad():
            direct = A.pseudo_inverse(y)
        noise = noise_map(A, y, noise_std, samples=samples, seed=seed) if noise_std > 0 else None
    except InputError as error:
        notes.append(f"no noise map: {error}")
    if not noise_std > 0:
        notes.append("no noise map: the noise level is 0")
    choices = (("the given image", image), ("the truth", case.truth), ("the direct method's image", direct))
    label, x = next(((label, t) for label, t in choices if t is not None), ("", None))
    hidden = None
    if x is not None and bool(x.abs().max() > 0):
        hidden = Hidden(label, null_share(A, ends, x))
    along = along_null = None
    if perturbation is not None:
        along = direction(A, perturbation, ends.leading[0].value, noise_std or None)
        along_null = null_share(A, ends, perturbation)
    return OperatorDiagnosis(
        case.name, case.modality, str(case.metadata.get("operator", type(A).__name__)), noise_std,
        "given" if given else "estimated", ends, plot, hidden, noise, along, along_null,
        tuple(notes),
    )  # fmt: skip


def to_json(found: list[OperatorDiagnosis], seed: int, command: str = "") -> bytes:
    """The content of ``operator.json``; infinite numbers become null."""
    document = {
        "schema": SCHEMA,
        "command": command,
        "seed": seed,
        "versions": dict(versions()),
        "cases": [_case_json(one) for one in found],
    }
    return (json.dumps(json_value(document), indent=1, allow_nan=False) + "\n").encode()


def _case_json(one: OperatorDiagnosis) -> dict[str, Any]:
    from .operator_text import paragraph

    s, p, n = one.spectrum, one.picard, one.noise
    return {
        "case": one.case, "modality": one.modality, "operator": one.operator, "words": paragraph(one),
        "noise_std": one.noise_std, "noise_source": one.noise_source,
        "spectrum": {
            "method": s.method, "unknowns": s.unknowns, "data": s.data,
            "rank": s.rank, "rank_error": s.rank_error, "condition": s.condition,
            "condition_is_exact": s.condition_is_exact,
            "leading": [asdict(v) for v in s.leading], "trailing": [asdict(v) for v in s.trailing],
            "decay": asdict(s.decay), "index": s.index.tolist(), "curve": s.curve.tolist(),
        },
        "picard": {
            "values": p.values.tolist(), "coefficients": p.coefficients.tolist(), "above_noise": p.above_noise,
            "complete": p.complete,
        },
        "null_space": None if one.hidden is None else {"image": one.hidden.image, **asdict(one.hidden.null)},
        "noise": None if n is None else {
            "samples": n.samples, "seed": n.seed, "relative_error": n.relative_error, **noise_figures(n),
            "map": f"noise-{one.case}.npy",
        },
        "direction": None if one.direction is None or one.direction_null is None else {
            **asdict(one.direction), "null_space": asdict(one.direction_null)
        },
        "notes": list(one.notes),
    }  # fmt: skip


def noise_figures(noise: NoiseMap) -> dict[str, float]:
    """The root mean square, the median and the largest of the pixels, in units of the image."""
    std = noise.std.double()
    return {
        "rms": float(std.square().mean().sqrt()), "median": float(std.median()), "largest": float(std.max()),
    }  # fmt: skip


def _npy(std: Tensor) -> bytes:
    from ..output import npy_bytes

    return npy_bytes(std.cpu().numpy())


def _publish(found: list[OperatorDiagnosis], cases: list[Case], registry: Registry, out: Path, *, quiet: bool) -> None:
    from .operator_text import show

    if not quiet:
        for one in found:
            show(one, registry.modality(one.modality))
    wrote = ["operator.json", *(f"noise-{one.case}.npy" for one in found if one.noise is not None)]
    try:
        from .operator_pictures import picture

        for one, case in zip(found, cases, strict=True):
            name = f"operator-{one.case}.png"
            write_atomic(out / name, picture(one, case, registry.modality(one.modality)))
            wrote.append(name)
    except OutputError:
        raise
    except InputError as error:  # the extra [report] is not installed; the figures are complete without it
        tell(f"note: no pictures: {error}")
    tell(f"wrote {', '.join(f'{out}/{name}' for name in wrote)}")
