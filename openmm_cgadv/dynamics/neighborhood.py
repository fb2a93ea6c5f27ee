"""What a bead among its neighbours feels of a friction that acts between pairs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..potentials.neighbors import neighbor_pairs
from ..potentials.terms.pair import type_pairs

BINS = 200


@dataclass(frozen=True)
class Neighborhood:
    """Mean number of neighbours at each distance.

    Attributes
    ----------
    r : Tensor [R]
        Distances (nm).
    numbers : Tensor [n_types, n_type_pairs, R]
        Neighbours that a bead of a type has at such a distance, for each pair of types, times the mass μ of the pair
        (:class:`~openmm_cgadv.dynamics.PairFriction`) over that of the bead.
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
        """Count the neighbours in frames [F, N, 3] (nm) of beads of given types and masses [N]; a type without beads has none."""
        width = r_cut / BINS
        counts = torch.zeros([n_types, n_types * (n_types + 1) // 2, BINS], dtype=torch.float64)
        for x, box in zip(positions, boxes):
            i, j, _, distance = neighbor_pairs(x, box, r_cut)
            kind = type_pairs(types[i], types[j], n_types)
            place = (distance / width).to(torch.int64).clamp(max=BINS - 1)
            for a, b in ((i, j), (j, i)):
                weight = 2.0 * masses[b] / (masses[a] + masses[b])
                counts.index_put_((types[a], kind, place), weight, accumulate=True)
        beads = torch.bincount(types, minlength=n_types)[:, None, None].clamp(min=1)
        return cls(
            width * (torch.arange(BINS, dtype=torch.float64) + 0.5),
            counts / (len(positions) * beads),
        )

    def mean(self, pair: Tensor) -> Tensor:
        """What one component of a bead's velocity feels [n_types, ...] of what acts along and across pairs.

        The neighbours of a bead lie in all directions and move independently of it.

        Parameters
        ----------
        pair : Tensor [n_type_pairs, 2, R, ...]
            At the distances ``r``.
        """
        return torch.einsum("apr,pr...->a...", self.numbers, (pair[:, 0] + 2.0 * pair[:, 1]) / 3.0)
