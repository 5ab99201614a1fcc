"""Anderson acceleration of a fixed-point iteration, safeguarded: the core of `anderson` and of the step `Anderson`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .errors import InputError
from .space import Space

RESIDUAL = 10.0
"""An accelerated point is taken where its residual is at most this times the allowance."""
MOVE = 1e6
"""... and it is at most this times the allowance away from the point before."""
DECAY = 1 + 1e-6
"""The allowance after n accelerated points is ``|f(x_0) - x_0| (n + 1)^(-DECAY)``; its sum over n is finite."""


@dataclass(frozen=True)
class FixedPoint:
    """What `anderson` found.

    Parameters
    ----------
    x
        Per batch element the point with the smallest residual, ``[..., *space.shape]``.
    iterations
        Evaluations of f.
    residual
        ``|f(x) - x| / |f(x)|`` per batch element, ``[...]``.
    converged
        Whether that is at most the tolerance, per batch element.
    """

    x: Tensor
    iterations: int
    residual: Tensor
    converged: Tensor


@dataclass(frozen=True)
class Mixture:
    """The state of the iteration; one number per batch element is ``[...]``, an image ``[..., *space.shape]``.

    Parameters
    ----------
    x, image, residual
        The last point that was taken, f there, and ``|f(x) - x|`` (infinite before the first).
    trial
        The point at which f is asked for next.
    plain
        Whether the trial is f of the point before, which is always taken.
    points, residuals
        The last differences of x and of ``f(x) - x``, ``[memory, ..., *space.shape]``, zero where there are fewer.
    first, taken
        ``|f(x_0) - x_0|``, and how many accelerated points were taken.
    """

    x: Tensor
    image: Tensor
    residual: Tensor
    trial: Tensor
    plain: Tensor
    points: Tensor
    residuals: Tensor
    first: Tensor
    taken: Tensor


def begin(space: Space, x0: Tensor, memory: int) -> Mixture:
    """The state before the first evaluation, which is at `x0`."""
    infinite = torch.full(space.batch_shape(x0), torch.inf, dtype=space.real_dtype, device=x0.device)
    nothing = x0.new_zeros((memory, *x0.shape))
    certain = torch.ones_like(infinite, dtype=torch.bool)
    return Mixture(x0, x0, infinite, x0, certain, nothing, nothing, infinite, torch.zeros_like(infinite))


def advance(space: Space, mixture: Mixture, image: Tensor, ridge: float | None = None) -> Mixture:
    """The state after f(trial) = `image` has become known: takes the trial or refuses it, and makes the next one.

    Parameters
    ----------
    space
        The Space of one image.
    mixture, image
        The state, and f of its trial.
    ridge
        As for `anderson`.
    """
    allowance = mixture.first * (mixture.taken + 1) ** -DECAY
    defect = image - mixture.trial
    size = space.norm(defect)
    # A comparison with NaN is false.
    take = mixture.plain | ((size <= mixture.residual) & (size <= RESIDUAL * allowance))
    begun = mixture.residual.isfinite()
    chosen = space.expand(take)
    x, image = torch.where(chosen, mixture.trial, mixture.x), torch.where(chosen, image, mixture.image)
    change = torch.where(space.expand(take & begun), mixture.trial - mixture.x, 0)
    change_of_defect = torch.where(space.expand(take & begun), defect - (mixture.image - mixture.x), 0)
    # What led to a refused point is forgotten; a plain step begins the memory anew.
    points = torch.where(chosen, torch.cat([change[None], mixture.points])[:-1], 0)
    residuals = torch.where(chosen, torch.cat([change_of_defect[None], mixture.residuals])[:-1], 0)
    residual = torch.where(take, size, mixture.residual)
    first = torch.where(begun, mixture.first, size)
    taken = mixture.taken + (take & ~mixture.plain)

    weights = _weights(space, residuals, image - x, ridge)
    step_back = sum((space.expand(w) * (p + r) for w, p, r in zip(weights, points, residuals, strict=True)), x * 0)
    trial = image - step_back
    size = space.norm(trial - x)
    accelerated = take & (weights != 0).any(0) & (size <= MOVE * first * (taken + 1) ** -DECAY)
    trial = torch.where(space.expand(accelerated), trial, image)
    return Mixture(x, image, residual, trial, ~accelerated, points, residuals, first, taken)


def anderson(
    f: Callable[[Tensor], Tensor],
    x0: Tensor,
    space: Space,
    *,
    memory: int = 5,
    tolerance: float = 1e-5,
    max_iterations: int = 100,
    ridge: float | None = None,
) -> FixedPoint:
    """``x = f(x)`` by Anderson acceleration of type II (Walker and Ni, 2011), each batch element by itself::

        g_k = f(x_k) - x_k          the m last differences dX, dG of the x and of the g
        w   = argmin_w |g_k - dG w|^2 + ridge sum_i |dG_i|^2 w_i^2
        x'  = f(x_k) - (dX + dG) w
        x_(k+1) = x'       where |g(x')| <= |g_k|, |g(x')| <= 10 a_n and |x' - x_k| <= 1e6 a_n
                  f(x_k)   elsewhere, with the differences forgotten
        a_n = |g_0| (n + 1)^(-1 - 1e-6), n the number of x' taken so far

    Complex images are real ones with twice as many entries, and the w are real: f need not be complex-linear.

    Theorem. For an averaged f with a fixed point (a proximal gradient step of a convex problem, say) x_k converges to a
    fixed point, and ``|g_k|`` never grows. Proof, as that of Zhang, O'Donoghue and Boyd (2020): a plain step brings no
    fixed point further away and lowers ``|x - x*|^2`` by a multiple of ``|g_k|^2``; the others move x by a finite sum
    in all, so that ``|x_k - x*|`` converges. If plain steps are taken for ever, g tends to zero along them, and a limit
    point is a fixed point, to which then all of x_k converges; if not, the moves are summable, and ``|g_k|`` is at
    most 10 a_n. An accelerated x' is only taken where ``|g|`` does not grow, and a plain one cannot raise it for a
    nonexpansive f. For other f nothing is guaranteed; the point with the smallest residual is returned.

    Gradients do not flow. One evaluation of f per iteration, and two for a point that is refused.

    Parameters
    ----------
    f
        From ``[..., *space.shape]`` to the same shape; the batch elements must not depend on each other.
    x0
        The start.
    space
        The Space of one element.
    memory
        m; without any (0) it is the plain iteration.
    tolerance
        Of ``|f(x) - x| / |f(x)|``, for every batch element; one that has converged is left as it is.
    max_iterations
        The most evaluations of f.
    ridge
        A multiple of the squared norm of each difference, which keeps w finite; ten times the machine precision when
        absent.
    """
    _check(memory, tolerance, max_iterations, ridge)
    space.check(x0, "start of Anderson acceleration")
    with torch.no_grad():
        mixture = begin(space, x0.detach(), memory)
        best, least = mixture.x, mixture.residual
        converged = torch.zeros_like(mixture.plain)
        iterations = 0
        while iterations < max_iterations:
            iterations += 1
            mixture = advance(space, mixture, f(mixture.trial), ridge)
            relative = relative_size(space, mixture)
            better = (relative < least) & ~converged
            best = torch.where(space.expand(better), mixture.x, best)
            least = torch.where(better, relative, least)
            converged = least <= tolerance
            # An element that is no longer finite will not be again.
            if bool((converged | ~mixture.residual.isfinite()).all()):
                break
    return FixedPoint(best, iterations, least, converged)


def relative_size(space: Space, mixture: Mixture) -> Tensor:
    """``|f(x) - x| / |f(x)|`` per batch element, 0 where both vanish."""
    norm = space.norm(mixture.image)
    relative = mixture.residual / torch.where(norm > 0, norm, 1)
    return torch.where(norm > 0, relative, (mixture.residual != 0).to(relative.dtype))


def _weights(space: Space, residuals: Tensor, defect: Tensor, ridge: float | None) -> Tensor:
    """w, ``[memory, ...]``; zero for differences that are zero."""
    if not len(residuals):
        return residuals.new_zeros((0, *space.batch_shape(defect)), dtype=space.real_dtype)
    sizes = space.norm(residuals)
    scaled = _coordinates(space, residuals / space.expand(torch.where(sizes > 0, sizes, 1)))
    matrix = torch.einsum("i...n,j...n->...ij", scaled, scaled)
    right = torch.einsum("i...n,...n->...i", scaled, _coordinates(space, defect))
    amount = 10 * torch.finfo(space.real_dtype).eps if ridge is None else ridge
    matrix = matrix + amount * torch.eye(len(residuals), dtype=matrix.dtype, device=matrix.device)
    # A zero difference leaves the ridge alone on the diagonal: its weight is zero.
    solved, _ = torch.linalg.solve_ex(matrix, right[..., None])
    weights = solved[..., 0].movedim(-1, 0) / torch.where(sizes > 0, sizes, 1)
    return torch.where(weights.isfinite(), weights, 0)


def _coordinates(space: Space, x: Tensor) -> Tensor:
    """The real coordinates of each element, ``[..., n]``."""
    parts = torch.view_as_real(x.resolve_conj()) if x.is_complex() else x
    return parts.reshape(*space.batch_shape(x), -1)


def _check(memory: int, tolerance: float, max_iterations: int, ridge: float | None) -> None:
    for what, value, least in (("memory", memory, 0), ("max_iterations", max_iterations, 1)):
        if value < least:
            raise InputError(f"{what} of Anderson acceleration", expected=f"at least {least}", got=value)
    if not 0 < tolerance < float("inf"):
        raise InputError("tolerance of Anderson acceleration", expected="a positive number", got=tolerance)
    if ridge is not None and not 0 < ridge < float("inf"):
        raise InputError("ridge of Anderson acceleration", expected="a positive number", got=ridge)
