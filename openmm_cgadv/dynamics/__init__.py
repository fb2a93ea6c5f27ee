"""Equations of motion of the beads, in the discretization that OpenMM runs in production."""

from .generalized_langevin import GeneralizedLangevin, Langevin, effective_friction, memory_kernel, propagator
from .rollout import rollout

__all__ = ["GeneralizedLangevin", "Langevin", "effective_friction", "memory_kernel", "propagator", "rollout"]
