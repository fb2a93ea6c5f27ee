"""The terms of the learned energy, one file each, and their registry."""

from .base import PairCurve, Term
from .pair import PairSpec
from .threebody import ThreeBodySpec

TERMS: dict[str, type[Term]] = {term.tag: term for term in (PairSpec, ThreeBodySpec)}
"""The class of each term by its tag."""

__all__ = ["TERMS", "PairCurve", "PairSpec", "Term", "ThreeBodySpec"]
