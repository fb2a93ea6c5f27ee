"""Pairs of beads in a periodic box: minimum-image distances, neighbours, and the frames that pairs are sampled from."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np

from .blocks import Unmeasurable
from .frames import Frames
from .sampling import frames_at_once

MAX_FRAMES = 1500
DISTANCES = 200_000_000
"""Number of distances that a quantity is computed from."""

DISTANCES_A_FRAME = 5_000_000
"""Number of distances in a frame above which the neighbours of some beads stand for those of all."""

BLOCK = 1 << 15
"""Number of distances that are computed at once, which fit the cache of a core."""


def by_type(trajectory: Frames) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return the order of beads by type, the bounds of each type in it, and the names of the types present."""
    types = np.asarray(trajectory.types)
    order = np.argsort(types, kind="stable")
    present, first = np.unique(types[order], return_index=True)
    return order, np.append(first, len(types)), [trajectory.type_names[t] for t in present]


def pairs_of_types(bounds: np.ndarray) -> list[tuple[int, int]]:
    """Return the pairs of types that hold at least one pair of beads.

    Raises
    ------
    Unmeasurable
        There is a single bead.
    """
    sizes = np.diff(bounds)
    found = [
        (a, b) for a in range(len(sizes)) for b in range(a, len(sizes)) if a != b or sizes[a] > 1
    ]
    if not found:
        raise Unmeasurable("one bead alone makes no pair")
    return found


def sampled_frames(trajectory: Frames, start: int, stop: int | None, max_frames: int) -> range:
    """Return evenly spaced frames of a range, at most as many as `DISTANCES` allows.

    Raises
    ------
    Unmeasurable
        There is no frame.
    """
    stop = trajectory.n_frames if stop is None else min(stop, trajectory.n_frames)
    if stop <= start:
        raise Unmeasurable("the trajectory holds no frame")
    n = trajectory.n_beads
    affordable = max(int(DISTANCES / min(n * n, DISTANCES_A_FRAME)), 100)
    return range(start, stop, -(-(stop - start) // min(max_frames, affordable)))


def boxes_of(trajectory: Frames, frames: range) -> np.ndarray:
    """Return the boxes [T, 3, 3], nm, of frames."""
    return trajectory.boxes(slice(frames.start, frames.stop, frames.step))


def central_beads(n: int, k: int) -> np.ndarray:
    """Return the beads whose neighbours are sampled in the k-th configuration of `n` beads.

    These are all beads, or every m-th, in turn, where all have more than `DISTANCES_A_FRAME` distances.
    """
    every = -(-n * n // DISTANCES_A_FRAME)
    return np.arange(k % every, n, every)


def fractional(positions: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Return fractional coordinates [..., 3, N] in [0, 1), single precision, of positions [..., N, 3], nm."""
    s = positions @ np.linalg.inv(boxes)
    s -= np.floor(s)
    return np.ascontiguousarray(s.swapaxes(-1, -2), dtype=np.float32)


def configurations(
    trajectory: Frames, frames: range, order: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield fractional coordinates [3, N] of the beads in an order, and the box [3, 3], nm, of each frame."""
    batch = frames_at_once(trajectory.n_beads)
    for first in range(0, len(frames), batch):
        some = frames[first : first + batch]
        positions = trajectory.positions(slice(some.start, some.stop, some.step))
        boxes = boxes_of(trajectory, some)
        yield from zip(fractional(positions[:, order], boxes), boxes)


def squared_distances(some: np.ndarray, others: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Return squared minimum-image distances [n, N], nm^2, between fractional coordinates [3, n] and [3, N].

    Rounding fractional differences gives the nearest image of any pair closer than half the smallest box width, for
    any shape of the box: the fractional components of its separation are below 1/2.
    """
    box = box.astype(np.float32)
    sides = []
    if not (box - np.diag(np.diag(box))).any():
        for c in range(3):
            d = some[c, :, None] - others[c]
            d -= np.rint(d)
            d *= box[c, c]
            sides.append(d)
        return _sum_of_squares(sides)
    between = [some[c, :, None] - others[c] for c in range(3)]
    for d in between:
        d -= np.rint(d)
    for c in range(3):
        terms = [between[k] * box[k, c] for k in range(3) if box[k, c] != 0]
        sides.append(sum(terms[1:], terms[0]))
    return _sum_of_squares(sides)


def _sum_of_squares(sides: list[np.ndarray]) -> np.ndarray:
    """Return the sum of the squares of three arrays, which are overwritten."""
    for side in sides:
        side *= side
    sides[0] += sides[1]
    sides[0] += sides[2]
    return sides[0]


@cache
def _lower_triangle(n: int):
    return np.tri(n, dtype=bool)


def distance_blocks(
    s: np.ndarray,
    box: np.ndarray,
    rows: np.ndarray,
    columns: slice,
    later: np.ndarray | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """Yield squared distances between beads and the beads of a range, in blocks of about `BLOCK` values.

    A bead's distance to itself is infinite. If the rows are all beads of the range, and `later` is not given, each
    pair occurs once.

    Parameters
    ----------
    s : array [3, N]
        Fractional coordinates.
    box : array [3, 3]
        nm.
    rows : array of int
        Beads, increasing.
    columns : slice
    later : array [3, N], optional
        Fractional coordinates at another time, of the beads of the range.

    Yields
    ------
    r2 : ndarray [n, m]
        nm^2.
    rows : ndarray [n]
    first : int
        Number of the bead of the first column.
    """
    others = s if later is None else later
    size = columns.stop - columns.start
    whole = later is None and len(rows) == size and rows[0] == columns.start
    done = 0
    while done < len(rows):
        first = columns.start + done * whole
        size = max(BLOCK // (columns.stop - first), 1)
        some = rows[done : done + size]
        r2 = squared_distances(s[:, some], others[:, first : columns.stop], box)
        if whole:
            r2[:, : len(some)][_lower_triangle(len(some))] = np.inf
        else:
            own = (some >= first) & (some < columns.stop)
            r2[np.flatnonzero(own), some[own] - first] = np.inf
        yield r2, some, first
        done += size


def neighbours(
    s: np.ndarray, box: np.ndarray, rows: np.ndarray, cutoff: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the pairs of beads that are closer than a cutoff.

    Parameters
    ----------
    s : array [3, N]
        Fractional coordinates.
    box : array [3, 3]
        nm.
    rows : array of int
        Beads whose neighbours are listed. If these are all beads, each pair is listed once.
    cutoff : float
        nm.

    Returns
    -------
    i, j : ndarray [n_pairs]
    separation : ndarray [3, n_pairs]
        From j to i, nm.
    """
    found = []
    for r2, some, first in distance_blocks(s, box, rows, slice(0, s.shape[1])):
        i, j = np.divmod(np.flatnonzero(r2.ravel() < cutoff**2), r2.shape[1])
        found.append((some[i], first + j))
    i, j = (np.concatenate(part) for part in zip(*found))
    between = s[:, i] - s[:, j]
    between -= np.rint(between)
    return i, j, box.T.astype(np.float32) @ between


def half_width(box: np.ndarray) -> float:
    """Return half the smallest distance between opposite faces of a box [3, 3], nm."""
    return 0.5 / np.linalg.norm(np.linalg.inv(box), axis=0).max()


def time_origins(n_beads: int, start: int, stop: int, steps: np.ndarray, number: int) -> np.ndarray:
    """Return evenly spaced frames that all lags fit behind, no closer than the shortest lag.

    There are at most `number` of them, and a quarter as many of a large system.
    """
    affordable = DISTANCES // min(n_beads**2, DISTANCES_A_FRAME)
    last = stop - 1 - steps[-1]
    number = min(number, max(affordable, number // 4), (last - start) // steps[0] + 1)
    return np.linspace(start, last, number).astype(int)


def lagged_positions(
    trajectory: Frames, origins: np.ndarray, steps: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield positions [1 + n_lags, N, 3], nm, at each time origin and at the lags behind it, and the box [3, 3] there."""
    steps = np.append(0, steps)
    batch = max(frames_at_once(trajectory.n_beads) // len(steps), 1)
    for first in range(0, len(origins), batch):
        some = origins[first : first + batch]
        frames = (some[:, None] + steps).ravel()
        positions = trajectory.positions(frames).reshape(
            len(some), len(steps), trajectory.n_beads, 3
        )
        yield from zip(positions, trajectory.boxes(some))
