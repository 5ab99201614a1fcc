"""Iterations: one module per family; every step serves classical, unrolled and plug-and-play methods alike."""

from .base import State, Step
from .convergence import converges
from .douglas_rachford import DRS
from .duality import duality_gap
from .least_squares import CG, LSQR
from .primal_dual import PDHG
from .proximal import FISTA, ISTA
from .red import DataProximal, GradientDescent
from .relaxed import Relaxed
from .splitting import ADMM, HQS
from .x_update import CGUpdate, ExactUpdate, NetworkUpdate, NormalSystem, XUpdate

__all__ = [
    "ADMM",
    "CG",
    "DRS",
    "FISTA",
    "HQS",
    "ISTA",
    "LSQR",
    "PDHG",
    "CGUpdate",
    "DataProximal",
    "ExactUpdate",
    "GradientDescent",
    "NetworkUpdate",
    "NormalSystem",
    "Relaxed",
    "State",
    "Step",
    "XUpdate",
    "converges",
    "duality_gap",
]
