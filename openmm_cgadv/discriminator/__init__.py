"""Critics of windows of trajectories: of the motion of beads and of their arrangement."""

from .dynamics import DynamicsDiscriminator
from .gram import GramDiscriminator
from .graph import GraphDiscriminator
from .structure import StructureDiscriminator

__all__ = ["DynamicsDiscriminator", "GramDiscriminator", "GraphDiscriminator", "StructureDiscriminator"]
