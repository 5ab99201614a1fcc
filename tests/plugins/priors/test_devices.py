"""Priors are built on the CPU and moved: afterwards nothing they compute with may stay there.

The meta device stands for any other one, so that this needs no GPU. Its kernels check shapes, dtypes and most devices;
the dispatch mode below checks the device of every tensor of every operation.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from priorloom import Functional, Problem, Registry, Space, Term
from priorloom.errors import InputError
from priorloom.functional import LeastSquares
from priorloom.operator import Identity
from priorloom.testing import check_functional
from priorloom_priors.composite import CycleSpinning, DualProx, Unitary
from priorloom_priors.functionals import L1, GroupL1, SquaredNorm
from priorloom_priors.wavelet import Wavelet

REGISTRY = Registry.discover()
OURS = [n for n in REGISTRY.names("prior") if REGISTRY.source("prior", n) == "priors"]
EXTRA: dict[str, list[dict[str, Any]]] = {"wavelet-l1": [{}, {"cycle_spinning": 2}, {"approximation": True}]}


class OnlyOn(TorchDispatchMode):
    """Every tensor of every operation is on this device; what a loop asks a tensor is answered from `answers`."""

    def __init__(self, device: str, answers: Iterator[bool]) -> None:
        super().__init__()
        self.device, self.answers = device, answers

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            return next(self.answers)
        result = func(*args, **(kwargs or {}))
        for t in tree_leaves((args, kwargs, result)):
            # torch moves single numbers by itself.
            if isinstance(t, Tensor) and t.ndim and t.device.type != self.device:
                raise AssertionError(f"{func} on {t.device}")
        return result


def functionals(name: str, space: Space) -> Iterator[Functional | Term]:
    for parameters in EXTRA.get(name, [{}]):
        try:
            yield REGISTRY.prior(name, space, **parameters, **_weight(name))
        except InputError:
            assert space.is_complex, "only complex images may be refused"


def _weight(name: str) -> dict[str, float]:
    return {} if name in ("nonnegativity", "box") else {"lam": 0.3}


def outputs(prior: Functional | Term, x: Tensor, step: Tensor) -> list[Tensor]:
    """All that the prior can compute."""
    f, z = (prior.f, prior.K(x)) if isinstance(prior, Term) else (prior, x)
    found = [f.prox(z, 0.7), f.prox(z, step), f.prox_conjugate(z, step)]
    if f.has_value:
        found.append(prior(x))
    if f.has_conjugate:
        found.append(f.conjugate(z))
    if type(f)._gradient is not Functional._gradient:
        found.append(prior.gradient(x))
    return found


def check_moved(prior: Functional | Term, space: Space) -> None:
    x = space.random(torch.Generator().manual_seed(0), (2,))
    here = outputs(prior, x, torch.ones(2))
    moved = prior.to("meta")
    x, step = x.to("meta"), torch.ones(2, device="meta")
    with OnlyOn("meta", itertools.cycle([False, True])):  # an inner iteration goes on once, then stops
        there = outputs(moved, x, step)
    assert [(t.shape, t.dtype) for t in there] == [(t.shape, t.dtype) for t in here]
    assert all(t.device.type == "meta" for t in there)


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
@pytest.mark.parametrize("name", OURS)
def test_a_moved_prior_leaves_nothing_behind(name: str, dtype: torch.dtype) -> None:
    space = Space((9, 8), dtype)
    for prior in functionals(name, space):
        check_moved(prior, space)


WEIGHTS: dict[str, Callable[[Space, Tensor], Functional]] = {
    "l1": L1,
    "l1, per entry": lambda space, lam: L1(space, lam * torch.ones(space.shape)),
    "group-l1": GroupL1,
    "squared norm": SquaredNorm,
    "wavelet": lambda space, lam: Unitary(L1(space, lam), Wavelet(space, "haar", 2)),
    "spun wavelet": lambda space, lam: CycleSpinning(Unitary(L1(space, lam), Wavelet(space, "haar", 2)), 2),
    "dual": lambda space, lam: DualProx(L1(space, lam), Identity(space)),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_tensor_weight_moves_with_its_functional(name: str) -> None:
    space = Space((6, 4))
    f = WEIGHTS[name](space, torch.tensor(0.3))
    assert [b for b in f.buffers() if b.is_floating_point()], "the weight is a buffer"
    assert len(check_functional(f.double(), tolerance=1e-3 if name == "dual" else None)) > 5
    check_moved(f.float(), space)


def test_the_checking_mode_sees_a_tensor_on_the_cpu() -> None:
    f = L1(Space((4,)), 0.3)
    f.mask = torch.ones(4)
    x = torch.zeros(4, device="meta")
    with OnlyOn("meta", itertools.repeat(True)), pytest.raises((AssertionError, RuntimeError), match="cpu"):
        f.prox(x, 1.0)
    with OnlyOn("meta", itertools.repeat(True)), pytest.raises(AssertionError, match="cpu"):
        torch.ones(4).to(x)


def test_a_problem_moves_whole() -> None:
    space = Space((9, 8))
    tv, wavelet = REGISTRY.prior("tv", space, lam=0.1), REGISTRY.prior("wavelet-l1", space, lam=0.1)
    assert isinstance(tv, Term)
    assert isinstance(wavelet, Functional)
    problem = Problem(Term(LeastSquares(space, space.zeros()), Identity(space)), wavelet, (tv,)).to("meta")
    with OnlyOn("meta", itertools.repeat(True)):
        assert problem.objective(space.zeros(device="meta")).device.type == "meta"
