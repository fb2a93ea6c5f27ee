"""Autocorrelations of the mass current at the lowest wave vectors of the box."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..data.trajectory import BeadTrajectory
from ..units import KB
from .blocks import Blocks, Unmeasurable, block_numbers, jackknife
from .sampling import LAG_SHARE, frames_at_once
from .wave_vectors import plane_waves, polarizations, wave_vectors

CURRENT_INTERVAL = 0.02
LONGEST_LAG = 20.0
SHORTEST_LAG = 0.5


@dataclass(frozen=True)
class Currents:
    """Autocorrelation of the mass current at the lowest wave vectors of the box.

    ``J(k, t) = sum_i m_i v_i(t) exp(-i k.r_i(t))``, its longitudinal and transverse components.

    Attributes
    ----------
    k : ndarray [n_k]
        Lengths of the wave vectors, 1/nm, increasing; vectors of equal length are averaged over.
    lags : ndarray [n_lags]
        ps, from 0.
    transverse, longitudinal : ndarray [n_blocks, n_k, n_lags]
        ``Re <J_a(0)* J_a(t)> / (kT sum_i m_i)`` of one component, by block of time origins; 1 at
        lag 0 in equilibrium.
    density : float
        Mean, dalton/nm^3.
    """

    k: np.ndarray
    lags: np.ndarray
    transverse: np.ndarray
    longitudinal: np.ndarray
    density: float

    @property
    def n_blocks(self) -> int:
        return len(self.transverse)

    def values(self, component: str, blocks: Blocks = slice(None)) -> np.ndarray:
        """``C(k, t)/C(k, 0)`` [n_k, n_lags] of "transverse" or "longitudinal" currents."""
        total = getattr(self, component)[blocks].sum(0)
        return total / total[:, :1]

    def stderr(self, component: str) -> np.ndarray:
        """Standard error [n_k, n_lags] of `values`."""
        return jackknife(lambda kept: self.values(component, kept), self.n_blocks) * np.ones(
            (len(self.k), len(self.lags))
        )


def currents(trajectory: BeadTrajectory, *, start: int = 0, stop: int | None = None) -> Currents:
    """Compute transverse and longitudinal current autocorrelations, in one pass over the file.

    Parameters
    ----------
    trajectory : BeadTrajectory
        With velocities.
    start, stop : int
        Range of frames.

    Raises
    ------
    Unmeasurable
        The trajectory holds no velocities, a single bead, or less than 5 ps.

    Notes
    -----
    J. P. Hansen and I. R. McDonald, Theory of Simple Liquids, section 7.4. Lags reach up to a
    tenth of the trajectory, 20 ps at most. Every frame is a time origin, or one every 20 fs where
    frames are closer. Velocities of leap-frog integrators belong to half a time step before the
    positions: the phase of a current is then off by k v dt/2, less than 0.01 for water at 10 fs.
    """
    if not trajectory.has_velocities:
        raise Unmeasurable("the trajectory holds no velocities")
    if trajectory.n_beads < 2:
        raise Unmeasurable("one bead alone has no collective motion")
    stop = trajectory.n_frames if stop is None else min(stop, trajectory.n_frames)
    stride = max(int(CURRENT_INTERVAL / trajectory.frame_interval + 1e-6), 1)
    interval = stride * trajectory.frame_interval
    n_frames = len(range(start, stop, stride))
    reach = int(min(LONGEST_LAG, n_frames * interval * LAG_SHARE) / interval + 1e-6)
    if reach < 2 or reach * interval < SHORTEST_LAG * (1 - 1e-6):
        raise Unmeasurable(
            f"current correlations need {SHORTEST_LAG / LAG_SHARE:g} ps and "
            f"{2 / LAG_SHARE:g} frames of trajectory; this one has "
            f"{max(n_frames - 1, 0) * interval:.3g} ps in {max(n_frames, 0)} frames"
        )
    box = trajectory.boxes(slice(start, stop, -(-(stop - start) // 1000))).mean(0)
    numbers, group = wave_vectors(box)
    k = numbers @ (2 * np.pi * np.linalg.inv(box)).T
    axes = polarizations(k)
    masses = np.asarray(trajectory.masses)
    scale = 1 / np.sqrt(masses.sum() * KB * trajectory.temperature)
    lengths = np.bincount(group, np.linalg.norm(k, axis=1)) / np.bincount(group)
    series = _Correlation(n_frames, reach, group)
    size = frames_at_once(trajectory.n_beads) * stride
    for first in range(start, stop, size):
        part = slice(first, min(first + size, stop), stride)
        s = trajectory.positions(part) @ np.linalg.inv(trajectory.boxes(part))
        momenta = trajectory.velocities(part) * (masses[:, None] * scale)
        current = plane_waves(s, numbers) @ momenta.astype(np.complex64)
        series.add(np.einsum("tkc,kdc->tkd", current, axes, optimize=True))
    found = series.means()
    return Currents(
        lengths,
        interval * np.arange(reach + 1),
        found[..., 1],
        found[..., 0],
        masses.sum() / abs(np.linalg.det(box)),
    )


class _Correlation:
    """Autocorrelations of currents [n, n_k, 3] by group of wave vectors, component (along, across)
    and block of time origins, summed while frames come in."""

    def __init__(self, n_frames: int, reach: int, group: np.ndarray):
        self.reach = reach
        self.group = group
        self.block = block_numbers(n_frames - reach)
        shape = (self.block[-1] + 1, group[-1] + 1, reach + 1, 2)
        self.sums = np.zeros(shape)
        self.waiting: list[np.ndarray] = []
        self.n_waiting = self.done = 0

    def add(self, current: np.ndarray):
        self.waiting.append(current)
        self.n_waiting += len(current)
        if self.n_waiting > 3 * self.reach:
            self._flush()

    def _flush(self):
        stretch = np.concatenate(self.waiting)
        n = len(stretch) - self.reach
        blocks = self.block[self.done : self.done + n]
        for b in np.unique(blocks):
            first, last = np.searchsorted(blocks, [b, b + 1])
            products = self._correlate(stretch[first : last + self.reach], last - first)
            np.add.at(self.sums[b], self.group, products)
        self.waiting, self.n_waiting = [stretch[n:]], self.reach
        self.done += n

    def _correlate(self, stretch: np.ndarray, n: int):
        """Sums over the first n frames [n_k, reach + 1, 2] of products with those up to `reach`
        later."""
        size = 1 << int(np.ceil(np.log2(len(stretch))))
        late = np.fft.fft(stretch, size, axis=0)
        early = np.fft.fft(stretch[:n], size, axis=0)
        products = np.fft.ifft(early.conj() * late, axis=0)[: self.reach + 1].real
        return np.stack([products[..., 0], products[..., 1:].mean(-1)], -1).transpose(1, 0, 2)

    def means(self):
        """[n_blocks, n_groups, reach + 1, 2]"""
        if self.n_waiting > self.reach:
            self._flush()
        share = np.bincount(self.block)[:, None] * np.bincount(self.group)
        return self.sums / share[..., None, None]
