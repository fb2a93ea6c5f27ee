"""Equations of motion of the beads, in the discretization that OpenMM runs in production."""

from .generalized_langevin import GeneralizedLangevin, Langevin, effective_friction, memory_kernel, propagator
from .pair_friction import PairFriction
from .pair_rollout import pair_rollout
from .rollout import rollout

__all__ = [
    "GeneralizedLangevin", "Langevin", "PairFriction", "effective_friction", "memory_kernel", "pair_rollout",
    "propagator", "rollout",
]  # fmt: skip
