"""Choosing a method's parameters within a stated number of runs.

Every rule searches on a logarithmic scale, runs the method through `reconstruction.reconstruct`, never exceeds its
budget, and does the same again for the same seed. What it returns says what was tried.
"""

from .cases import on_cases
from .choose import ON_ONE_CASE, RUNS, check_rule, choose, facts
from .discrepancy import by_discrepancy
from .gcv import by_gcv
from .lcurve import by_lcurve
from .oracle import by_oracle
from .ranges import range_of
from .sure import by_sure
from .trials import MEASURES, Measure, OnTrial, check_ranges, measured_entries, noise_level

__all__ = [
    "MEASURES", "ON_ONE_CASE", "RUNS", "Measure", "OnTrial", "by_discrepancy", "by_gcv", "by_lcurve", "by_oracle",
    "by_sure", "check_ranges", "check_rule", "choose", "facts", "measured_entries", "noise_level", "on_cases",
    "range_of",
]  # fmt: skip
