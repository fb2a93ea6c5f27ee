"""Part of a bead trajectory: its first picoseconds, or every n-th of its frames."""
from __future__ import annotations

import os
from pathlib import Path

from ..mapping import check_masses
from ..trajectory import BeadTrajectory, BeadWriter
from ..units import plain
from .arguments import fingerprint, is_finished
from .mean_box import CONSTANT, fluctuation
from .steps import Steps

CHUNK = 256


def select_frames(path, *, beads, frame_interval, temperature, length=None, progress=None) -> Path:
    """Copy frames of a bead trajectory into another, chunk by chunk.

    Parameters
    ----------
    path : path
        The H5MD file to write. One of the same arguments is left as it is. Until all is copied, the
        file has ``.partial`` appended to its name.
    beads : path
        The H5MD file to read.
    frame_interval : float or Quantity
        Time between the frames to keep, a multiple of that of the file (ps).
    temperature : float or Quantity
        That of the file, which is only held against it (K).
    length : float or Quantity, optional
        Length of what is kept, from the start; everything by default (ps).
    progress : callable, optional
        Called with the number of frames done and their total.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    ValueError
        `beads` is missing, damaged, unfinished or too short, its temperature is another or its
        frame interval does not fit, or `path` was made with other arguments.
    OSError
        The file can't be written, a full disk among the reasons.
    """
    from openmm import unit
    path, beads = Path(path), Path(beads)
    interval = float(plain(frame_interval, unit.picosecond))
    temperature = float(plain(temperature, unit.kelvin))
    length = None if length is None else float(plain(length, unit.picosecond))
    with BeadTrajectory.open(beads) as source:
        stride = check_frames(source, interval, temperature, length)
        arguments = dict(beads=str(beads), fingerprint=fingerprint(beads), frame_interval=interval,
                         length=length)
        if path.exists() and is_finished(path, arguments):
            return path
        total = 1 + (source.n_frames - 1) // stride
        if length is not None:
            total = round(length / interval)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(f"{path}.partial")
        partial.unlink(missing_ok=True)
        with BeadWriter(partial, source.masses, source.types, source.type_names, temperature,
                        interval, {**source.provenance, "arguments": arguments},
                        velocities=source.has_velocities, forces=source.has_forces) as writer:
            steps = Steps(source.masses)
            for start in range(0, total, CHUNK):
                stop = min(start + CHUNK, total)
                frames = slice(start * stride, (stop - 1) * stride + 1, stride)
                positions = source.positions(frames)
                steps.follow(beads, range(start * stride, stop * stride, stride), positions)
                writer.append(positions, source.boxes(frames),
                              source.velocities(frames) if source.has_velocities else None,
                              source.forces(frames) if source.has_forces else None)
                if progress is not None:
                    progress(stop, total)
            # Whose centres these are is not known, and a training sees whether they move as fast as they should.
            steps.check(interval, temperature, (source.provenance.get("rounding") or {}).get("step_nm"), centres_of_mass=False)
            writer.finish()
    os.replace(partial, path)
    return path


def check_frames(source: BeadTrajectory, interval, temperature, length) -> int:
    """How many frames of a trajectory one step of `interval` (ps) is.

    Raises
    ------
    ValueError
        With one sentence on what does not fit.
    """
    if not source.complete:
        raise ValueError(f"{source.path} is unfinished, expected a complete bead trajectory")
    try:
        check_masses(source.masses, source.types, source.type_names)
    except ValueError as error:
        raise ValueError(f"{source.path}: {error}") from None
    if abs(temperature - source.temperature) > 1e-3:
        raise ValueError(f"temperature_K is {temperature:g}, but {source.path} is one of "
                         f"{source.temperature:g} K")
    stride = round(interval / source.frame_interval)
    if stride < 1 or abs(interval - stride * source.frame_interval) > 1e-6 * interval:
        raise ValueError(f"frame_interval_fs is {1e3 * interval:g}, expected a multiple of "
                         f"{1e3 * source.frame_interval:g}, that of {source.path}")
    changes = fluctuation(source.boxes())
    if changes > CONSTANT:
        raise ValueError(f"{source.path}: the box changes by {100 * changes:.2g} %, expected one that is constant: "
                         "absolute positions hold what the barostat moved; write the trajectory wrapped into the box and "
                         "give it as reference.trajectory, or run at constant volume")
    found = source.n_frames * source.frame_interval
    if length is not None and length > found * (1 + 1e-9):
        raise ValueError(f"length_ps is {length:g}, but {source.path} is only {found:g} ps long")
    return stride
