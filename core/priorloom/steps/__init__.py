"""Iterations: one module per family; every step serves classical, unrolled and plug-and-play methods alike."""

from .base import State, Step
from .proximal import ISTA

__all__ = ["ISTA", "State", "Step"]
