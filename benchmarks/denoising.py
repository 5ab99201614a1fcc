"""Denoisers on slices of subjects that no training saw: white noise of 25/255 of the data range, a markdown table.

CT: the head of invesalius-cranium, real. MRI: pyradiomics brain1 with a simulated smooth phase, complex; every denoiser
sees the image divided by the smooth phase of the noisy one, as in reconstruction. Images are 128 x 128. The strength of
every classical denoiser is the best of `STRENGTHS` for the mean PSNR over slices of the *training* subjects; trained
ones have nothing to choose. ridge is the trained denoiser that descends on the learned regulariser in ten steps
(``trained``), not the single step of the denoiser ``ridge``.

    python benchmarks/denoising.py [--data FOLDER] [--slices N] [--ct-drunet FOLDER] [--ct-ridge FOLDER] ...
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from torch import Tensor

from priorloom import Denoiser, Modality, Registry, Space
from priorloom.errors import InputError
from priorloom.metrics import metrics
from priorloom.plug_and_play import Rephased
from priorloom.steps.learned import smooth_phase
from priorloom.train.data import cropped
from priorloom.train.images import read_slices

LEVEL, SIDE = 25 / 255, 128
STRENGTHS: dict[str, tuple[float, ...]] = {
    "tv-chambolle": (0.4, 0.55, 0.7, 0.85, 1.0, 1.2),
    "non-local-means": (0.4, 0.55, 0.7, 0.85, 1.0, 1.2),
    "dct": (2.0, 2.4, 2.7, 3.0, 3.3),
    "dct-soft": (0.6, 0.9, 1.2, 1.5, 1.8),
}
TRAINED = ("drunet", "ridge")
TUNING = {
    "ct": ("ct-images/lidc-idri-0314", "ct-images/totalseg-dicom"),
    "mri": ("mri-images/vs-seg-001", "mri-images/stroke/T1.nii.gz"),
}


def main() -> None:
    """Tune, denoise, print."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("PRIORLOOM_DATA", default)))
    parser.add_argument("--slices", type=int, default=10, help="held-out slices per modality")
    for modality in TUNING:
        for name in TRAINED:
            parser.add_argument(f"--{modality}-{name}", type=Path, help="a model's folder in the place of the shipped")
    given = parser.parse_args()
    registry = Registry.discover()
    for modality in TUNING:
        folders = {name: getattr(given, f"{modality}_{name}") for name in TRAINED}
        _table(registry, registry.modality(modality), given.data, given.slices, folders)


def _table(registry: Registry, modality: Modality, data: Path, count: int, folders: dict[str, Path | None]) -> None:
    generator = torch.Generator().manual_seed(0)
    tuning = [x for name in TUNING[modality.name] for x in _images(modality, read_slices(data / name), 2, generator)]
    if modality.name == "ct":
        volume = np.fromfile(data / "ct-images/invesalius-cranium/matrix.dat", "<i2").reshape(108, 256, 256)
        slices: Sequence[Tensor] = [torch.from_numpy(v.astype(np.float32)) for v in volume]
    else:
        slices = read_slices(data / "mri-images/pyradiomics/brain1_image.nrrd")
    held_out = _images(modality, slices, count, generator)
    space = Space((SIDE, SIDE), held_out[0].dtype)
    print(f"\n{modality.title}: {count} held-out slices, noise {LEVEL:.3f} of the data range\n")
    print("| denoiser | strength | PSNR dB | SSIM | s per image |\n|---|---|---|---|---|")
    print("| (noisy) | | " + _row(modality, held_out, None))
    for name, grid in STRENGTHS.items():
        means = {s: _figures(modality, tuning, registry.denoiser(name, space, strength=s))[0] for s in grid}
        best = max(means, key=means.__getitem__)
        edge = ", end of the grid" if best in (grid[0], grid[-1]) else ""
        row = _row(modality, held_out, registry.denoiser(name, space, strength=best))
        print(f"| {name} | {best:g} (of {len(grid)}{edge}) | {row}", flush=True)
    print(f"| wavelet | BayesShrink | {_row(modality, held_out, registry.denoiser('wavelet', space))}")
    for name in TRAINED:
        folder = folders[name]
        if folder is None and f"{modality.name}.{name}" not in registry.names("model"):
            print(f"| {name} | no weights: --{modality.name}-{name} FOLDER | | | |")
            continue
        path = registry.model(f"{modality.name}.{name}") if folder is None else folder
        try:
            row = _row(modality, held_out, registry.denoiser("trained", space, path=path))
        except InputError as error:  # it does not know so much noise
            row = f"{error} | | |"
        print(f"| {name} (trained) | | {row}", flush=True)


def _images(modality: Modality, slices: Sequence[Tensor], count: int, generator: torch.Generator) -> list[Tensor]:
    """Normalised images from the middle 70 % of a subject's slices."""
    assert modality.training is not None
    chosen = np.linspace(0.15 * len(slices), 0.85 * len(slices) - 1, count).round().astype(int)
    images = []
    for i in chosen:
        image = cropped([slices[i]], modality.training.from_stored, 1.0, augment=False)((SIDE, SIDE), generator)
        images.append(image / modality.training.unit(image[None])[0])
    return images


def _row(modality: Modality, images: Sequence[Tensor], denoiser: Denoiser | None) -> str:
    psnr, ssim, seconds = _figures(modality, images, denoiser)
    return f"{psnr:.2f} | {ssim:.4f} | {seconds:.2f} |"


def _figures(modality: Modality, images: Sequence[Tensor], denoiser: Denoiser | None) -> tuple[float, float, float]:
    """Means of PSNR, SSIM and seconds; the noise of an image is the same for every denoiser."""
    found = []
    for i, truth in enumerate(images):
        shown = modality.display(truth)
        span = modality.data_range(shown)
        space = Space(tuple(truth.shape), truth.dtype)
        noisy = truth + LEVEL * span * space.random(torch.Generator().manual_seed(i))
        begun = time.perf_counter()
        with torch.no_grad():
            made = noisy
            if denoiser is not None:
                seen = Rephased(denoiser, smooth_phase(noisy)) if space.is_complex else denoiser
                made = seen(noisy, torch.tensor(LEVEL * span))
        seconds = time.perf_counter() - begun
        figures = metrics(modality.display(made), shown, span)
        found.append((figures["psnr"], figures["ssim"], seconds))
    return mean(f[0] for f in found), mean(f[1] for f in found), mean(f[2] for f in found)


if __name__ == "__main__":
    main()
