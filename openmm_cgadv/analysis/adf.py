"""Angular distribution functions P(theta) of two neighbours around a bead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..data.trajectory import BeadTrajectory
from .blocks import Blocks, Unmeasurable, block_numbers, standard_error
from .pairs import (
    MAX_FRAMES,
    boxes_of,
    by_type,
    central_beads,
    configurations,
    half_width,
    neighbours,
    sampled_frames,
)

ANGLE_BINS = 90
SECOND_SHELL_FRAMES = 300
"""Of angles between neighbours of the second shell, of which a bead has many."""


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

    def p(self, blocks: Blocks = slice(None)) -> np.ndarray:
        """P(theta) [n_centres, n_bins], 1/rad, of integral 1."""
        return self._normalised(self.counts[blocks].sum(0))

    @property
    def stderr(self) -> np.ndarray:
        """Standard error of P(theta) [n_centres, n_bins]."""
        return np.asarray(standard_error(self._normalised(self.counts)))

    @property
    def weights(self) -> np.ndarray:
        """Share [n_centres] of each centre's type in all triplets."""
        return self.counts.sum((0, 2)) / self.counts.sum()

    def _normalised(self, counts: np.ndarray):
        total = counts.sum(-1, keepdims=True) * np.diff(self.edges)
        return np.divide(counts, total, out=np.zeros_like(total), where=total > 0)


def adf(
    trajectory: BeadTrajectory,
    radii: dict[tuple[str, str], float],
    inner: dict[tuple[str, str], float] | None = None,
    *,
    start: int = 0,
    stop: int | None = None,
    max_frames: int = MAX_FRAMES,
) -> Adf:
    """Compute the distribution of the angle at a bead between two neighbours within one shell.

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
    frames = sampled_frames(trajectory, start, stop, max_frames)
    widest = max(radii.values())
    if widest > min(half_width(b) for b in boxes_of(trajectory, frames)):
        raise Unmeasurable(f"a shell of {widest:.3f} nm is above half the box")
    kind = np.repeat(np.arange(len(names)), np.diff(bounds))
    ends, starts = (_squares(names, some) for some in (radii, inner or {}))
    edges = np.linspace(0, np.pi, ANGLE_BINS + 1)
    block = block_numbers(len(frames))
    counts = np.zeros((block[-1] + 1, len(names), ANGLE_BINS))
    for k, (s, box) in enumerate(configurations(trajectory, frames, order)):
        rows = central_beads(len(order), k)
        i, j, separation = neighbours(s, box, rows, np.sqrt(ends.max()))
        r2 = (separation * separation).sum(0)
        both = kind[i], kind[j]
        near = np.flatnonzero((r2 < ends[both]) & (r2 >= starts[both]))
        i, j, unit = i[near], j[near], separation[:, near].T.astype(float)
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        if len(rows) == len(order):
            i, unit = np.concatenate([i, j]), np.concatenate([unit, -unit])
        cosine, centre = _cosines(i, unit, len(order))
        bins = np.arccos(np.clip(cosine, -1, 1, out=cosine), out=cosine)
        bins *= ANGLE_BINS / np.pi
        bins = np.minimum(bins.astype(int), ANGLE_BINS - 1)
        bins += kind[centre] * ANGLE_BINS
        counts[block[k]] += np.bincount(bins, minlength=counts[0].size).reshape(counts[0].shape)
    if not counts.any():
        raise Unmeasurable(
            "no bead has two neighbours "
            f"{'within' if inner is None else 'in its second shell, within'} "
            f"{widest:.3f} nm"
        )
    return Adf(edges, tuple(names), counts)


def adf_l1(
    curves: Adf,
    reference: Adf,
    blocks: Blocks = slice(None),
    reference_blocks: Blocks = slice(None),
) -> float:
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


def _squares(names: Sequence[str], radii: dict[tuple[str, str], float]):
    """Return the squares of radii [n_types, n_types], nm^2, 0 for pairs of types that have none."""
    limits = np.zeros((len(names),) * 2, dtype=np.float32)
    for (a, b), radius in radii.items():
        if a not in names or b not in names:
            continue
        i, j = names.index(a), names.index(b)
        limits[i, j] = limits[j, i] = radius**2
    return limits


def _cosines(centres: np.ndarray, unit: np.ndarray, n: int):
    """Return the cosine of the angle of every pair of neighbours of each of `n` beads, and the number of that bead.

    `unit` [n_neighbours, 3] holds the directions to the neighbours of `centres` [n_neighbours].
    """
    order = np.argsort(centres, kind="stable")
    number = np.bincount(centres, minlength=n)
    slot = np.arange(len(order)) - np.repeat(np.cumsum(number) - number, number)
    around = np.zeros((n, number.max(initial=0), 3))
    around[centres[order], slot] = unit[order]
    first, second = np.triu_indices(around.shape[1], 1)
    products = (around @ around.swapaxes(1, 2))[:, first, second]
    known = second < number[:, None]
    return products[known], np.repeat(np.arange(n), known.sum(1))
