"""Backend `pythonforce`: OpenMM's PythonForce computes the energy, with any version of torch."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from xml.etree import ElementTree

import numpy as np
import openmm
import torch

from ... import kernels
from ...potentials import Potential, PotentialSpec
from .base import DELIVERIES, DELIVERY, Beads, deliver


def why_not(platform: str | None = None) -> str | None:
    """Return why this backend can't be used on any platform, with what to install, or None."""
    if hasattr(openmm, "PythonForce"):
        return None
    return (
        f"OpenMM {openmm.version.version} has no PythonForce; "
        'install a newer one with pip install "openmm>=8.4"'
    )


def create_force(
    spec: PotentialSpec,
    theta: np.ndarray,
    types: np.ndarray,
    plain: bool,
    particles: Sequence[int] | None = None,
) -> openmm.Force:
    force = openmm.PythonForce(EnergyAndForces(spec, theta, types, plain), {DELIVERY: 0})
    force.setUsesPeriodicBoundaryConditions(True)
    if particles is not None:
        force.setParticles(list(particles))
    return force


def read(force: openmm.Force) -> Beads | None:
    if why_not() or not isinstance(force, openmm.PythonForce):
        return None
    if DELIVERY not in dict(force.getGlobalParameters()):
        return None
    # OpenMM gives no access to the function, but pickles it when it serializes the force.
    root = ElementTree.fromstring(openmm.XmlSerializer.serialize(force))
    function = pickle.loads(bytes.fromhex(root.get("function", "")))
    return Beads(function.spec, function.types.numpy())


def update(context: openmm.Context, force: openmm.Force, theta: np.ndarray) -> None:
    deliver(context, force, theta)


class EnergyAndForces:
    """Function that computes the energy (kJ/mol) and forces [N, 3] (kJ/mol/nm) of an OpenMM State.

    It can be pickled, so a System that contains it can be serialized. Deserialization needs this
    package.
    """

    def __init__(
        self, spec: PotentialSpec, theta: np.ndarray, types: np.ndarray, plain: bool
    ) -> None:
        self.spec = spec
        self.theta = torch.tensor(theta)
        self.types = torch.tensor(types)
        self.potential: Potential | None = None
        if plain or not kernels.available(spec):
            self.potential = Potential(spec, self.theta, self.types).requires_grad_(False)
            self.theta = self.potential.theta

    def __call__(self, state: openmm.State) -> tuple[float, np.ndarray]:
        delivery = int(state.getParameters()[DELIVERY])
        if delivery > 0:
            self.theta.copy_(torch.from_numpy(np.fromfile(f"{DELIVERIES}{delivery}")))
        positions = torch.as_tensor(state.getPositions(asNumpy=True)._value)
        box = torch.as_tensor(state.getPeriodicBoxVectors(asNumpy=True)._value)
        if len(positions) != len(self.types):
            raise ValueError(
                f"System: found {len(positions)} particles, expected {len(self.types)} beads"
            )
        if self.potential is None:
            energy, forces = kernels.energy_forces(
                positions, box, self.types, self.theta, self.spec
            )
        else:
            positions.requires_grad_()
            energy = self.potential(positions, box)
            forces = -torch.autograd.grad(energy, positions)[0]
        return energy.item(), forces.numpy()
