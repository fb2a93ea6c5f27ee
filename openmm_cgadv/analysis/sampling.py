"""Frames, lags and beads that averages are taken over."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from .blocks import Unmeasurable
from .frames import Frames

READ_BYTES = 1 << 23
"""Size of the positions that are held in RAM at once."""

LAG_SHARE = 1 / 10
"""Longest lag of a correlation, over the length of the trajectory."""

MAX_BEADS = 4000
"""Number of beads above which the motion of some beads stands for that of all."""


def frames_at_once(n_beads: int) -> int:
    """Return the number of frames whose positions are held in RAM at once."""
    return max(READ_BYTES // (24 * n_beads), 1)


def sampled_beads(types: np.ndarray) -> np.ndarray:
    """Return the indices of the beads whose motion is measured.

    These are all beads, or every n-th bead of each type of a system of more than `MAX_BEADS`.
    """
    types = np.asarray(types)
    apart = -(-len(types) // MAX_BEADS)
    return np.sort(
        np.concatenate([np.flatnonzero(types == kind)[::apart] for kind in np.unique(types)])
    )


def chunks(trajectory: Frames, start: int, stop: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the number of the first frame and positions [n, N, 3], nm, of successive stretches."""
    size = frames_at_once(trajectory.n_beads)
    for first in range(start, stop, size):
        yield first, trajectory.positions(slice(first, min(first + size, stop)))


def lag_steps(interval: float, n_frames: int, lags: np.ndarray | Sequence[float]) -> np.ndarray:
    """Return the lags [n] in frames that are at least one frame and at most `LAG_SHARE` of the trajectory.

    Parameters
    ----------
    interval : float
        Time between frames, ps.
    n_frames : int
    lags : sequence of float
        ps.

    Raises
    ------
    Unmeasurable
        There is no such lag.
    """
    steps = np.unique(np.rint(np.asarray(lags) / interval).astype(int))
    steps = steps[(steps > 0) & (steps <= n_frames * LAG_SHARE)]
    if not len(steps):
        raise Unmeasurable(
            f"no lag of {', '.join(f'{t:g}' for t in lags)} ps is between a frame "
            f"and a tenth of the trajectory, {interval:g} and "
            f"{max(n_frames, 0) * interval * LAG_SHARE:.3g} ps"
        )
    return steps


def mean_box(trajectory: Frames, start: int, stop: int) -> np.ndarray:
    """Return the mean box [3, 3], nm, over at most 1000 frames of a range."""
    return trajectory.boxes(slice(start, stop, max(-(-(stop - start) // 1000), 1))).mean(0)
