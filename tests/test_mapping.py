"""Beads are the centres of mass of their atoms, and feel the force that acts on that centre."""

import mdtraj
import numpy as np
import openmm
import pytest
from openmm import app

from openmm_cgadv.data.mapping import Mapping
from openmm_cgadv.data.reference.systems import create_context, liquid_box
from openmm_cgadv.data.topology import bead_topology


def water_and_argon(waters=3, site=False):
    topology = mdtraj.Topology()
    chain = topology.add_chain()
    for _ in range(waters):
        residue = topology.add_residue("HOH", chain)
        for name, element in (("O", "O"), ("H1", "H"), ("H2", "H")):
            topology.add_atom(name, mdtraj.element.get_by_symbol(element), residue)
        if site:
            topology.add_atom("M", mdtraj.element.virtual, residue)
    topology.add_atom("AR", mdtraj.element.argon, topology.add_residue("AR", chain))
    return topology


def test_a_bead_is_the_center_of_mass_and_its_momentum():
    rng = np.random.default_rng(1)
    mapping = Mapping.per_residue(water_and_argon())
    x, v = rng.normal(size=(2, 5, 10, 3))
    mass = np.array([15.99943, 1.007947, 1.007947])
    assert mapping.type_names == ("HOH", "AR") and mapping.types.tolist() == [0, 0, 0, 1]
    assert mapping.masses == pytest.approx([mass.sum()] * 3 + [39.9481], rel=1e-6)
    center = np.einsum("tnad,a->tnd", x[:, :9].reshape(5, 3, 3, 3), mass / mass.sum())
    assert np.allclose(mapping.positions(x)[:, :3], center, atol=1e-12)
    assert np.allclose(mapping.positions(x)[:, 3], x[:, 9])
    momentum = np.einsum("tnad,a->tnd", v[:, :9].reshape(5, 3, 3, 3), mass)
    assert np.allclose(mapping.velocities(v)[:, :3] * mass.sum(), momentum, atol=1e-12)


def test_openmm_and_mdtraj_topologies_give_the_same_beads():
    topology, _, _ = liquid_box("tip4pew", 20, 300.0)
    one = Mapping.per_residue(topology)
    other = Mapping.per_residue(mdtraj.Topology.from_openmm(topology))
    assert one.n_beads == 20 and np.array_equal(one.masses, other.masses)
    assert one.masses[0] == pytest.approx(18.0153, abs=1e-4)
    assert np.array_equal(one.atoms, np.arange(80))


def test_massless_sites_move_no_center_of_mass():
    x = np.random.default_rng(2).normal(size=(4, 5, 3))
    mapping = Mapping.per_residue(water_and_argon(1, site=True))
    without = Mapping.per_residue(water_and_argon(1))
    assert np.allclose(mapping.positions(x), without.positions(x[:, [0, 1, 2, 4]]))


@pytest.mark.parametrize("water", ["spce", "tip4pew"])
def test_bead_force_is_minus_the_gradient_for_moving_a_molecule_as_a_whole(water):
    topology, system, positions = liquid_box(water, 30, 298.15)
    context = create_context(
        system, lambda: openmm.LangevinMiddleIntegrator(298.15, 1, 0.002), "Reference"
    )
    context.setPositions(positions)
    openmm.LocalEnergyMinimizer.minimize(context, maxIterations=20)
    state = context.getState(positions=True, forces=True)
    x = state.getPositions(asNumpy=True)._value
    mapping = Mapping.per_residue(topology)
    force = mapping.forces(state.getForces(asNumpy=True)._value[None])[0]
    step = 1e-4

    def energy(bead, axis, shift):
        moved = x.copy()
        moved[mapping.groups[bead], axis] += shift
        context.setPositions(moved)
        return context.getState(energy=True).getPotentialEnergy()._value

    for bead in (0, 17):
        gradient = [(energy(bead, k, step) - energy(bead, k, -step)) / (2 * step) for k in range(3)]
        assert force[bead] == pytest.approx(-np.array(gradient), abs=0.1, rel=1e-4)
        assert np.abs(force[bead]).max() > 10


@pytest.mark.parametrize(
    "box", [2 * np.eye(3), np.array([[2.0, 0, 0], [0.7, 1.9, 0], [-0.6, 0.5, 1.8]])]
)
def test_molecules_broken_at_the_boundary_give_the_same_beads(box):
    rng = np.random.default_rng(3)
    mapping = Mapping.per_residue(water_and_argon())
    center = np.repeat(rng.uniform(0, 2, (6, 4, 3)), [3, 3, 3, 1], axis=1)
    whole = center + rng.uniform(-0.08, 0.08, (6, 10, 3))
    broken = whole + rng.integers(-2, 3, (6, 10, 3)) @ box
    first = [group[0] for group in mapping.groups]
    shift = (broken - whole)[:, first]
    boxes = np.broadcast_to(box, (6, 3, 3))
    beads = mapping.positions(broken, boxes)
    assert np.allclose(beads, mapping.positions(whole) + shift, atol=1e-12)


def test_a_residue_of_many_molecules_is_noticed():
    topology = mdtraj.Topology()
    residue = topology.add_residue("WAT", topology.add_chain())
    for _ in range(20):
        topology.add_atom("O", mdtraj.element.oxygen, residue)
    x = np.random.default_rng(4).uniform(0, 2, (1, 20, 3))
    with pytest.raises(ValueError, match=r"20 atoms of bead 0 \(WAT\) spread over half the box"):
        Mapping.per_residue(topology).positions(x, 2 * np.eye(3)[None])


def test_a_selection_maps_the_selected_atoms_alone():
    mapping = Mapping.per_residue(water_and_argon(), "element O or resname AR")
    assert [group.tolist() for group in mapping.groups] == [[0], [3], [6], [9]]
    water = Mapping.per_residue(water_and_argon(), "water")
    assert water.n_beads == 3 and water.type_names == ("HOH",)


def test_bad_selections_and_unknown_masses_are_rejected():
    with pytest.raises(ValueError, match="'resname HO' selects none of the 10 atoms"):
        Mapping.per_residue(water_and_argon(), "resname HO")
    with pytest.raises(ValueError, match="'name ==' is not valid in MDTraj's selection language"):
        Mapping.per_residue(water_and_argon(), "name ==")
    topology = water_and_argon()
    topology.add_atom("QQ", mdtraj.element.virtual, topology.residue(0))
    with pytest.raises(ValueError, match="HOH0-QQ .* has no known element"):
        Mapping.per_residue(topology)
    assert Mapping.per_residue(topology, "not name QQ").n_beads == 4
    with pytest.raises(ValueError, match="residue HOH0: found only massless virtual sites"):
        Mapping.per_residue(water_and_argon(1, site=True), "name M")
    with pytest.raises(ValueError, match="expected equal numbers"):
        Mapping([[0]], [[1.0], [1.0]], [1.0], [0], ["A"])
    with pytest.raises(ValueError, match="expected one weight for each atom"):
        Mapping([[0, 1]], [[1.0]], [1.0], [0], ["A"])


def test_bead_topology_has_one_named_atom_a_residue(tmp_path):
    topology = Mapping.per_residue(water_and_argon()).topology()
    atoms = list(topology.atoms())
    assert [atom.name for atom in atoms] == ["HOH", "HOH", "HOH", "AR"]
    assert [atom.residue.name for atom in atoms] == ["HOH", "HOH", "HOH", "AR"]
    assert all(atom.element is None for atom in atoms)
    assert (topology.getNumChains(), topology.getNumResidues()) == (1, 4)
    app.PDBFile.writeFile(
        topology, np.zeros((4, 3)) * openmm.unit.nanometer, str(tmp_path / "beads.pdb")
    )
    again = app.PDBFile(str(tmp_path / "beads.pdb")).topology
    assert [r.name for r in again.residues()] == ["HOH", "HOH", "HOH", "AR"]
    assert bead_topology([1], ("A", "B")).getNumAtoms() == 1
