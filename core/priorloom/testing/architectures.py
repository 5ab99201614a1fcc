"""check_architecture(): does an untrained network run, learn, keep its scalars legal and survive a file?"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..constraints import Penalty, Positive, StepSize
from ..dense import DenseOperator
from ..errors import InputError
from ..models import tensors_of
from ..operator import Identity, LinearOperator
from ..solve import run
from ..space import Space
from ..unrolled import Unrolled
from .measures import Check, ConformanceError, far, require, require_fit, rounding

EXTREME = 1e6
"""Where an optimiser with a huge learning rate may carry a free number."""


def check_architecture(factory: Callable[[LinearOperator], Unrolled], *, seed: int = 0) -> list[Check]:
    """Check an architecture on a small operator on real images and on one on complex images; where it refuses both, on
    the identity (denoisers) for real and complex images, or on a dense matrix.

    Shape, dtype and finite values; a batch equals the single images; the state dict's round trip gives the same image;
    gradients are finite and reach every parameter once all are moved from their first values (from any start); and step
    sizes, penalties and weights stay legal wherever their free numbers are carried.

    Parameters
    ----------
    factory
        ``factory(operator) -> Unrolled``, untrained; raises InputError for an operator that it does not serve.
    seed
        Of measurements and movements.
    """
    checks: list[Check] = []
    refusals = []
    for label, operator in _operators(seed):
        if checks and label in ("noisy images", "vectors"):
            break
        try:
            first, second = factory(operator), factory(operator)
        except InputError as error:
            refusals.append(str(error))
            continue
        generator = torch.Generator().manual_seed(seed)
        checks += [Check(f"{label}: {c.name}", c.figure) for c in _checks(first, second, operator, generator)]
    if not checks:
        raise ConformanceError("architecture", expected="a network for one of the operators", got=refusals[0])
    return checks


def _operators(seed: int) -> Iterator[tuple[str, LinearOperator]]:
    generator = torch.Generator().manual_seed(seed)
    for label, dtype in (("real images", torch.float32), ("complex images", torch.complex64)):
        yield label, _Columns(torch.randn(40, 32, dtype=dtype, generator=generator) / 40**0.5, 24)
    for label, dtype in (("noisy images", torch.float32), ("noisy complex images", torch.complex64)):
        yield label, Identity(Space((24, 24), dtype))
    yield "vectors", DenseOperator(torch.randn(12, 20, generator=generator) / 12**0.5)


class _Columns(LinearOperator):
    """``y = M x`` on each column of an image, with a closed form for everything."""

    def __init__(self, M: Tensor, columns: int) -> None:
        super().__init__(Space((M.shape[1], columns), M.dtype), Space((M.shape[0], columns), M.dtype))
        self.register_buffer("M", M)
        self.M: Tensor

    def _forward(self, x: Tensor) -> Tensor:
        return self.M @ x

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.M.mH @ y

    def _pseudo_inverse(self, y: Tensor) -> Tensor:
        result: Tensor = torch.linalg.pinv(self.M) @ y
        return result

    def solve_normal(self, b: Tensor, rho: float | Tensor) -> Tensor | None:
        """``(M^H M + rho)^-1 b``."""
        values, vectors = torch.linalg.eigh(self.M.mH @ self.M)
        result: Tensor = vectors @ ((vectors.mH @ b) / (values[:, None] + rho))
        return result


def _checks(model: Unrolled, other: Unrolled, A: LinearOperator, generator: torch.Generator) -> Iterator[Check]:
    y = A(A.domain.random(generator, (2,)))
    noise_std = torch.tensor([0.05, 0.1], dtype=A.domain.real_dtype)
    yield Check("numbers to learn", float(sum(p.numel() for p in model.parameters())))
    _move(model, generator)
    model.train()
    image = model(A, y, noise_std)
    require_fit("image of the network", A.domain, image, (2,))
    yield Check("shape, dtype, finite values", 0.0)
    anywhere = A.domain.random(generator, (2,))  # a start at zero would hide what multiplies it
    image = run(model.layers, model.problem(A, y, noise_std), x0=anywhere).x
    torch.autograd.backward(image.abs().square().sum())
    for name, parameter in model.named_parameters():
        if parameter.grad is None or not bool((parameter.grad != 0).any()):
            raise ConformanceError(f"gradient of '{name}'", expected="one that is not zero", got="none or zero")
        if not bool(parameter.grad.isfinite().all()):
            raise ConformanceError(f"gradient of '{name}'", expected="finite values", got="NaN or infinite")
    yield Check("gradients reach every parameter", 0.0)
    with torch.no_grad():
        model.eval()
        other.eval()
        other.load_state_dict(model.state_dict())
        image = model(A, y, noise_std)
        yield require("state dict round trip", far(A.domain, other(A, y, noise_std), image), 0.0)
        single = torch.stack([model(A, one, float(std)) for one, std in zip(y, noise_std, strict=True)])
        yield require("batch equals stack", far(A.domain, single, image), 1e4 * rounding(A.domain))
    if not tensors_of(model):
        raise ConformanceError("parameters of the network", expected="at least one", got="none")
    yield from _legal(model)


def _move(model: nn.Module, generator: torch.Generator) -> None:
    """What starts at zero blocks the gradients of what lies before it."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, dtype=parameter.dtype, generator=generator), alpha=0.05)


def _legal(model: nn.Module) -> Iterator[Check]:
    lipschitz = 7.0
    scalars: list[Any] = [m for m in model.modules() if isinstance(m, StepSize | Penalty | Positive)]
    for scalar in scalars:
        for carried in (-EXTREME, EXTREME):
            moved = copy.deepcopy(scalar)
            with torch.no_grad():
                for parameter in moved.parameters():
                    parameter.fill_(carried)
                value = float(moved() if isinstance(moved, Positive) else moved(lipschitz))
            limit = 2 / lipschitz if isinstance(moved, StepSize) else float("inf")
            if not (0 < value < limit if isinstance(moved, StepSize) else 0 <= value < limit):
                raise ConformanceError(
                    f"{type(moved).__name__} at {carried:g}", expected=f"between 0 and {limit:.3g}", got=value
                )
    yield Check("legal step sizes and weights", float(len(scalars)))
