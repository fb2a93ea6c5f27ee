"""Tells configurations apart by how beads are arranged, as the energy sees them."""

from __future__ import annotations

import torch
from torch import Tensor


class StructureDiscriminator(torch.nn.Module):
    """One logit for every configuration, linear in the functions that make the energy.

    Two ensembles of such energies differ in no other way: the logarithm of the ratio of their densities is the difference of
    their energies, in units of kT. So nothing can be seen beyond it that a potential of these functions could mend.

    Parameters
    ----------
    n_functions : int
    """

    def __init__(self, n_functions: int):
        super().__init__()
        self.linear = torch.nn.Linear(n_functions, 1)
        # Nothing is known at first.
        torch.nn.init.zeros_(self.linear.weight)
        torch.nn.init.zeros_(self.linear.bias)

    @property
    def slope(self) -> Tensor:
        """What the logit gains with each input [P]."""
        return self.linear.weight[0].detach()

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits [F], positive for all-atom, of inputs [F, P]."""
        return self.linear(inputs)[:, 0]
