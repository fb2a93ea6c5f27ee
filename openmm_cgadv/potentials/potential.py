"""The learned potential energy U_θ(R) of a set of beads, the sum of its terms."""

import json

import torch
from torch import Tensor

from ..errors import InputError
from .neighbors import neighbor_pairs
from .spec import PotentialSpec


class Potential(torch.nn.Module):
    """Compute U_θ(R) in plain torch operators, which TorchScript compiles and which need no compiled kernels.

    It is the reference implementation of the faster :mod:`openmm_cgadv.kernels`.

    Parameters
    ----------
    spec : PotentialSpec
        Types, cutoffs and basis sizes.
    theta : Tensor [P]
        Parameters (kJ/mol), in the order given by :class:`PotentialSpec`.
    types : Tensor [N] of int64
        Bead types.

    Raises
    ------
    InputError
        The number of parameters is not that of the potential.
    """

    types: Tensor
    sizes: list[int]

    def __init__(self, spec: PotentialSpec, theta: Tensor, types: Tensor) -> None:
        super().__init__()
        if theta.shape != (spec.n_parameters,):
            raise InputError(
                f"theta: found shape {tuple(theta.shape)}, expected ({spec.n_parameters},)"
            )
        self.theta = torch.nn.Parameter(theta.detach().clone().to(torch.float64))
        self.register_buffer("types", types.to(torch.int64))
        self.description: str = json.dumps(spec.to_dict())
        self.r_cut: float = float(spec.r_cut)
        self.sizes = [term.n_parameters(spec.n_types) for term in spec.terms]
        self.terms = torch.nn.ModuleList(term.module(spec.n_types) for term in spec.terms)

    def forward(self, positions: Tensor, box: Tensor) -> Tensor:
        """Return the potential energy.

        Parameters
        ----------
        positions : Tensor [N, 3]
            (nm), in any periodic image.
        box : Tensor [3, 3]
            Box vectors in rows, in OpenMM's reduced form (nm).

        Returns
        -------
        Tensor []
            (kJ/mol), in double precision for positions of any precision.
        """
        positions = positions.to(self.theta.dtype)
        box = box.to(self.theta.dtype)
        i, j, displacement, distance = neighbor_pairs(positions, box, self.r_cut)
        parameters = torch.split(self.theta, self.sizes)
        energy = torch.zeros([], dtype=self.theta.dtype, device=positions.device)
        for k, term in enumerate(self.terms):
            energy = energy + term(parameters[k], self.types, i, j, displacement, distance)
        return energy
