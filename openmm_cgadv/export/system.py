"""OpenMM Systems of beads, and the choice of the backend that computes their energy."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import openmm
from openmm import app, unit

from ..mapping import bead_topology
from . import plugin, pythonforce, torchforce
from .backend import Backend
from .integrators import integrator_update

if TYPE_CHECKING:
    from .bundle import Model

log = logging.getLogger(__name__)

BACKENDS: dict[str, Backend] = {
    "torchforce": torchforce,
    "plugin": plugin,
    "pythonforce": pythonforce,
}
"""In the order of preference."""


def bead_types(
    topology: app.Topology, type_names: tuple[str, ...], chosen: Iterable[int] | None = None
) -> np.ndarray:
    """Bead types of a topology, or of the chosen particles of it, found by residue name.

    Raises
    ------
    ValueError
        A residue holds another number of atoms than one, or its name is none of the types.
    """
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


def bare_system(model: Model, topology: app.Topology) -> openmm.System:
    """A System with the masses and the box of a topology, and no force yet.

    Raises
    ------
    ValueError
        The topology does not match the model, has no box, or one too small for its cutoff.
    """
    types = bead_types(topology, model.type_names)
    box = checked_box(topology, model.reach)
    system = openmm.System()
    for kind in types:
        system.addParticle(model.masses[kind])
    system.setDefaultPeriodicBoxVectors(*box)
    return system


def checked_box(topology: app.Topology, r_cut: float):
    """The box vectors of a topology.

    Raises
    ------
    ValueError
        There is no box, or `r_cut` (nm) is longer than half of its shortest edge.
    """
    box = topology.getPeriodicBoxVectors()
    if box is None:
        raise ValueError("topology: found no periodic box, expected box vectors")
    shortest = min(box[k][k].value_in_unit(unit.nanometer) for k in range(3))
    if r_cut > 0.5 * shortest:
        raise ValueError(
            f"topology: found a box of {shortest:.4g} nm, expected at least {2 * r_cut:.4g} nm, "
            "twice the cutoff"
        )
    return box


def create_system(
    model: Model, topology: app.Topology, backend: str | None = None, plain: bool = False
) -> openmm.System:
    """See :meth:`openmm_cgadv.Model.create_system`."""
    backend = choose_backend(backend, plain)
    system = bare_system(model, topology)
    types = bead_types(topology, model.type_names)
    system.addForce(BACKENDS[backend].create_force(model.spec, model.theta, types, plain))
    if model.conserves_momentum:
        # Nothing else stops a momentum that velocities begin with.
        system.addForce(openmm.CMMotionRemover())
    return system


def update_context(model: Model, context: openmm.Context) -> None:
    """See :meth:`openmm_cgadv.Model.update_context`."""
    found = [
        (backend, force, beads)
        for force in context.getSystem().getForces()
        for backend in BACKENDS.values()
        if (beads := backend.read(force)) is not None
    ]
    if len(found) != 1:
        raise ValueError(
            f"context: found {len(found)} forces that this package made, expected one "
            "(model.create_system)"
        )
    backend, force, (spec, types) = found[0]
    if spec != model.spec:
        what = "other ranges or basis functions"
        if spec.n_parameters != model.spec.n_parameters:
            what = f"{spec.n_parameters} parameters"
        if spec.type_names != model.type_names:
            what = f"bead types {', '.join(spec.type_names)}"
        raise ValueError(
            f"context: found a potential with {what}, expected that of the model with "
            f"{model.spec.n_parameters} parameters and bead types {', '.join(model.type_names)}"
        )
    # All that is refused is refused here, before anything changes.
    update_integrator = integrator_update(context.getIntegrator(), model, types)
    backend.update(context, force, model.theta)
    update_integrator()


def choose_backend(
    backend: str | None = None, plain: bool = False, part: bool = False
) -> str:
    """The backend asked for, or the first that loads.

    Of those that have plain torch operators or can act on a part of a System, where that is asked.

    Raises
    ------
    ValueError
        There is no backend of that name.
    ImportError
        It can't load; the message names what is missing and what to install.
    """
    if backend is None:
        backend, reason = _first_that_loads(plain, part)
        _say_once(backend, reason)
        return backend
    if backend not in BACKENDS:
        raise ValueError(f"backend: found {backend!r}, expected one of {', '.join(BACKENDS)}")
    reason = BACKENDS[backend].why_not()
    if reason is not None:
        raise ImportError(f"backend {backend} can't be used: {reason}")
    return backend


def _first_that_loads(plain: bool, part: bool) -> tuple[str, str]:
    reasons = []
    for name, module in BACKENDS.items():
        if (plain and module is plugin) or (part and module is torchforce):
            continue
        reason = module.why_not()
        if reason is None:
            return name, "; ".join(reasons)
        reasons.append(f"{name} can't be used: {reason}")
    raise ImportError("no backend can be used: " + "; ".join(reasons))


@lru_cache
def _say_once(backend: str, reason: str) -> None:
    if reason:
        log.warning("energy through %s: %s", backend, reason)
    else:
        log.info("energy through %s", backend)
