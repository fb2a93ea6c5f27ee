"""Equations of motion of the beads, in the discretization that OpenMM runs in production."""

from .generalized_langevin import (
    GeneralizedLangevin,
    Langevin,
    effective_friction,
    memory_kernel,
    propagator,
    running_friction,
    running_friction_on_grid,
)
from .neighborhood import Neighborhood
from .pair_friction import PairFriction, PairFrictionParameters
from .pair_rollout import pair_rollout
from .rollout import rollout

__all__ = [
    "GeneralizedLangevin", "Langevin", "Neighborhood", "PairFriction", "PairFrictionParameters", "effective_friction",
    "memory_kernel", "pair_rollout", "propagator", "rollout", "running_friction",
    "running_friction_on_grid",
]  # fmt: skip
