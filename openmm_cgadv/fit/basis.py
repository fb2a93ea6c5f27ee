"""Basis functions of a potential that is linear in its parameters: U_θ = U_core + Σ_k θ_k B_k(R)."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import kernels
from ..potentials import Potential, PotentialSpec


def basis(positions: Tensor, boxes: Tensor, types: Tensor, spec: PotentialSpec) -> Tensor:
    """Return the basis functions B_k = ∂U/∂θ_k of configurations.

    Parameters
    ----------
    positions : Tensor [F, N, 3]
        (nm)
    boxes : Tensor [F, 3, 3]
        (nm)
    types : Tensor [N]
    spec : PotentialSpec

    Returns
    -------
    Tensor [F, P]
        Dimensionless.
    """
    if kernels.available(spec):
        return kernels.basis(positions, boxes, types, spec)
    potential = Potential(spec, torch.zeros(spec.n_parameters, dtype=torch.float64), types)
    rows = [
        torch.autograd.grad(potential(x, box), potential.theta)[0]
        for x, box in zip(positions, boxes)
    ]
    return torch.stack(rows)


def basis_forces(
    positions: Tensor, box: Tensor, types: Tensor, spec: PotentialSpec
) -> tuple[Tensor, Tensor]:
    """Return the forces −∂B_k/∂R of every basis function, and those of the repulsive core.

    Parameters
    ----------
    positions : Tensor [N, 3]
        (nm)
    box : Tensor [3, 3]
        (nm)
    types : Tensor [N]
    spec : PotentialSpec

    Returns
    -------
    forces : Tensor [P, N, 3]
        (1/nm); their product with the parameters (kJ/mol) is a force.
    core : Tensor [N, 3]
        (kJ/mol/nm)
    """
    if kernels.available(spec):
        core = kernels.core_forces(positions, box, types, spec)
        return kernels.basis_forces(positions, box, types, spec), core
    potential = Potential(spec, torch.zeros(spec.n_parameters, dtype=torch.float64), types)
    x = positions.detach().requires_grad_()
    energy = potential(x, box)
    (core,) = torch.autograd.grad(energy, x, retain_graph=True)
    (each,) = torch.autograd.grad(energy, potential.theta, create_graph=True)
    rows = [torch.autograd.grad(b, x, retain_graph=True)[0] for b in each]
    return -torch.stack(rows), -core
