"""The learned potential energy U_θ(R) of a set of beads: pair splines and three-body densities."""

import json

import torch
from torch import Tensor

from .neighbors import neighbor_pairs
from .pair import PairSplines
from .spec import PotentialSpec
from .threebody import ThreeBodyDensity


class Potential(torch.nn.Module):
    """U_θ(R) in plain torch operators, so that TorchScript compiles it and any machine runs it.

    It is the reference implementation of :mod:`openmm_cgadv.kernels`, which is faster.

    Parameters
    ----------
    spec : PotentialSpec
        Types, ranges and basis sizes.
    theta : Tensor [P]
        Parameters (kJ/mol), in the order given by :class:`PotentialSpec`.
    types : Tensor [N] of int64
        Bead types.
    """

    def __init__(self, spec: PotentialSpec, theta: Tensor, types: Tensor):
        super().__init__()
        if theta.shape != (spec.n_parameters,):
            raise ValueError(f"theta: found shape {tuple(theta.shape)}, expected ({spec.n_parameters},)")
        self.theta = torch.nn.Parameter(theta.detach().clone().to(torch.float64))
        self.register_buffer("types", types.to(torch.int64))
        self.description: str = json.dumps(spec.to_dict())
        self.r_cut: float = float(spec.r_cut)
        self.pair_cut: float = float(spec.pair.r_cut)
        self.n_pair: int = spec.n_pair_parameters
        self.n_type_pairs: int = spec.n_type_pairs
        self.n_types: int = spec.n_types
        self.n_channel_pairs: int = spec.n_channel_pairs
        self.pair = PairSplines(spec)
        self.three_body = ThreeBodyDensity(spec) if spec.three_body is not None else None

    def forward(self, positions: Tensor, box: Tensor) -> Tensor:
        """Potential energy.

        Parameters
        ----------
        positions : Tensor [N, 3]
            (nm), in any periodic image.
        box : Tensor [3, 3]
            Box vectors in rows, in OpenMM's reduced form (nm).

        Returns
        -------
        Tensor []
            (kJ/mol), in double precision whatever the precision of the positions.
        """
        positions = positions.to(self.theta.dtype)
        box = box.to(self.theta.dtype)
        i, j, d, r = neighbor_pairs(positions, box, self.r_cut)
        near = r < self.pair_cut
        coefficients = self.theta[: self.n_pair].reshape(self.n_type_pairs, -1)
        energy = self.pair(coefficients, self.types[i[near]], self.types[j[near]], r[near]).sum()
        three_body = self.three_body
        if three_body is not None:
            near = r < three_body.r_cut
            i, j, d, r = i[near], j[near], d[near], r[near]
            coefficients = self.theta[self.n_pair :].reshape(self.n_types, self.n_channel_pairs, -1)
            energy = energy + three_body(
                coefficients, self.types, torch.cat([i, j]), torch.cat([j, i]), torch.cat([d, -d]), torch.cat([r, r])
            ).sum()
        return energy
