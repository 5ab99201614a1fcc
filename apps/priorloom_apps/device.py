"""The device that the user named, and moving a case there."""

from __future__ import annotations

import torch

from priorloom.errors import InputError
from priorloom.modality import Case


def require_device(device: str) -> torch.device:
    """The device of that name.

    Raises
    ------
    InputError
        It is unknown or absent.
    """
    kind, _, index = device.partition(":")
    if device != "cpu" and (kind != "cuda" or not (index.isdigit() or device == "cuda")):
        raise InputError("--device", expected="cpu or cuda", got=device)
    if kind == "cuda" and not torch.cuda.is_available():
        raise InputError("--device", expected="a CUDA device", got="none here", cure="use --device cpu")
    if index and int(index) >= torch.cuda.device_count():
        raise InputError("--device", expected=f"one of {torch.cuda.device_count()} CUDA devices", got=device)
    return torch.device(device)


def on_device(case: Case, device: str) -> Case:
    """`case` on `device`.

    Raises
    ------
    InputError
        The device is unknown or absent.
    """
    found = require_device(device)
    return case if found.type == "cpu" else case.to(device)
