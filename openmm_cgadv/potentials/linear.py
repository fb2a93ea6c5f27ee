"""The potential as a linear function of its parameters: U_θ = U_core + Σ_k θ_k B_k(R)."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import kernels
from .neighbors import neighbor_pairs
from .pair import PairSplines, type_pairs
from .potential import Potential
from .spec import PotentialSpec
from .threebody import ThreeBodyDensity


def basis(positions: Tensor, boxes: Tensor, types: Tensor, spec: PotentialSpec) -> Tensor:
    """Basis functions B_k = ∂U/∂θ_k of configurations.

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
    if kernels.available():
        return kernels.basis(positions, boxes, types, spec)
    potential = Potential(spec, torch.zeros(spec.n_parameters, dtype=torch.float64), types)
    rows = [torch.autograd.grad(potential(x, box), potential.theta)[0] for x, box in zip(positions, boxes)]
    return torch.stack(rows)


@torch.no_grad()
def bead_basis(positions: Tensor, box: Tensor, types: Tensor, spec: PotentialSpec) -> Tensor:
    """What each bead has of the basis functions: half of those of its pairs, and all three-body functions around it.

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
    Tensor [N, P]
        Dimensionless. Their sums over the beads are :func:`basis`.
    """
    i, j, d, r = neighbor_pairs(positions, box, spec.r_cut)
    n, size = len(positions), spec.pair.n_basis
    near = r < spec.pair.r_cut
    pair = type_pairs(types[i[near]], types[j[near]], spec.n_types)
    where, weights = PairSplines(spec).functions(pair, r[near])
    halves = r.new_zeros([n, spec.n_type_pairs * (size + 3)])
    for bead in (i[near], j[near]):
        halves.index_put_((bead[:, None], where), 0.5 * weights, accumulate=True)
    parts = [halves.reshape(n, spec.n_type_pairs, size + 3)[..., :size].flatten(1)]
    if spec.three_body is not None:
        near = r < spec.three_body.r_cut
        i, j, d, r = i[near], j[near], d[near], r[near]
        both = torch.cat([i, j]), torch.cat([j, i]), torch.cat([d, -d]), torch.cat([r, r])
        functions = ThreeBodyDensity(spec).functions(types, *both)
        of_types = torch.nn.functional.one_hot(types, spec.n_types).to(r.dtype)
        parts.append(torch.einsum("na,npl->napl", of_types, functions).flatten(1))
    return torch.cat(parts, 1)


def basis_forces(positions: Tensor, box: Tensor, types: Tensor, spec: PotentialSpec) -> tuple[Tensor, Tensor]:
    """Forces −∂B_k/∂R of every basis function, and of the repulsive core.

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
        (1/nm), times a parameter (kJ/mol) a force.
    core : Tensor [N, 3]
        (kJ/mol/nm)
    """
    if kernels.available():
        core = kernels.core_forces(positions, box, types, spec)
        return kernels.basis_forces(positions, box, types, spec), core
    potential = Potential(spec, torch.zeros(spec.n_parameters, dtype=torch.float64), types)
    x = positions.detach().requires_grad_()
    energy = potential(x, box)
    (core,) = torch.autograd.grad(energy, x, retain_graph=True)
    (each,) = torch.autograd.grad(energy, potential.theta, create_graph=True)
    rows = [torch.autograd.grad(b, x, retain_graph=True)[0] for b in each]
    return -torch.stack(rows), -core
