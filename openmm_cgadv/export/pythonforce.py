"""Backend `pythonforce`: the energy inside OpenMM's PythonForce, which works with any torch."""

from __future__ import annotations

import numpy as np
import openmm
import torch

from .. import kernels
from ..potentials import Potential, PotentialSpec


def why_not() -> str | None:
    """Why this backend can't be used here, with what to install, or None."""
    if hasattr(openmm, "PythonForce"):
        return None
    return (
        f"OpenMM {openmm.version.version} has no PythonForce; "
        'install a newer one with pip install "openmm>=8.4"'
    )


def create_force(
    spec: PotentialSpec, theta: np.ndarray, types: np.ndarray, plain: bool
) -> openmm.Force:
    """The energy of beads as one OpenMM force.

    Parameters
    ----------
    spec : PotentialSpec
    theta : ndarray [P]
        Parameters (kJ/mol).
    types : ndarray [N] of int
        Bead types.
    plain : bool
        Plain torch operators even where the compiled kernels are there.
    """
    force = openmm.PythonForce(EnergyAndForces(spec, theta, types, plain))
    force.setUsesPeriodicBoundaryConditions(True)
    return force


class EnergyAndForces:
    """Energy (kJ/mol) and forces [N, 3] (kJ/mol/nm) of an OpenMM State.

    It pickles, so a System with it can be serialized; opening that needs this package.
    """

    def __init__(self, spec: PotentialSpec, theta: np.ndarray, types: np.ndarray, plain: bool):
        self.spec = spec
        self.theta = torch.as_tensor(theta)
        self.types = torch.as_tensor(types)
        self.potential = None
        if plain or not kernels.available():
            self.potential = Potential(spec, self.theta, self.types).requires_grad_(False)

    def __call__(self, state: openmm.State) -> tuple[float, np.ndarray]:
        positions = torch.as_tensor(state.getPositions(asNumpy=True)._value)
        box = torch.as_tensor(state.getPeriodicBoxVectors(asNumpy=True)._value)
        if self.potential is None:
            energy, forces = kernels.energy_forces(
                positions, box, self.types, self.theta, self.spec
            )
        else:
            positions.requires_grad_()
            energy = self.potential(positions, box)
            forces = -torch.autograd.grad(energy, positions)[0]
        return energy.item(), forces.numpy()
