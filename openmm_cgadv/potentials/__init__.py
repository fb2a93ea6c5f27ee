"""The learned energy of coarse-grained beads, one file a term."""

from .linear import basis, basis_forces
from .potential import Potential
from .spec import PairSpec, PotentialSpec, ThreeBodySpec

__all__ = ["PairSpec", "Potential", "PotentialSpec", "ThreeBodySpec", "basis", "basis_forces"]
