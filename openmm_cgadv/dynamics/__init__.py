"""Equations of motion of the beads, one file each, with the discretization that OpenMM uses in production."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .base import Friction, TrainableFriction
from .generalized_langevin import (
    GeneralizedLangevin,
    GeneralizedLangevinParameters,
    integrated_friction,
    memory_kernel,
    propagator,
    running_friction,
    running_friction_on_grid,
)
from .langevin import Langevin, LangevinParameters
from .neighborhood import Neighborhood
from .pairwise import PairFriction, PairFrictionParameters
from .pairwise_rollout import pair_rollout
from .rollout import rollout

FRICTIONS: dict[str, type[Friction]] = {
    friction.name: friction
    for friction in (LangevinParameters, GeneralizedLangevinParameters, PairFrictionParameters)
}
"""Class of the parameters of each equation of motion by its name."""


def friction_from_arrays(arrays: Mapping[str, np.ndarray]) -> Friction:
    """Return the friction from :meth:`Friction.arrays` and its name ``equation`` in a mapping.

    Files of earlier versions lack ``equation``.
    """
    if "equation" in arrays:
        return FRICTIONS[str(arrays["equation"])].from_arrays(arrays)
    older: type[Friction] = PairFrictionParameters
    if "drift" in arrays:
        older = (
            GeneralizedLangevinParameters if arrays["drift"].shape[-1] > 1 else LangevinParameters
        )
    return older.from_arrays(arrays)


__all__ = [
    "FRICTIONS",
    "Friction",
    "GeneralizedLangevin",
    "GeneralizedLangevinParameters",
    "Langevin",
    "LangevinParameters",
    "Neighborhood",
    "PairFriction",
    "PairFrictionParameters",
    "TrainableFriction",
    "integrated_friction",
    "friction_from_arrays",
    "memory_kernel",
    "pair_rollout",
    "propagator",
    "rollout",
    "running_friction",
    "running_friction_on_grid",
]
