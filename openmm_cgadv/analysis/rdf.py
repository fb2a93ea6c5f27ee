"""Radial distribution functions g(r)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .blocks import Blocks, Unmeasurable, block_numbers, standard_error
from .frames import Frames
from .pairs import (
    MAX_FRAMES,
    boxes_of,
    by_type,
    central_beads,
    configurations,
    distance_blocks,
    half_width,
    pairs_of_types,
    sampled_frames,
)

R_MAX = 1.0
BIN_WIDTH = 0.005


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

    def g(self, blocks: Blocks = slice(None)) -> np.ndarray:
        """g(r) [n_pairs, n_bins] of some blocks, all by default."""
        return self.observed[blocks].sum(0) / self.expected[blocks].sum(0)

    @property
    def stderr(self) -> np.ndarray:
        """Standard error of g(r) [n_pairs, n_bins]."""
        return np.asarray(standard_error(self.observed / self.expected))


def rdf(
    trajectory: Frames,
    *,
    r_max: float | None = None,
    bin_width: float = BIN_WIDTH,
    start: int = 0,
    stop: int | None = None,
    max_frames: int = MAX_FRAMES,
) -> Rdf:
    """Compute the radial distribution functions of a trajectory, one for every pair of bead types.

    Parameters
    ----------
    trajectory : Frames
    r_max : float, optional
        nm; the smaller of 1 nm and half the smallest box width by default. Rounded down to a
        whole number of bins.
    bin_width : float
        nm.
    start, stop : int
        Range of frames.
    max_frames : int
        Largest number of frames, evenly spaced over the range.

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
    frames = sampled_frames(trajectory, start, stop, max_frames)
    narrowest = min(half_width(b) for b in boxes_of(trajectory, frames))
    if r_max is None:
        r_max = min(R_MAX, narrowest)
    elif r_max > narrowest + 1e-6:
        raise Unmeasurable(
            f"g(r) up to {r_max:g} nm needs a box at least {2 * r_max:g} nm wide, "
            f"this one is {2 * narrowest:.3f} nm wide"
        )
    n_bins = int(r_max / bin_width + 1e-6)
    if n_bins < 1:
        raise Unmeasurable(f"a range of {r_max:g} nm holds no bin of {bin_width:g} nm")
    edges = bin_width * np.arange(n_bins + 1)
    shells = 4 / 3 * np.pi * np.diff(edges**3)
    sizes = np.diff(bounds)
    kinds = pairs_of_types(bounds)

    block = block_numbers(len(frames))
    observed = np.zeros((block[-1] + 1, len(kinds), n_bins))
    expected = np.zeros_like(observed)
    for k, (s, box) in enumerate(configurations(trajectory, frames, order)):
        rows = central_beads(len(order), k)
        cut = np.searchsorted(rows, bounds)
        density = shells / abs(np.linalg.det(box))
        for p, (a, b) in enumerate(kinds):
            part = rows[cut[a] : cut[a + 1]]
            counts = np.zeros(n_bins, int)
            for r2, _, _ in distance_blocks(s, box, part, slice(bounds[b], bounds[b + 1])):
                counts += histogram(np.sqrt(r2, out=r2), bin_width, n_bins)
            ends = 2 if a == b and len(part) == sizes[a] else 1
            observed[block[k], p] += ends * counts
            expected[block[k], p] += len(part) * (sizes[b] - (a == b)) * density
    return Rdf(edges, tuple((names[a], names[b]) for a, b in kinds), observed, expected)


def histogram(r: np.ndarray, bin_width: float, n_bins: int) -> np.ndarray:
    """Return the numbers [n_bins] of distances, single precision, in bins from 0. The distances are overwritten."""
    r *= np.float32(1 / bin_width)
    np.minimum(r, np.float32(n_bins), out=r)
    return np.bincount(r.ravel().astype(np.intp), minlength=n_bins + 1)[:n_bins]


def rdf_l1(
    curves: Rdf,
    reference: Rdf,
    blocks: Blocks = slice(None),
    reference_blocks: Blocks = slice(None),
) -> float:
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
