"""The all-atom run of a liquid: equilibration to its density, then production mapped to beads."""
from __future__ import annotations

import copy
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import openmm
from openmm import unit

from ..mapping import Mapping
from ..trajectory import BeadWriter
from ..units import plain
from .arguments import is_finished
from .systems import (LIQUIDS, SMALLEST, create_context, expected_density, liquid_box,
                      scale_molecules, volume_uncertainty)

PRESSURE = 1.0
"""bar"""
EQUILIBRATION_FRICTION = 2.0
"""1/ps, of the thermostat before production."""
THERMOSTAT = 2.0
"""1/ps, frequency of the thermostat of production (Nosé–Hoover chain)."""
WARMTH_SAMPLES, WARMTH_SPACING = 40, 0.05
"""Pairs of successive steps that the error of the thermostat is measured in, and the time between them (ps)."""
CHECKPOINT_FRAMES = 250


def run_liquid(path, *, liquid, molecules, temperature, length, frame_interval=0.02,
               timestep=0.002, equilibration_ps=None, seed=1, threads=None, platform=None,
               progress=None) -> Path:
    """Simulate a liquid in OpenMM and write its molecules as beads, one at each centre of mass.

    Positions (unwrapped), velocities and forces of the beads go to an H5MD file frame by frame, see
    `openmm_cgadv.trajectory`. A chain of Nosé–Hoover thermostats keeps the temperature: it leaves the
    motion as it is, and lets the energy forget itself within 1 ps. A Langevin thermostat that is too
    weak to slow diffusion takes 10 ps for that, and the temperature of 1 ns of 343 molecules of
    water, which their diffusion follows by 2 % a kelvin, is then uncertain by 1 K. The thermostat
    is set as much higher as the time step makes fast motion seem too warm, see `excess_warmth`. The
    integrator is OpenMM's, whose velocities lag half a time step behind the positions and forces of
    the same frame.

    A run that was interrupted continues from its last checkpoint, kept beside the file with
    ``.checkpoint`` appended to its name, when called again with the same arguments; on the
    Reference platform, whose arithmetic is reproducible, the result is that of an uninterrupted run
    bit for bit. A finished run returns at once.

    Density: after a minimisation, the equilibration spends a fifth of its length at constant
    volume, three fifths at 1 bar (MonteCarloBarostat), and a fifth at the volume found. That volume
    is fixed for production, so its error stays. Averaged over 20 ps, the volume of 343 molecules is
    uncertain by 0.7 % (SPC/E), of 100 molecules over 5 ps by 2.8 %. The density in `LIQUIDS` is
    known better than that, at least near its temperature. So the volume is the mean of the two,
    each weighted with its inverse variance (`expected_density`, `volume_uncertainty`): long runs
    follow their own pressure, short ones the known value.

    Parameters
    ----------
    path : path
        The H5MD file to write.
    liquid : {"spce", "tip3p", "tip4pew", "argon", "lj_mixture", "methanol"}
        Rigid water of one of three models; Lennard-Jones argon; argon and krypton in equal
        numbers; methanol of OPLS-AA.
    molecules : int
        At least 20.
    temperature : float or Quantity
        K.
    length : float or Quantity
        Of production, ps.
    frame_interval : float or Quantity
        ps, a multiple of `timestep`.
    timestep : float or Quantity
        ps.
    equilibration_ps : float or Quantity, optional
        Length of the equilibration, ps; a quarter of `length` by default, but 10 to 50 ps.
    seed : int
    threads : int, optional
        Of the CPU platform; the cores that this process may use by default.
    platform : str, optional
        OpenMM platform; the fastest that works by default.
    progress : callable, optional
        Called with the picoseconds done and their total, equilibration included.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    ValueError
        An argument is wrong, or `path` was made with others.
    OSError
        The file can't be written, a full disk among the reasons.
    """
    path = Path(path)
    temperature = float(plain(temperature, unit.kelvin))
    length = float(plain(length, unit.picosecond))
    frame_interval = float(plain(frame_interval, unit.picosecond))
    timestep = float(plain(timestep, unit.picosecond))
    if equilibration_ps is None:
        equilibration_ps = min(50.0, max(10.0, length / 4))
    equilibration_ps = float(plain(equilibration_ps, unit.picosecond))
    if liquid not in LIQUIDS:
        raise ValueError(f"liquid is {liquid!r}, expected one of {', '.join(LIQUIDS)}")
    if molecules < SMALLEST:
        raise ValueError(f"molecules is {molecules}, expected at least {SMALLEST}, or the box is "
                         "too small for the interactions")
    for name, value in (("temperature", temperature), ("length", length), ("timestep", timestep),
                        ("frame_interval", frame_interval), ("equilibration_ps", equilibration_ps)):
        if not (np.isfinite(value) and value > 0):
            raise ValueError(f"{name} is {value}, expected a positive number")
    lowest, highest = LIQUIDS[liquid].range
    if not lowest <= temperature <= highest:
        raise ValueError(f"temperature is {temperature:g} K, expected {lowest:g} to {highest:g} K, "
                         f"where {liquid} is a liquid")
    steps = round(frame_interval / timestep)
    if steps < 1 or abs(steps * timestep - frame_interval) > 1e-6 * frame_interval:
        raise ValueError(f"frame_interval is {frame_interval:g} ps, expected a multiple of the "
                         f"time step of {timestep:g} ps")
    n_frames = int(length / frame_interval + 1e-6)
    if n_frames < 2:
        raise ValueError(f"length is {length:g} ps, expected at least two frame intervals of "
                         f"{frame_interval:g} ps")
    arguments = dict(liquid=liquid, molecules=molecules, temperature=temperature, length=length,
                     frame_interval=frame_interval, timestep=timestep, equilibration_ps=equilibration_ps,
                     seed=seed)
    saved = _Checkpoint(Path(f"{path}.checkpoint"))
    if path.exists() and is_finished(path, arguments):
        return path
    if path.exists() and saved.path.exists():
        saved.load()
        platform = platform or saved.provenance["platform"]
    else:
        path.unlink(missing_ok=True)
        saved.path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)

    def report(done):
        if progress is not None:
            progress(done, equilibration_ps + n_frames * frame_interval)

    def production():
        return openmm.NoseHooverIntegrator(temperature, THERMOSTAT, timestep)

    def equilibration():
        integrator = openmm.LangevinMiddleIntegrator(temperature, EQUILIBRATION_FRICTION, timestep)
        integrator.setRandomNumberSeed(seed + 1)
        return integrator

    topology, system, positions = liquid_box(liquid, molecules, temperature)
    context = create_context(system, production, platform, threads)
    continues = saved.provenance is not None
    if continues:
        saved.restore(context)
    else:
        state, density = _equilibrated(
            lambda system: create_context(system, equilibration, platform, threads), system, positions,
            liquid, molecules, temperature, equilibration_ps, seed, report)
        context.setState(state)
        saved.provenance = {"arguments": arguments, "density": density,
                            "thermostat_K": temperature * (1 + excess_warmth(context)),
                            "openmm": openmm.version.version,
                            "platform": context.getPlatform().getName()}

    context.getIntegrator().setTemperature(saved.provenance["thermostat_K"])
    mapping = Mapping.per_residue(topology)
    with BeadWriter(path, mapping.masses, mapping.types, mapping.type_names, temperature,
                    frame_interval, saved.provenance, velocities=True, forces=True) as writer:
        if continues:
            writer.truncate(saved.frames)
        else:
            saved.save(context, 0)
        for frame in range(saved.frames + 1, n_frames + 1):
            context.getIntegrator().step(steps)
            state = context.getState(positions=True, velocities=True, forces=True)
            writer.append(mapping.positions(_frame(state.getPositions))[0], _box(state),
                          mapping.velocities(_frame(state.getVelocities))[0],
                          mapping.forces(_frame(state.getForces))[0])
            report(equilibration_ps + frame * frame_interval)
            if frame % CHECKPOINT_FRAMES == 0:
                writer.flush()
                saved.save(context, frame)
        writer.finish()
    saved.path.unlink()
    return path


def excess_warmth(context) -> float:
    r"""What part of the kinetic energy of half steps the time step adds, in the mean over all motion.

    In a leapfrog integrator the momentum and position of a harmonic mode of frequency omega have
    the distribution of its shadow Hamiltonian: the kinetic energy of half steps is
    1 + (omega dt)^2 / 12 times kT/2 to second order, and that of a free rotor as well. A
    thermostat that holds the mean over all modes makes slow ones too cold: at 2 fs, librations of
    water cost the molecules' centres 0.7 K. As (omega dt)^2 is the mean square by which a velocity
    changes in a step, in units of its own, the excess is

        sum m <|v(t + dt/2) - v(t - dt/2)|^2> / (12 sum m <v^2>).

    Parameters
    ----------
    context : openmm.Context
        In equilibrium, with an integrator that has no noise; it goes on for 2 ps.
    """
    integrator, system = context.getIntegrator(), context.getSystem()
    masses = np.array([system.getParticleMass(i)._value for i in range(system.getNumParticles())])
    apart = max(1, round(WARMTH_SPACING / integrator.getStepSize()._value))
    changes = kinetic = 0.0
    for _ in range(WARMTH_SAMPLES):
        integrator.step(apart)
        before = _frame(context.getState(velocities=True).getVelocities)[0]
        integrator.step(1)
        after = _frame(context.getState(velocities=True).getVelocities)[0]
        changes += masses @ np.square(after - before).sum(1)
        kinetic += masses @ (np.square(before) + np.square(after)).sum(1) / 2
    return changes / (12 * kinetic)


def _equilibrated(make_context, system, positions, liquid, molecules, temperature, length, seed,
                  report):
    """State in equilibrium at 1 bar after `length` ps, and the density in g/cm^3."""
    context = make_context(system)
    integrator = context.getIntegrator()
    context.setPositions(positions)
    openmm.LocalEnergyMinimizer.minimize(context, maxIterations=200)
    context.setVelocitiesToTemperature(temperature, seed + 1)
    for done in _advance(integrator, length / 5):
        report(done)

    state = context.getState(positions=True, velocities=True)
    start = state.getPeriodicBoxVolume()._value
    barostat = openmm.MonteCarloBarostat(PRESSURE, temperature)
    barostat.setRandomNumberSeed(seed + 1)
    open_system = copy.deepcopy(system)
    open_system.addForce(barostat)
    open_context = make_context(open_system)
    open_context.setState(state)
    volumes = []
    for done in _advance(open_context.getIntegrator(), 0.6 * length):
        volumes.append(open_context.getState().getPeriodicBoxVolume()._value)
        report(0.2 * length + done)
    volumes = volumes[len(volumes) // 3:]

    expected, trust = expected_density(liquid, temperature)
    weights = [trust ** -2, volume_uncertainty(liquid, temperature, start, 0.4 * length) ** -2]
    volume = np.average([start, np.mean(volumes)], weights=weights)
    state = open_context.getState(positions=True, velocities=True)
    edge = volume ** (1 / 3)
    context.setPeriodicBoxVectors(*(edge * np.eye(3)))
    context.setPositions(scale_molecules(_frame(state.getPositions)[0], molecules,
                                         (volume / state.getPeriodicBoxVolume()._value) ** (1 / 3)))
    context.setVelocities(state.getVelocities())
    for done in _advance(integrator, length / 5):
        report(0.8 * length + done)
    return context.getState(positions=True, velocities=True), expected * start / volume


def _advance(integrator, length, block=0.1):
    """Run `length` ps and yield the time done, every `block` ps or a little sooner."""
    steps = max(1, round(length / integrator.getStepSize()._value))
    each = max(1, int(block / integrator.getStepSize()._value))
    for done in range(0, steps, each):
        integrator.step(min(each, steps - done))
        yield min(done + each, steps) / steps * length


def _frame(get):
    """Values [1, n_atoms, 3] of a State's getter, in the units of OpenMM."""
    return get(asNumpy=True)._value[None]


def _box(state):
    return state.getPeriodicBoxVectors(asNumpy=True)._value


class _Checkpoint:
    """State of an unfinished run, replaced as a whole or not at all.

    Attributes
    ----------
    path : Path
    provenance : dict or None
        What the trajectory says of its origin; None before it is known.
    frames : int
        Number of frames of the trajectory that belong to the state.
    """

    def __init__(self, path):
        self.path = path
        self.provenance = None
        self.frames = 0

    def save(self, context, frames):
        self.frames = frames
        partial = Path(f"{self.path}.partial")
        try:
            with open(partial, "wb") as file:
                np.savez(file, provenance=json.dumps(self.provenance), frames=frames,
                         state=np.frombuffer(context.createCheckpoint(), np.uint8))
            os.replace(partial, self.path)
        except OSError as error:
            raise OSError(f"{self.path} can't be written: {error}") from error

    def load(self):
        try:
            with np.load(self.path) as file:
                self.provenance = json.loads(str(file["provenance"]))
                self.frames = int(file["frames"])
                self._state = file["state"].tobytes()
        except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise ValueError(f"{self.path} is damaged: delete it, and the run starts again"
                             ) from error

    def restore(self, context):
        try:
            context.loadCheckpoint(self._state)
        except openmm.OpenMMException as error:
            raise ValueError(f"{self.path} was made by another version or platform of OpenMM "
                             f"({self.provenance['openmm']}, {self.provenance['platform']}): "
                             "delete it, and the run starts again") from error
