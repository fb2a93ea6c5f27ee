"""Select a part of a CG trajectory: its first picoseconds, or every n-th frame."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import InputError
from ...files import replacing
from ...units import plain
from ..trajectory import BeadTrajectory, BeadWriter
from .arguments import fingerprint, is_finished
from .mean_box import BoxTolerances, fluctuation
from .steps import Steps, StepTolerances

if TYPE_CHECKING:
    from openmm.unit import Quantity

CHUNK = 256
"""Frames that are in RAM at once."""


def select_frames(
    path: str | os.PathLike,
    *,
    beads: str | os.PathLike,
    frame_interval: float | Quantity,
    temperature: float | Quantity,
    length: float | Quantity | None = None,
    progress: Callable[[int, int], None] | None = None,
    box: BoxTolerances = BoxTolerances(),
    steps: StepTolerances = StepTolerances(),
) -> Path:
    """Copy frames of a CG trajectory to another file, chunk by chunk.

    Parameters
    ----------
    path : path
        The H5MD file to write. A file that was made with the same arguments is not changed. Until
        the copy is complete, the file has ``.partial`` appended to its name.
    beads : path
        The H5MD file to read.
    frame_interval : float or Quantity
        Time between the frames to keep, a multiple of that of the file (ps).
    temperature : float or Quantity
        Temperature of the file, for a check (K).
    length : float or Quantity, optional
        Length of the selected part, from the start; everything by default (ps).
    progress : callable, optional
        Called with the number of frames done and their total.
    box : BoxTolerances
    steps : StepTolerances

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    InputError
        `beads` is missing, corrupt, unfinished or too short, its temperature or frame interval
        differs, or `path` was made with other arguments.
    OSError
        The file can't be written, for example because the disk is full.
    """
    from openmm import unit

    path, beads = Path(path), Path(beads)
    interval = float(plain(frame_interval, unit.picosecond))
    temperature = float(plain(temperature, unit.kelvin))
    length = None if length is None else float(plain(length, unit.picosecond))
    with BeadTrajectory.open(beads) as source:
        stride = check_frames(source, interval, temperature, length, box)
        arguments = dict(
            beads=str(beads), fingerprint=fingerprint(beads), frame_interval=interval, length=length
        )
        if path.exists() and is_finished(path, arguments):
            return path
        total = 1 + (source.n_frames - 1) // stride
        if length is not None:
            total = round(length / interval)
        with (
            replacing(path) as partial,
            BeadWriter(
                partial,
                temperature=temperature,
                frame_interval=interval,
                provenance={**source.provenance, "arguments": arguments},
                velocities=source.has_velocities,
                forces=source.has_forces,
                **source.topology.arrays(),
            ) as writer,
        ):
            displacements = Steps(source.masses, steps)
            for start in range(0, total, CHUNK):
                stop = min(start + CHUNK, total)
                frames = slice(start * stride, (stop - 1) * stride + 1, stride)
                positions = source.positions(frames)
                displacements.follow(beads, range(start * stride, stop * stride, stride), positions)
                writer.append(
                    positions,
                    source.boxes(frames),
                    source.velocities(frames) if source.has_velocities else None,
                    source.forces(frames) if source.has_forces else None,
                )
                if progress is not None:
                    progress(stop, total)
            # The file does not contain whether beads are centres of mass. Training checks velocities.
            displacements.check(
                interval,
                temperature,
                (source.provenance.get("rounding") or {}).get("step_nm"),
                centres_of_mass=False,
            )
            writer.finish()
    return path


def check_frames(
    source: BeadTrajectory,
    interval: float,
    temperature: float,
    length: float | None,
    box: BoxTolerances = BoxTolerances(),
) -> int:
    """Return the number of frames of a trajectory in one `interval` (ps).

    Raises
    ------
    InputError
        The trajectory is unfinished or too short, or its temperature, masses, frame interval or box
        do not fit.
    """
    if not source.complete:
        raise InputError(f"{source.path} is unfinished, expected a complete CG trajectory")
    try:
        source.topology.check_masses()
    except InputError as error:
        raise InputError(f"{source.path}: {error}") from None
    if abs(temperature - source.temperature) > 1e-3:
        raise InputError(
            f"temperature_K: found {temperature:g}, expected the {source.temperature:g} K of "
            f"{source.path}"
        )
    stride = round(interval / source.frame_interval)
    if stride < 1 or abs(interval - stride * source.frame_interval) > 1e-6 * interval:
        raise InputError(
            f"frame_interval_fs: found {1e3 * interval:g}, expected a multiple of the "
            f"{1e3 * source.frame_interval:g} fs of {source.path}"
        )
    changes = fluctuation(source.boxes())
    if changes > box.constant:
        raise InputError(
            f"{source.path}: found a box that changes by {100 * changes:.2g} %, expected a constant one, "
            "as unwrapped positions include the motion that the barostat causes: write the trajectory wrapped "
            "into the box and pass it as reference.trajectory, or run at constant volume"
        )
    found = source.n_frames * source.frame_interval
    if length is not None and length > found * (1 + 1e-9):
        raise InputError(
            f"length_ps: found {length:g}, expected at most the {found:g} ps of {source.path}"
        )
    return stride
