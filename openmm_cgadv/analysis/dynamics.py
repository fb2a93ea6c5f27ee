"""Motion of beads: mean squared displacement, diffusion, velocity correlation, temperature.

Everything but the temperature comes from positions alone, by one definition for all-atom and
coarse-grained trajectories: integrators store velocities at different points of their step.

Displacements and velocities are those relative to the centre of mass of all beads. An all-atom run
holds it at rest, or lets it drift with whatever momentum it started with; a model with friction on
each bead lets it diffuse with kT/(N m friction), which at low friction is no small part of the
diffusion of a bead. Neither is motion of the beads among each other, which alone does not depend on
the size of the system. `Msd.drift_share` tells how much was left out.
"""
from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..units import KB
from .blocks import (N_BLOCKS, Unmeasurable, block_numbers, halves, jackknife,
                     overlap_factor, standard_error)

LONGEST_SHARE = 1 / 5
CM2_PER_S = 1e-2
FIT_START = 2.0
FIT_POINTS = 10
ORIGINS_A_LAG = 20
VACF_LENGTH = 2.0
VACF_LONGEST_INTERVAL = 0.1
VACF_ORIGINS = 25_000
MAX_BEADS = 4000
READ_BYTES = 1 << 23


@dataclass(frozen=True)
class Msd:
    """Mean squared displacements over lags, averaged over beads and time origins.

    Attributes
    ----------
    lags : ndarray [n_lags]
        ps, increasing.
    blocks : ndarray [n_blocks, n_types, n_lags]
        nm^2, by block of time origins and bead type.
    drift : ndarray [n_lags]
        That of the centre of mass, nm^2, which the others are relative to.
    type_names : tuple of str
        The types present.
    n_beads : ndarray [n_types]
    length : float
        Of the trajectory, ps.
    """

    lags: np.ndarray
    blocks: np.ndarray
    drift: np.ndarray
    type_names: tuple[str, ...]
    n_beads: np.ndarray
    length: float

    @property
    def n_blocks(self) -> int:
        return len(self.blocks)

    def by_block(self, kind: str | None = None) -> np.ndarray:
        """[n_blocks, n_lags], nm^2, over all beads or those of one type."""
        if kind is not None:
            return self.blocks[:, self.type_names.index(kind)]
        return np.einsum("btl,t->bl", self.blocks, self.n_beads / self.n_beads.sum())

    def of(self, kind: str) -> Msd:
        """That of the beads of one type."""
        at = self.type_names.index(kind)
        return replace(self, blocks=self.blocks[:, [at]], type_names=(kind,), n_beads=self.n_beads[[at]])

    def values(self, blocks=slice(None)) -> np.ndarray:
        """[n_lags], nm^2, over all beads and some blocks, all by default."""
        return self.by_block()[blocks].mean(0)

    @property
    def overlap(self) -> np.ndarray:
        """Factors [n_lags] on the standard error for blocks that share displacements."""
        return np.array([overlap_factor(t, self.length - t, self.n_blocks) for t in self.lags])

    @property
    def stderr(self) -> np.ndarray:
        """Standard error [n_lags], nm^2."""
        return standard_error(self.by_block()) * self.overlap

    def drift_share(self, lag: float) -> float:
        """Mean squared displacement of the centre of mass over that of beads relative to it, at the
        lag nearest to `lag`."""
        k = int(np.argmin(np.abs(self.lags - lag)))
        return float(self.drift[k] / self.values()[k])


@dataclass(frozen=True)
class Diffusion:
    """Self-diffusion coefficient from the slope of the mean squared displacement.

    Attributes
    ----------
    value, stderr : float
        cm^2/s.
    by_type : dict
        ``{type name: (value, stderr)}``.
    fit_range : (float, float)
        Lags of the fit, ps.
    linearity, linearity_stderr : float
        Slope over the second half of the range divided by that over the first; 1 if diffusive.
    """

    value: float
    stderr: float
    by_type: dict[str, tuple[float, float]]
    fit_range: tuple[float, float]
    linearity: float
    linearity_stderr: float


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

    def values(self, blocks=slice(None)) -> np.ndarray:
        """Normalised to 1 at lag 0 [n_lags], from some blocks, all by default."""
        total = self.blocks[blocks].sum(0)
        return total / total[0]

    @property
    def stderr(self) -> np.ndarray:
        """Standard error of the normalised function [n_lags]."""
        return jackknife(self.values, self.n_blocks) * np.ones(len(self.lags))


def lag_grid(frame_interval: float, length: float) -> np.ndarray:
    """Lags 1, 2, 5, 10, 20, 50 ... x 10 fs, rounded to frames, up to a fifth of the trajectory.

    Parameters
    ----------
    frame_interval, length : float
        ps.

    Returns
    -------
    ndarray [n_lags], ps; the first is one frame.
    """
    longest = length * LONGEST_SHARE * (1 + 1e-9)
    decades = 10.0 ** np.arange(-2, max(np.ceil(np.log10(max(longest, 0.01))), -1) + 1)
    grid = np.outer(decades, [1, 2, 5]).ravel()
    frames = np.append(1, np.rint(grid / frame_interval).astype(int))
    frames = np.unique(frames[frames > 0])
    return frames[frames * frame_interval <= longest] * frame_interval


def fit_range(length: float, frame_interval: float = 0.0) -> tuple[float, float]:
    """Range of lags, ps, from which diffusion is measured.

    From 2 ps, or one frame if that is longer, to ten times as long, but no further than a tenth of
    the trajectory, or twice the start, or three frames more, where a tenth is shorter.

    Raises
    ------
    Unmeasurable
        The trajectory is shorter than four times the least end.
    """
    begin = max(FIT_START, frame_interval)
    least = max(2 * begin, begin + 3 * frame_interval)
    end = min(10 * begin, max(length / 10, least))
    if end > length / 4 * (1 + 1e-9):
        raise Unmeasurable(f"diffusion is fitted from {begin:g} to at least {least:g} ps, "
                           f"which needs {4 * least:g} ps of trajectory; this one has "
                           f"{length:.3g} ps")
    return begin, end


def fit_lags(frame_interval: float, within: tuple[float, float]) -> np.ndarray:
    """Evenly spaced lags, ps, whole numbers of frames, of a fit over a range."""
    frames = np.unique(np.rint(np.linspace(*within, FIT_POINTS) / frame_interval).astype(int))
    return frames[frames > 0] * frame_interval


def msd(trajectory, lags=None, *, start: int = 0, stop: int | None = None) -> Msd:
    """Mean squared displacements, in one pass over the file and in memory independent of its
    length.

    Parameters
    ----------
    trajectory : BeadTrajectory
    lags : array, optional
        ps; `lag_grid` by default. Rounded to frames.
    start, stop : int
        Range of frames.

    Raises
    ------
    Unmeasurable
        A lag is longer than the trajectory, or no lag is given.

    Notes
    -----
    What rounded coordinates add at every lag, six times the variance of a component, is taken out.

    Every frame is a time origin up to a lag of `ORIGINS_A_LAG` frames, about that many a lag
    beyond. Of more than `MAX_BEADS` beads some of each type are followed.
    """
    stop = trajectory.n_frames if stop is None else min(stop, trajectory.n_frames)
    interval = trajectory.frame_interval
    length = (stop - start - 1) * interval
    if lags is None:
        lags = lag_grid(interval, length)
    steps = np.unique(np.rint(np.asarray(lags, float) / interval).astype(int))
    steps = steps[steps > 0]
    if not len(steps):
        raise Unmeasurable("too few frames for a displacement: "
                           f"{max(stop - start, 0)}")
    if steps[-1] > stop - start - 1:
        raise Unmeasurable(f"a lag of {steps[-1] * interval:g} ps is longer than the trajectory "
                           f"of {length:g} ps")
    chosen = followed(trajectory.types)
    present, kind = np.unique(np.asarray(trajectory.types)[chosen], return_inverse=True)
    numbers = np.bincount(kind)
    averages = np.zeros((len(chosen) + 1, len(present) + 1))
    averages[np.arange(len(chosen)), kind] = 1 / numbers[kind]
    averages[-1, -1] = 1
    averages = np.repeat(averages, 3, axis=0)
    share = np.asarray(trajectory.masses) / np.sum(trajectory.masses)

    counters = [_Displacements(lag, stop - start) for lag in steps]
    for first, x in _chunks(trajectory, start, stop):
        centre = np.einsum("tnc,n->tc", x, share)[:, None]
        moving = x[:, chosen] - centre if trajectory.n_beads > 1 else x
        x = np.concatenate([moving, centre], axis=1).reshape(len(x), -1)
        for counter in counters:
            counter.add(first - start, x, averages)
    shortest = min(c.n_blocks for c in counters)
    blocks = np.stack([c.means(shortest) for c in counters], axis=-1)
    blocks[:, :-1] -= 6 * trajectory.position_errors[present][:, None] ** 2
    return Msd(steps * interval, blocks[:, :-1], blocks[:, -1].mean(0),
               tuple(trajectory.type_names[t] for t in present), numbers, length)


def followed(types) -> np.ndarray:
    """Indices of the beads whose motion is followed: all, or of more than `MAX_BEADS` the same part of each type."""
    types = np.asarray(types)
    apart = -(-len(types) // MAX_BEADS)
    return np.sort(np.concatenate([np.flatnonzero(types == kind)[::apart] for kind in np.unique(types)]))


class _Displacements:
    """Averages over beads of squared displacements over one lag (in frames), summed by block of
    time origins while frames [n, 3 N] come in."""

    def __init__(self, lag, n_frames):
        self.stride = max(d for d in range(1, max(lag // ORIGINS_A_LAG, 1) + 1) if lag % d == 0)
        self.reach = lag // self.stride
        self.n_origins = -(-n_frames // self.stride) - self.reach
        self.n_blocks = min(N_BLOCKS, self.n_origins)
        self.origins = np.diff(-(-self.n_origins * np.arange(self.n_blocks + 1) // self.n_blocks))
        self.sums = None
        self.done = 0
        self.tail = None

    def add(self, first, x, averages):
        x = x[-first % self.stride::self.stride]
        x = x if self.tail is None else np.concatenate([self.tail, x])
        self.tail = x[-self.reach:].copy()
        n = len(x) - self.reach
        if n <= 0:
            self.tail = x
            return
        d = x[self.reach:] - x[:-self.reach]
        d *= d
        values = d @ averages
        if self.sums is None:
            self.sums = np.zeros((self.n_blocks, values.shape[1]))
        block = np.arange(self.done, self.done + n) * self.n_blocks // self.n_origins
        np.add.at(self.sums, block, values)
        self.done += n

    def means(self, n_blocks):
        """Means [n_blocks, ...] over as many blocks, no more than there are sums."""
        starts = -(-self.n_blocks * np.arange(n_blocks) // n_blocks)
        return np.add.reduceat(self.sums, starts) / np.add.reduceat(self.origins, starts)[:, None]


def diffusion(displacements: Msd, within: tuple[float, float]) -> Diffusion:
    """Self-diffusion coefficient: a sixth of the slope of a straight line through the mean
    squared displacement.

    Parameters
    ----------
    displacements : Msd
        Its lags must hold at least four within the range.
    within : (float, float)
        Range of lags, ps.

    Raises
    ------
    Unmeasurable
        There are fewer lags in the range.

    Notes
    -----
    Einstein's relation; least squares, all lags weighted alike; no finite-size correction, which
    would be the same for two systems of the same size and viscosity. The standard error is that of
    the slopes of the blocks.
    """
    use = _within(displacements, within)
    lags = displacements.lags[use]
    if len(lags) < 4:
        raise Unmeasurable(f"only {len(lags)} lags lie between {within[0]:g} and {within[1]:g} ps, "
                           "too few for a fit")
    factor = displacements.overlap[use][-1]

    def fitted(kind=None):
        slopes = _slope(lags, displacements.by_block(kind)[:, use]) * CM2_PER_S / 6
        return float(slopes.mean()), float(standard_error(slopes) * factor)

    value, stderr = fitted()
    middle = len(lags) // 2
    curves = displacements.by_block()[:, use]
    early, late = (_slope(lags[part], curves[:, part])
                   for part in (slice(None, middle + 1), slice(middle, None)))
    linearity = late.mean() / early.mean()
    spread = standard_error(late - linearity * early) * factor / abs(early.mean())
    return Diffusion(value, stderr, {name: fitted(name) for name in displacements.type_names},
                     (float(lags[0]), float(lags[-1])), float(linearity), float(spread))


def slopes_of_halves(displacements: Msd, within: tuple[float, float]) -> tuple[float, float]:
    """Diffusion coefficients, cm^2/s, of displacements that start in either half of a trajectory.

    Raises
    ------
    Unmeasurable
        There is only one block.
    """
    use = _within(displacements, within)
    return tuple(float(_slope(displacements.lags[use], displacements.values(part)[use])
                       * CM2_PER_S / 6) for part in halves(displacements.n_blocks))


def vacf(trajectory, interval: float | None = None, *, start: int = 0,
         stop: int | None = None) -> Vacf:
    """Velocity autocorrelation up to 2 ps from positions alone.

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
        raise Unmeasurable(f"velocities over {interval:g} ps can't be had from frames "
                           f"{trajectory.frame_interval:g} ps apart")
    if interval > VACF_LONGEST_INTERVAL + 1e-9:
        raise Unmeasurable(f"frames are {interval:g} ps apart; velocities need "
                           f"{VACF_LONGEST_INTERVAL:g} ps or less")
    n_lags = int(VACF_LENGTH / interval + 1e-6) + 1
    frames = range(start, stop, step)
    if len(frames) < 2 * n_lags:
        raise Unmeasurable(f"the velocity correlation needs {2 * VACF_LENGTH:g} ps of trajectory; "
                           f"this one has {max(len(frames) - 1, 0) * interval:.3g} ps")
    selection = followed(trajectory.types)
    width = min(READ_BYTES // (24 * trajectory.n_beads), (len(frames) - n_lags) // N_BLOCKS)
    width = int(np.clip(width, n_lags, 10 * n_lags))
    firsts = np.arange(0, len(frames) - n_lags - width + 1, width)
    firsts = firsts[::max(len(firsts) * width // VACF_ORIGINS, 1)]
    number = block_numbers(len(firsts))
    share = np.asarray(trajectory.masses) / np.sum(trajectory.masses)
    blocks = np.zeros((number[-1] + 1, n_lags))
    for block, first in zip(number, firsts):
        some = frames[first:first + width + n_lags]
        x = trajectory.positions(slice(some.start, some.stop, some.step))
        if trajectory.n_beads > 1:
            x = x - np.einsum("tnc,n->tc", x, share)[:, None]
        x = x[:, selection]
        v = (np.diff(x, axis=0) / interval).reshape(len(x) - 1, -1).astype(np.float32)
        for k in range(n_lags):
            blocks[block, k] += np.vdot(v[:width], v[k:k + width]) / (width * len(selection))
    blocks /= np.bincount(number)[:, None]
    # A rounded position ends one velocity and begins the next.
    errors = 3 * np.mean(trajectory.position_errors[trajectory.types[selection]] ** 2) / interval ** 2
    blocks[:, 0] -= 2 * errors
    blocks[:, 1] += errors
    return Vacf(interval * np.arange(n_lags), interval, blocks)


def vacf_rms(curve: Vacf, reference: Vacf, blocks=slice(None),
             reference_blocks=slice(None)) -> float:
    """Root mean square difference of two normalised velocity autocorrelations, lag 0 left out.

    Raises
    ------
    Unmeasurable
        Velocities were averaged over different intervals.
    """
    if len(curve.lags) != len(reference.lags) or abs(curve.interval - reference.interval) > 1e-6:
        raise Unmeasurable(f"velocities were averaged over {curve.interval:g} ps, those of the "
                           f"reference over {reference.interval:g} ps")
    difference = curve.values(blocks)[1:] - reference.values(reference_blocks)[1:]
    return float(np.sqrt(np.mean(difference**2)))


def temperature(trajectory, *, start: int = 0, stop: int | None = None,
                max_frames: int = 20_000) -> tuple[float, float]:
    """Kinetic temperature and its standard error, K, from stored velocities.

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
    batch = step * max(READ_BYTES // (24 * trajectory.n_beads), 1)
    for first in range(start, stop, batch):
        v = trajectory.velocities(slice(first, min(first + batch, stop), step))
        v = v - np.einsum("tnc,n->tc", v, masses / masses.sum())[:, None]
        energies.append(np.einsum("tnc,tnc,n->t", v, v, masses))
    values = np.concatenate(energies or [np.zeros(0)]) / (3 * (trajectory.n_beads - 1) * KB)
    if not len(values):
        raise Unmeasurable("the trajectory holds no frame")
    number = block_numbers(len(values))
    means = np.bincount(number, values) / np.bincount(number)
    return float(values.mean()), float(standard_error(means))


def _chunks(trajectory, start, stop):
    """Yield the number of the first frame and positions [n, N, 3], nm, of successive stretches."""
    size = max(READ_BYTES // (24 * trajectory.n_beads), 1)
    for first in range(start, stop, size):
        yield first, trajectory.positions(slice(first, min(first + size, stop)))


def _within(displacements, limits):
    return ((displacements.lags >= limits[0] - 1e-6) & (displacements.lags <= limits[1] + 1e-6))


def _slope(lags, curves):
    """Least-squares slopes [n] of curves [n, n_lags] over lags."""
    centred = lags - lags.mean()
    return curves @ centred / (centred @ centred)
