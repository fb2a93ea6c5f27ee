"""What a fit prefers where the data say nothing: smooth pair splines and small three-body coefficients."""

from __future__ import annotations

import numpy as np

from ..potentials import PotentialSpec


def roughness(spec: PotentialSpec) -> np.ndarray:
    """Matrix [P, P] of the penalty: squared second differences of pair coefficients, squares of the others."""
    n = spec.pair.n_basis
    difference = np.diff(np.eye(n + 3), 2, axis=0)[:, :n]
    penalty = np.eye(spec.n_parameters)
    for p in range(spec.n_type_pairs):
        penalty[p * n : (p + 1) * n, p * n : (p + 1) * n] = difference.T @ difference + 1e-3 * np.eye(n)
    return penalty
