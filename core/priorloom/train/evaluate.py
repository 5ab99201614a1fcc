"""Validation: the loss and the image quality on examples that training never sees."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..metrics import metrics
from ..modality import Batch, Modality
from ..unrolled import Unrolled
from .losses import Loss, Supervised, reconstruct, truth_of


def evaluate(
    model: Unrolled, batches: Sequence[Batch], loss: Loss, modality: Modality, device: torch.device
) -> dict[str, float]:
    """Means over the validation examples: ``loss``, and where the truth is known ``psnr``, ``ssim`` and ``cases``.

    Images without contrast have no PSNR and are left out of it.

    Parameters
    ----------
    model, batches, loss
        What is validated, on what.
    modality
        Which image is shown, and its data range.
    device
        Where to compute.
    """
    losses, found = [], []
    training = model.training
    model.eval()
    with torch.no_grad():
        for number, batch in enumerate(batches):
            batch = batch.to(device)
            image = reconstruct(model, batch) if batch.truth is not None else None
            if isinstance(loss, Supervised) and image is not None:
                losses.append(float(loss.compare(image, truth_of(batch))))
            else:
                losses.append(float(loss(model, batch, torch.Generator().manual_seed(number))))
            if image is None:
                continue
            shown, truths = modality.display(image), modality.display(truth_of(batch))
            for image, truth in zip(shown, truths, strict=True):
                span = modality.data_range(truth)
                if span > 0:
                    found.append(metrics(image.float(), truth, span))
    model.train(training)
    figures = {"loss": sum(losses) / len(losses)}
    if found:
        figures |= {name: sum(f[name] for f in found) / len(found) for name in ("psnr", "ssim")}
        figures["cases"] = float(len(found))
    return figures
