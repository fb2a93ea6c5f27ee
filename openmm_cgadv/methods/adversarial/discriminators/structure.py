"""Discriminator of configurations, linear in the basis functions of the energy."""

from __future__ import annotations

import torch
from torch import Tensor


class StructureDiscriminator(torch.nn.Module):
    """Discriminator with one logit for every configuration, linear in the basis functions of the energy.

    For two energies that are linear in the same functions, the logarithm of the density ratio is the difference of the
    energies in units of kT. A more general discriminator would therefore detect only differences that such an energy
    cannot correct.

    Parameters
    ----------
    n_functions : int
    """

    def __init__(self, n_functions: int):
        super().__init__()
        self.linear = torch.nn.Linear(n_functions, 1)
        torch.nn.init.zeros_(self.linear.weight)
        torch.nn.init.zeros_(self.linear.bias)

    @property
    def slope(self) -> Tensor:
        """Derivative of the logit with respect to the inputs [P]."""
        return self.linear.weight[0].detach()

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits [F], positive for all-atom, of inputs [F, P]."""
        return self.linear(inputs)[:, 0]
