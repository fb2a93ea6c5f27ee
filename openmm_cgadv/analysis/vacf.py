"""Velocity autocorrelation functions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..data.trajectory import BeadTrajectory
from .blocks import N_BLOCKS, Blocks, Unmeasurable, block_numbers, jackknife
from .sampling import frames_at_once, sampled_beads

VACF_LENGTH = 2.0
VACF_LONGEST_INTERVAL = 0.1
VACF_ORIGINS = 25_000


@dataclass(frozen=True)
class Vacf:
    """Autocorrelation of the velocity averaged over `interval`, ``(x(t + d) - x(t))/d``.

    Attributes
    ----------
    lags : ndarray [n_lags]
        ps, from 0 in steps of `interval`.
    interval : float
        d, ps.
    blocks : ndarray [n_blocks, n_lags]
        Not normalised, nm^2/ps^2.
    """

    lags: np.ndarray
    interval: float
    blocks: np.ndarray

    @property
    def n_blocks(self) -> int:
        return len(self.blocks)

    def values(self, blocks: Blocks = slice(None)) -> np.ndarray:
        """Normalised to 1 at lag 0 [n_lags], from some blocks, all by default."""
        total = self.blocks[blocks].sum(0)
        return total / total[0]

    @property
    def stderr(self) -> np.ndarray:
        """Standard error of the normalised function [n_lags]."""
        return jackknife(self.values, self.n_blocks) * np.ones(len(self.lags))


def vacf(
    trajectory: BeadTrajectory,
    interval: float | None = None,
    *,
    start: int = 0,
    stop: int | None = None,
) -> Vacf:
    """Compute the velocity autocorrelation function up to 2 ps from positions alone.

    Parameters
    ----------
    trajectory : BeadTrajectory
    interval : float, optional
        Time over which velocities are averaged, ps: that between frames by default. Two functions
        can be compared only if it is the same.
    start, stop : int
        Range of frames.

    Raises
    ------
    Unmeasurable
        Frames are more than 0.1 ps apart, `interval` is no multiple of the time between frames, or
        the trajectory is shorter than 4 ps.
    """
    stop = trajectory.n_frames if stop is None else min(stop, trajectory.n_frames)
    interval = trajectory.frame_interval if interval is None else interval
    step = int(round(interval / trajectory.frame_interval))
    if step < 1 or abs(step * trajectory.frame_interval - interval) > 1e-6:
        raise Unmeasurable(
            f"velocities over {interval:g} ps can't be had from frames "
            f"{trajectory.frame_interval:g} ps apart"
        )
    if interval > VACF_LONGEST_INTERVAL + 1e-9:
        raise Unmeasurable(
            f"frames are {interval:g} ps apart; velocities need "
            f"{VACF_LONGEST_INTERVAL:g} ps or less"
        )
    n_lags = int(VACF_LENGTH / interval + 1e-6) + 1
    frames = range(start, stop, step)
    if len(frames) < 2 * n_lags:
        raise Unmeasurable(
            f"the velocity correlation needs {2 * VACF_LENGTH:g} ps of trajectory; "
            f"this one has {max(len(frames) - 1, 0) * interval:.3g} ps"
        )
    selection = sampled_beads(trajectory.types)
    width = min(frames_at_once(trajectory.n_beads), (len(frames) - n_lags) // N_BLOCKS)
    width = int(np.clip(width, n_lags, 10 * n_lags))
    firsts = np.arange(0, len(frames) - n_lags - width + 1, width)
    firsts = firsts[:: max(len(firsts) * width // VACF_ORIGINS, 1)]
    number = block_numbers(len(firsts))
    share = np.asarray(trajectory.masses) / np.sum(trajectory.masses)
    blocks = np.zeros((number[-1] + 1, n_lags))
    for block, first in zip(number, firsts):
        some = frames[first : first + width + n_lags]
        x = trajectory.positions(slice(some.start, some.stop, some.step))
        if trajectory.n_beads > 1:
            x -= (share @ x)[:, None]
        x = x[:, selection]
        v = (np.diff(x, axis=0) / interval).reshape(len(x) - 1, -1).astype(np.float32)
        blocks[block] += _lagged_products(v, width, n_lags) / (width * len(selection))
    blocks /= np.bincount(number)[:, None]
    # A rounded position ends one velocity and begins the next.
    errors = 3 * np.mean(trajectory.position_errors[trajectory.types[selection]] ** 2) / interval**2
    blocks[:, 0] -= 2 * errors
    blocks[:, 1] += errors
    return Vacf(interval * np.arange(n_lags), interval, blocks)


def _lagged_products(v: np.ndarray, n_origins: int, n_lags: int):
    """Return ``sum_t v(t).v(t + k)`` [n_lags] over the first origins of vectors v [T, n].

    Products of all pairs of times within some lags are a matrix product, and each diagonal holds one lag.
    """
    total = np.zeros(n_lags)
    for first in range(0, n_origins, n_lags):
        last = min(first + n_lags, n_origins)
        products = v[first:last] @ v[first : last + n_lags - 1].T
        row, column = products.strides
        shape, strides = (last - first, n_lags), (row + column, column)
        total += np.lib.stride_tricks.as_strided(products, shape, strides).sum(0)
    return total


def vacf_rms(
    curve: Vacf,
    reference: Vacf,
    blocks: Blocks = slice(None),
    reference_blocks: Blocks = slice(None),
) -> float:
    """Root mean square difference of two normalised velocity autocorrelations, lag 0 left out.

    Raises
    ------
    Unmeasurable
        Velocities were averaged over different intervals.
    """
    if len(curve.lags) != len(reference.lags) or abs(curve.interval - reference.interval) > 1e-6:
        raise Unmeasurable(
            f"velocities were averaged over {curve.interval:g} ps, those of the "
            f"reference over {reference.interval:g} ps"
        )
    difference = curve.values(blocks)[1:] - reference.values(reference_blocks)[1:]
    return float(np.sqrt(np.mean(difference**2)))
