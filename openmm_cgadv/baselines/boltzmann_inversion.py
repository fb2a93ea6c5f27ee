"""Boltzmann inversion: the pair potential of mean force, u(r) = −kT ln g(r)."""

from __future__ import annotations

import numpy as np
import torch

from ..potentials import PotentialSpec
from ..potentials.splines import spline_weights
from ..trajectory import BeadTrajectory
from ..units import KB
from .ranges import pair_distances, sample_frames
from .regularization import roughness

BIN = 0.002
"""Width of the bins of g(r) (nm)."""


def boltzmann_inversion(
    trajectory: BeadTrajectory, spec: PotentialSpec, n_frames: int = 400
) -> tuple[np.ndarray, np.ndarray, dict]:
    """Fit the pair splines to the potential of mean force; three-body coefficients are zero.

    Bins of g(r) are weighted by their counts, whose Poisson error is that of ln g.

    Returns
    -------
    theta, stderr : ndarray [P]
        (kJ/mol)
    report : dict
        Weighted root mean square of the fit's residual, on the half of the frames that was fitted and on the
        other (kJ/mol).
    """
    kT = KB * trajectory.temperature
    edges = np.arange(0.0, spec.pair.r_cut, BIN)
    center = 0.5 * (edges[1:] + edges[:-1])
    shell = 4 / 3 * np.pi * np.diff(edges**3)
    numbers = np.bincount(trajectory.types, minlength=spec.n_types)
    half = trajectory.n_frames // 2
    inverted = []
    for start, stop in [(0, half), (half, trajectory.n_frames)]:
        frames = sample_frames(trajectory, n_frames, start, stop)
        inverted.append(pair_distances(trajectory, spec.pair.r_cut, frames))

    theta, stderr = np.zeros(spec.n_parameters), np.zeros(spec.n_parameters)
    residual = np.zeros(2)
    weight = np.zeros(2)
    penalty = roughness(spec)
    n = spec.pair.n_basis
    for a in range(spec.n_types):
        for b in range(a, spec.n_types):
            p = spec.type_pair(a, b)
            pairs = numbers[a] * numbers[b] if a != b else 0.5 * numbers[a] * (numbers[a] - 1)
            first, weights = spline_weights(
                torch.from_numpy(center), torch.full([len(center)], spec.pair.r_min[p]), spec.pair.r_cut, n
            )
            design = np.zeros([len(center), n + 3])
            np.put_along_axis(design, first.numpy()[:, None] + np.arange(4), weights.numpy(), 1)
            design = design[:, :n]
            own = slice(p * n, (p + 1) * n)
            for part, (distances, frames_per_volume) in enumerate(inverted):
                counts, _ = np.histogram(distances[p], edges)
                g = counts / (pairs * frames_per_volume * shell)
                seen = (counts > 0) & (center > spec.pair.r_min[p])
                target = -kT * np.log(g[seen])
                if part == 0:
                    w = counts[seen] / kT**2
                    normal = design[seen].T @ (w[:, None] * design[seen])
                    strength = 1e-6 * np.trace(normal) / n
                    inverse = np.linalg.inv(normal + strength * penalty[own, own])
                    theta[own] = inverse @ (design[seen].T @ (w * target))
                    stderr[own] = np.sqrt(np.diag(inverse @ normal @ inverse))
                residual[part] += (counts[seen] * (design[seen] @ theta[own] - target) ** 2).sum()
                weight[part] += counts[seen].sum()
    error = np.sqrt(residual / weight)
    report = {"method": "boltzmann_inversion", "energy_error": error[0], "held_out_energy_error": error[1]}
    return theta, stderr, {k: v if isinstance(v, str) else float(v) for k, v in report.items()}
