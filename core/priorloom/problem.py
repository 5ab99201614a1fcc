"""The objective: ``J(x) = f(Ax) + sum_i f_i(K_i x) + g(x)``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .errors import InputError
from .functional import Functional, Zero
from .operator import LinearOperator
from .pseudo_inverse import round_trip_norm
from .space import Space


class Term(nn.Module):
    """``f(K x)``: a functional behind an operator.

    Parameters
    ----------
    f
        A functional on the range of `K`.
    K
        A linear operator.
    backprojector
        What carries the gradient of f back in the place of the adjoint, such as a `PseudoInverse`; K^H when absent.
        The result is then no gradient of ``f(K x)``, and theorems that need one do not apply.
    """

    def __init__(self, f: Functional, K: LinearOperator, backprojector: LinearOperator | None = None) -> None:
        super().__init__()
        for what, given, wanted in _ends(K, backprojector):
            if given != wanted:
                raise InputError(f"{what} of the backprojector", expected=wanted, got=given)
        if f.space != K.range:
            raise InputError(
                f"space of {type(f).__name__}",
                expected=f"{list(K.range.shape)} {K.range.dtype} (the range of {type(K).__name__})",
                got=f"{list(f.space.shape)} {f.space.dtype}",
            )
        self.f = f
        self.K = K
        self.backprojector = backprojector

    def forward(self, x: Tensor) -> Tensor:
        """``f(K x)``, one value per batch element."""
        value: Tensor = self.f(self.K(x))
        return value

    def gradient(self, x: Tensor) -> Tensor:
        """``K^H grad f(K x)``, or what the backprojector makes of ``grad f(K x)``."""
        return self.pull(self.f.gradient(self.K(x)))

    def pull(self, z: Tensor) -> Tensor:
        """``K^H z``, or the backprojector's image of z."""
        return self.K.adjoint(z) if self.backprojector is None else self.backprojector(z)

    def lipschitz(self) -> float | None:
        """Lipschitz constant of ``gradient``: ``L_f |K|^2``, or ``L_f |B K|`` with a backprojector B; None where f is
        not smooth."""
        inner = self.f.gradient_lipschitz()
        if inner is None:
            return None
        return inner * (
            self.K.norm() ** 2 if self.backprojector is None else round_trip_norm(self.backprojector, self.K)
        )


def _ends(K: LinearOperator, backprojector: LinearOperator | None) -> list[tuple[str, Space, Space]]:
    if backprojector is None:
        return []
    return [("domain", backprojector.domain, K.range), ("range", backprojector.range, K.domain)]


class Problem(nn.Module):
    """``min_x f(Ax) + sum_i f_i(K_i x) + g(x)``.

    Parameters
    ----------
    data
        The data term ``f(Ax)``.
    prior
        The functional in the prox slot, ``g``; Zero when absent.
    terms
        Operator terms ``f_i(K_i x)``, such as total variation.
    noise_std
        Standard deviation of the noise per entry of the measurement, a number or one per batch element, for steps that
        must know it (denoising networks); None when unknown.
    """

    def __init__(
        self,
        data: Term,
        prior: Functional | None = None,
        terms: Sequence[Term] = (),
        noise_std: float | Tensor | None = None,
    ) -> None:
        super().__init__()
        self.data = data
        self.noise_std = noise_std
        self.prior: Functional = Zero(data.K.domain) if prior is None else prior
        self._terms = nn.ModuleList(terms)
        domain = data.K.domain
        for what, space in [("prior", self.prior.space), *(("operator term", t.K.domain) for t in terms)]:
            if space != domain:
                raise InputError(
                    f"space of the {what}",
                    expected=f"{list(domain.shape)} {domain.dtype} (the domain of {type(data.K).__name__})",
                    got=f"{list(space.shape)} {space.dtype}",
                )

    def with_prior(self, prior: Functional) -> Problem:
        """The same problem with another functional in the prox slot."""
        return Problem(self.data, prior, self.terms, self.noise_std)

    @property
    def terms(self) -> tuple[Term, ...]:
        """The operator terms."""
        return tuple(t for t in self._terms if isinstance(t, Term))

    @property
    def space(self) -> Space:
        """The Space of the unknown image."""
        return self.data.K.domain

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The batch shape of the measurement and of what else the functionals hold, and so of the solution."""
        shapes = [f.batch_shape for f in self._functionals]
        return tuple(torch.broadcast_shapes(*shapes))  # type: ignore[no-untyped-call]

    @property
    def _functionals(self) -> tuple[Functional, ...]:
        return (self.data.f, self.prior, *(t.f for t in self.terms))

    @property
    def device(self) -> torch.device:
        """Where the measurement lives, else the operator: an operator without tensors works anywhere."""
        return self.data.f.device or self.data.K.device

    @property
    def has_value(self) -> bool:
        """Whether the objective exists (no plug-and-play term)."""
        return all(f.has_value for f in self._functionals)

    def zeros(self) -> Tensor:
        """A zero image with the batch shape of the measurement."""
        return self.space.zeros(self.batch_shape, self.device)

    def objective(self, x: Tensor) -> Tensor:
        """``J(x)``, one value per batch element."""
        values = [self.data(x), self.prior(x), *(t(x) for t in self.terms)]
        return torch.stack(values).sum(0)
