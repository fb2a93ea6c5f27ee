"""Forces of a potential in frames of a reference, and what they leave out of the all-atom ones."""

from __future__ import annotations

import numpy as np
import torch

from .. import kernels
from ..dynamics.rollout import energy_and_forces
from ..potentials import Potential, PotentialSpec
from ..trajectory import BeadTrajectory


def modelled_forces(
    trajectory: BeadTrajectory, spec: PotentialSpec, theta: np.ndarray, frames: list[int] | slice
) -> np.ndarray:
    """Forces [F, N, 3] (kJ/mol/nm) of a potential in some frames."""
    types, parameters = torch.from_numpy(trajectory.types), torch.from_numpy(theta)
    potential = Potential(spec, parameters, types)

    def one(x, box):
        if kernels.available():
            return kernels.energy_forces(x, box, types, parameters, spec)[1]
        return energy_and_forces(potential, x, box)[1]

    positions, boxes = torch.from_numpy(trajectory.positions(frames)), torch.from_numpy(trajectory.boxes(frames))
    return torch.stack([one(x, box) for x, box in zip(positions, boxes)]).numpy()


def residual_forces(
    trajectory: BeadTrajectory, spec: PotentialSpec, theta: np.ndarray, frames: list[int] | slice
) -> np.ndarray:
    """Forces of the reference less those of a potential, in some frames [F, N, 3] (kJ/mol/nm)."""
    return trajectory.forces(frames) - modelled_forces(trajectory, spec, theta, frames)
