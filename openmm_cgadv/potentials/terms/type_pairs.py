"""The order of the pairs of bead types: 0-0, 0-1, …, 1-1, 1-2, …, in which terms store a number for each pair."""

import torch
from torch import Tensor


def n_type_pairs(n_types: int) -> int:
    """Return the number of unordered pairs of bead types."""
    return n_types * (n_types + 1) // 2


def type_pairs(type_i: Tensor, type_j: Tensor, n_types: int) -> Tensor:
    """Return the indices [M] of unordered pairs of bead types."""
    a, b = torch.minimum(type_i, type_j), torch.maximum(type_i, type_j)
    return a * n_types - torch.div(a * (a - 1), 2, rounding_mode="floor") + (b - a)
