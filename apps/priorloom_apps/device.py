"""Moving a case to the device that the user named."""

from __future__ import annotations

import torch

from priorloom.errors import InputError
from priorloom.modality import Case


def on_device(case: Case, device: str) -> Case:
    """`case` on `device`.

    Raises
    ------
    InputError
        The device is unknown or absent.
    """
    if device == "cpu":
        return case
    if device.partition(":")[0] != "cuda":
        raise InputError("--device", expected="cpu or cuda", got=device)
    if not torch.cuda.is_available():
        raise InputError("--device", expected="a CUDA device", got="none here", cure="use --device cpu")
    return case.to(device)
