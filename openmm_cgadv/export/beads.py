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
    """Return the bead types [N] of a topology, or of chosen particles of it, by residue name.

    Raises
    ------
    InputError
        `topology` is not an `openmm.app.Topology`.
    ValueError
        A residue does not consist of one atom, or its name is not that of a bead type.
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
                "expected one bead per residue (use Mapping.per_residue(topology).topology())"
            )
        bead_type = known.get(residue.name)
        if bead_type is None:
            raise ValueError(
                f"topology: found residue {residue.name} {residue.id}, expected one of the bead "
                f"types of this model: {', '.join(type_names)}"
            )
        types.append(bead_type)
    if not types:
        raise ValueError("topology: found no residue, expected one for each bead")
    return np.array(types, dtype=np.int64)


@lru_cache
def known_names(type_names: tuple[str, ...]) -> dict[str, int]:
    """Return the bead type of each residue name.

    OpenMM's PDB reader changes names (three letters, `SOL` to `HOH`). The changed names are included
    where they are unambiguous.
    """
    file = io.StringIO()
    topology = bead_topology(range(len(type_names)), type_names)
    app.PDBFile.writeFile(topology, np.zeros([len(type_names), 3]) * unit.nanometer, file)
    file.seek(0)
    changed = [residue.name for residue in app.PDBFile(file).topology.residues()]
    known = {name: k for k, name in enumerate(changed) if changed.count(name) == 1}
    return {**known, **{name: k for k, name in enumerate(type_names)}}
