"""Topology of a coarse-grained system: types, masses, molecules, bonds and exclusions of its beads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from ..errors import InputError

if TYPE_CHECKING:
    import openmm

MASS_TOLERANCE = 0.01
"""Default of the largest difference of masses within a type, relative to the largest of them."""


@dataclass(frozen=True, eq=False, init=False)
class BeadTopology:
    """Types, masses and connectivity of the beads of a system.

    The constructor takes anything that NumPy converts to these arrays.

    Attributes
    ----------
    types : ndarray [N] of int64
        Index into `type_names`.
    type_names : tuple of str
    masses : ndarray [N]
        (dalton)
    molecules : ndarray [N] of int64
        Index of the molecule of each bead, from 0 without gaps. By default every bead is a
        molecule.
    bonds : ndarray [B, 2] of int64
        Pairs of bonded beads of one molecule, each once, the lower number first, sorted.
    exclusions : ndarray [E, 2] of int64
        Pairs of beads without nonbonded interactions, in the same form.

    Raises
    ------
    InputError
        Shapes disagree, an index is out of range, a pair appears twice or joins a bead to itself, or
        a bond joins two molecules.
    """

    types: np.ndarray
    type_names: tuple[str, ...]
    masses: np.ndarray
    molecules: np.ndarray
    bonds: np.ndarray
    exclusions: np.ndarray

    def __init__(
        self,
        types: ArrayLike,
        type_names: Sequence[str],
        masses: ArrayLike,
        molecules: ArrayLike | None = None,
        bonds: ArrayLike = (),
        exclusions: ArrayLike = (),
    ) -> None:
        types = np.array(types, dtype=np.int64)
        masses = np.array(masses, dtype=np.float64)
        names = tuple(str(name) for name in type_names)
        n = types.size
        if types.shape != (n,) or masses.shape != (n,) or n == 0:
            raise InputError(
                "masses and types must be one number a bead, found shapes "
                f"{masses.shape} and {types.shape}"
            )
        if types.min() < 0 or types.max() >= len(names):
            raise InputError(
                f"types must be indices into the {len(names)} type names, found {types.min()} to "
                f"{types.max()}"
            )
        if not (np.isfinite(masses) & (masses >= 0)).all():
            raise InputError(f"masses: found {masses.min():g} Da, expected 0 or more")
        molecules = np.arange(n) if molecules is None else np.array(molecules)
        molecules = molecules.astype(np.int64)
        if molecules.shape != (n,):
            raise InputError(f"molecules: found shape {molecules.shape}, expected ({n},)")
        found = np.unique(molecules)
        if not np.array_equal(found, np.arange(len(found))):
            raise InputError(
                f"molecules: found numbers from {found[0]} to {found[-1]} of {len(found)} molecules, "
                "expected each number from 0 on"
            )
        bonds, exclusions = _pairs("bonds", bonds, n), _pairs("exclusions", exclusions, n)
        apart = molecules[bonds[:, 0]] != molecules[bonds[:, 1]]
        if apart.any():
            a, b = bonds[apart][0]
            raise InputError(
                f"bonds: found one of beads {a} and {b} of different molecules, expected bonds "
                "within molecules"
            )
        values = (types, names, masses, molecules, bonds, exclusions)
        for field, value in zip(fields(self), values):
            object.__setattr__(self, field.name, value)

    @property
    def n_beads(self) -> int:
        """Number of beads."""
        return len(self.types)

    @property
    def n_molecules(self) -> int:
        """Number of molecules."""
        return int(self.molecules.max()) + 1

    @cached_property
    def type_masses(self) -> np.ndarray:
        """Mean masses of the beads of each type [n_types] (dalton)."""
        indices = range(len(self.type_names))
        return np.array([self.masses[self.types == index].mean() for index in indices])

    def arrays(self) -> dict[str, Any]:
        """Return the attributes by name; ``BeadTopology(**arrays)`` is an equal topology."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, BeadTopology):
            return NotImplemented
        mine, others = self.arrays(), other.arrays()
        return all(np.array_equal(mine[name], others[name]) for name in mine)

    def of_molecules(self, numbers: Sequence[int] | np.ndarray) -> BeadTopology:
        """Return the topology of the chosen molecules, renumbered in the given order.

        Parameters
        ----------
        numbers : sequence of int
            A number may appear several times, which makes copies of the molecule.

        Raises
        ------
        InputError
            A number is not that of a molecule.
        """
        numbers = np.asarray(numbers, dtype=np.int64).reshape(-1)
        if not len(numbers) or numbers.min() < 0 or numbers.max() >= self.n_molecules:
            raise InputError(
                f"molecules: found {numbers.tolist()[:5]}, expected numbers below {self.n_molecules}"
            )
        beads: list[np.ndarray] = []
        molecules: list[np.ndarray] = []
        bonds: list[np.ndarray] = []
        exclusions: list[np.ndarray] = []
        first = 0
        order = np.argsort(self.molecules, kind="stable")
        starts = np.searchsorted(self.molecules[order], np.arange(self.n_molecules + 1))
        for k, number in enumerate(numbers):
            own = order[starts[number] : starts[number + 1]]
            beads.append(own)
            molecules.append(np.full(len(own), k))
            for pairs, out in ((self.bonds, bonds), (self.exclusions, exclusions)):
                inside = np.isin(pairs, own).all(axis=1)
                out.append(first + np.searchsorted(own, pairs[inside]))
            first += len(own)
        chosen = np.concatenate(beads)
        return BeadTopology(
            self.types[chosen],
            self.type_names,
            self.masses[chosen],
            np.concatenate(molecules),
            np.concatenate(bonds),
            np.concatenate(exclusions),
        )

    def check_masses(self) -> None:
        """Check that the beads of each type have one mass, as a model needs; see `check_masses`."""
        check_masses(self.masses, self.types, self.type_names)

    def to_openmm(self, box: np.ndarray | None = None) -> openmm.app.Topology:
        """Return an OpenMM Topology: one chain, and a residue with one atom for each bead.

        Residue and atom carry the name of the bead's type; the element is None.

        Parameters
        ----------
        box : ndarray [3, 3], optional
            Box vectors as rows (nm).
        """
        from openmm import Vec3, unit
        from openmm.app import Topology

        topology = Topology()
        chain = topology.addChain()
        atoms = []
        for index in self.types:
            name = self.type_names[index]
            atoms.append(topology.addAtom(name, None, topology.addResidue(name, chain)))
        for a, b in self.bonds:
            topology.addBond(atoms[a], atoms[b])
        if box is not None:
            topology.setPeriodicBoxVectors([Vec3(*row) for row in box] * unit.nanometer)
        return topology


def bead_topology(
    types: Sequence[int] | np.ndarray, type_names: Sequence[str]
) -> openmm.app.Topology:
    """Return an OpenMM Topology of one-bead molecules; see `BeadTopology.to_openmm`.

    Parameters
    ----------
    types : array [N] of int
    type_names : sequence of str

    Returns
    -------
    openmm.app.Topology
    """
    types = np.asarray(types, dtype=np.int64)
    return BeadTopology(types, tuple(type_names), np.zeros(len(types))).to_openmm()


def check_masses(
    masses: np.ndarray,
    types: np.ndarray,
    type_names: Sequence[str],
    tolerance: float = MASS_TOLERANCE,
) -> None:
    """Check that the beads of each type have one mass, as a model needs.

    Parameters
    ----------
    masses : ndarray [N]
        (dalton)
    types : ndarray [N] of int
    type_names : sequence of str
    tolerance : float
        Largest difference of masses within a type, relative to the largest of them.

    Raises
    ------
    InputError
        Masses within a type differ; the message names the type and two of its masses.
    """
    for index, name in enumerate(type_names):
        own = masses[types == index]
        if len(own) and np.ptp(own) > tolerance * own.max():
            raise InputError(
                f"beads of type {name}: found masses from {own.min():.4g} to {own.max():.4g} Da, "
                "expected one mass a type: give residues of different composition different names "
                "in the topology"
            )


def _pairs(name: str, pairs: ArrayLike, n_beads: int) -> np.ndarray:
    """Return pairs of beads [n, 2] in sorted order, the lower bead first; none appears twice."""
    pairs = np.array(pairs, dtype=np.int64)
    pairs = pairs.reshape(0, 2) if pairs.size == 0 else pairs
    if pairs.ndim != 2 or pairs.shape[1] != 2:
        raise InputError(f"{name}: found shape {pairs.shape}, expected pairs [n, 2]")
    if not len(pairs):
        return pairs
    if pairs.min() < 0 or pairs.max() >= n_beads:
        raise InputError(
            f"{name}: found bead {pairs.min() if pairs.min() < 0 else pairs.max()}, expected numbers "
            f"from 0 to {n_beads - 1}"
        )
    pairs = np.sort(pairs, axis=1)
    if (pairs[:, 0] == pairs[:, 1]).any():
        bead = pairs[pairs[:, 0] == pairs[:, 1]][0, 0]
        raise InputError(f"{name}: found bead {bead} paired with itself, expected two beads")
    unique, counts = np.unique(pairs, axis=0, return_counts=True)
    if counts.max() > 1:
        a, b = unique[counts > 1][0]
        raise InputError(f"{name}: found beads {a} and {b} twice, expected each pair once")
    return unique
