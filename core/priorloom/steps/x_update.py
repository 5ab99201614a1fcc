"""The x-update slot of the splitting methods: the linear system, and exact and conjugate-gradient solvers for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..constraints import StepSize
from ..errors import InputError
from ..operator import Identity, LinearOperator
from ..space import Space
from .base import safe_divide, total


@dataclass(frozen=True)
class NormalSystem:
    """``(sum_i w_i K_i^H K_i) x = b``: the optimality condition of a quadratic subproblem.

    Parameters
    ----------
    operators, weights
        The K_i, and the w_i > 0 as one number per batch element, ``[...]``.
    b
        The right-hand side, ``[..., *shape]``.
    x
        The image of the iteration before, a warm start.
    """

    operators: tuple[LinearOperator, ...]
    weights: tuple[Tensor, ...]
    b: Tensor
    x: Tensor

    @property
    def space(self) -> Space:
        """The Space of x."""
        return self.operators[0].domain

    def apply(self, x: Tensor) -> Tensor:
        """``(sum_i w_i K_i^H K_i) x``."""
        return total([self.space.expand(w) * k.normal(x) for w, k in zip(self.weights, self.operators, strict=True)])

    def lipschitz(self) -> Tensor:
        """``sum_i w_i |K_i|^2 >= |sum_i w_i K_i^H K_i|``, one number per batch element."""
        return total([w * k.norm() ** 2 for w, k in zip(self.weights, self.operators, strict=True)])


XUpdate = Callable[[NormalSystem], Tensor]
"""The x-update slot: from the system to x. Any nn.Module with this signature fits, such as a network."""


def solve_exactly(system: NormalSystem) -> Tensor | None:
    """The closed form where all operators but one are identities and that one has ``solve_normal``, else None."""
    space = system.space
    identity = torch.zeros_like(system.weights[0])
    others = []
    for weight, operator in zip(system.weights, system.operators, strict=True):
        if isinstance(operator, Identity):
            identity = identity + weight
        else:
            others.append((weight, operator))
    if not others:
        return system.b / space.expand(identity)
    if len(others) > 1 or len(others) == len(system.operators):
        return None
    weight, operator = others[0]
    return operator.solve_normal(system.b / space.expand(weight), space.expand(identity / weight))


class ExactUpdate(nn.Module):
    """The closed-form solution, where ``LinearOperator.solve_normal`` gives one; raises InputError where not."""

    def forward(self, system: NormalSystem) -> Tensor:
        """The solution."""
        x = solve_exactly(system)
        if x is None:
            names = ", ".join(type(k).__name__ for k in system.operators)
            raise InputError(
                "exact x-update", expected="one operator with solve_normal besides identities", got=names,
                cure="use CGUpdate, or leave the choice to the step",
            )  # fmt: skip
        return x


class CGUpdate(nn.Module):
    """Conjugate gradients from the last image (Hestenes and Stiefel, 1952), to a stated accuracy.

    A batch element stops when the residual of the system has fallen to `tolerance` times its value at the warm start.
    That value shrinks with the progress of the outer iteration, and so does the error of the update: a few
    iterations each time are enough, at any accuracy of the outer one (relative errors, as in Eckstein and Yao, 2017).

    Parameters
    ----------
    tolerance
        The factor.
    max_iterations
        The budget.
    """

    def __init__(self, tolerance: float = 0.1, max_iterations: int = 30) -> None:
        super().__init__()
        if not 0 < tolerance < 1:
            raise InputError("tolerance of CGUpdate", expected="a number between 0 and 1", got=tolerance)
        if max_iterations < 1:
            raise InputError("max_iterations of CGUpdate", expected="at least 1", got=max_iterations)
        self.tolerance = tolerance
        self.max_iterations = max_iterations

    def forward(self, system: NormalSystem) -> Tensor:
        """The approximate solution."""
        space = system.space
        x = system.x
        r = system.b - system.apply(x)
        search = Search(x, r, r, space.squared(r))
        goal = self.tolerance**2 * search.rr
        for _ in range(self.max_iterations):
            active = search.rr > goal
            if not bool(active.any()):
                break
            search = search.advance(space, system.apply(search.p), active)
        return search.x


class AutomaticUpdate(nn.Module):
    """ExactUpdate where the operator offers it, else CGUpdate: the default of the slot."""

    def __init__(self) -> None:
        super().__init__()
        self.otherwise = CGUpdate()

    def forward(self, system: NormalSystem) -> Tensor:
        """The solution."""
        x = solve_exactly(system)
        solution: Tensor = self.otherwise(system) if x is None else x
        return solution


class NetworkUpdate(nn.Module):
    """Gradient steps on the system, each corrected by a network: a learned solver in the place of the solve.

    ``r = b - H x``, ``x+ = x + t r + N(x, t r, b / L)`` with H the system's matrix, ``L >= |H|`` and a learned t in
    ``(0, 2 / L)``, from the warm start; Landweber's iteration on the system where every network adds zero. The network
    sees the image, the step, and the right-hand side in the units of an image, so that it knows neither operator nor
    penalty. One ``A^H A`` per network.

    Parameters
    ----------
    networks
        One for each step, from three images to one correction; see ``priorloom.networks.ImageNetwork``.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        if not networks:
            raise InputError("networks of an x-update", expected="at least one", got="none")
        self.networks = nn.ModuleList(networks)
        self.step_sizes = nn.ModuleList(StepSize() for _ in networks)

    def forward(self, system: NormalSystem) -> Tensor:
        """What the networks make of the warm start."""
        space, lipschitz = system.space, system.lipschitz()
        b = system.b / space.expand(lipschitz)
        x = system.x
        for network, step_size in zip(self.networks, self.step_sizes, strict=True):
            step = space.expand(step_size(lipschitz)) * (system.b - system.apply(x))
            (correction,) = network(x, step, b)
            x = x + step + correction
        return x


def is_exact(x_update: XUpdate, system: NormalSystem) -> bool:
    """Whether `x_update` solves systems like `system` in closed form."""
    return isinstance(x_update, ExactUpdate | AutomaticUpdate) and solve_exactly(system) is not None


@dataclass(frozen=True)
class Search:
    """Conjugate gradients between two iterations: x, the residual r, the direction p and ``rr = |r|^2``."""

    x: Tensor
    r: Tensor
    p: Tensor
    rr: Tensor

    def advance(self, space: Space, hp: Tensor, active: Tensor) -> Search:
        """The next iterate from ``hp = H p``; batch elements that are not `active` stay as they are."""
        alpha = space.expand(self.step(space, hp, active))
        x = self.x + alpha * self.p
        r = self.r - alpha * hp
        rr = space.squared(r)
        p = r + space.expand(torch.where(active, safe_divide(rr, self.rr), 0)) * self.p
        return Search(x, r, p, rr)

    def step(self, space: Space, hp: Tensor, active: Tensor) -> Tensor:
        """``|r|^2 / <p, H p>``; 0 where the element is not active, or where p lies in the null space of H."""
        curvature = space.inner(self.p, hp).real
        moving = active & (curvature > 0)
        return torch.where(moving, self.rr / torch.where(moving, curvature, 1), 0)
