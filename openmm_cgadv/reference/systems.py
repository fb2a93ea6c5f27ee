"""Boxes of rigid all-atom water: force field, starting positions and expected density."""
from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import openmm
from openmm import app, unit

from ..units import KB

DALTON_PER_NM3 = 1.66053906660e-3
"""One dalton a cubic nanometre in g/cm^3."""
BAR = 0.0602214076
"""One bar in kJ/mol/nm^3."""
CUTOFF = 0.9
"""Of Lennard-Jones and the direct part of PME, nm, where the box is large enough."""
SMALLEST = 20
"""Fewest molecules: below, the box leaves no room for a cutoff past the first neighbours."""


@dataclass(frozen=True)
class WaterModel:
    """A water model of OpenMM's own force-field files, and its published liquid properties."""

    force_field: str
    density: float
    """At 298.15 K and 1 bar, g/cm^3."""
    expansion: float
    """Thermal expansion coefficient at 298 K and 1 bar, 1/K."""
    compressibility: float
    """Isothermal, at 298 K and 1 bar, 1/bar."""


# SPC/E: Berendsen et al., J. Phys. Chem. 91, 6269 (1987). TIP4P-Ew: Horn et al., J. Chem. Phys.
# 120, 9665 (2004). TIP3P with Ewald summation: 0.98 to 0.986 in the literature, 0.985(5) in a run
# of 60 ps of 216 molecules with this force field. Expansion and compressibility of SPC/E and TIP3P:
# Vega and Abascal, Phys. Chem. Chem. Phys. 13, 19663 (2011).
WATER_MODELS = {
    "spce": WaterModel("spce.xml", 0.998, 4.86e-4, 46.1e-6),
    "tip3p": WaterModel("tip3p.xml", 0.985, 9.2e-4, 57.4e-6),
    "tip4pew": WaterModel("tip4pew.xml", 0.9954, 3.2e-4, 48.1e-6),
}


def expected_density(water, temperature):
    """Density of a water model at 1 bar and how far to trust it.

    The published value at 298.15 K, carried to `temperature` by the thermal expansion there. Its
    relative uncertainty is taken as 0.3 %, about as much as published values differ with their
    cutoffs, growing by 0.02 % for each kelvin away.

    Parameters
    ----------
    water : str
        Key of `WATER_MODELS`.
    temperature : float
        K.

    Returns
    -------
    density : float
        g/cm^3.
    uncertainty : float
        Relative standard error.
    """
    model = WATER_MODELS[water]
    away = temperature - 298.15
    return model.density * np.exp(-model.expansion * away), 0.003 + 2e-4 * abs(away)


def volume_uncertainty(water, temperature, volume, length):
    """Relative standard error of a volume averaged over `length` ps at constant pressure.

    The volume fluctuates with variance kT kappa V. A run of length t is taken to hold t / 6 ps
    independent values: the correlation falls to a half within 1 ps, but a slow part makes means of
    40 to 60 ps scatter by 0.3 % (SPC/E) to 0.9 % (TIP4P-Ew; both 216 molecules, 298 K).
    """
    kappa = WATER_MODELS[water].compressibility / BAR
    return np.sqrt(KB * temperature * kappa / volume * 6.0 / length)


def water_box(water, molecules, temperature):
    """Rigid water with periodic boundaries, PME and a dispersion correction, near its density.

    `Modeller.addSolvent` chooses a box that is too large; the molecules are moved together, each
    as a rigid body, to the box of `expected_density`. Overlaps are left for a minimisation.

    Parameters
    ----------
    water : str
        Key of `WATER_MODELS`.
    molecules : int
    temperature : float
        K.

    Returns
    -------
    topology : openmm.app.Topology
    system : openmm.System
        Its default box is that of the positions. It removes the motion of the centre of mass.
    positions : ndarray [n_atoms, 3]
        nm.
    """
    model = WATER_MODELS[water]
    force_field = app.ForceField(model.force_field)
    modeller = app.Modeller(app.Topology(), [] * unit.nanometer)
    modeller.addSolvent(force_field, model=water, numAdded=molecules)
    topology = modeller.topology
    positions = np.array(modeller.positions.value_in_unit(unit.nanometer))
    loose = topology.getPeriodicBoxVectors()[0][0].value_in_unit(unit.nanometer)
    mass = sum(atom.element.mass._value for atom in topology.atoms() if atom.element is not None)
    density, _ = expected_density(water, temperature)
    edge = (mass * DALTON_PER_NM3 / density) ** (1 / 3)
    positions = scale_molecules(positions, molecules, edge / loose)
    topology.setPeriodicBoxVectors(edge * np.eye(3))
    system = force_field.createSystem(
        topology, nonbondedMethod=app.PME, rigidWater=True,
        nonbondedCutoff=min(CUTOFF, 0.47 * edge) * unit.nanometer)
    return topology, system, positions


def scale_molecules(positions, molecules, factor):
    """Positions [n_atoms, 3] after the centres of equal molecules are scaled by `factor`."""
    each = positions.reshape(molecules, -1, 3)
    centers = each.mean(axis=1, keepdims=True)
    return (each + (factor - 1) * centers).reshape(-1, 3)


def create_context(system, make_integrator, platform=None, threads=None) -> openmm.Context:
    """Context on `platform`, or on the fastest one that works on this machine.

    Parameters
    ----------
    system : openmm.System
    make_integrator : callable
        Returns a new integrator.
    platform : str, optional
        OpenMM platform name.
    threads : int, optional
        Of the CPU platform; the cores that this process may use by default.

    Raises
    ------
    ValueError
        The platform does not exist or does not work here.
    """
    platforms = [openmm.Platform.getPlatform(i) for i in range(openmm.Platform.getNumPlatforms())]
    names = [p.getName() for p in sorted(platforms, key=lambda p: -p.getSpeed())]
    if platform is not None and platform not in names:
        raise ValueError(f"OpenMM has no platform {platform!r} on this machine, "
                         f"only {', '.join(names)}")
    if threads is None:
        cores = getattr(os, "sched_getaffinity", None)
        threads = len(cores(0)) if cores else os.cpu_count()
    reasons = []
    for name in [platform] if platform is not None else names:
        properties = {"CPU": {"Threads": str(threads)}, "Reference": {}}.get(
            name, {"Precision": "mixed"})
        try:
            return openmm.Context(system, make_integrator(),
                                  openmm.Platform.getPlatformByName(name), properties)
        except openmm.OpenMMException as error:
            reasons.append(f"{name}: {error}")
    raise ValueError(f"no OpenMM platform works here ({'; '.join(reasons)})")
