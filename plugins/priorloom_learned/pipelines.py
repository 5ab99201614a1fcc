"""Methods that run trained models: one per architecture, and ``learned`` for any.

Each is K layers applied once; what a layer does is its architecture's (``priorloom_learned.architectures``). No
convergence theorem speaks of a fixed number of layers, so the certificate is "none"; what the card proves of stability
stands beside it.
"""

from __future__ import annotations

from priorloom.modality import Case
from priorloom.pipeline import Assembly, Pipeline
from priorloom.trained import ModelSlot


def learned() -> Pipeline:
    """Any trained model: set ``model.path`` to a folder that training wrote, or ``model.name``."""
    return _pipeline("learned", "a trained model of any architecture", None, own=False)


def learned_ista() -> Pipeline:
    """ISTA with learned step sizes and thresholds."""
    return _pipeline("learned-ista", "x - t grad f(x), then a learned threshold, K times", "learned-ista")


def learned_proximal_gradient() -> Pipeline:
    """Proximal gradient with a network as each layer's prox."""
    return _pipeline(
        "learned-proximal-gradient", "x - t A^+ (Ax - y), then a network, K times", "learned-proximal-gradient"
    )


def learned_primal_dual() -> Pipeline:
    """Learned primal-dual."""
    return _pipeline("learned-primal-dual", "PDHG corrected by networks with memory, K layers", "learned-primal-dual")


def nonexpansive_proximal_gradient() -> Pipeline:
    """Proximal gradient with a nonexpansive network as each layer's prox."""
    return _pipeline(
        "nonexpansive-proximal-gradient",
        "x - t grad f(x), then a nonexpansive network, K times",
        "nonexpansive-proximal-gradient",
    )


def learned_admm() -> Pipeline:
    """ADMM with a network as each layer's prox, its x-update by conjugate gradients."""
    return _pipeline("learned-admm", "ADMM with a network for the prox, x-update by CG, K layers", "learned-admm")


def learned_admm_exact() -> Pipeline:
    """ADMM with a network as each layer's prox, its x-update in closed form."""
    return _pipeline(
        "learned-admm-exact", "ADMM with a network for the prox, x-update exact, K layers", "learned-admm-exact"
    )


def learned_admm_network() -> Pipeline:
    """ADMM with a network as each layer's prox, and one that replaces the solve of the x-update."""
    return _pipeline(
        "learned-admm-network", "ADMM with networks for the prox and the x-update, K layers", "learned-admm-network"
    )


def modl() -> Pipeline:
    """A network and data consistency by conjugate gradients in turn."""
    return _pipeline("modl", "a network, then argmin 0.5 |Ax - y|^2 + rho/2 |x - z|^2 by CG, K times", "modl")


def memory_modl() -> Pipeline:
    """MoDL with memory."""
    return _pipeline("memory-modl", "a network with memory, then data consistency by CG, K times", "memory-modl")


def deep_equilibrium() -> Pipeline:
    """The fixed point of a contractive learned proximal gradient step."""
    return _pipeline(
        "deep-equilibrium",
        "x = c N(x - t A^H (Ax - y)) + (1 - c) P(A^+ y), solved for x, with networks N (nonexpansive) and P",
        "deep-equilibrium",
    )


def variational_network() -> Pipeline:
    """Gradient steps on the data with a network as the regulariser's gradient."""
    return _pipeline(
        "variational-network", "x - t A^H (Ax - y) - R(x) with a network R, K times", "variational-network"
    )


def fbp_unet() -> Pipeline:
    """A U-Net on the FBP image."""
    return _pipeline("fbp-unet", "a U-Net on the FBP image; the data are not looked at again", "unet", ("ct",))


def zero_filled_unet() -> Pipeline:
    """A U-Net on the zero-filled image."""
    return _pipeline(
        "zero-filled-unet", "a U-Net on the zero-filled image; the data are not looked at again", "unet", ("mri",)
    )


def _pipeline(
    name: str, summary: str, architecture: str | None, modalities: tuple[str, ...] = (), *, own: bool = True
) -> Pipeline:
    slot = ModelSlot(name if own else "", architecture)

    def assemble(case: Case, *, model: ModelSlot = slot) -> Assembly:
        return model.assemble(case)

    return Pipeline(name, "learned", summary, assemble, modalities)
