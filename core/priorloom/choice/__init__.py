"""Choosing a method's parameters within a stated number of runs.

Every rule searches on a logarithmic scale, runs the method through `reconstruction.reconstruct`, never exceeds its
budget, and does the same again for the same seed. What it returns says what was tried.
"""

from .cases import on_cases
from .discrepancy import by_discrepancy
from .trials import MEASURES, Measure, OnTrial, check_ranges, measured_entries, noise_level

__all__ = [
    "MEASURES", "Measure", "OnTrial", "by_discrepancy", "check_ranges", "measured_entries", "noise_level", "on_cases",
]  # fmt: skip
