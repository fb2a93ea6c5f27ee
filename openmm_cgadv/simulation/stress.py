"""The stress of a model along its own trajectory, whose fluctuations determine the shear viscosity."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .. import kernels
from ..data.trajectory import BeadTrajectory
from ..model import Model
from ..potentials import Potential, PotentialSpec

FRAMES_IN_RAM = 500
"""Number of frames that are read at once."""


def virial(
    positions: Tensor, boxes: Tensor, types: Tensor, theta: Tensor, spec: PotentialSpec
) -> Tensor:
    """Compute the virial tensors ``-Σ d_a ∂U/∂d_b`` of frames, a sum over the vectors d between beads.

    The virial is minus the derivative of the energy with respect to a strain of beads and box, which is exact for many-body
    terms.

    Parameters
    ----------
    positions : Tensor [T, N, 3]
        (nm)
    boxes : Tensor [T, 3, 3]
        (nm)
    types : Tensor [N] of int64
    theta : Tensor [P]
        Coefficients of the potential (kJ/mol).
    spec : PotentialSpec

    Returns
    -------
    Tensor [T, 3, 3]
        (kJ/mol)
    """
    if kernels.available(spec):
        return kernels.virial(positions, boxes, types, theta, spec)
    potential = Potential(spec, theta, types)
    out = []
    for x, box in zip(positions, boxes):
        strain = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
        energy = potential(x + x @ strain, box + box @ strain)
        out.append(-torch.autograd.grad(energy, strain)[0])
    return torch.stack(out)


def stress_series(model: Model, trajectory: BeadTrajectory) -> np.ndarray:
    """Compute the stress times the volume for every frame of a trajectory of a model.

    ``P_ab = Σ m v_a v_b + virial_ab``, plus the stress of pairwise friction if the model has it;
    :func:`openmm_cgadv.analysis.green_kubo.green_kubo_viscosity` takes the result.

    Parameters
    ----------
    model : Model
        The model of the trajectory; its configuration may be different.
    trajectory : BeadTrajectory
        Trajectory with velocities and, for a model with pairwise friction, the stress of friction, as
        :func:`openmm_cgadv.simulation.run.run_production` writes it.

    Returns
    -------
    ndarray [T, 3, 3]
        (kJ/mol)
    """
    theta, types = torch.as_tensor(model.theta), torch.as_tensor(trajectory.types)
    parts = []
    for first in range(0, trajectory.n_frames, FRAMES_IN_RAM):
        frames = slice(first, first + FRAMES_IN_RAM)
        x, boxes = (
            torch.as_tensor(a) for a in (trajectory.positions(frames), trajectory.boxes(frames))
        )
        v = trajectory.velocities(frames)
        kinetic = np.einsum("n,tna,tnb->tab", trajectory.masses, v, v, optimize=True)
        parts.append(kinetic + virial(x, boxes, types, theta, model.spec).numpy())
        if model.friction.between_beads:
            parts[-1] += trajectory.friction_stress(frames)
    return np.concatenate(parts)
