"""Discriminator networks: of windows of trajectories and of configurations."""

from .dynamics import DynamicsDiscriminator
from .gram import GramDiscriminator
from .graph import GraphDiscriminator
from .structure import StructureDiscriminator

__all__ = [
    "DynamicsDiscriminator",
    "GramDiscriminator",
    "GraphDiscriminator",
    "StructureDiscriminator",
]
