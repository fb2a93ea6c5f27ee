"""Tells configurations apart by how the neighbours of a bead are arranged: an equivariant graph encoder."""

from __future__ import annotations

import torch
from e3nn import o3
from torch import Tensor

from ..potentials.neighbors import neighbor_pairs
from ..potentials.splines import spline_weights
from .dynamics import perceptron


class StructureDiscriminator(torch.nn.Module):
    """One logit for every bead of a configuration.

    Messages from the neighbours are sums of edges, ``A_nl = Σ_j R_n(r_ij) Y_l(r_ij)``, one set for each
    type of neighbour. They are mixed linearly, and their invariants of second and third order go into a
    perceptron. The radial functions R_n are fixed splines, so the sums are computed once a configuration,
    outside the discriminator's own steps.

    Parameters
    ----------
    n_types : int
        Number of bead types.
    r_min, r_cut : float
        Range of the radial functions (nm).
    n_radial : int
        Number of radial functions.
    l_max : int
        Highest order of the spherical harmonics.
    channels : int
        Mixtures kept of every order.
    """

    def __init__(
        self, n_types: int, r_min: float, r_cut: float, n_radial: int = 12, l_max: int = 4, channels: int = 8
    ):
        super().__init__()
        self.n_types, self.r_min, self.r_cut, self.n_radial, self.l_max = n_types, r_min, r_cut, n_radial, l_max
        inputs = n_types * n_radial
        self.register_buffer("scale", torch.ones(l_max + 1))
        self.register_buffer("mean", torch.zeros(inputs))
        self.mix = torch.nn.ModuleList()
        self.power = torch.nn.ModuleList()
        for l in range(l_max + 1):
            irrep = o3.Irrep(l, (-1) ** l)
            self.mix.append(o3.Linear(o3.Irreps([(inputs, irrep)]), o3.Irreps([(channels, irrep)])))
            self.power.append(o3.ElementwiseTensorProduct(*[o3.Irreps([(channels, irrep)])] * 2, ["0e"]))
        triple = o3.Irreps(f"{channels}x1o + {channels}x2e")
        self.product = o3.FullyConnectedTensorProduct(triple, triple, f"{channels}x2e")
        self.contract = o3.ElementwiseTensorProduct(f"{channels}x2e", f"{channels}x2e", ["0e"])
        self.kind = torch.nn.Embedding(n_types, channels)
        self.logit = perceptron(channels * (l_max + 4), 64, 1)

    def densities(self, positions: Tensor, box: Tensor, types: Tensor) -> Tensor:
        """Edge sums [N, n_types · n_radial, (l_max + 1)²] of one configuration [N, 3] (nm)."""
        i, j, d, r = neighbor_pairs(positions, box, self.r_cut)
        i, j, d, r = torch.cat([i, j]), torch.cat([j, i]), torch.cat([d, -d]), torch.cat([r, r])
        start = torch.full_like(r, self.r_min)
        first, weights = spline_weights(r, start, self.r_cut, self.n_radial)
        radial = r.new_zeros([len(r), self.n_radial + 3]).scatter(
            1, first[:, None] + torch.arange(4), weights
        )[:, : self.n_radial]  # fmt: skip
        harmonics = o3.spherical_harmonics(list(range(self.l_max + 1)), d, normalize=True, normalization="norm")
        edges = radial[:, :, None] * harmonics[:, None, :]
        sums = r.new_zeros([len(positions) * self.n_types, self.n_radial, harmonics.shape[1]])
        sums = sums.index_add(0, i * self.n_types + types[j], edges)
        return sums.reshape(len(positions), self.n_types * self.n_radial, -1)

    def standardize(self, densities: Tensor) -> None:
        """Set the units of the inputs from all-atom densities."""
        self.mean.copy_(densities[:, :, 0].mean(0))
        for l in range(self.l_max + 1):
            block = densities[:, :, l * l : (l + 1) ** 2]
            if l == 0:
                block = block - self.mean[:, None].to(block)
            self.scale[l] = block.square().mean().sqrt()

    def inputs(self, densities: Tensor) -> Tensor:
        """Standardized densities."""
        order = torch.repeat_interleave(torch.arange(self.l_max + 1), 2 * torch.arange(self.l_max + 1) + 1)
        shift = torch.zeros_like(densities[0])
        shift[:, 0] = self.mean
        return ((densities - shift) / self.scale[order]).to(torch.get_default_dtype())

    def forward(self, inputs: Tensor, types: Tensor) -> Tensor:
        """Logits [N], positive for all-atom, of standardized densities of beads of the given types."""
        mixed = [
            mix(inputs[:, :, l * l : (l + 1) ** 2].flatten(1)) for l, mix in enumerate(self.mix)
        ]
        invariants = [mixed[0], self.kind(types)]
        invariants += [power(m, m) for power, m in zip(self.power, mixed)]
        pair = torch.cat([mixed[1], mixed[2]], -1)
        invariants.append(self.contract(self.product(pair, pair), mixed[2]))
        return self.logit(torch.cat(invariants, -1))[:, 0]
