"""The conformance kit: what operators, functionals, denoisers and architectures must satisfy, for a plugin's own tests.

Each function raises a ConformanceError that names the check, what was expected and what was measured, and returns
the checks made with their figures::

    from priorloom.testing import check_operator

    def test_my_operator():
        check_operator(MyOperator(...))

The caller builds the component; nothing is asked that it does not offer. ``priorloom check NAME`` prints the same
table. Tolerances are multiples of the rounding unit of the component's dtype; figures are relative unless the name of
the check says otherwise.
"""

from .architectures import check_architecture
from .denoisers import check_denoiser
from .functionals import check_functional, check_prior
from .measures import Check, ConformanceError
from .operators import check_operator

__all__ = [
    "Check", "ConformanceError", "check_architecture", "check_denoiser", "check_functional", "check_operator",
    "check_prior",
]  # fmt: skip
