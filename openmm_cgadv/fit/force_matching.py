"""Force matching: the potential of mean force from a least-squares fit to the all-atom forces on beads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..data.trajectory import BeadTrajectory
from ..potentials import PotentialSpec
from .basis import basis_forces
from .ranges import sample_frames


@dataclass(frozen=True)
class ForceMatchingSettings:
    """Settings of force matching."""

    n_frames: int = 200
    """Largest number of frames from each half of the trajectory."""
    ridge: float = 1e-6
    """Weight of the regularization, relative to the mean diagonal of the normal matrix."""


def _normal_equations(
    trajectory: BeadTrajectory, spec: PotentialSpec, frames: slice
) -> tuple[np.ndarray, np.ndarray, float, int]:
    """Return XᵀX, XᵀF, FᵀF and the number of rows of ``F_AA − F_core = X θ``."""
    types = torch.from_numpy(trajectory.types)
    p = spec.n_parameters
    matrix, vector, square, rows = np.zeros([p, p]), np.zeros(p), 0.0, 0
    for x, f, box in zip(
        trajectory.positions(frames), trajectory.forces(frames), trajectory.boxes(frames)
    ):
        each, core = basis_forces(torch.from_numpy(x), torch.from_numpy(box), types, spec)
        design = each.reshape(p, -1).numpy()
        target = (f - core.numpy()).reshape(-1)
        matrix += design @ design.T
        vector += design @ target
        square += target @ target
        rows += len(target)
    return matrix, vector, square, rows


def force_matching(
    trajectory: BeadTrajectory,
    spec: PotentialSpec,
    settings: ForceMatchingSettings = ForceMatchingSettings(),
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Fit the potential to the forces of the first half of a trajectory.

    The normal equations are those of Noid, Chu, Ayton and Voth 2008 (doi:10.1063/1.2938860). The
    regularization is that of each term (:meth:`PotentialSpec.penalty`).

    Parameters
    ----------
    trajectory : BeadTrajectory
        With forces.
    spec : PotentialSpec
    settings : ForceMatchingSettings

    Returns
    -------
    theta : ndarray [P]
        (kJ/mol)
    stderr : ndarray [P]
        Standard errors for independent residual forces (kJ/mol).
    report : dict
        Root mean square of the residual force on both halves (kJ/mol/nm), and relative to that of the force.
    """
    half = trajectory.n_frames // 2
    matrix, vector, square, rows = _normal_equations(
        trajectory, spec, sample_frames(trajectory, settings.n_frames, 0, half)
    )
    strength = settings.ridge * np.trace(matrix) / len(matrix)
    inverse = np.linalg.inv(matrix + strength * spec.penalty())
    theta = inverse @ vector

    def error(
        matrix: np.ndarray, vector: np.ndarray, square: float, rows: int
    ) -> tuple[float, float]:
        residual = (theta @ matrix @ theta - 2 * theta @ vector + square) / rows
        return float(np.sqrt(residual)), float(np.sqrt(residual / (square / rows)))

    fitted, relative = error(matrix, vector, square, rows)
    stderr = fitted * np.sqrt(np.diag(inverse @ matrix @ inverse))
    held_out = sample_frames(trajectory, settings.n_frames, half)
    other, other_relative = error(*_normal_equations(trajectory, spec, held_out))
    report = {
        "method": "force_matching",
        "force_error": fitted,
        "force_error_relative": relative,
        "held_out_force_error": other,
        "held_out_force_error_relative": other_relative,
    }
    return theta, stderr, report
