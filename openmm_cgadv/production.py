"""Runs of a model in OpenMM: trajectory, state log and speed of a Simulation of its beads."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import time
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import openmm
import torch
from openmm import app, unit

from .export import Model
from .export.system import choose_backend
from .trajectory import BeadTrajectory, BeadWriter
from .units import KB, plain

CHECKPOINT_SECONDS = 30.0
"""Wall time between checkpoints of an unfinished run."""
STATE_INTERVAL = 1.0
"""Time between rows of the state log and between frames of the DCD file (ps)."""
HOT = 5.0
"""A kinetic temperature that many times too high means that the run explodes."""
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
    beads : Path
        Its frames, an H5MD file.
    ns_per_day : float
        Speed of the part after the equilibration, writing of frames included.
    seconds : float
        Wall time, equilibration included.
    platform, backend : str
    threads : int
    """

    beads: Path
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
    timestep=None,
    equilibration=20.0,
    seed: int = 1,
    platform: str | None = None,
    backend: str | None = None,
    progress: Callable[[float, float], None] | None = None,
) -> ProductionRun:
    """Run a model from its configuration and write what it does.

    The directory gets ``beads.h5`` (unwrapped positions and velocities, every frame),
    ``trajectory.dcd`` and ``topology.pdb`` (wrapped, every ps, for VMD and MDTraj), ``state.csv``
    and ``production.json``. Called again with the same arguments, a finished run returns at once
    and an interrupted one goes on from its last checkpoint.

    Parameters
    ----------
    model : Model
    directory : path
    length : float or Quantity
        Of the part that is kept (ps).
    frame_interval : float or Quantity
        A multiple of the time step (ps).
    timestep : float or Quantity, optional
        (ps); that of the training by default.
    equilibration : float or Quantity
        Time before the first frame (ps).
    seed : int
        Of velocities and noise.
    platform : str, optional
        OpenMM platform. By default Reference for few beads, else CPU: the energy is computed by
        the kernels of this package either way.
    backend : {"torchforce", "pythonforce"}, optional
        See :meth:`Model.create_system`.
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
    arguments = {
        "length": float(plain(length, unit.picosecond)),
        "frame_interval": float(plain(frame_interval, unit.picosecond)),
        "timestep": float(model.timestep if timestep is None else plain(timestep, unit.picosecond)),
        "equilibration": float(plain(equilibration, unit.picosecond)),
        "seed": int(seed),
        "model": model_digest(model),
    }
    for name in ("length", "frame_interval", "timestep"):
        if not arguments[name] > 0:
            raise ValueError(f"{name}: found {arguments[name]:g} ps, expected more than 0")
    ratio = arguments["frame_interval"] / arguments["timestep"]
    steps = round(ratio)
    if steps < 1 or abs(ratio - steps) > 1e-6:
        raise ValueError(
            f"frame_interval: found {arguments['frame_interval']:g} ps, expected a multiple of the "
            f"time step of {arguments['timestep']:g} ps"
        )
    if arguments["length"] < 2 * arguments["frame_interval"]:
        raise ValueError(
            f"length: found {arguments['length']:g} ps, expected at least two frame intervals of "
            f"{arguments['frame_interval']:g} ps"
        )
    record = directory / "production.json"
    finished = _finished(record, arguments)
    if finished is not None:
        return finished
    directory.mkdir(parents=True, exist_ok=True)
    platform = platform or ("Reference" if len(model.types) <= SMALL else "CPU")
    backend = choose_backend(backend)
    run = _Run(model, directory, arguments, steps, platform, backend, progress)
    run.start()
    run.produce()
    result = run.finish()
    content = {"arguments": arguments, **asdict(result), "beads": result.beads.name}
    content |= {"openmm": openmm.version.version, "torch": torch.__version__}
    _write_whole(record, json.dumps(content, indent=2).encode())
    return result


def model_digest(model: Model) -> str:
    """A short fingerprint of everything that a run of the model depends on."""
    digest = hashlib.sha256(json.dumps(model.spec.to_dict()).encode())
    for name in ("theta", "masses", "drift", "types", "positions", "box"):
        digest.update(np.ascontiguousarray(getattr(model, name)).tobytes())
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



class _Run:
    """One run under way: its Context, its files and how far it is."""

    def __init__(self, model, directory, arguments, steps, platform, backend, progress):
        self.model = model
        self.directory = directory
        self.arguments = arguments
        self.steps = steps
        self.backend = backend
        self.threads = torch.get_num_threads()
        self.checkpoint = directory / "checkpoint.npz"
        self.frames = 0
        self.total = int(arguments["length"] / arguments["frame_interval"] + 1e-6)
        self.seconds = {"equilibration": 0.0, "production": 0.0}
        self.masses = model.masses[model.types]
        self.every = max(1, round(STATE_INTERVAL / arguments["frame_interval"]))
        whole = arguments["equilibration"] + self.total * arguments["frame_interval"]
        self.report = lambda done: progress(done, whole) if progress is not None else None
        found = find_platform(platform)
        integrator = model.create_integrator(
            timestep=arguments["timestep"], seed=arguments["seed"] % (2**31 - 2) + 1
        )
        self.simulation = app.Simulation(
            model.topology,
            model.create_system(backend=backend),
            integrator,
            found,
            {"Threads": str(self.threads)} if platform == "CPU" else {},
        )
        self.context = self.simulation.context
        self.writer = None

    def start(self) -> None:
        """Equilibrate, or restore an interrupted run."""
        if self.checkpoint.exists():
            self._restore()
            self._open_writer()
            self.writer.truncate(self.frames)
            return
        for leftover in ("beads.h5", "state.csv"):
            (self.directory / leftover).unlink(missing_ok=True)
        self.context.setPositions(self.model.positions)
        seed = self.arguments["seed"] % (2**31 - 2) + 1
        self.context.setVelocitiesToTemperature(self.model.temperature, seed)
        begun = time.monotonic()
        count = round(self.arguments["equilibration"] / self.arguments["frame_interval"])
        for frame in range(1, count + 1):
            self._advance((frame - 1) * self.arguments["frame_interval"])
            self.report(frame * self.arguments["frame_interval"])
        self.seconds["equilibration"] = time.monotonic() - begun
        self._open_writer()
        self._save()

    def produce(self) -> None:
        """Run to the end, and append every frame."""
        begun = saved = time.monotonic()
        before = self.seconds["production"]
        rows = self._kept_rows()
        with open(self.directory / "state.csv", "w", newline="") as file, self.writer:
            log = csv.writer(file)
            log.writerows([STATE_COLUMNS, *rows])
            while self.frames < self.total:
                state, temperature = self._advance(self.arguments["equilibration"] + self._time())
                self.writer.append(
                    state.getPositions(asNumpy=True)._value,
                    state.getPeriodicBoxVectors(asNumpy=True)._value,
                    state.getVelocities(asNumpy=True)._value,
                )
                self.frames += 1
                now = time.monotonic()
                self.seconds["production"] = before + now - begun
                if self.frames % self.every == 0:
                    energy = self.context.getState(energy=True).getPotentialEnergy()._value
                    log.writerow(
                        [
                            f"{self._time():.6g}",
                            f"{energy:.8g}",
                            f"{temperature:.6g}",
                            f"{self._speed():.5g}",
                        ]
                    )
                    file.flush()
                if now - saved > CHECKPOINT_SECONDS:
                    self.writer.flush()
                    self._save()
                    saved = now
                self.report(self.arguments["equilibration"] + self._time())
            self.writer.finish()

    def finish(self) -> ProductionRun:
        """Write the trajectory for viewers and say how fast the run was."""
        beads = self.directory / "beads.h5"
        write_dcd(beads, self.directory, self.model.topology, self.every)
        self.checkpoint.unlink(missing_ok=True)
        return ProductionRun(
            beads,
            self._speed(),
            sum(self.seconds.values()),
            self.context.getPlatform().getName(),
            self.backend,
            self.threads,
        )

    def _time(self) -> float:
        return self.frames * self.arguments["frame_interval"]

    def _speed(self) -> float:
        """Nanoseconds a day."""
        return self._time() * 1e-3 / max(self.seconds["production"], 1e-9) * 86400

    def _advance(self, begun: float):
        """One frame interval from a time (ps); the State and its kinetic temperature (K)."""
        cause = ""
        try:
            self.simulation.integrator.step(self.steps)
        except openmm.OpenMMException as error:
            cause = str(error)
        state = self.context.getState(positions=True, velocities=True)
        v = state.getVelocities(asNumpy=True)._value
        temperature = float((self.masses[:, None] * v * v).sum() / (v.size * KB))
        finite = np.isfinite(state.getPositions(asNumpy=True)._value).all()
        if finite and temperature < HOT * self.model.temperature:
            if cause:
                raise openmm.OpenMMException(cause)
            return state, temperature
        when = f"{begun:.6g} to {begun + self.arguments['frame_interval']:.6g} ps after its start"
        found = (
            f"the temperature rose to {temperature:.3g} K" if finite else "a position is not finite"
        )
        raise ProductionExploded(
            f"{self.directory}: the run exploded, {when}: {found}; likely the time step of "
            f"{self.arguments['timestep'] * 1e3:g} fs is too long for this potential, or the "
            "potential is not trained yet"
        )

    def _open_writer(self) -> None:
        self.writer = BeadWriter(
            self.directory / "beads.h5",
            self.masses,
            self.model.types,
            self.model.type_names,
            self.model.temperature,
            self.arguments["frame_interval"],
            {"arguments": self.arguments},
            velocities=True,
        )

    def _kept_rows(self) -> list[list[str]]:
        path = self.directory / "state.csv"
        if not path.exists():
            return []
        with open(path, newline="") as file:
            rows = list(csv.reader(file))[1:]
        whole = [row for row in rows if len(row) == len(STATE_COLUMNS)]
        return whole[: self.frames // self.every]

    def _save(self) -> None:
        partial = self.checkpoint.with_suffix(".partial")
        with open(partial, "wb") as file:
            np.savez(
                file,
                state=np.frombuffer(self.context.createCheckpoint(), np.uint8),
                frames=self.frames,
                about=json.dumps([self.arguments, self.seconds]),
            )
        os.replace(partial, self.checkpoint)

    def _restore(self) -> None:
        try:
            with np.load(self.checkpoint, allow_pickle=False) as file:
                arguments, self.seconds = json.loads(str(file["about"]))
                self.frames = int(file["frames"])
                state = file["state"].tobytes()
        except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"{self.checkpoint} is damaged: delete {self.directory}, and the run starts again"
            ) from error
        _check_same(self.directory, arguments, self.arguments)
        try:
            self.context.loadCheckpoint(state)
        except openmm.OpenMMException as error:
            raise ValueError(
                f"{self.checkpoint} was made by another version or platform of OpenMM: delete "
                f"{self.directory}, and the run starts again"
            ) from error


def write_dcd(beads: Path, directory: Path, topology: app.Topology, every: int) -> None:
    """Write every n-th frame of a bead trajectory as ``trajectory.dcd`` with ``topology.pdb``.

    Beads are wrapped into the box, as viewers expect.
    """
    partial = directory / "trajectory.dcd.partial"
    with BeadTrajectory.open(beads) as trajectory, open(partial, "w+b") as file:
        interval = trajectory.frame_interval * every
        dcd = app.DCDFile(file, topology, interval * unit.picosecond)
        for frame in range(every - 1, trajectory.n_frames, every):
            box = trajectory.boxes([frame])[0]
            positions = wrapped(trajectory.positions([frame])[0], box)
            dcd.writeModel(positions * unit.nanometer, periodicBoxVectors=box * unit.nanometer)
        first = wrapped(trajectory.positions([0])[0], trajectory.boxes([0])[0])
    os.replace(partial, directory / "trajectory.dcd")
    with open(directory / "topology.pdb", "w") as file:
        app.PDBFile.writeFile(topology, first * unit.nanometer, file)


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
            record.parent / content["beads"],
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
    return run if run.beads.exists() else None


def _check_same(directory: Path, found: dict, expected: dict) -> None:
    for name, value in expected.items():
        if found.get(name) != value:
            raise ValueError(
                f"{directory} holds a run with {name} = {found.get(name)}, but {value} is asked "
                "for now: delete it to run again, or write to another place"
            )


def _write_whole(path: Path, content: bytes) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    os.replace(partial, path)
