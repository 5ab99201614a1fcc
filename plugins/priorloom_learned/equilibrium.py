"""A deep equilibrium that has one: proximal gradient with a contractive learned prox, solved to its fixed point."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from priorloom.constraints import StepSize
from priorloom.errors import InputError
from priorloom.functional import Functional
from priorloom.lipschitz import gradient_step_bound, network_bound, step_bound
from priorloom.networks import Averaged, ConvolutionBlock, ImageNetwork, NonexpansiveBlock
from priorloom.networks.images import channels
from priorloom.operator import LinearOperator
from priorloom.problem import Problem
from priorloom.space import Space
from priorloom.steps import ISTA, State, Step
from priorloom.steps.equilibrium import Equilibrium, prepared
from priorloom.steps.learned import least_squares
from priorloom.unrolled import Start, Unrolled


def deep_equilibrium(
    operator: LinearOperator,
    *,
    width: int = 32,
    depth: int = 3,
    contraction: float = 0.9,
    anchor_width: int = 32,
    anchor_depth: int = 3,
    memory: int = 5,
    tolerance: float = 1e-4,
    max_iterations: int = 60,
    start: Start = "pseudo-inverse",
) -> Unrolled:
    """The fixed point of a learned proximal gradient step that contracts, see `AnchoredProximalGradient`, with the
    implicit gradient of `Equilibrium`; when it is new, Tikhonov regularisation around the direct image.

    Parameters
    ----------
    width, depth
        Channels (an even number) and convolutions of the nonexpansive network.
    contraction
        c, between 0 and 1: larger looks at the data longer, and takes more iterations.
    anchor_width, anchor_depth
        Channels and convolutions of the network on the direct image.
    memory, tolerance, max_iterations
        Of the solver, see `priorloom.anderson.anderson`.
    start
        The starting image, on which the fixed point does not depend.
    """
    n = channels(1, operator.domain.is_complex)
    network = ImageNetwork(Averaged(NonexpansiveBlock(n, n, width, depth)))
    anchor = ImageNetwork(ConvolutionBlock(n, n, anchor_width, anchor_depth), skip=True)
    step = AnchoredProximalGradient(network, anchor, contraction)
    layer = Equilibrium(step, memory=memory, tolerance=tolerance, max_iterations=max_iterations)
    return Unrolled([layer], start=start, back="adjoint")


class AnchoredProximalGradient(Step[State]):
    """``x+ = c N(x - t A^H (A x - y)) + (1 - c) P(A^+ y)`` with a nonexpansive N, any P and ``0 < c < 1``.

    Theorem. With ``0 < t < 2 / L``, ``L = |A|^2``, the step contracts by c on every operator, image size and
    measurement, whatever N and P have learned. So it has one fixed point x*, from any start it converges to it by c per
    iteration, and with K a Lipschitz constant of P::

        |x*(y) - x*(y')| <= (c t |A| + (1 - c) K |A^+|) / (1 - c) |y - y'|,    t |A| < 2 / |A|

    Proof. ``I - t A^H A`` has norm at most 1 for such t and N is nonexpansive, so their composition is, and c times it
    contracts by c; the anchor does not depend on x. The rest is Banach's theorem with the step's constant in y.

    With ``N = P = I`` x* is ``argmin 0.5 |A x - y|^2 + (1 - c) / (2 c t) |x - A^+ y|^2``. Without the anchor N, which
    keeps 0, would pull every image towards 0.

    Parameters
    ----------
    network
        N, which states the Lipschitz constant 1.
    anchor
        P, from one image to one.
    contraction
        c.
    """

    def __init__(self, network: nn.Module, anchor: nn.Module, contraction: float) -> None:
        super().__init__()
        if not 0 < contraction < 1:
            raise InputError("contraction of a deep equilibrium", expected="between 0 and 1", got=contraction)
        bound = network_bound(network)
        if isinstance(bound, str) or bound > 1:
            raise InputError("network of a deep equilibrium", expected="one with the Lipschitz bound 1", got=bound)
        self.step = ISTA(StepSize())
        self.network = network
        self.anchor = anchor
        self.contraction = contraction

    def own(self, problem: Problem) -> Problem:
        """The problem whose proximal gradient step this is; its prior holds ``P(A^+ y)``."""
        (image,) = self.anchor(problem.data.K.pseudo_inverse(least_squares(self, problem).y))
        return problem.with_prior(AnchoredProx(problem.space, self.network, image, self.contraction))

    def init(self, problem: Problem, x0: Tensor | None = None) -> State:
        """Start at `x0`."""
        return self.step.init(problem, x0)

    def forward(self, problem: Problem, state: State) -> State:
        """One step."""
        after: State = self.step(self.own(problem), state)
        return after


class AnchoredProx(Functional):
    """A functional that is known by its prox only, ``c N(x) + (1 - c) m``.

    Parameters
    ----------
    space
        The Space of one image.
    network
        N.
    anchor
        m, ``[..., *space.shape]``.
    contraction
        c.
    """

    has_value = False
    is_convex = False

    def __init__(self, space: Space, network: nn.Module, anchor: Tensor, contraction: float) -> None:
        super().__init__(space)
        self.network = network
        self.anchor = anchor
        self.contraction = contraction

    def _prox(self, x: Tensor, step: Tensor) -> Tensor:
        (made,) = self.network(x)
        result: Tensor = self.contraction * made + (1 - self.contraction) * self.anchor
        return result


@prepared.register
def _(step: AnchoredProximalGradient, problem: Problem) -> tuple[Step[Any], Problem]:
    return step.step, step.own(problem)


@step_bound.register
def _(step: AnchoredProximalGradient, problem: Problem) -> float | str:
    descent = gradient_step_bound(step.step.step_size, problem)
    network = network_bound(step.network)
    if isinstance(descent, str) or isinstance(network, str):
        return descent if isinstance(descent, str) else network
    return descent * network * step.contraction
