"""The mapping of atoms to beads: the atoms of each bead and their weights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from ..errors import InputError
from .topology import BeadTopology

if TYPE_CHECKING:
    import mdtraj
    import openmm

VIRTUAL_SITES = {"M", "M1", "M2", "MW", "MW1", "MW2", "EP", "EP1", "EP2", "EPW", "LP1", "LP2"}
"""Names of massless sites of water models in files that give no element for them."""
LARGEST_SPAN = 0.45
"""Default of the largest extent of a bead's atoms from its first atom, as a fraction of a box
vector. From 0.5 on the nearest image of an atom is ambiguous."""


class Mapping:
    """Define beads as weighted centres of groups of atoms.

    For bead I with atoms i, weights w_i (their sum is one) and masses m_i::

        R_I = sum_i w_i r_i      V_I = sum_i w_i v_i      F_I = sum_i f_i  (atoms with mass)

    For the mass-weighted centre, w_i = m_i / sum m, the average of this sum of forces at given R is
    minus the gradient of the potential of mean force (Noid et al., J. Chem. Phys. 128, 244114
    (2008), eq. 28). This also holds for groups with internal constraints, whose forces cancel in
    the sum, but not for groups that cut a constraint.

    Parameters
    ----------
    groups : sequence of int arrays
        Atom indices of each bead.
    weights : sequence of arrays
        One weight for each atom of each bead; normalized to a sum of one for each bead.
    masses : array [N]
        Bead masses, dalton.
    types : array [N] of int
        Index into `type_names`.
    type_names : sequence of str
    massless : array of int, optional
        Atoms that are virtual sites. OpenMM distributes the force on such a site to the atoms that
        define it and reports it for the site, too, so the sum of forces excludes the site.
    whole : bool, optional
        False if groups exclude massive atoms of their molecules. Forces and velocities of such beads
        are not read.
    molecules, bonds, exclusions : arrays, optional
        See `BeadTopology`; by default every bead is a molecule.

    Attributes
    ----------
    beads : BeadTopology
        Topology of the beads.

    Raises
    ------
    InputError
        The sizes disagree, a group is empty or weightless, or beads of a type differ in mass.
    """

    def __init__(
        self,
        groups: Sequence,
        weights: Sequence,
        masses: ArrayLike,
        types: ArrayLike,
        type_names: Sequence[str],
        massless: ArrayLike = (),
        whole: bool = True,
        molecules: ArrayLike | None = None,
        bonds: ArrayLike = (),
        exclusions: ArrayLike = (),
    ) -> None:
        self.whole = whole
        self.groups = [np.asarray(group, dtype=np.int64) for group in groups]
        n = len(self.groups)
        masses, types = np.asarray(masses), np.asarray(types)
        if n == 0 or not n == len(weights) == len(masses) == len(types):
            raise InputError(
                f"mapping: found {n} groups, {len(weights)} weights, {len(masses)} masses and "
                f"{len(types)} types, expected equal numbers, at least one"
            )
        self.beads = BeadTopology(types, type_names, masses, molecules, bonds, exclusions)
        for i, (group, weight) in enumerate(zip(self.groups, weights)):
            if len(group) != len(weight) or not np.sum(weight) > 0:
                raise InputError(
                    f"bead {i}: found {len(group)} atoms and weights "
                    f"{np.asarray(weight).tolist()}, expected one weight for each atom and a "
                    "positive sum"
                )
        self.beads.check_masses()
        self.weights = [np.asarray(w, dtype=np.float64) / np.sum(w) for w in weights]
        self._atoms = np.concatenate(self.groups)
        self._weights = np.concatenate(self.weights)
        # One for every atom of the groups, zero for a massless one.
        self.massive = (~np.isin(self._atoms, massless)).astype(np.float64)
        sizes = [len(group) for group in self.groups]
        self._starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        self._first = np.repeat(self._starts, sizes)

    @classmethod
    def per_residue(
        cls, topology: mdtraj.Topology | openmm.app.Topology, selection: str | None = None
    ) -> Mapping:
        """Return a mapping with one bead per residue.

        The bead is the centre of mass of the residue; its type has the name of the residue.

        Parameters
        ----------
        topology : mdtraj.Topology or openmm.app.Topology
        selection : str, optional
            MDTraj atom selection (https://mdtraj.org, "Atom Selection") of the atoms to map. All atoms
            by default.

        Raises
        ------
        InputError
            The selection is invalid or empty, an atom's mass is unknown, a residue has no mass, or
            residues of the same name differ in mass.
        """
        import mdtraj

        if not isinstance(topology, mdtraj.Topology):
            topology = mdtraj.Topology.from_openmm(topology)
        chosen = _select(topology, selection)
        members: dict[int, list[int]] = {}
        for i in chosen:
            members.setdefault(topology.atom(i).residue.index, []).append(i)
        residues = [topology.residue(i) for i in members]
        groups = list(members.values())
        mass = dict(zip(chosen, atom_masses(topology, chosen)))
        weights = [np.array([mass[i] for i in group]) for group in groups]
        for residue, weight in zip(residues, weights):
            if not weight.sum() > 0:
                raise InputError(
                    f"residue {residue}: found only massless virtual sites among its mapped "
                    "atoms, expected an atom with mass: extend the atom selection"
                )
        names = [residue.name for residue in residues]
        type_names = tuple(dict.fromkeys(names))
        left = (
            atom.element for residue in residues for atom in residue.atoms if atom.index not in mass
        )
        whole = all(element is None or element.symbol == "VS" for element in left)
        return cls(
            groups,
            weights,
            [weight.sum() for weight in weights],
            [type_names.index(name) for name in names],
            type_names,
            massless=[i for i in chosen if mass[i] == 0],
            whole=whole,
        )

    @property
    def n_beads(self) -> int:
        """Number of beads."""
        return len(self.groups)

    @property
    def masses(self) -> np.ndarray:
        """Bead masses [N] (dalton)."""
        return self.beads.masses

    @property
    def types(self) -> np.ndarray:
        """Bead types [N], indices into `type_names`."""
        return self.beads.types

    @property
    def type_names(self) -> tuple[str, ...]:
        """Names of the bead types."""
        return self.beads.type_names

    @property
    def atoms(self) -> np.ndarray:
        """Indices of all atoms that are mapped, sorted."""
        return np.unique(self._atoms)

    def positions(
        self,
        xyz: ArrayLike,
        boxes: ArrayLike | None = None,
        largest_span: float = LARGEST_SPAN,
    ) -> np.ndarray:
        """Return bead positions [T, N, 3] from atom positions [T, n_atoms, 3], in the same unit.

        Parameters
        ----------
        xyz : array [T, n_atoms, 3]
        boxes : array [T, 3, 3], optional
            Box vectors as rows. If given, atoms are first moved to the periodic image nearest to the
            first atom of their bead, so molecules may be broken at the boundary. Without them,
            molecules must be whole.
        largest_span : float
            Largest accepted extent of a bead from its first atom, as a fraction of a box vector.

        Raises
        ------
        InputError
            A bead's atoms spread over nearly half the box, so their images are ambiguous.
        """
        xyz = np.asarray(xyz, dtype=np.float64)[:, self._atoms]
        if boxes is not None:
            boxes = np.asarray(boxes, dtype=np.float64)
            offset = (xyz - xyz[:, self._first]) @ np.linalg.inv(boxes)
            image = np.round(offset)
            span = np.abs(offset - image).max(axis=(0, 2))
            if span.max() > largest_span:
                bead = int(np.searchsorted(self._starts, np.argmax(span), side="right")) - 1
                raise InputError(
                    f"the {len(self.groups[bead])} atoms of bead {bead} "
                    f"({self.type_names[self.types[bead]]}) spread over half the box, expected "
                    "compact beads: check that each molecule is a separate residue in the topology"
                )
            xyz -= image @ boxes
        return self._sum(xyz, self._weights)

    def velocities(self, velocities: ArrayLike) -> np.ndarray:
        """Return bead velocities [T, N, 3] from atom velocities [T, n_atoms, 3]."""
        return self._sum(np.asarray(velocities, dtype=np.float64)[:, self._atoms], self._weights)

    def forces(self, forces: ArrayLike) -> np.ndarray:
        """Return bead forces [T, N, 3] from atom forces [T, n_atoms, 3]."""
        return self._sum(np.asarray(forces, dtype=np.float64)[:, self._atoms], self.massive)

    def _sum(self, values: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return np.add.reduceat(values * weights[:, None], self._starts, axis=1)

    def topology(self) -> openmm.app.Topology:
        """Return an OpenMM Topology of the beads; see `BeadTopology.to_openmm`."""
        return self.beads.to_openmm()


def atom_masses(topology: mdtraj.Topology, atoms: Iterable[int] | None = None) -> np.ndarray:
    """Return the masses of atoms of an MDTraj topology by element (dalton); zero for virtual sites.

    Parameters
    ----------
    topology : mdtraj.Topology
    atoms : array of int, optional
        Indices of the atoms; all by default.

    Raises
    ------
    InputError
        An atom has no element, and its name is not that of a massless site of a water model.
    """
    from openmm.app import Element

    masses = []
    for i in range(topology.n_atoms) if atoms is None else atoms:
        atom = topology.atom(i)
        symbol = atom.element.symbol if atom.element is not None else "VS"
        if symbol == "VS":
            if atom.name.upper() not in VIRTUAL_SITES:
                raise InputError(
                    f"atom {atom} (number {i + 1}) has no known element, so its mass "
                    "is unknown: name its element in the topology file, or exclude the "
                    "atom by an atom selection"
                )
            masses.append(0.0)
        else:
            masses.append(Element.getBySymbol(symbol).mass._value)
    return np.array(masses)


def _select(topology: mdtraj.Topology, selection: str | None) -> np.ndarray:
    if selection is None:
        return np.arange(topology.n_atoms)
    try:
        chosen = topology.select(selection)
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise InputError(
            f"the atom selection {selection!r} is not valid in MDTraj's selection language: {reason}"
        ) from error
    if len(chosen) == 0:
        raise InputError(
            f"the atom selection {selection!r} selects none of the {topology.n_atoms} atoms"
        )
    return chosen
