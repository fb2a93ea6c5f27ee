"""OpenMM reporters: CG trajectories (H5MD), and structure and diffusion during a run."""

from __future__ import annotations

import json
import os
import time
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openmm
from openmm import app, unit
from openmm.unit import Quantity

from ..analysis import diffusion, msd, rdf
from ..analysis.blocks import Unmeasurable
from ..analysis.pairs import half_width
from ..analysis.sampling import sampled_beads
from ..data.trajectory import BeadTrajectory, BeadWriter
from ..errors import InputError
from ..export.beads import bead_types
from ..files import write_atomic
from ..model import Model
from ..units import plain

FLUSH_SECONDS = 0.05
"""Default wall time between writes of frames to the file; a write takes about 2 ms."""


@dataclass(frozen=True)
class RdfSampling:
    """Sampling of the radial distribution function during a run."""

    every: int = 10
    """Reports between configurations whose distances are counted, the most expensive part."""
    range: float = 0.9
    """Largest distance relative to half the box width, which leaves room for a box that shrinks."""


class H5MDReporter:
    """Write a CG trajectory (H5MD) with unwrapped positions, which `BeadTrajectory` reads.

    ``simulation.reporters.append(H5MDReporter("beads.h5", 4, model))``. The file is open only
    while frames are written: many times a second, and before OpenMM's `CheckpointReporter` writes.
    A simulation that is killed therefore leaves a valid file that reaches its checkpoint.
    Call `close` before ``simulation.saveCheckpoint``.

    Parameters
    ----------
    path : path
    interval : int
        Time steps between frames.
    model : Model
        Model of the simulation; it determines bead types, masses and temperature of the file.
    velocities : bool
        Whether frames contain velocities.
    append : bool
        Continue the file of an interrupted simulation. Load the simulation's checkpoint first:
        later frames of the file are deleted, and the frame of the checkpoint is added if the
        simulation was killed before it was written. Without `append`, an existing file is replaced.
    temperature : float or Quantity, optional
        (K); that of the model by default.
    flush_seconds : float
        Wall time between writes to the file.

    Raises
    ------
    InputError
        An argument is wrong. At the first report: the topology does not consist of the model's
        beads, or the checkpoint does not belong to the file or is later than its end.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        interval: int,
        model: Model,
        velocities: bool = False,
        append: bool = False,
        temperature: float | Quantity | None = None,
        flush_seconds: float = FLUSH_SECONDS,
    ) -> None:
        self._flush_seconds = flush_seconds
        self.path = Path(path)
        self.interval = checked_interval(interval)
        self.model = model
        self.velocities = velocities
        self.temperature = (
            model.temperature if temperature is None else plain(temperature, unit.kelvin)
        )
        self._writer: BeadWriter | None = None
        self._flushed = time.monotonic()
        if append and not self.path.exists():
            raise InputError(f"{self.path}: found no such file, expected one to append to")
        self._append = append

    def describeNextReport(self, simulation: app.Simulation) -> dict[str, Any]:
        """Return when OpenMM calls `report`, and the contents of its State."""
        include = ["positions", "velocities"] if self.velocities else ["positions"]
        request = next_report(simulation, self.interval, include)
        if self._append and self._writer is None:
            self._continue(simulation, simulation.currentStep + request["steps"])
        return request

    def report(self, simulation: app.Simulation, state: openmm.State) -> None:
        """Append a frame."""
        writer = self._writer
        if writer is None:
            self.path.unlink(missing_ok=True)
            writer = self._open(simulation, simulation.currentStep)
        self._append_frame(writer, state)
        due = time.monotonic() - self._flushed > self._flush_seconds
        if due or self._checkpoint_follows(simulation):
            self.close()

    def close(self) -> None:
        """Write the buffered frames to the file; more may follow."""
        if self._writer is not None:
            self._writer.flush()
        self._flushed = time.monotonic()

    def _checkpoint_follows(self, simulation: app.Simulation) -> bool:
        """Return whether a checkpoint is written before the next frame."""
        return any(
            -simulation.currentStep % reporter._reportInterval < self.interval
            for reporter in simulation.reporters
            if isinstance(reporter, app.CheckpointReporter)
        )

    def _continue(self, simulation: app.Simulation, step: int) -> None:
        """Open the existing file, truncated to the frames before the next one, at `step`."""
        with BeadTrajectory.open(self.path) as old:
            first, frames = old.provenance.get("first_step"), old.n_frames
        kept = -1 if first is None else (step - first) / self.interval
        # A checkpoint may be written before the frame of the same step, which is then lost.
        lost = kept == frames + 1 and simulation.currentStep == step - self.interval
        begun = kept > 0 or simulation.currentStep > 0 or frames == 0
        if not (kept == round(kept) and 0 <= kept <= frames + lost and begun):
            raise InputError(
                f"{self.path}: found {frames} frames from step {first} on, expected a file that step "
                f"{step} continues: load a checkpoint of the simulation that wrote it, from before "
                "its end, or write to another file"
            )
        writer = self._open(simulation, first)
        writer.truncate(min(round(kept), frames))
        if lost:
            state = simulation.context.getState(positions=True, velocities=self.velocities)
            self._append_frame(writer, state)
            self.close()

    def _open(self, simulation: app.Simulation, first_step: int) -> BeadWriter:
        types = bead_types(simulation.topology, self.model.type_names)
        writer = BeadWriter(
            self.path,
            self.model.masses[types],
            types,
            self.model.type_names,
            self.temperature,
            self.interval * timestep_of(simulation),
            {"first_step": first_step},
            velocities=self.velocities,
        )
        # Without a call of close, frames are written when the reporter is deleted or the program ends.
        weakref.finalize(self, writer.flush)
        self._writer = writer
        return writer

    def _append_frame(self, writer: BeadWriter, state: openmm.State) -> None:
        velocities = state.getVelocities(asNumpy=True)._value if self.velocities else None
        writer.append(*_configuration(state), velocities)


class AnalysisReporter:
    """Measure g(r), mean squared displacements and diffusion during a simulation.

    Reports are collected in windows. At the end of each window, the averages over all windows are
    written to a JSON file and to the attributes. The RAM does not grow with the number of reports,
    except for a few kB per window. Standard errors are those of the differences between windows, so
    there are none before the second window is complete.

    Displacements are those within a window, of at most `analysis.sampling.MAX_BEADS` beads, with
    the functions and definitions of `openmm_cgadv.analysis`: diffusion is fitted from 2 ps, or one
    report interval if that is longer, to a tenth of a window.

    Parameters
    ----------
    path : path or None
        JSON file, replaced after each window; None to set only the attributes.
    interval : int
        Time steps between reports; 20 to 200 fs are suitable for most liquids.
    model : Model
        Model of the simulation.
    window : int
        Reports in a window.
    sampling : RdfSampling

    Attributes
    ----------
    rdf : analysis.rdf.Rdf or None
    msd : analysis.msd.Msd or None
    diffusion : analysis.diffusion.Diffusion or None
    reasons : dict
        Why an attribute is None: ``{name: sentence}``.

    Raises
    ------
    InputError
        An argument is wrong. At the first report: the topology does not consist of the model's
        beads.
    """

    def __init__(
        self,
        path: str | os.PathLike | None,
        interval: int,
        model: Model,
        window: int = 1000,
        sampling: RdfSampling = RdfSampling(),
    ) -> None:
        self._sampling = sampling
        self.path = None if path is None else Path(path)
        self.interval = checked_interval(interval)
        if int(window) != window or window < 10:
            raise InputError(f"window: found {window}, expected a whole number, 10 or more")
        self.window = int(window)
        self.model = model
        self.rdf: rdf.Rdf | None = None
        self.msd: msd.Msd | None = None
        self.diffusion: diffusion.Diffusion | None = None
        reason = f"no window of {window} reports is full yet"
        self.reasons = dict.fromkeys(("rdf", "msd", "diffusion"), reason)
        self._step: int | None = None
        self._types: np.ndarray | None = None
        self._sampled = np.zeros(0, dtype=np.int64)
        self._bins: rdf.Rdf | None = None
        self._counts: list[np.ndarray] = []
        self._displacements: list[msd.Msd] = []

    def describeNextReport(self, simulation: app.Simulation) -> dict[str, Any]:
        """Return when OpenMM calls `report`, and the contents of its State."""
        return next_report(simulation, self.interval, ["positions"])

    def report(self, simulation: app.Simulation, state: openmm.State) -> None:
        """Add a configuration, and update the averages when a window is full."""
        if self._types is None:
            self._types = bead_types(simulation.topology, self.model.type_names)
            self._sampled = sampled_beads(self._types)
        if self._step is None or simulation.currentStep != self._step + self.interval:
            # The simulation was set to another state: displacements start again from it.
            self._begin()
        self._step = simulation.currentStep
        self._frame_interval = self.interval * timestep_of(simulation)
        positions, box = _configuration(state)
        if len(self._frames) % self._sampling.every == 0:
            self._count(positions, box)
        sampled = positions[self._sampled]
        if not self._frames:
            self._origin = sampled
        self._frames.append((sampled - self._origin).astype(np.float32))
        if len(self._frames) == self.window:
            self._measure(box)
            self._begin()

    def _begin(self) -> None:
        """Start a window."""
        self._frames: list[np.ndarray] = []
        self._counted: np.ndarray | float = 0.0

    def _count(self, positions: np.ndarray, box: np.ndarray) -> None:
        """Count the distances of a configuration."""
        if self._bins is None:
            r_max = min(rdf.R_MAX, self._sampling.range * half_width(box))
        else:
            r_max = self._bins.edges[-1]
        found = rdf.rdf(self._segment(positions[None], box, slice(None)), r_max=r_max)
        self._bins = self._bins or found
        self._counted = self._counted + np.array([found.observed[0], found.expected[0]])

    def _measure(self, box: np.ndarray) -> None:
        """Average over all windows and write the result."""
        interval = self._frame_interval
        length = self.window * interval
        self.reasons = {}
        self._counts.append(np.asarray(self._counted))
        observed, expected = np.array(self._counts).swapaxes(0, 1)
        bins = self._bins
        if bins is not None:
            self.rdf = rdf.Rdf(bins.edges, bins.pairs, observed, expected)
        lags = msd.lag_grid(interval, length)
        within = None
        try:
            within = diffusion.fit_range(length, interval)
            lags = np.concatenate([lags, diffusion.fit_lags(interval, within)])
        except Unmeasurable as why:
            self.reasons["diffusion"] = str(why)
        one = msd.msd(self._segment(np.array(self._frames), box, self._sampled), lags)
        self._displacements.append(one)
        several = self._displacements
        self.msd = msd.Msd(
            one.lags,
            np.array([w.blocks.mean(0) for w in several]),
            np.mean([w.drift for w in several], axis=0),
            one.type_names,
            one.n_beads,
            len(several) * length,
        )
        if within is not None:
            self.diffusion = diffusion.diffusion(self.msd, within)
        if self.path is not None:
            write_atomic(self.path, json.dumps(self._results(), indent=1) + "\n")

    def _segment(
        self, positions: np.ndarray, box: np.ndarray, beads: np.ndarray | slice
    ) -> _Segment:
        assert self._types is not None  # set by the first report
        types = self._types[beads]
        masses = self.model.masses[types]
        boxes = np.broadcast_to(box, (len(positions), 3, 3))
        names = self.model.type_names
        return _Segment(positions, boxes, masses, types, names, self._frame_interval)

    def _results(self) -> dict[str, Any]:
        found, displacements, pairs = self.diffusion, self.msd, self.rdf
        assert displacements is not None and pairs is not None  # set by the first window
        rows = zip(displacements.lags, displacements.values(), displacements.stderr)
        return {
            "length_ps": displacements.length,
            "windows": len(self._displacements),
            "diffusion_cm2_per_s": found and _number(found.value),
            "diffusion_stderr": found and _number(found.stderr),
            "diffusion_fit_ps": found and [_number(t) for t in found.fit_range],
            "msd_nm2": [[_number(x) for x in row] for row in rows],
            "rdf": [
                {"types": list(pair), "r_nm": _list(pairs.r), "g": _list(g), "stderr": _list(e)}
                for pair, g, e in zip(pairs.pairs, pairs.g(), pairs.stderr)
            ],
            "reasons": self.reasons,
        }


@dataclass(frozen=True)
class _Segment:
    """Frames in RAM, which the functions of `analysis` take as `analysis.frames.Frames`."""

    frames: np.ndarray
    cells: np.ndarray
    masses: np.ndarray
    types: np.ndarray
    type_names: tuple[str, ...]
    frame_interval: float

    @property
    def n_frames(self) -> int:
        return len(self.frames)

    @property
    def n_beads(self) -> int:
        return len(self.types)

    @property
    def position_errors(self) -> np.ndarray:
        return np.zeros(len(self.type_names))

    def positions(self, frames: slice | Sequence[int] | np.ndarray = slice(None)) -> np.ndarray:
        return self.frames[frames].astype(np.float64)

    def boxes(self, frames: slice | Sequence[int] | np.ndarray = slice(None)) -> np.ndarray:
        return self.cells[frames]


def checked_interval(interval: int) -> int:
    """Return `interval` (time steps) after a check; InputError if it is not a positive whole number."""
    if int(interval) != interval or interval < 1:
        raise InputError(f"interval: found {interval}, expected a whole number of steps, 1 or more")
    return int(interval)


def next_report(simulation: app.Simulation, interval: int, include: list[str]) -> dict[str, Any]:
    """Return the request of an OpenMM reporter: the time of the next report and its contents.

    Parameters
    ----------
    simulation : openmm.app.Simulation
    interval : int
        Time steps between reports.
    include : list of str
        Contents of the State, such as ``"positions"``.
    """
    steps = interval - simulation.currentStep % interval
    return {"steps": steps, "periodic": False, "include": include}


def _configuration(state: openmm.State) -> tuple[np.ndarray, np.ndarray]:
    """Return unwrapped positions [N, 3] and box [3, 3] (nm)."""
    positions = state.getPositions(asNumpy=True)._value
    return positions, state.getPeriodicBoxVectors(asNumpy=True)._value


def timestep_of(simulation: app.Simulation) -> float:
    """Return the time step of a simulation (ps)."""
    return simulation.integrator.getStepSize().value_in_unit(unit.picosecond)


def _number(x: float) -> float | None:
    """Return `x` rounded to seven digits, None if it is not finite."""
    return float(f"{x:.7g}") if np.isfinite(x) else None


def _list(values: Iterable[float]) -> list[float | None]:
    return [_number(x) for x in values]
