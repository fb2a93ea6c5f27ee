"""Equivariant critics of windows of trajectories: of the motion of beads and of their arrangement."""

from .dynamics import DynamicsDiscriminator
from .structure import StructureDiscriminator

__all__ = ["DynamicsDiscriminator", "StructureDiscriminator"]
