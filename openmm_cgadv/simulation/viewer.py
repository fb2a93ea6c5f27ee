"""Trajectories for viewers, DCD or XTC, with positions wrapped into the box."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import openmm
from openmm import app, unit

from ..errors import InputError

FORMATS = ("dcd", "xtc")
"""Formats of the trajectory for viewers."""


class ViewerTrajectory:
    """A DCD or XTC file that can be truncated to its state at a checkpoint; a context manager.

    Parameters
    ----------
    path : Path
        The suffix, ``.dcd`` or ``.xtc``, selects the format.
    topology : openmm.app.Topology
    timestep : float
        (ps)
    interval : int
        Time steps between frames.
    frames, size : int
        Number of frames and bytes of an existing file to keep.

    Raises
    ------
    InputError
        The file is missing or shorter than `size`.
    """

    def __init__(
        self,
        path: Path,
        topology: app.Topology,
        timestep: float,
        interval: int,
        frames: int = 0,
        size: int = 0,
    ) -> None:
        self.path = path
        self._file = None
        if not frames:
            path.unlink(missing_ok=True)
        elif not path.exists() or path.stat().st_size < size:
            raise InputError(
                f"{path}: found fewer than the {size} bytes that it had at the last checkpoint: "
                f"delete {path.parent}, and the run starts again"
            )
        else:
            os.truncate(path, size)
        more = (topology, timestep * unit.picosecond, interval, interval, frames > 0)
        if path.suffix == ".xtc":
            self._out = app.XTCFile(str(path), *more)
            return
        self._file = open(path, "r+b" if frames else "w+b")
        if frames:
            # The header still counts the frames that were truncated.
            self._file.seek(8)
            self._file.write(struct.pack("<i", frames))
        self._out = app.DCDFile(self._file, *more)

    def append(self, positions: np.ndarray, box: np.ndarray) -> None:
        """Write a frame, positions [N, 3] and box [3, 3] (nm)."""
        vectors = [openmm.Vec3(*row) for row in box] * unit.nanometer
        self._out.writeModel(positions * unit.nanometer, periodicBoxVectors=vectors)

    @property
    def size(self) -> int:
        """Size of the file (bytes)."""
        return self.path.stat().st_size if self.path.exists() else 0

    def __enter__(self) -> ViewerTrajectory:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._file is not None:
            self._file.close()


def wrapped(positions: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Return positions [N, 3] moved by whole box vectors into the cell at the origin (nm)."""
    return positions - np.floor(positions @ np.linalg.inv(box)) @ box
