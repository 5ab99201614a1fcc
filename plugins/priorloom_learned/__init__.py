"""Learned reconstruction: unrolled architectures, the methods that run trained ones, and their weights."""

from __future__ import annotations

from collections.abc import Mapping

from priorloom.hooks import Factory, hookimpl


@hookimpl
def priorloom_architectures() -> Mapping[str, Factory]:
    """Unrolled networks."""
    return {
        "learned-ista": "priorloom_learned.architectures:learned_ista",
        "learned-primal-dual": "priorloom_learned.architectures:learned_primal_dual",
        "learned-proximal-gradient": "priorloom_learned.architectures:learned_proximal_gradient",
        "modl": "priorloom_learned.architectures:modl",
        "unet": "priorloom_learned.architectures:unet",
        "variational-network": "priorloom_learned.architectures:variational_network",
    }
