"""Beads keep their types, masses, molecules, bonds and exclusions from the mapping to the file and back."""

import h5py
import numpy as np
import pytest

from openmm_cgadv.data.mapping import Mapping
from openmm_cgadv.data.reference import select_frames
from openmm_cgadv.data.topology import BeadTopology
from openmm_cgadv.data.trajectory import BeadTrajectory, BeadWriter
from openmm_cgadv.errors import InputError


def hexane_and_argon(**changes):
    """Two molecules of three beads with an argon atom between them."""
    return BeadTopology(
        **dict(
            types=[0, 1, 0, 2, 0, 1, 0],
            type_names=("C2", "C2m", "AR"),
            masses=[29.0, 28.0, 29.0, 40.0, 29.0, 28.0, 29.0],
            molecules=[0, 0, 0, 1, 2, 2, 2],
            bonds=[(5, 4), (0, 1), (1, 2), (5, 6)],
            exclusions=[(0, 1), (1, 2), (0, 2), (4, 5), (5, 6), (4, 6)],
        )
        | changes
    )


def write(path, topology, frames=4):
    writer = BeadWriter(path, temperature=300.0, frame_interval=0.02, **topology.arrays())
    with writer:
        x = np.random.default_rng(0).normal(0, 0.01, (frames, topology.n_beads, 3)).cumsum(0)
        writer.append(x, 3 * np.eye(3))
        writer.finish()
    return path


def test_a_topology_is_the_same_after_its_arrays_and_its_file(tmp_path):
    topology = hexane_and_argon()
    assert topology.bonds.tolist() == [[0, 1], [1, 2], [4, 5], [5, 6]]
    assert (topology.n_beads, topology.n_molecules) == (7, 3)
    assert topology.type_masses.tolist() == [29, 28, 40]
    assert BeadTopology(**topology.arrays()) == topology
    assert topology != hexane_and_argon(bonds=[])
    with BeadTrajectory.open(write(tmp_path / "beads.h5", topology)) as beads:
        assert beads.topology == topology
    with h5py.File(tmp_path / "beads.h5") as file:
        bonds = file["connectivity/bonds"]
        assert bonds.shape == (4, 2) and file[bonds.attrs["particles_group"]].name.endswith("beads")


def test_copies_of_a_trajectory_keep_its_topology(tmp_path):
    source = write(tmp_path / "beads.h5", hexane_and_argon(), frames=8)
    path = select_frames(tmp_path / "part.h5", beads=source, frame_interval=0.04, temperature=300.0)
    with BeadTrajectory.open(path) as beads:
        assert beads.topology == hexane_and_argon()


def test_files_without_molecules_have_molecules_of_one_bead(tmp_path):
    path = write(tmp_path / "beads.h5", hexane_and_argon())
    with h5py.File(path, "r+") as file:
        del file["particles/beads/molecule"], file["connectivity"]
        file["parameters/openmm_cgadv"].attrs["complete"] = False
    alone = hexane_and_argon(molecules=None, bonds=[], exclusions=[])
    with BeadTrajectory.open(path) as beads:
        assert beads.topology == alone and beads.topology.n_molecules == 7
    with BeadWriter(path, temperature=300.0, frame_interval=0.02, **alone.arrays()) as writer:
        assert writer.n_frames == 4
    with pytest.raises(InputError, match="can't be continued: its molecules differ"):
        BeadWriter(path, temperature=300.0, frame_interval=0.02, **hexane_and_argon().arrays())


def test_a_mapping_carries_the_topology_of_its_beads():
    mapping = Mapping(
        [[0, 1], [2, 3], [4]],
        [[1, 1], [1, 1], [1]],
        [28.0, 28.0, 40.0],
        [0, 0, 1],
        ("C2", "AR"),
        molecules=[0, 0, 1],
        bonds=[(0, 1)],
    )
    assert mapping.beads.n_molecules == 2 and mapping.beads.bonds.tolist() == [[0, 1]]
    (bond,) = mapping.topology().bonds()
    assert (bond.atom1.index, bond.atom2.index) == (0, 1)


def test_molecules_can_be_copied_and_ordered():
    topology = hexane_and_argon().of_molecules([1, 2, 0, 0])
    assert topology.types.tolist() == [2] + 3 * [0, 1, 0]
    assert topology.molecules.tolist() == [0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert topology.bonds.tolist() == [[1, 2], [2, 3], [4, 5], [5, 6], [7, 8], [8, 9]]
    assert len(topology.exclusions) == 9
    whole = hexane_and_argon()
    assert whole.of_molecules(range(3)) == whole
    with pytest.raises(InputError, match="expected numbers below 3"):
        whole.of_molecules([3])


def test_molecules_whose_beads_are_scattered_keep_their_bonds():
    scattered = BeadTopology([0, 0, 0, 0], ("A",), [1.0] * 4, [0, 1, 0, 1], [(0, 2), (1, 3)])
    assert scattered.of_molecules([1, 0]).bonds.tolist() == [[0, 1], [2, 3]]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"masses": [1.0, 2.0]}, "masses and types must be one number a bead"),
        ({"types": [0, 1, 0, 3, 0, 1, 0]}, "indices into the 3 type names, found 0 to 3"),
        ({"masses": [-1.0] * 7}, "masses: found -1 Da"),
        ({"molecules": [0, 0, 0, 1, 3, 3, 3]}, "molecules: found numbers from 0 to 3 of 3"),
        ({"molecules": [0, 0]}, r"molecules: found shape \(2,\)"),
        ({"bonds": [(0, 3)]}, "beads 0 and 3 of different molecules"),
        ({"bonds": [(0, 7)]}, "bonds: found bead 7, expected numbers from 0 to 6"),
        ({"bonds": [(1, 1)]}, "bonds: found bead 1 paired with itself"),
        ({"exclusions": [(0, 1), (1, 0)]}, "exclusions: found beads 0 and 1 twice"),
        ({"exclusions": [0, 1, 2]}, r"exclusions: found shape \(3,\)"),
    ],
)
def test_a_topology_that_contradicts_itself_is_rejected(changes, message):
    with pytest.raises(InputError, match=message):
        hexane_and_argon(**changes)
