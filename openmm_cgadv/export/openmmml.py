"""The model as a potential of OpenMM-ML: `MLPotential("cgadv", path="NAME.cg")`."""

from __future__ import annotations

import copy

import openmm
from openmm import app
from openmmml.embeddings.mechanicalembedding import MechanicalEmbedding
from openmmml.mlpotential import MLPotentialImpl, MLPotentialImplFactory

from .bundle import load
from .system import BACKENDS, bead_types, checked_box, choose_backend


class Factory(MLPotentialImplFactory):
    """What OpenMM-ML finds as an entry point when it is imported."""

    def createImpl(self, name: str, path: str | None = None, **unknown) -> Potential:
        """The potential of a bundle.

        Raises
        ------
        ValueError
            There is no `path`, or it is not a bundle.
        """
        if path is None or unknown:
            found = ", ".join(unknown) or "nothing"
            raise ValueError(
                f'MLPotential("{name}"): found {found}, expected path=, the folder of a bundle'
            )
        return Potential(path)


class Potential(MLPotentialImpl):
    """A bundle whose energy OpenMM-ML adds to Systems, with the masses of its beads.

    ``createSystem`` takes `backend` and `plain` as :meth:`openmm_cgadv.Model.create_system` does.
    Unlike that it removes the motion of the centre of mass, which is OpenMM-ML's default; with
    ``removeCMMotion=False`` the beads diffuse as they were trained to.

    ``createMixedSystem`` lets chosen beads interact through the model and everything else, those
    beads with other particles included, through the given System: a solute of another kind in
    coarse-grained water. Backend `torchforce` can't act on a part of a System.
    """

    def __init__(self, path: str):
        self.model = load(path)

    def addForces(
        self, topology, system, atoms, forceGroup, backend=None, plain=False, **ignored
    ) -> None:
        spec = self.model.spec
        checked_box(topology, spec.r_cut)
        types = bead_types(topology, spec.type_names, atoms)
        if atoms is None:
            for index, kind in enumerate(types):
                system.setParticleMass(index, self.model.masses[kind])
        backend = choose_backend(backend, plain, atoms is not None)
        force = BACKENDS[backend].create_force(spec, self.model.theta, types, plain, atoms)
        force.setForceGroup(forceGroup)
        system.addForce(force)

    def getSupportedEmbeddings(self) -> list[str]:
        return ["mechanical"]

    def createMixedSystem(
        self,
        topology,
        system,
        atoms,
        forceGroup,
        interpolate,
        embedding,
        returnInfo=False,
        **arguments,
    ) -> openmm.System:
        """OpenMM-ML's mechanical embedding, for particles that are no atoms.

        Raises
        ------
        ValueError
            A chosen particle is no bead of the model, or is bonded to one that was not chosen.
        """
        types = bead_types(topology, self.model.type_names, atoms)
        chosen = set(atoms)
        for bond in topology.bonds():
            ends = sorted((bond.atom1.index, bond.atom2.index))
            if len(chosen.intersection(ends)) == 1:
                raise ValueError(
                    f"atoms: found a bond between {ends[0]} and {ends[1]}, one of them a bead of "
                    "the model, expected beads without bonds to other particles"
                )
        # It looks up the number of every element, though it uses those at cut bonds alone.
        topology = copy.deepcopy(topology)
        for atom in topology.atoms():
            atom.element = atom.element or app.element.hydrogen
        mixed = MechanicalEmbedding().createMixedSystem(
            self, topology, system, atoms, forceGroup, interpolate, **arguments
        )
        for index, kind in zip(atoms, types):
            mixed.setParticleMass(index, self.model.masses[kind])
        return mixed

    def getMLLongRange(self) -> bool:
        return False
