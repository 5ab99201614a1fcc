"""Unrolled architectures: each is a few lines on shared steps and networks, and its classical method at initialisation.

Every factory takes the operator at hand (for its number type only) and returns an untrained ``Unrolled``. Common
parameters: ``layers`` (K), ``shared`` (one set of parameters for all layers, or one each), ``width`` and ``depth`` of
the convolution blocks, ``skip`` (the network adds to its input, which makes the new network the classical step; without
it the network replaces its input), ``back`` (what carries the data gradient back) and ``start``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from priorloom.constraints import Penalty, StepSize
from priorloom.networks import Averaged, ConvolutionBlock, ImageNetwork, NonexpansiveBlock, UNet
from priorloom.networks.images import channels
from priorloom.operator import LinearOperator
from priorloom.pipeline import Slot
from priorloom.space import Space
from priorloom.steps import ADMM, ISTA, CGUpdate, ExactUpdate, NetworkUpdate, State, XUpdate
from priorloom.steps.learned import (
    Layer,
    LearnedPrimalDual,
    LearnedWeight,
    MemoryMoDL,
    MoDL,
    NetworkPrior,
    PostProcessing,
    VariationalNetwork,
)
from priorloom.steps.splitting import Multipliers
from priorloom.unrolled import Back, Start, Unrolled, repeat

WAVELET = Slot("prior", "wavelet-l1")


def learned_ista(
    operator: LinearOperator,
    *,
    layers: int = 10,
    shared: bool = False,
    prior: Slot = WAVELET,
    back: Back = "adjoint",
    start: Start = "pseudo-inverse",
) -> Unrolled:
    """ISTA with learned step sizes and thresholds (Gregor and LeCun, 2010), wavelets as the dictionary.

    Parameters
    ----------
    layers, shared
        How many, and whether they share their parameters.
    prior
        The sparsity prior, of which every layer learns the weight.
    back, start
        What carries the data gradient back, and the starting image.
    """
    return Unrolled(
        repeat(lambda: Layer(ISTA(StepSize()), LearnedWeight()), layers, shared=shared),
        start=start,
        back=back,
        prior=lambda space: prior.build(space, lam=1.0),
    )


def learned_proximal_gradient(
    operator: LinearOperator,
    *,
    layers: int = 5,
    shared: bool = False,
    width: int = 32,
    depth: int = 3,
    skip: bool = True,
    back: Back = "pseudo-inverse",
    start: Start = "pseudo-inverse",
) -> Unrolled:
    """Proximal gradient with a network as each layer's prox (Mardani et al., 2018; Adler and Oktem, 2017).

    Parameters
    ----------
    layers, shared
        How many, and whether they share their parameters.
    width, depth
        Channels and convolutions of each network.
    skip
        Whether the network adds to its input or replaces it.
    back, start
        What carries the data gradient back, and the starting image.
    """

    def layer() -> Layer[State]:
        return Layer(ISTA(StepSize()), NetworkPrior(_prox(operator.domain, width, depth, skip)))

    return Unrolled(repeat(layer, layers, shared=shared), start=start, back=back)


def nonexpansive_proximal_gradient(
    operator: LinearOperator,
    *,
    layers: int = 5,
    shared: bool = False,
    width: int = 32,
    depth: int = 3,
    back: Back = "adjoint",
    start: Start = "pseudo-inverse",
) -> Unrolled:
    """Learned proximal gradient whose networks are averaged operators: no layer ever carries two images further apart.

    With the adjoint's gradient the whole network has the Lipschitz constant 1, on every operator and image size.

    Parameters
    ----------
    layers, shared
        How many, and whether they share their parameters.
    width, depth
        Channels (an even number) and convolutions of each network.
    back, start
        What carries the data gradient back, and the starting image.
    """
    n = channels(1, operator.domain.is_complex)

    def layer() -> Layer[State]:
        network = ImageNetwork(Averaged(NonexpansiveBlock(n, n, width, depth)))
        return Layer(ISTA(StepSize()), NetworkPrior(network))

    return Unrolled(repeat(layer, layers, shared=shared), start=start, back=back)


def learned_primal_dual(
    operator: LinearOperator,
    *,
    layers: int = 10,
    shared: bool = False,
    memory: int = 4,
    width: int = 32,
    depth: int = 3,
    back: Back = "adjoint",
    start: Start = "pseudo-inverse",
) -> Unrolled:
    """Learned primal-dual (Adler and Oktem, IEEE Trans. Med. Imaging 37, 2018).

    Parameters
    ----------
    layers, shared
        How many, and whether they share their parameters.
    memory
        Further images and dual variables that the networks keep from layer to layer.
    width, depth
        Channels and convolutions of each network.
    back, start
        What carries the dual variable back, and the starting image.
    """

    def layer() -> LearnedPrimalDual:
        primal = _network(operator.domain, 2 + memory, 1 + memory, width, depth)
        dual = _network(operator.range, 2 + memory, 1 + memory, width, depth)
        return LearnedPrimalDual(primal, dual, memory)

    return Unrolled(repeat(layer, layers, shared=shared), start=start, back=back)


def modl(
    operator: LinearOperator,
    *,
    layers: int = 5,
    shared: bool = True,
    width: int = 48,
    depth: int = 5,
    rho: float = 0.1,
    start: Start = "pseudo-inverse",
) -> Unrolled:
    """A network and data consistency by conjugate gradients in turn (MoDL; Aggarwal, Mani and Jacob, 2019).

    Parameters
    ----------
    layers, shared
        How many, and whether they share their parameters.
    width, depth
        Channels and convolutions of each network.
    rho
        The first weight of the network's image against the data, in units of the operator's squared norm.
    start
        The starting image.
    """

    def layer() -> Layer[State]:
        return Layer(MoDL(rho), NetworkPrior(_prox(operator.domain, width, depth, skip=True)))

    return Unrolled(repeat(layer, layers, shared=shared), start=start, back="adjoint")


def memory_modl(
    operator: LinearOperator,
    *,
    layers: int = 4,
    shared: bool = False,
    memory: int = 4,
    width: int = 32,
    depth: int = 4,
    rho: float = 0.1,
    start: Start = "pseudo-inverse",
) -> Unrolled:
    """MoDL whose networks keep a memory and see what the data changed (see ``MemoryMoDL``).

    Parameters
    ----------
    layers, shared
        How many, and whether they share their parameters.
    memory
        Further images that the networks keep from layer to layer.
    width, depth
        Channels and convolutions of each network.
    rho
        The first weight of the network's image against the data, in units of the operator's squared norm.
    start
        The starting image, which is made consistent with the data before the first layer.
    """

    def layer() -> MemoryMoDL:
        return MemoryMoDL(_network(operator.domain, 2 + memory, 1 + memory, width, depth), memory, rho)

    return Unrolled(repeat(layer, layers, shared=shared), start=start, back="adjoint")


def learned_admm(
    operator: LinearOperator,
    *,
    layers: int = 5,
    shared: bool = False,
    width: int = 32,
    depth: int = 3,
    skip: bool = True,
    rho: float = 0.1,
    budget: int = 4,
    start: Start = "pseudo-inverse",
) -> Unrolled:
    """ADMM with a network as each layer's prox (ADMM-Net; Yang et al., 2016), its x-update by conjugate gradients.

    Parameters
    ----------
    layers, shared
        How many, and whether they share their parameters.
    width, depth
        Channels and convolutions of each network.
    skip
        Whether the network adds to its input or replaces it.
    rho
        The first penalty, in units of the operator's squared norm.
    budget
        Iterations of conjugate gradients in each layer.
    start
        The starting image.
    """
    network = partial(_prox, operator.domain, width, depth, skip)
    return _admm(layers, shared, rho, network, lambda: CGUpdate(1e-3, budget), start)


def learned_admm_exact(
    operator: LinearOperator,
    *,
    layers: int = 5,
    shared: bool = False,
    width: int = 32,
    depth: int = 3,
    skip: bool = True,
    rho: float = 0.1,
    start: Start = "pseudo-inverse",
) -> Unrolled:
    """Learned ADMM with the x-update in closed form, for operators that have one (``LinearOperator.solve_normal``).

    Parameters
    ----------
    layers, shared
        How many, and whether they share their parameters.
    width, depth
        Channels and convolutions of each network.
    skip
        Whether the network adds to its input or replaces it.
    rho
        The first penalty, in units of the operator's squared norm.
    start
        The starting image.
    """
    network = partial(_prox, operator.domain, width, depth, skip)
    return _admm(layers, shared, rho, network, ExactUpdate, start)


def learned_admm_network(
    operator: LinearOperator,
    *,
    layers: int = 5,
    shared: bool = False,
    width: int = 32,
    depth: int = 3,
    skip: bool = True,
    rho: float = 0.1,
    inner: int = 1,
    inner_width: int = 16,
    inner_depth: int = 2,
    start: Start = "pseudo-inverse",
) -> Unrolled:
    """Learned ADMM with a network that replaces the solve of the x-update, trained end to end.

    Parameters
    ----------
    layers, shared
        How many, and whether they share their parameters.
    width, depth
        Channels and convolutions of each network.
    skip
        Whether the network of the prox adds to its input or replaces it.
    rho
        The first penalty, in units of the operator's squared norm.
    inner
        Learned steps on the system in each layer, a network each.
    inner_width, inner_depth
        Channels and convolutions of the networks that solve.
    start
        The starting image.
    """

    def x_update() -> NetworkUpdate:
        return NetworkUpdate([_network(operator.domain, 3, 1, inner_width, inner_depth) for _ in range(inner)])

    network = partial(_prox, operator.domain, width, depth, skip)
    return _admm(layers, shared, rho, network, x_update, start)


def variational_network(
    operator: LinearOperator,
    *,
    layers: int = 8,
    shared: bool = False,
    width: int = 32,
    depth: int = 3,
    back: Back = "adjoint",
    start: Start = "pseudo-inverse",
) -> Unrolled:
    """Gradient steps on the data with a network as the gradient of the regulariser (Hammernik et al., 2018).

    Parameters
    ----------
    layers, shared
        How many, and whether they share their parameters.
    width, depth
        Channels and convolutions of each network.
    back, start
        What carries the data gradient back, and the starting image.
    """

    def layer() -> VariationalNetwork:
        return VariationalNetwork(_network(operator.domain, 1, 1, width, depth))

    return Unrolled(repeat(layer, layers, shared=shared), start=start, back=back)


def unet(operator: LinearOperator, *, width: int = 16, levels: int = 3) -> Unrolled:
    """A U-Net on the direct image: learned post-processing (Jin et al., IEEE Trans. Image Process. 26, 2017).

    Parameters
    ----------
    width
        Channels of the first level.
    levels
        How often the image is halved.
    """
    n = channels(1, operator.domain.is_complex)
    network = ImageNetwork(UNet(n, n, width, levels), skip=True)
    return Unrolled([PostProcessing(network)])


def _admm(
    layers: int,
    shared: bool,
    rho: float,
    network: Callable[[], ImageNetwork],
    x_update: Callable[[], XUpdate],
    start: Start,
) -> Unrolled:
    def layer() -> Layer[Multipliers]:
        return Layer(ADMM(Penalty(rho), x_update()), NetworkPrior(network()))

    return Unrolled(repeat(layer, layers, shared=shared), start=start, back="adjoint")


def _prox(space: Space, width: int, depth: int, skip: bool) -> ImageNetwork:
    """A network from one image to one in the place of a prox: the identity at first, or without `skip` random."""
    n = channels(1, space.is_complex)
    return ImageNetwork(ConvolutionBlock(n, n, width, depth, zero=skip), skip)


def _network(space: Space, inputs: int, outputs: int, width: int, depth: int) -> ImageNetwork:
    """A network whose images are corrections; it starts at zero."""
    block = ConvolutionBlock(channels(inputs, space.is_complex), channels(outputs, space.is_complex), width, depth)
    return ImageNetwork(block)
