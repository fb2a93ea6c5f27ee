"""CG trajectories of runs at constant pressure, scaled to the mean box.

A barostat scales the positions of all molecules with the box; their fractional coordinates stay constant. Each frame is
therefore scaled to the mean box at constant fractional coordinates. Displacements then exclude the motion that the
barostat causes, distances change by as much as a box edge fluctuates, and production runs in the mean box.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..trajectory import BeadTrajectory, BeadWriter

CHUNK = 256
"""Frames that are in RAM at once."""


@dataclass(frozen=True)
class BoxTolerances:
    """Limits of the fluctuation of the box, see `fluctuation`."""

    constant: float = 1e-5
    """Largest fluctuation that counts as rounding of a constant box."""
    largest: float = 0.02
    """Largest fluctuation that is accepted: above, the box is not that of an equilibrated liquid at
    constant pressure."""


def fluctuation(boxes: np.ndarray) -> float:
    """Return the largest standard deviation of a component of the box vectors [T, 3, 3], relative to
    the smallest width of the mean box."""
    mean = boxes.mean(0)
    width = 1 / np.linalg.norm(np.linalg.inv(mean), axis=0).max()
    return float(boxes.std(0).max() / width)


def stretch_to_mean_box(
    source: str | os.PathLike,
    path: str | os.PathLike,
    boxes: np.ndarray,
    provenance: dict[str, Any],
) -> None:
    """Copy a CG trajectory with every frame scaled to the mean of its boxes.

    Parameters
    ----------
    source : path
        H5MD file of unwrapped positions.
    path : path
        The H5MD file to write, finished.
    boxes : array [T, 3, 3]
        Its boxes, nm.
    provenance : dict
        Added to that of `source`.

    Raises
    ------
    OSError
        The file can't be written.
    """
    mean = boxes.mean(0)
    with (
        BeadTrajectory.open(source) as beads,
        BeadWriter(
            path,
            temperature=beads.temperature,
            frame_interval=beads.frame_interval,
            provenance={**beads.provenance, **provenance},
            velocities=beads.has_velocities,
            forces=beads.has_forces,
            **beads.topology.arrays(),
        ) as writer,
    ):
        for first in range(0, beads.n_frames, CHUNK):
            part = slice(first, first + CHUNK)
            fields = {
                name: getattr(beads, name)(part)
                for name in ("velocities", "forces")
                if getattr(beads, f"has_{name}")
            }
            stretched = beads.positions(part) @ np.linalg.inv(beads.boxes(part)) @ mean
            writer.append(stretched, mean, **fields)
        writer.finish()
