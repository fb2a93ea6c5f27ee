"""A model bundle as a potential of OpenMM-ML."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import openmm
from openmm import app
from openmmml.embeddings.mechanicalembedding import MechanicalEmbedding
from openmmml.mlpotential import MLPotentialImpl

from ..bundle import load
from ..export.beads import bead_types
from ..export.system import BACKENDS, checked_box, choose_backend


class Potential(MLPotentialImpl):
    """Add the energy and the masses of a model bundle to Systems of OpenMM-ML.

    ``createSystem`` takes `backend` and `plain` as :meth:`openmm_cgadv.Model.create_system` does.
    By default OpenMM-ML removes the centre-of-mass drift, which lowers the diffusion coefficient by
    one part in the number of beads; ``removeCMMotion=False`` prevents that.

    ``createMixedSystem`` applies the model to the chosen beads and the given System to all other
    interactions, including those of the chosen beads with other particles: a solute in CG water.
    Backend `torchforce` can't act on a part of a System.

    Parameters
    ----------
    path : path
        Directory of the bundle.
    """

    def __init__(self, path: str) -> None:
        self.model = load(path)

    def addForces(
        self,
        topology: app.Topology,
        system: openmm.System,
        atoms: Sequence[int] | None,
        forceGroup: int,
        backend: str | None = None,
        plain: bool = False,
        **ignored: Any,
    ) -> None:
        """Add the energy of the beads `atoms` (all by default) to a System, and set their masses."""
        spec = self.model.spec
        checked_box(topology, spec.r_cut)
        types = bead_types(topology, spec.type_names, atoms)
        if atoms is None:
            for index, bead_type in enumerate(types):
                system.setParticleMass(index, self.model.masses[bead_type])
        plain = plain or not spec.compiled
        backend = choose_backend(backend, plain, atoms is not None)
        force = BACKENDS[backend].create_force(spec, self.model.theta, types, plain, atoms)
        force.setForceGroup(forceGroup)
        system.addForce(force)

    def getSupportedEmbeddings(self) -> list[str]:
        """Return the types of embedding that `createMixedSystem` supports."""
        return ["mechanical"]

    def createMixedSystem(
        self,
        topology: app.Topology,
        system: openmm.System,
        atoms: Sequence[int] | None,
        forceGroup: int,
        interpolate: bool,
        embedding: str,
        returnInfo: bool = False,
        **arguments: Any,
    ) -> openmm.System:
        """Return a System with mechanical embedding for particles that are beads.

        Raises
        ------
        ValueError
            A chosen particle is not a bead of the model, or is bonded to a particle that is not chosen.
        """
        types = bead_types(topology, self.model.type_names, atoms)
        beads = range(topology.getNumAtoms()) if atoms is None else atoms
        chosen = set(beads)
        for bond in topology.bonds():
            ends = sorted((bond.atom1.index, bond.atom2.index))
            if len(chosen.intersection(ends)) == 1:
                raise ValueError(
                    f"atoms: found a bond between {ends[0]} and {ends[1]}, one of them a bead of "
                    "the model, expected beads without bonds to other particles"
                )
        # It reads the number of every element, but uses only those at cut bonds.
        topology = copy.deepcopy(topology)
        for atom in topology.atoms():
            atom.element = atom.element or app.element.hydrogen
        mixed = MechanicalEmbedding().createMixedSystem(
            self, topology, system, atoms, forceGroup, interpolate, **arguments
        )
        for index, bead_type in zip(beads, types):
            mixed.setParticleMass(index, self.model.masses[bead_type])
        return mixed

    def getMLLongRange(self) -> bool:
        """Return False: there are no long-range interactions."""
        return False
