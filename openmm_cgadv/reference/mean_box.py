"""Beads of a run at constant pressure, brought to its mean box.

A barostat scales the places of all molecules with the box. That is no motion of theirs: as fractions of the box's
vectors they stay where they are. So each frame is stretched to the mean box as a whole, fractions kept. Displacements
then hold the molecules' own motion alone, distances change by as much as an edge fluctuates, and production runs in the
mean box.
"""
from __future__ import annotations

import numpy as np

from ..trajectory import BeadTrajectory, BeadWriter

CONSTANT = 1e-5
"""Fluctuation of box vectors, as a share of the smallest width, that is none but rounding."""
LARGEST = 0.02
"""Largest fluctuation of a box that is still one of a liquid at constant pressure."""
CHUNK = 256


def fluctuation(boxes) -> float:
    """Largest standard deviation of a component of the box vectors [T, 3, 3] over its mean smallest width."""
    mean = boxes.mean(0)
    width = 1 / np.linalg.norm(np.linalg.inv(mean), axis=0).max()
    return float(boxes.std(0).max() / width)


def stretch_to_mean_box(source, path, boxes, provenance) -> None:
    """Copy a bead trajectory with every frame stretched to the mean of its boxes.

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
    with BeadTrajectory.open(source) as beads, BeadWriter(
            path, beads.masses, beads.types, beads.type_names, beads.temperature,
            beads.frame_interval, {**beads.provenance, **provenance},
            velocities=beads.has_velocities, forces=beads.has_forces) as writer:
        for first in range(0, beads.n_frames, CHUNK):
            part = slice(first, first + CHUNK)
            fields = {name: getattr(beads, name)(part) for name in ("velocities", "forces")
                      if getattr(beads, f"has_{name}")}
            stretched = beads.positions(part) @ np.linalg.inv(beads.boxes(part)) @ mean
            writer.append(stretched, mean, **fields)
        writer.finish()
