"""Linear maps of features, with channels in the first dimension and beads in the last.

Discriminators have few channels and many beads. With this layout, a linear map is one product of matrices with long rows.
Scalars and vectors stay in separate tensors; splitting and joining them would take as long as the products.
"""

from __future__ import annotations

import torch
from e3nn import o3
from torch import Tensor


class Linear(torch.nn.Linear):
    """Linear map ``y = W x + b`` of features [inputs, ...]."""

    def forward(self, features: Tensor) -> Tensor:
        """Return features [outputs, ...] of features [inputs, ...]."""
        product = torch.addmm(self.bias[:, None], self.weight, features.flatten(1))
        return product.unflatten(1, features.shape[1:])


class EquivariantLinear(o3.Linear):
    """Equivariant linear map of scalars [channels, ...] and vectors [channels, 3, ...] in separate tensors."""

    def forward(self, *features: Tensor) -> tuple[Tensor, ...]:
        """Return the mapped features of each type."""
        mixed = []
        for x, (_, instruction, weight) in zip(features, self.weight_views(yield_instruction=True)):
            product = (instruction.path_weight * weight).T @ x.flatten(1)
            mixed.append(product.unflatten(1, x.shape[1:]))
        return tuple(mixed)
