"""Cutoffs and spline ranges of a potential, from the pair distances in the reference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from .. import config
from ..data.trajectory import BeadTrajectory
from ..errors import InputError
from ..potentials import PairSpec, PotentialSpec, Term, ThreeBodySpec
from ..potentials.neighbors import neighbor_pairs
from ..potentials.terms.type_pairs import type_pairs
from ..units import KB


@dataclass(frozen=True)
class RangeSettings:
    """Defaults of cutoffs and spline ranges, from the mean number of neighbours."""

    rarest_pairs: float = 2e-5
    """Quantile of the pair distances at which splines begin: data below it are too rare for a fit."""
    fewest_pairs: int = 100
    """Fewest pairs of a pair of types that determine a spline."""
    n_frames: int = 60
    """Largest number of frames from which distances are sampled."""
    neighbors: float = 47
    """Mean number of neighbours inside the pair cutoff: that of water within 0.70 nm."""
    three_body_neighbors: float = 8
    """Mean number of neighbours inside the three-body cutoff: that of water within 0.40 nm."""
    friction_neighbors: float = 11
    """Mean number of neighbours inside the cutoff of pairwise friction: that of water within 0.44 nm."""
    radial_width: float = 0.047
    """Range of the three-body energy for each of its radial functions (nm)."""
    fewest_radial: int = 3
    """Fewest radial functions of the three-body energy."""
    most_radial: int = 6
    """Most radial functions of the three-body energy."""
    core_depth: float = 0.02
    """Distance below r_min at which the repulsive core has the energy `core_energy` (nm)."""
    core_energy: float = 5.0
    """Energy of the repulsive core at `core_depth` (kT)."""


def sample_frames(
    trajectory: BeadTrajectory, number: int, start: int = 0, stop: int | None = None
) -> slice:
    """Return at most ``number`` frames at equal distances between two frames of a trajectory."""
    stop = trajectory.n_frames if stop is None else stop
    return slice(start, stop, max(1, -(-(stop - start) // number)))


def pair_distances(
    trajectory: BeadTrajectory, cutoff: float, frames: slice
) -> tuple[list[np.ndarray], float]:
    """Return the distances of all pairs inside a cutoff, by pair of types, and the sum of 1/V.

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


def neighbor_radius(
    distances: np.ndarray, per_bead: float, neighbors: float, longest: float
) -> float:
    """Return the distance, to 0.01 nm, within which a bead has a given mean number of neighbours.

    Parameters
    ----------
    distances : ndarray
        Distances of all pairs, sorted (nm).
    per_bead : float
        Number of beads times number of frames.
    neighbors : float
        Mean number of neighbours.
    longest : float
        Upper bound of the result (nm).

    Returns
    -------
    float
        (nm)
    """
    rank = int(0.5 * neighbors * per_bead)
    found = distances[rank] if rank < len(distances) else longest
    return float(min(round(found, 2), np.floor(100 * longest + 1e-6) / 100))


def potential_spec(
    trajectory: BeadTrajectory,
    settings: config.Potential,
    ranges: RangeSettings = RangeSettings(),
) -> PotentialSpec:
    """Return the terms with their cutoffs and sizes, from the settings and the pair distances.

    Raises
    ------
    InputError
        A pair of types has too few pairs inside the cutoff, or a cutoff is too long.
    """
    half = _half_height(trajectory)
    cutoff, inner = settings.cutoff_nm, settings.three_body_cutoff_nm
    if cutoff is not None and cutoff > half:
        raise InputError(
            f"potential.cutoff_nm: found {cutoff:g}, expected at most {half:.3f}, half the box of the reference"
        )
    distances, per_bead = _sampled_distances(trajectory, cutoff or half, ranges)
    every = np.sort(np.concatenate(distances))
    if cutoff is None:
        cutoff = neighbor_radius(every, per_bead, ranges.neighbors, half)
        distances = [d[d < cutoff] for d in distances]
    if inner is None:
        inner = neighbor_radius(every, per_bead, ranges.three_body_neighbors, cutoff)
    if settings.three_body and inner > cutoff:
        raise InputError(
            f"potential.three_body_cutoff_nm: found {inner:g}, expected at most the pair cutoff of {cutoff:g}"
        )
    names = trajectory.type_names
    labels = [f"{a}-{b}" for i, a in enumerate(names) for b in names[i:]]
    for label, d in zip(labels, distances):
        if len(d) < ranges.fewest_pairs:
            raise InputError(
                f"potential.cutoff_nm: found {len(d)} pairs {label} inside {cutoff:g} nm in {ranges.n_frames} frames, expected "
                f"{ranges.fewest_pairs} to fit a spline"
            )
    r_min = tuple(_start(d, ranges) for d in distances)
    core = 6 * ranges.core_energy * KB * trajectory.temperature / ranges.core_depth**3
    terms: list[Term] = [PairSpec(r_min, cutoff, settings.pair_functions, (core,) * len(r_min))]
    if settings.three_body:
        radial = settings.radial_functions
        if radial is None:
            radial = round((inner - min(r_min)) / ranges.radial_width)
            radial = min(max(ranges.fewest_radial, radial), ranges.most_radial)
        terms.append(ThreeBodySpec.splines(min(r_min), inner, radial, settings.l_max))
    return PotentialSpec(tuple(names), tuple(terms))


def friction_range(
    trajectory: BeadTrajectory,
    cutoff: float | None,
    ranges: RangeSettings = RangeSettings(),
) -> tuple[tuple[float, ...], float]:
    """Return the start, for each pair of types, and the cutoff of the splines of pairwise friction (nm).

    Parameters
    ----------
    trajectory : BeadTrajectory
    cutoff : float or None
        Cutoff of the friction (nm); by default from the number of neighbours.
    ranges : RangeSettings

    Raises
    ------
    InputError
        The cutoff is longer than half the box, or a pair of types has too few pairs inside it.
    """
    half = _half_height(trajectory)
    if cutoff is not None and cutoff > half:
        raise InputError(
            f"dynamics.friction_cutoff_nm: found {cutoff:g}, expected at most {half:.3f}, half the box of the reference"
        )
    distances, per_bead = _sampled_distances(trajectory, cutoff or half, ranges)
    if cutoff is None:
        cutoff = neighbor_radius(
            np.sort(np.concatenate(distances)), per_bead, ranges.friction_neighbors, half
        )
    found = [d[d < cutoff] for d in distances]
    fewest = min(len(d) for d in found)
    if fewest < ranges.fewest_pairs:
        types = " of two bead types" if len(found) > 1 else ""
        raise InputError(
            f"dynamics.friction_cutoff_nm: found {fewest} pairs{types} inside {cutoff:g} nm in {ranges.n_frames} "
            f"frames, expected {ranges.fewest_pairs} to learn their friction"
        )
    return tuple(_start(d, ranges) for d in found), cutoff


def neighbor_range(
    trajectory: BeadTrajectory, ranges: RangeSettings = RangeSettings()
) -> tuple[float, float]:
    """Return the shortest distance of neighbours, and the default cutoff of pairwise friction (nm)."""
    half = _half_height(trajectory)
    distances, per_bead = _sampled_distances(trajectory, half, ranges)
    every = np.sort(np.concatenate(distances))
    r_cut = neighbor_radius(every, per_bead, ranges.friction_neighbors, half)
    return _start(every[every < r_cut], ranges), r_cut


def _start(distances: np.ndarray, ranges: RangeSettings) -> float:
    """Return the distance at which a spline begins (nm): a small quantile of the distances."""
    return float(np.quantile(distances, max(ranges.rarest_pairs, 5 / len(distances))))


def _half_height(trajectory: BeadTrajectory) -> float:
    """Return half the smallest height of the box (nm)."""
    heights = 1.0 / np.linalg.norm(
        np.linalg.inv(trajectory.boxes(sample_frames(trajectory, 100))), axis=1
    )
    return 0.5 * float(heights.min())


def _sampled_distances(
    trajectory: BeadTrajectory, cutoff: float, ranges: RangeSettings
) -> tuple[list[np.ndarray], int]:
    """Return the distances of pairs inside a cutoff, by pair of types (nm), and beads times frames."""
    frames = sample_frames(trajectory, ranges.n_frames)
    distances, _ = pair_distances(trajectory, cutoff, frames)
    return distances, trajectory.n_beads * len(range(frames.start, frames.stop, frames.step))
