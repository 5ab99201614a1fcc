"""Unrolled: K layers with parameters of their own as one reconstruction network, which training trains, files hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .errors import InputError
from .functional import Functional, LeastSquares, Weighted
from .noise import backprojected_std
from .operator import LinearOperator
from .problem import Problem, Term
from .pseudo_inverse import PseudoInverse
from .solve import run
from .space import Space
from .steps.base import Step

Back = Literal["adjoint", "pseudo-inverse"]
Start = Literal["zero", "pseudo-inverse"]


class Unrolled(nn.Module):
    """``(A, y, noise) -> x_K``: the problem, the starting image and K layers (Gregor and LeCun, 2010).

    Images are normalised (``Modality.scale``). An architecture (hook ``priorloom_architectures``) makes one; its
    parameters do not depend on the operator, so that it runs on any operator of the same kind.

    Parameters
    ----------
    layers
        The steps, in order; the same Step several times shares its parameters.
    start
        The starting image: zero, or the direct method's.
    back
        What carries the data gradient back: the adjoint, or the direct method: FBP; for MRI zero-filling, with several
        coils ``A^H y / sum |S|^2``.
    prior
        ``prior(space) -> Functional`` with weight 1, for layers that scale the problem's prior and for the objective as
        a loss; it is weighed by the noise in the image, ``std(A^H e)``. No prior when absent.
    """

    def __init__(
        self,
        layers: Sequence[Step[Any]],
        *,
        start: Start = "pseudo-inverse",
        back: Back = "pseudo-inverse",
        prior: Callable[[Space], Functional] | None = None,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.start = start
        self.back = back
        self.prior = prior

    def problem(self, A: LinearOperator, y: Tensor, noise_std: float | Tensor) -> Problem:
        """The problem that the layers see, its data term least squares.

        Parameters
        ----------
        A, y
            The operator and the measurement, ``[..., *A.range.shape]``.
        noise_std
            Standard deviation of the noise per entry of y, a number or one number per batch element.
        """
        backprojector = PseudoInverse(A) if self.back == "pseudo-inverse" else None
        data = Term(LeastSquares(A.range, y), A, backprojector)
        if self.prior is None:
            return Problem(data, noise_std=noise_std)
        weight = backprojected_std(A) * torch.as_tensor(noise_std, dtype=A.domain.real_dtype, device=y.device)
        return Problem(data, Weighted(self.prior(A.domain), weight), noise_std=noise_std)

    def starting_image(self, A: LinearOperator, y: Tensor) -> Tensor | None:
        """x_0; None for zero."""
        return A.pseudo_inverse(y) if self.start == "pseudo-inverse" else None

    def forward(self, A: LinearOperator, y: Tensor, noise_std: float | Tensor) -> Tensor:
        """x_K, ``[..., *A.domain.shape]``; gradients flow."""
        return run(self.layers, self.problem(A, y, noise_std), x0=self.starting_image(A, y)).x


def repeat(make: Callable[[], Step[Any]], layers: int, *, shared: bool = False) -> list[Step[Any]]:
    """`layers` steps with parameters of their own, or one step as often (`shared`); raises InputError for none."""
    if layers < 1:
        raise InputError("layers of an unrolled network", expected="at least 1", got=layers)
    if shared:
        return [make()] * layers
    return [make() for _ in range(layers)]
