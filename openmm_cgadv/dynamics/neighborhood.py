"""The friction of a bead among its neighbours, from friction that acts between pairs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..potentials.neighbors import neighbor_pairs
from ..potentials.terms.type_pairs import type_pairs

DISTANCE_BINS = 200
"""Number of distances, evenly spaced up to the cutoff, at which neighbours are counted."""


@dataclass(frozen=True)
class Neighborhood:
    """Mean number of neighbours at each distance.

    Attributes
    ----------
    r : Tensor [R]
        Distances (nm).
    numbers : Tensor [n_types, n_type_pairs, R]
        Mean number of neighbours of a bead of a type at such a distance, for each pair of types, times the mass μ of
        the pair (:class:`~openmm_cgadv.dynamics.PairFriction`) over that of the bead.
    """

    r: Tensor
    numbers: Tensor

    @classmethod
    def measure(
        cls,
        positions: Tensor,
        boxes: Tensor,
        types: Tensor,
        masses: Tensor,
        r_cut: float,
        n_types: int,
    ) -> Neighborhood:
        """Count neighbours within ``r_cut`` (nm) in frames [F, N, 3] (nm) of beads of types and masses [N] (dalton).

        A type without beads has no neighbours.
        """
        width = r_cut / DISTANCE_BINS
        counts = torch.zeros(
            [n_types, n_types * (n_types + 1) // 2, DISTANCE_BINS], dtype=torch.float64
        )
        for x, box in zip(positions, boxes):
            i, j, _, distance = neighbor_pairs(x, box, r_cut)
            pair = type_pairs(types[i], types[j], n_types)
            bins = (distance / width).to(torch.int64).clamp(max=DISTANCE_BINS - 1)
            for a, b in ((i, j), (j, i)):
                weight = 2.0 * masses[b] / (masses[a] + masses[b])
                counts.index_put_((types[a], pair, bins), weight, accumulate=True)
        beads = torch.bincount(types, minlength=n_types)[:, None, None].clamp(min=1)
        return cls(
            width * (torch.arange(DISTANCE_BINS, dtype=torch.float64) + 0.5),
            counts / (len(positions) * beads),
        )

    def mean(self, pair: Tensor) -> Tensor:
        """Return the single-particle mean [n_types, ...] of a quantity of pairs parallel and perpendicular to them.

        It acts on one component of a bead's velocity if the neighbours lie in all directions and move independently of
        the bead.

        Parameters
        ----------
        pair : Tensor [n_type_pairs, 2, R, ...]
            Parallel and perpendicular parts at the distances ``r``.
        """
        return torch.einsum("apr,pr...->a...", self.numbers, (pair[:, 0] + 2.0 * pair[:, 1]) / 3.0)
