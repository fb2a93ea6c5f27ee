"""The learned energy of coarse-grained beads: a list of terms, one file each in :mod:`.terms`."""

from .potential import Potential
from .spec import PotentialSpec
from .terms import PairCurve, PairSpec, Term, ThreeBodySpec

__all__ = [
    "PairCurve",
    "PairSpec",
    "Potential",
    "PotentialSpec",
    "Term",
    "ThreeBodySpec",
]
