"""The Huber prior: the conformance kit, and the definition by an outside oracle."""

from __future__ import annotations

import pytest
import scipy.special
import torch
from priorloom_huber.huber import huber

from priorloom import Registry, Space
from priorloom.errors import InputError
from priorloom.testing import check_prior


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_conformance(dtype: torch.dtype) -> None:
    check_prior(huber(Space((9, 7), dtype), lam=0.3, delta=0.1))  # raises a ConformanceError that says what is wrong


def test_value_is_the_huber_function_of_the_gradient() -> None:
    x = torch.rand(3, 7, 5, generator=torch.Generator().manual_seed(0))
    prior = Registry.discover().prior("huber", Space((7, 5)), lam=2.0, delta=0.25)
    r = prior.K(x).norm(dim=1)
    expected = 2.0 * scipy.special.huber(0.25, r.numpy()).sum(axis=(1, 2)) / 0.25
    torch.testing.assert_close(prior(x), torch.from_numpy(expected).float())


@pytest.mark.parametrize("wrong", [{"lam": 0.0}, {"lam": 1.0, "delta": -1.0}, {"lam": float("nan")}])
def test_wrong_parameters_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match="of the prior 'huber': expected a positive number"):
        huber(Space((7, 5)), **wrong)
