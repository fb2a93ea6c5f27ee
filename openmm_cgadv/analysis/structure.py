"""Structure of a bead liquid: pair distribution g(r) and the angles between neighbours of a shell."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.signal import find_peaks

from .blocks import Unmeasurable, block_numbers, standard_error

R_MAX = 1.0
BIN_WIDTH = 0.005
ANGLE_BINS = 90
MAX_FRAMES = 1500
SECOND_SHELL_FRAMES = 300
"""Of angles between neighbours of the second shell, of which a bead has many."""
DISTANCES = 200_000_000
DISTANCES_A_FRAME = 5_000_000
READ_BYTES = 1 << 23


@dataclass(frozen=True)
class Rdf:
    """Radial distribution functions, one for every pair of bead types.

    ``g = observed / expected``, where `expected` is what as many pairs at random places in the
    same boxes would give.

    Attributes
    ----------
    edges : ndarray [n_bins + 1]
        nm.
    pairs : tuple of (str, str)
        Type names of each pair.
    observed, expected : ndarray [n_blocks, n_pairs, n_bins]
        Pair counts by block of the trajectory.
    """

    edges: np.ndarray
    pairs: tuple[tuple[str, str], ...]
    observed: np.ndarray
    expected: np.ndarray

    @property
    def r(self) -> np.ndarray:
        """Bin centres [n_bins], nm."""
        return (self.edges[1:] + self.edges[:-1]) / 2

    @property
    def n_blocks(self) -> int:
        return len(self.observed)

    def g(self, blocks=slice(None)) -> np.ndarray:
        """g(r) [n_pairs, n_bins] of some blocks, all by default."""
        return self.observed[blocks].sum(0) / self.expected[blocks].sum(0)

    @property
    def stderr(self) -> np.ndarray:
        """Standard error of g(r) [n_pairs, n_bins]."""
        return standard_error(self.observed / self.expected)


@dataclass(frozen=True)
class Adf:
    """Distribution of the angle at a bead between two neighbours of one shell.

    Attributes
    ----------
    edges : ndarray [n_bins + 1]
        Radians, 0 to pi.
    centres : tuple of str
        Type of the bead in the middle.
    counts : ndarray [n_blocks, n_centres, n_bins]
        Triplets, each pair of neighbours once.
    """

    edges: np.ndarray
    centres: tuple[str, ...]
    counts: np.ndarray

    @property
    def theta(self) -> np.ndarray:
        """Bin centres [n_bins], radians."""
        return (self.edges[1:] + self.edges[:-1]) / 2

    @property
    def n_blocks(self) -> int:
        return len(self.counts)

    def p(self, blocks=slice(None)) -> np.ndarray:
        """P(theta) [n_centres, n_bins], 1/rad, of integral 1."""
        return self._normalised(self.counts[blocks].sum(0))

    @property
    def stderr(self) -> np.ndarray:
        """Standard error of P(theta) [n_centres, n_bins]."""
        return standard_error(self._normalised(self.counts))

    @property
    def weights(self) -> np.ndarray:
        """Share [n_centres] of each centre's type in all triplets."""
        return self.counts.sum((0, 2)) / self.counts.sum()

    def _normalised(self, counts):
        total = counts.sum(-1, keepdims=True) * np.diff(self.edges)
        return np.divide(counts, total, out=np.zeros_like(total), where=total > 0)


def rdf(trajectory, *, r_max: float | None = None, bin_width: float = BIN_WIDTH,
        start: int = 0, stop: int | None = None, max_frames: int = MAX_FRAMES) -> Rdf:
    """Radial distribution functions of a trajectory, one for every pair of bead types.

    Parameters
    ----------
    trajectory : BeadTrajectory
    r_max : float, optional
        nm; the smaller of 1 nm and half the smallest box width by default. Rounded down to a
        whole number of bins.
    bin_width : float
        nm.
    start, stop : int
        Range of frames.
    max_frames : int
        As many frames at most, evenly spaced over the range.

    Raises
    ------
    Unmeasurable
        There are no frames, no two beads make a pair, or `r_max` is above half the smallest box
        width.

    Notes
    -----
    ``g(r) = <pairs in the bin> / <n_pairs V_bin / V>`` over frames, with n_pairs the number of
    distinct pairs, N(N - 1)/2 for like beads, so that an ideal gas gives 1 at any N.
    """
    order, bounds, names = by_type(trajectory)
    frames = _frames(trajectory, start, stop, max_frames)
    narrowest = min(half_width(b) for b in _boxes(trajectory, frames))
    if r_max is None:
        r_max = min(R_MAX, narrowest)
    elif r_max > narrowest + 1e-6:
        raise Unmeasurable(f"g(r) up to {r_max:g} nm needs a box at least {2 * r_max:g} nm wide, "
                           f"this one is {2 * narrowest:.3f} nm wide")
    n_bins = int(r_max / bin_width + 1e-6)
    if n_bins < 1:
        raise Unmeasurable(f"a range of {r_max:g} nm holds no bin of {bin_width:g} nm")
    edges = bin_width * np.arange(n_bins + 1)
    shells = 4 / 3 * np.pi * np.diff(edges**3)
    sizes = np.diff(bounds)
    kinds = [(a, b) for a in range(len(names)) for b in range(a, len(names))
             if a != b or sizes[a] > 1]
    if not kinds:
        raise Unmeasurable("one bead alone makes no pair")

    block = block_numbers(len(frames))
    observed = np.zeros((block[-1] + 1, len(kinds), n_bins))
    expected = np.zeros_like(observed)
    for k, (x, box) in enumerate(_configurations(trajectory, frames, order)):
        rows = centres(len(order), k)
        r2, _ = squared_distances(x[rows], x, box)
        bins = np.minimum(np.sqrt(r2) * np.float32(1 / bin_width), np.float32(n_bins))
        bins = bins.astype(np.int32)
        bins[np.arange(len(rows)), rows] = n_bins
        cut = np.searchsorted(rows, bounds)
        density = shells / abs(np.linalg.det(box))
        for p, (a, b) in enumerate(kinds):
            part = bins[cut[a]:cut[a + 1], bounds[b]:bounds[b + 1]]
            observed[block[k], p] += np.bincount(part.ravel(), minlength=n_bins + 1)[:n_bins]
            expected[block[k], p] += len(part) * (sizes[b] - (a == b)) * density
    return Rdf(edges, tuple((names[a], names[b]) for a, b in kinds), observed, expected)


def first_shell_radius(r, g) -> float:
    """First minimum of g(r) behind its first peak, nm.

    It is looked for on the curve smoothed over 0.01 nm, where a peak counts if it stands out by 0.1
    at least, and refined as the minimum of a cubic through the unsmoothed points within 0.03 nm.

    Parameters
    ----------
    r, g : array [n_bins]
        Evenly spaced bin centres, nm, and the curve.

    Raises
    ------
    Unmeasurable
        g(r) shows no peak followed by a minimum.
    """
    r, g = np.asarray(r), np.asarray(g)
    smooth = gaussian_filter1d(g, 0.01 / (r[1] - r[0]), mode="nearest")
    peaks, _ = find_peaks(smooth, prominence=0.1, height=1.0)
    if not len(peaks):
        raise Unmeasurable(f"g(r) shows no first shell up to {r[-1]:.2f} nm")
    return _minimum(r, g, smooth, peaks, "first")


def second_shell_radius(r, g, first: float) -> float:
    """First minimum of g(r) behind its second peak, nm.

    As `first_shell_radius`, on the curve smoothed over 0.02 nm behind the end of the first shell,
    where a peak counts if it stands out by 0.03 at least.

    Parameters
    ----------
    r, g : array [n_bins]
        Evenly spaced bin centres, nm, and the curve.
    first : float
        Where the first shell ends, nm.

    Raises
    ------
    Unmeasurable
        g(r) shows no second peak followed by a minimum.
    """
    r, g = np.asarray(r), np.asarray(g)
    smooth = gaussian_filter1d(g, 0.02 / (r[1] - r[0]), mode="nearest")
    start = np.searchsorted(r, first)
    peaks, _ = find_peaks(smooth[start:], prominence=0.03)
    if not len(peaks):
        raise Unmeasurable(f"g(r) shows no second shell up to {r[-1]:.2f} nm")
    return _minimum(r, g, smooth, peaks + start, "second")


def _minimum(r, g, smooth, peaks, which):
    """Minimum of a curve between its first two peaks, sought on the smoothed one."""
    end = peaks[1] if len(peaks) > 1 else len(r)
    low = peaks[0] + int(np.argmin(smooth[peaks[0]:end]))
    if low == len(r) - 1:
        raise Unmeasurable(f"g(r) shows no minimum behind its {which} peak up to {r[-1]:.2f} nm")
    near = (np.abs(r - r[low]) < 0.03) & (np.arange(len(r)) > peaks[0])
    if near.sum() > 4:
        cubic = np.polynomial.Polynomial.fit(r[near], g[near], 3)
        fine = np.linspace(r[near][0], r[near][-1], 1001)
        lowest = int(np.argmin(cubic(fine)))
        if 0 < lowest < 1000:
            return float(fine[lowest])
    return float(r[low])


def shell_radii(curves: Rdf) -> dict[tuple[str, str], float]:
    """First-shell radius, nm, of every pair of types; pairs without a first shell are left out.

    Raises
    ------
    Unmeasurable
        No pair of types shows a first shell.
    """
    return _where_there_is_one(curves, lambda pair, g: first_shell_radius(curves.r, g))


def second_shell_radii(curves: Rdf, first: dict[tuple[str, str], float]
                       ) -> dict[tuple[str, str], float]:
    """Where the second shell ends, nm, for every pair of types that has a first shell; those
    without a second are left out.

    Raises
    ------
    Unmeasurable
        No pair of types shows a second shell.
    """
    return _where_there_is_one(curves, lambda pair, g: second_shell_radius(
        curves.r, g, first.get(pair, np.inf)))


def _where_there_is_one(curves, find):
    """Results of `find` for the pairs of types where it finds something."""
    radii, why = {}, None
    for pair, g in zip(curves.pairs, curves.g()):
        try:
            radii[pair] = find(pair, g)
        except Unmeasurable as error:
            why = error
    if not radii:
        raise why
    return radii


def adf(trajectory, radii: dict[tuple[str, str], float],
        inner: dict[tuple[str, str], float] | None = None, *, start: int = 0,
        stop: int | None = None, max_frames: int = MAX_FRAMES) -> Adf:
    """Distribution of the angle at a bead between two neighbours within one shell.

    Parameters
    ----------
    trajectory : BeadTrajectory
    radii : dict
        ``{(name, name): radius in nm}``; beads of two types closer than this are neighbours. Pairs
        of types that are not listed have none.
    inner : dict, optional
        Where the shell begins, likewise; at the bead itself by default.
    start, stop, max_frames : int
        As in `rdf`.

    Raises
    ------
    Unmeasurable
        No bead ever has two neighbours, or a radius is above half the smallest box width.
    """
    order, bounds, names = by_type(trajectory)
    frames = _frames(trajectory, start, stop, max_frames)
    widest = max(radii.values())
    if widest > min(half_width(b) for b in _boxes(trajectory, frames)):
        raise Unmeasurable(f"a shell of {widest:.3f} nm is above half the box")
    kind = np.asarray(trajectory.types)[order]
    ends, starts = (_squares(trajectory.type_names, some) for some in (radii, inner or {}))
    present = np.unique(kind)
    edges = np.linspace(0, np.pi, ANGLE_BINS + 1)
    block = block_numbers(len(frames))
    counts = np.zeros((block[-1] + 1, len(present), ANGLE_BINS))
    for k, (x, box) in enumerate(_configurations(trajectory, frames, order)):
        rows = centres(len(order), k)
        r2, sides = squared_distances(x[rows], x, box)
        r2[np.arange(len(rows)), rows] = np.inf
        near = (r2 < ends(kind[rows], kind)) & (r2 >= starts(kind[rows], kind))
        i, j = np.nonzero(near)
        unit = np.stack([s[i, j] for s in sides], -1).astype(float)
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        number = np.bincount(i, minlength=len(rows))
        slot = np.arange(len(i)) - np.repeat(np.cumsum(number) - number, number)
        around = np.full((len(rows), number.max(initial=0), 3), np.nan)
        around[i, slot] = unit
        first, second = np.triu_indices(around.shape[1], 1)
        cosine = np.einsum("npc,npc->np", around[:, first], around[:, second])
        where, _ = np.nonzero(np.isfinite(cosine))
        angle = np.arccos(np.clip(cosine[np.isfinite(cosine)], -1, 1))
        bins = np.minimum((angle * (ANGLE_BINS / np.pi)).astype(int), ANGLE_BINS - 1)
        centre = np.searchsorted(present, kind[rows[where]])
        counts[block[k]] += np.bincount(centre * ANGLE_BINS + bins,
                                        minlength=counts[0].size).reshape(counts[0].shape)
    if not counts.any():
        raise Unmeasurable("no bead has two neighbours "
                           f"{'within' if inner is None else 'in its second shell, within'} "
                           f"{widest:.3f} nm")
    return Adf(edges, tuple(trajectory.type_names[t] for t in present), counts)


def _squares(names, radii):
    """Function of types [n] and [N] that gives the squares of radii, nm^2, 0 where there is none:
    [n, N], or a number if there is one type."""
    limits = np.zeros((len(names),) * 2, dtype=np.float32)
    for (a, b), radius in radii.items():
        i, j = names.index(a), names.index(b)
        limits[i, j] = limits[j, i] = radius**2
    return lambda some, others: limits[0, 0] if limits.size == 1 else limits[some][:, others]


def rdf_l1(curves: Rdf, reference: Rdf, blocks=slice(None), reference_blocks=slice(None)) -> float:
    """``sum |g - g_ref| / sum g_ref`` over all bins and pairs of types.

    Raises
    ------
    Unmeasurable
        The two were measured on different bins or pairs of types.
    """
    if curves.pairs != reference.pairs or not np.array_equal(curves.edges, reference.edges):
        raise Unmeasurable("g(r) was measured for other types or distances than the reference")
    g_ref = reference.g(reference_blocks)
    return float(np.abs(curves.g(blocks) - g_ref).sum() / g_ref.sum())


def adf_l1(curves: Adf, reference: Adf, blocks=slice(None), reference_blocks=slice(None)) -> float:
    """``integral |P - P_ref| dtheta``, an average over centre types weighted by the reference's
    triplets.

    Raises
    ------
    Unmeasurable
        The two were measured for different centres.
    """
    if curves.centres != reference.centres:
        raise Unmeasurable("P(theta) was measured for other types than the reference")
    difference = np.abs(curves.p(blocks) - reference.p(reference_blocks))
    return float(reference.weights @ difference.sum(1) * (curves.edges[1] - curves.edges[0]))


def by_type(trajectory):
    """Bead order sorted by type, boundaries of the types in it, names of the types present."""
    types = np.asarray(trajectory.types)
    order = np.argsort(types, kind="stable")
    present, first = np.unique(types[order], return_index=True)
    return order, np.append(first, len(types)), [trajectory.type_names[t] for t in present]


def _frames(trajectory, start, stop, max_frames):
    """Evenly spaced frame numbers, as many as the budget of distances allows."""
    stop = trajectory.n_frames if stop is None else min(stop, trajectory.n_frames)
    if stop <= start:
        raise Unmeasurable("the trajectory holds no frame")
    n = trajectory.n_beads
    affordable = max(int(DISTANCES / min(n * n, DISTANCES_A_FRAME)), 100)
    return range(start, stop, -(-(stop - start) // min(max_frames, affordable)))


def _boxes(trajectory, frames):
    return trajectory.boxes(slice(frames.start, frames.stop, frames.step))


def centres(n, k):
    """Beads [n_rows] whose neighbours are looked at in the k-th configuration: all of a small
    system, every few in turn of a large one."""
    every = -(-n * n // DISTANCES_A_FRAME)
    return np.arange(k % every, n, every)


def _configurations(trajectory, frames, order):
    """Yield fractional coordinates [N, 3] float32 in [0, 1), sorted by type, and box [3, 3]."""
    batch = max(READ_BYTES // (24 * trajectory.n_beads), 1)
    for first in range(0, len(frames), batch):
        some = frames[first:first + batch]
        positions = trajectory.positions(slice(some.start, some.stop, some.step))
        for x, box in zip(positions, _boxes(trajectory, some)):
            fraction = x[order] @ np.linalg.inv(box)
            yield (fraction - np.floor(fraction)).astype(np.float32), box


def squared_distances(some, others, box):
    """Squared minimum-image distances [n, N], nm^2, between points [n, 3] and others [N, 3] in
    fractional coordinates, and the displacements' components.

    Rounding fractional differences gives the nearest image of any pair closer than half the
    smallest box width, for any box shape: its fractional components are then below 1/2.
    """
    between = []
    for c in range(3):
        d = some[:, c, None] - others[None, :, c]
        d -= np.rint(d)
        between.append(d)
    box = box.astype(np.float32)
    sides = []
    for c in range(3):
        terms = [between[k] * box[k, c] for k in range(3) if box[k, c] != 0]
        sides.append(sum(terms[1:], terms[0]))
    r2 = sides[0] * sides[0]
    r2 += sides[1] * sides[1]
    r2 += sides[2] * sides[2]
    return r2, sides


def half_width(box):
    """Half the smallest distance between opposite faces of a box [3, 3], nm."""
    return 0.5 / np.linalg.norm(np.linalg.inv(box), axis=0).max()
