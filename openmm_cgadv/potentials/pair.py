"""Pair energy: a cubic B-spline for every pair of bead types, with a fixed repulsive core."""

import torch
from torch import Tensor

from .spec import PotentialSpec
from .splines import spline_weights


def type_pairs(type_i: Tensor, type_j: Tensor, n_types: int) -> Tensor:
    """Indices [M] of unordered pairs of bead types, in the order of :meth:`PotentialSpec.type_pair`."""
    a, b = torch.minimum(type_i, type_j), torch.maximum(type_i, type_j)
    return a * n_types - torch.div(a * (a - 1), 2, rounding_mode="floor") + (b - a)


class PairSplines(torch.nn.Module):
    """u_ab(r) = Σ_k c_abk B_k(r), plus κ_ab/6 (r_min − r)³ below r_min.

    The spline vanishes to second order at the cutoff and goes on linearly below ``r_min``; see
    :func:`openmm_cgadv.potentials.splines.spline_weights`.
    """

    def __init__(self, spec: PotentialSpec):
        super().__init__()
        self.r_cut: float = float(spec.pair.r_cut)
        self.n_basis: int = spec.pair.n_basis
        self.n_types: int = spec.n_types
        self.register_buffer("r_min", torch.tensor(spec.pair.r_min, dtype=torch.float64))
        self.register_buffer("core", torch.tensor(spec.pair.core, dtype=torch.float64))

    def forward(self, coefficients: Tensor, type_i: Tensor, type_j: Tensor, distance: Tensor) -> Tensor:
        """Energies of the pairs.

        Parameters
        ----------
        coefficients : Tensor [n_type_pairs, n_basis]
            Spline coefficients (kJ/mol).
        type_i, type_j : Tensor [M] of int64
            Bead types of each pair.
        distance : Tensor [M]
            Distances below the cutoff (nm).

        Returns
        -------
        Tensor [M]
            (kJ/mol)
        """
        pair = type_pairs(type_i, type_j, self.n_types)
        r_min = self.r_min[pair]
        first, weights = spline_weights(distance, r_min, self.r_cut, self.n_basis)
        padded = torch.nn.functional.pad(coefficients, [0, 3]).reshape(-1)
        index = (pair * (self.n_basis + 3) + first)[:, None] + torch.arange(4, device=first.device)
        overlap = torch.clamp(r_min - distance, min=0.0)
        return (weights * padded[index]).sum(-1) + self.core[pair] / 6.0 * overlap * overlap * overlap
