"""OpenMM Systems of beads, and the choice of the backend that computes their energy."""

from __future__ import annotations

import logging
from functools import lru_cache

import openmm
from openmm import app, unit
from openmm.unit import Quantity

from ..model import Model
from ..platforms import has_opencl_gpu, platform_names
from .backends import plugin, pythonforce, torchforce
from .backends.base import Backend
from .beads import bead_types
from .integrators import integrator_update

log = logging.getLogger(__name__)

BACKENDS: dict[str, Backend] = {
    "plugin": plugin,
    "torchforce": torchforce,
    "pythonforce": pythonforce,
}
"""Backends by name, in the order of preference, which is that of their speed (``benchmarks/README.md``)."""
MAX_BEADS_ON_REFERENCE = 2000
"""Largest number of beads for which the Reference platform is faster than the CPU platform with a backend that computes the energy
itself."""


def system_without_forces(model: Model, topology: app.Topology) -> openmm.System:
    """Return a System with the masses and the box of a topology and without forces.

    Raises
    ------
    ValueError
        The topology does not match the model, has no box, or one too small for its cutoff.
    """
    types = bead_types(topology, model.type_names)
    box = checked_box(topology, model.reach)
    system = openmm.System()
    for bead_type in types:
        system.addParticle(model.masses[bead_type])
    system.setDefaultPeriodicBoxVectors(*box)
    return system


def checked_box(topology: app.Topology, r_cut: float) -> Quantity:
    """Return the box vectors of a topology.

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
    model: Model,
    topology: app.Topology,
    backend: str | None = None,
    plain: bool = False,
    platform: str | None = None,
) -> openmm.System:
    """Create the System of :meth:`openmm_cgadv.Model.create_system`."""
    plain = plain or not model.spec.compiled
    backend = choose_backend(backend, plain, platform=platform)
    if platform is None and backend != "plugin":
        _warn_about_opencl(backend)
    system = system_without_forces(model, topology)
    types = bead_types(topology, model.type_names)
    system.addForce(BACKENDS[backend].create_force(model.spec, model.theta, types, plain))
    if model.friction.conserves_momentum:
        # Friction does not damp the total momentum of the initial velocities.
        system.addForce(openmm.CMMotionRemover())
    return system


def update_context(model: Model, context: openmm.Context) -> None:
    """Set the parameters of a model in a Context, as :meth:`openmm_cgadv.Model.update_context` describes."""
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
        what = "other cutoffs or basis functions"
        if spec.n_parameters != model.spec.n_parameters:
            what = f"{spec.n_parameters} parameters"
        if spec.type_names != model.type_names:
            what = f"bead types {', '.join(spec.type_names)}"
        raise ValueError(
            f"context: found a potential with {what}, expected that of the model with "
            f"{model.spec.n_parameters} parameters and bead types {', '.join(model.type_names)}"
        )
    # Every check takes place before anything changes.
    update_integrator = integrator_update(context.getIntegrator(), model, types)
    backend.update(context, force, model.theta)
    update_integrator()


def choose_backend(
    backend: str | None = None,
    plain: bool = False,
    part: bool = False,
    platform: str | None = None,
    beads: int | None = None,
) -> str:
    """Return the requested backend, or the fastest one that works.

    Parameters
    ----------
    backend : str, optional
    plain : bool
        Whether the backend has to use plain torch operators.
    part : bool
        Whether the backend has to act on a part of a System.
    platform : str, optional
        The OpenMM platform on which the backend has to work.
    beads : int, optional
        Number of beads of a simulation that runs on :func:`default_platform` if `platform` is None. Without both,
        OpenMM chooses the platform later.

    Raises
    ------
    ValueError
        There is no backend of that name.
    ImportError
        The backend can't be used; the message names what is missing and what to install.
    """
    if backend is None:
        chosen, reasons = _first_that_works(plain, part, platform, beads)
        _log_once(chosen, reasons)
        return chosen
    if backend not in BACKENDS:
        raise ValueError(f"backend: found {backend!r}, expected one of {', '.join(BACKENDS)}")
    reason = BACKENDS[backend].why_not(_platform_of(backend, platform, beads))
    if reason is not None:
        raise ImportError(f"backend {backend} can't be used: {reason}")
    return backend


def default_platform(backend: str, beads: int) -> str:
    """Return the platform on which a backend is fastest, by its name and the number of beads.

    The plugin computes on the CPU platform, where it keeps its neighbour list from step to step.
    The other backends compute the energy on the processor, whichever platform stores the positions.
    """
    return "Reference" if beads <= MAX_BEADS_ON_REFERENCE and backend != "plugin" else "CPU"


def _platform_of(backend: str, platform: str | None, beads: int | None) -> str | None:
    return platform if platform or beads is None else default_platform(backend, beads)


def _first_that_works(
    plain: bool, part: bool, platform: str | None, beads: int | None
) -> tuple[str, str]:
    reasons: list[str] = []
    for name, module in BACKENDS.items():
        if (plain and module is plugin) or (part and module is torchforce):
            continue
        reason = module.why_not(_platform_of(name, platform, beads))
        if reason is None:
            return name, "; ".join(reasons)
        reasons.append(f"{name} can't be used: {reason}")
    raise ImportError("no backend can be used: " + "; ".join(reasons))


@lru_cache
def _log_once(backend: str, reason: str) -> None:
    if reason:
        log.warning("energy through %s: %s", backend, reason)
    else:
        log.info("energy through %s", backend)


@lru_cache
def _warn_about_opencl(backend: str) -> None:
    """Log a warning if OpenMM's own choice of a platform would be OpenCL on the processor."""
    fastest = max(map(openmm.Platform.getPlatform, platform_names()), key=openmm.Platform.getSpeed)
    if fastest.getName() == "OpenCL" and not has_opencl_gpu():
        log.warning(
            "energy through %s: OpenMM runs a Context without a platform on OpenCL, whose only device here is the "
            "processor; name the platform CPU or Reference",
            backend,
        )
