"""Production runs of a model in OpenMM: from its configuration to a trajectory, a log and a record."""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import openmm
import torch
from openmm import app, unit

from .. import kernels
from ..bundle import parameter_arrays
from ..data.trajectory import BeadWriter
from ..errors import ExplosionError, InputError
from ..export.backends import plugin
from ..export.integrators import INTEGRATORS
from ..export.system import choose_backend, create_system, default_platform
from ..model import Model
from ..platforms import find_platform
from ..random_streams import openmm_seed
from ..threads import thread_count
from ..units import KB, plain
from .checkpoint import Checkpoint
from .record import ProductionRun, check_same, finished_run, write_record
from .thermostat import VelocityRescaling, needs_thermostat
from .viewer import FORMATS, ViewerTrajectory, wrapped

log = logging.getLogger(__name__)

CHECKPOINT_SECONDS = 30.0
"""Wall time between checkpoints of an unfinished run (s)."""
REPORT_INTERVAL = 1.0
"""Default time between rows of the state log and between frames of the trajectory for viewers (ps)."""
STEPS_PER_CALL = 100
"""Steps between two returns to Python, which report progress and respond to an interruption."""
MINIMIZER_ITERATIONS = 200
"""Iterations of the minimizer, enough to remove overlaps."""
MAX_TEMPERATURE_RATIO = 5.0
"""Ratio of the kinetic temperature to that of the model at which a run has exploded."""
MAX_DISPLACEMENT = 0.2
"""Largest component of a bead's displacement in one step before a run has exploded (nm), as in the compiled core."""
RESCALING_INTERVAL = 0.1
"""Time between velocity rescalings of a model with negligible friction (ps)."""
STATE_COLUMNS = ("time_ps", "potential_energy_kJ_per_mol", "temperature_K", "ns_per_day")
"""Columns of the state log."""


def run_production(
    model: Model,
    directory: str | os.PathLike,
    *,
    length: float | unit.Quantity,
    frame_interval: float | unit.Quantity | None = 0.02,
    report_interval: float | unit.Quantity | None = None,
    trajectory_format: str = "dcd",
    timestep: float | unit.Quantity | None = None,
    minimize: bool = False,
    equilibration: float | unit.Quantity = 20.0,
    seed: int = 1,
    platform: str | None = None,
    backend: str | None = None,
    threads: int | None = None,
    simulation: app.Simulation | None = None,
    progress: Callable[[float, float], None] | None = None,
) -> ProductionRun:
    """Run a model from its configuration and write its trajectory.

    The directory gets ``beads.h5`` (unwrapped positions and velocities, every frame interval),
    ``trajectory.dcd`` and ``topology.pdb`` (wrapped, every report interval, for VMD and MDTraj),
    ``state.csv`` (every report interval) and ``production.json`` (arguments, speed and the dynamics of
    the model). Called again with the same arguments, a finished run returns at once and an
    interrupted one resumes from its last checkpoint.

    Parameters
    ----------
    model : Model
    directory : path
    length : float or Quantity
        Length of the run after the equilibration (ps).
    frame_interval : float or Quantity or None
        A multiple of the time step (ps); None for a run without ``beads.h5``.
    report_interval : float or Quantity, optional
        A multiple of the frame interval, or of the time step where there is none (ps); about 1 ps
        by default.
    trajectory_format : {"dcd", "xtc"}
    timestep : float or Quantity, optional
        (ps); that of the training by default.
    minimize : bool
        Whether to minimize the energy first, which removes overlaps.
    equilibration : float or Quantity
        Time before the first frame (ps).
    seed : int
        Seed of the random numbers of velocities and noise.
    platform : str, optional
        OpenMM platform. By default Reference for few beads without the plugin, else CPU: the energy
        is computed by the kernels of this package either way.
    backend : {"torchforce", "plugin", "pythonforce"}, optional
        See :meth:`Model.create_system`.
    threads : int, optional
        Threads of OpenMM's CPU platform; by default those of
        :func:`openmm_cgadv.threads.thread_count`.
    simulation : openmm.app.Simulation, optional
        A Simulation that :func:`create_simulation` made for another model of the same bead types
        and shape of the potential. It gets the parameters of this model, and its random numbers
        continue. By default a new one.
    progress : callable, optional
        Called with the simulated time and its total, equilibration included (ps).

    Raises
    ------
    InputError
        An argument is wrong, or the directory contains a run of another model or with other arguments.
    ExplosionError
        A position is not finite, a bead moved too far in one step, or the temperature is far too
        high; the message names the time and the likely cause.
    """
    directory = Path(directory)
    timestep = float(model.timestep if timestep is None else plain(timestep, unit.picosecond))
    arguments: dict[str, Any] = {
        "timestep": timestep,
        "length": float(plain(length, unit.picosecond)),
        "frame_interval": _optional(frame_interval),
        "report_interval": _optional(report_interval),
        "trajectory_format": trajectory_format,
        "minimize": bool(minimize),
        "equilibration": float(plain(equilibration, unit.picosecond)),
        "seed": int(seed),
        "model": model_digest(model),
    }
    for name in ("length", "timestep", "frame_interval", "report_interval"):
        if arguments[name] is not None and not arguments[name] > 0:
            raise InputError(f"{name}: found {arguments[name]:g} ps, expected more than 0")
    if not arguments["equilibration"] >= 0:
        raise InputError(
            f"equilibration: found {arguments['equilibration']:g} ps, expected 0 or more"
        )
    if trajectory_format not in FORMATS:
        raise InputError(
            f"trajectory_format: found {trajectory_format!r}, expected one of {', '.join(FORMATS)}"
        )
    steps, every = _intervals(arguments)
    if arguments["length"] < steps * timestep * (1 - 1e-6):
        raise InputError(
            f"length: found {arguments['length']:g} ps, expected at least the "
            f"{steps * timestep:g} ps between frames"
        )
    finished = finished_run(directory, arguments)
    if finished is not None:
        return finished
    directory.mkdir(parents=True, exist_ok=True)
    backend = choose_backend(
        backend, plain=not model.spec.compiled, platform=platform, beads=len(model.types)
    )
    if simulation is None:
        simulation = create_simulation(
            model,
            timestep=timestep,
            seed=seed,
            platform=platform,
            backend=backend,
            threads=threads,
        )
    else:
        simulation.integrator.setStepSize(timestep)
        model.update_context(simulation.context)
    run = _Run(model, directory, arguments, steps, every, simulation, backend, progress)
    run.start()
    run.produce()
    result = run.finish()
    about = {
        "equation": model.friction.name,
        "conserves_momentum": model.friction.conserves_momentum,
        "friction_per_ps": float(model.bead_friction.mean()),
        "openmm": openmm.version.version,
        "torch": torch.__version__,
    }
    write_record(directory, arguments, result, about)
    # The checkpoint stays until the record is whole, so an interrupted run can resume.
    run.checkpoint.unlink(missing_ok=True)
    return result


def model_digest(model: Model) -> str:
    """Return a short fingerprint of everything in a model that a run depends on."""
    digest = hashlib.sha256(json.dumps(model.spec.to_dict()).encode())
    for array in parameter_arrays(model).values():
        digest.update(np.ascontiguousarray(array).tobytes())
    if model.friction.section is not None:
        digest.update(json.dumps(model.friction.to_dict()).encode())
    digest.update(f"{model.temperature} {model.friction.name}".encode())
    return digest.hexdigest()[:16]


def create_simulation(
    model: Model,
    *,
    timestep: float | unit.Quantity | None = None,
    seed: int = 1,
    platform: str | None = None,
    backend: str | None = None,
    threads: int | None = None,
) -> app.Simulation:
    """Return a Simulation of a model at its configuration.

    The arguments are those of :func:`run_production`.

    Raises
    ------
    InputError
        There is no such platform or backend.
    """
    backend = choose_backend(
        backend, plain=not model.spec.compiled, platform=platform, beads=len(model.types)
    )
    found = find_platform(platform or default_platform(backend, len(model.types)))
    name = found.getName()
    # The plugin's own integrators run where its forces do.
    integrators = None if name in plugin.PLATFORMS else "openmm"
    simulation = app.Simulation(
        model.topology,
        create_system(model, model.topology, backend, platform=name),
        model.create_integrator(timestep=timestep, seed=openmm_seed(seed), backend=integrators),
        found,
        {"Threads": str(thread_count(threads))} if name == "CPU" else {},
    )
    log.info("energy through %s on the %s platform", backend, name)
    simulation.context.setPositions(model.positions)
    return simulation


def _threads(context: openmm.Context) -> int:
    """Return the threads of a Context's platform, or those of the kernels where it has none."""
    platform = context.getPlatform()
    if "Threads" in platform.getPropertyNames():
        return int(platform.getPropertyValue(context, "Threads"))
    return torch.get_num_threads()


def _optional(value: float | unit.Quantity | None) -> float | None:
    return None if value is None else float(plain(value, unit.picosecond))


def _intervals(arguments: dict) -> tuple[int, int]:
    """Return the time steps between frames and the frames between reports."""
    timestep, frame, report = (
        arguments[name] for name in ("timestep", "frame_interval", "report_interval")
    )
    of = f"the time step of {timestep:g} ps"
    steps = 1 if frame is None else _multiple("frame_interval", frame, timestep, of)
    if frame is not None:
        of = f"the frame interval of {frame:g} ps"
    if report is None:
        every = max(1, round(min(REPORT_INTERVAL, arguments["length"]) / (steps * timestep)))
    else:
        every = _multiple("report_interval", report, steps * timestep, of)
    return (every, 1) if frame is None else (steps, every)


def _multiple(name: str, value: float, part: float, of: str) -> int:
    count = round(value / part)
    if count < 1 or abs(value / part - count) > 1e-6:
        raise InputError(f"{name}: found {value:g} ps, expected a multiple of {of}")
    return count


class _Run:
    """A run in progress: its Context, its files and the frames done.

    Parameters
    ----------
    steps : int
        Time steps between frames.
    every : int
        Frames between rows of the log.
    """

    def __init__(
        self,
        model: Model,
        directory: Path,
        arguments: dict,
        steps: int,
        every: int,
        simulation: app.Simulation,
        backend: str,
        progress: Callable[[float, float], None] | None,
    ):
        self.model = model
        self.directory = directory
        self.arguments = arguments
        self.steps = steps
        self.every = every
        self.interval = steps * arguments["timestep"]
        self.simulation = simulation
        self.context = simulation.context
        self.backend = backend
        self.threads = _threads(self.context)
        self.checkpoint = directory / "checkpoint.npz"
        self.frames = 0
        self.total = int(arguments["length"] / self.interval + 1e-6)
        self.seconds = {"equilibration": 0.0, "production": 0.0}
        self.masses = model.masses[model.types]
        rescaling = max(1, round(RESCALING_INTERVAL / arguments["timestep"]))
        self.thermostat = (
            VelocityRescaling(rescaling, model, seed=arguments["seed"])
            if needs_thermostat(model)
            else None
        )
        whole = arguments["equilibration"] + self.total * self.interval
        self.report = lambda done: progress(done, whole) if progress is not None else None
        self.trajectory = directory / f"trajectory.{arguments['trajectory_format']}"
        self.viewer_size = 0

    def start(self) -> None:
        """Equilibrate, or restore an interrupted run."""
        if self.checkpoint.exists():
            self._restore()
            return
        for leftover in ("beads.h5", "state.csv"):
            (self.directory / leftover).unlink(missing_ok=True)
        self.context.setPositions(self.model.positions)
        begun = time.monotonic()
        if self.arguments["minimize"]:
            self.simulation.minimizeEnergy(maxIterations=MINIMIZER_ITERATIONS)
        seed = openmm_seed(self.arguments["seed"])
        self.context.setVelocitiesToTemperature(self.model.temperature, seed)
        timestep = self.arguments["timestep"]
        whole = round(self.arguments["equilibration"] / timestep)
        for done in range(0, whole, self.steps):
            self._advance(done * timestep, min(self.steps, whole - done))
        self.seconds["equilibration"] = time.monotonic() - begun
        with open(self.directory / "topology.pdb", "w") as file:
            first = wrapped(*self._configuration(self.context.getState(positions=True)))
            app.PDBFile.writeFile(self.model.topology, first * unit.nanometer, file)
        self._save(self._state())

    def produce(self) -> None:
        """Run to the end and write every frame."""
        begun = saved = time.monotonic()
        before = self.seconds["production"]
        with self._log() as log, self._viewer() as viewer, self._beads() as beads:
            if beads is not None:
                self._friction_stress()
            while self.frames < self.total:
                state, temperature = self._advance(
                    self.arguments["equilibration"] + self._time(), self.steps
                )
                positions, box = self._configuration(state)
                if beads is not None:
                    velocities = state.getVelocities(asNumpy=True)._value
                    beads.append(
                        positions, box, velocities, friction_stress=self._friction_stress()
                    )
                self.frames += 1
                now = time.monotonic()
                self.seconds["production"] = before + now - begun
                if self.frames % self.every == 0:
                    viewer.append(wrapped(positions, box), box)
                    energy = self.context.getState(energy=True).getPotentialEnergy()._value
                    log(
                        [
                            f"{self._time():.6g}",
                            f"{energy:.8g}",
                            f"{temperature:.6g}",
                            f"{self._speed():.5g}",
                        ]
                    )
                    # This resets neighbour lists, so it must not depend on the clock.
                    checkpoint = self._state()
                    if now - saved > CHECKPOINT_SECONDS:
                        if beads is not None:
                            beads.flush()
                        self.viewer_size = viewer.size
                        self._save(checkpoint)
                        saved = now
            if beads is not None:
                beads.finish()

    def finish(self) -> ProductionRun:
        """Return the files of the run and its speed."""
        return ProductionRun(
            self.trajectory,
            None if self.arguments["frame_interval"] is None else self.directory / "beads.h5",
            self._speed(),
            sum(self.seconds.values()),
            self.context.getPlatform().getName(),
            self.backend,
            self.threads,
        )

    def _time(self) -> float:
        return self.frames * self.interval

    def _speed(self) -> float:
        """Return the speed (ns/day)."""
        return self._time() * 1e-3 / max(self.seconds["production"], 1e-9) * 86400

    def _advance(self, begun: float, steps: int) -> tuple[openmm.State, float]:
        """Integrate some steps from a time on (ps); return the State and its kinetic temperature (K)."""
        error, timestep = None, self.arguments["timestep"]
        try:
            done, before = 0, round(begun / timestep)
            while done < steps:
                block = min(STEPS_PER_CALL, steps - done)
                if self.thermostat is not None:
                    block = min(
                        block, self.thermostat.interval - (before + done) % self.thermostat.interval
                    )
                self.simulation.integrator.step(block)
                done += block
                self._rescale_velocities(before + done)
                self.report(begun + done * timestep)
        except openmm.OpenMMException as raised:
            error = raised
        state = self.context.getState(positions=True, velocities=True)
        v = state.getVelocities(asNumpy=True)._value
        # Where friction conserves momentum, the centre of mass is at rest.
        free = v.size - 3 * self.model.friction.conserves_momentum
        temperature = float((self.masses[:, None] * v * v).sum() / (free * KB))
        found = self._explosion(state, temperature, failed=error is not None)
        if found is not None:
            raise ExplosionError(
                f"{self.directory}: the run exploded, {begun:.6g} to {begun + steps * timestep:.6g} "
                f"ps after its start: {found}; likely the time step of {timestep * 1e3:g} fs is too "
                "long for this potential, or the potential is not trained yet"
            ) from error
        if error is not None:
            raise error
        return state, temperature

    def _explosion(self, state: openmm.State, temperature: float, failed: bool) -> str | None:
        """Return how a State shows that the run exploded, None if it does not.

        Integrators of the plugin raise an error instead of a step in which a bead moves too far, and
        leave the beads where they were: where a step `failed`, its displacements are computed here.
        """
        velocities = state.getVelocities(asNumpy=True)._value
        if not np.isfinite(state.getPositions(asNumpy=True)._value).all():
            return "a position is not finite"
        if temperature >= MAX_TEMPERATURE_RATIO * self.model.temperature:
            return f"the temperature rose to {temperature:.3g} K"
        if not failed:
            return None
        try:
            forces = self.context.getState(forces=True).getForces(asNumpy=True)._value
        except openmm.OpenMMException:
            return None
        timestep = self.arguments["timestep"]
        moved = np.abs(timestep * (velocities + timestep * forces / self.masses[:, None]))
        if not np.isfinite(moved).all():
            return "a force is not finite"
        bead = int(moved.max(axis=1).argmax())
        if moved[bead].max() < MAX_DISPLACEMENT:
            return None
        return (
            f"bead {bead} moved {np.linalg.norm(moved[bead]):.3g} nm in one step, "
            f"largest force {np.linalg.norm(forces, axis=1).max():.3g} kJ/mol/nm"
        )

    def _rescale_velocities(self, steps: int) -> None:
        """Rescale the velocities where the model needs a thermostat and it is due after so many steps."""
        if self.thermostat is not None and steps % self.thermostat.interval == 0:
            velocities = self.context.getState(velocities=True).getVelocities(asNumpy=True)._value
            elapsed = self.thermostat.interval * self.arguments["timestep"]
            self.thermostat.rescale(
                self.context, velocities, elapsed, steps // self.thermostat.interval
            )

    def _friction_stress(self) -> np.ndarray | None:
        """Return the stress of friction between beads [3, 3] (kJ/mol), averaged since the last call; None without it."""
        integrators = INTEGRATORS[self.model.friction.name]
        moment = integrators.take_moment(self.simulation.integrator)
        return None if moment is None else moment / self.interval

    def _configuration(self, state: openmm.State) -> tuple[np.ndarray, np.ndarray]:
        """Return unwrapped positions [N, 3] and box [3, 3] (nm)."""
        positions = state.getPositions(asNumpy=True)._value
        return positions, state.getPeriodicBoxVectors(asNumpy=True)._value

    @contextmanager
    def _beads(self) -> Iterator[BeadWriter | None]:
        """Yield the writer of beads.h5 with the frames up to now, or None."""
        if self.arguments["frame_interval"] is None:
            yield None
            return
        with BeadWriter(
            self.directory / "beads.h5",
            self.masses,
            self.model.types,
            self.model.type_names,
            self.model.temperature,
            self.interval,
            {"arguments": self.arguments},
            velocities=True,
            friction_stress=self.model.friction.between_beads,
            reopen=True,
        ) as writer:
            writer.truncate(self.frames)
            yield writer

    def _viewer(self) -> ViewerTrajectory:
        return ViewerTrajectory(
            self.trajectory,
            self.model.topology,
            self.arguments["timestep"],
            self.steps * self.every,
            self.frames // self.every,
            self.viewer_size,
        )

    @contextmanager
    def _log(self) -> Iterator[Callable[[list[str]], None]]:
        """Yield a function that appends a row to the state log, which holds the rows up to now."""
        path, rows = self.directory / "state.csv", []
        if path.exists():
            with open(path, newline="") as file:
                rows = list(csv.reader(file))[1:]
        whole = [row for row in rows if len(row) == len(STATE_COLUMNS)]
        with open(path, "w", newline="") as file:
            log = csv.writer(file)
            log.writerows([STATE_COLUMNS, *whole[: self.frames // self.every]])

            def write(row: list[str]) -> None:
                log.writerow(row)
                file.flush()

            yield write

    def _state(self) -> bytes:
        """Return a checkpoint of the Context, from which a new one continues bit for bit."""
        kernels.forget_lists()
        return self.context.createCheckpoint()

    def _save(self, state: bytes) -> None:
        Checkpoint(state, self.frames, self.viewer_size, self.arguments, self.seconds).save(
            self.checkpoint
        )

    def _restore(self) -> None:
        saved = Checkpoint.load(self.checkpoint)
        check_same(self.directory, saved.arguments, self.arguments)
        self.frames, self.viewer_size, self.seconds = saved.frames, saved.viewer_size, saved.seconds
        kernels.forget_lists()
        try:
            self.context.loadCheckpoint(saved.state)
        except openmm.OpenMMException as error:
            raise InputError(
                f"{self.checkpoint} was made by another version or platform of OpenMM: delete "
                f"{self.directory}, and the run starts again"
            ) from error
