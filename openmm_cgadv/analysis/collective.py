"""Collective motion of beads: currents at the box's lowest wave vectors and the shear viscosity
that follows, displacements that neighbours share, and the van Hove function.

Of a liquid in which beads move by themselves, as with friction on each bead, the diffusion can be
right and all of this wrong.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicSpline

from ..units import KB
from .blocks import Unmeasurable, block_numbers, jackknife
from .structure import (DISTANCES, DISTANCES_A_FRAME, R_MAX, by_type, centres, half_width,
                        squared_distances)

CURRENT_INTERVAL = 0.02
LONGEST_LAG = 20.0
SHORTEST_LAG = 0.5
LAG_SHARE = 1 / 10
FARTHEST = 2.0
"""Longest wave vector that is looked at, over the shortest."""
SAME_LENGTH = 1.03
RESOLVED = 0.3
"""What must be left of a current one frame later for its decay to be followed."""
MPA_S = 1.66053906660e-3
"""Dalton/(nm ps) in mPa s."""
DISPLACEMENT_LAGS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
VAN_HOVE_LAGS = (0.2, 1.0, 5.0)
VAN_HOVE_BIN = 0.01
PAIR_ORIGINS = 400
VAN_HOVE_ORIGINS = 150
READ_BYTES = 1 << 23


@dataclass(frozen=True)
class Currents:
    """Autocorrelation of the mass current at the lowest wave vectors of the box.

    ``J(k, t) = sum_i m_i v_i(t) exp(-i k.r_i(t))``, its component along k and those across.

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

    def values(self, component: str, blocks=slice(None)) -> np.ndarray:
        """``C(k, t)/C(k, 0)`` [n_k, n_lags] of "transverse" or "longitudinal" currents."""
        total = getattr(self, component)[blocks].sum(0)
        return total / total[:, :1]

    def stderr(self, component: str) -> np.ndarray:
        """Standard error [n_k, n_lags] of `values`."""
        return (jackknife(lambda kept: self.values(component, kept), self.n_blocks)
                * np.ones((len(self.k), len(self.lags))))


@dataclass(frozen=True)
class ApparentViscosity:
    """Shear viscosity by wave vector, ``eta(k) = rho / (k^2 integral C_T(k, t)/C_T(k, 0) dt)``.

    Attributes
    ----------
    k : ndarray [n_k]
        1/nm.
    values, stderr : ndarray [n_k]
        mPa s.
    cutoffs : ndarray [n_k]
        Where the integrals end: between these times, ps, and twice as long.
    left_out : ndarray [n_blocks, n_k]
        The values with one block left out, for errors of what follows from them.
    cutoff_error : ndarray [n_k]
        The part of `stderr` that is owed to the cutoff.
    density : float
        Dalton/nm^3.
    """

    k: np.ndarray
    values: np.ndarray
    stderr: np.ndarray
    cutoffs: np.ndarray
    left_out: np.ndarray
    cutoff_error: np.ndarray
    density: float


@dataclass(frozen=True)
class SharedDisplacements:
    """Displacements that beads share with their neighbours and with a wave.

    Attributes
    ----------
    lags : ndarray [n_lags]
        ps.
    shells : tuple of str
        "first_shell", "second_shell" where there is one.
    pairs : ndarray [n_blocks, 2, n_shells, n_lags]
        Sums over pairs of the product of their displacements, nm^2, along their separation at
        lag 0 and (one component) across it.
    pair_norm : ndarray [n_blocks, n_shells, n_lags]
        As many times a third of the mean squared displacement, of both beads' types in the
        geometric mean.
    waves : ndarray [n_blocks, 2, n_lags]
        ``|sum_i m_i d_i exp(-i k.r_i)|^2`` of displacements d_i along the shortest wave vectors
        and (one component) across them.
    wave_norm : ndarray [n_blocks, n_lags]
        The same of beads that move by themselves.
    """

    lags: np.ndarray
    shells: tuple[str, ...]
    pairs: np.ndarray
    pair_norm: np.ndarray
    waves: np.ndarray
    wave_norm: np.ndarray

    @property
    def n_blocks(self) -> int:
        return len(self.pairs)

    def of_pairs(self, blocks=slice(None)) -> np.ndarray:
        """Correlation [2, n_shells, n_lags] of displacements, along the separation and across it:
        0 for beads that move by themselves, 1 if everything moves as one, nan for empty shells."""
        norm = self.pair_norm[blocks].sum(0)
        return self.pairs[blocks].sum(0) / np.where(norm > 0, norm, np.nan)

    def of_waves(self, blocks=slice(None)) -> np.ndarray:
        """Squared collective displacement [2, n_lags], along the shortest wave vectors and across
        them, over that of beads that move by themselves."""
        return self.waves[blocks].sum(0) / self.wave_norm[blocks].sum(0)

    @property
    def pairs_stderr(self) -> np.ndarray:
        """Standard error [2, n_shells, n_lags] of `of_pairs`."""
        return jackknife(self.of_pairs, self.n_blocks) * np.ones(self.pairs.shape[1:])

    @property
    def waves_stderr(self) -> np.ndarray:
        """Standard error [2, n_lags] of `of_waves`."""
        return jackknife(self.of_waves, self.n_blocks) * np.ones(self.waves.shape[1:])


@dataclass(frozen=True)
class VanHove:
    """Where beads are a time after one was, or another was, at the origin.

    Attributes
    ----------
    edges : ndarray [n_bins + 1]
        nm.
    lags : ndarray [n_lags]
        ps.
    pairs : tuple of (str, str)
        Type names of each pair.
    type_names : tuple of str
    observed : ndarray [n_blocks, n_lags, n_pairs, n_bins]
        Counts of distances from a bead's place to another bead's place a lag later.
    expected : ndarray [n_blocks, n_pairs, n_bins]
        What beads at random places would give, at any lag.
    travelled : ndarray [n_blocks, n_lags, n_types, n_bins]
        Counts of the distances that beads moved.
    n_travelled : ndarray [n_blocks, n_types]
        Of how many, those beyond the last bin included.
    """

    edges: np.ndarray
    lags: np.ndarray
    pairs: tuple[tuple[str, str], ...]
    type_names: tuple[str, ...]
    observed: np.ndarray
    expected: np.ndarray
    travelled: np.ndarray
    n_travelled: np.ndarray

    @property
    def r(self) -> np.ndarray:
        """Bin centres [n_bins], nm."""
        return (self.edges[1:] + self.edges[:-1]) / 2

    @property
    def n_blocks(self) -> int:
        return len(self.observed)

    def distinct(self, blocks=slice(None)) -> np.ndarray:
        """``G_d(r, t)`` over the density [n_lags, n_pairs, n_bins]: g(r) at lag 0, and 1 where
        beads know nothing of each other."""
        return self.observed[blocks].sum(0) / self.expected[blocks].sum(0)

    @property
    def distinct_stderr(self) -> np.ndarray:
        """Standard error of `distinct` [n_lags, n_pairs, n_bins]."""
        return jackknife(self.distinct, self.n_blocks) * np.ones(self.observed.shape[1:])

    def own(self, blocks=slice(None)) -> np.ndarray:
        """``4 pi r^2 G_s(r, t)`` [n_lags, n_types, n_bins], 1/nm: the distribution of the distance
        that a bead moves, of integral 1 over all distances."""
        number = self.n_travelled[blocks].sum(0)
        return self.travelled[blocks].sum(0) / (number[:, None] * np.diff(self.edges))

    @property
    def own_stderr(self) -> np.ndarray:
        """Standard error of `own` [n_lags, n_types, n_bins]."""
        return jackknife(self.own, self.n_blocks) * np.ones(self.travelled.shape[1:])


def wave_vectors(box) -> tuple[np.ndarray, np.ndarray]:
    """Shortest wave vectors that fit a box, one of each pair k and -k.

    Parameters
    ----------
    box : array [3, 3]
        Box vectors as rows, nm.

    Returns
    -------
    numbers : ndarray [n, 3] of int
        ``k.r = 2 pi numbers.s`` with s the fractional coordinates; those up to twice as long as the
        shortest, in order of length.
    group : ndarray [n] of int
        Equal for vectors of equal length (within 3 %): of a cubic box 0 three times, 1 six times,
        2 four times, 3 three times.
    """
    reciprocal = 2 * np.pi * np.linalg.inv(box)
    longest = FARTHEST * np.linalg.norm(reciprocal, axis=0).min()
    reach = np.floor(longest * np.linalg.norm(box, axis=1) / (2 * np.pi) + 1e-6).astype(int)
    numbers = np.stack(np.meshgrid(*[np.arange(-n, n + 1) for n in reach], indexing="ij"), -1)
    numbers = numbers.reshape(-1, 3)
    numbers = numbers[len(numbers) // 2 + 1:]
    length = np.linalg.norm(numbers @ reciprocal.T, axis=1)
    order = np.argsort(length, kind="stable")
    order = order[length[order] <= FARTHEST * length[order[0]] * (1 + 1e-3)]
    group, first = [], length[order[0]]
    for one in length[order]:
        if one > SAME_LENGTH * first:
            first = one
            group.append(group[-1] + 1)
        else:
            group.append(group[-1] if group else 0)
    return numbers[order], np.array(group)


def currents(trajectory, *, start: int = 0, stop: int | None = None) -> Currents:
    """Transverse and longitudinal current autocorrelations, in one pass over the file.

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
        raise Unmeasurable(f"current correlations need {SHORTEST_LAG / LAG_SHARE:g} ps and "
                           f"{2 / LAG_SHARE:g} frames of trajectory; this one has "
                           f"{max(n_frames - 1, 0) * interval:.3g} ps in {max(n_frames, 0)} frames")
    box = trajectory.boxes(slice(start, stop, -(-(stop - start) // 1000))).mean(0)
    numbers, group = wave_vectors(box)
    k = numbers @ (2 * np.pi * np.linalg.inv(box)).T
    axes = _along_and_across(k)
    masses = np.asarray(trajectory.masses)
    scale = 1 / np.sqrt(masses.sum() * KB * trajectory.temperature)
    lengths = np.bincount(group, np.linalg.norm(k, axis=1)) / np.bincount(group)
    series = _Correlation(n_frames, reach, group)
    size = max(READ_BYTES // (24 * trajectory.n_beads), 1) * stride
    for first in range(start, stop, size):
        part = slice(first, min(first + size, stop), stride)
        s = trajectory.positions(part) @ np.linalg.inv(trajectory.boxes(part))
        momenta = trajectory.velocities(part) * (masses[:, None] * scale)
        current = _waves(s, numbers) @ momenta.astype(np.complex64)
        series.add(np.einsum("tkc,kdc->tkd", current, axes, optimize=True))
    found = series.means()
    return Currents(lengths, interval * np.arange(reach + 1), found[..., 1], found[..., 0],
                    masses.sum() / abs(np.linalg.det(box)))


def _along_and_across(k):
    """Unit vectors [n_k, 3, 3] along each wave vector [n_k, 3] and two across it."""
    along = k / np.linalg.norm(k, axis=1, keepdims=True)
    helper = np.eye(3)[np.abs(along).argmin(1)]
    across = np.cross(along, helper)
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    return np.stack([along, across, np.cross(along, across)], 1).astype(np.float32)


def _waves(fraction, numbers):
    """``exp(-2 pi i numbers.s)`` [T, n_k, N], complex64, at fractional coordinates [T, N, 3]."""
    phase = (fraction - np.rint(fraction)).astype(np.float32) * np.float32(2 * np.pi)
    unit = np.empty(phase.shape, np.complex64)
    unit.real, unit.imag = np.cos(phase), -np.sin(phase)
    powers = []
    for c in range(3):
        base = np.ascontiguousarray(unit[..., c])
        known = {0: None, 1: base}
        for n in range(2, np.abs(numbers[:, c]).max(initial=0) + 1):
            known[n] = known[n - 1] * base
        powers.append(known)
    out = np.empty((len(fraction), len(numbers), fraction.shape[1]), np.complex64)
    for m, three in enumerate(numbers):
        factors = [powers[c][abs(n)] if n > 0 else powers[c][abs(n)].conj()
                   for c, n in enumerate(three) if n]
        wave = factors[0]
        for factor in factors[1:]:
            wave = wave * factor
        out[:, m] = wave
    return out


class _Correlation:
    """Autocorrelations of currents [n, n_k, 3] by group of wave vectors, component (along, across)
    and block of time origins, summed while frames come in."""

    def __init__(self, n_frames, reach, group):
        self.reach = reach
        self.group = group
        self.block = block_numbers(n_frames - reach)
        shape = (self.block[-1] + 1, group[-1] + 1, reach + 1, 2)
        self.sums = np.zeros(shape)
        self.waiting, self.n_waiting, self.done = [], 0, 0

    def add(self, current):
        self.waiting.append(current)
        self.n_waiting += len(current)
        if self.n_waiting > 3 * self.reach:
            self._flush()

    def _flush(self):
        stretch = np.concatenate(self.waiting)
        n = len(stretch) - self.reach
        blocks = self.block[self.done:self.done + n]
        for b in np.unique(blocks):
            first, last = np.searchsorted(blocks, [b, b + 1])
            products = self._correlate(stretch[first:last + self.reach], last - first)
            np.add.at(self.sums[b], self.group, products)
        self.waiting, self.n_waiting = [stretch[n:]], self.reach
        self.done += n

    def _correlate(self, stretch, n):
        """Sums over the first n frames [n_k, reach + 1, 2] of products with those up to `reach`
        later."""
        size = 1 << int(np.ceil(np.log2(len(stretch))))
        late = np.fft.fft(stretch, size, axis=0)
        early = np.fft.fft(stretch[:n], size, axis=0)
        products = np.fft.ifft(early.conj() * late, axis=0)[:self.reach + 1].real
        return np.stack([products[..., 0], products[..., 1:].mean(-1)], -1).transpose(1, 0, 2)

    def means(self):
        """[n_blocks, n_groups, reach + 1, 2]"""
        if self.n_waiting > self.reach:
            self._flush()
        share = np.bincount(self.block)[:, None] * np.bincount(self.group)
        return self.sums / share[..., None, None]


def apparent_viscosity(found: Currents) -> ApparentViscosity:
    """Shear viscosity at each wave vector from the decay of the transverse current.

    Raises
    ------
    Unmeasurable
        Frames are too far apart to follow the decay, or the trajectory is too short to see its end.

    Notes
    -----
    ``integral C_T dt = rho/(eta k^2)`` (B. J. Palmer, Phys. Rev. E 49, 359 (1994)), by a cubic
    spline through the normalised correlation. It has ended at the first time t from which to 2t
    its root mean square is that of its noise; the integral is the mean of the running one over
    that stretch. The error is that of a jackknife over blocks and, in quadrature, half of what the
    running integral still changes from t to 2t. Friction g on single beads adds rho g/k^2: that of
    a weak thermostat (0.1/ps) two per cent for water in a box of 2 nm, and more in a larger one.
    """
    c, noise = found.values("transverse"), found.stderr("transverse")
    if not np.isfinite(noise).all():
        raise Unmeasurable("the trajectory is too short for blocks of current correlations")
    for k, one in zip(found.k, c):
        if one[1] < RESOLVED:
            raise Unmeasurable(f"frames are {1e3 * found.lags[1]:g} fs apart, by when the "
                               f"transverse current at {k:.3g}/nm has fallen to {one[1]:.2f} of "
                               "its start: too long to follow its decay")
    ends = [decayed(*both) for both in zip(c, noise)]
    for k, one, end in zip(found.k, c, ends):
        if end is None:
            raise Unmeasurable(f"the transverse current at {k:.3g}/nm has not decayed to its noise "
                               f"within {found.lags[-1] / 2:.3g} ps; a longer trajectory shows "
                               "later times, up to a twentieth of it")
    factor = MPA_S * found.density / found.k**2

    def running(blocks=slice(None)):
        spline = CubicSpline(found.lags, found.values("transverse", blocks), axis=-1)
        return spline.antiderivative()(found.lags)

    def viscosities(blocks=slice(None)):
        integrals = [one[end:2 * end + 1].mean() for one, end in zip(running(blocks), ends)]
        return factor / np.array(integrals)

    values = viscosities()
    every = np.arange(found.n_blocks)
    left_out = np.array([viscosities(np.delete(every, i)) for i in every])
    spread = np.sqrt((found.n_blocks - 1) * left_out.var(axis=0))
    change = np.array([one[2 * end] - one[end] for one, end in zip(running(), ends)])
    cutoff_error = np.abs(change / 2 * values**2 / factor)
    return ApparentViscosity(found.k, values, np.hypot(spread, cutoff_error),
                             found.lags[ends], left_out, cutoff_error,
                             found.density)


def decayed(c, noise, doubt: float = 2.0):
    """Number of the first lag t from which to 2t a correlation's mean square is no larger than
    `doubt` times that of its noise; None if there is none."""
    square = np.concatenate([[0], np.cumsum(c**2)])
    chance = np.concatenate([[0], np.cumsum(noise**2)])
    first = np.arange(1, (len(c) - 1) // 2 + 1)
    ended = (square[2 * first + 1] - square[first]
             <= doubt * (chance[2 * first + 1] - chance[first]))
    return int(first[np.argmax(ended)]) if ended.any() else None


def damping(apparent: ApparentViscosity) -> tuple[float, float]:
    """Rate at which shear waves decay however long they are, and its standard error, 1/ps.

    Zero where momentum is conserved; the effective friction where that acts on single beads. It is
    the intercept of a line through the rates ``eta(k) k^2/rho`` over k^2, weighted by their errors.
    A viscosity that falls with k bends the line and adds to it, up to a fifth of the lowest rate.
    """
    rates = apparent.k**2 / (MPA_S * apparent.density)
    return _limit(apparent, lambda eta: eta * rates, rates)


def viscosity(apparent: ApparentViscosity) -> tuple[float, float]:
    """Shear viscosity for k to 0 and its standard error, mPa s.

    Raises
    ------
    Unmeasurable
        It has no limit, because `damping` is more than half, two standard errors beyond doubt, of
        the rate at which the longest wave decays; or it is lost in its error.

    Notes
    -----
    ``eta(k) = eta/(1 + a k^2)``, a least-squares line through 1/eta(k) over k^2 weighted by the
    errors. The error adds, in quadrature, the difference from the other usual form,
    ``eta (1 - a k^2)`` (Palmer, 1994; B. Hess, J. Chem. Phys. 116, 209 (2002)), and the errors of
    the cutoffs.
    """
    eta, k = apparent.values, apparent.k
    rate, rate_error = damping(apparent)
    if rate - 2 * rate_error > eta[0] * k[0]**2 / (2 * MPA_S * apparent.density):
        raise Unmeasurable(
            f"shear waves of any length are damped at {rate:.3g}/ps, as by friction on single "
            "beads, so that the viscosity grows with the box and has no limit; it is "
            f"{eta[0]:.3g} mPa s for the longest wave in this one, {2 * np.pi / k[0]:.3g} nm")
    fluidity, error = _limit(apparent, lambda eta: 1 / eta, -1 / eta**2)
    other, _ = _limit(apparent, lambda eta: eta, np.ones_like(eta))
    value, error = 1 / fluidity, np.hypot(error / fluidity**2, 1 / fluidity - other)
    if not 0 < 2 * error < value:
        raise Unmeasurable("the trajectory is too short for a viscosity: its error is above half "
                           "of it")
    return value, float(error)


def _limit(apparent, function, slope):
    """Intercept of a weighted line through a function of the viscosities over k^2, and its error;
    `slope` is the function's derivative."""
    lines = np.stack([np.ones_like(apparent.k), apparent.k**2], 1)
    weight = 1 / (np.abs(slope) * apparent.stderr)
    share = np.linalg.pinv(lines * weight[:, None])[0] * weight
    by_block = function(apparent.left_out) @ share
    spread = np.sqrt((len(by_block) - 1) * by_block.var())
    cutoff = np.linalg.norm(share * slope * apparent.cutoff_error)
    return float(share @ function(apparent.values)), float(np.hypot(spread, cutoff))


def shared_displacements(trajectory, radii, *, start: int = 0,
                         stop: int | None = None) -> SharedDisplacements:
    """Displacements that beads share with neighbours, and with shear and compression waves, from
    positions alone.

    Parameters
    ----------
    trajectory : BeadTrajectory
    radii : sequence of dict
        Where the first shell ends, and the second: ``{(name, name): nm}`` for each.
    start, stop : int
        Range of frames.

    Raises
    ------
    Unmeasurable
        The trajectory holds less than ten frames, or a shell reaches beyond half the box.

    Notes
    -----
    Neighbours are looked for once at each of `PAIR_ORIGINS` time origins, around all beads of a
    small system; around some in turn, at a quarter of the origins, of a large one. Lags are those
    of `DISPLACEMENT_LAGS` up to a tenth of the trajectory. The drift of the whole system counts.
    """
    stop = trajectory.n_frames if stop is None else min(stop, trajectory.n_frames)
    if trajectory.n_beads < 2:
        raise Unmeasurable("one bead alone has no collective motion")
    steps = _steps(trajectory.frame_interval, stop - start, DISPLACEMENT_LAGS)
    origins = _origins(trajectory.n_beads, start, stop, steps, PAIR_ORIGINS)
    types, masses = np.asarray(trajectory.types), np.asarray(trajectory.masses)
    _, kind = np.unique(types, return_inverse=True)
    number = np.bincount(kind)
    mean_of = np.eye(len(number))[kind] / number
    weight = np.bincount(kind, masses**2)
    limits = _limits(trajectory, radii)
    boxes = trajectory.boxes(origins)
    limit = min(half_width(box) for box in boxes)
    if max(max(ends.values()) for ends in radii) > limit + 1e-6:
        raise Unmeasurable(f"a shell of {max(max(e.values()) for e in radii):.3f} nm is above "
                           "half the box")
    numbers, group = wave_vectors(boxes.mean(0))
    numbers = numbers[group == 0]
    axes = _along_and_across(numbers @ (2 * np.pi * np.linalg.inv(boxes.mean(0))).T)
    n_shells, n_lags = len(radii), len(steps)
    block = block_numbers(len(origins))
    shape = (block[-1] + 1, 2, n_shells, n_lags)
    pairs, pair_norm = np.zeros(shape), np.zeros((shape[0], n_shells, n_lags))
    waves, wave_norm = np.zeros((shape[0], 2, n_lags)), np.zeros((shape[0], n_lags))
    for n, (b, origin, box) in enumerate(zip(block, origins, boxes)):
        x = trajectory.positions([origin, *(origin + steps)])
        s = x[0] @ np.linalg.inv(box)
        d = (x[1:] - x[0]).astype(np.float32)
        third = np.einsum("lnc,lnc,nt->tl", d, d, mean_of, optimize=True) / 3

        fraction = (s - np.floor(s)).astype(np.float32)
        rows = centres(len(s), n)
        r2, sides = squared_distances(fraction[rows], fraction, box)
        r2[np.arange(len(rows)), rows] = np.inf
        i, j = np.nonzero(r2 < limits[-1].max())
        separation = np.stack([side[i, j] for side in sides], -1)
        r2, i = r2[i, j], rows[i]
        shell = (r2 >= limits[:, types[i], types[j]]).sum(0)
        unit = separation / np.sqrt(r2)[:, None]
        first, second = d[:, i], d[:, j]
        along = np.einsum("lpc,pc->lp", first, unit) * np.einsum("lpc,pc->lp", second, unit)
        across = (np.einsum("lpc,lpc->lp", first, second) - along) / 2
        within = (shell == np.arange(n_shells)[:, None]).astype(np.float32)
        pairs[b] += np.stack([within @ along.T, within @ across.T])
        both = kind[i] * len(number) + kind[j]
        third_of_both = np.sqrt(third[:, None] * third[None]).reshape(-1, n_lags)
        for k in range(n_shells):
            counts = np.bincount(both[shell == k], minlength=len(third_of_both))
            pair_norm[b, k] += counts @ third_of_both

        wave = _waves(s[None], numbers)[0] * masses.astype(np.float32)
        amplitudes = np.einsum("kn,lnc,kdc->lkd", wave, d, axes, optimize=True)
        squares = (amplitudes.real**2 + amplitudes.imag**2).mean(1)
        waves[b] += np.stack([squares[:, 0], squares[:, 1:].mean(1)])
        wave_norm[b] += weight @ third
    return SharedDisplacements(steps * trajectory.frame_interval,
                               ("first_shell", "second_shell")[:n_shells], pairs, pair_norm,
                               waves, wave_norm)


def van_hove(trajectory, lags=VAN_HOVE_LAGS, *, r_max: float | None = None, start: int = 0,
             stop: int | None = None) -> VanHove:
    """Distinct and self part of the van Hove function, from positions alone.

    Parameters
    ----------
    trajectory : BeadTrajectory
    lags : sequence of float
        ps; rounded to frames, and those beyond a tenth of the trajectory are left out.
    r_max : float, optional
        nm; the smaller of 1 nm and half the smallest box width by default.
    start, stop : int
        Range of frames.

    Raises
    ------
    Unmeasurable
        The trajectory holds less than ten frames, one bead, or is narrower than ``2 r_max``.

    Notes
    -----
    L. van Hove, Phys. Rev. 95, 249 (1954). `VAN_HOVE_ORIGINS` time origins, as for
    `shared_displacements`.
    """
    stop = trajectory.n_frames if stop is None else min(stop, trajectory.n_frames)
    steps = _steps(trajectory.frame_interval, stop - start, lags)
    origins = _origins(trajectory.n_beads, start, stop, steps, VAN_HOVE_ORIGINS)
    order, bounds, names = by_type(trajectory)
    sizes = np.diff(bounds)
    kinds = [(a, b) for a in range(len(names)) for b in range(a, len(names))
             if a != b or sizes[a] > 1]
    if not kinds:
        raise Unmeasurable("one bead alone makes no pair")
    boxes = trajectory.boxes(origins)
    limit = min(half_width(box) for box in boxes)
    r_max = min(R_MAX, limit) if r_max is None else r_max
    if r_max > limit + 1e-6:
        raise Unmeasurable(f"distances up to {r_max:g} nm need a box at least {2 * r_max:g} nm "
                           f"wide, this one is {2 * limit:.3f} nm wide")
    n_bins = int(r_max / VAN_HOVE_BIN + 1e-6)
    edges = VAN_HOVE_BIN * np.arange(n_bins + 1)
    shells = 4 / 3 * np.pi * np.diff(edges**3)
    block = block_numbers(len(origins))
    observed = np.zeros((block[-1] + 1, len(steps), len(kinds), n_bins))
    expected = np.zeros((block[-1] + 1, len(kinds), n_bins))
    travelled = np.zeros((block[-1] + 1, len(steps), len(names), n_bins))
    n_travelled = np.zeros((block[-1] + 1, len(names)))

    def histogram(r):
        bins = np.minimum(r * np.float32(1 / VAN_HOVE_BIN), np.float32(n_bins)).astype(np.int32)
        return np.bincount(bins.ravel(), minlength=n_bins + 1)[:n_bins]

    for n, (b, origin, box) in enumerate(zip(block, origins, boxes)):
        x = trajectory.positions([origin, *(origin + steps)])[:, order]
        s = x @ np.linalg.inv(box)
        s = (s - np.floor(s)).astype(np.float32)
        rows = centres(len(order), n)
        cut = np.searchsorted(rows, bounds)
        density = shells / abs(np.linalg.det(box))
        n_travelled[b] += sizes
        for p, (one, other) in enumerate(kinds):
            some = cut[one + 1] - cut[one]
            expected[b, p] += some * (sizes[other] - (one == other)) * density
        for lag in range(len(steps)):
            moved = np.linalg.norm(x[1 + lag] - x[0], axis=1)
            r2, _ = squared_distances(s[0, rows], s[1 + lag], box)
            r2[np.arange(len(rows)), rows] = np.inf
            r = np.sqrt(r2)
            for t in range(len(names)):
                travelled[b, lag, t] += histogram(moved[bounds[t]:bounds[t + 1]])
            for p, (one, other) in enumerate(kinds):
                part = r[cut[one]:cut[one + 1], bounds[other]:bounds[other + 1]]
                observed[b, lag, p] += histogram(part)
    return VanHove(edges, steps * trajectory.frame_interval,
                   tuple((names[a], names[b]) for a, b in kinds), tuple(names), observed, expected,
                   travelled, n_travelled)


def _steps(interval, n_frames, lags):
    """Lags in frames, those that round to one frame at least and a tenth of the trajectory at
    most."""
    steps = np.unique(np.rint(np.asarray(lags) / interval).astype(int))
    steps = steps[(steps > 0) & (steps <= n_frames * LAG_SHARE)]
    if not len(steps):
        raise Unmeasurable(f"no lag of {', '.join(f'{t:g}' for t in lags)} ps is between a frame "
                           f"and a tenth of the trajectory, {interval:g} and "
                           f"{max(n_frames, 0) * interval * LAG_SHARE:.3g} ps")
    return steps


def _origins(n_beads, start, stop, steps, number):
    """Evenly spaced frames that all lags fit behind, no closer than the shortest: `number` of them
    at most, and a quarter as many of a large system."""
    affordable = DISTANCES // min(n_beads**2, DISTANCES_A_FRAME)
    last = stop - 1 - steps[-1]
    number = min(number, max(affordable, number // 4), (last - start) // steps[0] + 1)
    return np.linspace(start, last, number).astype(int)


def _limits(trajectory, radii):
    """Squared ends of shells [n_shells, n_types, n_types], nm^2; a pair of types without one has
    that of the shell before."""
    limits = np.zeros((len(radii),) + (len(trajectory.type_names),) * 2, np.float32)
    for k, ends in enumerate(radii):
        limits[k] = limits[max(k - 1, 0)]
        for (a, b), radius in ends.items():
            i, j = trajectory.type_names.index(a), trajectory.type_names.index(b)
            limits[k, i, j] = limits[k, j, i] = radius**2
    return limits
