"""Kinetic temperature."""

from __future__ import annotations

import numpy as np

from ..data.trajectory import BeadTrajectory
from ..units import KB
from .blocks import Unmeasurable, block_numbers, standard_error
from .sampling import frames_at_once


def temperature(
    trajectory: BeadTrajectory, *, start: int = 0, stop: int | None = None, max_frames: int = 20_000
) -> tuple[float, float]:
    """Compute the kinetic temperature and its standard error, K, from stored velocities.

    ``T = sum m |v - v_com|^2 / (3 (N - 1) kB)``: relative to the centre of mass, so that it holds
    whether or not that is at rest.

    Raises
    ------
    Unmeasurable
        The trajectory holds no velocities, or a single bead.
    """
    if not trajectory.has_velocities:
        raise Unmeasurable("the trajectory holds no velocities")
    if trajectory.n_beads < 2:
        raise Unmeasurable("one bead alone has no motion relative to its centre of mass")
    stop = trajectory.n_frames if stop is None else min(stop, trajectory.n_frames)
    step = max(-(-(stop - start) // max_frames), 1)
    masses = np.asarray(trajectory.masses)
    energies = []
    batch = step * frames_at_once(trajectory.n_beads)
    for first in range(start, stop, batch):
        v = trajectory.velocities(slice(first, min(first + batch, stop), step))
        v -= (masses / masses.sum() @ v)[:, None]
        v *= v
        energies.append((masses @ v).sum(1))
    values = np.concatenate(energies or [np.zeros(0)]) / (3 * (trajectory.n_beads - 1) * KB)
    if not len(values):
        raise Unmeasurable("the trajectory holds no frame")
    number = block_numbers(len(values))
    means = np.bincount(number, values) / np.bincount(number)
    return float(values.mean()), float(standard_error(means))
