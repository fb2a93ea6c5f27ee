"""The van Hove function, its self and its distinct part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..data.trajectory import BeadTrajectory
from .blocks import Blocks, Unmeasurable, block_numbers, jackknife
from .pairs import (
    by_type,
    central_beads,
    distance_blocks,
    fractional,
    half_width,
    lagged_positions,
    pairs_of_types,
    time_origins,
)
from .rdf import R_MAX, histogram
from .sampling import lag_steps

VAN_HOVE_LAGS = (0.2, 1.0, 5.0)
VAN_HOVE_BIN = 0.01
VAN_HOVE_ORIGINS = 150


@dataclass(frozen=True)
class VanHove:
    """Self and distinct part of the van Hove function.

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
        Counts for independent beads, at any lag.
    displacements : ndarray [n_blocks, n_lags, n_types, n_bins]
        Counts of the distances that beads moved.
    n_displacements : ndarray [n_blocks, n_types]
        Of how many, those beyond the last bin included.
    """

    edges: np.ndarray
    lags: np.ndarray
    pairs: tuple[tuple[str, str], ...]
    type_names: tuple[str, ...]
    observed: np.ndarray
    expected: np.ndarray
    displacements: np.ndarray
    n_displacements: np.ndarray

    @property
    def r(self) -> np.ndarray:
        """Bin centres [n_bins], nm."""
        return (self.edges[1:] + self.edges[:-1]) / 2

    @property
    def n_blocks(self) -> int:
        return len(self.observed)

    def distinct(self, blocks: Blocks = slice(None)) -> np.ndarray:
        """``G_d(r, t)`` over the density [n_lags, n_pairs, n_bins]: g(r) at lag 0, and 1 without
        correlation."""
        return self.observed[blocks].sum(0) / self.expected[blocks].sum(0)

    @property
    def distinct_stderr(self) -> np.ndarray:
        """Standard error of `distinct` [n_lags, n_pairs, n_bins]."""
        return jackknife(self.distinct, self.n_blocks) * np.ones(self.observed.shape[1:])

    def self_part(self, blocks: Blocks = slice(None)) -> np.ndarray:
        """``4 pi r^2 G_s(r, t)`` [n_lags, n_types, n_bins], 1/nm: the distribution of the distance
        that a bead moves, of integral 1 over all distances."""
        number = self.n_displacements[blocks].sum(0)
        return self.displacements[blocks].sum(0) / (number[:, None] * np.diff(self.edges))

    @property
    def self_stderr(self) -> np.ndarray:
        """Standard error of `self_part` [n_lags, n_types, n_bins]."""
        return jackknife(self.self_part, self.n_blocks) * np.ones(self.displacements.shape[1:])


def van_hove(
    trajectory: BeadTrajectory,
    lags: np.ndarray | Sequence[float] = VAN_HOVE_LAGS,
    *,
    r_max: float | None = None,
    start: int = 0,
    stop: int | None = None,
) -> VanHove:
    """Compute the distinct and the self part of the van Hove function, from positions alone.

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
    `displacement_correlation`.
    """
    stop = trajectory.n_frames if stop is None else min(stop, trajectory.n_frames)
    steps = lag_steps(trajectory.frame_interval, stop - start, lags)
    origins = time_origins(trajectory.n_beads, start, stop, steps, VAN_HOVE_ORIGINS)
    order, bounds, names = by_type(trajectory)
    sizes = np.diff(bounds)
    kinds = pairs_of_types(bounds)
    boxes = trajectory.boxes(origins)
    limit = min(half_width(box) for box in boxes)
    r_max = min(R_MAX, limit) if r_max is None else r_max
    if r_max > limit + 1e-6:
        raise Unmeasurable(
            f"distances up to {r_max:g} nm need a box at least {2 * r_max:g} nm "
            f"wide, this one is {2 * limit:.3f} nm wide"
        )
    n_bins = int(r_max / VAN_HOVE_BIN + 1e-6)
    edges = VAN_HOVE_BIN * np.arange(n_bins + 1)
    shells = 4 / 3 * np.pi * np.diff(edges**3)
    block = block_numbers(len(origins))
    observed = np.zeros((block[-1] + 1, len(steps), len(kinds), n_bins))
    expected = np.zeros((block[-1] + 1, len(kinds), n_bins))
    displacements = np.zeros((block[-1] + 1, len(steps), len(names), n_bins))
    n_displacements = np.zeros((block[-1] + 1, len(names)))

    for n, (b, (x, box)) in enumerate(zip(block, lagged_positions(trajectory, origins, steps))):
        x = x[:, order]
        s = fractional(x, box)
        rows = central_beads(len(order), n)
        cut = np.searchsorted(rows, bounds)
        density = shells / abs(np.linalg.det(box))
        n_displacements[b] += sizes
        moved = np.linalg.norm(x[1:] - x[0], axis=2).astype(np.float32)
        for lag in range(len(steps)):
            for t in range(len(names)):
                displacements[b, lag, t] += histogram(
                    moved[lag, bounds[t] : bounds[t + 1]], VAN_HOVE_BIN, n_bins
                )
        for p, (one, other) in enumerate(kinds):
            part = rows[cut[one] : cut[one + 1]]
            columns = slice(bounds[other], bounds[other + 1])
            expected[b, p] += len(part) * (sizes[other] - (one == other)) * density
            for lag in range(len(steps)):
                for r2, _, _ in distance_blocks(s[0], box, part, columns, s[1 + lag]):
                    observed[b, lag, p] += histogram(np.sqrt(r2, out=r2), VAN_HOVE_BIN, n_bins)
    return VanHove(
        edges,
        steps * trajectory.frame_interval,
        tuple((names[a], names[b]) for a, b in kinds),
        tuple(names),
        observed,
        expected,
        displacements,
        n_displacements,
    )
