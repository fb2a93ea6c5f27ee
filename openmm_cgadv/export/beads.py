"""Bead types of the particles of an OpenMM Topology."""

from __future__ import annotations

import io
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
from openmm import app, unit

from ..data.topology import bead_topology
from ..errors import InputError


def bead_types(
    topology: app.Topology, type_names: tuple[str, ...], chosen: Iterable[int] | None = None
) -> np.ndarray:
    """Bead types of a topology, or of the chosen particles of it, found by residue name.

    Raises
    ------
    InputError
        `topology` is something else.
    ValueError
        A residue holds another number of atoms than one, or its name is none of the types.
    """
    if not isinstance(topology, app.Topology):
        hint = ", such as its attribute `topology`" if hasattr(topology, "topology") else ""
        raise InputError(
            f"topology: found {type(topology).__name__}, expected an openmm.app.Topology{hint}"
        )
    known = known_names(type_names)
    atoms = list(topology.atoms())
    types = []
    for atom in atoms if chosen is None else (atoms[k] for k in chosen):
        residue = atom.residue
        if len(residue) != 1:
            raise ValueError(
                f"topology: found residue {residue.name} {residue.id} with {len(residue)} atoms, "
                "expected one bead a residue (Mapping.per_residue(topology).topology() makes it)"
            )
        kind = known.get(residue.name)
        if kind is None:
            raise ValueError(
                f"topology: found residue {residue.name} {residue.id}, expected one of the bead "
                f"types of this model: {', '.join(type_names)}"
            )
        types.append(kind)
    if not types:
        raise ValueError("topology: found no residue, expected one for each bead")
    return np.array(types, dtype=np.int64)


@lru_cache
def known_names(type_names: tuple[str, ...]) -> dict[str, int]:
    """The bead type of each residue name.

    OpenMM's PDB reader changes names (three letters, `SOL` to `HOH`). What it makes of a name is
    known as well, where that tells it from the others.
    """
    file = io.StringIO()
    topology = bead_topology(range(len(type_names)), type_names)
    app.PDBFile.writeFile(topology, np.zeros([len(type_names), 3]) * unit.nanometer, file)
    file.seek(0)
    changed = [residue.name for residue in app.PDBFile(file).topology.residues()]
    known = {name: k for k, name in enumerate(changed) if changed.count(name) == 1}
    return {**known, **{name: k for k, name in enumerate(type_names)}}
