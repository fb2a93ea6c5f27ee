"""The ranges of the splines of a potential, from the distances that occur in the reference."""

from __future__ import annotations

import numpy as np
import torch

from .. import config
from ..potentials import PairSpec, PotentialSpec, ThreeBodySpec
from ..potentials.neighbors import neighbor_pairs
from ..potentials.pair import type_pairs
from ..trajectory import BeadTrajectory
from ..units import KB

RAREST_PAIRS = 2e-5
"""Fraction of the pairs inside the cutoff below whose distance the data are too few to fit a spline."""

NEIGHBORS = 47
"""Mean number of neighbours inside the pair cutoff that is chosen where none is given: that of water within 0.70 nm."""

THREE_BODY_NEIGHBORS = 8
"""The same of the three-body energy: that of water within 0.40 nm."""

RADIAL_WIDTH, LEAST_RADIAL, MOST_RADIAL = 0.047, 3, 6
"""Share of the range of the three-body energy for each of its radial functions (nm), and how many there are at least and at most."""

FRICTION_NEIGHBORS = 11
"""The same of the friction between pairs: that of water within 0.44 nm."""

CORE_DEPTH = 0.02
"""Depth below r_min at which the repulsive core has reached CORE_ENERGY (nm)."""

CORE_ENERGY = 5.0
"""(kT)"""


def sample_frames(trajectory: BeadTrajectory, number: int, start: int = 0, stop: int | None = None) -> slice:
    """At most ``number`` frames spread evenly between two frames of a trajectory."""
    stop = trajectory.n_frames if stop is None else stop
    return slice(start, stop, max(1, -(-(stop - start) // number)))


def pair_distances(trajectory: BeadTrajectory, cutoff: float, frames: slice) -> tuple[list[np.ndarray], float]:
    """Distances of all pairs inside the cutoff, for each pair of types, and the number of frames times density.

    Returns
    -------
    distances : list of ndarray
        One array a pair of types, in row-major upper-triangle order (nm).
    frames_per_volume : float
        Σ over the frames of 1/V (nm⁻³), which normalizes a radial distribution function.
    """
    types = torch.from_numpy(trajectory.types)
    n_types = len(trajectory.type_names)
    found: list[list[np.ndarray]] = [[] for _ in range(n_types * (n_types + 1) // 2)]
    frames_per_volume = 0.0
    for x, box in zip(trajectory.positions(frames), trajectory.boxes(frames)):
        i, j, _, r = neighbor_pairs(torch.from_numpy(x), torch.from_numpy(box), cutoff)
        pair = type_pairs(types[i], types[j], n_types).numpy()
        for p, distances in enumerate(found):
            distances.append(r.numpy()[pair == p])
        frames_per_volume += 1.0 / abs(np.linalg.det(box))
    return [np.concatenate(d) for d in found], frames_per_volume


def neighbor_radius(distances: np.ndarray, per_bead: float, neighbors: float, longest: float) -> float:
    """Distance within which a bead has so many neighbours on average, to 0.01 nm.

    Parameters
    ----------
    distances : ndarray
        Distances of all pairs, sorted (nm).
    per_bead : float
        Number of beads times number of frames that they were found in.
    neighbors : float
    longest : float
        The result is at most this (nm).

    Returns
    -------
    float
        (nm)
    """
    rank = int(0.5 * neighbors * per_bead)
    found = distances[rank] if rank < len(distances) else longest
    return float(min(round(found, 2), np.floor(100 * longest + 1e-6) / 100))


def potential_spec(trajectory: BeadTrajectory, settings: config.Potential) -> PotentialSpec:
    """Ranges and sizes of every term, from the settings and the distances that occur.

    Raises
    ------
    ValueError
        If a pair of types never comes inside the cutoff, or a cutoff is too long.
    """
    half = _half_height(trajectory)
    cutoff, inner = settings.cutoff_nm, settings.three_body_cutoff_nm
    if cutoff is not None and cutoff > half:
        raise ValueError(
            f"potential.cutoff_nm: found {cutoff:g}, expected at most {half:.3f}, half the box of the reference"
        )
    frames = sample_frames(trajectory, 60)
    distances, _ = pair_distances(trajectory, cutoff or half, frames)
    every = np.sort(np.concatenate(distances))
    per_bead = trajectory.n_beads * len(range(frames.start, frames.stop, frames.step))
    if cutoff is None:
        cutoff = neighbor_radius(every, per_bead, NEIGHBORS, half)
        distances = [d[d < cutoff] for d in distances]
    if inner is None:
        inner = neighbor_radius(every, per_bead, THREE_BODY_NEIGHBORS, cutoff)
    if settings.three_body and inner > cutoff:
        raise ValueError(
            f"potential.three_body_cutoff_nm: found {inner:g}, expected at most the pair cutoff of {cutoff:g}"
        )
    names = trajectory.type_names
    labels = [f"{a}-{b}" for i, a in enumerate(names) for b in names[i:]]
    for label, d in zip(labels, distances):
        if len(d) < 100:
            raise ValueError(
                f"potential.cutoff_nm: found {len(d)} pairs {label} inside {cutoff:g} nm in 60 frames, expected 100 to fit a spline"
            )
    r_min = tuple(float(np.quantile(d, max(RAREST_PAIRS, 5 / len(d)))) for d in distances)
    core = 6 * CORE_ENERGY * KB * trajectory.temperature / CORE_DEPTH**3
    three_body = None
    if settings.three_body:
        radial = settings.radial_functions
        if radial is None:
            radial = min(max(LEAST_RADIAL, round((inner - min(r_min)) / RADIAL_WIDTH)), MOST_RADIAL)
        three_body = ThreeBodySpec.splines(min(r_min), inner, radial, settings.l_max)
    pair = PairSpec(r_min, cutoff, settings.pair_functions, (core,) * len(r_min))
    return PotentialSpec(tuple(names), pair, three_body)


def friction_range(trajectory: BeadTrajectory, cutoff: float | None) -> tuple[tuple[float, ...], float]:
    """Start, for each pair of types, and end of the splines of a friction between pairs (nm).

    Parameters
    ----------
    trajectory : BeadTrajectory
    cutoff : float or None
        Range of the friction (nm); found from the number of neighbours if None.

    Raises
    ------
    ValueError
        If the cutoff is longer than half the box, or a pair of types never comes inside it.
    """
    half = _half_height(trajectory)
    if cutoff is not None and cutoff > half:
        raise ValueError(
            f"dynamics.friction_cutoff_nm: found {cutoff:g}, expected at most {half:.3f}, half the box of the reference"
        )
    distances, per_bead = _near(trajectory, cutoff or half)
    if cutoff is None:
        cutoff = neighbor_radius(np.sort(np.concatenate(distances)), per_bead, FRICTION_NEIGHBORS, half)
    found = [d[d < cutoff] for d in distances]
    fewest = min(len(d) for d in found)
    if fewest < 100:
        kinds = " of two bead types" if len(found) > 1 else ""
        raise ValueError(
            f"dynamics.friction_cutoff_nm: found {fewest} pairs{kinds} inside {cutoff:g} nm in 60 frames, "
            "expected 100 to learn their friction"
        )
    return tuple(float(np.quantile(d, max(RAREST_PAIRS, 5 / len(d)))) for d in found), cutoff


def neighbor_range(trajectory: BeadTrajectory) -> tuple[float, float]:
    """Distances of the neighbours of a bead: the shortest that occurs, and that within which there are as many as
    friction between pairs has by default (nm)."""
    half = _half_height(trajectory)
    distances, per_bead = _near(trajectory, half)
    every = np.sort(np.concatenate(distances))
    r_cut = neighbor_radius(every, per_bead, FRICTION_NEIGHBORS, half)
    found = every[every < r_cut]
    return float(np.quantile(found, max(RAREST_PAIRS, 5 / len(found)))), r_cut


def _half_height(trajectory: BeadTrajectory) -> float:
    """Half the smallest height of the box (nm)."""
    heights = 1.0 / np.linalg.norm(np.linalg.inv(trajectory.boxes(sample_frames(trajectory, 100))), axis=1)
    return 0.5 * float(heights.min())


def _near(trajectory: BeadTrajectory, cutoff: float) -> tuple[list[np.ndarray], int]:
    """Distances of all pairs inside a cutoff in some frames, by pair of types (nm), and beads times frames."""
    frames = sample_frames(trajectory, 60)
    distances, _ = pair_distances(trajectory, cutoff, frames)
    return distances, trajectory.n_beads * len(range(frames.start, frames.stop, frames.step))
