"""Layers of unrolled networks: the classical steps with a prior of their own, and the steps that only exist learned.

Every layer is its classical step at initialisation, when its network is the identity (or adds zero): a new network
starts where K iterations of the classical method end, and training can only leave that for something better.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from ..constraints import LEAST, Penalty, Positive, StepSize
from ..errors import InputError
from ..functional import Functional, LeastSquares, Weighted
from ..networks.denoising import DenoisingNetwork
from ..operator import Identity
from ..problem import Problem
from ..space import Space
from .base import S, State, Step, per_image, refuse_backprojector, refuse_terms, start
from .x_update import CGUpdate, NormalSystem, XUpdate


class Layer(Step[S]):
    """One layer: a classical step on the problem with this layer's own prior in the prox slot.

    ISTA with a `LearnedWeight` is learned ISTA, with a `NetworkPrior` learned proximal gradient; ADMM and HQS likewise.

    Parameters
    ----------
    step
        Any step that takes a prior.
    prior
        From the problem to this layer's Functional: a `LearnedWeight` or a `NetworkPrior`.
    """

    def __init__(self, step: Step[S], prior: LearnedWeight | NetworkPrior) -> None:
        super().__init__()
        self.step = step
        self.prior = prior

    def init(self, problem: Problem, x0: Tensor | None = None) -> S:
        """The step's own."""
        return self.step.init(self._own(problem), x0)

    def forward(self, problem: Problem, state: S) -> S:
        """The step on the problem with this layer's prior."""
        after: S = self.step(self._own(problem), state)
        return after

    def _own(self, problem: Problem) -> Problem:
        prior: Functional = self.prior(problem)
        return problem.with_prior(prior)


class LearnedWeight(nn.Module):
    """The problem's own prior times a learned ``c >= 0``: a learned threshold where the prior is an l1 norm."""

    def __init__(self, initial: float = 1.0) -> None:
        super().__init__()
        self.weight = Positive(initial)

    def forward(self, problem: Problem) -> Functional:
        """``c g``."""
        return Weighted(problem.prior, self.weight())


class NetworkPrior(nn.Module):
    """A network in the place of the prox: ``prox(x) = network(x)``, whatever the step.

    Parameters
    ----------
    network
        From one image to one image, ``(x,) -> (x,)``; see ``priorloom.networks.ImageNetwork``.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, problem: Problem) -> Functional:
        """The network as a Functional."""
        return NetworkProx(problem.space, self.network)


class NetworkProx(Functional):
    """A functional that is known by its prox only, a network."""

    has_value = False
    is_convex = False

    def __init__(self, space: Space, network: nn.Module) -> None:
        super().__init__(space)
        self.network = network

    def _prox(self, x: Tensor, step: Tensor) -> Tensor:
        (result,) = self.network(x)
        image: Tensor = result
        return image


class PostProcessing(Step[State]):
    """``x+ = network(x)``: no physics but in the starting image (Jin, McCann, Froustey and Unser, 2017).

    The network sees a complex image divided by its smooth phase, see `MemoryMoDL`.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def init(self, problem: Problem, x0: Tensor | None = None) -> State:
        """Start at `x0`."""
        return State(start(problem, x0))

    def forward(self, problem: Problem, state: State) -> State:
        """The network."""
        phase = smooth_phase(state.x)
        (image,) = self.network(state.x * phase.conj())
        return State(image * phase)


class Denoise(Step[State]):
    """``x+ = D(x, sigma)`` with a denoising network and the problem's noise level: the one layer of a denoiser.

    Denoising is the reconstruction with A = I, so that a denoiser is trained, stored and described as every other
    network is. It sees a complex image divided by its smooth phase, see `MemoryMoDL`.

    Parameters
    ----------
    network
        D.
    """

    def __init__(self, network: DenoisingNetwork) -> None:
        super().__init__()
        self.network = network

    def init(self, problem: Problem, x0: Tensor | None = None) -> State:
        """Start at `x0`."""
        if problem.noise_std is None:
            raise InputError("noise level of a denoiser", expected="a number", got="none")
        return State(start(problem, x0))

    def forward(self, problem: Problem, state: State) -> State:
        """The network."""
        assert problem.noise_std is not None
        sigma = problem.space.expand(per_image(problem, state.x, problem.noise_std))
        phase = smooth_phase(state.x)
        return State(self.network(state.x * phase.conj(), sigma) * phase)


class VariationalNetwork(Step[State]):
    """``x+ = x - t A^H grad f(Ax) - R(x)`` with a network R (Hammernik et al., Magn. Reson. Med. 79, 2018, eq. 8).

    With R = 0 it is a gradient step.

    Parameters
    ----------
    regulariser
        R, from one image to one.
    """

    def __init__(self, regulariser: nn.Module) -> None:
        super().__init__()
        self.step_size = StepSize()
        self.regulariser = regulariser

    def init(self, problem: Problem, x0: Tensor | None = None) -> State:
        """Start at `x0`."""
        refuse_terms(self, problem)
        return State(start(problem, x0))

    def forward(self, problem: Problem, state: State) -> State:
        """The gradient step and the regulariser."""
        x = state.x
        t = problem.space.expand(per_image(problem, x, self.step_size))
        (pull,) = self.regulariser(x)
        return State(x - t * problem.data.gradient(x) - pull)


class MoDL(Step[State]):
    """``z = prox(x)``, ``x+ = argmin_x 0.5 |Ax - y|^2 + rho / 2 |x - z|^2`` (Aggarwal, Mani and Jacob, 2019, eq. 9-10).

    The layer ends with the data, so that what was measured is not overruled. With the identity as prox it is the
    proximal point method on the data term (iterated Tikhonov regularisation).

    Parameters
    ----------
    rho
        The first weight of the prior's image, in units of L.
    x_update
        Solves ``(A^H A + rho) x = A^H y + rho z``; conjugate gradients from z with a stated budget when absent.
    """

    def __init__(self, rho: float = 0.1, x_update: XUpdate | None = None) -> None:
        super().__init__()
        self.rho = Penalty(rho)
        self.x_update: XUpdate = CGUpdate(tolerance=1e-3, max_iterations=6) if x_update is None else x_update

    def init(self, problem: Problem, x0: Tensor | None = None) -> State:
        """Start at `x0`."""
        refuse_terms(self, problem)
        refuse_backprojector(self, problem)
        least_squares(self, problem)
        return State(start(problem, x0))

    def forward(self, problem: Problem, state: State) -> State:
        """The prior, then the data."""
        rho = per_image(problem, state.x, self.rho)
        return State(consistent(self, problem, problem.prior.prox(state.x, 1 / rho), rho))


@dataclass(frozen=True)
class Correction(State):
    """The state of MoDL with memory.

    Parameters
    ----------
    moved
        What the data changed in the last image of the network, ``x - z``; ``rho (z - x)`` is the data gradient at x.
    images
        What the networks remember.
    phase
        The smooth phase of the first image, of modulus 1 (1 for real images).
    """

    moved: Tensor
    images: tuple[Tensor, ...]
    phase: Tensor


class MemoryMoDL(Step[Correction]):
    """MoDL whose network sees what the data changed, and remembers::

        z  = x + N_0(x, d, m)        m+ = m + N_1..(x, d, m)
        x+ = argmin_x 0.5 |Ax - y|^2 + rho / 2 |x - z|^2        d+ = x+ - z

    Memory as in learned primal-dual (Adler and Oktem, 2018), data consistency as in `MoDL`. The image before the first
    layer is made consistent with the data too. With a network that adds zero it is the proximal point method.

    The phase of a scan is arbitrary (coils, fields, echo times), and a network that has seen few phases fails on the
    others. So it sees every image divided by the smooth phase of the first one, as partial-Fourier methods do (Noll,
    Nishimura and Macovski, IEEE Trans. Med. Imaging 10, 1991), and never learns a phase: turning y turns the result.

    Parameters
    ----------
    network
        N: from ``2 + memory`` to ``1 + memory`` images.
    memory
        How many further images are kept.
    rho, x_update
        As for `MoDL`.
    """

    def __init__(self, network: nn.Module, memory: int, rho: float = 0.1, x_update: XUpdate | None = None) -> None:
        super().__init__()
        self.network = network
        self.memory = memory
        self.rho = Penalty(rho)
        self.x_update: XUpdate = CGUpdate(tolerance=1e-3, max_iterations=6) if x_update is None else x_update

    def init(self, problem: Problem, x0: Tensor | None = None) -> Correction:
        """`x0` made consistent with the data, and an empty memory."""
        refuse_terms(self, problem)
        refuse_backprojector(self, problem)
        least_squares(self, problem)
        z = start(problem, x0)
        x = consistent(self, problem, z, per_image(problem, z, self.rho))
        return Correction(x, x - z, (torch.zeros_like(x),) * self.memory, smooth_phase(x))

    def forward(self, problem: Problem, state: Correction) -> Correction:
        """The network, then the data."""
        phase = state.phase
        change, *memory = self.network(state.x * phase.conj(), state.moved * phase.conj(), *state.images)
        z = state.x + change * phase
        x = consistent(self, problem, z, per_image(problem, z, self.rho))
        return Correction(x, x - z, tuple(a + b for a, b in zip(state.images, memory, strict=True)), phase)


def smooth_phase(x: Tensor, window: int = 9) -> Tensor:
    """``s / |s|`` with s the mean of x over a square window, of modulus 1 where s is not 0; 1 for real images."""
    if not x.is_complex():
        return torch.ones_like(x)
    parts = torch.view_as_real(x.detach().resolve_conj()).movedim(-1, -3)
    mean = avg_pool2d(parts.flatten(0, -4) if parts.ndim > 3 else parts, window, 1, window // 2)
    s = torch.view_as_complex(mean.reshape(parts.shape).movedim(-3, -1).contiguous())
    size = s.abs()
    return torch.where(size > 0, s / size.clamp_min(torch.finfo(size.dtype).tiny), 1)


def consistent(step: MoDL | MemoryMoDL, problem: Problem, z: Tensor, rho: Tensor) -> Tensor:
    """``argmin_x 0.5 |Ax - y|^2 + rho / 2 |x - z|^2`` by the x-update of `step`, from z."""
    b = problem.data.K.adjoint(least_squares(step, problem).y) + problem.space.expand(rho) * z
    operators = (problem.data.K, Identity(problem.space))
    return step.x_update(NormalSystem(operators, (torch.ones_like(rho), rho), b, z))


@dataclass(frozen=True)
class Memory(State):
    """The state of learned primal-dual.

    Parameters
    ----------
    p
        The dual variable in units of the measurement over ``|A|``, ``[..., *range.shape]``.
    extrapolated
        ``2 x+ - x``.
    images, measurements
        What the networks remember: further images and further dual variables.
    """

    p: Tensor
    extrapolated: Tensor
    images: tuple[Tensor, ...]
    measurements: tuple[Tensor, ...]


class LearnedPrimalDual(Step[Memory]):
    """PDHG whose two proximal maps are corrected by networks with memory (Adler and Oktem, 2018, algorithm 3).

    On the operator scaled to norm 1, ``B = A / |A|`` (or with a backprojector to ``|A^+ A| = 1``), for least squares::

        r  = B x' - y / |A|
        p+ = prox_{s F*}(p + s B x') + G_0(p, r, h)        h+ = h + G_1..(p, r, h)
        x+ = prox_{g / (c s)}(x - B^H p+ / s) + L_0(x, B^H p+, m)   m+ = m + L_1..(x, B^H p+, m)
        x' = 2 x+ - x

    with the prox of ``F = 0.5 |. - y / |A||^2`` and c the Lipschitz constant of the data gradient. Networks that add
    zero leave PDHG with step sizes ``1 / s`` and s. The paper's networks replace the proximal maps altogether; here
    they start from them, and see the residual r instead of ``B x'`` and y apart, which low precision could not
    subtract.

    Parameters
    ----------
    primal, dual
        L and G: from ``2 + memory`` (dual: ``2 + memory``) images to ``1 + memory`` corrections.
    memory
        How many further images and dual variables are kept.
    """

    def __init__(self, primal: nn.Module, dual: nn.Module, memory: int) -> None:
        super().__init__()
        self.ratio = Positive(least=LEAST)
        self.primal = primal
        self.dual = dual
        self.memory = memory

    def init(self, problem: Problem, x0: Tensor | None = None) -> Memory:
        """Start at `x0` with zero duals and an empty memory."""
        refuse_terms(self, problem)
        least_squares(self, problem)
        x = start(problem, x0)
        p = problem.data.K.range.zeros(problem.space.batch_shape(x), x.device)
        return Memory(x, p, x, (torch.zeros_like(x),) * self.memory, (torch.zeros_like(p),) * self.memory)

    def forward(self, problem: Problem, state: Memory) -> Memory:
        """The dual step, the primal step, the extrapolation."""
        A, f = problem.data.K, least_squares(self, problem)
        norm = A.norm() or 1.0  # a zero operator says nothing
        # |B^H B| = 1 for the scaled pair, also where the backprojector is not the adjoint.
        lipschitz = problem.data.lipschitz() or 1.0
        back = norm / lipschitz
        s = self.ratio()
        r = (A(state.extrapolated) - f.y) / norm
        p = (state.p + s * r) / (1 + s)
        change, *memory = self.dual(p, r, *state.measurements)
        p = p + change
        measurements = tuple(a + b for a, b in zip(state.measurements, memory, strict=True))
        force = back * problem.data.pull(p)
        x = problem.prior.prox(state.x - force / s, per_image(problem, state.x, 1 / (s * lipschitz)))
        change, *memory = self.primal(x, force, *state.images)
        x = x + change
        images = tuple(a + b for a, b in zip(state.images, memory, strict=True))
        return Memory(x, p, 2 * x - state.x, images, measurements)


def least_squares(step: nn.Module, problem: Problem) -> LeastSquares:
    """The data term's functional; raises InputError unless it is least squares."""
    f = problem.data.f
    if not isinstance(f, LeastSquares):
        raise InputError(f"data term of {type(step).__name__}", expected="least squares", got=type(f).__name__)
    return f
