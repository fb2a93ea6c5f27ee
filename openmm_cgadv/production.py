"""Runs of a model in OpenMM: trajectory, state log and speed of a Simulation of its beads."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import struct
import time
import zipfile
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import openmm
import torch
from openmm import app, unit

from . import kernels, openmm_plugin
from .export import Model
from .export.bundle import ARRAYS
from .export.system import choose_backend
from .thermostat import VelocityRescaling, is_needed
from .trajectory import BeadWriter
from .units import KB, plain

CHECKPOINT_SECONDS = 30.0
"""Wall time between checkpoints of an unfinished run."""
REPORT_INTERVAL = 1.0
"""Usual time between rows of the state log and between frames of the viewer's trajectory (ps)."""
FORMATS = ("dcd", "xtc")
"""Of the viewer's trajectory."""
BLOCK = 100
"""Steps between two calls into Python, where progress is told and an interruption is noticed."""
MINIMIZATIONS = 200
"""Steps of the minimizer, enough to take overlaps away."""
FAILED, MOVED = "the simulation failed at step", " moved "
"""What integrators of the plugin say of a step that they can't make, which leaves beads where they were, and of one that moves a bead too far."""
HOT = 5.0
"""A kinetic temperature that many times too high means that the run explodes."""
RESCALING = 0.1
"""Time between changes by the thermostat that a model gets whose friction is none (ps)."""
SMALL = 2000
"""Up to so many beads, the threads of OpenMM's CPU platform cost more than they save."""
STATE_COLUMNS = ("time_ps", "potential_energy_kJ_per_mol", "temperature_K", "ns_per_day")


class ProductionExploded(RuntimeError):
    """The run became unphysical; the message says when, and what is likely to help."""


@dataclass(frozen=True)
class ProductionRun:
    """A finished run.

    Attributes
    ----------
    trajectory : Path
        Wrapped positions for viewers, beside ``topology.pdb``.
    beads : Path or None
        Unwrapped positions and velocities, an H5MD file.
    ns_per_day : float
        Speed of the part after the equilibration, writing of frames included.
    seconds : float
        Wall time, equilibration included.
    platform, backend : str
    threads : int
    """

    trajectory: Path
    beads: Path | None
    ns_per_day: float
    seconds: float
    platform: str
    backend: str
    threads: int


def run_production(
    model: Model,
    directory: str | os.PathLike,
    *,
    length,
    frame_interval=0.02,
    report_interval=None,
    trajectory_format: str = "dcd",
    timestep=None,
    minimize: bool = False,
    equilibration=20.0,
    seed: int = 1,
    platform: str | None = None,
    backend: str | None = None,
    simulation: app.Simulation | None = None,
    progress: Callable[[float, float], None] | None = None,
) -> ProductionRun:
    """Run a model from its configuration and write what it does.

    The directory gets ``beads.h5`` (unwrapped positions and velocities, every frame interval),
    ``trajectory.dcd`` and ``topology.pdb`` (wrapped, every report interval, for VMD and MDTraj),
    ``state.csv`` (every report interval) and ``production.json``. Called again with the same
    arguments, a finished run returns at once and an interrupted one goes on from its last
    checkpoint.

    Parameters
    ----------
    model : Model
    directory : path
    length : float or Quantity
        Of the part that is kept (ps).
    frame_interval : float or Quantity or None
        A multiple of the time step (ps); None for a run without ``beads.h5``.
    report_interval : float or Quantity, optional
        A multiple of the frame interval, or of the time step where there is none (ps); about 1 ps
        by default.
    trajectory_format : {"dcd", "xtc"}
    timestep : float or Quantity, optional
        (ps); that of the training by default.
    minimize : bool
        Whether the energy is minimized first, to take overlaps away.
    equilibration : float or Quantity
        Time before the first frame (ps).
    seed : int
        Of velocities and noise.
    platform : str, optional
        OpenMM platform. By default Reference for few beads without the plugin, else CPU: the energy
        is computed by the kernels of this package either way.
    backend : {"torchforce", "plugin", "pythonforce"}, optional
        See :meth:`Model.create_system`.
    simulation : openmm.app.Simulation, optional
        That of :func:`create_simulation` for a model before this one, which is given the parameters
        of this one and used again; its noise goes on. By default a new one.
    progress : callable, optional
        Told the picoseconds done and their total, equilibration included.

    Raises
    ------
    ValueError
        An argument is wrong, or the directory holds a run of another model or other arguments.
    ProductionExploded
        The positions or the temperature left all bounds.
    """
    directory = Path(directory)
    timestep = float(model.timestep if timestep is None else plain(timestep, unit.picosecond))
    arguments = {
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
            raise ValueError(f"{name}: found {arguments[name]:g} ps, expected more than 0")
    if not arguments["equilibration"] >= 0:
        raise ValueError(
            f"equilibration: found {arguments['equilibration']:g} ps, expected 0 or more"
        )
    if trajectory_format not in FORMATS:
        raise ValueError(
            f"trajectory_format: found {trajectory_format!r}, expected one of {', '.join(FORMATS)}"
        )
    steps, every = _intervals(arguments)
    if arguments["length"] < steps * timestep * (1 - 1e-6):
        raise ValueError(
            f"length: found {arguments['length']:g} ps, expected at least the "
            f"{steps * timestep:g} ps between frames"
        )
    record = directory / "production.json"
    finished = _finished(record, arguments)
    if finished is not None:
        return finished
    directory.mkdir(parents=True, exist_ok=True)
    backend = choose_backend(backend)
    if simulation is None:
        simulation = create_simulation(
            model, timestep=timestep, seed=seed, platform=platform, backend=backend
        )
    else:
        simulation.integrator.setStepSize(timestep)
        model.update_context(simulation.context)
    run = _Run(model, directory, arguments, steps, every, simulation, backend, progress)
    run.start()
    run.produce()
    result = run.finish()
    content = {"arguments": arguments, **asdict(result)}
    for name in ("trajectory", "beads"):
        content[name] = content[name] and content[name].name
    content |= {"openmm": openmm.version.version, "torch": torch.__version__}
    _write_whole(record, json.dumps(content, indent=2).encode())
    # Whatever stops a run before its record is whole leaves what it can go on from.
    run.checkpoint.unlink(missing_ok=True)
    return result


def model_digest(model: Model) -> str:
    """A short fingerprint of everything that a run of the model depends on."""
    digest = hashlib.sha256(json.dumps(model.spec.to_dict()).encode())
    for name in ARRAYS:
        if getattr(model, name) is not None:
            digest.update(np.ascontiguousarray(getattr(model, name)).tobytes())
    if model.pair_friction is not None:
        digest.update(json.dumps(model.pair_friction.to_dict()).encode())
    digest.update(f"{model.temperature} {model.equation}".encode())
    return digest.hexdigest()[:16]


def find_platform(name: str) -> openmm.Platform:
    """The OpenMM platform of a name.

    Raises
    ------
    ValueError
        There is none; the message names those that there are.
    """
    try:
        return openmm.Platform.getPlatform(name)
    except openmm.OpenMMException:
        known = [
            openmm.Platform.getPlatform(k).getName()
            for k in range(openmm.Platform.getNumPlatforms())
        ]
        raise ValueError(f"platform: found {name!r}, expected one of {', '.join(known)}") from None


def create_simulation(
    model: Model,
    *,
    timestep=None,
    seed: int = 1,
    platform: str | None = None,
    backend: str | None = None,
) -> app.Simulation:
    """A Simulation of a model at its configuration.

    The arguments are those of :func:`run_production`.

    Raises
    ------
    ValueError
        There is no such platform or backend.
    """
    backend = choose_backend(backend)
    # The plugin keeps its neighbour list from step to step on the CPU platform alone.
    reference = len(model.types) <= SMALL and backend != "plugin"
    found = find_platform(platform or ("Reference" if reference else "CPU"))
    cpu = found.getName() == "CPU"
    simulation = app.Simulation(
        model.topology,
        model.create_system(backend=backend),
        model.create_integrator(timestep=timestep, seed=openmm_seed(seed)),
        found,
        {"Threads": str(torch.get_num_threads())} if cpu else {},
    )
    simulation.context.setPositions(model.positions)
    return simulation


def openmm_seed(seed: int) -> int:
    """A seed that OpenMM takes as it is, from any integer."""
    return seed % (2**31 - 2) + 1


def _optional(value) -> float | None:
    return None if value is None else float(plain(value, unit.picosecond))


def _intervals(arguments: dict) -> tuple[int, int]:
    """Time steps from one frame to the next, and frames from one report to the next."""
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
        raise ValueError(f"{name}: found {value:g} ps, expected a multiple of {of}")
    return count


class _Run:
    """One run under way: its Context, its files and how far it is."""

    def __init__(self, model, directory, arguments, steps, every, simulation, backend, progress):
        self.model = model
        self.directory = directory
        self.arguments = arguments
        self.steps = steps
        self.every = every
        self.interval = steps * arguments["timestep"]
        self.simulation = simulation
        self.context = simulation.context
        self.backend = backend
        self.threads = torch.get_num_threads()
        self.checkpoint = directory / "checkpoint.npz"
        self.frames = 0
        self.total = int(arguments["length"] / self.interval + 1e-6)
        self.seconds = {"equilibration": 0.0, "production": 0.0}
        self.masses = model.masses[model.types]
        rescaling = max(1, round(RESCALING / arguments["timestep"]))
        self.thermostat = VelocityRescaling(rescaling, model, seed=arguments["seed"]) if is_needed(model) else None
        whole = arguments["equilibration"] + self.total * self.interval
        self.report = lambda done: progress(done, whole) if progress is not None else None
        self.trajectory = directory / f"trajectory.{arguments['trajectory_format']}"
        self.kept = 0

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
            self.simulation.minimizeEnergy(maxIterations=MINIMIZATIONS)
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
        self._save(self._checkpoint())

    def produce(self) -> None:
        """Run to the end, and write every frame."""
        begun = saved = time.monotonic()
        before = self.seconds["production"]
        with self._log() as log, self._viewer() as viewer, self._beads() as beads:
            if beads is not None:
                self._friction_stress()
            while self.frames < self.total:
                state, temperature = self._advance(self.arguments["equilibration"] + self._time(), self.steps)
                positions, box = self._configuration(state)
                if beads is not None:
                    velocities = state.getVelocities(asNumpy=True)._value
                    beads.append(positions, box, velocities, friction_stress=self._friction_stress())
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
                    # Making one lets neighbour lists be forgotten, so it must not depend on the clock.
                    checkpoint = self._checkpoint()
                    if now - saved > CHECKPOINT_SECONDS:
                        if beads is not None:
                            beads.flush()
                        self.kept = viewer.size
                        self._save(checkpoint)
                        saved = now
            if beads is not None:
                beads.finish()

    def finish(self) -> ProductionRun:
        """Say how fast the run was."""
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
        """Nanoseconds a day."""
        return self._time() * 1e-3 / max(self.seconds["production"], 1e-9) * 86400

    def _advance(self, begun: float, steps: int):
        """Some steps on from a time (ps); the State and its kinetic temperature (K)."""
        cause, timestep = "", self.arguments["timestep"]
        try:
            done, before = 0, round(begun / timestep)
            while done < steps:
                block = min(BLOCK, steps - done)
                if self.thermostat is not None:
                    block = min(block, self.thermostat.interval - (before + done) % self.thermostat.interval)
                self.simulation.integrator.step(block)
                done += block
                self._hold_temperature(before + done)
                self.report(begun + done * timestep)
        except openmm.OpenMMException as error:
            cause = str(error)
        state = self.context.getState(positions=True, velocities=True)
        v = state.getVelocities(asNumpy=True)._value
        # Friction between beads alone leaves the whole system at rest.
        free = v.size - 3 * self.model.conserves_momentum
        temperature = float((self.masses[:, None] * v * v).sum() / (free * KB))
        finite = np.isfinite(state.getPositions(asNumpy=True)._value).all()
        when = f"{begun:.6g} to {begun + steps * timestep:.6g} ps after its start"
        if not finite:
            found = "a position is not finite"
        elif temperature >= HOT * self.model.temperature:
            found = f"the temperature rose to {temperature:.3g} K"
        elif FAILED in cause and MOVED in cause:
            found = cause.split(FAILED)[1].split(": ", 1)[1]
        elif cause:
            raise openmm.OpenMMException(cause)
        else:
            return state, temperature
        raise ProductionExploded(
            f"{self.directory}: the run exploded, {when}: {found}; likely the time step of "
            f"{timestep * 1e3:g} fs is too long for this potential, or the "
            "potential is not trained yet"
        )

    def _hold_temperature(self, steps: int) -> None:
        """Rescale velocities, if it is time after so many steps, where friction does not hold the temperature."""
        if self.thermostat is not None and steps % self.thermostat.interval == 0:
            velocities = self.context.getState(velocities=True).getVelocities(asNumpy=True)._value
            elapsed = self.thermostat.interval * self.arguments["timestep"]
            self.thermostat.rescale(self.context, velocities, elapsed, steps // self.thermostat.interval)

    def _friction_stress(self) -> np.ndarray | None:
        """Of friction between beads [3, 3] (kJ/mol), averaged since the last call; None without it."""
        if self.model.equation != "pair":
            return None
        return openmm_plugin.take_moment(self.simulation.integrator) / self.interval

    def _configuration(self, state) -> tuple[np.ndarray, np.ndarray]:
        """Unwrapped positions [N, 3] and box [3, 3] (nm)."""
        positions = state.getPositions(asNumpy=True)._value
        return positions, state.getPeriodicBoxVectors(asNumpy=True)._value

    @contextmanager
    def _beads(self):
        """The writer of beads.h5 with the frames up to now, or None."""
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
            friction_stress=self.model.equation == "pair",
            reopen=True,
        ) as writer:
            writer.truncate(self.frames)
            yield writer

    def _viewer(self) -> _Viewer:
        return _Viewer(
            self.trajectory,
            self.model.topology,
            self.arguments["timestep"],
            self.steps * self.every,
            self.frames // self.every,
            self.kept,
        )

    @contextmanager
    def _log(self):
        """What appends a row to the state log, which holds the rows up to now."""
        path, rows = self.directory / "state.csv", []
        if path.exists():
            with open(path, newline="") as file:
                rows = list(csv.reader(file))[1:]
        whole = [row for row in rows if len(row) == len(STATE_COLUMNS)]
        with open(path, "w", newline="") as file:
            log = csv.writer(file)
            log.writerows([STATE_COLUMNS, *whole[: self.frames // self.every]])

            def write(row):
                log.writerow(row)
                file.flush()

            yield write

    def _checkpoint(self) -> np.ndarray:
        """The state of the Context, from which a new one goes on bit for bit."""
        kernels.forget_lists()
        return np.frombuffer(self.context.createCheckpoint(), np.uint8)

    def _save(self, state: np.ndarray) -> None:
        partial = self.checkpoint.with_suffix(".partial")
        with open(partial, "wb") as file:
            np.savez(
                file,
                state=state,
                frames=self.frames,
                kept=self.kept,
                about=json.dumps([self.arguments, self.seconds]),
            )
        os.replace(partial, self.checkpoint)

    def _restore(self) -> None:
        try:
            with np.load(self.checkpoint, allow_pickle=False) as file:
                arguments, self.seconds = json.loads(str(file["about"]))
                self.frames, self.kept = int(file["frames"]), int(file["kept"])
                state = file["state"].tobytes()
        except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"{self.checkpoint} is damaged: delete {self.directory}, and the run starts again"
            ) from error
        _check_same(self.directory, arguments, self.arguments)
        kernels.forget_lists()
        try:
            self.context.loadCheckpoint(state)
        except openmm.OpenMMException as error:
            raise ValueError(
                f"{self.checkpoint} was made by another version or platform of OpenMM: delete "
                f"{self.directory}, and the run starts again"
            ) from error


class _Viewer:
    """A DCD or XTC file that can be cut back to what it was at a checkpoint; a context manager.

    Parameters
    ----------
    path : Path
    topology : openmm.app.Topology
    timestep : float
        (ps)
    interval : int
        Time steps between frames.
    frames, size : int
        Frames and bytes of the file that are kept.
    """

    def __init__(self, path, topology, timestep, interval, frames, size):
        self.path = path
        self.file = None
        if not frames:
            path.unlink(missing_ok=True)
        elif not path.exists() or path.stat().st_size < size:
            raise ValueError(
                f"{path} has lost what it held when the run was interrupted: delete "
                f"{path.parent}, and the run starts again"
            )
        else:
            os.truncate(path, size)
        more = (topology, timestep * unit.picosecond, interval, interval, frames > 0)
        if path.suffix == ".xtc":
            self.out = app.XTCFile(str(path), *more)
            return
        self.file = open(path, "r+b" if frames else "w+b")
        if frames:
            # The header counts the frames that were cut off too.
            self.file.seek(8)
            self.file.write(struct.pack("<i", frames))
        self.out = app.DCDFile(self.file, *more)

    def append(self, positions: np.ndarray, box: np.ndarray) -> None:
        """Write a frame, positions [N, 3] and box [3, 3] (nm)."""
        vectors = [openmm.Vec3(*row) for row in box] * unit.nanometer
        self.out.writeModel(positions * unit.nanometer, periodicBoxVectors=vectors)

    @property
    def size(self) -> int:
        """Bytes written."""
        return self.path.stat().st_size if self.path.exists() else 0

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        if self.file is not None:
            self.file.close()


def wrapped(positions: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Positions [N, 3] moved by whole box vectors into the cell at the origin (nm)."""
    return positions - np.floor(positions @ np.linalg.inv(box)) @ box


def _finished(record: Path, arguments: dict) -> ProductionRun | None:
    if not record.exists():
        return None
    try:
        content = json.loads(record.read_text())
        found = content.pop("arguments")
        run = ProductionRun(
            record.parent / content["trajectory"],
            content["beads"] and record.parent / content["beads"],
            *(
                content[name]
                for name in ("ns_per_day", "seconds", "platform", "backend", "threads")
            ),
        )
    except (ValueError, KeyError) as error:
        raise ValueError(
            f"{record} is damaged: delete {record.parent}, and the run starts again"
        ) from error
    _check_same(record.parent, found, arguments)
    return run if (run.beads or run.trajectory).exists() else None


def _check_same(directory: Path, found: dict, expected: dict) -> None:
    for name, now in expected.items():
        before = found.get(name)
        if before == now:
            continue
        if name == "length":
            step = expected["timestep"]
            before, now = (f"{x:g} ps ({x / step:.0f} steps)" for x in (before, now))
        raise ValueError(
            f"{directory} holds a run with {name} = {before}, but {now} is asked for now: delete "
            "it to run again, or write to another place"
        )


def _write_whole(path: Path, content: bytes) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    os.replace(partial, path)
