"""The learned energy in OpenMM's own forces: a serialized System needs nothing else to run."""

from __future__ import annotations

import numpy as np
import openmm

from ..potentials import PotentialSpec


def native_forces(spec: PotentialSpec, theta: np.ndarray, types: np.ndarray) -> list[openmm.Force]:
    """Return the potential as forces that OpenMM itself has: exact, to rounding, but slow.

    Parameters
    ----------
    spec : PotentialSpec
    theta : ndarray [P]
        Parameters (kJ/mol).
    types : ndarray [N] of int
        Bead types, in the order of the System's particles.
    """
    theta = np.asarray(theta, dtype=np.float64)
    return [
        force
        for term, part in spec.split(theta)
        for force in term.openmm_forces(part, types, spec.n_types)
    ]
