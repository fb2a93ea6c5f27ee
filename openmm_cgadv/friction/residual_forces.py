"""Residual forces: all-atom forces on beads minus those of a potential."""

from __future__ import annotations

import numpy as np
import torch

from .. import kernels
from ..data.trajectory import BeadTrajectory
from ..dynamics.rollout import energy_and_forces
from ..potentials import Potential, PotentialSpec


def modelled_forces(
    trajectory: BeadTrajectory, spec: PotentialSpec, theta: np.ndarray, frames: list[int] | slice
) -> np.ndarray:
    """Return the forces [F, N, 3] (kJ/mol/nm) of a potential in the given frames."""
    types, parameters = torch.from_numpy(trajectory.types), torch.from_numpy(theta)
    potential = Potential(spec, parameters, types)

    def one(x: torch.Tensor, box: torch.Tensor) -> torch.Tensor:
        if kernels.available(spec):
            return kernels.energy_forces(x, box, types, parameters, spec)[1]
        return energy_and_forces(potential, x, box)[1]

    positions, boxes = (
        torch.from_numpy(trajectory.positions(frames)),
        torch.from_numpy(trajectory.boxes(frames)),
    )
    return torch.stack([one(x, box) for x, box in zip(positions, boxes)]).numpy()


def residual_forces(
    trajectory: BeadTrajectory, spec: PotentialSpec, theta: np.ndarray, frames: list[int] | slice
) -> np.ndarray:
    """Return the forces of the reference minus those of a potential [F, N, 3] (kJ/mol/nm)."""
    return trajectory.forces(frames) - modelled_forces(trajectory, spec, theta, frames)
