"""Boltzmann inversion: the pair potential of mean force, u(r) = −kT ln g(r)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..data.trajectory import BeadTrajectory
from ..potentials import PotentialSpec
from ..units import KB
from .ranges import pair_distances, sample_frames


@dataclass(frozen=True)
class InversionSettings:
    """Settings of Boltzmann inversion."""

    n_frames: int = 400
    """Largest number of frames from each half of the trajectory."""
    bin_width: float = 0.002
    """Width of the bins of g(r) (nm)."""
    ridge: float = 1e-6
    """Weight of the regularization, relative to the mean diagonal of the normal matrix."""


def boltzmann_inversion(
    trajectory: BeadTrajectory,
    spec: PotentialSpec,
    settings: InversionSettings = InversionSettings(),
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Fit the pair energies to the potential of mean force; all other parameters are zero.

    Bins of g(r) are weighted by their counts: the Poisson variance of ln g is the inverse count.

    Parameters
    ----------
    trajectory : BeadTrajectory
    spec : PotentialSpec
    settings : InversionSettings

    Returns
    -------
    theta, stderr : ndarray [P]
        (kJ/mol)
    report : dict
        Weighted root mean square of the residual of the fit, on the fitted half of the frames and on the
        other half (kJ/mol).
    """
    kT = KB * trajectory.temperature
    curves = spec.pair_curves()
    r_cut = max(curve.r_cut for curve in curves)
    edges = np.arange(0.0, r_cut, settings.bin_width)
    center = 0.5 * (edges[1:] + edges[:-1])
    shell = 4 / 3 * np.pi * np.diff(edges**3)
    numbers = np.bincount(trajectory.types, minlength=spec.n_types)
    half = trajectory.n_frames // 2
    inverted = []
    for start, stop in [(0, half), (half, trajectory.n_frames)]:
        frames = sample_frames(trajectory, settings.n_frames, start, stop)
        inverted.append(pair_distances(trajectory, r_cut, frames))

    theta, stderr = np.zeros(spec.n_parameters), np.zeros(spec.n_parameters)
    residual = np.zeros(2)
    weight = np.zeros(2)
    penalty = spec.penalty()
    for curve in curves:
        a, b = curve.types
        pairs = numbers[a] * numbers[b] if a != b else 0.5 * numbers[a] * (numbers[a] - 1)
        design, fixed = (part.numpy() for part in curve.design(torch.from_numpy(center)))
        own = curve.parameters
        for part, (distances, frames_per_volume) in enumerate(inverted):
            counts, _ = np.histogram(distances[spec.type_pair(a, b)], edges)
            g = counts / (pairs * frames_per_volume * shell)
            observed = (counts > 0) & (center > curve.r_min) & (center < curve.r_cut)
            target = -kT * np.log(g[observed]) - fixed[observed]
            if part == 0:
                w = counts[observed] / kT**2
                normal = design[observed].T @ (w[:, None] * design[observed])
                strength = settings.ridge * np.trace(normal) / len(normal)
                inverse = np.linalg.inv(normal + strength * penalty[np.ix_(own, own)])
                theta[own] = inverse @ (design[observed].T @ (w * target))
                stderr[own] = np.sqrt(np.diag(inverse @ normal @ inverse))
            residual[part] += (
                counts[observed] * (design[observed] @ theta[own] - target) ** 2
            ).sum()
            weight[part] += counts[observed].sum()
    error = np.sqrt(residual / weight)
    report = {
        "method": "boltzmann_inversion",
        "energy_error": error[0],
        "held_out_energy_error": error[1],
    }
    return theta, stderr, {k: v if isinstance(v, str) else float(v) for k, v in report.items()}
