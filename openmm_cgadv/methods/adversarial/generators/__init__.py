"""The frictions that adversarial training adjusts, by the name of their equation of motion."""

from .base import LEARNING_RATES, Generator
from .pairwise import PairwiseGenerator
from .single_particle import SingleParticleGenerator

GENERATORS: dict[str, type[Generator]] = {
    "langevin": SingleParticleGenerator,
    "generalized_langevin": SingleParticleGenerator,
    "pair": PairwiseGenerator,
}
"""The generator of each equation of motion (:data:`openmm_cgadv.dynamics.FRICTIONS`)."""

__all__ = [
    "GENERATORS",
    "LEARNING_RATES",
    "Generator",
    "PairwiseGenerator",
    "SingleParticleGenerator",
]
