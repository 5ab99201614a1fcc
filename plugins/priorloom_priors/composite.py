"""Functionals made of others: behind a unitary operator, averaged over shifts, and the dual prox of ``f(Kx)``."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from priorloom import Functional, LinearOperator, PriorloomError
from priorloom.errors import InputError


class Unitary(Functional):
    """``x -> f(W x)`` for a unitary W; ``prox = W^H prox_f W`` exactly, and the conjugate is ``f*(W z)``.

    Parameters
    ----------
    f
        A functional on the range of `W`.
    W
        An operator with ``W^H W = W W^H = I``.
    """

    def __init__(self, f: Functional, W: LinearOperator) -> None:
        super().__init__(W.domain)
        self.f, self.W = f, W
        self.has_value, self.is_convex, self.has_conjugate = f.has_value, f.is_convex, f.has_conjugate
        self.has_exact_prox = f.has_exact_prox

    def _value(self, x: Tensor) -> Tensor:
        value: Tensor = self.f(self.W(x))
        return value

    def _prox(self, x: Tensor, step: Tensor) -> Tensor:
        return self.W.adjoint(self.f.prox(self.W(x), _per_batch(step, self)))

    def _conjugate(self, z: Tensor) -> Tensor:
        return self.f.conjugate(self.W(z))


class CycleSpinning(Functional):
    """A functional averaged over circular shifts, so that the grid of a wavelet leaves no trace.

    With ``S_i`` the shifts by 0 to `shifts` - 1 pixels along every dimension, the prox is the mean of the shifted ones,
    ``mean_i S_i^H prox_f(S_i x, t)``. That is exactly the prox of the *proximal average* of the ``f(S_i x)``, the
    convex function whose Moreau envelope is the mean of theirs. It has no closed form and depends on t, so there is no
    value: at a fixed step an iteration minimises the objective with the proximal average, which lies below that with
    ``mean_i f(S_i x)`` (for wavelets the L1 norm in the translation-invariant frame) by at most ``t L^2 / 2``, L the
    Lipschitz constant of f.

    Parameters
    ----------
    f
        The functional.
    shifts
        Shifts per dimension; all ``shifts ** ndim`` combinations are averaged.

    References
    ----------
    Coifman and Donoho (1995), Translation-invariant de-noising; Bauschke, Goebel, Lucet and Wang (2008), The proximal
    average: basic theory; Yu (2013), Better approximation and faster algorithm using the proximal average.
    """

    has_value = False

    def __init__(self, f: Functional, shifts: int) -> None:
        super().__init__(f.space)
        if shifts < 1:
            raise InputError("cycle_spinning", expected="at least 1 shift per dimension", got=shifts)
        self.f, self.shifts = f, shifts
        self.is_convex, self.has_exact_prox = f.is_convex, f.has_exact_prox

    def _all_shifts(self) -> list[tuple[int, ...]]:
        return list(itertools.product(*(range(min(self.shifts, n)) for n in self.space.shape)))

    def _prox(self, x: Tensor, step: Tensor) -> Tensor:
        shifts = self._all_shifts()
        total = torch.zeros_like(x)
        for s in shifts:
            back = tuple(-i for i in s)
            total = total + self.f.prox(x.roll(s, self.space.dims), _per_batch(step, self)).roll(back, self.space.dims)
        return total / len(shifts)


class DualProx(Functional):
    """``x -> f(K x)`` with its prox by an inner iteration on the dual: FGP with adaptive restart.

    ``prox(x, t) = x - t K^H p`` where p minimises ``0.5 |x - t K^H p|^2 / t + f*(p)`` by accelerated projected
    gradient, step ``1 / (t |K|^2)``, every call from p = 0 (no memory between calls: the prox is a function). It
    stops when the duality gap proves ``|u - prox| <= tolerance |x|`` (the objective is strongly convex, so that
    ``|u - prox|^2 <= 2 gap``). Every batch element stops on its own.

    Parameters
    ----------
    f
        A functional on the range of `K` with a prox and a conjugate that is an indicator (a norm).
    K
        A linear operator.
    tolerance
        The proven relative error of the prox; for TV the true one is ten to thirty times smaller.
    max_iterations
        Budget of the inner iteration; a PriorloomError when it does not suffice.

    References
    ----------
    Beck and Teboulle (2009), IEEE Trans. Image Process. 18, 2419-2434 (FGP); O'Donoghue and Candes (2015), Found.
    Comput. Math. 15, 715-732 (restart).
    """

    has_exact_prox = False

    def __init__(self, f: Functional, K: LinearOperator, tolerance: float = 1e-3, max_iterations: int = 5000) -> None:
        super().__init__(K.domain)
        if not tolerance > 0:
            raise InputError("tolerance of a prox", expected="a positive number", got=tolerance)
        if max_iterations < 1:
            raise InputError("max_iterations of a prox", expected="at least 1", got=max_iterations)
        self.f, self.K, self.tolerance, self.max_iterations = f, K, tolerance, max_iterations

    def _value(self, x: Tensor) -> Tensor:
        value: Tensor = self.f(self.K(x))
        return value

    def _prox(self, x: Tensor, step: Tensor) -> Tensor:
        t = _per_batch(step, self)
        size = self.space.norm(x)
        allowed = 0.5 * (self.tolerance * size) ** 2
        rate = 1 / (t * self.K.norm() ** 2).clamp_min(torch.finfo(self.space.real_dtype).tiny)
        wide = self.K.range.expand
        p = q = torch.zeros_like(self.K(x))
        momentum = torch.ones_like(size)
        done = torch.zeros_like(size, dtype=torch.bool)
        for k in range(self.max_iterations):
            if k % 10 == 0:
                done = done | (self._gap(p, x, step) <= allowed)
                if bool(done.all()):
                    return x - step * self.K.adjoint(p)
            ascent = self.K(x - step * self.K.adjoint(q))
            new = self.f.prox_conjugate(q + wide(rate.expand_as(size)) * ascent, rate)
            turned = self.K.range.inner(q - new, new - p).real > 0
            momentum = torch.where(turned, 1.0, momentum)
            later = (1 + torch.sqrt(1 + 4 * momentum**2)) / 2
            q = torch.where(wide(done), p, new + wide((momentum - 1) / later) * (new - p))
            p = torch.where(wide(done), p, new)
            momentum = later
        worst = float((2 * self._gap(p, x, step)).sqrt().div(size).max())
        raise PriorloomError(
            f"prox of {type(self.f).__name__} behind {type(self.K).__name__}",
            expected=f"a relative error of at most {self.tolerance:g} in {self.max_iterations} iterations",
            got=f"{worst:.2g}",
            cure="raise max_iterations or tolerance",
        )

    def _gap(self, p: Tensor, x: Tensor, step: Tensor) -> Tensor:
        """``t (f(Ku) - Re <p, Ku>)`` at ``u = x - t K^H p``: the duality gap where f*(p) = 0."""
        z = self.K(x - step * self.K.adjoint(p))
        gap = self.f(z) - self.K.range.inner(p, z).real
        scaled: Tensor = _per_batch(step, self) * gap.clamp_min(0)
        return scaled


def _per_batch(step: Tensor, f: Functional) -> Tensor:
    """A step that broadcasts against ``[..., *shape]`` back to one number per batch element (or one number)."""
    return step.reshape(step.shape[: step.ndim - f.space.ndim]) if step.ndim else step
