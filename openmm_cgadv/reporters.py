"""OpenMM reporters: beads in H5MD, and structure and diffusion measured while a run goes on."""

from __future__ import annotations

import json
import os
import time
import weakref
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from openmm import app, unit

from .analysis import dynamics, structure
from .analysis.blocks import Unmeasurable
from .export import Model
from .export.system import bead_types
from .trajectory import BeadTrajectory, BeadWriter
from .units import plain

FLUSH_SECONDS = 0.05
"""Wall time after which frames are written to the file, which takes some 2 ms."""
RDF_EVERY = 10
"""Reports between two configurations whose distances are counted, which takes longest."""
RDF_RANGE = 0.9
"""Largest distance of g(r) by half the box, so that a box may shrink."""


class H5MDReporter:
    """Writes bead positions, unwrapped, and velocities as H5MD; read by `BeadTrajectory`.

    ``simulation.reporters.append(H5MDReporter("beads.h5", 4, model))``. The file is open only
    while frames are written to it: many times a second, and before OpenMM's `CheckpointReporter`
    writes, so that a simulation that is killed leaves a whole file that reaches its checkpoint.
    Call `close` before ``simulation.saveCheckpoint``.

    Parameters
    ----------
    path : path
    interval : int
        Time steps between frames.
    model : Model
        Of the beads of the simulation; the file gets its bead types, masses and temperature.
    velocities : bool
    append : bool
        Go on with a file that an interrupted simulation has left. Load the simulation's checkpoint
        first: frames of the file that come after it are dropped, and the frame of the checkpoint
        itself is taken from it if the simulation was killed between the two. A file that is there
        already is replaced otherwise.
    temperature : float or Quantity, optional
        (K); that of the model by default.

    Raises
    ------
    ValueError
        An argument is wrong; or, as the simulation begins, the topology is not one of the model's
        beads, or the checkpoint does not belong to the file or comes after its end.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        interval: int,
        model: Model,
        velocities: bool = False,
        append: bool = False,
        temperature=None,
    ):
        self.path = Path(path)
        self.interval = checked_interval(interval)
        self.model = model
        self.velocities = velocities
        self.temperature = (
            model.temperature if temperature is None else plain(temperature, unit.kelvin)
        )
        self._writer = None
        self._flushed = time.monotonic()
        if append and not self.path.exists():
            raise ValueError(f"{self.path}: found no such file, expected one to append to")
        self._append = append

    def describeNextReport(self, simulation) -> dict:
        """What OpenMM is asked for, and in how many steps."""
        include = ["positions", "velocities"] if self.velocities else ["positions"]
        request = next_report(simulation, self.interval, include)
        if self._append and self._writer is None:
            self._continue(simulation, simulation.currentStep + request["steps"])
        return request

    def report(self, simulation, state) -> None:
        """Take a frame."""
        if self._writer is None:
            self.path.unlink(missing_ok=True)
            self._open(simulation, simulation.currentStep)
        self._take(state)
        due = time.monotonic() - self._flushed > FLUSH_SECONDS
        if due or self._checkpoint_follows(simulation):
            self.close()

    def close(self) -> None:
        """Write what was taken to the file; more may follow."""
        if self._writer is not None:
            self._writer.flush()
        self._flushed = time.monotonic()

    def _checkpoint_follows(self, simulation) -> bool:
        """Whether a checkpoint is written before the next frame."""
        return any(
            -simulation.currentStep % reporter._reportInterval < self.interval
            for reporter in simulation.reporters
            if isinstance(reporter, app.CheckpointReporter)
        )

    def _continue(self, simulation, step: int) -> None:
        """Open the file that is there, with the frames before the next one, at a step."""
        with BeadTrajectory.open(self.path) as old:
            first, frames = old.provenance.get("first_step"), old.n_frames
        kept = -1 if first is None else (step - first) / self.interval
        # A checkpoint may be written before the frame of the same step, which is then lost.
        lost = kept == frames + 1 and simulation.currentStep == step - self.interval
        begun = kept > 0 or simulation.currentStep > 0 or frames == 0
        if not (kept == round(kept) and 0 <= kept <= frames + lost and begun):
            raise ValueError(
                f"{self.path} holds {frames} frames from step {first} on, so it can't be continued "
                f"with step {step}: load a checkpoint of the simulation that wrote it, from before "
                "its end, or write to another file"
            )
        self._open(simulation, first)
        self._writer.truncate(min(round(kept), frames))
        if lost:
            state = simulation.context.getState(positions=True, velocities=self.velocities)
            self._take(state)
            self.close()

    def _open(self, simulation, first_step: int) -> None:
        types = bead_types(simulation.topology, self.model.type_names)
        self._writer = BeadWriter(
            self.path,
            self.model.masses[types],
            types,
            self.model.type_names,
            self.temperature,
            self.interval * timestep_of(simulation),
            {"first_step": first_step},
            velocities=self.velocities,
        )
        # Where nobody closes it, frames are written when the reporter is gone or the program ends.
        weakref.finalize(self, self._writer.flush)

    def _take(self, state) -> None:
        velocities = state.getVelocities(asNumpy=True)._value if self.velocities else None
        self._writer.append(*_configuration(state), velocities)


class AnalysisReporter:
    """Measures g(r), mean squared displacements and diffusion while a simulation runs.

    Reports are collected in windows. At the end of each, what was measured in all of them is
    written to a JSON file and can be had from the attributes. Memory does not grow with the number
    of beads or of reports, but for some kB a window. Error bars come from the differences between
    windows, so there are none until the second is full.

    Displacements are those within one window, of at most `analysis.dynamics.MAX_BEADS` beads, by
    the functions and definitions of `openmm_cgadv.analysis`: diffusion is fitted from 2 ps, or one
    report interval if that is longer, to a tenth of a window.

    Parameters
    ----------
    path : path or None
        JSON file, replaced each time; None for the attributes alone.
    interval : int
        Time steps between reports; 20 to 200 fs serve most liquids.
    model : Model
        Of the beads of the simulation.
    window : int
        Reports in a window.

    Attributes
    ----------
    rdf : analysis.structure.Rdf or None
    msd : analysis.dynamics.Msd or None
    diffusion : analysis.dynamics.Diffusion or None
    reasons : dict
        Why one of them is None: ``{name: sentence}``.

    Raises
    ------
    ValueError
        An argument is wrong; or, at the first report, the topology is not one of the model's
        beads.
    """

    def __init__(
        self, path: str | os.PathLike | None, interval: int, model: Model, window: int = 1000
    ):
        self.path = None if path is None else Path(path)
        self.interval = checked_interval(interval)
        if int(window) != window or window < 10:
            raise ValueError(f"window: found {window}, expected a whole number, 10 or more")
        self.window = int(window)
        self.model = model
        self.rdf = self.msd = self.diffusion = None
        reason = f"no window of {window} reports is full yet"
        self.reasons = dict.fromkeys(("rdf", "msd", "diffusion"), reason)
        self._step = None
        self._types = None
        self._bins: structure.Rdf | None = None
        self._counts: list[np.ndarray] = []
        self._displacements: list[dynamics.Msd] = []

    def describeNextReport(self, simulation) -> dict:
        """What OpenMM is asked for, and in how many steps."""
        return next_report(simulation, self.interval, ["positions"])

    def report(self, simulation, state) -> None:
        """Take a configuration, and measure when a window is full."""
        if self._types is None:
            self._types = bead_types(simulation.topology, self.model.type_names)
            self._followed = dynamics.followed(self._types)
        if self._step is None or simulation.currentStep != self._step + self.interval:
            # The simulation was set to another state, from which displacements begin anew.
            self._begin()
        self._step = simulation.currentStep
        self._frame_interval = self.interval * timestep_of(simulation)
        positions, box = _configuration(state)
        if len(self._frames) % RDF_EVERY == 0:
            self._count(positions, box)
        followed = positions[self._followed]
        if not self._frames:
            self._origin = followed
        self._frames.append((followed - self._origin).astype(np.float32))
        if len(self._frames) == self.window:
            self._measure(box)
            self._begin()

    def _begin(self) -> None:
        """Begin a window."""
        self._frames: list[np.ndarray] = []
        self._counted = 0.0

    def _count(self, positions, box) -> None:
        """Count the distances of a configuration."""
        if self._bins is None:
            r_max = min(structure.R_MAX, RDF_RANGE * structure.half_width(box))
        else:
            r_max = self._bins.edges[-1]
        found = structure.rdf(self._stretch(positions[None], box, slice(None)), r_max=r_max)
        self._bins = self._bins or found
        self._counted = self._counted + np.array([found.observed[0], found.expected[0]])

    def _measure(self, box) -> None:
        """Take a full window in, and write the figures."""
        interval = self._frame_interval
        length = self.window * interval
        self.reasons = {}
        self._counts.append(self._counted)
        observed, expected = np.array(self._counts).swapaxes(0, 1)
        self.rdf = structure.Rdf(self._bins.edges, self._bins.pairs, observed, expected)
        lags = dynamics.lag_grid(interval, length)
        within = None
        try:
            within = dynamics.fit_range(length, interval)
            lags = np.concatenate([lags, dynamics.fit_lags(interval, within)])
        except Unmeasurable as why:
            self.reasons["diffusion"] = str(why)
        stretch = self._stretch(np.array(self._frames), box, self._followed)
        one = dynamics.msd(stretch, lags)
        self._displacements.append(one)
        several = self._displacements
        self.msd = dynamics.Msd(
            one.lags,
            np.array([w.blocks.mean(0) for w in several]),
            np.mean([w.drift for w in several], axis=0),
            one.type_names,
            one.n_beads,
            len(several) * length,
        )
        if within is not None:
            self.diffusion = dynamics.diffusion(self.msd, within)
        if self.path is not None:
            partial = self.path.with_name(self.path.name + ".partial")
            partial.write_text(json.dumps(self._figures(), indent=1) + "\n")
            os.replace(partial, self.path)

    def _stretch(self, positions, box, beads) -> _Stretch:
        types = self._types[beads]
        masses = self.model.masses[types]
        boxes = np.broadcast_to(box, (len(positions), 3, 3))
        names = self.model.type_names
        return _Stretch(positions, boxes, masses, types, names, self._frame_interval)

    def _figures(self) -> dict:
        found = self.diffusion
        msd = [self.msd.lags, self.msd.values(), self.msd.stderr]
        return {
            "length_ps": self.msd.length,
            "windows": len(self._displacements),
            "diffusion_cm2_per_s": found and _number(found.value),
            "diffusion_stderr": found and _number(found.stderr),
            "diffusion_fit_ps": found and [_number(t) for t in found.fit_range],
            "msd_nm2": [[_number(x) for x in row] for row in zip(*msd)],
            "rdf": [
                {"types": list(pair), "r_nm": _list(self.rdf.r), "g": _list(g), "stderr": _list(e)}
                for pair, g, e in zip(self.rdf.pairs, self.rdf.g(), self.rdf.stderr)
            ],
            "reasons": self.reasons,
        }


@dataclass(frozen=True)
class _Stretch:
    """Frames in memory, as the functions of `analysis` read them from a `BeadTrajectory`."""

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

    def positions(self, frames=slice(None)) -> np.ndarray:
        return self.frames[frames].astype(np.float64)

    def boxes(self, frames=slice(None)) -> np.ndarray:
        return self.cells[frames]


def checked_interval(interval) -> int:
    """Time steps between reports."""
    if int(interval) != interval or interval < 1:
        raise ValueError(f"interval: found {interval}, expected a whole number of steps, 1 or more")
    return int(interval)


def next_report(simulation, interval: int, include: list[str]) -> dict:
    """What OpenMM is asked for, and in how many steps."""
    steps = interval - simulation.currentStep % interval
    return {"steps": steps, "periodic": False, "include": include}


def _configuration(state) -> tuple[np.ndarray, np.ndarray]:
    """Unwrapped positions [N, 3] and box [3, 3] (nm)."""
    positions = state.getPositions(asNumpy=True)._value
    return positions, state.getPeriodicBoxVectors(asNumpy=True)._value


def timestep_of(simulation) -> float:
    """(ps)"""
    return simulation.integrator.getStepSize().value_in_unit(unit.picosecond)


def _number(x) -> float | None:
    """Seven digits; None where there is no number."""
    return float(f"{x:.7g}") if np.isfinite(x) else None


def _list(values) -> list[float | None]:
    return [_number(x) for x in values]
