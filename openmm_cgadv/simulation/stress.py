"""The stress of a model along its own trajectory, of which fluctuations give the shear viscosity."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .. import kernels
from ..data.trajectory import BeadTrajectory
from ..model import Model
from ..potentials import Potential, PotentialSpec

FRAMES = 500
"""Read at a time."""


def virial(
    positions: Tensor, boxes: Tensor, types: Tensor, theta: Tensor, spec: PotentialSpec
) -> Tensor:
    """Virial tensors ``-Σ d_a ∂U/∂d_b`` [T, 3, 3] of frames (kJ/mol), over distances d between beads.

    It is minus the derivative of the energy when beads and box are strained, exact for many-body terms.

    Parameters
    ----------
    positions : Tensor [T, N, 3]
        (nm)
    boxes : Tensor [T, 3, 3]
        (nm)
    types : Tensor [N] of int64
    theta : Tensor [P]
        (kJ/mol)
    spec : PotentialSpec
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
    """Volume times the stress at every frame of a run of a model.

    ``P_ab = Σ m v_a v_b + virial_ab``, and what friction between beads handed over, where there is any; for
    :func:`openmm_cgadv.analysis.green_kubo.green_kubo_viscosity`.

    Parameters
    ----------
    model : Model
        That the trajectory is of; its configuration may be another one.
    trajectory : BeadTrajectory
        With velocities and, of a model with friction between beads, that friction's stress: as from
        :func:`openmm_cgadv.simulation.run.run_production`.

    Returns
    -------
    ndarray [T, 3, 3]
        (kJ/mol)
    """
    theta, types = torch.as_tensor(model.theta), torch.as_tensor(trajectory.types)
    parts = []
    for first in range(0, trajectory.n_frames, FRAMES):
        frames = slice(first, first + FRAMES)
        x, boxes = (
            torch.as_tensor(a) for a in (trajectory.positions(frames), trajectory.boxes(frames))
        )
        v = trajectory.velocities(frames)
        kinetic = np.einsum("n,tna,tnb->tab", trajectory.masses, v, v, optimize=True)
        parts.append(kinetic + virial(x, boxes, types, theta, model.spec).numpy())
        if model.friction.between_beads:
            parts[-1] += trajectory.friction_stress(frames)
    return np.concatenate(parts)
