"""Linear maps of features whose channels come first and whose beads come last.

Critics have few channels and many beads. In this order a linear map is one product of matrices with long rows, and scalars
and vectors need not be taken apart and joined again, which takes as long as the products do.
"""

from __future__ import annotations

import torch
from e3nn import o3
from torch import Tensor


class Linear(torch.nn.Linear):
    """``y = W x + b`` of features [inputs, ...]."""

    def forward(self, features: Tensor) -> Tensor:
        product = torch.addmm(self.bias[:, None], self.weight, features.flatten(1))
        return product.unflatten(1, features.shape[1:])


class EquivariantLinear(o3.Linear):
    """An ``o3.Linear`` of features of each kind by themselves: scalars [channels, ...], vectors [channels, 3, ...]."""

    def forward(self, *features: Tensor) -> tuple[Tensor, ...]:
        mixed = []
        for x, (_, instruction, weight) in zip(features, self.weight_views(yield_instruction=True)):
            product = (instruction.path_weight * weight).T @ x.flatten(1)
            mixed.append(product.unflatten(1, x.shape[1:]))
        return tuple(mixed)
