"""Correlations of the displacements of neighbours, and of whole waves of beads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..data.trajectory import BeadTrajectory
from .blocks import Blocks, Unmeasurable, block_numbers, jackknife
from .pairs import (
    central_beads,
    fractional,
    half_width,
    lagged_positions,
    neighbours,
    time_origins,
)
from .sampling import lag_steps
from .wave_vectors import plane_waves, polarizations, wave_vectors

DISPLACEMENT_LAGS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
PAIR_ORIGINS = 400


@dataclass(frozen=True)
class DisplacementCorrelation:
    """Correlation of the displacements of neighbours, and displacements of whole waves.

    Attributes
    ----------
    lags : ndarray [n_lags]
        ps.
    shells : tuple of str
        "first_shell", "second_shell" where there is one.
    pairs : ndarray [n_blocks, 2, n_shells, n_lags]
        Sums over pairs of the product of their displacements, nm^2, parallel to their separation at
        lag 0 and (one component) perpendicular to it.
    pair_norm : ndarray [n_blocks, n_shells, n_lags]
        As many times a third of the mean squared displacement, of both beads' types in the
        geometric mean.
    waves : ndarray [n_blocks, 2, n_lags]
        ``|sum_i m_i d_i exp(-i k.r_i)|^2`` of displacements d_i, longitudinal and (one component)
        transverse to the shortest wave vectors.
    wave_norm : ndarray [n_blocks, n_lags]
        The same for independent beads.
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

    def pair_correlation(self, blocks: Blocks = slice(None)) -> np.ndarray:
        """Return the correlation [2, n_shells, n_lags] of displacements parallel and perpendicular to the
        separation: 0 for independent beads, 1 for a rigid body, nan for empty shells."""
        norm = self.pair_norm[blocks].sum(0)
        return self.pairs[blocks].sum(0) / np.where(norm > 0, norm, np.nan)

    def mode_ratio(self, blocks: Blocks = slice(None)) -> np.ndarray:
        """Return the squared displacement [2, n_lags] of the longest longitudinal and transverse waves, over
        that of independent beads."""
        return self.waves[blocks].sum(0) / self.wave_norm[blocks].sum(0)

    @property
    def pair_stderr(self) -> np.ndarray:
        """Standard error [2, n_shells, n_lags] of `pair_correlation`."""
        return jackknife(self.pair_correlation, self.n_blocks) * np.ones(self.pairs.shape[1:])

    @property
    def mode_stderr(self) -> np.ndarray:
        """Standard error [2, n_lags] of `mode_ratio`."""
        return jackknife(self.mode_ratio, self.n_blocks) * np.ones(self.waves.shape[1:])


def displacement_correlation(
    trajectory: BeadTrajectory,
    radii: Sequence[dict[tuple[str, str], float]],
    *,
    start: int = 0,
    stop: int | None = None,
) -> DisplacementCorrelation:
    """Measure the correlation of displacements of neighbours, and the displacements of whole waves, from
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
    Neighbours are determined at each of `PAIR_ORIGINS` time origins, around all beads of a
    small system; around some in turn, at a quarter of the origins, of a large one. Lags are those
    of `DISPLACEMENT_LAGS` up to a tenth of the trajectory. The drift of the whole system counts.
    """
    stop = trajectory.n_frames if stop is None else min(stop, trajectory.n_frames)
    if trajectory.n_beads < 2:
        raise Unmeasurable("one bead alone has no collective motion")
    steps = lag_steps(trajectory.frame_interval, stop - start, DISPLACEMENT_LAGS)
    origins = time_origins(trajectory.n_beads, start, stop, steps, PAIR_ORIGINS)
    types, masses = np.asarray(trajectory.types), np.asarray(trajectory.masses)
    _, kind = np.unique(types, return_inverse=True)
    number = np.bincount(kind)
    mean_of = np.eye(len(number))[kind] / number
    weight = np.bincount(kind, masses**2)
    limits = _limits(trajectory, radii)
    cutoff = float(np.sqrt(limits[-1].max()))
    boxes = trajectory.boxes(origins)
    limit = min(half_width(box) for box in boxes)
    if max(max(ends.values()) for ends in radii) > limit + 1e-6:
        raise Unmeasurable(
            f"a shell of {max(max(e.values()) for e in radii):.3f} nm is above half the box"
        )
    numbers, group = wave_vectors(boxes.mean(0))
    numbers = numbers[group == 0]
    axes = polarizations(numbers @ (2 * np.pi * np.linalg.inv(boxes.mean(0))).T)
    n_shells, n_lags = len(radii), len(steps)
    block = block_numbers(len(origins))
    shape = (block[-1] + 1, 2, n_shells, n_lags)
    pairs, pair_norm = np.zeros(shape), np.zeros((shape[0], n_shells, n_lags))
    waves, wave_norm = np.zeros((shape[0], 2, n_lags)), np.zeros((shape[0], n_lags))
    for n, (b, (x, box)) in enumerate(zip(block, lagged_positions(trajectory, origins, steps))):
        d = (x[1:] - x[0]).astype(np.float32)
        third = mean_of.T @ (d * d).sum(2).T / 3

        s = fractional(x[0], box)
        rows = central_beads(len(x[0]), n)
        i, j, separation = neighbours(s, box, rows, cutoff)
        r2 = (separation * separation).sum(0)
        shell = (r2 >= limits[:, types[i], types[j]]).sum(0)
        within = (shell == np.arange(n_shells)[:, None]).astype(np.float32)
        parallel, product = _products(d, i, j, separation / np.sqrt(r2))
        ends = 2 if len(rows) == len(x[0]) else 1
        pairs[b] += ends * np.stack([within @ parallel, within @ (product - parallel) / 2])
        both = kind[i] * len(number) + kind[j]
        third_of_both = np.sqrt(third[:, None] * third[None]).reshape(-1, n_lags)
        for k in range(n_shells):
            counts = np.bincount(both[shell == k], minlength=len(third_of_both))
            pair_norm[b, k] += ends * (counts @ third_of_both)

        wave = plane_waves(s.T[None], numbers)[0] * masses.astype(np.float32)
        amplitudes = np.einsum("lkc,kdc->lkd", wave @ d, axes)
        squares = (amplitudes.real**2 + amplitudes.imag**2).mean(1)
        waves[b] += np.stack([squares[:, 0], squares[:, 1:].mean(1)])
        wave_norm[b] += weight @ third
    return DisplacementCorrelation(
        steps * trajectory.frame_interval,
        ("first_shell", "second_shell")[:n_shells],
        pairs,
        pair_norm,
        waves,
        wave_norm,
    )


def _products(d: np.ndarray, i: np.ndarray, j: np.ndarray, unit: np.ndarray):
    """Return the products [n_pairs, n_lags] of the displacements of pairs, parallel to a direction and in all directions.

    `d` [n_lags, N, 3] are the displacements, `i` and `j` the beads of each pair and `unit` [3, n_pairs] the directions.
    """
    parts = [
        (one[i], one[j], u[:, None])
        for one, u in zip(np.ascontiguousarray(d.transpose(2, 1, 0)), unit)
    ]
    first = sum(a * u for a, _, u in parts)
    first *= sum(b * u for _, b, u in parts)
    return first, sum(a * b for a, b, _ in parts)


def _limits(trajectory: BeadTrajectory, radii: Sequence[dict[tuple[str, str], float]]):
    """Squared ends of shells [n_shells, n_types, n_types], nm^2; a pair of types without one has
    that of the shell before."""
    limits = np.zeros((len(radii),) + (len(trajectory.type_names),) * 2, np.float32)
    for k, ends in enumerate(radii):
        limits[k] = limits[max(k - 1, 0)]
        for (a, b), radius in ends.items():
            i, j = trajectory.type_names.index(a), trajectory.type_names.index(b)
            limits[k, i, j] = limits[k, j, i] = radius**2
    return limits
