"""The map from atoms to beads: which atoms make a bead, and with which weights."""
from __future__ import annotations

import numpy as np

VIRTUAL_SITES = {"M", "M1", "M2", "MW", "MW1", "MW2", "EP", "EP1", "EP2", "EPW", "LP1", "LP2"}
"""Names that massless sites of water models carry in files without an element for them."""
ALIKE = 0.01
"""Largest difference of masses within a type, relative to them."""
LARGEST_SPAN = 0.45
"""Largest extent of a bead's atoms from its first atom, as a fraction of a box period."""


class Mapping:
    """Beads as weighted centres of groups of atoms.

    For bead I with atoms i, weights w_i (their sum is one) and masses m_i::

        R_I = sum_i w_i r_i      V_I = sum_i w_i v_i      F_I = sum_i f_i  (atoms with mass)

    For the mass-weighted centre, w_i = m_i / sum m, this sum of forces is the one whose average at
    given R is minus the gradient of the potential of mean force (Noid et al., J. Chem. Phys. 128,
    244114 (2008), eq. 28), also where the atoms of a group are held together by constraints, whose
    forces cancel in the sum. A group that cuts through a constraint has no such forces.

    Parameters
    ----------
    groups : sequence of int arrays
        Atom indices of each bead.
    weights : sequence of arrays
        One weight an atom; each group's are scaled to a sum of one.
    masses : array [N]
        Bead masses, dalton.
    types : array [N] of int
        Index into `type_names`.
    type_names : sequence of str
    massless : array of int, optional
        Atoms that are virtual sites. OpenMM hands the force on such a site to the atoms that define
        it and still reports it for the site too, so it is left out of the sum of forces.
    whole : bool, optional
        False where groups leave out atoms of their molecules: forces and velocities that are summed over the rest are not read, then.

    Raises
    ------
    ValueError
        The sizes disagree, a group is empty or weightless, or beads of a type differ in mass.
    """

    def __init__(self, groups, weights, masses, types, type_names, massless=(), whole=True):
        self.whole = whole
        self.groups = [np.asarray(group, dtype=np.int64) for group in groups]
        self.masses = np.asarray(masses, dtype=np.float64)
        self.types = np.asarray(types, dtype=np.int64)
        self.type_names = tuple(type_names)
        n = len(self.groups)
        if n == 0 or not n == len(weights) == len(self.masses) == len(self.types):
            raise ValueError(f"a mapping needs as many weights, masses and types as groups, found "
                             f"{n} groups, {len(weights)} weights, {len(self.masses)} masses and "
                             f"{len(self.types)} types")
        for i, (group, weight) in enumerate(zip(self.groups, weights)):
            if len(group) != len(weight) or not np.sum(weight) > 0:
                raise ValueError(f"bead {i} needs one weight an atom with a positive sum, found "
                                 f"{len(group)} atoms and weights {np.asarray(weight).tolist()}")
        check_masses(self.masses, self.types, self.type_names)
        self.weights = [np.asarray(w, dtype=np.float64) / np.sum(w) for w in weights]
        self._atoms = np.concatenate(self.groups)
        self._weights = np.concatenate(self.weights)
        # One for every atom of the groups, zero for a massless one.
        self.massive = (~np.isin(self._atoms, massless)).astype(np.float64)
        sizes = [len(group) for group in self.groups]
        self._starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        self._first = np.repeat(self._starts, sizes)

    @classmethod
    def per_residue(cls, topology, selection=None) -> "Mapping":
        """One bead a residue, at its mass-weighted centre, of a type named after the residue.

        Parameters
        ----------
        topology : mdtraj.Topology or openmm.app.Topology
        selection : str, optional
            MDTraj atom selection (https://mdtraj.org, "Atom Selection"); only these atoms are
            mapped. Everything by default.

        Raises
        ------
        ValueError
            The selection is not valid or picks no atom, an atom's mass is unknown, a residue
            has none, or residues of a name differ in mass.
        """
        import mdtraj
        if not isinstance(topology, mdtraj.Topology):
            topology = mdtraj.Topology.from_openmm(topology)
        chosen = _select(topology, selection)
        groups = {}
        for i in chosen:
            groups.setdefault(topology.atom(i).residue.index, []).append(i)
        residues = [topology.residue(i) for i in groups]
        groups = list(groups.values())
        mass = dict(zip(chosen, atom_masses(topology, chosen)))
        weights = [np.array([mass[i] for i in group]) for group in groups]
        for residue, weight in zip(residues, weights):
            if not weight.sum() > 0:
                raise ValueError(f"residue {residue} has no mass: all its mapped atoms are "
                                 "massless virtual sites")
        names = [residue.name for residue in residues]
        type_names = tuple(dict.fromkeys(names))
        left = (atom.element for residue in residues for atom in residue.atoms if atom.index not in mass)
        whole = all(element is None or element.symbol == "VS" for element in left)
        return cls(groups, weights, [weight.sum() for weight in weights],
                   [type_names.index(name) for name in names], type_names,
                   massless=[i for i in chosen if mass[i] == 0], whole=whole)

    @property
    def n_beads(self) -> int:
        return len(self.groups)

    @property
    def atoms(self) -> np.ndarray:
        """Indices of all atoms that are mapped, sorted."""
        return np.unique(self._atoms)

    def positions(self, xyz, boxes=None) -> np.ndarray:
        """Bead positions [T, N, 3] from atom positions [T, n_atoms, 3], in their unit.

        Parameters
        ----------
        xyz : array [T, n_atoms, 3]
        boxes : array [T, 3, 3], optional
            Box vectors as rows. With them, atoms are first moved by whole box vectors to the image
            nearest to the first atom of their bead, so molecules may be broken at the boundary.
            Without them, molecules must be whole.

        Raises
        ------
        ValueError
            A bead's atoms spread over nearly half the box, so their images can't be told.
        """
        xyz = np.asarray(xyz, dtype=np.float64)[:, self._atoms]
        if boxes is not None:
            boxes = np.asarray(boxes, dtype=np.float64)
            offset = (xyz - xyz[:, self._first]) @ np.linalg.inv(boxes)
            image = np.round(offset)
            span = np.abs(offset - image).max(axis=(0, 2))
            if span.max() > LARGEST_SPAN:
                bead = int(np.searchsorted(self._starts, np.argmax(span), side="right")) - 1
                raise ValueError(
                    f"the {len(self.groups[bead])} atoms of bead {bead} "
                    f"({self.type_names[self.types[bead]]}) spread over half the box: is each "
                    "molecule a residue of its own in the topology?")
            xyz -= image @ boxes
        return self._sum(xyz, self._weights)

    def velocities(self, velocities) -> np.ndarray:
        """Bead velocities [T, N, 3] from atom velocities [T, n_atoms, 3]."""
        return self._sum(np.asarray(velocities, dtype=np.float64)[:, self._atoms], self._weights)

    def forces(self, forces) -> np.ndarray:
        """Bead forces [T, N, 3] from atom forces [T, n_atoms, 3]."""
        return self._sum(np.asarray(forces, dtype=np.float64)[:, self._atoms], self.massive)

    def _sum(self, values, weights):
        return np.add.reduceat(values * weights[:, None], self._starts, axis=1)

    def topology(self):
        """Topology of the beads, an openmm.app.Topology; see `bead_topology`."""
        return bead_topology(self.types, self.type_names)


def check_masses(masses, types, type_names) -> None:
    """See that beads of a type have one mass, as a model has.

    Raises
    ------
    ValueError
        With one sentence that names the type and two of its masses.
    """
    for kind, name in enumerate(type_names):
        own = masses[types == kind]
        if len(own) and np.ptp(own) > ALIKE * own.max():
            raise ValueError(f"beads of type {name} have masses from {own.min():.4g} to {own.max():.4g} Da, expected one mass a type: "
                             "give what differs another residue name in the topology")


def bead_topology(types, type_names):
    """OpenMM Topology of beads: one chain, and a residue with one atom for each bead.

    Residue and atom carry the name of the bead's type; the element is None.

    Parameters
    ----------
    types : array [N] of int
    type_names : sequence of str

    Returns
    -------
    openmm.app.Topology
    """
    from openmm.app import Topology
    topology = Topology()
    chain = topology.addChain()
    for kind in types:
        name = type_names[kind]
        topology.addAtom(name, None, topology.addResidue(name, chain))
    return topology


def atom_masses(topology, atoms=None) -> np.ndarray:
    """Masses of atoms of an MDTraj topology from their elements, dalton; virtual sites zero.

    Parameters
    ----------
    topology : mdtraj.Topology
    atoms : array of int, optional
        Indices of the atoms asked for; all by default.

    Raises
    ------
    ValueError
        An atom has no element and is not named like the massless site of a water model.
    """
    from openmm.app import Element
    masses = []
    for i in range(topology.n_atoms) if atoms is None else atoms:
        atom = topology.atom(i)
        symbol = atom.element.symbol if atom.element is not None else "VS"
        if symbol == "VS":
            if atom.name.upper() not in VIRTUAL_SITES:
                raise ValueError(f"atom {atom} (number {i + 1}) has no known element, so its mass "
                                 "is unknown: name its element in the topology file, or leave the "
                                 "atom out by an atom selection")
            masses.append(0.0)
        else:
            masses.append(Element.getBySymbol(symbol).mass._value)
    return np.array(masses)


def _select(topology, selection):
    if selection is None:
        return np.arange(topology.n_atoms)
    try:
        chosen = topology.select(selection)
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"the atom selection {selection!r} is not valid in MDTraj's language: "
                         f"{reason}") from error
    if len(chosen) == 0:
        raise ValueError(f"the atom selection {selection!r} picks none of the {topology.n_atoms} "
                         "atoms")
    return chosen
