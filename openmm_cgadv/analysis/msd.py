"""Motion of beads: mean squared displacement, diffusion, velocity correlation, temperature.

Everything but the temperature comes from positions alone, by one definition for all-atom and
coarse-grained trajectories: integrators store velocities at different points of their step.

Displacements and velocities are those relative to the centre of mass of all beads. An all-atom run
holds it at rest, or lets it drift with whatever momentum it started with; a model with friction on
each bead lets it diffuse with kT/(N m friction), which at low friction is no small part of the
diffusion of a bead. Neither is motion of the beads among each other, which alone does not depend on
the size of the system. `Msd.drift_share` gives the share of the centre of mass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from .blocks import N_BLOCKS, Blocks, Unmeasurable, overlap_factor, standard_error
from .frames import Frames
from .sampling import chunks, sampled_beads

LONGEST_SHARE = 1 / 5
ORIGINS_A_LAG = 20


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
        """Return the displacements of the beads of one type."""
        at = self.type_names.index(kind)
        return replace(
            self, blocks=self.blocks[:, [at]], type_names=(kind,), n_beads=self.n_beads[[at]]
        )

    def values(self, blocks: Blocks = slice(None)) -> np.ndarray:
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


def lag_grid(frame_interval: float, length: float) -> np.ndarray:
    """Return the lags 1, 2, 5, 10, 20, 50 ... x 10 fs, rounded to frames, up to a fifth of the trajectory.

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


def msd(
    trajectory: Frames,
    lags: np.ndarray | Sequence[float] | None = None,
    *,
    start: int = 0,
    stop: int | None = None,
) -> Msd:
    """Compute mean squared displacements, in one pass over the file and in RAM independent of its length.

    Parameters
    ----------
    trajectory : Frames
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
    The contribution of rounded coordinates, six times the variance of a component at every lag, is subtracted.

    Every frame is a time origin up to a lag of `ORIGINS_A_LAG` frames, about that many a lag
    beyond. Of more than `MAX_BEADS` beads every n-th bead of each type is used.
    """
    stop = trajectory.n_frames if stop is None else min(stop, trajectory.n_frames)
    interval = trajectory.frame_interval
    length = (stop - start - 1) * interval
    if lags is None:
        lags = lag_grid(interval, length)
    steps = np.unique(np.rint(np.asarray(lags, float) / interval).astype(int))
    steps = steps[steps > 0]
    if not len(steps):
        raise Unmeasurable(f"too few frames for a displacement: {max(stop - start, 0)}")
    if steps[-1] > stop - start - 1:
        raise Unmeasurable(
            f"a lag of {steps[-1] * interval:g} ps is longer than the trajectory of {length:g} ps"
        )
    chosen = sampled_beads(trajectory.types)
    chosen = chosen[np.argsort(np.asarray(trajectory.types)[chosen], kind="stable")]
    present, numbers = np.unique(np.asarray(trajectory.types)[chosen], return_counts=True)
    share = np.asarray(trajectory.masses) / np.sum(trajectory.masses)
    # The centre of mass comes last, as a type of its own.
    sizes = np.append(numbers, 1)
    bounds = 3 * np.append(0, np.cumsum(sizes))

    counters = [_Displacements(lag, stop - start, bounds) for lag in steps]
    origin = trajectory.positions([start])[0]
    for first, x in chunks(trajectory, start, stop):
        x -= origin
        centre = (share @ x)[:, None]
        moving = x[:, chosen] - centre if trajectory.n_beads > 1 else x
        x = np.concatenate([moving, centre], axis=1).reshape(len(x), -1)
        squares = _dot(x, x, bounds)
        for counter in counters:
            counter.add(first - start, x, squares)
    shortest = min(c.n_blocks for c in counters)
    blocks = np.stack([c.means(shortest) / sizes for c in counters], axis=-1)
    blocks[:, :-1] -= 6 * trajectory.position_errors[present][:, None] ** 2
    return Msd(
        steps * interval,
        blocks[:, :-1],
        blocks[:, -1].mean(0),
        tuple(trajectory.type_names[t] for t in present),
        numbers,
        length,
    )


def _dot(early: np.ndarray, late: np.ndarray, bounds: np.ndarray):
    """Return the sums [n, n_types] over the columns of each type of the products of two arrays [n, 3 N]."""
    return np.stack(
        [
            np.einsum("tn,tn->t", early[:, first:last], late[:, first:last])
            for first, last in zip(bounds[:-1], bounds[1:])
        ],
        axis=1,
    )


class _Displacements:
    """Sums of squared displacements over one lag (in frames) by type and by block of time origins.

    Frames are added in chunks of displacements x [n, 3 N] from a common origin, in order of types, and of the sums
    [n, n_types] of their squares. ``|x' - x|^2 = x'^2 + x^2 - 2 x'.x`` needs no array of displacements.
    """

    def __init__(self, lag: int, n_frames: int, bounds: np.ndarray):
        self.bounds = bounds
        self.stride = max(d for d in range(1, max(lag // ORIGINS_A_LAG, 1) + 1) if lag % d == 0)
        self.reach = lag // self.stride
        self.n_origins = -(-n_frames // self.stride) - self.reach
        self.n_blocks = min(N_BLOCKS, self.n_origins)
        self.origins = np.diff(-(-self.n_origins * np.arange(self.n_blocks + 1) // self.n_blocks))
        self.sums = np.zeros((self.n_blocks, len(bounds) - 1))
        self.done = 0
        self.tail = np.zeros((0, bounds[-1])), np.zeros((0, len(bounds) - 1))

    def add(self, first: int, x: np.ndarray, squares: np.ndarray):
        frames = slice(-first % self.stride, None, self.stride)
        x, squares = x[frames], squares[frames]
        x0, squares0 = self.tail
        # Time origins in the tail, then those in the chunk.
        lead = self.reach - len(x0)
        n = min(len(x0), max(len(x) - lead, 0))
        self._count(x0[:n], x[lead : lead + n], squares0[:n], squares[lead : lead + n])
        n = max(len(x) - self.reach, 0)
        self._count(x[:n], x[self.reach :][:n], squares[:n], squares[self.reach :][:n])
        kept = slice(len(x0) - min(max(self.reach - len(x), 0), len(x0)), None)
        self.tail = (
            np.concatenate([x0[kept], x[-self.reach :]]),
            np.concatenate([squares0[kept], squares[-self.reach :]]),
        )

    def _count(
        self,
        early: np.ndarray,
        late: np.ndarray,
        early_squares: np.ndarray,
        late_squares: np.ndarray,
    ):
        values = early_squares + late_squares - 2 * _dot(early, late, self.bounds)
        block = np.arange(self.done, self.done + len(values)) * self.n_blocks // self.n_origins
        np.add.at(self.sums, block, values)
        self.done += len(values)

    def means(self, n_blocks: int):
        """Return the means [n_blocks, n_types] over as many blocks, no more than there are sums."""
        starts = -(-self.n_blocks * np.arange(n_blocks) // n_blocks)
        return np.add.reduceat(self.sums, starts) / np.add.reduceat(self.origins, starts)[:, None]
