"""Around the loop: devices by name, Ctrl-C, and what Lightning says."""

from __future__ import annotations

import logging
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ..errors import InputError


def accelerator(device: str, devices: int | None) -> tuple[str, int | list[int]]:
    """Lightning's accelerator and devices for "cpu", "cuda" or "cuda:N" and a number of processes."""
    kind, _, index = device.partition(":")
    if kind == "cpu" and not index:
        return "cpu", devices or 1
    if kind != "cuda" or (index and not index.isdecimal()):
        raise InputError("--device", expected="cpu, cuda or cuda:N", got=device)
    if not torch.cuda.is_available() or (index and int(index) >= torch.cuda.device_count()):
        raise InputError("--device", expected="a CUDA device", got="none here", cure="use --device cpu")
    return "gpu", [int(index)] if index else devices or torch.cuda.device_count()


@contextmanager
def ctrl_c(interrupt: Callable[[], None]) -> Iterator[None]:
    """The first Ctrl-C calls `interrupt`, to end the training after the step at hand; a second one ends it at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)

    def stop(number: int, frame: Any) -> None:
        interrupt()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def quiet() -> Iterator[None]:
    """Lightning's advice on what we do on purpose is not for our users; its warnings of real trouble are."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # GPUs are used when asked for; the second is about its own calls of torch.
            for text in (".*GPU available but not used.*", ".*isinstance\\(treespec, LeafSpec\\).*"):
                warnings.filterwarnings("ignore", text)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
