"""The all-atom run of a liquid: equilibration to its density, then production mapped to beads."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openmm
from openmm import unit
from openmm.unit import Quantity

from ...errors import InputError
from ...files import read_npz, replacing
from ...random_streams import openmm_seed
from ...units import plain
from ..mapping import Mapping
from ..trajectory import BeadWriter
from .arguments import is_finished
from .systems import (
    LIQUIDS,
    BoxSettings,
    create_context,
    expected_density,
    liquid_box,
    scale_molecules,
    volume_uncertainty,
)


@dataclass(frozen=True)
class LiquidProtocol:
    """Settings of equilibration and production."""

    pressure: float = 1.0
    """Pressure of the equilibration (bar)."""
    equilibration_friction: float = 2.0
    """Friction of the Langevin thermostat of the equilibration (1/ps)."""
    thermostat_frequency: float = 2.0
    """Collision frequency of the Nosé–Hoover chain of production (1/ps)."""
    excess_samples: int = 40
    """Pairs of successive steps from which the discretization error of the kinetic energy is
    estimated."""
    excess_spacing: float = 0.05
    """Time between these pairs (ps)."""
    checkpoint_frames: int = 250
    """Frames between checkpoints."""


def run_liquid(
    path: str | os.PathLike,
    *,
    liquid: str,
    molecules: int,
    temperature: float | Quantity,
    length: float | Quantity,
    frame_interval: float | Quantity = 0.02,
    timestep: float | Quantity = 0.002,
    equilibration_ps: float | Quantity | None = None,
    seed: int = 1,
    threads: int | None = None,
    platform: str | None = None,
    progress: Callable[[float, float], None] | None = None,
    protocol: LiquidProtocol = LiquidProtocol(),
    box: BoxSettings = BoxSettings(),
) -> Path:
    """Simulate a liquid in OpenMM and write its molecules as beads, one at each centre of mass.

    Positions (unwrapped), velocities and forces of the beads go to an H5MD file frame by frame, see
    `openmm_cgadv.data.trajectory`. A Nosé–Hoover chain controls the temperature: it does not slow
    diffusion, and the energy decorrelates within 1 ps. A Langevin thermostat that is weak enough not
    to slow diffusion needs 10 ps for that. The mean temperature of a run of 1 ns with 343 water
    molecules would then be uncertain by 1 K, and the diffusion coefficient changes by 2 % per kelvin.
    The temperature of the thermostat is corrected for the discretization error of the kinetic
    energy, see `half_step_excess`. Velocities belong to the time half a time step before the
    positions and forces of the same frame.

    A run that was interrupted continues from its last checkpoint, kept beside the file with
    ``.checkpoint`` appended to its name, when called again with the same arguments; on the
    Reference platform, whose arithmetic is reproducible, the result is that of an uninterrupted run
    bit for bit. A finished run returns immediately.

    Density: after a minimization, the equilibration spends a fifth of its length at constant
    volume, three fifths at 1 bar (MonteCarloBarostat), and a fifth at the resulting volume, which
    production keeps. Averaged over 20 ps, the volume of 343 molecules has an uncertainty of 0.7 %
    (SPC/E), of 100 molecules over 5 ps of 2.8 %. The density in `LIQUIDS` is more accurate than that
    near its temperature. The volume is therefore the mean of the two, weighted with their inverse
    variances (`expected_density`, `volume_uncertainty`): the simulated volume dominates in long
    runs, the known density in short ones.

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
        Length of production (ps).
    frame_interval : float or Quantity
        ps, a multiple of `timestep`.
    timestep : float or Quantity
        ps.
    equilibration_ps : float or Quantity, optional
        Length of the equilibration, ps; a quarter of `length` by default, but 10 to 50 ps.
    seed : int
    threads : int, optional
        Threads of the CPU platform; by default the cores that this process may use.
    platform : str, optional
        OpenMM platform; the fastest that works by default.
    progress : callable, optional
        Called with the picoseconds done and their total, including the equilibration.
    protocol : LiquidProtocol
    box : BoxSettings

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    InputError
        An argument is wrong, or `path` was made with others.
    OSError
        The file can't be written, for example because the disk is full.
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
        raise InputError(f"liquid: found {liquid!r}, expected one of {', '.join(LIQUIDS)}")
    if molecules < box.fewest_molecules:
        raise InputError(
            f"molecules: found {molecules}, expected at least {box.fewest_molecules}: the box of "
            "fewer is too small for the interactions"
        )
    for name, value in (
        ("temperature", temperature),
        ("length", length),
        ("timestep", timestep),
        ("frame_interval", frame_interval),
        ("equilibration_ps", equilibration_ps),
    ):
        if not (np.isfinite(value) and value > 0):
            raise InputError(f"{name}: found {value}, expected a positive number")
    lowest, highest = LIQUIDS[liquid].range
    if not lowest <= temperature <= highest:
        raise InputError(
            f"temperature: found {temperature:g} K, expected {lowest:g} to {highest:g} K, "
            f"where {liquid} is a liquid"
        )
    steps = round(frame_interval / timestep)
    if steps < 1 or abs(steps * timestep - frame_interval) > 1e-6 * frame_interval:
        raise InputError(
            f"frame_interval: found {frame_interval:g} ps, expected a multiple of the "
            f"time step of {timestep:g} ps"
        )
    n_frames = int(length / frame_interval + 1e-6)
    if n_frames < 2:
        raise InputError(
            f"length: found {length:g} ps, expected at least two frame intervals of "
            f"{frame_interval:g} ps"
        )
    arguments = dict(
        liquid=liquid,
        molecules=molecules,
        temperature=temperature,
        length=length,
        frame_interval=frame_interval,
        timestep=timestep,
        equilibration_ps=equilibration_ps,
        seed=seed,
    )
    saved = _Checkpoint(Path(f"{path}.checkpoint"))
    if path.exists() and is_finished(path, arguments):
        return path
    if path.exists() and saved.path.exists():
        continues = True
        saved.load()
        platform = platform or saved.provenance["platform"]
    else:
        continues = False
        path.unlink(missing_ok=True)
        saved.path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)

    def report(done: float) -> None:
        if progress is not None:
            progress(done, equilibration_ps + n_frames * frame_interval)

    def production() -> openmm.Integrator:
        return openmm.NoseHooverIntegrator(temperature, protocol.thermostat_frequency, timestep)

    def equilibration() -> openmm.Integrator:
        integrator = openmm.LangevinMiddleIntegrator(
            temperature, protocol.equilibration_friction, timestep
        )
        integrator.setRandomNumberSeed(openmm_seed(seed))
        return integrator

    topology, system, positions = liquid_box(liquid, molecules, temperature, box)
    context = create_context(system, production, platform, threads)
    if continues:
        saved.restore(context)
    else:
        state, density = _equilibrated(
            lambda system: create_context(system, equilibration, platform, threads),
            system,
            positions,
            liquid,
            molecules,
            temperature,
            equilibration_ps,
            seed,
            protocol.pressure,
            report,
        )
        context.setState(state)
        saved.provenance = {
            "arguments": arguments,
            "density": density,
            "thermostat_K": temperature * (1 + half_step_excess(context, protocol)),
            "openmm": openmm.version.version,
            "platform": context.getPlatform().getName(),
        }

    context.getIntegrator().setTemperature(saved.provenance["thermostat_K"])
    mapping = Mapping.per_residue(topology)
    with BeadWriter(
        path,
        temperature=temperature,
        frame_interval=frame_interval,
        provenance=saved.provenance,
        velocities=True,
        forces=True,
        **mapping.beads.arrays(),
    ) as writer:
        if continues:
            writer.truncate(saved.frames)
        else:
            saved.save(context, 0)
        for frame in range(saved.frames + 1, n_frames + 1):
            context.getIntegrator().step(steps)
            state = context.getState(positions=True, velocities=True, forces=True)
            writer.append(
                mapping.positions(_frame(state.getPositions))[0],
                _box(state),
                mapping.velocities(_frame(state.getVelocities))[0],
                mapping.forces(_frame(state.getForces))[0],
            )
            report(equilibration_ps + frame * frame_interval)
            if frame % protocol.checkpoint_frames == 0:
                writer.flush()
                saved.save(context, frame)
        writer.finish()
    saved.path.unlink()
    return path


def half_step_excess(context: openmm.Context, protocol: LiquidProtocol = LiquidProtocol()) -> float:
    r"""Return the relative excess of the half-step kinetic energy due to the finite time step.

    A leapfrog integrator samples the shadow Hamiltonian: the half-step kinetic energy of a harmonic
    mode of frequency omega, and of a free rotor, is 1 + (omega dt)^2 / 12 times kT/2 to second
    order. A thermostat that controls the mean over all modes therefore cools slow modes: at 2 fs,
    the librations of water cool the molecular centres by 0.7 K. As (omega dt)^2 is the mean squared
    change of a velocity in a step, relative to its mean square, the excess is

        sum m <|v(t + dt/2) - v(t - dt/2)|^2> / (12 sum m <v^2>).

    Parameters
    ----------
    context : openmm.Context
        In equilibrium, with an integrator without noise; it advances by 2 ps.
    protocol : LiquidProtocol
        Number and spacing of the samples.
    """
    integrator, system = context.getIntegrator(), context.getSystem()
    masses = np.array([system.getParticleMass(i)._value for i in range(system.getNumParticles())])
    apart = max(1, round(protocol.excess_spacing / integrator.getStepSize()._value))
    changes = kinetic = 0.0
    for _ in range(protocol.excess_samples):
        integrator.step(apart)
        before = _frame(context.getState(velocities=True).getVelocities)[0]
        integrator.step(1)
        after = _frame(context.getState(velocities=True).getVelocities)[0]
        changes += masses @ np.square(after - before).sum(1)
        kinetic += masses @ (np.square(before) + np.square(after)).sum(1) / 2
    return changes / (12 * kinetic)


def _equilibrated(
    make_context: Callable[[openmm.System], openmm.Context],
    system: openmm.System,
    positions: np.ndarray,
    liquid: str,
    molecules: int,
    temperature: float,
    length: float,
    seed: int,
    pressure: float,
    report: Callable[[float], None],
) -> tuple[openmm.State, float]:
    """Return a State in equilibrium at `pressure` (bar) after `length` ps, and its density (g/cm^3)."""
    context = make_context(system)
    integrator = context.getIntegrator()
    context.setPositions(positions)
    openmm.LocalEnergyMinimizer.minimize(context, maxIterations=200)
    context.setVelocitiesToTemperature(temperature, openmm_seed(seed))
    for done in _advance(integrator, length / 5):
        report(done)

    state = context.getState(positions=True, velocities=True)
    start = state.getPeriodicBoxVolume()._value
    barostat = openmm.MonteCarloBarostat(pressure, temperature)
    barostat.setRandomNumberSeed(openmm_seed(seed))
    open_system = copy.deepcopy(system)
    open_system.addForce(barostat)
    open_context = make_context(open_system)
    open_context.setState(state)
    volumes = []
    for done in _advance(open_context.getIntegrator(), 0.6 * length):
        volumes.append(open_context.getState().getPeriodicBoxVolume()._value)
        report(0.2 * length + done)
    volumes = volumes[len(volumes) // 3 :]

    expected, trust = expected_density(liquid, temperature)
    weights = [trust**-2, volume_uncertainty(liquid, temperature, start, 0.4 * length) ** -2]
    volume = np.average([start, np.mean(volumes)], weights=weights)
    state = open_context.getState(positions=True, velocities=True)
    edge = volume ** (1 / 3)
    context.setPeriodicBoxVectors(*(edge * np.eye(3)))
    context.setPositions(
        scale_molecules(
            _frame(state.getPositions)[0],
            molecules,
            (volume / state.getPeriodicBoxVolume()._value) ** (1 / 3),
        )
    )
    context.setVelocities(state.getVelocities())
    for done in _advance(integrator, length / 5):
        report(0.8 * length + done)
    return context.getState(positions=True, velocities=True), expected * start / volume


def _advance(integrator: openmm.Integrator, length: float, block: float = 0.1) -> Iterator[float]:
    """Run `length` ps and yield the time done, at least every `block` ps."""
    steps = max(1, round(length / integrator.getStepSize()._value))
    each = max(1, int(block / integrator.getStepSize()._value))
    for done in range(0, steps, each):
        integrator.step(min(each, steps - done))
        yield min(done + each, steps) / steps * length


def _frame(get: Callable) -> np.ndarray:
    """Return the values [1, n_atoms, 3] of a getter of a State, in units of OpenMM."""
    return get(asNumpy=True)._value[None]


def _box(state: openmm.State) -> np.ndarray:
    return state.getPeriodicBoxVectors(asNumpy=True)._value


class _Checkpoint:
    """Store the state of an unfinished run atomically.

    Attributes
    ----------
    path : Path
    provenance : dict
        Provenance of the trajectory.
    frames : int
        Number of frames of the trajectory that belong to the state.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.provenance: dict[str, Any] = {}
        self.frames = 0
        self._state = b""

    def save(self, context: openmm.Context, frames: int) -> None:
        self.frames = frames
        try:
            with replacing(self.path) as partial, open(partial, "wb") as file:
                np.savez(
                    file,
                    provenance=json.dumps(self.provenance),
                    frames=frames,
                    state=np.frombuffer(context.createCheckpoint(), np.uint8),
                )
        except OSError as error:
            raise OSError(f"{self.path} can't be written: {error}") from error

    def load(self) -> None:
        remedy = "delete it, and the simulation of the reference starts again"
        found = read_npz(self.path, remedy)
        try:
            self.provenance = json.loads(str(found["provenance"]))
            self.frames = int(found["frames"])
            self._state = found["state"].tobytes()
        except (KeyError, ValueError) as error:
            raise InputError(f"{self.path} is corrupt: {remedy}") from error

    def restore(self, context: openmm.Context) -> None:
        try:
            context.loadCheckpoint(self._state)
        except openmm.OpenMMException as error:
            raise InputError(
                f"{self.path}: found a checkpoint of another version or platform of OpenMM "
                f"({self.provenance['openmm']}, {self.provenance['platform']}), expected "
                f"{openmm.version.version}: delete it to start the run again"
            ) from error
